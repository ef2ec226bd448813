"""Checkpoint files, read without running anything in them."""

import json
import warnings
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from io import SEEK_END, BytesIO
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from energy_at.core.files import sha256
from energy_at.core.rules import integer
from energy_at.runs.folder import RunFolder

_TRAINING_STATE: dict[str, type] = {
    "pytorch-lightning_version": str,
    "epoch": int,
    "global_step": int,
    "loops": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
    "state_dict": dict,
    "callbacks": dict,
}

_PREFIX = b"sha256:"
_COMMENT = len(_PREFIX) + 64  # bytes

_LONGEST_HEADER = 100_000_000  # bytes, of a safetensors file, as its library says

_PROGRESS = {"epoch_progress", "epoch_loop.batch_progress"}


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A checkpoint of a training: tensors and plain values only.

    Who reads it for its weights, as ``evaluate`` and ``export`` do, needs no valid state of the
    training around them: no result depends on it. Only a training that resumes checks that.

    Raises:
        FileNotFoundError: if it does not exist.
        ValueError: if it is damaged, holds anything that could run code, or has no weights.
    """
    checkpoint = read_tensors(path)
    if "state_dict" not in checkpoint:
        raise ValueError(f"checkpoint {path} has no state_dict: it was not written by a training")
    state = checkpoint["state_dict"]
    if not (isinstance(state, dict) and all(isinstance(v, Tensor) for v in state.values())):
        raise ValueError(f"checkpoint {path} is damaged: state_dict must hold tensors")
    return checkpoint


def read_training_state(path: str | Path) -> dict[str, Any]:
    """A checkpoint that a training can resume from.

    Raises:
        FileNotFoundError: if it does not exist.
        ValueError: if it is damaged, or holds anything else.
    """
    state = read_checkpoint(path)
    if _TRAINING_STATE.keys() - state.keys():
        raise ValueError(
            f"checkpoint {path} holds weights without the state of their training: "
            "it cannot be resumed"
        )
    for name, kind in _TRAINING_STATE.items():
        if not isinstance(state[name], kind):
            raise ValueError(f"checkpoint {path} is damaged: {name} is no {kind.__name__}")
    fit_loop = state["loops"].get("fit_loop")
    if not (isinstance(fit_loop, dict) and fit_loop.keys() >= _PROGRESS):
        raise ValueError(f"checkpoint {path} is damaged: its fit_loop has no progress")
    if integer(0).broken_by(state.get("metrics_rows", 0)):
        raise ValueError(f"checkpoint {path} is damaged: metrics_rows is no number of rows")
    if not isinstance(state.get("sentinel") or {}, dict):
        raise ValueError(f"checkpoint {path} is damaged: sentinel is no dict")
    return state


def read_tensors(path: str | Path) -> dict[str, Any]:
    """A safetensors or PyTorch file of tensors and plain values.

    Raises:
        FileNotFoundError: if it does not exist.
        ValueError: if it is damaged, is another kind of file, holds no mapping, or anything that
            could run code.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint {path} not found")
    with path.open("rb") as file:
        start = file.read(9)
    # A safetensors file starts with the length of its header: any bytes, PK among them.
    is_safetensors = start[8:] == b"{" and int.from_bytes(start[:8], "little") <= _LONGEST_HEADER
    is_zip = start.startswith(b"PK") and not is_safetensors
    is_pytorch = is_zip or (start[:1] == b"\x80" and not is_safetensors)
    try:
        if is_zip:
            _require_intact(path)
        if is_pytorch:
            with warnings.catch_warnings(action="ignore"):  # of a plain pickle, refused below
                content = torch.load(path, map_location="cpu", weights_only=True)
        else:
            content = load_file(path)
            if _recorded(path).get("sha256") not in (None, state_digest(content)):
                raise ValueError("other weights than were written")
    except Exception as error:  # torch raises half a dozen kinds here; all mean one of three things
        if is_pytorch and "Weights only load failed" in str(error):
            raise ValueError(
                f"checkpoint {path} holds more than tensors and plain values, which could run "
                "code: not read; save its state_dict alone"
            ) from error
        if start and not is_pytorch and start[8:] != b"{":
            raise ValueError(
                f"{path} is not a checkpoint: name a PyTorch or .safetensors file"
            ) from error
        raise ValueError(
            f"checkpoint {path} is damaged or truncated: use another, or train again"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"checkpoint {path} holds a {type(content).__name__}, no named tensors")
    return content


def recorded_model(path: Path) -> dict[str, Any]:
    """The configuration of the network whose weights a file of ours holds; empty for others.

    It stands in a file of ``export``, and in the run folder around a checkpoint.
    """
    folder = RunFolder(path.absolute().parent.parent)
    model: Any = None
    with suppress(OSError, ValueError, KeyError, SafetensorError):
        if folder.checkpoints == path.absolute().parent:
            model = OmegaConf.to_container(folder.config().model)
        else:
            model = json.loads(_recorded(path)["model"])
    return model if isinstance(model, dict) else {}


def _recorded(path: Path) -> dict[str, str]:
    """What ``export`` wrote into a file about its weights; empty for other files."""
    with safe_open(path, framework="pt") as file:
        about: dict[str, str] = file.metadata() or {}
    return about if "energy_at" in about else {}


def with_digest(content: BytesIO) -> memoryview:
    """What ``torch.save`` wrote, with its own SHA-256 as the comment at the end of the ZIP file."""
    content.seek(-2, SEEK_END)  # the length of the comment
    content.write(_COMMENT.to_bytes(2, "little"))
    content.write(_digest_of(content.getvalue()))
    return content.getbuffer()


def state_digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of the names and values of all weights."""
    return sha256(
        *(
            part
            for name, value in sorted(state.items())
            for part in (name.encode(), value.detach().cpu().flatten().view(torch.uint8).numpy())
        )
    )


def _require_intact(path: Path) -> None:
    """Raises ``BadZipFile`` if bytes have changed.

    A checkpoint of ours holds the digest of itself. In others each part has its CRC-32, which
    PyTorch writes and does not check.
    """
    with zipfile.ZipFile(path) as parts:
        if parts.comment.startswith(_PREFIX) or len(parts.comment) == _COMMENT:
            content = memoryview(path.read_bytes())
            intact = parts.comment == content[-_COMMENT:] == _digest_of(content[:-_COMMENT])
        else:
            intact = parts.testzip() is None
    if not intact:
        raise zipfile.BadZipFile(path)


def _digest_of(content: bytes | memoryview) -> bytes:
    return _PREFIX + sha256(content).encode()
