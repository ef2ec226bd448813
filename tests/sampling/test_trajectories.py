"""Frames of a chain: its start, its end, and what a sampling of fewer steps ends with."""

import numpy as np
import pytest

from energy_at.reporting.figures import results
from tests.helpers.samples import sampled_columns


def test_frames_are_those_of_the_samples(digits_run, type_sample, without_chosen_figures):
    typed = ("n=23", "sampler.steps=6", "guidance=none", "sampler.noise=0.02")
    rows = without_chosen_figures
    found = sampled_columns(type_sample, "made", *typed, "frames=4")
    half = sampled_columns(type_sample, "half", *typed, "sampler.steps=2")
    assert [row[0] for row in rows] == [str(label) for label in range(10)]
    for i, (_, steps, frames, energies) in enumerate(rows):
        assert steps == (0, 2, 4, 6)
        assert np.array_equal(frames[0], found["start"][i])
        assert np.array_equal(frames[1], half["pixels"][i])
        assert np.array_equal(frames[-1], found["pixels"][i])
        assert energies[1] == pytest.approx(half["joint"][i], abs=1e-5)
        assert energies[-1] == pytest.approx(found["joint"][i], abs=1e-5)
        assert energies[-1] < energies[0]


def test_a_chain_that_has_reached_its_target_ends_there(
    digits_run, type_sample, without_chosen_figures
):
    typed = ("n=10", "sampler.steps=6", "guidance.tolerance=1", "frames=3")
    found = sampled_columns(type_sample, "made", *typed)
    assert len(set(found["steps"])) > 1
    for i, (_, steps, frames, _) in enumerate(without_chosen_figures):
        assert steps[-1] == found["steps"][i]
        assert np.array_equal(frames[-1], found["pixels"][i])


@pytest.fixture
def without_chosen_figures(monkeypatch):
    """The rows of the figure of chains; no figure is drawn."""
    rows = []

    def chains(found, title):
        rows.extend(found)
        return results.Figure()

    monkeypatch.setattr(results, "trajectories_figure", chains)
    for name in ("grid", "nearest_figure", "distributions_figure"):
        monkeypatch.setattr(results, name, lambda *_: results.Figure())
    return rows
