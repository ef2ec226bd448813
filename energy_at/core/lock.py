"""One process at a time for a folder of results."""

import errno
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from energy_at.core.files import make_in, remove_new

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_POLL = 0.2  # seconds
_HELD = (errno.EAGAIN, errno.EACCES)  # by another process


class InUseError(ValueError):
    """Another process writes to the same folder."""


@contextmanager
def locked(file: Path, folder: Path) -> Iterator[None]:
    """Keeps other processes out of ``folder`` by a lock ``file``, which names process and host.

    The system frees the lock of a process that ends in whatever way, on another host too where the
    file system shares locks: the file of a killed process is taken over. Where the file system has
    no locks, a file is in use while its process runs on the same host.

    Raises:
        InUseError: if another process holds the lock; nothing is written then.
    """
    existed = {path for path in file.parents if path.exists()}
    handle = _open(file, folder)
    try:
        os.truncate(handle, 0)
        os.write(handle, json.dumps({"process": os.getpid(), "host": platform.node()}).encode())
        yield
    finally:
        file.unlink(missing_ok=True)
        os.close(handle)  # after it is unlinked: who opens it now finds another file
        remove_new(file.parent, existed)


@contextmanager
def waiting_for(file: Path, made: Path) -> Iterator[None]:
    """Lets one process at a time make a file, by a lock ``file``; the others wait for it."""
    told = False
    while True:
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(file, made))
            except InUseError:
                if not told:
                    told = True
                    sys.stderr.write(f"waiting for another process that makes {made}\n")
                time.sleep(_POLL)
                continue
            yield
            return


def _open(file: Path, folder: Path) -> int:
    # no link, whose file would be emptied; Windows lacks the flag
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    while True:
        try:
            handle = make_in(file.parent, lambda: os.open(file, flags, 0o644))
        except OSError as error:  # the user knows the folder
            raise OSError(error.errno, error.strerror, str(folder)) from error
        try:
            _acquire(handle)
            if os.fstat(handle).st_ino == file.stat().st_ino:
                return handle
        except FileNotFoundError:
            pass  # its process has just ended, and removed it
        except _HeldError as held:
            os.close(handle)
            raise InUseError(
                f"{folder} is in use by {held}: wait until it ends, or choose another folder"
            ) from None
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


class _HeldError(Exception):
    """Text: the process that holds the lock."""


def _acquire(handle: int) -> None:
    owner: dict[str, Any] = {}
    with suppress(ValueError, OSError):
        owner = json.loads(os.pread(handle, 1000, 0))
    process, host = owner.get("process"), owner.get("host")
    name = f"process {process} on {host}" if process else "another process"
    try:
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
    except OSError as error:
        if error.errno in _HELD:
            raise _HeldError(name) from error
    if (
        isinstance(process, int)
        and process != os.getpid()
        and host == platform.node()
        and _runs(process)
    ):
        raise _HeldError(name)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # of another user
    return True
