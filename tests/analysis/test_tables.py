"""Statistics of columns of energies, by hand."""

import math

import numpy as np
import pytest

from energy_at.analysis.tables import QUANTILES, class_means, ks_distance, summary


def test_summary_of_a_few_numbers():
    mean, std, *quantiles, positive = summary(np.array([-1.0, 0.0, 1.0, 4.0])).values()
    assert (mean, positive) == (1.0, 0.5)
    assert std == pytest.approx(math.sqrt((4 + 1 + 0 + 9) / 4))
    assert quantiles[QUANTILES.index(0.5)] == 0.5
    assert quantiles[QUANTILES.index(0.25)] == -0.25


def test_ks_distance_is_the_largest_gap_of_the_distribution_functions():
    one, other = np.array([0.0, 1.0, 2.0, 3.0]), np.array([1.5, 2.5, 2.6, 9.0])
    # at 1: 2 of 4 against 0 of 4; at 2: 3 against 1; at 3: 4 against 3
    assert ks_distance(one, other) == 0.5
    assert ks_distance(one, one) == 0
    assert ks_distance(one, one + 10) == 1


def test_class_means_by_hand():
    means = class_means(np.array([1.0, 2.0, 6.0, -3.0]), np.array([1, 0, 1, 2]), 3)
    assert means.tolist() == [2.0, 3.5, -3.0]
