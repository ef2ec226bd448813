"""Run folders, and checkpoints that are damaged or dangerous."""

import io
import json
import pickle
import platform
import re

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from energy_at.runs.checkpoints import read_checkpoint
from energy_at.runs.environment import environment
from energy_at.runs.folder import RunFolder

CONFIG = OmegaConf.create({"seed": 3, "threat": {"eps": "8/255"}, "alpha": "${threat.eps}"})


@pytest.fixture
def run(tmp_path):
    return RunFolder.create(tmp_path / "runs" / "one", CONFIG)


def one_line(caught):
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message


# Folders


def test_a_new_run_can_be_opened_and_holds_its_resolved_configuration(run):
    opened = RunFolder.open(str(run.path))
    assert opened == run
    assert OmegaConf.to_container(opened.config()) == {
        "seed": 3,
        "threat": {"eps": "8/255"},
        "alpha": "8/255",
    }
    assert "${" not in run.config_file.read_text()


def test_a_run_records_its_environment(run):
    recorded = json.loads((run.path / "environment.json").read_text())
    assert recorded["python"] == platform.python_version()
    assert torch.__version__.startswith(recorded["packages"]["torch"])
    assert recorded["packages"]["numpy"] == np.__version__
    assert recorded.keys() == environment().keys() | {"overrides", "train_images"}
    assert sorted(path.name for path in run.path.iterdir()) == ["config.yaml", "environment.json"]


def test_create_refuses_a_folder_that_holds_a_run(run):
    before = run.config_file.read_bytes()
    with pytest.raises(ValueError, match="already holds a run") as caught:
        RunFolder.create(run.path, OmegaConf.create({"seed": 4}))
    assert f"resume={run.path}" in one_line(caught)
    assert run.config_file.read_bytes() == before


def test_create_takes_a_folder_that_holds_other_things(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    RunFolder.create(tmp_path, CONFIG)
    assert RunFolder.open(tmp_path).config().seed == 3
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["missing", "empty", "file"])
def test_open_refuses_what_is_no_run(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(FileNotFoundError, match="not a run folder") as caught:
        RunFolder.open(tmp_path / name)
    assert str(tmp_path / name) in one_line(caught)


def test_results_come_back(run):
    results = {"last": {"step": 40, "val": {"clean": 1 / 3, "pgd": 0.1, "n": 237}}, "best": {}}
    run.write_results(results)
    assert RunFolder.open(run.path).results() == results
    run.write_results({"last": {}})
    assert run.results() == {"last": {}}
    assert not list(run.path.glob("*.part"))


def test_the_log_is_that_of_the_file_without_empty_cells(run):
    assert run.log().curves == {}
    run.metrics_file.write_text(
        "step,epoch,lr,val/acc/pgd\n1,0,0.25,\n2,0,0.0,\n2,0,,0.5\n3,1,nan,\n"
    )
    lr, accuracy = run.log()["lr"], run.log()["val/acc/pgd"]
    assert (list(lr.steps), list(lr.epochs)) == ([1, 2, 3], [0, 0, 1])
    assert list(lr.values[:2]) == [0.25, 0.0]
    assert np.isnan(lr.values[2])
    assert (list(accuracy.steps), list(accuracy.values)) == ([2], [0.5])


def test_the_log_is_read_once_until_the_file_changes(run):
    run.metrics_file.write_text("step,epoch,lr,val/acc/pgd\n1,0,0.25,\n2,0,0.0,\n2,0,,0.5\n")
    assert list(run.log()["lr"].values) == [0.25, 0.0]
    assert run.log() is run.log()  # read once
    run.metrics_file.write_text("step,epoch,lr\n1,0,0.125\n")
    assert list(run.log()["lr"].values) == [0.125]


@pytest.mark.parametrize("name", ["results.json", "environment.json"])
@pytest.mark.parametrize("content", ["{", "[1]", "<html>"])
def test_a_damaged_file_of_a_run_is_named_in_one_line(run, name, content):
    (run.path / name).write_text(content)
    with pytest.raises(ValueError, match="is damaged") as caught:
        run.results() if name == "results.json" else run.overrides()
    assert str(run.path / name) in one_line(caught)


@pytest.mark.parametrize(
    ("read", "words"),
    [
        (RunFolder.results, ["has not finished", "resume="]),
        (RunFolder.checkpoint, ["last.ckpt"]),
        (lambda run: run.checkpoint("best"), ["best.ckpt"]),
    ],
)
def test_what_is_not_there_yet_is_named(run, read, words):
    with pytest.raises(FileNotFoundError) as caught:
        read(run)
    message = one_line(caught)
    for word in (*words, str(run.path)):
        assert word in message


def test_checkpoints_are_found(run):
    run.checkpoints.mkdir()
    for which in ("last", "best"):
        torch.save({"state_dict": {}, "which": which}, run.checkpoints / f"{which}.ckpt")
        assert read_checkpoint(run.checkpoint(which))["which"] == which
    assert run.checkpoint() == run.checkpoint("last")


# Checkpoints

GOOD = {"state_dict": {"weight": torch.arange(1000.0)}, "global_step": 7, "name": "x", "lrs": [0.1]}


def saved(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def refusal(path, data):
    """The one line that says why these bytes are no checkpoint."""
    path.write_bytes(data)
    with pytest.raises(ValueError, match=re.escape(str(path))) as caught:
        read_checkpoint(path)
    return one_line(caught)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "last.ckpt"


def test_a_checkpoint_comes_back(path):
    path.write_bytes(saved(GOOD))
    for name in (path, str(path)):
        read = read_checkpoint(name)
        assert read.keys() == GOOD.keys()
        assert torch.equal(read["state_dict"]["weight"], GOOD["state_dict"]["weight"])
        assert (read["global_step"], read["name"], read["lrs"]) == (7, "x", [0.1])


def test_a_missing_checkpoint_is_named(path):
    with pytest.raises(FileNotFoundError, match="not found") as caught:
        read_checkpoint(path)
    assert str(path) in one_line(caught)


@pytest.mark.parametrize("share", [0, 0.01, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_checkpoint_is_refused(path, share):
    data = saved(GOOD)
    assert "damaged or truncated" in refusal(path, data[: int(share * len(data))])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([1, 2], "no named tensors"),
        ({"model": {}}, "no state_dict"),
        (torch.ones(3), "no named tensors"),
        (5, "no named tensors"),
    ],
)
def test_a_file_without_state_dict_is_refused(path, content, said):
    assert said in refusal(path, saved(content))


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return open, (str(self.target), "w")


@pytest.mark.parametrize(
    "data",
    [saved, pickle.dumps, lambda content: pickle.dumps(content, protocol=2)],
    ids=["torch.save", "pickle", "old pickle"],
)
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_code_in_a_checkpoint_is_not_run(path, tmp_path, data):
    target = tmp_path / "created"
    evil = data({"state_dict": {}, "hyper_parameters": Payload(target)})
    if data is saved:
        torch.load(io.BytesIO(evil), weights_only=False)
    else:
        pickle.loads(evil)
    assert target.exists()  # the payload works where it is let
    target.unlink()
    assert "could run code" in refusal(path, evil)
    assert not target.exists()


@pytest.mark.parametrize(
    "thing", [torch.relu, print, RunFolder], ids=["relu", "print", "RunFolder"]
)
def test_functions_and_classes_in_a_checkpoint_are_refused(path, thing):
    assert "could run code" in refusal(path, saved({"state_dict": {}, "thing": thing}))


def test_a_file_that_is_no_checkpoint_is_refused(path):
    assert "checkpoint" in refusal(path, b"<!DOCTYPE html><html>not found</html>")
