"""What a report has written, so that the next one into the same folder leaves none of it behind."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from energy_at.core.files import read_json

RECORD = "report.json"


def note_written(folder: Path) -> None:
    """Records every file of a folder, by its digest."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    digests = {file.relative_to(folder).as_posix(): _digest(file) for file in files}
    (folder / RECORD).write_text(json.dumps({"files": digests}, indent=2) + "\n")


def written(folder: Path) -> dict[str, str]:
    """Digests of what the last report into a folder has written; none where there was none.

    Raises:
        ValueError: if the record is damaged.
    """
    record = folder / RECORD
    if not record.is_file():
        return {}
    files = read_json(record).get("files")
    if not isinstance(files, dict):
        raise ValueError(f"{record} is damaged: it names no files")
    return files


def remove_left(folder: Path, earlier: Mapping[str, str]) -> None:
    """Removes what only the earlier report has written, and nobody has changed since."""
    for name in earlier.keys() - written(folder).keys():
        file = folder / name
        inside = folder.resolve() in file.resolve().parents
        if inside and file.is_file() and _digest(file) == earlier[name]:
            file.unlink()
            if not any(file.parent.iterdir()):
                file.parent.rmdir()


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
