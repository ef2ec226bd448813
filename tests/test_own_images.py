"""Commands on a user's own images: what is found, resumed, refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from lightning import Callback

from energy_at import analyse, evaluate, export, report, sample
from energy_at.runs.folder import RunFolder
from tests.data.test_decoding import picture
from tests.helpers.running import (
    QUIET,
    SHORT_ATTACKS,
    assert_refused,
    everything,
    fitted,
    prepared,
    states_equal,
    train_in,
    typed,
)

SMALL = ("model=small", "model.width=4", "logger=csv", "callbacks.progress=null", *SHORT_ATTACKS,
         *QUIET, "dataset.batch_size=8", "trainer.max_epochs=2")  # fmt: skip
FOLDER = ("dataset=folder", "dataset.root=data/pets", "dataset.size=8")
EXTRA = ("dataset.extra=data/more.npz", "dataset.extra_share=0.3")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A working directory with images of three classes, and a run of theirs."""
    home = tmp_path_factory.mktemp("home")
    numbers = np.random.default_rng(0)
    for split, count in {"train": 14, "val": 4, "test": 6}.items():
        for c, name in enumerate(("ant", "bee", "fly")):
            folder = home / "data" / "pets" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                picture(10, 14, seed=100 * c + i).save(folder / f"{i}.png")
    pixels = numbers.integers(0, 256, (30, 8, 8, 3), dtype=np.uint8)
    np.savez(home / "data" / "more.npz", image=pixels, label=np.arange(30) % 3)
    np.savez(home / "data" / "small.npz", image=pixels[:, :6, :6], label=np.arange(30) % 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setenv("XDG_CACHE_HOME", str(home / "cache"))
        train_in("run", *FOLDER, *SMALL)
    return home


@pytest.fixture
def here(home, tmp_path, monkeypatch):
    """A copy of it as working directory, with its cache."""
    copy = Path(shutil.copytree(home, tmp_path / "home"))
    monkeypatch.chdir(copy)
    monkeypatch.setenv("XDG_CACHE_HOME", str(copy / "cache"))
    return copy


@pytest.fixture
def type_in(here, monkeypatch, capsys):
    return lambda command, *argv: typed(monkeypatch, capsys, command.main, *argv)


def test_what_is_found_is_in_the_configuration_of_the_run_and_the_network_follows(here):
    cfg = RunFolder.open("run").config()
    found = {key: cfg.dataset[key] for key in ("channels", "size", "classes", "pad", "val_size")}
    assert found == {"channels": 3, "size": 8, "classes": 3, "pad": 1, "val_size": 12}
    assert list(cfg.dataset.names) == ["ant", "bee", "fly"]
    assert (cfg.dataset.name, cfg.model.classes, cfg.model.channels) == ("pets", 3, 3)
    assert cfg.model.mean == cfg.dataset.mean
    assert all(0.2 < value < 0.8 for value in cfg.dataset.mean)
    assert json.loads(Path("run/results.json").read_text())["held_out"]["images"] == 12


@pytest.mark.slow
def test_a_run_and_its_exported_weights_are_evaluated_on_the_same_images(type_in):
    small = ("attacks=[fgsm]", "device=cpu", "progress=false")
    assert type_in(evaluate, "run=run", "out=one", *small)[0] == 0
    assert type_in(export, "run=run", "which=last")[0] == 0
    weights = ("checkpoint=run/last.safetensors", "model=small", "model.width=4")
    assert type_in(evaluate, *weights, *FOLDER, "out=other", *small)[0] == 0
    one, other = (json.loads(Path(out, "evaluation.json").read_text()) for out in ("one", "other"))
    assert one["dataset"] == other["dataset"]
    assert one["dataset"]["of"] == 18
    assert one["accuracies"] == other["accuracies"]


def test_a_run_is_not_evaluated_on_other_classes(here, type_in):
    for split in ("train", "val", "test"):
        Path("data/pets", split, "bee").rename(Path("data/pets", split, "wasp"))
    before = everything()
    code, _, err = type_in(evaluate, "run=run", "attacks=[fgsm]", "device=cpu")
    said = "dataset.root=data/pets must be a folder with the classes ant, bee, fly: it has ant, fly"
    assert (code, said in err) == (1, True)
    assert everything() == before


class Unplugged(Callback):
    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == 9:
            raise KeyError("unplugged")


def test_a_resumed_run_on_mapped_images_equals_the_whole_run_in_memory(here):
    options = (*FOLDER, *SMALL, *EXTRA, "attack=rs_fgsm", "callbacks.last.every_n_steps=1")
    whole = fitted(here / "whole", *options, "dataset.storage=memory")
    broken = prepared(here / "part", *options, "dataset.storage=disk")
    broken.trainer.callbacks.insert(0, Unplugged())
    with pytest.raises(KeyError, match="unplugged"):
        broken.trainer.fit(broken.module, broken.data)
    checkpoint = RunFolder(here / "part").checkpoint()
    again = fitted(here / "part", *options, "dataset.storage=disk", checkpoint=checkpoint)
    assert again.trainer.global_step == whole.trainer.global_step == 12  # of 42 images, twice
    assert states_equal(again.module, whole.module)


REFUSED = [
    (["dataset.extra_share=0.3"], "dataset.extra_share=0.3 must be null while extra names no file"),
    (["dataset.extra=data/more.npz"], "dataset.extra_share=null must be a finite number > 0 and"),
    ([EXTRA[0], "dataset.extra_share=2"], "dataset.extra_share=2 must be a finite number"),
    (["dataset.extra=no.npz", EXTRA[1]], "dataset.extra=no.npz must be an .npz file"),
    (["dataset.extra=data/small.npz", EXTRA[1]], "=data/small.npz must be a file of images as"),
    (["dataset.size=null"], "dataset.size=null must be a number of pixels, such as 32, to resize"),
    (["dataset.size=0"], "dataset.size=0 must be an integer from 1 to"),
    (["dataset.channels=2"], "dataset.channels=2 must be 1 (grey) or 3 (RGB), or null"),
    (["dataset.root=nowhere"], "dataset.root=nowhere must be a folder with train/CLASS/*.png"),
    (["dataset.cache=data/more.npz"], "dataset.cache=data/more.npz must be a folder"),
    (["dataset.val_size=13"], "dataset.val_size=13 must be at most 12: 12 images"),
    (["dataset=npz", "dataset.root=."], "dataset.file= is missing"),
    (["dataset=npz", "dataset.root=.", "dataset.file=no.npz"], "dataset.file=no.npz must be an"),
    (["dataset=huggingface", "dataset.root=."], "dataset.name= is missing"),
    (["dataset=npz", "dataset.root=data", "dataset.file=more.npz"], "with training images (train_"),
]


@pytest.mark.parametrize(("options", "said"), REFUSED)
def test_what_does_not_fit_is_refused_in_one_line_and_nothing_is_written(
    here, type_train, options, said
):
    first = [] if options[0].startswith("dataset=") else FOLDER
    changed = {option.partition("=")[0] for option in options}
    first = [option for option in first if option.partition("=")[0] not in changed]
    assert_refused(type_train, said, *first, *options, *SMALL)


@pytest.mark.slow
def test_all_other_commands_work_on_such_a_run(type_in, here):
    assert type_in(analyse, "run=run", "attacks=[fgsm]", "device=cpu", "out=analysis")[0] == 0
    small = ("n=6", "quality=none", "judge=none", "sampler.steps=2", "device=cpu", "out=samples")
    assert type_in(sample, "run=run", "start=class_gaussian", *small)[0] == 0
    assert type_in(report, "runs=[run]", "out=report")[0] == 0
    assert "pets" in Path("report/report.html").read_text()
