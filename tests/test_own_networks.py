"""Commands on networks of timm, torchvision and a user's own."""

import json
import sys
from pathlib import Path

import pytest
from lightning import Callback

from energy_at import analyse, evaluate, export, sample
from energy_at.core.trust import set_trusted
from energy_at.runs.folder import RunFolder
from tests.helpers.running import (
    QUIET,
    SHORT_ATTACKS,
    assert_refused,
    fitted,
    prepared,
    states_equal,
    train_in,
    typed,
)

SHORT = ("dataset=synthetic", "dataset.size=16", "trainer.max_epochs=2", "logger=csv",
         "callbacks.progress=null", *SHORT_ATTACKS, *QUIET)  # fmt: skip
MODERN = ("optimizer=adamw", "schedule=cosine", "trainer.gradient_clip_val=1")
VIT = ("model=timm", "model.name=test_vit", "+model.patch_size=4", "model.drop_path_rate=0.3",
       *MODERN)  # fmt: skip
CONVNEXT = ("model=timm", "model.name=test_convnext", "dataset.size=32",
            "model.drop_path_rate=0.3", *MODERN)  # fmt: skip
OWN = ("model=custom", "model.target=my_package.my_net", "+model.net.width=4", "trust=[my_package]")
VIEW = (OWN[0], "model.target=my_package.View", OWN[3], "training.channels_last=false")
CODE = """
from torch import nn

def my_net(channels, classes, width):
    return nn.Sequential(nn.Conv2d(channels, width, 3), nn.ReLU(), nn.Flatten(),
                         nn.Dropout(0.2), nn.LazyLinear(classes))

class Pair(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.last = nn.LazyLinear(classes)

    def forward(self, x):
        return self.last(x.flatten(1)), x

class View(nn.Module):
    def __init__(self, channels, classes, size):
        super().__init__()
        self.first, self.last = nn.Conv2d(channels, 2, 1), nn.Linear(2 * size**2, classes)

    def forward(self, x):
        return self.last(self.first(x).view(len(x), -1))
"""


@pytest.fixture(autouse=True)
def my_package(here, monkeypatch):
    sys.modules.pop("my_package", None)  # of another test
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # nor by the package
    Path("my_package").mkdir()
    Path("my_package/__init__.py").write_text(CODE)
    monkeypatch.syspath_prepend(here)
    yield
    sys.modules.pop("my_package", None)


class Unplugged(Callback):
    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == 5:
            raise KeyError("unplugged")


def resumed_equals_whole(here, *options):
    options = (*SHORT, *options, "callbacks.last.every_n_steps=1")
    whole = fitted(here / "whole", *options)
    broken = prepared(here / "part", *options)
    broken.trainer.callbacks.insert(0, Unplugged())
    with pytest.raises(KeyError, match="unplugged"):
        broken.trainer.fit(broken.module, broken.data)
    checkpoint = RunFolder(here / "part").checkpoint()
    again = fitted(here / "part", *options, checkpoint=checkpoint)
    assert again.trainer.global_step == whole.trainer.global_step > 5
    assert states_equal(again.module, whole.module)


@pytest.mark.parametrize("net", [VIT, CONVNEXT, (*VIT, "attack=trades", "loss=trades")])
@pytest.mark.slow
def test_a_transformer_and_a_convnext_with_stochastic_depth_resume_bit_for_bit(here, net):
    pytest.importorskip("timm")
    resumed_equals_whole(here, *net)


def commands_run(monkeypatch, capsys, *net):
    """Trains, exports, evaluates run and export to the same accuracies, analyses and samples."""

    def run(command, *argv):
        code, out, err = typed(monkeypatch, capsys, command.main, *argv)
        assert code == 0, err
        return out

    trust = [option for option in net if option.startswith("trust=")]
    train_in("run", *SHORT, *net)
    small = ("attacks=[fgsm]", "device=cpu", "progress=false", *trust)
    run(evaluate, "run=run", "out=one", *small)
    run(export, "run=run", *trust)
    of_model = [o for o in net if o.lstrip("+").startswith(("model", "training."))]
    of_model += [o for o in (*SHORT, *net) if o.startswith("dataset")]
    run(evaluate, "checkpoint=run/last.safetensors", *of_model, "out=other", *small)
    one, other = (json.loads(Path(out, "evaluation.json").read_text()) for out in ("one", "other"))
    assert one["accuracies"] == other["accuracies"]
    ood = ("attacks=[fgsm]", "ood=[digits]", "device=cpu", "out=analysis")
    run(analyse, "run=run", *ood, *trust)
    few = ("n=4", "quality=none", "judge=none", "sampler.steps=2", "device=cpu", "out=samples")
    run(sample, "run=run", "start=class_gaussian", *few, *trust)


def test_an_own_network_with_dropout_resumes_bit_for_bit(here):
    set_trusted(["my_package"])
    resumed_equals_whole(here, *OWN)
    set_trusted([])


@pytest.mark.parametrize(
    "net",
    [
        OWN,
        VIEW,
        VIT,
        CONVNEXT,
        ("model=torchvision", "model.name=mobilenet_v3_small", "dataset.size=32"),
    ],
)
@pytest.mark.slow
def test_a_network_runs_in_every_command(monkeypatch, capsys, net):
    pytest.importorskip("timm")
    commands_run(monkeypatch, capsys, *net)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (OWN[:3], "model.target=my_package.my_net is not trusted"),
        ((*OWN[:1], "model.target=my_package.Pair", OWN[3]), "one tensor (batch, classes)"),
        ((*OWN[:1], "model.target=my_package.View", OWN[3]), "set training.channels_last=false"),
        ((*OWN, "+model.net.depth=4"), "model.net.depth=4 must be left out: my_package.my_"),
        ((*OWN, "~model.net.width"), "missing 1 required positional argument: 'width'"),
        (("model=torchvision", "model.name=resnet17"), "(did you mean resnet18?)"),
        (("model=torchvision", "model.name=squeezenet1_1", "dataset.size=8"), "does not take imag"),
    ],
)  # fmt: skip
def test_what_is_no_network_for_these_images_is_refused(type_train, options, said):
    small = [o for o in SHORT if "dataset.size=8" not in options or "dataset.size" not in o]
    assert_refused(type_train, said, *small, *options)
