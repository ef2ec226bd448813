"""Checkpoint files, read without running anything in them."""

import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A checkpoint of a training: tensors and plain values only.

    Raises:
        FileNotFoundError: if it does not exist.
        ValueError: if it is damaged, holds anything that could run code, or has no weights.
    """
    checkpoint = read_tensors(path)
    if "state_dict" not in checkpoint:
        raise ValueError(f"checkpoint {path} has no state_dict: it was not written by a training")
    return checkpoint


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
    is_pytorch = zipfile.is_zipfile(path) or start[:1] == b"\x80"
    try:
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
