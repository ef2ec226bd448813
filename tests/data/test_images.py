"""Sets of images, the split, and the data of a run."""

import hashlib

import jaxtyping
import pytest
import torch

from energy_at.data import ImageSet, split


def numbered(n, classes, *, first=0):
    """Images that say in their first two pixels which they are."""
    ids = torch.arange(first, first + n)
    pixels = torch.zeros((n, 1, 2, 2), dtype=torch.uint8)
    pixels[:, 0, 0, 0] = (ids // 256).to(torch.uint8)
    pixels[:, 0, 0, 1] = (ids % 256).to(torch.uint8)
    return ImageSet(pixels, ids % classes)


def ids(images):
    high, low = images.pixels[:, 0, 0, 0].int(), images.pixels[:, 0, 0, 1].int()
    return (256 * high + low).tolist()


def test_images_without_their_labels_are_refused(monkeypatch):
    # In the tests the type checker would speak first.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match="3 images but 2 labels"):
        ImageSet(torch.zeros((3, 1, 2, 2), dtype=torch.uint8), torch.zeros(2, dtype=torch.int64))


def test_take_keeps_images_with_their_labels_in_the_order_asked_for():
    taken = numbered(20, 7).take(torch.tensor([13, 2, 2, 19]))
    assert ids(taken) == [13, 2, 2, 19]
    assert taken.labels.tolist() == [13 % 7, 2, 2, 19 % 7]
    assert len(taken) == 4


def test_digests_are_those_of_the_bytes_whatever_their_layout():
    images = numbered(5, 2)
    known = [hashlib.sha256(t.numpy().tobytes()).hexdigest() for t in vars(images).values()]
    strided = ImageSet(images.pixels.contiguous(memory_format=torch.channels_last), images.labels)
    assert images.digests() == strided.digests() == known
    assert images.take(torch.tensor([1, 0, 2, 3, 4])).digests() != known


def test_first_is_a_prefix_and_none_means_all():
    images = numbered(20, 4)
    assert ids(images.first(5)) == [0, 1, 2, 3, 4]
    assert images.first(5).labels.tolist() == [0, 1, 2, 3, 0]
    assert ids(images.first(None)) == ids(images.first(20)) == ids(images)


def test_spread_images_are_of_all_parts_in_their_order():
    images = numbered(20, 4)
    assert ids(images.spread(5)) == [0, 4, 8, 12, 16]
    assert ids(images.spread(3)) == [0, 6, 13]
    assert ids(images.spread(None)) == ids(images.spread(20)) == ids(images)
    by_class = ImageSet(images.pixels, images.labels.sort().values)
    assert torch.bincount(by_class.spread(8).labels).tolist() == [2, 2, 2, 2]


@pytest.mark.parametrize("part", [ImageSet.first, ImageSet.spread])
@pytest.mark.parametrize("n", [0, -1, 21])
def test_what_is_out_of_reach_is_refused(part, n):
    with pytest.raises(ValueError, match=rf"^n must be an integer from 1 to 20, or null, got {n}$"):
        part(numbered(20, 4), n)


@pytest.mark.parametrize("held_out", [10, 77, 990])
def test_split_is_a_partition(held_out):
    rest, held = split(numbered(1000, 10), held_out, seed=0)
    assert len(held) == held_out
    assert sorted(ids(rest) + ids(held)) == list(range(1000))
    for part in (rest, held):
        assert part.labels.tolist() == [i % 10 for i in ids(part)]


def test_split_keeps_the_shares_of_unequal_classes():
    images = numbered(1000, 10)
    labels = torch.repeat_interleave(torch.arange(4), torch.tensor([500, 300, 150, 50]))
    rest, held = split(ImageSet(images.pixels, labels), 100, seed=3)
    assert torch.bincount(held.labels).tolist() == [50, 30, 15, 5]
    assert torch.bincount(rest.labels).tolist() == [450, 270, 135, 45]


def test_split_is_a_function_of_the_seed_alone():
    images = numbered(300, 3)
    torch.manual_seed(1)
    one = [ids(part) for part in split(images, 60, seed=5)]
    torch.manual_seed(2)
    assert [ids(part) for part in split(images, 60, seed=5)] == one
    other = [ids(part) for part in split(images, 60, seed=6)]
    assert set(other[1]) != set(one[1])


@pytest.mark.parametrize("held_out", [-1, 0, 9, 91, 100, 1000])
def test_split_refuses_impossible_sizes_in_one_line(held_out):
    with pytest.raises(ValueError, match=rf"^cannot hold out {held_out} of 100 .*10 to 90$"):
        split(numbered(100, 10), held_out, seed=0)
