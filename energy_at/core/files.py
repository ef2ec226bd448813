"""Files that might be damaged, or not what they seem; files that appear together or not at all."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


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
