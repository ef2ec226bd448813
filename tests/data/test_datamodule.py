"""The data of a run: what is held out, the subset, and the loaders."""

from pathlib import Path

import pytest
import torch

from energy_at.data import EvalLoader, ImageData, IndexedImages, Splits, TrainLoader
from tests.data.test_images import ids, numbered


class CountingReader:
    """500 training and 50 test images of 5 classes; records its calls."""

    def __init__(self):
        self.roots = []

    def __call__(self, root):
        self.roots.append(root)
        return numbered(500, 5), numbered(50, 5, first=1000)


def data(**options):
    options = {"batch_size": 32, "val_size": 100} | options
    return ImageData(CountingReader(), "folder", **options)


def test_validation_images_are_training_images_held_out():
    images = data()
    train, val = ids(images.train), ids(images.val)
    assert len(val) == 100
    assert sorted(train + val) == list(range(500))
    assert ids(images.test) == list(range(1000, 1050))


def test_validation_images_depend_on_the_seed_alone():
    val = ids(data(seed=1).val)
    assert ids(data(seed=1, batch_size=7, subset=50, pad=2, flip=True).val) == val
    assert set(ids(data(seed=2).val)) != set(val)


def test_subset_is_drawn_by_seed_from_what_is_not_held_out():
    images = data(subset=100, seed=1)
    train, val = ids(images.train), ids(images.val)
    assert len(set(train)) == len(train) == 100
    assert set(train) <= set(ids(data(seed=1).train))
    assert not set(train) & set(val)
    assert len(val) == 100
    assert ids(data(subset=100, seed=1).train) == train
    assert set(ids(data(subset=100, seed=2).train)) != set(train)


def test_subset_is_no_prefix_by_class():
    images = data(subset=100, seed=0)
    assert torch.bincount(images.train.labels, minlength=5).min() > 5


def test_data_is_read_once_and_from_root():
    images = data()
    assert images.reader.roots == []
    images.setup()
    images.setup("fit")
    len(images.train), len(images.val), len(images.test)
    assert images.reader.roots == [Path("folder")]


def test_loaders_serve_the_parts():
    images = data(subset=70, eval_batch_size=33, seed=4)
    train, val = images.train_dataloader(), images.val_dataloader()
    assert isinstance(train, TrainLoader)
    assert isinstance(val, EvalLoader)
    assert [len(y) for _, y in train] == [32, 32, 6]
    assert [len(y) for _, y in val] == [33, 33, 33, 1]
    seen = torch.cat([x for x, _ in val])
    assert torch.equal((seen * 255).round().to(torch.uint8), images.val.pixels)
    test = torch.cat([y for _, y in images.eval_loader(images.test)])
    assert torch.equal(test, images.test.labels)


def test_training_batches_follow_the_seed_of_the_run():
    images = data(seed=3, pad=1, flip=True)

    def epoch(loader):
        return torch.cat([x for x, _ in loader])

    served = epoch(images.train_dataloader())
    for seed in (3, 0):
        loader = TrainLoader(images.train, 32, seed=seed, pad=1, flip=True)
        assert torch.equal(epoch(loader), served) == (seed == 3)


def test_augmentation_of_the_config_reaches_training_and_no_other_loader():
    plain, augmented = data(), data(pad=1, flip=True)
    assert not torch.equal(
        torch.cat([x for x, _ in plain.train_dataloader()]),
        torch.cat([x for x, _ in augmented.train_dataloader()]),
    )
    for one, other in zip(plain.val_dataloader(), augmented.val_dataloader(), strict=True):
        assert torch.equal(one[0], other[0])


@pytest.mark.parametrize(
    ("option", "value"), [("batch_size", 0), ("eval_batch_size", -3), ("pad", -1)]
)
def test_bad_options_are_refused_at_once(option, value):
    with pytest.raises(ValueError, match=rf"^{option} must be an integer >= [01], got {value}$"):
        data(**{option: value})


@pytest.mark.parametrize("subset", [0, -5, 401])
def test_bad_subset_is_refused_in_one_line(subset):
    with pytest.raises(
        ValueError,
        match=rf"^subset must be at most 400: 500 .*{subset}$|^subset must be an integer >= 1",
    ):
        data(subset=subset).setup()


@pytest.mark.parametrize("val_size", [0, 4, 496, 500])
def test_bad_val_size_is_refused_in_one_line(val_size):
    with pytest.raises(
        ValueError,
        match=rf"hold out {val_size} of 500 .*5 to 495$|^val_size must be an integer >= 1",
    ):
        data(val_size=val_size).setup()


def own_splits(root):
    """Images of one store, with some of their own to validate on."""
    store = numbered(700, 5)

    def part(first, last):
        rows = torch.arange(first, last)
        return IndexedImages(store.pixels, rows, store.labels[rows])

    return Splits(part(0, 500), part(500, 550), part(550, 700), tuple("abcde"))


def own(**options):
    return ImageData(own_splits, "folder", **({"batch_size": 32, "val_size": 150} | options))


def test_images_of_its_own_are_validated_on_and_none_is_held_out():
    images = own()
    assert ids(images.train) == list(range(500))
    assert sorted(ids(images.val)) == list(range(550, 700))
    assert len(images.train) == 500
    some = own(val_size=40, seed=3)
    assert len(set(ids(some.val))) == 40
    assert set(ids(some.val)) <= set(range(550, 700))
    assert ids(own(val_size=40, seed=4).val) != ids(some.val)
    with pytest.raises(ValueError, match=r"^val_size must be at most 150: 150 images, got 151$"):
        own(val_size=151).setup()


@pytest.mark.parametrize("storage", ["auto", "memory", "disk"])
def test_where_images_are_stored_changes_no_batch(storage):
    reference = list(data(pad=1, flip=True, storage="memory").train_dataloader())
    for made in (data, own):
        images = made(pad=1, flip=True, storage=storage)
        train = images.train_dataloader()
        in_file = isinstance(train.images, IndexedImages)
        assert in_file == (made is own and storage != "memory")  # auto: no copy on the CPU
        held_out = made is data
        if held_out:
            batches = list(train)
            assert all(
                torch.equal(x, other) for (x, _), (other, _) in zip(batches, reference, strict=True)
            )
    one, other = (list(own(storage=s, pad=1).train_dataloader()) for s in ("disk", "memory"))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(one, other, strict=True))


def test_extra_images_are_read_for_a_training_only(tmp_path):
    images = data(extra=tmp_path / "missing.npz", extra_share=0.5)
    images.setup()
    images.eval_loader(images.test)
    with pytest.raises(FileNotFoundError, match=r"^extra must be an \.npz file"):
        images.train_dataloader()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"extra_share": 0.3}, "^extra_share must be null while extra names no file"),
        ({"extra": "more.npz"}, "^extra_share must be a finite number > 0 and < 1, got None"),
        ({"extra": "more.npz", "extra_share": 1.0}, "^extra_share must be a finite number > 0 and"),
        ({"extra": "more.npz", "extra_share": 0.01}, "one image of each kind in a batch of 32"),
        ({"extra": "more.npz", "extra_share": 0.99}, "one image of each kind in a batch of 32"),
    ],
)
def test_extra_images_and_their_share_go_together(options, said, monkeypatch):
    monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)
    with pytest.raises(ValueError, match=said):
        data(**options)
