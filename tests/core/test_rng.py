"""Noise of images, by generators and by number: the same for an image wherever it is drawn."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from energy_at.attacks import pgd, rs_fgsm, trades
from energy_at.attacks.threat import L2, Linf
from energy_at.core.distributed import Part
from energy_at.core.rng import (
    CountedNoise,
    ImageNoise,
    PartNoise,
    batch_share_like,
    normal_like,
    part_of,
    shares_like,
    uniform_like,
)
from tests.helpers.nets import TinyNet

X = torch.zeros(5, 3, 8, 8)
NUMBERS = [7, 0, 3, 9, 1]
LIKE = {"uniform": uniform_like, "normal": normal_like, "shares": shares_like}
KS_LEVEL = 1e-3
draws = pytest.mark.parametrize("like", LIKE.values(), ids=LIKE.keys())
balls = pytest.mark.parametrize("ball", [Linf(0.1), L2(0.5)], ids=["linf", "l2"])


def of(numbers, *parts):
    return ImageNoise.of(numbers, *parts)


@draws
def test_the_numbers_of_an_image_depend_on_no_other_image(like):
    together = like(X, of(NUMBERS))
    for i, number in enumerate(NUMBERS):
        assert torch.equal(together[i : i + 1], like(X[:1], of([number])))


@draws
def test_the_order_of_the_images_is_the_order_of_their_numbers(like):
    order = [3, 1, 4, 0, 2]
    shuffled = like(X, of([NUMBERS[i] for i in order]))
    assert torch.equal(shuffled, like(X, of(NUMBERS))[order])


@draws
def test_images_seeds_and_attempts_differ(like):
    found = [like(X, noise) for noise in (of(NUMBERS, 0, 0), of(NUMBERS, 1, 0), of(NUMBERS, 0, 1))]
    assert len({tuple(image.flatten().tolist()) for batch in found for image in batch}) == 15


@draws
def test_the_same_seed_draws_the_same(like):
    assert torch.equal(like(X, of(NUMBERS, 5)), like(X, of(NUMBERS, 5)))


@draws
def test_one_draw_after_the_other_is_fresh(like):
    noise = of(NUMBERS)
    assert not torch.equal(like(X, noise), like(X, noise))


@draws
@pytest.mark.parametrize(
    "chosen",
    [torch.tensor([False, True, False, True, True]), torch.tensor([1, 3, 4])],
    ids=["mask", "positions"],
)
def test_a_part_resumes_where_the_whole_stopped_and_the_whole_where_the_part_did(like, chosen):
    unbroken = of(NUMBERS)
    first, second, third = (like(X, unbroken) for _ in range(3))
    noise = of(NUMBERS)
    assert torch.equal(like(X, noise), first)
    part = noise.take(chosen)
    assert torch.equal(like(X[chosen], part), second[chosen])
    again = like(X, noise)
    left = [0, 2]
    assert torch.equal(again[chosen], third[chosen])
    assert torch.equal(again[left], second[left])


def test_a_part_of_a_part_shares_its_generators():
    noise = of(NUMBERS)
    part = noise.take(torch.tensor([1, 3, 4])).take(torch.tensor([False, True, True]))
    assert part.generators == noise.generators[3:]


def test_a_batch_of_another_size_is_refused():
    with pytest.raises(ValueError, match="noise of 5 images for a batch of 4"):
        uniform_like(X[:4], of(NUMBERS))


def test_distributions_are_those_that_the_names_say():
    x, noise = torch.zeros(200, 1, 10, 10), of(range(200))
    assert kstest(uniform_like(x, noise).flatten(), "uniform", (-1, 2)).pvalue > KS_LEVEL
    assert kstest(normal_like(x, noise).flatten(), "norm").pvalue > KS_LEVEL
    many = torch.zeros(20_000, 1, 1, 1)
    assert kstest(shares_like(many, of(range(20_000))), "uniform").pvalue > KS_LEVEL


def test_a_batch_shares_a_number_in_all_processes_and_images_with_generators_have_their_own():
    def generator():
        return torch.Generator().manual_seed(3)

    whole = batch_share_like(X, generator())
    assert whole.unique().numel() == 1
    assert 0 <= whole[0] < 1
    parts = [PartNoise(generator(), slice(*part), 5) for part in ((0, 3), (3, 5))]
    for noise, images in zip(parts, (X[:3], X[3:]), strict=True):
        assert torch.equal(batch_share_like(images, noise), whole[: len(images)])
        assert torch.equal(uniform_like(images, noise), _second(generator())[noise.part])
    assert torch.equal(batch_share_like(X, of(NUMBERS)), shares_like(X, of(NUMBERS)))


def _second(generator):
    batch_share_like(X, generator)
    return uniform_like(X, generator)


def test_images_are_independent_of_each_other():
    drawn = normal_like(torch.zeros(60, 1, 50, 50), of(range(60))).flatten(1)
    correlation = torch.corrcoef(drawn) - torch.eye(60)
    assert correlation.abs().max() < 5 / 50  # five standard deviations of 1 / sqrt(2500)


@pytest.mark.parametrize("noise", [lambda: of(NUMBERS), lambda: torch.Generator().manual_seed(3)])
@pytest.mark.parametrize("like", [uniform_like, normal_like])
def test_the_memory_format_changes_no_number_and_is_kept(like, noise):
    x = X.contiguous(memory_format=torch.channels_last)
    drawn = like(x, noise())
    assert drawn.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(drawn, like(X, noise()))


@draws
def test_double_images_get_the_same_numbers_as_floats(like):
    drawn = like(X.double(), of(NUMBERS))
    assert drawn.dtype == torch.double
    assert torch.equal(drawn.float(), like(X, of(NUMBERS)))


@draws
def test_it_leaves_the_global_generator_alone(like):
    before = torch.get_rng_state()
    like(X, of(NUMBERS))
    assert torch.equal(torch.get_rng_state(), before)


def test_part_of_shares_one_generator_and_splits_one_for_each_image():
    chosen = torch.tensor([True, False, False, True, False])
    generator = torch.Generator()
    assert part_of(generator, chosen) is generator
    assert part_of(None, chosen) is None
    noise = of(NUMBERS)
    assert part_of(noise, chosen).generators == [noise.generators[0], noise.generators[3]]


@balls
def test_a_point_of_the_ball_depends_on_no_other_image(ball):
    together = ball.sample(X, of(NUMBERS))
    alone = torch.cat([ball.sample(X[:1], of([number])) for number in NUMBERS])
    torch.testing.assert_close(together, alone)
    assert together.flatten(1).norm(p=2 if isinstance(ball, L2) else torch.inf, dim=1).max() <= (
        ball.eps * (1 + 1e-6)
    )


@balls
@pytest.mark.parametrize("make", [pgd, rs_fgsm, trades])
def test_an_attack_on_an_image_depends_on_no_other_image(make, ball):
    net = TinyNet().double().eval()
    x, y = torch.rand(5, 3, 8, 8, dtype=torch.double), torch.arange(5) % 4
    together = make(ball)(net, x, y, generator=of(NUMBERS)).x_adv
    for i, number in enumerate(NUMBERS):
        alone = make(ball)(net, x[i : i + 1], y[i : i + 1], generator=of([number])).x_adv
        torch.testing.assert_close(together[i : i + 1], alone)


KINDS = ["normal", "uniform"]
kinds = pytest.mark.parametrize("kind", KINDS)


def drawn(kind, numbers, draws, size, *parts):
    return getattr(CountedNoise.of(numbers, *parts), kind)(draws, size)


def splitmix64(state):
    """Next number of Steele, Lea and Flood's generator, and its next state."""
    state = (state + 0x9E3779B97F4A7C15) % 2**64
    z = state
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
    return z ^ (z >> 31), state


def finalized(z):
    """The last step of splitmix64: what it makes of its state."""
    return splitmix64((z - 0x9E3779B97F4A7C15) % 2**64)[0]


def reference_bits(number, seed, draw, size):
    """Outputs of a splitmix64 whose state is a scrambled mixture of key and draw."""
    key = int(np.random.SeedSequence((seed, number)).generate_state(1, np.uint64)[0]) >> 1
    state = finalized((key + 0x9E3779B97F4A7C15 * draw) % 2**64)
    found = []
    for _ in range(size):
        bits, state = splitmix64(state)
        found.append(bits)
    return found


@pytest.mark.parametrize("draw", [0, 5, -3])
def test_uniform_numbers_are_the_upper_bits_of_splitmix64(draw):
    expected = [(bits >> 40) / 2**24 for bits in reference_bits(12, 4, draw, 6)]
    assert drawn("uniform", [12], draw, 6, 4)[0].tolist() == expected


@pytest.mark.parametrize("draw", [0, 5, -3])
def test_normal_numbers_are_box_and_mullers(draw):
    bits = reference_bits(12, 4, draw, 3)
    radii = [math.sqrt(-2 * math.log(((b >> 40) + 0.5) / 2**24)) for b in bits]
    angles = [2 * math.pi * ((b >> 16) % 2**24) / 2**24 for b in bits]
    expected = [r * math.cos(a) for r, a in zip(radii, angles, strict=True)]
    expected += [r * math.sin(a) for r, a in zip(radii, angles, strict=True)]
    found = drawn("normal", [12], draw, 6, 4)[0]
    torch.testing.assert_close(found, torch.tensor(expected), atol=2e-6, rtol=0)


def test_distributions_of_counted_noise_are_those_that_the_names_say():
    for kind, name in zip(KINDS, ("norm", "uniform"), strict=True):
        across_pixels = drawn(kind, [3], 0, 9000)
        across_images = drawn(kind, range(9000), 0, 1)
        across_draws = drawn(kind, [3] * 9000, torch.arange(9000), 1)
        for found in (across_pixels, across_images, across_draws):
            assert kstest(found.flatten(), name).pvalue > KS_LEVEL


@kinds
def test_images_draws_and_pixels_are_uncorrelated(kind):
    by_image = drawn(kind, range(60), 0, 2500)
    by_draw = drawn(kind, [3] * 60, torch.arange(60), 2500)
    by_pixel = drawn(kind, range(2500), 0, 60).T
    for found in (by_image, by_draw, by_pixel):
        correlation = torch.corrcoef(found) - torch.eye(60)
        assert correlation.abs().max() < 5 / 50  # five standard deviations of 1 / sqrt(2500)


def test_the_two_halves_of_a_normal_draw_are_independent():
    first, second = drawn("normal", [3], 0, 40_000)[0].chunk(2)
    for a, b in ((first, second), (first**2, second**2), (first.abs(), second)):
        assert abs(float(torch.corrcoef(torch.stack([a, b]))[0, 1])) < 5 / math.sqrt(20_000)


@kinds
def test_counted_numbers_of_an_image_depend_on_no_other_image(kind):
    draws = torch.tensor([4, 4, 0, 2, 9])
    together = drawn(kind, NUMBERS, draws, 7)
    for i, number in enumerate(NUMBERS):
        assert torch.equal(together[i : i + 1], drawn(kind, [number], int(draws[i]), 7))


@kinds
def test_nothing_is_remembered(kind):
    noise = CountedNoise.of(NUMBERS)
    first = getattr(noise, kind)(3, 11)
    getattr(noise, kind)(4, 11)
    assert torch.equal(getattr(noise, kind)(3, 11), first)


@kinds
def test_images_draws_and_seeds_differ(kind):
    rows = [
        tuple(row)
        for seed in range(3)
        for draw in (-3, -1, 0, 1)
        for row in drawn(kind, NUMBERS, draw, 4, seed).tolist()
    ]
    assert len(set(rows)) == 3 * 4 * 5


def test_uniform_reaches_zero_and_never_one():
    found = drawn("uniform", range(500), 0, 2000)
    assert 0 <= float(found.min()) < 1e-5
    assert 1 - 1e-5 < float(found.max()) < 1


def test_normal_is_finite_at_both_ends_of_its_bits():
    """No bits set would be the logarithm of zero."""
    found = drawn("normal", range(500), 0, 2000)
    assert bool(torch.isfinite(found).all())
    farthest = math.sqrt(2 * 25 * math.log(2))  # of 2^-25
    assert 4.5 < float(found.abs().max()) <= farthest


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    drawn("normal", NUMBERS, 0, 5)
    assert torch.equal(torch.get_rng_state(), before)


def test_any_number_of_them_can_be_drawn():
    assert drawn("normal", [5], 0, 5).shape == (1, 5)
    assert torch.equal(drawn("uniform", [5], 0, 5), drawn("uniform", [5], 0, 6)[:, :5])
    assert drawn("normal", [5], 0, 1).shape == (1, 1)


# Noise


DRAWN = LIKE | {"linf": Linf(0.1).sample, "l2": L2(0.5).sample}


@pytest.mark.parametrize("like", DRAWN.values(), ids=DRAWN)
def test_all_parts_together_draw_what_one_process_draws(like):
    x = torch.rand(7, 3, 8, 8).to(memory_format=torch.channels_last)
    whole = like(x, torch.Generator().manual_seed(3))
    parts = []
    for rank in range(3):
        part = Part(7, rank, 3)
        parts.append(like(x[part.place], part.noise(torch.Generator().manual_seed(3))))
    assert torch.equal(torch.cat(parts), whole)
    assert len({image.sum().item() for image in torch.cat(parts)}) == 7


def test_chosen_images_of_a_part_draw_their_own_numbers():
    x, chosen = torch.rand(6, 3, 8, 8), torch.tensor([False, True, True])
    own = PartNoise(torch.Generator().manual_seed(1), slice(3, 6), 6)
    few = part_of(own, chosen)
    whole = uniform_like(x, torch.Generator().manual_seed(1))
    assert torch.equal(uniform_like(x[4:], few), whole[4:])
