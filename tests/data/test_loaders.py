"""Batches: every image once, the same for the same seed and epoch, resumable at any of them."""

import numpy as np
import pytest
import torch
from scipy.stats import chi2_contingency, chisquare

from energy_at.data import EvalLoader, ImageSet, IndexedImages, TrainLoader
from energy_at.data.loaders import Draws, as_floats, crop_and_flip, draw

N, BATCH = 103, 10


@pytest.fixture
def images():
    """Images of random pixels; the label is the number of the image."""
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (N, 3, 6, 6), dtype=torch.uint8, generator=generator)
    return ImageSet(pixels, torch.arange(N))


def loader(images, *, seed=0, epoch=0, **options):
    options = {"pad": 1, "flip": True} | options
    made = TrainLoader(images, BATCH, seed=seed, **options)
    made.set_epoch(epoch)
    return made


def same(batches, others):
    return len(batches) == len(others) and all(
        torch.equal(x, other_x) and torch.equal(y, other_y)
        for (x, y), (other_x, other_y) in zip(batches, others, strict=True)
    )


def order(batches):
    return torch.cat([y for _, y in batches]).tolist()


@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_an_epoch_has_every_image_once(images, epoch):
    batches = list(loader(images, epoch=epoch))
    assert [len(y) for _, y in batches] == [10] * 10 + [3]
    assert len(batches) == len(loader(images))
    assert sorted(order(batches)) == list(range(N))
    assert order(batches) != list(range(N))


@pytest.mark.parametrize(("n", "batches"), [(1, 1), (10, 1), (11, 2), (20, 2)])
def test_length_counts_a_last_smaller_batch(images, n, batches):
    assert len(loader(images.first(n))) == len(list(loader(images.first(n)))) == batches
    assert len(EvalLoader(images.first(n), BATCH)) == batches


@pytest.mark.parametrize("done", [0, 3])
@pytest.mark.parametrize("world", [1, 2])
def test_a_batch_has_positions_in_the_set_after_a_resume_too(images, done, world):
    for rank in range(world):
        batches = loader(images, epoch=2, rank=rank, world=world)
        with pytest.raises(RuntimeError, match="drawn with its first batch"):
            batches.images_of(0)
        batches.load_state_dict({"epoch": 2, "batch": done})
        for number, (_, y) in enumerate(batches, done):
            assert torch.equal(batches.images_of(number), y)  # the label is the position


def test_images_keep_their_labels_and_without_augmentation_their_pixels(images):
    for x, y in loader(images, pad=0, flip=False):
        assert torch.equal((x * 255).round().to(torch.uint8), images.pixels[y])


def test_an_augmented_image_is_a_crop_of_the_image_of_its_label(images):
    for x, y in loader(images, pad=1, flip=False):
        padded = np.pad(images.pixels[y].numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)))
        for image, source in zip((x * 255).round().numpy(), padded, strict=True):
            crops = [source[:, i : i + 6, j : j + 6] for i in range(3) for j in range(3)]
            assert any(np.array_equal(image, crop) for crop in crops)


def test_batches_are_a_function_of_seed_and_epoch(images):
    reference = list(loader(images, seed=3, epoch=2))
    torch.manual_seed(99)
    state = torch.get_rng_state()
    again = loader(images, seed=3, epoch=2)
    assert same(list(again), reference)
    assert same(list(again), reference)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("seed", "epoch"), [(3, 1), (4, 2), (2, 3), (0, 0)])
def test_another_seed_or_epoch_gives_other_batches(images, seed, epoch):
    assert order(loader(images, seed=seed, epoch=epoch)) != order(loader(images, seed=3, epoch=2))


def test_augmentation_of_an_image_changes_with_the_epoch(images):
    def by_label(epoch):
        batches = list(loader(images, epoch=epoch))
        return torch.cat([x for x, _ in batches])[np.argsort(order(batches))]

    unchanged = [torch.equal(a, b) for a, b in zip(by_label(0), by_label(1), strict=True)]
    assert sum(unchanged) < N / 4  # 1 in 18 by chance


def test_batches_of_an_epoch_have_draws_of_their_own():
    image = torch.randint(0, 256, (1, 1, 6, 6), dtype=torch.uint8)
    copies = ImageSet(image.repeat(100, 1, 1, 1), torch.arange(100))
    batches = [x for x, _ in loader(copies, pad=2, flip=True)]
    assert len(batches) == len(torch.stack(batches).unique(dim=0)) == 10


@pytest.mark.parametrize("done", range(12))
def test_resumes_in_the_middle_of_an_epoch(images, done):
    interrupted = loader(images, seed=1, epoch=4)
    batches = iter(interrupted)
    for _ in range(done):
        next(batches)
    state = interrupted.state_dict()

    resumed = TrainLoader(images, BATCH, seed=1, pad=1, flip=True)
    resumed.load_state_dict(state)
    resumed.set_epoch(4)
    whole = list(loader(images, seed=1, epoch=4))
    assert same(list(resumed), whole[done:])
    resumed.set_epoch(5)
    assert same(list(resumed), list(loader(images, seed=1, epoch=5)))


def test_the_position_continues_to_count_after_a_resume(images):
    resumed = loader(images, epoch=2)
    resumed.load_state_dict({"epoch": 2, "batch": 4})
    batches = iter(resumed)
    next(batches)
    assert resumed.state_dict() == {"epoch": 2, "batch": 5}

    again = loader(images, epoch=2)
    again.load_state_dict(resumed.state_dict())
    assert same(list(again), list(batches))


def test_the_state_may_be_loaded_after_the_epoch_is_set(images):
    resumed = loader(images, epoch=3)
    resumed.load_state_dict({"epoch": 3, "batch": 9})
    assert same(list(resumed), list(loader(images, epoch=3))[9:])


def test_a_state_is_used_once(images):
    resumed = loader(images, epoch=3)
    resumed.load_state_dict({"epoch": 3, "batch": 9})
    assert len(list(resumed)) == 2
    assert same(list(resumed), list(loader(images, epoch=3)))


def test_a_state_of_another_epoch_cuts_nothing_off(images):
    resumed = loader(images, epoch=3)
    resumed.load_state_dict({"epoch": 2, "batch": 9})
    assert same(list(resumed), list(loader(images, epoch=3)))


def test_the_epoch_may_be_set_after_iter_and_before_the_first_batch(images):
    late = loader(images, epoch=0)
    batches = iter(late)
    late.sampler.set_epoch(6)
    assert same(list(batches), list(loader(images, epoch=6)))


@pytest.mark.parametrize("channels_last", [False, True])
def test_memory_format_changes_the_layout_and_no_value(images, channels_last):
    wanted = torch.channels_last if channels_last else torch.contiguous_format
    for options in ({"pad": 1, "flip": True}, {"pad": 0, "flip": False}):
        plain = loader(images, **options)
        formatted = loader(images, channels_last=channels_last, **options)
        assert same(list(formatted), list(plain))
        assert all(x.is_contiguous(memory_format=wanted) for x, _ in formatted)
    evaluated = EvalLoader(images, BATCH, channels_last=channels_last)
    assert all(x.is_contiguous(memory_format=wanted) for x, _ in evaluated)


def test_pixels_become_the_nearest_fp32_of_their_255th():
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    x = as_floats(pixels, channels_last=False)
    exact = (np.arange(256, dtype=np.float64) / 255).astype(np.float32)
    assert x.dtype == torch.float32
    assert np.array_equal(x.numpy().ravel(), exact)
    assert (x.min(), x.max()) == (0, 1)
    channels_at_the_end = torch.zeros(2, 4, 4, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
    assert as_floats(channels_at_the_end, channels_last=False).is_contiguous()
    assert torch.equal((x * 255).round().to(torch.uint8), pixels)


def test_eval_loader_serves_the_images_in_their_order_every_time(images):
    evaluated = EvalLoader(images, BATCH)
    first = list(evaluated)
    assert order(first) == list(range(N))
    assert [len(y) for _, y in first] == [10] * 10 + [3]
    assert torch.equal((torch.cat([x for x, _ in first]) * 255).round(), images.pixels.float())
    assert same(list(evaluated), first)


def test_the_set_itself_is_not_written_to(images):
    before = images.pixels.clone()
    for options in ({"pad": 1, "flip": True}, {"pad": 0, "flip": False}):
        for x, _ in loader(images, **options):
            x.zero_()
    for x, _ in EvalLoader(images, BATCH):
        x.zero_()
    assert torch.equal(images.pixels, before)


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


# Images that stay in a file, and extra images


def indexed(images):
    """The same images as rows of a larger store, in another order."""
    order = torch.randperm(N + 7, generator=generator(5))
    store = torch.zeros((N + 7, *images.pixels.shape[1:]), dtype=torch.uint8)
    store[order[:N]] = images.pixels
    return IndexedImages(store, order[:N], images.labels)


@pytest.mark.parametrize("options", [{}, {"pad": 2, "flip": False}, {"pad": 0, "flip": False}])
def test_batches_of_a_store_are_those_of_images_in_memory(images, options):
    for epoch in (0, 3):
        one = list(loader(images, epoch=epoch, **options))
        other = list(loader(indexed(images), epoch=epoch, **options))
        assert same(one, other)
        assert all(x.is_contiguous() for x, _ in other)
    assert same(list(EvalLoader(images, BATCH)), list(EvalLoader(indexed(images), BATCH)))


def test_a_selection_of_a_store_is_that_of_its_images(images):
    chosen = torch.tensor([5, 3, 3, 100])
    one, other = images.take(chosen), indexed(images).take(chosen)
    assert torch.equal(one.pixels, other.pixels)
    assert one.digests() == other.digests()
    assert images.digests() == indexed(images).digests()
    assert torch.equal(indexed(images).take(slice(3, 9)).first(2).pixels, images.pixels[3:5])
    assert type(other.to("cpu")) is ImageSet


@pytest.fixture
def extra():
    """Images whose labels say that they are extra."""
    pixels = torch.randint(0, 256, (17, 3, 6, 6), dtype=torch.uint8, generator=generator(2))
    return ImageSet(pixels, torch.arange(17) + 1000)


@pytest.mark.parametrize("share", [0.3, 0.05, 0.84])
def test_extra_images_have_their_share_of_every_batch_and_change_nothing_else(images, extra, share):
    plain = list(loader(images, epoch=2))
    mixed = list(loader(images, epoch=2, extra=extra, extra_share=share))
    assert len(mixed) == len(plain)
    for (x, y), (plain_x, plain_y) in zip(mixed, plain, strict=True):
        n = int((y >= 1000).sum())
        assert abs(n - share * len(y)) <= 0.5
        own = len(y) - n
        assert len(x) == len(plain_x)
        assert torch.equal(y[:own], plain_y[:own])
        assert torch.equal(x[:own], plain_x[:own])
        assert (y[own:] >= 1000).all()


def test_extra_images_are_drawn_evenly_and_anew_in_every_epoch(images, extra):
    epochs = [order(loader(images, epoch=e, extra=extra, extra_share=0.5)) for e in range(60)]
    drawn = [[y for y in epoch if y >= 1000] for epoch in epochs]
    assert drawn[0] != drawn[1]
    assert chisquare(np.bincount(np.concatenate(drawn) - 1000)).pvalue > 1e-3
    seen = {y for epoch in epochs[:8] for y in epoch if y < 1000}
    assert seen == set(range(N))  # those that one epoch leaves out come in another


def test_extra_images_are_augmented_as_the_others(images, extra):
    plain = list(loader(images, extra=extra, extra_share=0.5, pad=0, flip=False))
    moved = list(loader(images, extra=extra, extra_share=0.5, pad=2, flip=True))
    pairs = [
        torch.equal(a, b)
        for (x, y), (other, _) in zip(plain, moved, strict=True)
        for a, b in zip(x[y >= 1000], other[y >= 1000], strict=True)
    ]
    assert sum(pairs) < len(pairs) / 4


def test_a_resume_in_the_middle_of_an_epoch_keeps_the_extra_images(images, extra):
    options = {"extra": extra, "extra_share": 0.4}
    whole = list(loader(images, epoch=4, **options))
    resumed = loader(images, epoch=4, **options)
    resumed.load_state_dict({"epoch": 4, "batch": 6})
    assert same(list(resumed), whole[6:])


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_batches_with_extra_images(images, extra, world):
    options = {"extra": extra, "extra_share": 0.3, "epoch": 1}
    parts = [list(loader(images, rank=r, world=world, **options)) for r in range(world)]
    joined = [tuple(map(torch.cat, zip(*batch, strict=True))) for batch in zip(*parts, strict=True)]
    assert same(joined, list(loader(images, **options)))
