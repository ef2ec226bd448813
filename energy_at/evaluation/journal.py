"""Finished batches of an evaluation on disk, so that one that was cut off goes on."""

import json
import os
from collections.abc import Mapping
from pathlib import Path


class JournalFile:
    """Finished batches of an evaluation in a file of one line each, so that a kill loses one.

    Args:
        path: The file; it is made with the first batch.
        key: Of the evaluation.

    Raises:
        ValueError: if the file is of another evaluation, or damaged.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path = path
        self.header = json.dumps({"evaluation": key}) + "\n"
        self._known: dict[str, dict[int, bool]] = {}
        if path.is_file():
            self._read()

    def known(self, task: str) -> Mapping[int, bool]:
        """Images that the task is done with, and whether each is still right."""
        return self._known.get(task, {})

    def note(self, task: str, found: Mapping[int, bool]) -> None:
        """Writes a finished batch down."""
        if not self.path.is_file():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(self.header)
        line = {"task": task, "images": list(found), "right": [int(r) for r in found.values()]}
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        self._known.setdefault(task, {}).update(found)

    def _read(self) -> None:
        content, header = self.path.read_bytes(), self.header.encode()
        if not content.startswith(header):
            if not header.startswith(content):
                raise ValueError(
                    f"{self.path.parent} holds another evaluation: choose another out=FOLDER"
                )
            self.path.unlink()  # a kill has cut its first line
            return
        whole = content[: content.rindex(b"\n") + 1]  # a kill may have cut the last line
        try:
            for line in whole.splitlines()[1:]:
                entry = json.loads(line)
                found = zip(entry["images"], map(bool, entry["right"]), strict=True)
                self._known.setdefault(entry["task"], {}).update(found)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.path} is damaged: remove it to begin again") from error
        if len(whole) < len(content):
            os.truncate(self.path, len(whole))
