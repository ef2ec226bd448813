"""Folders of results: one result each, which the same settings resume and no other replaces."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from energy_at.core import files
from energy_at.core.lock import locked

RECORD = ".result.json"


class ResultFolder:
    """The folder that a result is written to.

    A hidden record in the folder names the result: its kind, its key, the digests of its files.

        folder = ResultFolder(out, "analysis", key)
        with folder.in_use():  # only if files are written before the result is complete
            folder.claim()
            with folder.staged() as part:  # all files appear together, if nothing is raised
                (part / "table.md").write_text(...)

    Args:
        path: The folder; it is created with the first file.
        kind: Of the result, a noun: ``evaluation``, ``analysis``, ``sampling``, ``report``.
        key: Digest of everything that the result depends on, such as ``result_key`` returns.
            Without a key a new result of the same kind replaces the old one.

    Raises:
        ValueError: if ``path`` cannot be written to, or holds another result; with a key, also if
            it holds other files (hidden ones do not count).
    """

    def __init__(self, path: Path, kind: str, key: str | None = None) -> None:
        self.path, self.kind, self.key, self._file = path, kind, key, path / RECORD
        files.require_writable("out", path)
        self._locked = False
        self._read_record()

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keeps other processes from writing here; within it, again, it does nothing.

        An ``OSError`` of a write that names no file names the folder.

        Raises:
            InUseError: if one does.
            ValueError: if another result has been written here since.
        """
        if self._locked:
            yield
            return
        place = (
            self.path.absolute()
        )  # the lock lies next to it: all files of a result appear at once
        with locked(place.with_name(f".{place.name}.lock"), self.path):
            self._locked = True
            files.remove_parts(place)  # left by a process that was killed
            try:
                self._read_record()
                yield
            except OSError as error:
                if error.filename is None:
                    raise OSError(error.errno, error.strerror, str(self.path)) from error
                raise
            finally:
                self._locked = False

    def _read_record(self) -> None:
        path, kind, key = self.path, self.kind, self.key
        self._record = files.read_json(self._file) if self._file.is_file() else {}
        if self._record:
            if not isinstance(self._record.get("files"), dict):
                raise ValueError(f"{self._file} is damaged: it names no files")
            if self._record.get("kind") != kind or key not in (None, self._record.get("key")):
                raise ValueError(
                    f"{path} holds another {self._record.get('kind')}: choose another out=FOLDER"
                )
        elif key is not None and any(path.glob("[!.]*")):
            raise ValueError(f"{path} holds other files: choose another out=FOLDER")

    def claim(self) -> None:
        """Creates the folder and its record, before the first file is written."""
        if not self._file.is_file():
            self._write_record({})

    @contextmanager
    def staged(self) -> Iterator[Path]:
        """A temporary folder whose files move to this one if nothing is raised.

        Files that only the previous result has written are removed, unless they were changed.
        """
        with self.in_use():
            yield from self._staged()

    def _staged(self) -> Iterator[Path]:
        previous = self._record.get("files", {})
        with files.staged(self.path) as part:
            yield part
            self.claim()
            inside = sorted(path for path in part.rglob("*") if path.is_file())
            written = {
                file.relative_to(part).as_posix(): files.sha256(file.read_bytes())
                for file in inside
            }
        for name in previous.keys() - written.keys():
            self._remove(name, previous[name])
        self._write_record(written)

    def _write_record(self, digests: dict[str, str]) -> None:
        self._record = {"kind": self.kind, "key": self.key, "files": digests}
        files.write_atomic(self._file, json.dumps(self._record, indent=2) + "\n")

    def _remove(self, name: str, digest: str) -> None:
        file = self.path / name
        inside = self.path.resolve() in file.resolve().parents
        if inside and file.is_file() and files.sha256(file.read_bytes()) == digest:
            file.unlink()
            if not any(file.parent.iterdir()):
                file.parent.rmdir()
