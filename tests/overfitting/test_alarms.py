"""Alarms as text and as rows, and the range of the thresholds."""

import pytest

from energy_at.overfitting.alarms import DIVERGENCE, PGD_ACCURACY, Alarm, Thresholds, find_column


@pytest.mark.parametrize("column", ["val/acc/pgd", "val/acc/pgd7", "val/acc/pgd50x10"])
def test_the_column_of_pgd_is_found_whatever_its_steps(column):
    others = ("val/acc/fgsm", "val/ce/pgd7", "val_ema/acc/pgd7")
    assert find_column((*others, column), PGD_ACCURACY) == column
    assert find_column((column, PGD_ACCURACY), PGD_ACCURACY) == PGD_ACCURACY
    assert find_column(others, PGD_ACCURACY) == PGD_ACCURACY


def test_an_alarm_is_a_line_and_a_row():
    alarm = Alarm("RO", 12, DIVERGENCE, 0.0625, 0.05, held_out=True)
    assert str(alarm) == f"RO alarm at step 12: {DIVERGENCE} is 0.0625, threshold 0.05"
    assert alarm.row() == {
        "alarm/ro": 1.0, "alarm/by/divergence": 0.0625, "alarm/held_out": 1.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("window", 3),
        ("patience", 0),
        ("recovery", 0),
        ("aae_share", 0),
        ("ratio", 1),
        ("drop", 1),
        ("rise", 0),
        ("alignment", float("nan")),
        ("pert_align", 1.5),
    ],
)
def test_a_threshold_out_of_range_is_named(name, value):
    with pytest.raises(ValueError, match=rf"{name} must be .*, got {value}"):
        Thresholds(**{name: value})
