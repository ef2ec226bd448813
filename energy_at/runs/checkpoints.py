"""Files of weights and of training states, which might be damaged, or not what they seem."""

import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Reads a checkpoint that holds tensors and plain values only.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if it is damaged, or holds anything that could run code when it is read.
    """
    checkpoint = read_tensors(path)
    if "state_dict" not in checkpoint:
        raise ValueError(f"checkpoint {path} has no state_dict: it was not written by a training")
    return checkpoint


def read_tensors(path: str | Path) -> dict[str, Any]:
    """A file of tensors and plain values, safetensors or PyTorch's own; nothing of it is run.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if it is none, is damaged, holds no mapping, or anything that could run code
            when read.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"checkpoint {path} not found")
    try:
        content = _read(Path(path))
    except Exception as error:  # torch raises half a dozen kinds here; all mean one of three things
        if _is_archive_or_pickle(Path(path)) and "Weights only load failed" in str(error):
            raise ValueError(
                f"checkpoint {path} holds more than tensors and plain values, which could run "
                "code: not read; have its state_dict saved alone"
            ) from error
        if not _begins_like_one(Path(path)):
            raise ValueError(
                f"{path} is not a checkpoint: name a file of PyTorch, or a .safetensors file"
            ) from error
        raise ValueError(
            f"checkpoint {path} is damaged or truncated: use another, or train again"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"checkpoint {path} holds a {type(content).__name__}, no named tensors")
    return content


def _read(path: Path) -> Any:
    if _is_archive_or_pickle(path):
        return torch.load(path, map_location="cpu", weights_only=True)
    return load_file(path)


def _begins_like_one(path: Path) -> bool:
    """As a zip archive, a pickle or safetensors do; nothing at all is one that was cut off."""
    with path.open("rb") as file:
        start = file.read(9)
    return not start or start.startswith((b"PK", b"\x80")) or start[8:] == b"{"


def _is_archive_or_pickle(path: Path) -> bool:
    with path.open("rb") as file:
        return zipfile.is_zipfile(path) or file.read(1) == b"\x80"
