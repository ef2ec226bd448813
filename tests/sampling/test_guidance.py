"""Target energies, the pull towards them, and who has arrived."""

import pytest
import torch
from scipy.stats import chisquare

from energy_at.core.rng import CountedNoise
from energy_at.sampling import ClassEnergy, Guidance, Langevin, Stop, Unguided
from tests.sampling.test_langevin import Gaussians, finished, start_at

ENERGIES = torch.tensor([1.0, 2.0, 4.0, -3.0, -5.0])
LABELS = torch.tensor([0, 0, 0, 1, 1])
E = torch.tensor([-3.0, -0.5, -0.05, 0.0, 0.05, 0.5, 3.0])
ZERO = torch.zeros(7)


def targets(guidance, y, seed=0):
    y = torch.as_tensor(y)
    return guidance.targets(y, ENERGIES, LABELS, CountedNoise.of(range(len(y)), seed))


def test_the_mean_is_that_of_the_class():
    found = targets(ClassEnergy(draw="mean"), [0, 1, 0])
    torch.testing.assert_close(found, torch.tensor([7 / 3, -4.0, 7 / 3]))


def test_a_drawn_target_is_the_energy_of_an_image_of_the_class_and_each_is_as_likely():
    y = torch.arange(3000) % 2
    found = targets(ClassEnergy(), y)
    for label in (0, 1):
        values, counts = found[y == label].unique(return_counts=True)
        assert values.tolist() == sorted(ENERGIES[label == LABELS].tolist())
        assert chisquare(counts.numpy()).pvalue > 1e-3


def test_a_drawn_target_depends_on_the_sample_and_the_seed_alone():
    together = targets(ClassEnergy(), [0] * 50)
    alone = ClassEnergy().targets(torch.tensor([0]), ENERGIES, LABELS, CountedNoise.of([7], 0))
    assert together[7] == alone[0]
    assert not torch.equal(together, targets(ClassEnergy(), [0] * 50, seed=1))


@pytest.mark.parametrize("draw", ["mean", "empirical"])
def test_a_class_without_images_is_refused(draw):
    with pytest.raises(ValueError, match="class 2 has no training images"):
        targets(ClassEnergy(draw=draw), [0, 2])


def test_the_pull_is_the_slope_of_hubers_loss():
    gap = E.clone().requires_grad_(True)
    for width in (0.1, 1.0, 4.0):
        loss = torch.nn.functional.huber_loss(gap, ZERO, reduction="sum", delta=width) / width
        (slope,) = torch.autograd.grad(loss, gap)
        torch.testing.assert_close(ClassEnergy(width=width).pull(E + 7, ZERO + 7), slope)


def test_a_pull_without_width_is_one_in_size_and_none_at_the_target():
    assert ClassEnergy(width=0.0).pull(E, ZERO).tolist() == [-1, -1, -1, 0, 1, 1, 1]


def test_who_is_near_has_arrived():
    assert (
        ClassEnergy(tolerance=0.1).reached(E, ZERO).tolist()
        == [False] * 2 + [True] * 3 + [False] * 2
    )


def test_without_a_pull_it_is_the_plain_descent_and_below_the_target_is_arrived():
    stop = ClassEnergy(draw="mean", pulls=False, tolerance=0.1)
    assert stop.pull(E, ZERO).tolist() == [1] * 7
    assert stop.reached(E, ZERO).tolist() == [True] * 5 + [False] * 2


def test_without_guidance_nobody_arrives():
    free = Unguided()
    found = targets(free, [0, 1])
    assert found.tolist() == [-torch.inf] * 2
    assert free.pull(E, ZERO).tolist() == [1] * 7
    assert not free.reached(torch.full((2,), -1e30), found).any()


@pytest.mark.parametrize("guidance", [Unguided(), ClassEnergy()])
def test_both_are_guidances(guidance):
    assert isinstance(guidance, Guidance)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"draw": "max"}, "^draw must be empirical or mean"),
        ({"tolerance": -1.0}, ">= 0"),
        ({"width": -1.0}, ">= 0"),
    ],
)
def test_a_guidance_that_cannot_be_is_refused(change, said):
    with pytest.raises(ValueError, match=said):
        ClassEnergy(**change)


BOWL = Gaussians(torch.full((1, 4), 0.5), 40 * torch.eye(4)[None])  # its energy is >= 0


def starts():
    """At all distances from the middle: below the target of 0.8 nats, and above it."""
    return 0.5 + torch.linspace(0.01, 0.3, 20)[:, None, None, None] * torch.ones(20, 1, 2, 2)


def test_samples_are_led_to_their_target_from_above_and_from_below():
    chains = start_at(starts(), target=torch.full((20,), 0.8))
    sampler = Langevin(steps=400, step_size=0.02, momentum=0.0, noise=0.0)
    samples = finished(BOWL, sampler, chains, ClassEnergy(tolerance=0.02))
    energies = -BOWL(samples.x)[:, 0]
    assert (energies - 0.8).abs().max() <= 0.02
    assert samples.stop.tolist() == [Stop.REACHED] * 20
    before = -BOWL(chains.x)[:, 0]
    assert before.min() < 0.1
    assert before.max() > 2


def test_an_arrived_sample_stays_where_it_was_seen_to_have_arrived():
    """The step that finds it there does not move it, nor is it counted."""
    chains = start_at(starts(), target=-BOWL(starts())[:, 0])
    samples = finished(BOWL, Langevin(steps=5, noise=0.1), chains, ClassEnergy(tolerance=1e-6))
    assert samples.x.equal(chains.x)
    assert samples.steps.tolist() == [0] * 20
    assert samples.stop.tolist() == [Stop.REACHED] * 20


def test_each_sample_stops_by_one_rule():
    chains = start_at(starts(), target=torch.full((20,), 0.8))
    sampler = Langevin(steps=3, step_size=0.02, momentum=0.0, noise=0.0)
    samples = finished(BOWL, sampler, chains, ClassEnergy(tolerance=0.1))
    reached, cap = (int((samples.stop == stop).sum()) for stop in (Stop.REACHED, Stop.CAP))
    assert reached + cap == 20
    assert reached > 0
    assert cap > 0
    assert bool((samples.steps[samples.stop == Stop.CAP] == 3).all())
    assert bool((samples.steps[samples.stop == Stop.REACHED] < 3).all())
