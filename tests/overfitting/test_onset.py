"""When a run counts as collapsed, overfitted or never robust, from logs written by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from energy_at.overfitting.onset import RunStatus, is_chance, status_of


def log(*accuracies):
    """Two training steps, then a validation, for each accuracy in percent."""
    rows = []
    for epoch, accuracy in enumerate(accuracies):
        steps = [
            {"step": 2.0 * epoch + i, "epoch": float(epoch), "train/loss": 1.0} for i in (1, 2)
        ]
        rows += [*steps, {"step": 2.0 * epoch + 2, "val/acc/pgd10": accuracy / 100}]
    return rows


IMAGES = 10_000  # at 10 classes up to 10.7 % are chance


def status(*accuracies, chance=0.1):
    return status_of(log(*accuracies), IMAGES, chance)


def onset(*accuracies):
    return status(*accuracies).onsets.get("CO")


def test_a_run_that_keeps_its_robustness_is_healthy():
    assert onset(20, 30, 35, 40, 38, 41) is None


def test_a_run_collapses_at_the_first_validation_below_half_its_best():
    assert onset(20, 30, 40, 12, 0, 0) == 8


@pytest.mark.parametrize("accuracies", [(20, 30, 40, 12), (15, 20, 40, 38, 30, 25, 20, 15, 12, 9)])
def test_what_is_lost_under_a_multi_step_attack_is_lost_to_robust_overfitting(accuracies):
    assert status(*accuracies).kind == "collapsed"
    found = status_of(log(*accuracies), IMAGES, 0.1, single_step=False)
    assert found == RunStatus("overfitted", 6)


def test_half_of_the_best_is_not_below_it():
    assert onset(20, 50, 25, 25) is None
    assert onset(20, 50, 25, 24) == 8


def test_a_run_that_comes_back_is_healthy():
    assert onset(40, 5, 0, 30) is None


@pytest.mark.parametrize(
    ("end", "collapsed"), [((19.8,), True), ((19.8, 20), True), ((22,), False)]
)
def test_a_run_that_comes_back_in_part_has_collapsed(end, collapsed):
    found = status(28, 29.2, 28, 0, 0, *end)
    assert found == (RunStatus("collapsed", 8) if collapsed else RunStatus("robust"))


def test_only_the_last_collapse_counts():
    assert onset(40, 0, 30, 45, 3, 0) == 10


def test_the_step_is_an_integer_as_logged():
    rows = [{"step": 390.0, "val/acc/pgd10": 0.4}, {"step": 780.0, "val/acc/pgd10": 0.0}]
    step = status_of(rows, IMAGES, 0.1).step
    assert step == 780
    assert isinstance(step, int)


# Never robust


@pytest.mark.parametrize("accuracies", [(0, 0, 0), (4, 6, 10), (10.7, 0)])
def test_a_run_that_never_exceeded_chance_is_not_robust_and_did_not_collapse(accuracies):
    assert status(*accuracies) == RunStatus("not robust")


def test_one_validation_above_chance_is_enough():
    assert status(0, 10.8).kind == "robust"
    assert status(10.8, 0) == RunStatus("collapsed", 4)


def test_a_run_that_was_never_validated_is_not_logged():
    assert status() == RunStatus("not logged")
    training = [row for row in log(40, 0, 0) if "train/loss" in row]
    assert status_of(training, IMAGES, 0.1) == RunStatus("not logged")


def test_chance_is_that_of_the_data_set():
    assert status(15, 15).kind == "robust"
    assert status(15, 15, chance=0.15).kind == "not robust"
    assert status(15, 15, chance=0.2).kind == "not robust"
    assert status(15, 15, chance=0.01).kind == "robust"


def validated(*pairs):
    """Clean and PGD accuracies in percent."""
    return [
        {"step": 2.0 * i, "val/acc/clean": clean / 100, "val/acc/pgd10": pgd / 100}
        for i, (clean, pgd) in enumerate(pairs, 1)
    ]


def test_a_network_that_ends_in_a_constant_prediction_has_collapsed():
    dead = validated((40, 15), (30, 14), (10, 10), (10, 10))
    assert status_of(dead, IMAGES, 0.1) == RunStatus("collapsed", 6)
    alive = validated((40, 15), (30, 14), (10, 10), (40, 10))
    assert status_of(alive, IMAGES, 0.1) == RunStatus("robust")


# Which checkpoints are results


def test_a_checkpoint_from_before_a_collapse_is_a_result():
    status = RunStatus("collapsed", 8)
    assert status.is_result(7)
    assert not status.is_result(8)
    assert not status.is_result()


@pytest.mark.parametrize(
    ("status", "result"),
    [
        (RunStatus("robust"), True),
        (RunStatus("overfitted", 8), True),
        (RunStatus("not logged"), True),
        (RunStatus("not robust"), False),
    ],
)
def test_no_checkpoint_of_a_run_that_never_was_robust_is_a_result(status, result):
    assert status.is_result(8) == status.is_result() == result


def test_onsets_are_those_of_catastrophic_and_robust_overfitting():
    assert RunStatus("collapsed", 8).onsets == {"CO": 8}
    assert RunStatus("overfitted", 9).onsets == {"RO": 9}
    assert RunStatus("robust").onsets == RunStatus("not robust").onsets == {}


# Robust overfitting


def overfitting(*accuracies):
    return status(*accuracies).onsets.get("RO")


RISE = (20, 30, 36, 40, 42, 43, 44)  # two steps between validations


def test_a_run_that_keeps_what_it_gained_does_not_overfit():
    assert overfitting(*RISE, 44, 44, 44, 44, 44) is None
    assert overfitting(*RISE) is None


def test_overfitting_starts_at_the_highest_accuracy_of_the_best_window():
    assert overfitting(*RISE, 45, 44, 43, 42, 41, 40, 39, 38, 37) == 16


def test_three_points_of_the_running_mean_must_be_lost():
    flat = (46,) * 5
    assert overfitting(*flat, *(43.1,) * 5) is None
    assert overfitting(*flat, *(42.9,) * 5) == 2


def test_one_bad_validation_at_the_end_is_no_overfitting():
    assert overfitting(*(46,) * 9, 36) is None


def test_one_good_validation_is_no_best():
    assert overfitting(30, 30, 30, 44, 30, 30, 30, 30, 30, 30, 30) is None


def test_a_run_that_recovers_does_not_overfit():
    assert overfitting(*(46,) * 5, 40, 40, 40, 40, 46, 46, 46, 46, 46) is None


def test_a_collapsed_run_does_not_overfit():
    lost = (*RISE, 45, 44, 30, 10, 0, 0, 0, 0)
    assert onset(*lost) is not None
    assert overfitting(*lost) is None


@pytest.mark.parametrize("n", range(6))
def test_five_validations_or_fewer_tell_nothing(n):
    assert overfitting(*(60, 55, 50, 45, 40)[:n]) is None


def test_six_validations_can_tell():
    assert overfitting(60, 56, 52, 48, 44, 40) == 2
    assert overfitting(60, 58, 56, 54, 52, 50) is None


@pytest.mark.parametrize("deviation", [0.5, 1, 2, 3])
@pytest.mark.parametrize("n", [20, 100])
def test_noise_around_a_constant_raises_no_alarm(deviation, n):
    draws = np.random.default_rng(0).normal(40, deviation, (50, n))
    assert sum(overfitting(*draw) is not None for draw in draws) <= 1


def test_slow_loss_is_seen_through_noise():
    trend = np.concatenate([np.linspace(20, 46, 50), np.linspace(46, 38, 50)])
    draws = trend + np.random.default_rng(0).normal(0, 1, (50, 100))
    steps = [overfitting(*draw) for draw in draws]
    assert None not in steps
    assert all(80 < step < 130 for step in steps)  # the peak is at step 100 of 200


# Chance


@pytest.mark.parametrize(
    ("images", "classes", "most"),
    [(500, 10, 0.132), (1000, 10, 0.123), (500, 100, 0.022), (500, 200, 0.014), (1000, 200, 0.011)],
)
def test_chance_goes_as_far_as_one_in_a_hundred_guesses(images, classes, most):
    assert is_chance(most, images, 1 / classes)
    assert not is_chance(most + 1 / images, images, 1 / classes)


@pytest.mark.parametrize("classes", [2, 10, 200])
@pytest.mark.parametrize("images", [200, 10_000])
def test_a_constant_prediction_is_chance_and_so_is_a_worse_one(images, classes):
    for share in (1 / classes, 0.5 / classes, 0.0):
        assert is_chance(share, images, 1 / classes)


def test_chance_is_that_of_the_commonest_class():
    """A fifth of the images of SVHN are a 1."""
    assert is_chance(0.19, 1000, 0.19)
    assert not is_chance(0.19, 1000, 0.1)


def test_a_weak_result_on_200_classes_is_no_chance():
    assert not any(is_chance(accuracy, 500, 1 / 200) for accuracy in (0.02, 0.05, 0.2))


def test_guessing_passes_for_learning_once_in_a_hundred_times():
    right = np.random.default_rng(0).binomial(500, 0.1, 20_000)
    least = min(k for k in range(501) if not is_chance(k / 500, 500, 0.1))
    assert 0.004 < (right >= least).mean() <= 0.01


fast = settings(deadline=None, max_examples=60, derandomize=True)
SHARES = st.lists(st.floats(0, 1), min_size=1, max_size=20)


@fast
@given(accuracies=SHARES, classes=st.integers(2, 200))
def test_a_run_that_never_falls_is_healthy_once_above_half_of_chance(accuracies, classes):
    rising = sorted(a for a in accuracies if a >= 1 / classes / 2)
    rows = [{"step": i + 1.0, "val/acc/pgd10": a} for i, a in enumerate(rising)]
    assert status_of(rows, IMAGES, 1 / classes).kind != "collapsed"


@fast
@given(accuracies=SHARES, classes=st.integers(2, 200))
def test_a_collapse_lasts_from_its_step_to_the_end(accuracies, classes):
    rows = [{"step": i + 1.0, "val/acc/pgd10": a} for i, a in enumerate(accuracies)]
    found = status_of(rows, IMAGES, 1 / classes)
    if found.kind == "not robust":
        assert all(is_chance(a, IMAGES, 1 / classes) for a in accuracies)
        return
    step = found.onsets.get("CO")
    best = [max(accuracies[: i + 1]) for i in range(len(accuracies))]
    share = [a / b if b else 1.0 for a, b in zip(accuracies, best, strict=True)]
    low = [
        any(share[k] < 0.5 and max(share[k : i + 1]) < 0.7 for k in range(i + 1))
        for i in range(len(share))
    ]
    healthy = [i + 1 for i, is_low in enumerate(low) if not is_low]
    assert step == (max(healthy, default=0) + 1 if low[-1] else None)


@fast
@given(accuracies=SHARES)
def test_rows_between_validations_change_nothing(accuracies):
    rows = [{"step": i + 1.0, "val/acc/pgd10": a} for i, a in enumerate(accuracies)]
    between = {"step": 99.0, "train/loss": 1.0, "train/acc/adv": 0.0}
    more = [r for row in rows for r in (between, row, between)]
    assert status_of(more, IMAGES, 0.1) == status_of(rows, IMAGES, 0.1)
