"""Where samples begin: components against an SVD, draws against the images they stand for."""

import math
import subprocess
import sys

import pytest
import torch
from torch import nn

from energy_at.core.rng import CountedNoise
from energy_at.sampling import (
    ClassGaussian,
    ClassPCA,
    LocalPCA,
    Start,
    TrainingImages,
    Uniform,
)
from energy_at.sampling.starts import find_components
from tests.helpers.starts import drawn, images_of

STARTS = [Uniform(), ClassGaussian(), ClassPCA(), LocalPCA(k=3, by="pixels")]


def assert_law(points, mean, covariance):
    """Mean and covariance of the points are these within 4.5 standard errors."""
    n = len(points)
    variances = covariance.diagonal()
    errors = (points.mean(0) - mean) / (variances / n).sqrt()
    assert errors.abs().max() < 4.5
    found = points.T.cov()
    spread = ((variances[:, None] * variances + covariance**2) / n).sqrt()  # of normal points
    assert ((found - covariance) / spread).abs().max() < 4.5


# Principal components


@pytest.mark.parametrize(("count", "size"), [(40, 12), (8, 12), (12, 12)])
def test_components_are_those_of_an_svd_up_to_sign(count, size):
    points = torch.randn(count, size, dtype=torch.double) @ torch.randn(size, size).double()
    part = find_components(points)
    _, values, directions = torch.linalg.svd(points - points.mean(0), full_matrices=False)
    kept = min(count - 1, size)
    assert len(part.vectors) == min(count, size)
    assert len(part.deviations) == kept
    torch.testing.assert_close(part.deviations, values[:kept] / math.sqrt(count - 1))
    found = part.vectors.T  # rows, in pixels or as weights of the points
    if count <= size:  # of the Gram matrix
        found = nn.functional.normalize(found @ (points - points.mean(0)), dim=1)
    torch.testing.assert_close(
        (found * directions[:kept]).sum(1).abs(), torch.ones(kept, dtype=torch.double)
    )


@pytest.mark.parametrize("count", [40, 8])
@pytest.mark.parametrize("variance", [0.3, 0.8, 0.95, 1.0])
def test_as_few_components_as_hold_the_variance(count, variance):
    points = torch.randn(count, 12, dtype=torch.double) @ torch.randn(12, 12).double()
    shares = torch.linalg.svdvals(points - points.mean(0)) ** 2
    held = (shares / shares.sum()).cumsum(0)
    kept = len(find_components(points, variance).deviations)
    assert held[kept - 1] >= variance - 1e-9
    assert kept == 1 or held[kept - 2] < variance


def test_equal_points_have_no_components_and_are_drawn_as_they_are():
    points = torch.full((5, 4), 0.25)
    part = find_components(points)
    assert part.deviations.tolist() == []
    assert part.draw(points, torch.randn(3, len(part.vectors)), 1.0).equal(torch.full((3, 4), 0.25))


@pytest.mark.parametrize("variance", [0.0, -0.5, 1.01, math.nan])
def test_a_variance_that_is_no_share_is_refused(variance):
    for make in (ClassPCA, LocalPCA):
        with pytest.raises(ValueError, match=r"^variance must be a finite number > 0 and <= 1"):
            make(variance=variance)


def test_no_points_have_no_components():
    with pytest.raises(ValueError, match="no images"):
        find_components(torch.zeros(0, 3))


# Draws


@pytest.mark.parametrize("count", [60, 5], ids=["many images", "few images"])
@pytest.mark.parametrize("scale", [1.0, 0.354])
@pytest.mark.parametrize("kind", [ClassGaussian, ClassPCA])
def test_draws_have_the_mean_and_the_covariance_of_their_class(kind, scale, count):
    images = images_of(50, count)
    start = kind(scale=scale) if kind is ClassGaussian else ClassPCA(1.0, scale)
    points = drawn(start, 1, 3000, images, start.fit(images)).double()
    rows = images.of(1).double()
    assert_law(points, rows.mean(0), scale**2 * rows.T.cov())


def test_a_share_of_the_variance_leaves_the_other_components_out():
    images = images_of(60)
    start = ClassPCA(variance=0.7, scale=1.0)
    points = drawn(start, 0, 3000, images, start.fit(images)).double()
    rows = images.of(0).double()
    values, directions = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)[1:]
    kept = int(((values**2).cumsum(0) / (values**2).sum() < 0.7).sum()) + 1
    assert 1 <= kept < 5
    along = (points - rows.mean(0)) @ directions.T
    assert along[:, kept:].abs().max() < 1e-5
    deviations = values[:kept] / math.sqrt(59)
    assert_law(along[:, :kept], torch.zeros(kept), torch.diag(deviations**2))


def test_the_predecessors_scale_is_in_standard_deviations():
    """Its 0.005 of the singular values of 5,000 images."""
    assert ClassPCA().scale == pytest.approx(0.005 * math.sqrt(4999), abs=1e-3)


def test_noise_is_uniform_over_all_pixels():
    images = images_of(4)
    points = drawn(Uniform(), 0, 4000, images, {})
    assert points.shape == (4000, 6)
    assert_law(points.double(), torch.full((6,), 0.5), torch.eye(6).double() / 12)
    assert points.min() >= 0
    assert points.max() < 1


@pytest.mark.parametrize("start", STARTS, ids=lambda start: type(start).__name__)
def test_a_draw_depends_on_number_and_seed_alone(start):
    images = images_of(9, 9)
    fit = start.fit(images)
    whole = drawn(start, 1, 32, images, fit)
    assert drawn(start, 1, 32, images, fit).equal(whole)
    assert not drawn(start, 1, 32, images, fit, seed=1).equal(whole)
    alone = start.draw(1, torch.tensor([5]), CountedNoise.of([5], 0), images, fit)
    torch.testing.assert_close(alone, whole[5:6])
    assert len(whole.unique(dim=0)) == 32


@pytest.mark.parametrize("start", STARTS, ids=lambda start: type(start).__name__)
def test_a_start_is_a_start_and_stays_with_its_class(start):
    assert isinstance(start, Start)
    dark, light = images_of(9, 9).pixels // 8, 255 - images_of(9, 9).pixels // 8
    labels = torch.tensor([0] * 18 + [1] * 18)
    images = TrainingImages(torch.cat([dark, light]), labels, 2)
    fit = start.fit(images)
    means = [drawn(start, label, 32, images, fit).mean() for label in (0, 1)]
    if isinstance(start, Uniform):
        assert means[0] == means[1]
    else:
        assert means[0] < 0.3
        assert means[1] > 0.7


# Neighbourhoods


def neighbours(images, rows, k):
    """By a loop."""
    found = []
    for i, label in enumerate(images.labels.tolist()):
        others = [j for j in range(len(images.labels)) if images.labels[j] == label and j != i]
        others.sort(key=lambda j: float((rows[i] - rows[j]).norm()))
        found.append(others[:k])
    return found


def means_of_blocks(pixels):
    """Of 4 x 4 pixels, fewer at the lower and right edges; a loop."""
    starts = [(i, j) for i in range(0, pixels.shape[2], 4) for j in range(0, pixels.shape[3], 4)]
    blocks = [pixels[:, :, i : i + 4, j : j + 4].float().mean((2, 3)) for i, j in starts]
    return torch.cat(blocks, 1)


@pytest.mark.parametrize("by", ["pixels", "features", "low_frequencies"])
@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 8, 10)])
def test_neighbours_are_the_nearest_of_the_class(by, shape):
    images = images_of(20, 31, shape=shape)
    features = torch.randn(51, 7)
    fit = LocalPCA(k=4, by=by).fit(images, features)["neighbours"]
    compared = {
        "features": features,
        "pixels": images.pixels.flatten(1).float(),
        "low_frequencies": means_of_blocks(images.pixels),
    }
    rows = compared[by]
    expected = neighbours(images, rows.double(), 4)
    labels = images.labels.tolist()
    found = [images.places(label)[fit[i].long()].tolist() for i, label in enumerate(labels)]
    for i, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        assert len({i, *ours}) == 5
        assert {labels[j] for j in ours} == {labels[i]}
        distances = [(rows[i] - rows[near]).norm(dim=1) for near in (ours, theirs)]
        torch.testing.assert_close(*distances)  # some are equally far


def test_a_draw_lies_in_the_affine_hull_of_an_image_and_its_neighbours():
    images = images_of(12, 15, shape=(1, 4, 5))
    rows = images.pixels.flatten(1).double() / 255
    hulls = [
        rows[[i, *near]] for i, near in enumerate(neighbours(images, rows, 3)) if images.labels[i]
    ]
    start = LocalPCA(k=3, by="pixels", variance=1.0)
    points = drawn(start, 1, 60, images, start.fit(images)).double()
    of_hull = torch.stack([_distance_to_hull(points, hull) for hull in hulls])
    assert of_hull.min(0).values.max() < 1e-5
    assert len(of_hull.argmin(0).unique()) > 10  # anchors are drawn all over the class
    assert of_hull.median() > 0.05  # the other hulls are elsewhere


def _distance_to_hull(points, hull):
    directions = torch.linalg.qr((hull[1:] - hull[0]).T)[0]
    gaps = points - hull[0]
    return (gaps - gaps @ directions @ directions.T).norm(dim=1)


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_a_neighbourhood_has_its_own_mean_and_covariance(scale):
    """With as many neighbours as there are others, it is the class."""
    images = images_of(7, 30)
    start = LocalPCA(k=6, by="pixels", variance=1.0, scale=scale)
    points = drawn(start, 0, 3000, images, start.fit(images)).double()
    rows = images.of(0).double()
    assert_law(points, rows.mean(0), scale**2 * rows.T.cov())


def test_a_neighbourhood_keeps_a_share_of_its_variance():
    images = images_of(7)
    rows = images.of(0).double()
    values, directions = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)[1:]
    share = float(values[0] ** 2 / (values**2).sum())
    for variance, kept in ((share - 0.01, 1), (share + 0.01, 2)):
        start = LocalPCA(k=6, by="pixels", variance=variance)
        along = drawn(start, 0, 500, images, start.fit(images)).double() - rows.mean(0)
        along = along @ directions.T
        assert along[:, kept:].abs().max() < 1e-5
        assert along[:, kept - 1].abs().max() > 1e-3


def test_without_scale_it_is_the_mean_of_the_neighbourhood():
    images = images_of(9)
    rows = images.of(0).double()
    near = neighbours(images, rows, 2)
    means = torch.stack([rows[[i, *others]].mean(0) for i, others in enumerate(near)])
    start = LocalPCA(k=2, by="pixels", scale=0.0)
    points = drawn(start, 0, 40, images, start.fit(images)).double()
    assert torch.cdist(points, means).min(1).values.max() < 1e-6


def test_more_neighbours_than_there_are_others_are_refused():
    with pytest.raises(
        ValueError, match=r"^k must be at most 8, the number of other images of class 1, got 9$"
    ):
        LocalPCA(k=9, by="pixels").fit(images_of(20, 9))


@pytest.mark.parametrize(
    ("change", "said"), [({"k": 0}, "^k must be"), ({"by": "hue"}, "^by must be")]
)
def test_what_is_no_neighbourhood_is_refused(change, said):
    with pytest.raises(ValueError, match=said):
        LocalPCA(**change)


@pytest.mark.parametrize("start", STARTS[1:], ids=lambda start: type(start).__name__)
def test_a_class_without_images_is_refused(start):
    images = images_of(9, 9)
    with pytest.raises(ValueError, match="class 2 has no training images"):
        start.fit(TrainingImages(images.pixels, images.labels, 3))


# Size

TINY_IMAGENET = """
import resource, sys
import torch
from energy_at.core.rng import CountedNoise
from energy_at.sampling import ClassPCA, LocalPCA, TrainingImages
pixels = torch.randint(0, 256, (200 * {images}, 3, 64, 64), dtype=torch.uint8)
images = TrainingImages(pixels, torch.arange(200 * {images}) % 200, 200)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = {start}
fit = start.fit(images)
for label in (0, 199):
    noise = CountedNoise.of(range(32))
    assert start.draw(label, torch.arange(32), noise, images, fit).shape == (32, 12288)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("start", ["ClassPCA(variance=0.9)", "LocalPCA(k=20, by='pixels')"])
def test_tiny_imagenet_is_served_within_4_gb(start):
    """Next to the bytes of its images."""
    program = TINY_IMAGENET.format(images=500, start=start)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=3000
    )
    assert int(done.stdout) < 4e6  # KiB
