import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import kstest

from energy_at.attacks.threat import L2, Ball, Linf, clip_to_pixels
from energy_at.core.rng import normal_like, uniform_like

SHAPE = (3, 2, 2, 2)
PIXELS = math.prod(SHAPE[1:])
BALLS = [Linf(8 / 255), Linf(1.0), L2(0.5), L2(3.0)]
KS_LEVEL = 1e-3


def images(bound=4.0):
    elements = st.floats(-bound, bound, width=32, allow_subnormal=False)
    return arrays(np.float32, SHAPE, elements=elements).map(torch.from_numpy)


def radius(ball, delta):
    """The norm of the ball, image by image, from its definition."""
    if isinstance(ball, Linf):
        return torch.stack([image.abs().max() for image in delta])
    return torch.stack([image.double().square().sum().sqrt() for image in delta])


def dots(a, b):
    """Inner products, image by image."""
    return (a.double() * b.double()).flatten(1).sum(1)


balls = pytest.mark.parametrize("ball", BALLS, ids=repr)
fast = settings(deadline=None, max_examples=40, derandomize=True)


def test_both_are_balls():
    assert all(isinstance(ball, Ball) for ball in BALLS)


@balls
@given(delta=images())
@fast
def test_a_projection_lies_in_the_ball_and_is_idempotent(ball, delta):
    inside = ball.project(delta)
    assert (radius(ball, inside) <= ball.eps * (1 + 1e-6)).all()
    torch.testing.assert_close(ball.project(inside), inside, rtol=1e-6, atol=0)


@balls
@given(delta=images(), share=st.floats(0, 0.999))
@fast
def test_what_is_inside_stays_where_it_is(ball, delta, share):
    inside = delta * (share * ball.eps / 4 / PIXELS)
    assert torch.equal(ball.project(inside), inside)


@balls
@given(delta=images(), other=images())
@fast
def test_a_projection_is_the_nearest_point(ball, delta, other):
    # Of a convex set P(d) is nearest to d iff <d - P(d), z - P(d)> <= 0 for every z in the set.
    nearest, other = ball.project(delta), other * (ball.eps / 4 / math.sqrt(PIXELS))
    assert (radius(ball, other) <= ball.eps * (1 + 1e-6)).all()
    assert (dots(delta - nearest, other - nearest) <= 1e-4).all()


@balls
@given(delta=images(), far=images(bound=100.0))
@fast
def test_a_projection_does_not_look_at_the_other_images(ball, delta, far):
    alone = ball.project(delta[:1])
    together = ball.project(torch.cat([delta[:1], far]))
    torch.testing.assert_close(together[:1], alone, rtol=1e-6, atol=0)


def test_l2_projection_worked_out_by_hand():
    delta = torch.stack([torch.full((1, 2, 2), 3.0), torch.full((1, 2, 2), 0.1)])
    inside = L2(1.0).project(delta)
    torch.testing.assert_close(inside[0], torch.full((1, 2, 2), 0.5))  # norm 6 -> 1
    assert torch.equal(inside[1], delta[1])


def test_linf_projection_worked_out_by_hand():
    delta = torch.tensor([[[[0.5, -0.5], [0.05, 0.0]]]])
    expected = torch.tensor([[[[0.1, -0.1], [0.05, 0.0]]]])
    assert torch.equal(Linf(0.1).project(delta), expected)


@balls
def test_projecting_no_perturbation_gives_none(ball):
    assert torch.equal(ball.project(torch.zeros(SHAPE)), torch.zeros(SHAPE))


@balls
@given(grad=images(), other=images())
@fast
def test_steepest_is_the_best_unit_step(ball, grad, other):
    step = ball.steepest(grad)
    assert (radius(ball, step) <= 1 + 1e-6).all()
    unit = other / radius(ball, other).clamp_min(1e-30)[:, None, None, None]
    best = dots(grad, step)
    assert (best >= dots(grad, unit) - 1e-4).all()
    dual = grad.abs().flatten(1).sum(1) if isinstance(ball, Linf) else grad.flatten(1).norm(dim=1)
    torch.testing.assert_close(best, dual.double(), rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-40, 1e-25, 1e-12, 1.0, 1e12, 1e30])
def test_l2_steepest_does_not_depend_on_the_size_of_the_gradient(scale):
    direction = torch.randn(SHAPE)
    expected = direction / direction.flatten(1).norm(dim=1)[:, None, None, None]
    step = L2(0.5).steepest((direction.double() * scale).float())
    torch.testing.assert_close(step, expected, rtol=0, atol=1e-4 if scale < 1e-38 else 1e-6)


@balls
def test_where_the_function_is_flat_there_is_no_step(ball):
    grad = torch.zeros(SHAPE)
    grad[1] = torch.randn(SHAPE[1:])
    step = ball.steepest(grad)
    assert torch.equal(step[0], torch.zeros(SHAPE[1:]))
    torch.testing.assert_close(radius(ball, step)[1].float(), torch.tensor(1.0))


@balls
def test_samples_lie_in_the_ball_and_differ(ball):
    samples = ball.sample(torch.zeros(200, *SHAPE[1:]))
    assert (radius(ball, samples) <= ball.eps * (1 + 1e-6)).all()
    assert len(samples.flatten(1).unique(dim=0)) == 200


def test_linf_samples_are_uniform():
    samples = Linf(8 / 255).sample(torch.zeros(1000, *SHAPE[1:])).flatten(1) * 255 / 16 + 0.5
    for pixel in samples.T:
        assert kstest(pixel.numpy(), "uniform").pvalue > KS_LEVEL / PIXELS
    assert (samples.T.corrcoef() - torch.eye(PIXELS)).abs().max() < 0.15


def test_l2_samples_are_uniform():
    # The share of the ball within radius r is (r / eps)^d; the covariance is eps^2 / (d + 2).
    ball, n = L2(0.5), 4000
    samples = ball.sample(torch.zeros(n, *SHAPE[1:]))
    share = (radius(ball, samples) / ball.eps) ** PIXELS
    assert kstest(share.numpy(), "uniform").pvalue > KS_LEVEL
    cov = samples.flatten(1).T.cov() * (PIXELS + 2) / ball.eps**2
    torch.testing.assert_close(cov, torch.eye(PIXELS), rtol=0, atol=5 * math.sqrt(2 / n))
    assert samples.mean(0).abs().max() < 5 * ball.eps / math.sqrt((PIXELS + 2) * n)


def test_noise_has_the_moments_of_its_name():
    x = torch.zeros(1000, *SHAPE[1:])
    uniform, normal = uniform_like(x, None), normal_like(x, None)
    assert kstest((uniform.flatten().numpy() + 1) / 2, "uniform").pvalue > KS_LEVEL
    assert kstest(normal.flatten().numpy(), "norm").pvalue > KS_LEVEL


@balls
def test_samples_come_from_the_generator_alone(ball):
    x = torch.zeros(SHAPE)
    before = torch.get_rng_state()
    first, again, other = (ball.sample(x, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


@balls
def test_samples_are_the_same_for_every_memory_format(ball):
    x = torch.zeros(4, 3, 5, 7)
    strided = x.contiguous(memory_format=torch.channels_last)
    a, b = (ball.sample(z, torch.Generator().manual_seed(0)) for z in (x, strided))
    torch.testing.assert_close(a, b, rtol=1e-6, atol=0)
    assert b.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("noise", [uniform_like, normal_like])
def test_noise_is_the_same_for_every_memory_format(noise):
    x = torch.zeros(4, 3, 5, 7)
    strided = x.contiguous(memory_format=torch.channels_last)
    a, b = (noise(z, torch.Generator().manual_seed(0)) for z in (x, strided))
    assert torch.equal(a, b)
    assert b.is_contiguous(memory_format=torch.channels_last)


@balls
def test_samples_keep_the_precision_of_the_images(ball):
    assert ball.sample(torch.zeros(SHAPE, dtype=torch.double)).dtype == torch.double


@given(delta=images(bound=2.0), x=images(bound=1.0))
@fast
def test_clipping_gives_the_nearest_image(delta, x):
    x = x.abs()
    moved = x + clip_to_pixels(x, delta)
    assert moved.min() >= -1e-6
    assert moved.max() <= 1 + 1e-6
    inside = (x + delta >= 0) & (x + delta <= 1)
    torch.testing.assert_close(moved[inside], (x + delta)[inside])
    assert moved[x + delta > 1].sub(1).abs().le(1e-6).all()
    assert moved[x + delta < 0].abs().le(1e-6).all()


@balls
def test_scaling_scales_the_radius_only(ball):
    half = ball.scaled(0.5)
    assert type(half) is type(ball)
    assert half.eps == ball.eps / 2


@pytest.mark.parametrize("eps", [0.0, -0.1, 8.0, 1.001, math.inf, math.nan])
def test_linf_radius_in_the_wrong_unit_is_refused(eps):
    with pytest.raises(ValueError, match="eps"):
        Linf(eps)


@pytest.mark.parametrize("eps", [0.0, -0.5, math.inf, math.nan])
def test_l2_radius_that_holds_nothing_is_refused(eps):
    with pytest.raises(ValueError, match="eps"):
        L2(eps)


def test_scaling_out_of_the_pixel_range_is_refused():
    with pytest.raises(ValueError, match="eps"):
        Linf(0.6).scaled(2.0)
    with pytest.raises(ValueError, match="eps"):
        L2(0.5).scaled(0.0)
