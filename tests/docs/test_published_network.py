"""The network in docs/sampling, with which images are sampled without a training."""

import os
from pathlib import Path

import pytest
import torch

from energy_at.config import keys
from energy_at.config.build import make
from energy_at.data import as_floats
from energy_at.data.readers import cifar10
from energy_at.models.weights import load_weights
from energy_at.runs.checkpoints import read_tensors, recorded_model

FILE = Path(__file__).parents[2] / "docs/sampling/cifar10_l2.safetensors"
CLEAN = 0.805  # as docs/sampling/README.md says
DATA = os.environ.get("ENERGY_AT_TEST_DATA")


@pytest.fixture(scope="module")
def net():
    cfg = keys.compose_command("evaluate", ["dataset=cifar10"])
    cfg.model.width = recorded_model(FILE)["width"]
    built = make(cfg.model).eval()
    load_weights(built, read_tensors(FILE))  # whose digest is checked
    return built


def test_it_is_small_and_a_classifier_of_ten_classes(net):
    assert FILE.stat().st_size <= 5_000_000
    with torch.no_grad():
        logits = net(torch.rand(2, 3, 32, 32))
    assert logits.shape == (2, 10)
    assert logits.isfinite().all()


@pytest.mark.skipif(
    DATA is None,
    reason="set ENERGY_AT_TEST_DATA to the official files",
)
def test_it_has_its_accuracy(net):
    _, test = cifar10(Path(str(DATA)), download=False)
    images = test.first(1000)
    with torch.no_grad():
        found = net(as_floats(images.pixels, channels_last=True)).argmax(1) == images.labels
    assert float(found.float().mean()) == pytest.approx(
        0.805, abs=0.002
    )  # as docs/sampling/README.md says
