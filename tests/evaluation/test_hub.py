"""Folders for the Hub, and files out of its cache; without a network."""

import json
import re
import shutil
from pathlib import Path

import pytest

from energy_at import evaluate, export
from energy_at.config.keys import compose_command
from energy_at.core.extras import install
from energy_at.core.rules import ArgumentError
from energy_at.evaluation import hub
from energy_at.evaluation.hub import _options, downloaded, write_hub_folder
from energy_at.models.weights import load_weights
from energy_at.runs.checkpoints import read_tensors
from energy_at.runs.folder import RunFolder
from tests.helpers.analyses import trained
from tests.helpers.running import typed

COMMIT = "0123456789abcdef0123456789abcdef01234567"
RESULTS = {"last": {"step": 1, "test": {"clean": 0.8125, "pgd2": 0.25, "n": 16}}}


@pytest.fixture
def run(here):
    module = trained(here / "run", "dataset=synthetic", "model=small", "model.width=2")
    (here / "run/results.json").write_text(json.dumps(RESULTS))
    return module


def cached(folder, cache, name="user/net"):
    """A folder of ours in a local cache, as the Hub's client lays it out."""
    place = cache / f"models--{name.replace('/', '--')}"
    shutil.copytree(folder, place / "snapshots" / COMMIT)
    (place / "refs").mkdir()
    (place / "refs/main").write_text(COMMIT)


def test_an_export_for_the_hub_holds_weights_configuration_and_a_card(run, monkeypatch, capsys):
    code, out, err = typed(monkeypatch, capsys, export.main, "run=run", "format=hub", "out=dir")
    assert (code, out, err) == (0, "written to dir\n", "")
    assert {path.name for path in Path("dir").iterdir()} == {
        "README.md", "config.json", "model.safetensors"
    }  # fmt: skip
    content = json.loads(Path("dir/config.json").read_text())
    assert (content["checkpoint"], content["model"]["width"]) == ("last", 2)
    card = Path("dir/README.md").read_text()
    assert card.startswith("---\nlibrary_name: energy_at\n")
    assert "| test   | clean  | 81.2       |" in card
    assert "checkpoint=hf://USER/REPO dataset=synthetic model=small model.width=2" in card
    load_weights(run.net, read_tensors("dir/model.safetensors"))
    with pytest.raises(ArgumentError, match="out must be a folder that does not exist yet"):
        write_hub_folder(RunFolder.open("run"), "last", b"", Path("dir"))


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        (["dataset=cifar10", "model=preactresnet18"], None),
        (["dataset=cifar10", "model=preactresnet18", "model.shortcut=plain"], None),
        (["dataset=cifar10", "model=timm", "model.name=vit_tiny_patch16_224",
          "+model.patch_size=4"], None),
        (["dataset=cifar10", "model=timm", "model.name=convnext_tiny", "+model.dims=[8,8,8,8]"],
         "dataset=cifar10 model=timm model.name=convnext_tiny '+model.dims=[8,8,8,8]'"),
        (["dataset=cifar10", "model=torchvision", "model.name=resnet34"], None),
        (["dataset=cifar10", "model=wideresnet28_10", "model.depth=16", "model.widen=2"], None),
        (["dataset=cifar10", "model=wideresnet34_10"],
         "dataset=cifar10 model=wideresnet28_10 model.depth=34"),
        (["dataset=cifar10", "model=custom", "model.target=mine.net", "+model.net.width=16"],
         "dataset=cifar10 model=custom model.target=mine.net +model.net.width=16 'trust=[mine]'"),
        (["dataset=synthetic", "model=small", "dataset.size=16", "dataset.classes=3",
          "training.channels_last=false"], None),
        (["dataset=folder", "dataset.root=pets", "dataset.size=64", "model=small"],
         "dataset=folder dataset.root=FOLDER dataset.size=64 model=small"),
        (["dataset=npz", "dataset.file=f.npz", "dataset.size=28", "model=small"],
         "dataset=npz dataset.file=FILE dataset.size=28 model=small"),
    ],
)  # fmt: skip
def test_the_command_of_the_card_makes_the_network_again(typed, shown):
    trained = compose_command("train", typed)
    words = _options(trained)
    assert words == (shown or " ".join(typed))
    again = compose_command("evaluate", [word.strip("'") for word in words.split()])
    assert again.model == trained.model
    assert again.training.channels_last == trained.training.channels_last


def test_a_repository_is_read_from_the_local_cache(run, here, monkeypatch, capsys):
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(here / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("energy_at.evaluation.gradient_masking.is_installed", lambda: False)
    hub.export(RunFolder.open("run"), "last", Path("dir"), hub=True)
    cached("dir", here / "cache")
    file = downloaded("hf://user/net")
    assert file.read_bytes() == Path("dir/model.safetensors").read_bytes()
    assert downloaded(f"hf://user/net@{COMMIT}") == file
    why = (
        r"checkpoint=hf://user/other has no model.safetensors within reach: no answer from the Hub"
    )
    with pytest.raises(FileNotFoundError, match=why):
        downloaded("hf://user/other")
    few = ("attacks=[fgsm]", "subset=8", "device=cpu", "progress=false", "out=out")
    net = ("checkpoint=hf://user/net", "dataset=synthetic", "model=small", "model.width=2")
    code, _, err = typed(monkeypatch, capsys, evaluate.main, *net, *few)
    assert (code, err) == (0, "")


def test_the_extra_is_named_if_it_is_missing(monkeypatch):
    monkeypatch.setattr("energy_at.core.extras.find_spec", lambda _: None)
    with pytest.raises(ImportError, match=re.escape(install("huggingface"))):
        downloaded("hf://user/net")
