"""Signals computed by hand: alignment, divergence, running means, hysteresis."""

from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from energy_at.overfitting.alarms import RATIO, RISE
from energy_at.overfitting.signals import (
    WINDOW,
    RunningMean,
    Signal,
    aae_share_and_alignment,
    divergence,
    running_means,
    standard_error,
)
from tests.helpers.logs import FAILS, WORKS, row


@settings(max_examples=30, deadline=None)
@given(st.floats(1e-3, 1e3), st.floats(-2, 2), st.floats(-2, 2))
def test_step_signals_do_not_depend_on_the_scale_of_the_energies(scale, marginal, joint):
    step = {**WORKS, "marginal": marginal, "joint": joint}
    step["shift"] = float(np.hypot(marginal, joint)) + 0.01
    scaled = aae_share_and_alignment(row(0, **step, scale=scale))
    np.testing.assert_allclose(
        aae_share_and_alignment(row(0, **step)), scaled, rtol=1e-6, atol=1e-9
    )


def alignment(**step):
    return aae_share_and_alignment(row(0, **step))[1]


def test_alignment_is_the_cosine_with_the_direction_of_rising_loss():
    assert alignment(**WORKS) == pytest.approx(2**-0.5)
    along = {**WORKS, "marginal": 0.2, "joint": -0.2, "shift": 0.08**0.5}
    assert alignment(**along) == pytest.approx(1)
    across = {**WORKS, "marginal": 0.2, "joint": 0.2, "shift": 0.08**0.5}
    assert alignment(**across) == pytest.approx(0)


def test_a_network_that_does_not_move_shows_no_failing_attack():
    assert alignment(**FAILS | {"shift": 0.0}) == 1


def test_divergence_is_between_minus_one_and_one():
    assert divergence(0.5, 0.5, [[-0.5, 0.5]]) == 1
    assert divergence(-0.5, 0.5, [[0.5, 0.5]]) == -1
    assert divergence(0.0, 0.0, [[0.0, 0.0]]) == 0


def test_one_outlying_step_does_not_move_divergence():
    assert divergence(0.0, 0.5, [[-0.1, 0.5]] * 4 + [[-90.0, 99.0]]) == pytest.approx(0.1)


# Running means


def mean_of(values, **options):
    mean = RunningMean(**options)
    for value in values:
        mean.update(value)
    return mean


def drop(accuracies):
    mean = mean_of(accuracies)
    return mean.best - mean.current


def next_drop(accuracies):
    mean = mean_of(accuracies)
    return mean.best - mean.extrapolated


def falling(steps):
    return [0.5] * 10 + [0.5 - 0.01 * k for k in range(1, steps + 1)]


@pytest.mark.parametrize("steps", [5, 6, 30])
def test_a_steady_drop_is_extrapolated_exactly(steps):
    assert mean_of(falling(steps)).best == pytest.approx(0.5)
    assert next_drop(falling(steps)) == pytest.approx(drop(falling(steps + 1)))
    assert drop(falling(steps)) == pytest.approx(0.5 - running_means(np.array(falling(steps)))[-1])


def test_nothing_is_extrapolated_before_there_is_a_rate():
    accuracies = [0.5, 0.4, 0.3, 0.2, 0.1, 0.0]
    assert all(next_drop(accuracies[:n]) == 0 for n in range(WINDOW + 1))
    assert next_drop(accuracies) == pytest.approx(0.2)


def test_a_drop_is_that_of_the_running_mean():
    assert drop([0.5, 0.4, 0.3, 0.2]) == 0
    assert drop([0.5] * 5) == 0
    assert drop([*[0.5] * 5, 0.4]) == pytest.approx(0.02)
    assert drop([*[0.5] * 5, *[0.4] * 9]) == pytest.approx(0.1)


def rise(losses):
    return mean_of(losses, lowest=True).relative_rise


def test_a_rise_is_that_of_the_running_mean_above_its_best():
    assert rise([]) == 0
    assert rise([9.0, 1.0, 1.0, 1.0, 1.0]) == 0  # one mean is its own best
    assert rise([9.0, *[1.0] * 5]) == 0
    assert rise([9.0, *[1.0] * 5, 2.0]) == pytest.approx(0.2)
    assert rise([9.0, *[1.0] * 5, *[2.0] * 9]) == pytest.approx(1)
    assert rise([9.0, *[1.0] * 5, *[2.0] * 9, *[0.5] * 5]) == 0
    assert rise([1.0, 2.0, 3.0]) == 0


def test_the_standard_error_is_that_of_independent_images():
    images, rng = 400, np.random.default_rng(0)
    means = rng.binomial(images, 0.3, (20000, 2, WINDOW)).mean(2) / images
    assert standard_error(0.3, images) == pytest.approx(float(np.diff(means).std()), rel=0.03)
    assert standard_error(0.5, 100) == pytest.approx((0.25 / 100 * 0.4) ** 0.5)


def test_images_that_are_always_or_never_correct_have_no_error():
    """Of 400, 140 are always wrong and 60 always right: half of the variance is left."""
    tossed = np.random.default_rng(0).binomial(200, 0.3, (20000, 2, WINDOW))
    error = float(np.diff((tossed.mean(2) + 60) / 400).std())
    assert error == pytest.approx(standard_error(0.3, 400) / 2**0.5, rel=0.03)


def test_the_standard_error_of_unknown_images_is_infinite():
    assert standard_error(0.5, None) == inf


# Hysteresis


def test_a_signal_stays_on_until_it_has_been_clear_for_long_enough():
    signal = Signal("RO", RISE, recovery=2)
    seen = []
    for value in (0.05, 0.1, 0.09, 0.06, 0.08, 0.06, 0.06, 0.09, 0.11):
        signal.update(value, 0.1)
        seen.append(signal.on)
    assert seen == [False, True, True, True, True, True, False, False, True]
    assert signal.alarm(7).value == 0.11


def test_a_signal_that_crosses_downward_is_clear_above_its_threshold():
    signal = Signal("CO", RATIO, recovery=1, below=True)
    seen = []
    for value in (0.4, 0.39, 0.59, 0.61):
        signal.update(value, 0.4)
        seen.append((signal.on, signal.clear_rows))
    assert seen == [(False, 0), (True, 0), (True, 0), (False, 1)]


def test_a_signal_counts_consecutive_crossings_whose_requirements_hold():
    signal = Signal("RO", RISE, recovery=1)
    counts = []
    for holds, value in ((True, 1), (True, 1), (False, 1), (True, 1), (True, 0.5)):
        signal.update(value, 0.9, given=holds, clear=not holds)
        counts.append((signal.crossings, signal.clear_rows))
    assert counts == [(1, 0), (2, 0), (0, 1), (1, 0), (0, 1)]
