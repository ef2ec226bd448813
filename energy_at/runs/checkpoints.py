"""Checkpoint files, read without running anything in them."""

import json
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

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
    if not all(isinstance(value, torch.Tensor) for value in state["state_dict"].values()):
        raise ValueError(f"checkpoint {path} is damaged: a weight is no tensor")
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
    is_zip = start.startswith(b"PK")
    is_pytorch = is_zip or start[:1] == b"\x80"
    try:
        if is_zip:
            _require_intact(path)
        if is_pytorch:
            content = torch.load(path, map_location="cpu", weights_only=True)
        else:
            content = load_file(path)
    except Exception as error:  # torch raises half a dozen kinds here; all mean one of three things
        if is_pytorch and "Weights only load failed" in str(error):
            raise ValueError(
                f"checkpoint {path} holds more than tensors and plain values, which could run "
                "code: not read; save its state_dict alone"
            ) from error
        if start and not start.startswith((b"PK", b"\x80")) and start[8:] != b"{":
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
            with safe_open(path, framework="pt") as file:
                about = file.metadata() or {}
            model = json.loads(about["model"]) if "energy_at" in about else None
    return model if isinstance(model, dict) else {}


def _require_intact(path: Path) -> None:
    """Raises ``BadZipFile`` if bytes have changed: each part of the file has its CRC-32.

    PyTorch writes them, and does not check them.
    """
    with zipfile.ZipFile(path) as parts:
        if (part := parts.testzip()) is not None:
            raise zipfile.BadZipFile(part)
