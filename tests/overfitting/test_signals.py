"""A slow fall of PGD accuracy on held-out images: told in time, and not taken from chance."""

from math import inf

import numpy as np
import pytest
from scipy.stats import norm

from energy_at.overfitting.alarms import RISE, Thresholds
from energy_at.overfitting.detector import Detector
from energy_at.overfitting.signals import WINDOW, Decline, Rise
from tests.helpers.running import TINY_BN, fitted
from tests.overfitting.test_detector import WORKS, row, validation, watched

TRAINED = [row(s, **{**WORKS, "marginal": 0.0, "shift": 0.5}) for s in range(20)]


def validated(accuracies, apart=0.07):
    """Validations whose dE(x) has parted so far from that of training images, of 0.1 for alarm."""
    return [validation(20 + i, float(a), marginal=apart, shift=0.5)
            for i, a in enumerate(accuracies)]  # fmt: skip


def told(accuracies, apart=0.07, images=5000):
    detector = Detector(Thresholds(), classes=10, images=images)
    return watched([*TRAINED, *validated(accuracies, apart)], detector)


def falling(pace, lost, level=0.5):
    """Ten validations at a level, and more that fall until so much is lost."""
    return [level] * 10 + [level - pace * k for k in range(1, round(lost / pace) + 1)]


def seen(accuracies):
    fall = Decline()
    for accuracy in accuracies:
        fall.see(accuracy)
    return fall


@pytest.mark.parametrize("steps", [5, 6, 30])
def test_a_steady_fall_is_foreseen_exactly(steps):
    now, later = (seen(falling(0.01, 0.01 * k)) for k in (steps, steps + 1))
    assert now.best == pytest.approx(0.5)
    assert now.by_next == pytest.approx(later.best - np.mean(later.accuracies[1:]))


def test_nothing_is_foreseen_before_there_is_a_pace():
    accuracies = [0.5, 0.4, 0.3, 0.2, 0.1, 0.0]
    assert all(seen(accuracies[:n]).by_next == 0 for n in range(WINDOW + 1))
    assert seen(accuracies).by_next == pytest.approx(0.2)


def test_the_limit_is_two_standard_errors_of_independent_images():
    images, rng = 400, np.random.default_rng(0)
    means = rng.binomial(images, 0.3, (20000, 2, WINDOW)).mean(2) / images
    error = float(np.diff(means).std())
    assert Decline(best=0.3).limit(0.001, images) == pytest.approx(2 * error, rel=0.03)


def test_images_that_are_decided_do_not_err():
    """Of 400, 140 always wrong and 60 always right: half of the variance is left."""
    tossed = np.random.default_rng(0).binomial(200, 0.3, (20000, 2, WINDOW))
    error = float(np.diff((tossed.mean(2) + 60) / 400).std())
    bound = Decline(best=0.3).limit(0.001, 400)
    assert 2 * error == pytest.approx(bound / 2**0.5, rel=0.03)


def test_the_limit_is_the_loss_where_images_are_many_and_endless_where_unknown():
    assert Decline(best=0.5).limit(0.03, 10_000) == 0.03
    assert Decline(best=0.5).limit(0.03, 100) == pytest.approx(2 * (0.25 / 100 * 0.4) ** 0.5)
    assert Decline(best=0.5).limit(0.03, None) == inf


@pytest.mark.parametrize("pace", [0.002, 0.005, 0.01])
@pytest.mark.parametrize("images", [1000, 5000])
def test_a_slow_fall_is_told_before_three_points_are_lost(pace, images):
    accuracies = falling(pace, 0.1)
    (alarm,) = told(accuracies, images=images)
    assert (alarm.kind, alarm.held_out) == ("RO", True)
    assert alarm.value >= alarm.threshold == pytest.approx(0.03)
    means = np.convolve(accuracies, np.full(WINDOW, 1 / WINDOW), "valid")
    lost = 0.5 - means[alarm.step - 20 - WINDOW + 1]
    assert 0.03 - pace - 1e-9 <= lost < 0.03


@pytest.mark.parametrize("sound", [{"apart": 0.04}, {"images": None}, {"images": 100}])
def test_a_fall_that_chance_or_learning_may_make_raises_no_alarm(sound):
    assert told(falling(0.005, 0.05), **sound) == []


def test_a_network_that_never_was_robust_has_nothing_to_lose():
    assert told(falling(0.005, 0.06, level=0.14)) == []


@pytest.mark.parametrize(("last", "alarms"), [(0.51, 0), (0.49, 1)])
def test_a_new_height_is_no_fall(last, alarms):
    """Ten points were lost while dE(x) was together; then it parts."""
    before = validated(falling(0.01, 0.1), apart=0.0)
    (parts,) = validated([last])
    detector = Detector(Thresholds(), classes=10, images=5000)
    assert len(watched([*TRAINED, *before, parts], detector)) == alarms


def noise(images, accuracy=0.5, count=1000):
    return np.random.default_rng(0).binomial(images, accuracy, count) / images


def test_noise_of_a_constant_accuracy_raises_no_alarm():
    """In 1,000 validations of 5,000 images at 50 %, with probability above 99.6 %.

    The best mean less the next one foreseen has the deviation sqrt(14) / 5 of one validation
    where they share none, less where they do; there are 1,000^2 / 2 pairs.
    """
    deviation = (0.25 / 5000 * 14) ** 0.5 / 5
    assert norm.sf(0.03 / deviation) * 1000**2 / 2 < 0.004
    assert told(noise(5000), images=5000) == []


def test_noise_of_few_images_raises_no_alarm_while_delta_energy_is_together():
    assert len(told(noise(237), images=237)) > 0
    assert told(noise(237), apart=0.049, images=237) == []


@pytest.mark.parametrize(("back", "alarms"), [(0.475, 1), (0.5, 2)])
def test_a_fall_is_one_alarm_until_the_accuracy_is_clearly_back(back, alarms):
    """Lost are 2.5 points in the end, or none; clear of the threshold, by half of it, are 2."""
    fall = falling(0.01, 0.06)
    again = [back - 0.01 * k for k in range(1, 8)]
    accuracies = [*fall, *[0.44] * 10, *[back] * 10, *again]
    hovers = [row | {"val/delta_energy/marginal": 0.04 + 0.02 * (i % 2)}
              for i, row in enumerate(validated(accuracies))]  # fmt: skip
    detector = Detector(Thresholds(), classes=10, images=5000)
    assert len(watched([*TRAINED, *hovers], detector)) == alarms


def test_a_detector_goes_on_falling_from_its_state_and_forgets_the_pace_of_what_is_undone():
    whole, first, second = (Detector(Thresholds(), classes=10, images=5000) for _ in range(3))
    rows = [*TRAINED, *validated(falling(0.005, 0.1))]
    (alarm,) = watched(rows, whole)
    assert watched(rows[: alarm.step], first) == []
    second.load_state_dict(first.state_dict())
    assert watched(rows[alarm.step :], second) == [alarm]
    first.reset()
    assert watched([*TRAINED, *validated([0.3] * WINDOW)], first) == []
    assert len(watched(validated([0.3]), first)) == 1


@pytest.mark.parametrize(("batches", "images"), [("1.0", 20), ("2", 16)])
def test_the_sentinel_counts_the_held_out_images(tmp_path, batches, images):
    run = fitted(tmp_path, *TINY_BN, "dataset.val_size=20", "dataset.eval_batch_size=8",
                 f"+trainer.limit_val_batches={batches}", "trainer.max_epochs=1")  # fmt: skip
    (sentinel,) = (c for c in run.trainer.callbacks if hasattr(c, "detector"))
    assert sentinel.detector.images == images


# The cross-entropy rises


def risen(losses):
    rise = Rise()
    for loss in losses:
        rise.see(loss)
    return rise.share


def test_the_rise_is_that_of_the_running_mean_above_its_best():
    assert risen([9.0, 1.0, 1.0, 1.0, 1.0]) == 0  # one mean is its own best
    assert risen([9.0, *[1.0] * 5]) == 0
    assert risen([9.0, *[1.0] * 5, 2.0]) == pytest.approx(0.2)
    assert risen([9.0, *[1.0] * 5, *[2.0] * 9]) == pytest.approx(1)
    assert risen([9.0, *[1.0] * 5, *[2.0] * 9, *[0.5] * 5]) == 0
    assert risen([1.0, 2.0, 3.0]) == 0


def overconfident(pace, accuracies, apart=0.07):
    """Ten validations at a cross-entropy of 2, then as many more as it rises in."""
    rows = validated(accuracies, apart)
    return [r | {"val/ce/pgd": 2 + pace * max(0, i - 9)} for i, r in enumerate(rows)]


SLOW = falling(0.002, 0.02)  # its end loses two points: no sign alone


@pytest.mark.parametrize("apart", [0.001, 0.07])
def test_a_cross_entropy_that_rises_tells_before_the_accuracy_can(apart):
    detector = Detector(Thresholds(), classes=10, images=50_000)
    (alarm,) = watched([*TRAINED, *overconfident(0.08, SLOW, apart)], detector)
    assert (alarm.kind, alarm.signal, alarm.held_out) == ("RO", RISE, True)
    # the mean of five is that of two validations ago: 3 times 0.08 nats are more than 10 % of 2
    assert alarm.step == 20 + 9 + 2 + 3
    assert alarm.value == pytest.approx(0.12)
    assert alarm.row()["alarm/by/rise"] == alarm.value


@pytest.mark.parametrize(
    ("rows", "images"),
    [
        (overconfident(0.08, SLOW, apart=0.0), 50_000),
        (overconfident(0.08, [0.5] * 50), 50_000),
        (overconfident(0.08, falling(0.002, 0.02, level=0.14)), 50_000),
        (overconfident(0.012, SLOW), 50_000),
        (overconfident(0.08, SLOW), 100),
        (overconfident(0.08, SLOW), None),
    ],
    ids=["together", "no fall", "never robust", "by less than 10 %", "by chance", "unknown"],
)
def test_a_rise_alone_raises_no_alarm(rows, images):
    detector = Detector(Thresholds(), classes=10, images=images)
    assert watched([*TRAINED, *rows], detector) == []


def test_what_is_lost_is_that_of_the_running_mean():
    assert seen([0.5, 0.4, 0.3, 0.2]).lost == 0
    assert seen([0.5] * 5).lost == 0
    assert seen([*[0.5] * 5, 0.4]).lost == pytest.approx(0.02)
    assert seen([*[0.5] * 5, *[0.4] * 9]).lost == pytest.approx(0.1)


def test_a_detector_goes_on_rising_from_its_state():
    first, second = (Detector(Thresholds(), classes=10, images=50_000) for _ in range(2))
    rows = [*TRAINED, *overconfident(0.08, SLOW)]
    assert watched(rows[:33], first) == []
    second.load_state_dict(first.state_dict())
    (alarm,) = watched(rows[33:], second)
    assert (alarm.signal, alarm.step) == (RISE, 34)
