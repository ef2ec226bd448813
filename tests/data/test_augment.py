"""Crop and flip of every image on its own."""

import numpy as np
import pytest
import torch
from scipy.stats import chi2_contingency, chisquare

from energy_at.data.loaders import Draws, crop_and_flip, draw


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def one_by_one(pixels, draws, pad):
    """Pad, cut out, mirror: one image after the other."""
    height, width = pixels.shape[2:]
    out = []
    for image, top, left, flip in zip(
        pixels.numpy(), draws.top.tolist(), draws.left.tolist(), draws.flip.tolist(), strict=True
    ):
        padded = np.pad(image, ((0, 0), (pad, pad), (pad, pad)))
        crop = padded[:, top : top + height, left : left + width]
        out.append(crop[:, :, ::-1] if flip else crop)
    return torch.from_numpy(np.stack(out))


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("pad", [0, 1, 4])
@pytest.mark.parametrize("shape", [(50, 3, 8, 8), (50, 1, 5, 9), (1, 2, 6, 3)])
def test_agrees_with_one_image_after_the_other(shape, pad, flip):
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8)
    draws = draw(len(pixels), pad=pad, flip=flip, generator=generator())
    augmented = crop_and_flip(pixels, draws, pad)
    assert torch.equal(augmented, one_by_one(pixels, draws, pad))
    assert augmented.dtype == torch.uint8


def test_a_crop_and_a_flip_by_hand():
    image = torch.tensor([[[[1, 2], [3, 4]]]], dtype=torch.uint8)

    def augmented(top, left, flip):
        draws = Draws(torch.tensor([top]), torch.tensor([left]), torch.tensor([flip]))
        return crop_and_flip(image, draws, 1)[0, 0].tolist()

    assert augmented(1, 1, False) == [[1, 2], [3, 4]]
    assert augmented(1, 1, True) == [[2, 1], [4, 3]]
    assert augmented(0, 0, False) == [[0, 0], [0, 1]]
    assert augmented(0, 0, True) == [[0, 0], [1, 0]]
    assert augmented(2, 1, False) == [[3, 4], [0, 0]]
    assert augmented(1, 2, True) == [[0, 2], [0, 4]]


def test_no_augmentation_is_the_identity():
    pixels = torch.randint(0, 256, (20, 3, 8, 8), dtype=torch.uint8)
    draws = draw(20, pad=0, flip=False, generator=generator())
    assert torch.equal(crop_and_flip(pixels, draws, 0), pixels)


def test_flipping_twice_is_the_identity():
    pixels = torch.randint(0, 256, (20, 3, 8, 7), dtype=torch.uint8)
    draws = draw(20, pad=0, flip=True, generator=generator())
    flipped = crop_and_flip(pixels, draws, 0)
    assert not torch.equal(flipped, pixels)
    assert torch.equal(crop_and_flip(flipped, draws, 0), pixels)


def test_the_images_themselves_are_not_written_to():
    pixels = torch.randint(0, 256, (20, 3, 8, 8), dtype=torch.uint8)
    before = pixels.clone()
    crop_and_flip(pixels, draw(20, pad=2, flip=True, generator=generator()), 2)
    assert torch.equal(pixels, before)


@pytest.mark.parametrize("pad", [1, 4])
def test_offsets_are_uniform_and_independent(pad):
    draws = draw(20_000, pad=pad, flip=True, generator=generator())
    for offsets in (draws.top, draws.left):
        assert offsets.min() == 0
        assert offsets.max() == 2 * pad
        assert chisquare(torch.bincount(offsets)).pvalue > 0.001
    together = torch.zeros((2 * pad + 1, 2 * pad + 1, 2))
    together.index_put_(
        (draws.top, draws.left, draws.flip.long()), torch.ones(20_000), accumulate=True
    )
    assert chi2_contingency(together.sum(2)).pvalue > 0.001
    assert chi2_contingency(together.flatten(0, 1)).pvalue > 0.001


def test_flips_are_a_fair_coin_if_they_are_wanted():
    heads = int(draw(20_000, pad=4, flip=True, generator=generator()).flip.sum())
    assert abs(heads - 10_000) < 4 * np.sqrt(20_000 / 4)
    assert not draw(20_000, pad=4, flip=False, generator=generator()).flip.any()


def test_every_image_has_its_own_draw():
    pixels = torch.randint(0, 256, (1, 1, 8, 8), dtype=torch.uint8).expand(400, 1, 8, 8)
    draws = draw(400, pad=2, flip=True, generator=generator())
    # 25 crops times 2 mirrors; the chance that one of the 50 is missing is below 0.02.
    assert len(crop_and_flip(pixels, draws, 2).unique(dim=0)) == 50


def test_draws_are_a_function_of_the_generator():
    def drawn(seed):
        draws = draw(100, pad=4, flip=True, generator=generator(seed))
        return torch.stack([draws.top, draws.left, draws.flip.long()])

    state = torch.get_rng_state()
    assert torch.equal(drawn(0), drawn(0))
    assert not torch.equal(drawn(0), drawn(1))
    assert torch.equal(torch.get_rng_state(), state)


def test_draws_of_a_part_augment_the_part():
    pixels = torch.randint(0, 256, (30, 3, 8, 8), dtype=torch.uint8)
    draws = draw(30, pad=2, flip=True, generator=generator())
    part = slice(10, 25)
    assert torch.equal(
        crop_and_flip(pixels[part], draws.take(part), 2), crop_and_flip(pixels, draws, 2)[part]
    )
