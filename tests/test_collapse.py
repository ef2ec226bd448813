"""When a run counts as collapsed, from logs written by hand."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from energy_at.collapse import collapse_step


def log(*accuracies):
    """Two training steps, then a validation, for each accuracy in percent."""
    rows = []
    for epoch, accuracy in enumerate(accuracies):
        steps = [
            {"step": 2.0 * epoch + i, "epoch": float(epoch), "train/loss": 1.0} for i in (1, 2)
        ]
        rows += [*steps, {"step": 2.0 * epoch + 2, "val/acc/pgd": accuracy / 100}]
    return rows


def onset(*accuracies, classes=10):
    return collapse_step(log(*accuracies), classes)


def test_a_run_that_keeps_its_robustness_is_sound():
    assert onset(20, 30, 35, 40, 38, 41) is None


def test_a_run_collapses_at_the_first_validation_below_half_its_best():
    assert onset(20, 30, 40, 12, 0, 0) == 8


def test_half_of_the_best_is_not_below_it():
    assert onset(20, 50, 25, 25) is None
    assert onset(20, 50, 25, 24) == 8


def test_a_run_that_comes_back_is_sound():
    assert onset(40, 5, 0, 30) is None


def test_only_the_last_collapse_counts():
    assert onset(40, 0, 30, 45, 3, 0) == 10


def test_a_run_below_half_of_chance_is_collapsed_from_the_start():
    assert onset(4, 4, 4) == 2
    assert onset(4, 6, 6) is None


@pytest.mark.parametrize(("classes", "expected"), [(4, 2), (10, None), (100, None)])
def test_chance_is_that_of_the_data_set(classes, expected):
    assert onset(6, 6, classes=classes) == expected


def test_a_best_below_chance_does_not_lower_the_bar():
    assert onset(6, 4, classes=10) == 4


def test_a_run_that_was_never_validated_is_sound():
    assert collapse_step([], 10) is None
    assert collapse_step([row for row in log(40, 0, 0) if "train/loss" in row], 10) is None


def test_the_step_is_an_integer_as_logged():
    step = collapse_step([{"step": 390.0, "epoch": 0.0, "val/acc/pgd": 0.0}], 10)
    assert step == 390
    assert isinstance(step, int)


fast = settings(deadline=None, max_examples=60, derandomize=True)
SHARES = st.lists(st.floats(0, 1), min_size=1, max_size=20)


@fast
@given(accuracies=SHARES, classes=st.integers(2, 200))
def test_a_run_that_never_falls_is_sound_once_above_half_of_chance(accuracies, classes):
    rising = sorted(a for a in accuracies if a >= 1 / classes / 2)
    rows = [{"step": i + 1.0, "val/acc/pgd": a} for i, a in enumerate(rising)]
    assert collapse_step(rows, classes) is None


@fast
@given(accuracies=SHARES, classes=st.integers(2, 200))
def test_a_collapse_lasts_from_its_step_to_the_end(accuracies, classes):
    rows = [{"step": i + 1.0, "val/acc/pgd": a} for i, a in enumerate(accuracies)]
    step = collapse_step(rows, classes)
    low = [a < max(1 / classes, *accuracies[: i + 1]) / 2 for i, a in enumerate(accuracies)]
    sound = [i + 1 for i, is_low in enumerate(low) if not is_low]
    assert step == (max(sound, default=0) + 1 if low[-1] else None)


@fast
@given(accuracies=SHARES)
def test_rows_between_validations_change_nothing(accuracies):
    rows = [{"step": i + 1.0, "val/acc/pgd": a} for i, a in enumerate(accuracies)]
    between = {"step": 99.0, "train/loss": 1.0, "train/acc/adv": 0.0}
    assert collapse_step([r for row in rows for r in (between, row, between)], 10) == (
        collapse_step(rows, 10)
    )
