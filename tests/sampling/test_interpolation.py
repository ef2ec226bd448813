import numpy as np
import pytest
import torch

from energy_at.energy.energies import joint_energy
from energy_at.reporting.figures import results
from energy_at.sampling.interpolation import Between
from tests.helpers.nets import TinyNet
from tests.helpers.running import assert_refused
from tests.helpers.samples import BARE, report, sampled_columns

TYPED = ("n=11", "sampler.steps=6", "sampler.noise=0.02")


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_energy_of_a_mixture_is_the_mean_of_two(share):
    net, x = TinyNet().eval(), torch.rand(5, 3, 8, 8)
    first, second = (joint_energy(net(x), torch.full((5,), label)) for label in (2, 0))
    logits = Between(net, 2, 0, share)(x)
    mixed = joint_energy(logits, torch.full((5,), 2))
    torch.testing.assert_close(mixed, (1 - share) * first + share * second)
    assert torch.equal(logits[:, [0, 1, 3]], net(x)[:, [0, 1, 3]])


def test_the_ends_are_sample_0_of_either_class(digits_run, type_sample, monkeypatch):
    seen = []

    def drawn(*found):
        seen.append(found)
        return results.Figure()

    monkeypatch.setattr(results, "interpolation_figure", drawn)
    for name in ("grid", "nearest_figure", "distributions_figure"):
        monkeypatch.setattr(results, name, lambda *_: results.Figure())
    typed = (*TYPED, "interpolate=[7,3]", "frames=5")
    ends = [
        sampled_columns(type_sample, f"of_{label}", *typed, f"classes=[{label}]")
        for label in (7, 3)
    ]
    (names, shares, frames, energies, _), again = seen
    assert (names, list(shares)) == (("7", "3"), [0, 0.25, 0.5, 0.75, 1])
    assert np.array_equal(frames, again[2])
    for frame, energy, samples in zip(
        frames[[0, -1]], (energies[0][0], energies[1][-1]), ends, strict=True
    ):
        difference = frame.astype(int) - samples["pixels"][0]
        assert np.abs(difference).max() <= 1
        assert energy == pytest.approx(samples["joint"][0], abs=0.01)
    assert energies[0][0] < energies[0][-1]
    assert energies[1][0] > energies[1][-1]
    assert report("of_7")["interpolation"] == {
        "classes": [7, 3],
        "share": list(shares),
        "energies": energies,
    }


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("interpolate=[0]", "interpolate=[0] must be 2 numbers from 0 to 9, each once"),
        ("interpolate=[0,0]", "interpolate=[0,0] must be 2 numbers"),
        ("interpolate=[0,10]", "interpolate=[0,10] must be 2 numbers"),
        ("frames=1", "frames=1 must be 0, or at least 2 with interpolate"),
        ("sampler.energy=marginal", "sampler.energy=marginal must be joint"),
    ],
)
def test_what_cannot_be_interpolated_is_refused(digits_run, type_sample, typed, said):
    first = () if typed.startswith("interpolate") else ("interpolate=[0,1]",)
    assert_refused(type_sample, said, "run=run", "out=made", *BARE, *first, typed)
