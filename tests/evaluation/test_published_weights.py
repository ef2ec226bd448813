"""Files of weights of other code bases: their open questions are named, detected or measured."""

import pytest
import torch
from safetensors.torch import save_file

from energy_at.evaluation import gradient_masking
from tests.helpers.evaluations import report
from tests.helpers.running import assert_refused, fitted

SMALL = ("dataset=synthetic", "dataset.size=8", "model=preactresnet18", "model.width=4")
FEW = (
    *SMALL,
    *("checkpoint=w.safetensors", "attacks=[fgsm]", "progress=false", "device=cpu"),
)


@pytest.fixture(scope="module")
def plain_weights(tmp_path_factory):
    """A trained network whose shortcuts begin at the blocks' inputs, of normalized images."""
    folder = tmp_path_factory.mktemp("plain")
    options = (*SMALL, "model.shortcut=plain", "attack=none", "trainer.max_epochs=2", "logger=csv",
               "callbacks.progress=null", "optimizer.lr=0.05")  # fmt: skip
    run = fitted(folder / "run", *options)
    return {
        key: value.clone().contiguous() for key, value in run.module.net.net.state_dict().items()
    }


@pytest.fixture
def file(plain_weights, here, monkeypatch):
    monkeypatch.setattr(gradient_masking, "BLACK_BOX_QUERIES", 1)
    save_file(plain_weights, "w.safetensors")
    return plain_weights


def evaluated(type_evaluate, out, *options):
    code, _, err = type_evaluate(*FEW, *options, f"out={out}")
    assert code == 0, err
    found = report(out)
    return found["network"], [row["accuracy"] for row in found["accuracies"]], err


@pytest.mark.slow
def test_the_shortcut_is_measured_named_or_typed(type_evaluate, file):
    network, measured, err = evaluated(type_evaluate, "measured")
    assert network["shortcut"]["chosen"] == "plain"
    assert "the file does not say where its shortcuts begin: chosen plain, by" in err
    assert measured[0] > 0.5
    network, named, err = evaluated(type_evaluate, "named", "source=n_fgsm")
    assert network["code_base"]["name"] == "n_fgsm"
    assert (named, err) == (measured, "")
    _, typed, _ = evaluated(type_evaluate, "typed", "model.shortcut=plain", "normalize=dataset")
    assert typed == measured
    _, wrong, _ = evaluated(type_evaluate, "wrong", "source=robust_overfitting")
    assert wrong[0] < measured[0]
    network, raw, err = evaluated(type_evaluate, "raw", "source=gradalign")  # no normalization
    assert (raw == measured, "normalization" in network, err) == (False, False, "")


def test_an_unknown_source_is_refused(type_evaluate, here):
    save_file({"conv1.weight": torch.zeros(4, 3, 3, 3)}, "w.safetensors")
    said = "source=trade must be fast_adversarial, n_fgsm, "
    assert_refused(type_evaluate, said, *FEW, "source=trade", "out=out")
