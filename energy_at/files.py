"""Files that might be damaged, or not what they seem; files that appear together or not at all."""

import json
import os
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file


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


def read_json(path: Path) -> dict[str, Any]:
    """A file of named values.

    Raises:
        ValueError: if it is damaged.
    """
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is damaged: it is no JSON") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged: it holds no named values")
    return content


@contextmanager
def beside(out: Path) -> Iterator[Path]:
    """A hidden folder beside ``out`` to write to; what is left in it is lost at the end."""
    part = out.absolute().with_name(f".{out.absolute().name}.part")
    existed = [folder for folder in part.parents if folder.exists()]
    shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
    part.mkdir(parents=True)
    try:
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)
        for folder in part.parents:
            if folder in existed or any(folder.iterdir()):
                break
            folder.rmdir()


@contextmanager
def together(out: Path) -> Iterator[Path]:
    """A folder whose files go to ``out`` if nothing is raised; what else lies there stays.

    Raises:
        ValueError: if ``out`` is a file.
    """
    if out.is_file():
        raise ValueError(f"out={out} is a file: name a folder")
    with beside(out) as part:
        yield part
        for file in [path for path in part.rglob("*") if path.is_file()]:
            target = out / file.relative_to(part)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, target)


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
