"""The data of a run: what is held out, the subset, and the loaders."""

from pathlib import Path

import pytest
import torch

from energy_at.data import EvalLoader, ImageData, TrainLoader
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
