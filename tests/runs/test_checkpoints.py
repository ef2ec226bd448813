"""Checkpoints that are damaged or dangerous."""

import io
import pickle
import re

import pytest
import torch

from energy_at.runs.checkpoints import read_checkpoint
from energy_at.runs.folder import RunFolder
from tests.runs.test_folder import one_line

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
