"""Files that appear whole or not at all, the process that writes them, and digests of values."""

import errno
import glob
import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
_PACKAGE = Path(__file__).parents[1]
# The YAML files: inside an installed package, next to it in a checkout.
CONF = str(next((p for p in (_PACKAGE / "conf", _PACKAGE.parent / "conf") if p.is_dir()), _PACKAGE))
_PART = ".part"  # the end of the name of a file that is not complete
# A new folder, by another process, which has asked whether it can be written to; so we try again.
_REMOVED = (FileExistsError, FileNotFoundError)
_TRIES = 20
_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")  # of torchrun, Lightning and srun


def is_first() -> bool:
    """Whether this process is alone, or the one of those training together that writes."""
    return all(os.environ.get(name, "0") == "0" for name in _RANKS)


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON of a value: mappings in any order give the same."""
    return sha256(json.dumps(value, sort_keys=True).encode())


def sha256(*parts: Any) -> str:
    """SHA-256 of bytes, or of arrays where they are, without a copy, one after the other."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest()


def user_cache() -> Path:
    """Folder of what is computed once for all runs of a user."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "energy_at"


def read_json(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file.

    Raises:
        ValueError: if the file is damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        at = ""
        if isinstance(error, json.JSONDecodeError):
            at = f"line {error.lineno}, column {error.colno}: "
        raise ValueError(f"{path} is damaged: {at}it is not JSON") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged: it holds no mapping")
    return content


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file to write to; it replaces ``path`` if nothing is raised.

    Missing parent folders are created, and what killed processes of this host have left is removed.
    An ``OSError`` names ``path``.
    """
    ours = f".{path.name}.{platform.node()}-"
    part = path.with_name(f"{ours}{os.getpid()}{_PART}")
    try:
        make_in(path.parent, part.touch)  # in a folder that is not empty, which nobody removes
        for other in path.parent.glob(f"{glob.escape(ours)}*{_PART}"):
            if not _is_running(other.name[len(ours) : -len(_PART)]):
                other.unlink(missing_ok=True)
        yield part
        os.replace(part, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with suppress(OSError):  # as where the parent is a file, which the error above says
            part.unlink()


def _is_running(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, ValueError):
        return False
    except OSError:  # of another user
        return True
    return True


def write_atomic(path: Path, data: str | bytes | memoryview) -> None:
    """Replaces a file as a whole; text is written as UTF-8. An ``OSError`` names ``path``.

    After a power failure the file is the old one or the new one.
    """
    with replacing(path) as part, part.open("wb") as file:
        file.write(data.encode() if isinstance(data, str) else data)
        file.flush()
        os.fsync(file.fileno())


def remove_parts(folder: Path) -> None:
    """Removes what processes that were killed have left of files that they were writing."""
    for part in list(folder.rglob(f".*{_PART}")):
        if part.is_file():
            part.unlink(missing_ok=True)


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A temporary folder that becomes ``out`` if nothing is raised; its files join those there.

    An ``OSError`` of a write names ``out``.

    Raises:
        ValueError: if ``out`` cannot be written to.
    """
    require_writable("out", out)
    part = out.absolute().with_name(f".{out.absolute().name}.part")
    existed = {folder for folder in part.parents if folder.exists()}
    shutil.rmtree(part, ignore_errors=True)  # left by a process that was killed
    make_in(part.parent, part.mkdir)
    try:
        yield part
        if not out.exists():
            part.rename(out)  # all files at once
            return
        written = {p: out / p.relative_to(part) for p in part.rglob("*") if p.is_file()}
        for target in written.values():  # before any of them is replaced
            if target.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
        for file, target in written.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, target)
    except OSError as error:
        if error.filename is not None and not Path(str(error.filename)).is_relative_to(part):
            raise
        raise OSError(error.errno, error.strerror, str(out)) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
        remove_new(part.parent, existed)


def require_writable(key: str, folder: str | Path | None) -> None:
    """Raises ``ValueError`` if a folder cannot be written to; none is created."""
    if folder in (None, ""):
        raise ValueError(f"{key}= must be the path of a folder, such as runs/mine")
    if why := write_error(Path(str(folder))):
        verb = "written to" if Path(str(folder)).is_dir() else "made"
        raise ValueError(f"{key}={folder} cannot be {verb} ({why}): choose another folder")


def write_error(folder: Path) -> str | None:
    """Why no file can be written to a folder."""
    why = None
    for _ in range(_TRIES):
        existed = {path for path in (folder, *folder.parents) if path.exists()}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return None
        except _REMOVED as error:
            why = error.strerror
        except OSError as error:
            return error.strerror
        finally:
            remove_new(folder, existed)
    return why


def make_in(folder: Path, make: Callable[[], T]) -> T:
    """Makes something in a folder, which is created with its parents."""
    for _ in range(_TRIES):
        with suppress(*_REMOVED):
            folder.mkdir(parents=True, exist_ok=True)
            return make()
    folder.mkdir(parents=True, exist_ok=True)
    return make()


def remove_new(folder: Path, existed: set[Path]) -> None:
    """Removes a folder and its parents, as far as they are empty and did not exist before."""
    for path in (folder, *folder.parents):
        if path in existed:
            return
        with suppress(OSError):  # it is not empty, or another process has removed it
            path.rmdir()


def remove_empty(folder: Path) -> None:
    """Removes a folder and its parents below the working directory, as far as they are empty."""
    for path in (folder, *folder.parents):
        inside = path.resolve().is_relative_to(Path.cwd()) and path.resolve() != Path.cwd()
        if not (inside or path == folder) or not path.is_dir() or any(path.iterdir()):
            return
        with suppress(OSError):  # another process has removed it, or put something in it
            path.rmdir()
