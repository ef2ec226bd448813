"""What a command is to open, and what a resume may change: checked without torch."""

import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from energy_at.runs.folder import RunFolder
from energy_at.runs.selection import (
    initial_file,
    moved_data,
    named_folders,
    require_distinct,
    require_named,
    require_one_named,
    require_resumable,
)

NETWORK = {"run": None, "runs": None, "checkpoint": None}


@pytest.mark.parametrize(
    ("names", "folders"),
    [("a", ["a"]), (0, ["0"]), (OmegaConf.create(["a", 1]), ["a", "1"])],
    ids=["one", "number", "several"],
)
def test_runs_are_named_one_or_several(names, folders):
    assert named_folders(names) == folders


def test_an_empty_list_of_runs_is_refused():
    with pytest.raises(ValueError, match=r"runs=\[\] names no run: write runs=\[FOLDER,FOLDER\]"):
        named_folders(OmegaConf.create([]))


@pytest.mark.parametrize(
    ("cfg", "offered"),
    [
        ({"run": None, "runs": None}, "name one of run=FOLDER, runs=[FOLDER,FOLDER]"),
        ({"run": "a", "runs": "b"}, "FOLDER]; run=a and runs=b exclude each other"),
        ({"run": "a", "checkpoint": "b"}, "name one of run=FOLDER, checkpoint=FILE with its model"),
    ],
)
def test_one_key_names_what_to_open(cfg, offered):
    with pytest.raises(ValueError, match=re.escape(offered)):
        require_one_named(OmegaConf.create(cfg))
    require_one_named(OmegaConf.create(cfg | {"run": "a", "runs": None, "checkpoint": None}))


def test_a_run_that_is_named_twice_is_refused(tmp_path):
    runs = [RunFolder(tmp_path / "a"), RunFolder(tmp_path / "b" / ".." / "a")]
    require_distinct(runs[:1])
    with pytest.raises(ValueError, match="twice: leave one out"):
        require_distinct(runs)


def test_the_checkpoint_of_a_run_is_chosen_by_another_key():
    with pytest.raises(ValueError, match=r"^of a run, which=best chooses the checkpoint$"):
        require_one_named(OmegaConf.create(NETWORK | {"run": "a", "checkpoint": "best"}))


def write_run(**changed):
    groups = ("model", "threat", "attack", "loss", "reg", "trainer", "training")
    cfg = {name: {} for name in groups} | {"dataset": {"classes": 10, "channels": 1, "size": 8}}
    Path("run").mkdir(exist_ok=True)
    OmegaConf.save(OmegaConf.create(cfg | changed), "run/config.yaml")


def test_what_is_named_exists_and_keeps_its_data_set(here):
    write_run()
    one = OmegaConf.create(NETWORK | {"run": "run"})
    require_named(one, ["run=run", "dataset.root=data", "attacks=[fgsm]"])
    assert moved_data(["run=run", "++dataset.root=data"]) == ["dataset.root=data"]
    for own in ("model.width=2", "normalize=none", "source=trades"):
        with pytest.raises(ValueError, match=rf"^run=run brings its own .*: leave out {own}$"):
            require_named(one, ["run=run", f"+{own}"])
    for key, value in {"run": "nowhere", "runs": ["run", "nowhere"], "checkpoint": "x.pt"}.items():
        with pytest.raises(FileNotFoundError, match=r"^nowhere is not a run|^checkpoint x.pt not"):
            require_named(OmegaConf.create(NETWORK | {key: value}), [])
    require_named(OmegaConf.create({"run": "nowhere"}), [])  # a key of another meaning


@pytest.mark.parametrize(
    "named", [NETWORK | {"run": "run"}, NETWORK | {"runs": ["run"]}, {"resume": "run"},
              {"init": "run"}],
)  # fmt: skip
def test_a_run_of_a_stranger_is_refused_wherever_it_is_named(here, named):
    Path("run/checkpoints").mkdir(parents=True)
    Path("run/checkpoints/last.ckpt").touch()
    write_run()
    require_named(OmegaConf.create(named), [])
    write_run(model={"_target_": "joblib.load", "filename": "p.joblib"})
    line = r"^run/config.yaml: model._target_=joblib.load is not trusted"
    with pytest.raises(ValueError, match=line):
        require_named(OmegaConf.create(named), [])


def test_initial_weights_are_those_of_a_file_or_of_the_last_checkpoint_of_a_run(here):
    write_run()
    for path in (Path("net.pt"), Path("run/checkpoints/last.ckpt")):
        with pytest.raises(FileNotFoundError):
            initial_file(OmegaConf.create({"init": path.parts[0]}))
        path.parent.mkdir(exist_ok=True)
        path.touch()
        assert initial_file(OmegaConf.create({"init": path.parts[0]})) == path


def test_a_resume_changes_how_long_and_how_it_is_evaluated(here):
    Path("run").mkdir()
    Path("run/config.yaml").touch()
    free = ["resume=run", "trainer.max_epochs=3", "+evaluation.subset=2", "trust=[mine]"]
    assert require_resumable("run", free) == RunFolder(Path("run"))
    for change in ("seed=1", "reg=der", "+reg.weight=3"):
        line = f"{change} cannot change: start a new run for it; only trainer.*, callbacks.progress"
        with pytest.raises(ValueError, match=re.escape(line)):
            require_resumable("run", [*free, change])
