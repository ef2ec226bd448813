"""Checkpoints that are damaged or dangerous."""

import io
import json
import pickle
import re
from functools import partial

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from energy_at.runs.checkpoints import (
    read_checkpoint,
    read_tensors,
    recorded_model,
    state_digest,
)
from energy_at.runs.folder import RunFolder
from energy_at.training.callbacks.checkpoints import CheckpointFiles
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


class Trap:
    """Creates a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


TRAPS = {
    "zip": (torch.save, partial(torch.load, weights_only=False)),
    "legacy": (
        partial(torch.save, _use_new_zipfile_serialization=False),
        partial(torch.load, weights_only=False),
    ),
    "pickle": (partial(pickle.dump, protocol=2), pickle.load),
}


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize(("save", "trusting"), TRAPS.values(), ids=TRAPS)
def test_nothing_of_a_file_is_run(save, trusting, suffix, tmp_path):
    file, sprung = tmp_path / f"file.{suffix}", tmp_path / "sprung"
    with file.open("wb") as stream:
        save(GOOD | {"trap": Trap(sprung)}, stream)
    with pytest.raises(ValueError, match=r"file\.\w+ (holds more than tensors|is damaged)"):
        read_tensors(file)
    assert not sprung.exists()
    with file.open("rb") as stream:
        trusting(stream)
    assert sprung.exists()


def test_a_file_with_code_says_so(tmp_path):
    torch.save({"model": nn.Linear(2, 2)}, tmp_path / "file.pt")
    with pytest.raises(ValueError, match=r"more than tensors and plain values, .*: not read"):
        read_tensors(tmp_path / "file.pt")


@pytest.mark.parametrize("kind", ["pt", "legacy", "safetensors"])
@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_refused_as_such(kind, share, tmp_path):
    file = tmp_path / ("file.safetensors" if kind == "safetensors" else "file.pt")
    state = {f"layer{i}.weight": torch.randn(5000) for i in range(9)}
    if kind == "safetensors":
        save_file(state, file)
    else:
        torch.save(state, file, _use_new_zipfile_serialization=kind == "pt")
    assert read_tensors(file).keys() == state.keys()
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match="is damaged or truncated: use another"):
        read_tensors(file)


@pytest.mark.parametrize(
    "content", [b"a", b"lr: 0.1\n", b"step,loss\n1,2.3\n", b"\x89PNG\r\n\x1a\n"]
)
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_a_file_of_another_kind_is_not_called_damaged(content, suffix, tmp_path):
    file = tmp_path / f"file.{suffix}"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"file\.\w+ is not a checkpoint: name a PyTorch"):
        read_tensors(file)


@pytest.mark.parametrize("length", [0x80, 0x180, 0x4B50], ids=hex)  # starts as pickles and ZIPs do
def test_a_header_of_any_length_is_read(length, tmp_path):
    about = {"weight": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    header = json.dumps(about).encode().ljust(length)
    values = torch.tensor([1.0, 2.0])
    file = tmp_path / "file.safetensors"
    file.write_bytes(length.to_bytes(8, "little") + header + values.numpy().tobytes())
    assert torch.equal(read_tensors(file)["weight"], values)
    file.write_bytes(file.read_bytes()[: 9 + length // 2])
    with pytest.raises(ValueError, match="is damaged or truncated: use another"):
        read_tensors(file)


@pytest.mark.parametrize("content", [[torch.ones(2)], torch.ones(2), "weights", 3], ids=repr)
def test_a_file_without_named_tensors_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "file.pt")
    with pytest.raises(ValueError, match=f"holds a {type(content).__name__}, no named tensors$"):
        read_tensors(tmp_path / "file.pt")


def test_a_file_that_is_not_there_is_named(tmp_path):
    for path in (tmp_path, tmp_path / "none.pt", tmp_path / "none.safetensors"):
        with pytest.raises(FileNotFoundError, match=f"^checkpoint {path} not found$"):
            read_tensors(path)


def test_a_byte_that_has_changed_is_noticed(path):
    """Or changes nothing: dates and padding of a zip file."""
    data = saved(GOOD)
    refused = 0
    for place in range(0, len(data), 97):
        path.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
        try:
            read = read_checkpoint(path)
        except ValueError as error:
            assert "damaged" in str(error) or "not a checkpoint" in str(error)  # noqa: PT017
            refused += 1
            continue
        assert torch.equal(read["state_dict"]["weight"], GOOD["state_dict"]["weight"])
        assert read["name"] == "x"
    assert refused > 0.9 * 4000 / 97  # of the bytes of the weights


def test_a_file_of_ours_says_what_network_it_is_of(tmp_path):
    """An export in its metadata, a checkpoint by the configuration of the run around it."""
    weights, model = {"a": torch.zeros(2)}, {"shortcut": "plain"}
    file = tmp_path / "w.safetensors"
    save_file(weights, file, metadata={"energy_at": "1", "model": json.dumps(model)})
    assert recorded_model(file) == model
    ours = {"energy_at": "1"}
    for other in (None, {"model": json.dumps(model)}, ours, ours | {"model": "{"}):
        save_file(weights, file, metadata=other)
        assert recorded_model(file) == {}
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    checkpoint.parent.mkdir(parents=True)
    torch.save(weights, checkpoint)
    assert recorded_model(checkpoint) == {}
    groups = ("dataset", "model", "threat", "attack", "loss", "reg", "trainer", "training")
    config = {group: {} for group in groups} | {"model": model}
    config["dataset"] = {"classes": 2, "channels": 3, "size": 8}
    (tmp_path / "run" / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
    assert recorded_model(checkpoint) == model


@pytest.mark.parametrize("bit", [1, 128])
def test_a_flipped_bit_at_the_end_of_a_file_is_damage_or_changes_nothing(bit, tmp_path):
    path = tmp_path / "weights.pt"
    torch.save({"weight": torch.arange(9.0)}, path)
    whole, damaged = path.read_bytes(), 0
    for place in range(len(whole) - 200, len(whole)):  # the list of contents
        changed = bytearray(whole)
        changed[place] ^= bit
        path.write_bytes(changed)
        try:
            found = read_tensors(path)["weight"]
        except ValueError as error:
            damaged += "damaged or truncated" in str(error)
        else:
            assert torch.equal(found, torch.arange(9.0))
    assert damaged > 20


@pytest.mark.parametrize("bit", [1, 128])
def test_any_bit_that_has_changed_in_a_file_of_ours_is_damage(bit, tmp_path):
    checkpoint, exported = tmp_path / "last.ckpt", tmp_path / "best.safetensors"
    CheckpointFiles().save_checkpoint(GOOD, checkpoint)
    weights = {"a": torch.arange(5.0), "b": torch.ones(2, 3).bfloat16(), "c": torch.tensor(True)}
    save_file(weights, exported, metadata={"energy_at": "1", "sha256": state_digest(weights)})
    assert torch.equal(
        read_tensors(checkpoint)["state_dict"]["weight"], GOOD["state_dict"]["weight"]
    )
    assert torch.equal(read_tensors(exported)["a"], weights["a"])
    for path in (checkpoint, exported):
        whole = path.read_bytes()
        for place in range(len(whole)):
            if place < len(whole) - 33 and (path == exported or place % 17):  # 33: its weights
                continue
            path.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
            with pytest.raises(ValueError, match=r"damaged or truncated|is not a checkpoint"):
                read_tensors(path)
        path.write_bytes(whole + b"\0")
        with pytest.raises(ValueError, match="damaged or truncated"):
            read_tensors(path)
