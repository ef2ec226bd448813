"""Run folders that keys name."""

import re

import pytest
from omegaconf import OmegaConf

from energy_at.runs.folder import RunFolder
from energy_at.runs.selection import named_folders, require_distinct, require_one_named


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
        ({"run": "a", "runs": "b"}, "name one of run=FOLDER, runs=[FOLDER,FOLDER]"),
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
