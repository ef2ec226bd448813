"""Alarms raised by series of signals whose onset is known."""

from math import ceil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, norm

from energy_at.overfitting.alarms import RISE, Thresholds
from energy_at.overfitting.detector import Detector
from energy_at.overfitting.signals import WINDOW
from tests.helpers.logs import FAILS, WORKS, row, validation

SOUND = 2**-0.5  # alignment of the first; the second has none


def watched(rows, detector=None, **thresholds):
    detector = detector or Detector(Thresholds(**thresholds), classes=10)
    return [alarm for alarm in map(detector.update, rows) if alarm is not None]


@pytest.mark.parametrize("onset", [1, 50, 137])
@pytest.mark.parametrize("window", [4, 20, 21])
def test_an_alarm_comes_as_soon_as_both_means_have_crossed(onset, window):
    rows = [row(s, **(FAILS if s >= onset else WORKS)) for s in range(1, onset + 100)]
    (alarm,) = watched(rows, window=window)
    assert (alarm.kind, alarm.held_out) == ("CO", False)
    needed = ceil(window * max(0.25 / 0.5, 1 - 0.2 / SOUND))  # steps that fail
    assert alarm.step == max(onset + needed - 1, window)


@pytest.mark.parametrize("healthy", [{"aae": 0.2}, {"joint": -0.3}, {"adv": 0.12}])
def test_one_missing_signal_raises_no_alarm(healthy):
    assert watched([row(s, **(FAILS | healthy)) for s in range(100)]) == []


def test_steps_of_an_attack_that_does_not_climb_the_loss_raise_no_alarm():
    detector = Detector(Thresholds(), classes=10, climbs_loss=False)
    assert watched([row(s, **FAILS) for s in range(100)], detector) == []


def noisy(share, steps, batch=64):
    """Steps whose attack fails, with abnormal examples by chance."""
    shares = np.random.default_rng(0).binomial(batch, share, steps) / batch
    return [row(i, **{**FAILS, "aae": float(a)}) for i, a in enumerate(shares)]


def bound(share, window=20, batch=64):
    """Chance of a window whose share is above the threshold, by the binomial distribution."""
    return binom.sf(ceil(0.25 * window * batch) - 1, window * batch, share)


def test_false_alarms_of_noise_stay_below_the_binomial_bound():
    assert 0 < len(watched(noisy(0.23, 4000))) <= 4000 * bound(0.23)


def test_noise_of_a_healthy_training_raises_no_alarm():
    assert bound(0.17) < 1e-9  # a window, whatever the alignment
    assert watched(noisy(0.17, 4000)) == []


def phases(*lengths):
    whole = [phase for phase, length in lengths for _ in range(length)]
    return [row(i, **phase) for i, phase in enumerate(whole)]


@pytest.mark.parametrize(("healthy", "alarms_at"), [(80, [44]), (120, [44, 214])])
def test_a_collapse_is_one_alarm_until_the_steps_were_healthy_for_a_while(healthy, alarms_at):
    rows = phases((WORKS, 30), (FAILS, 50), (WORKS, healthy), (FAILS, 50))
    assert [alarm.step for alarm in watched(rows, recovery=100)] == alarms_at


@pytest.mark.parametrize("near", [{"aae": 0.24}, {"joint": -0.08}])
def test_a_signal_that_hovers_at_its_threshold_raises_one_alarm(near):
    hovering = [(FAILS | near if i % 2 else FAILS, 40) for i in range(20)]
    assert len(watched(phases((WORKS, 30), *hovering), recovery=20)) == 1


# Held-out images

CREEPS = {"marginal": -0.3, "joint": -0.4, "shift": 0.5, "aae": 0.34, "adv": 0.9}  # alignment 0.14


@pytest.mark.parametrize(("pgd", "alarms_at"), [(None, 1), (0.8, 0), (0.35, 1)])
def test_signals_that_held_out_robustness_contradicts_raise_no_alarm(pgd, alarms_at):
    """The last validation counts: a PGD/FGSM ratio below half its best confirms nothing."""
    steps = phases((CREEPS | {"aae": 0.2}, 20), (CREEPS, 40))
    checks = [] if pgd is None else [validation(19, 0.8, 0.85), validation(20, pgd, 0.85)]
    assert len(watched([*steps[:20], *checks, *steps[20:]])) == alarms_at


@pytest.mark.parametrize(
    ("signs", "alarms_at"), [({}, 1), ({"aae": 0.52}, 0), ({"marginal": -0.4, "joint": -0.39}, 0)]
)
def test_steps_of_a_robust_network_that_look_like_failure_raise_no_alarm(signs, alarms_at):
    unlearned = CREEPS | {"aae": 0.45, "adv": 0.12} | signs
    steps = phases((unlearned, 20), (FAILS, 60))
    assert len(watched([*steps[:20], validation(20, 0.8, 0.85), *steps[20:]])) == alarms_at


def test_a_collapse_is_detected_half_way_from_what_was_confirmed():
    healthy = {**WORKS, "aae": 0.2}
    rows = [*phases((healthy, 20)), validation(20, 0.3, 0.32)]
    fails = [row(20 + i, **FAILS) for i in range(1, 30)]
    (alarm,) = watched([*rows, *fails])
    assert alarm.threshold == pytest.approx((0.2 + 0.5) / 2)
    needed = ceil(20 * max(0.15 / 0.3, 1 - 0.2 / SOUND))  # steps that fail
    assert alarm.step == 20 + needed


def test_a_network_that_never_becomes_robust_is_detected_at_the_fifth_validation():
    weak = [validation(10 * n, 0.1, fgsm=0.31) for n in range(1, 20)]
    (alarm,) = watched(weak)  # and no second one while it lasts
    assert (alarm.kind, alarm.step, alarm.held_out) == ("CO", 50, True)
    assert (alarm.value, alarm.threshold) == pytest.approx((0.1 / 0.31, 1 / 3))


@pytest.mark.parametrize(
    "other",
    [validation(45, 0.2, fgsm=0.5), validation(45, 0.0, fgsm=0.14)],
    ids=["more than a third", "nothing is learned"],
)
def test_a_network_that_is_weak_for_a_while_raises_none(other):
    weak = [validation(10 * n, 0.1, fgsm=0.31) for n in range(1, 9)]
    assert watched([*weak[:4], other, *weak[4:]]) == []


def test_pgd_that_is_weaker_than_fgsm_once_sets_no_scale():
    """A few images, or one step of PGD, may show it; their ratio may then fall to 1."""
    odd, healthy = validation(10, 0.8, fgsm=0.2), [validation(10 * i, 0.3) for i in range(2, 9)]
    assert watched([odd, *healthy]) == []


def test_pgd_that_breaks_away_from_fgsm_is_catastrophic():
    healthy = [validation(10 * i, 0.3, 0.32) for i in range(1, 4)]
    broken = [validation(10 * i, 0.05, 0.4) for i in range(4, 8)]
    (alarm,) = watched([*healthy, *broken])
    assert (alarm.kind, alarm.step, alarm.held_out) == ("CO", 40, True)
    lost_both = [validation(10 * i, 0.05, 0.06) for i in range(4, 8)]
    assert watched([*healthy, *lost_both]) == []


@pytest.mark.parametrize(("back", "alarms_at"), [(0.2, 1), (0.3, 2)])
def test_held_out_images_raise_no_second_alarm_before_pgd_is_clearly_back(back, alarms_at):
    """PGD over FGSM at 0.5 of its best is above the threshold of 0.4, but ends no alarm yet."""
    accuracies = [0.3, 0.05, *[back] * 3, 0.05]
    rows = [validation(10 * i, pgd, 0.3 if pgd == 0.3 else 0.4) for i, pgd in enumerate(accuracies)]
    assert len(watched(rows)) == alarms_at


def test_a_network_that_never_was_robust_has_nothing_to_break_away_from():
    assert watched([validation(i, 0.02, 0.4) for i in range(4)]) == []


def test_robust_overfitting_is_divergence_of_delta_energy():
    train = [row(s, **{**WORKS, "marginal": -0.1, "shift": 0.5}) for s in range(30)]
    apart = [validation(s, 0.3, marginal=0.08, shift=0.7) for s in (31, 32, 33, 34)]
    (alarm,) = watched([*train, validation(30, 0.31, marginal=-0.1), *apart], patience=2)
    assert (alarm.kind, alarm.step) == ("RO", 32)
    assert alarm.value == pytest.approx((0.08 + 0.1) / (0.7 + 0.5))


@pytest.mark.parametrize(("back", "alarms_at"), [(0.05, 1), (-0.02, 2)])
def test_robust_overfitting_raises_no_second_alarm_before_it_is_clearly_over(back, alarms_at):
    """Parting goes to 0.08, under the threshold of 0.1, or to 0.02."""
    train = [row(s, **{**WORKS, "marginal": -0.04, "shift": 0.5}) for s in range(30)]
    marginals = [-0.04, *[0.2] * 3, *[back] * 3, *[0.2] * 3]
    rows = [validation(31 + i, 0.3, marginal=m, shift=0.6) for i, m in enumerate(marginals)]
    assert [alarm.kind for alarm in watched([*train, *rows])] == ["RO"] * alarms_at


def test_nothing_is_overfitted_while_robustness_grows():
    train = [row(s, **{**WORKS, "marginal": -0.1, "shift": 0.5}) for s in range(30)]
    grows = [validation(31 + i, 0.2 + 0.01 * i, marginal=0.1) for i in range(10)]
    assert watched([*train, *grows]) == []


# A slow drop of the accuracy, and a rise of the cross-entropy

TRAINED = [row(s, **{**WORKS, "marginal": 0.0, "shift": 0.5}) for s in range(20)]


def validated(accuracies, apart=0.07):
    """Validations whose dE(x) has parted so far from that of training images, of 0.1 for alarm."""
    return [validation(20 + i, float(a), marginal=apart, shift=0.5)
            for i, a in enumerate(accuracies)]  # fmt: skip


def alarms_at(accuracies, apart=0.07, images=5000):
    detector = Detector(Thresholds(), classes=10, images=images)
    return watched([*TRAINED, *validated(accuracies, apart)], detector)


def falling(pace, lost, level=0.5):
    """Ten validations at a level, and more that fall until so much is lost."""
    return [level] * 10 + [level - pace * k for k in range(1, round(lost / pace) + 1)]


@pytest.mark.parametrize("pace", [0.002, 0.005, 0.01])
@pytest.mark.parametrize("images", [1000, 5000])
def test_a_slow_drop_is_detected_before_three_points_are_lost(pace, images):
    accuracies = falling(pace, 0.1)
    (alarm,) = alarms_at(accuracies, images=images)
    assert (alarm.kind, alarm.held_out) == ("RO", True)
    assert alarm.value >= alarm.threshold == pytest.approx(0.03)
    means = np.convolve(accuracies, np.full(WINDOW, 1 / WINDOW), "valid")
    lost = 0.5 - means[alarm.step - 20 - WINDOW + 1]
    assert 0.03 - pace - 1e-9 <= lost < 0.03


def test_a_slow_fall_must_exceed_two_standard_errors():
    (alarm,) = alarms_at(falling(0.005, 0.1), images=200)
    assert alarm.threshold == pytest.approx(2 * (0.25 / 200 * 0.4) ** 0.5)


@pytest.mark.parametrize("healthy", [{"apart": 0.04}, {"images": None}, {"images": 100}])
def test_a_drop_by_chance_or_learning_raises_no_alarm(healthy):
    assert alarms_at(falling(0.005, 0.05), **healthy) == []


def test_a_network_that_never_was_robust_has_nothing_to_lose():
    assert alarms_at(falling(0.005, 0.06, level=0.14)) == []


@pytest.mark.parametrize(("last", "alarms"), [(0.51, 0), (0.49, 1)])
def test_a_new_best_is_no_drop(last, alarms):
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
    assert alarms_at(noise(5000), images=5000) == []


def test_noise_of_few_images_raises_no_alarm_without_divergence():
    assert len(alarms_at(noise(237), images=237)) > 0
    assert alarms_at(noise(237), apart=0.049, images=237) == []


@pytest.mark.parametrize(("back", "alarms"), [(0.475, 1), (0.5, 2)])
def test_a_drop_is_one_alarm_until_the_accuracy_is_clearly_back(back, alarms):
    """Lost are 2.5 points in the end, or none; 2 are half of the threshold, which ends an alarm."""
    fall = falling(0.01, 0.06)
    again = [back - 0.01 * k for k in range(1, 8)]
    accuracies = [*fall, *[0.44] * 10, *[back] * 10, *again]
    hovers = [row | {"val/delta_energy/marginal": 0.04 + 0.02 * (i % 2)}
              for i, row in enumerate(validated(accuracies))]  # fmt: skip
    detector = Detector(Thresholds(), classes=10, images=5000)
    assert len(watched([*TRAINED, *hovers], detector)) == alarms


def test_a_restored_detector_extrapolates_on_and_a_reset_one_forgets_the_rate():
    whole, first, second = (Detector(Thresholds(), classes=10, images=5000) for _ in range(3))
    rows = [*TRAINED, *validated(falling(0.005, 0.1))]
    (alarm,) = watched(rows, whole)
    assert watched(rows[: alarm.step], first) == []
    second.load_state_dict(first.state_dict())
    assert watched(rows[alarm.step :], second) == [alarm]
    first.reset()
    assert watched([*TRAINED, *validated([0.3] * WINDOW)], first) == []
    assert len(watched(validated([0.3]), first)) == 1


def overconfident(pace, accuracies, apart=0.07):
    """Ten validations at a cross-entropy of 2, then as many more as it rises in."""
    rows = validated(accuracies, apart)
    return [r | {"val/ce/pgd10": 2 + pace * max(0, i - 9)} for i, r in enumerate(rows)]


SLOW = falling(0.002, 0.02)  # its end loses two points: no sign alone


@pytest.mark.parametrize("apart", [0.001, 0.07])
def test_a_rising_cross_entropy_is_detected_before_the_accuracy_drop(apart):
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


# Memory


def series(seed):
    """Steps and validations of a training that collapses and overfits now and then."""
    rng = np.random.default_rng(seed)
    phase = np.repeat(rng.random(12) < 0.4, 25)
    rows = []
    for step, fails in enumerate(phase, 1):
        noisy = fails != (rng.random() < 0.2)
        rows.append(row(step, **{**(FAILS if noisy else WORKS), "marginal": rng.normal(-0.1, 0.1)}))
        if step % 10 == 0:
            rows.append(validation(step, rng.uniform(0, 0.4), 0.3, rng.normal(0, 0.2)))
    return rows


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 330))
def test_a_restored_detector_continues(seed, cut):
    rows = series(seed)
    whole, first, second = (Detector(Thresholds(), classes=10) for _ in range(3))
    before = [first.update(r) for r in rows[:cut]]
    second.load_state_dict(first.state_dict())
    assert before + [second.update(r) for r in rows[cut:]] == [whole.update(r) for r in rows]
    assert second.state_dict() == whole.state_dict()
    assert second.is_healthy == whole.is_healthy


def test_signals_are_not_healthy():
    detector = Detector(Thresholds(), classes=10)
    watched([row(s, **WORKS) for s in range(20)], detector)
    assert detector.is_healthy
    watched([row(s, **FAILS) for s in range(20, 25)], detector)
    assert not detector.is_healthy
    watched([row(s, **FAILS) for s in range(25, 40)], detector)
    detector.reset()
    assert detector.is_healthy


def test_a_restored_detector_detects_the_rise():
    first, second = (Detector(Thresholds(), classes=10, images=50_000) for _ in range(2))
    rows = [*TRAINED, *overconfident(0.08, SLOW)]
    assert watched(rows[:33], first) == []
    second.load_state_dict(first.state_dict())
    (alarm,) = watched(rows[33:], second)
    assert (alarm.signal, alarm.step) == (RISE, 34)


# PertAlign


def aligned(steps, value, **other):
    return [row(s, **(WORKS | other)) | {"train/pert_align": value} for s in steps]


def test_pert_align_raises_no_alarm_unless_it_is_switched_on():
    assert watched(aligned(range(200), 0.0)) == []


@pytest.mark.parametrize("window", [4, 20])
def test_a_mean_of_pert_align_below_its_threshold_raises_one_alarm(window):
    rows = aligned(range(1, 51), 0.9) + aligned(range(51, 120), 0.1)
    (alarm,) = watched(rows, window=window, pert_align=0.35)
    assert (alarm.kind, alarm.held_out) == ("CO", False)
    assert alarm.step == 50 + ceil(window * 0.55 / 0.8)
    assert alarm.row() == {
        "alarm/co": 1.0, "alarm/by/pert_align": alarm.value, "alarm/held_out": 0.0,
    }  # fmt: skip
    assert alarm.value < alarm.threshold == 0.35


@pytest.mark.parametrize(
    "rows",
    [
        aligned(range(100), 0.31),
        aligned(range(19), 0.0),  # the window is not full
        aligned(range(100), 0.0, adv=0.12),  # nothing has been learned
        aligned(range(100), float("nan")),
        [row(s, **WORKS) for s in range(100)],
    ],
    ids=["above", "few", "chance", "nan", "absent"],
)
def test_pert_align_that_shows_nothing_raises_no_alarm(rows):
    assert watched(rows, pert_align=0.3) == []


@pytest.mark.parametrize(("back", "count"), [(0.31, 1), (0.9, 2)])
def test_pert_align_that_hovers_at_its_threshold_is_one_alarm(back, count):
    rows = aligned(range(100), 0.1) + aligned(range(100, 300), back) + aligned(range(300, 400), 0.1)
    assert len(watched(rows, pert_align=0.3, recovery=50)) == count


def test_a_threshold_near_one_is_cleared_by_the_distance_from_there():
    rows = aligned(range(50), 0.7) + aligned(range(50, 300), 0.95) + aligned(range(300, 400), 0.7)
    assert len(watched(rows, pert_align=0.9, recovery=50)) == 2


def test_pert_align_is_a_signal_of_an_unhealthy_network_and_a_reset_forgets_it():
    detector = Detector(Thresholds(pert_align=0.3), classes=10)
    watched(aligned(range(100), 0.9), detector)
    assert detector.is_healthy
    watched(aligned(range(100, 200), 0.1), detector)
    assert not detector.is_healthy
    again = Detector(Thresholds(pert_align=0.3), classes=10)
    again.load_state_dict(detector.state_dict())
    assert not again.is_healthy
    detector.reset()
    assert detector.is_healthy
