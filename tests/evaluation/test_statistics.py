"""Accuracies with intervals, over classes, and calibration, against their definitions."""

import math

import pytest
import torch

from energy_at.attacks.registry import CLEAN
from energy_at.evaluation.robustness import Outcome
from energy_at.evaluation.statistics import accuracy, calibration_error, class_rows

Z = 1.959963984540054  # 97.5 % of a standard normal distribution lie below


@pytest.mark.parametrize(("right", "n"), [(0, 7), (7, 7), (1, 1), (3, 10), (250, 1000)])
def test_intervals_are_those_of_wilson(right, n):
    # Wilson (1927): the shares whose score test does not reject the count.
    found = Outcome(torch.arange(n) < right, torch.full((n,), 0.5))
    row = accuracy(found, torch.arange(n) % 3)
    p = right / n
    middle = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    assert (row["correct"], row["images"], row["accuracy"]) == (right, n, p)
    assert row["low"] == pytest.approx(middle - half, abs=1e-9)
    assert row["high"] == pytest.approx(middle + half, abs=1e-9)
    for end in {row["low"], row["high"]} - {0.0, 1.0}:
        assert abs(p - end) == pytest.approx(Z * math.sqrt(end * (1 - end) / n), abs=1e-7)


def test_the_calibration_error_is_that_of_its_definition():
    # Guo et al. (2017), eq. 3: sum over the bins of |B| / n |acc(B) - conf(B)|.
    torch.manual_seed(0)
    n = 400
    confidence = torch.rand(n).sqrt()
    found = Outcome(torch.rand(n) < confidence**2, confidence)
    gaps = 0.0
    for b in range(15):
        inside = [i for i, c in enumerate(confidence.tolist()) if b / 15 < c <= (b + 1) / 15]
        right = sum(bool(found.correct[i]) for i in inside)
        gaps += abs(right - sum(confidence[i].item() for i in inside))
    assert calibration_error(found) == pytest.approx(gaps / n, abs=1e-6)


def test_a_network_that_is_as_often_right_as_it_is_sure_is_calibrated():
    sure = torch.tensor([1.0] * 4 + [0.75] * 4)
    right = torch.tensor([True] * 4 + [True] * 3 + [False])
    assert calibration_error(Outcome(right, sure)) == 0
    assert calibration_error(Outcome(~right, sure)) == pytest.approx((1 + 0.5) / 2)


def test_classes_have_the_share_of_their_own_images():
    labels, mask = torch.tensor([0, 0, 0, 0, 3, 3, 1]), torch.tensor([1, 1, 1, 0, 1, 0, 1]) == 1
    rows = class_rows({CLEAN: mask}, labels, ["a", "b", "c", "d"])
    assert [tuple(row.values()) for row in rows] == [
        (0, "a", 4, 0.75), (1, "b", 1, 1.0), (3, "d", 2, 0.5)
    ]  # fmt: skip
    row = accuracy(Outcome(mask, mask.float()), labels)
    assert (row["worst_class"], row["worst_class_accuracy"]) == (3, 0.5)
    assert row["worst_class_name"] == "class 3"
    assert accuracy(Outcome(mask, mask.float()), labels, "abcd")["worst_class_name"] == "d"
