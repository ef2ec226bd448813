"""Langevin dynamics on energies that are known, what a step costs, and guidance."""

import math
from dataclasses import fields

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import chisquare
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from energy_at.core.rng import CountedNoise
from energy_at.models.modes import Tiled
from energy_at.sampling import Chains, ClassEnergy, Guidance, Langevin, Unguided, generate
from energy_at.sampling.langevin import ENERGIES, Stop

DOWN = Unguided()


class Gaussians(nn.Module):
    """A classifier whose class ``k`` has the energy ``(x - m_k)^T P_k (x - m_k) / 2``."""

    def __init__(self, means, precisions):
        super().__init__()
        self.means, self.precisions = means, precisions

    def forward(self, x):
        gap = x.flatten(1)[:, None] - self.means
        return -0.5 * torch.einsum("bki,kij,bkj->bk", gap, self.precisions, gap)


def start_at(x, y=None, target=None):
    number = torch.arange(len(x))
    y = torch.zeros_like(number) if y is None else y
    target = torch.full((len(x),), -torch.inf) if target is None else target
    return Chains.start_at(number, y, x, target, CountedNoise.of(number.tolist()))


def finished(net, sampler, chains, guidance=DOWN, batch_size=10_000, seen=lambda _: None):
    """All of the samples, in their order."""
    stopped = generate(net, sampler, guidance, iter([chains]), batch_size, seen)
    whole = Chains.concat(list(stopped))
    order = whole.number.argsort()
    return Chains(*(getattr(whole, field.name)[order] for field in fields(Chains)))


def descended(net, x, y, *, steps, eta, zeta=0.0):
    """Heavy-ball gradient descent on E(x, y) within [0, 1], one image at a time."""
    found = []
    for image, label in zip(x, y.tolist(), strict=True):
        at, velocity = image.clone(), torch.zeros_like(image)
        for _ in range(steps):
            at.requires_grad_(True)
            (slope,) = torch.autograd.grad(-net(at[None])[0, label], at)
            velocity = zeta * velocity - eta / 2 * slope
            at = (at.detach() + velocity).clamp(0, 1)
        found.append(at)
    return torch.stack(found)


# What it samples


@pytest.mark.parametrize("classes", [1, 2])
def test_on_a_gaussian_the_mean_and_the_covariance_are_its_own(classes):
    """Without momentum the chain is autoregressive, and its stationary law is known exactly."""
    rotation = torch.linalg.qr(torch.randn(classes, 4, 4))[0]
    eigen = torch.tensor([250.0, 400.0, 800.0, 1000.0])
    precisions = rotation @ torch.diag(eigen) @ rotation.mT
    means = torch.linspace(0.4, 0.6, 4 * classes).reshape(classes, 4)
    eta, n = 1e-3, 3000
    y = torch.arange(n) % classes
    sampler = Langevin(steps=60, step_size=eta, momentum=0.0, noise=math.sqrt(eta))
    x = torch.full((n, 1, 2, 2), 0.5)
    samples = finished(Gaussians(means, precisions), sampler, start_at(x, y)).x.flatten(1)
    for label in range(classes):
        ours = samples[y == label]
        within = (ours - means[label]) @ rotation[label]  # coordinates that are independent
        exact = 1 / (eigen * (1 - eta * eigen / 4))
        z = within.mean(0) / (exact / len(ours)).sqrt()
        assert z.abs().max() < 4.5
        share = within.T @ within / len(ours) / (exact[:, None] * exact).sqrt()
        assert (share - torch.eye(4)).abs().max() < 4.5 * math.sqrt(2 / len(ours))


def test_without_noise_and_momentum_it_is_gradient_descent(net, batch):
    x, y = batch
    sampler = Langevin(steps=7, step_size=0.3, momentum=0.0, noise=0.0)
    expected = descended(net.eval(), x, y, steps=7, eta=0.3)
    assert (expected - x).abs().max() > 0.02
    torch.testing.assert_close(finished(net, sampler, start_at(x, y)).x, expected)


def test_with_momentum_it_is_the_heavy_ball(net, batch):
    x, y = batch
    sampler = Langevin(steps=7, step_size=0.3, momentum=0.8, noise=0.0)
    expected = descended(net.eval(), x, y, steps=7, eta=0.3, zeta=0.8)
    torch.testing.assert_close(finished(net, sampler, start_at(x, y)).x, expected)


def test_the_noise_of_a_step_is_new_and_as_large_as_it_says():
    flat = Gaussians(torch.zeros(1, 1024), torch.zeros(1, 1024, 1024))
    chains = start_at(torch.full((20, 1, 32, 32), 0.5))
    sampler = Langevin(steps=9, momentum=0.9, noise=0.01)
    first, _, _ = sampler.advance(flat, chains, DOWN)
    second, _, _ = sampler.advance(flat, first, DOWN)
    one, two = ((b.x - a.x).flatten() for a, b in ((chains, first), (first, second)))
    assert float(one.std()) == pytest.approx(0.01, rel=0.02)
    assert float(two.std()) == pytest.approx(0.01, rel=0.02)
    assert abs(float(torch.corrcoef(torch.stack([one, two]))[0, 1])) < 0.03
    assert not bool(second.velocity.any())  # noise gathers no momentum


def test_pixels_stay_pixels(net, batch):
    x, y = batch
    sampler = Langevin(steps=4, step_size=50.0, noise=0.5)
    samples = finished(net.eval(), sampler, start_at(3 * x - 1, y))
    assert samples.start.equal((3 * x - 1).clamp(0, 1))
    assert samples.x.min() == 0
    assert samples.x.max() == 1


def test_a_normalized_step_is_half_the_step_size_long(net, batch):
    x, y = 0.4 + 0.2 * batch[0], batch[1]
    sampler = Langevin(steps=3, step_size=0.2, momentum=0.0, noise=0.0, normalize=True)
    moved, _, _ = sampler.advance(net.eval(), start_at(x, y), DOWN)
    torch.testing.assert_close((moved.x - x).flatten(1).norm(dim=1), torch.full((6,), 0.1))


def test_a_flat_energy_moves_nothing_even_normalized():
    flat = Gaussians(torch.zeros(1, 4), torch.zeros(1, 4, 4))
    sampler = Langevin(steps=3, noise=0.0, normalize=True)
    chains = start_at(torch.rand(5, 1, 2, 2))
    assert finished(flat, sampler, chains).x.equal(chains.x)


def test_no_step_leaves_the_trust_region(net, batch):
    x, y = batch
    sampler = Langevin(steps=30, step_size=5.0, noise=0.05, radius=0.7)
    active, farthest = start_at(x, y), 0.0
    while len(active):
        active, stopped, _ = sampler.advance(net.eval(), active, DOWN)
        for part in (active, stopped):
            distances = (part.x - part.start).flatten(1).norm(dim=1)
            assert not len(part) or distances.max() <= 0.7 * (1 + 1e-5)
            farthest = max(farthest, float(distances.max()) if len(part) else 0)
    assert farthest > 0.69


def test_a_wide_trust_region_changes_nothing(net, batch):
    x, y = batch
    found = [
        finished(net.eval(), Langevin(steps=3, radius=radius), start_at(x, y)).x
        for radius in (None, 1e4)
    ]
    torch.testing.assert_close(*found)


# Energies


def test_energies_are_what_their_names_say():
    logits, y = torch.randn(9, 5, dtype=torch.double), torch.arange(9) % 5
    p = logits.softmax(1)
    total = logits.exp().sum(1)
    own = logits[torch.arange(9), y]
    expected = {
        "joint": -own,
        "marginal": -total.log(),
        "conditional": -p[torch.arange(9), y].log(),
        "mixed": -(own + total.log()) / 2,
        "sharpened": -own - p[torch.arange(9), y].log(),
        "cross_entropy": F.cross_entropy(logits, y, reduction="none"),
    }
    assert ENERGIES.keys() == expected.keys()
    for name, energy in ENERGIES.items():
        torch.testing.assert_close(energy(logits, y), expected[name])
    torch.testing.assert_close(expected["conditional"], expected["cross_entropy"])


@pytest.mark.parametrize("name", ENERGIES)
def test_what_is_named_is_descended(net, batch, name):
    x, y = batch
    sampler = Langevin(steps=5, step_size=0.02, momentum=0.0, noise=0.0, energy=name)
    samples = finished(net.eval(), sampler, start_at(x, y))
    assert bool((ENERGIES[name](net(samples.x), y) < ENERGIES[name](net(x), y)).all())


# Ends


def test_no_steps_give_the_starts(batch):
    x, _ = batch
    samples = finished(nn.Identity(), Langevin(steps=0), start_at(x), batch_size=4)
    assert samples.x.equal(x)
    assert samples.steps.tolist() == [0] * 6
    assert samples.stop.tolist() == [Stop.CAP] * 6


def test_an_energy_that_is_not_finite_is_refused_with_its_step():
    class Cliff(nn.Module):
        def forward(self, x):
            value = x.flatten(1).sum(1, keepdim=True)
            return torch.where(value < 1, torch.inf, value) * torch.ones(2)

    sampler = Langevin(steps=9, step_size=1.5, momentum=0.0, noise=0.0)

    class Falling(nn.Module):
        def forward(self, x):
            value = x.flatten(1).sum(1, keepdim=True)
            return torch.where(value < 1, torch.nan, -value) * torch.ones(2)

    with pytest.raises(
        ValueError, match=r"^step_size must be smaller, .* not finite at step 0, got 1.5$"
    ):
        finished(Cliff(), sampler, start_at(torch.zeros(3, 1, 1, 1)))
    with pytest.raises(ValueError, match="not finite at step 1"):
        finished(Falling(), sampler, start_at(torch.full((3, 1, 2, 2), 0.5)))


def test_a_gradient_that_is_not_finite_is_refused_at_the_last_step_too():
    class Root(nn.Module):
        def forward(self, x):
            return (x.flatten(1).sum(1, keepdim=True) * 0).sqrt() * torch.ones(2)

    with pytest.raises(ValueError, match="not finite"):
        finished(Root(), Langevin(steps=1, noise=0.0), start_at(torch.rand(3, 1, 2, 2)))


@pytest.mark.parametrize("normalize", [False, True])
def test_a_step_that_throws_every_image_out_of_the_pixels_is_refused(normalize):
    class Line(nn.Module):
        def forward(self, x):
            return x.flatten(1).sum(1, keepdim=True) * torch.ones(2)  # the gradient's norm is 2

    length = 2.0 / (1 if normalize else 2)  # the diameter of [0, 1]^4 as a gradient step
    for share in (0.99, 1.01):
        sampler = Langevin(1, 2 * share * length, 0.0, 0.0, normalize=normalize)
        if share < 1:
            finished(Line(), sampler, start_at(torch.zeros(3, 1, 2, 2)))
        else:
            with pytest.raises(ValueError, match=r"^step_size must be smaller: the first"):
                finished(Line(), sampler, start_at(torch.zeros(3, 1, 2, 2)))


def test_an_outlier_among_them_ends_nothing():
    class Steep(nn.Module):
        def forward(self, x):
            slopes = torch.tensor([[1e3]] + [[1e-3]] * (len(x) - 1))  # of the first image alone
            return slopes * x.flatten(1).sum(1, keepdim=True) * torch.ones(2)

    start = torch.full((3, 1, 2, 2), 0.5)
    found = finished(Steep(), Langevin(1, 1.0, 0.0, 0.0), start_at(start))
    assert found.x[0].eq(1).all()
    torch.testing.assert_close(found.x[1:], start[1:], atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"energy": "free"}, "joint, marginal"),
        ({"precision": "fp8"}, "fp32 or bf16"),
        ({"steps": -1}, "^steps must be an integer >= 0"),
        ({"step_size": 0.0}, "^step_size must be a finite number > 0"),
        ({"noise": -0.1}, "^noise must be a finite number >= 0"),
        ({"momentum": 1.0}, "^momentum must be a finite number >= 0 and < 1"),
        ({"radius": 0.0}, "^radius must be a finite number > 0"),
    ],
)
def test_a_sampler_that_cannot_be_is_refused(change, said):
    with pytest.raises(ValueError, match=said):
        Langevin(**change)


def test_bf16_is_the_networks_alone(net, batch):
    x, y = batch
    kinds = set()
    net.eval().layers[-1].register_forward_hook(lambda *given: kinds.add(given[-1].dtype))
    exact, rough = (Langevin(steps=4, noise=0.0, precision=p) for p in ("fp32", "bf16"))
    energies = []
    samples = finished(net, rough, start_at(x, y), seen=energies.append)
    assert kinds == {torch.bfloat16}
    assert {samples.x.dtype, samples.velocity.dtype, *(e.dtype for e in energies)} == {
        torch.float32
    }
    expected = finished(net, exact, start_at(x, y)).x
    assert 0 < (samples.x - expected).abs().max() < 0.02 * (expected - x).abs().max() + 0.01
    assert not samples.x.to(torch.bfloat16).float().equal(samples.x)


# Work


class Untracked:
    """Work by module is unknown where an input is a leaf of the graph."""

    parents = frozenset({"Global"})

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


def work(done):
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = Untracked()
    with counter:
        done()
    return counter.get_total_flops()


def forward_work(net, image):
    """Of one image."""
    with torch.no_grad():
        return work(lambda: net(image[None]))


def test_a_step_costs_a_forward_pass_and_an_input_gradient(net, batch):
    x, y = batch
    unit = forward_work(net.eval(), x[0])
    sampler, chains = Langevin(steps=5), start_at(x, y)
    assert work(lambda: sampler.advance(net, chains, DOWN)) == 2 * unit * 6  # no weight gradient
    assert all(p.grad is None for p in net.parameters())


BRISK = Langevin(steps=8, step_size=0.2, momentum=0.5, noise=0.0)
DOWN_TO = ClassEnergy(tolerance=0.0, pulls=False)


def spread(net, n):
    """Samples that arrive after 0, 1, ... 7 steps, and two of ten that never do."""
    x, y = torch.rand(n, 3, 8, 8), torch.arange(n) % 4
    seen = []
    finished(net.eval(), BRISK, start_at(x, y), seen=seen.append)
    path = torch.stack(seen)  # energies by step and sample; they fall
    assert bool((path.diff(dim=0) < 0).all())
    between = torch.cat([path[:1] + 1, (path[1:] + path[:-1]) / 2, path[-1:] - 9, path[-1:] - 9])
    when = torch.arange(n) % 10
    return start_at(x, y, between[when, torch.arange(n)]), when.clamp(max=8)


def test_the_work_is_that_of_the_samples_that_have_not_stopped(net):
    chains, when = spread(net, 40)
    unit = forward_work(net, chains.x[0])
    found, seen = [], []
    done = work(lambda: found.append(finished(net, BRISK, chains, DOWN_TO, 12, seen.append)))
    samples = found[0]
    assert samples.steps.equal(when)
    reached = samples.stop == Stop.REACHED
    assert reached.equal(when < 8)
    looks = int((samples.steps + reached).sum())  # who has arrived was looked at once more
    assert sum(map(len, seen)) == looks
    assert done == 2 * unit * looks


@pytest.mark.parametrize("steps", [8, 0])
def test_the_batch_is_full_from_the_first_step_to_the_last_of_the_queue(net, steps):
    chains, _ = spread(net, 40)
    portions = iter([chains.take(slice(*ends)) for ends in ((0, 5), (5, 6), (6, 40))])
    sizes, left = [], 40
    sampler = Langevin(steps=steps, step_size=0.05)
    for stopped in generate(net, sampler, DOWN_TO, portions, 12, lambda e: sizes.append(len(e))):
        assert steps == 0 or sizes[-1] == min(12, left)
        assert steps > 0 or len(stopped) == min(12, left)
        left -= len(stopped)
    assert left == 0
    assert steps == 0 or sizes[0] == 12


def test_a_tiled_network_works_in_whole_tiles(net):
    x, y = torch.rand(32, 3, 8, 8), torch.arange(32) % 4
    unit, tiled = forward_work(net.eval(), x[0]), Tiled(net, 16).eval()
    whole, part = (start_at(x[:n], y[:n]) for n in (32, 17))
    for chains in (whole, part):
        assert work(lambda c=chains: Langevin().advance(tiled, c, DOWN)) == 2 * unit * 32


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_a_tiled_network_gives_the_same_bits_for_any_batch_size(net, batch_size):
    x, y = torch.rand(33, 3, 8, 8), torch.arange(33) % 4
    targets = -net.eval()(x).detach()[torch.arange(33), y] - 0.05 * y
    chains = start_at(x.contiguous(memory_format=torch.channels_last), y, targets)
    sampler = Langevin(steps=5, step_size=0.05, noise=0.01, normalize=True, radius=0.3)
    guidance = ClassEnergy(tolerance=0.02)
    found = [
        finished(Tiled(net, 8).eval(), sampler, chains, guidance, size) for size in (33, batch_size)
    ]
    assert len(set(found[0].steps.tolist())) > 1
    for name in ("x", "steps", "stop", "velocity"):
        assert getattr(found[0], name).equal(getattr(found[1], name))


def test_the_network_keeps_its_parameters_and_their_gradients(net, batch):
    before = {name: value.clone() for name, value in net.eval().state_dict().items()}
    finished(net, Langevin(steps=3), start_at(*batch))
    assert all(value.equal(before[name]) for name, value in net.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in net.parameters())


# Guidance: target energies, the pull towards them, and the stopping rule

OF_TRAINING = torch.tensor([1.0, 2.0, 4.0, -3.0, -5.0])
LABELS = torch.tensor([0, 0, 0, 1, 1])
E = torch.tensor([-3.0, -0.5, -0.05, 0.0, 0.05, 0.5, 3.0])
ZERO = torch.zeros(7)


def targets(guidance, y, seed=0):
    y = torch.as_tensor(y)
    return guidance.targets(y, OF_TRAINING, LABELS, CountedNoise.of(range(len(y)), seed))


def test_the_mean_is_that_of_the_class():
    found = targets(ClassEnergy(draw="mean"), [0, 1, 0])
    torch.testing.assert_close(found, torch.tensor([7 / 3, -4.0, 7 / 3]))


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, [1.0, -5.0]), (0.5, [2.0, -4.0]), (1.0, [4.0, -3.0])]
)
def test_a_quantile_is_that_of_the_class(share, expected):
    found = targets(ClassEnergy(draw="quantile", quantile=share), [0, 1])
    assert found.tolist() == expected


def test_a_drawn_target_is_the_energy_of_an_image_of_the_class_and_each_is_as_likely():
    y = torch.arange(3000) % 2
    found = targets(ClassEnergy(), y)
    for label in (0, 1):
        values, counts = found[y == label].unique(return_counts=True)
        assert values.tolist() == sorted(OF_TRAINING[label == LABELS].tolist())
        assert chisquare(counts.numpy()).pvalue > 1e-3


def test_a_drawn_target_depends_on_the_sample_and_the_seed_alone():
    together = targets(ClassEnergy(), [0] * 50)
    alone = ClassEnergy().targets(torch.tensor([0]), OF_TRAINING, LABELS, CountedNoise.of([7], 0))
    assert together[7] == alone[0]
    assert not torch.equal(together, targets(ClassEnergy(), [0] * 50, seed=1))


@pytest.mark.parametrize("draw", ["mean", "empirical", "quantile"])
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
        ({"draw": "max"}, "^draw must be empirical, mean or quantile"),
        ({"quantile": 1.5}, ">= 0 and <= 1"),
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
