import pytest
import torch
from scipy.stats import kstest

from energy_at.attacks import pgd, rs_fgsm, trades
from energy_at.attacks.threat import L2, Linf
from energy_at.core.rng import ImageNoise, normal_like, part_of, shares_like, uniform_like
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
