"""Which out-of-distribution images are taken, and what is refused."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from energy_at.analysis.measure import plan_of
from energy_at.analysis.ood import ood_evaluators
from energy_at.attacks import Linf
from energy_at.config.keys import compose_command
from energy_at.core.rules import ArgumentError
from energy_at.data import ImageData, ImageSet, digits
from energy_at.evaluation import EvaluationTarget, TrainedModel
from tests.helpers.nets import TinyNet

PLAN = EvaluationTarget(
    norm="linf", balls={"0.1": Linf(0.1)}, names=["pgd"], steps=1, subset=10, subset_seed=3
)


@pytest.fixture
def model(tmp_path):
    images = ImageSet(torch.zeros((20, 3, 8, 8), dtype=torch.uint8), torch.arange(20) % 2)
    data = ImageData(lambda _: (images, images), "", batch_size=4, val_size=2)
    dataset = {"name": "synthetic", "channels": 3, "size": 8, "root": str(tmp_path),
               "eval_batch_size": 5}  # fmt: skip
    config = OmegaConf.create({"dataset": dataset, "training": {"channels_last": False}})
    here = torch.device("cpu")
    return TrainedModel(TinyNet(), data, config, "here", None, Path("here"), here)


def evaluators(model, *names):
    return ood_evaluators(names, PLAN, model, PLAN.evaluator(model))


def test_a_subset_of_the_test_images_is_drawn_by_the_seed(model):
    (found,) = evaluators(model, "digits").values()
    _, test = digits(Path())
    expected = test.take(PLAN.drawn(len(test))).pixels.expand(-1, 3, -1, -1)
    assert torch.equal(found.images.pixels, expected)
    assert found.numbers == PLAN.drawn(len(test)).tolist()


def test_files_and_data_sets_stand_under_their_names(model, tmp_path):
    np.savez(tmp_path / "mine.npz", images=np.zeros((4, 9, 9), dtype=np.uint8))
    found = evaluators(model, str(tmp_path / "mine.npz"), "digits")
    assert {name: len(one.images) for name, one in found.items()} == {"mine.npz": 4, "digits": 10}


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["svnh"], r"did you mean svhn\?"),
        (["svhn"], r"SVHN \(not found or damaged\): put train_32x32.mat .* there$"),
        (["synthetic"], "another data set than that of the network"),
        (["digits", "digits"], "sets of different names: digits is twice"),
    ],
)
def test_what_is_no_other_set_of_images_is_refused(model, names, said):
    with pytest.raises(ArgumentError) as caught:
        evaluators(model, *names)
    assert caught.value.argument == "ood"
    assert re.search(said, caught.value.must)


def test_a_folder_may_be_called_by_a_number(model, here):
    chosen = ("norm=linf", "eps=0.1", "eps_list=[0.1]", "ood=[digits,1]")
    plan = plan_of(compose_command("analyse", chosen), [model])
    assert plan.ood == ["digits", "1"]
    with pytest.raises(ArgumentError, match="ood must be a data set"):
        evaluators(model, *plan.ood)
