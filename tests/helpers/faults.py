"""Commands that are killed, or meet a full disk, at their n-th change of a folder."""

import builtins
import errno
import io
import os
import signal
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
MOVES = ("os.rename", "os.remove", "os.rmdir")  # which succeed on a full disk


@dataclass
class Faults:
    """Counts every open, write, rename, mkdir and removal below ``root``.

    At number ``at`` the process is killed, in the middle of a write after half of it, or the disk
    is full from there on.
    """

    root: Path
    at: int | None = None
    fault: str = "kill"
    count: int = 0

    def install(self):
        """For the rest of the process."""
        sys.addaudithook(self._audit)
        opened = io.open
        place = lambda *args, **kwargs: self._watched(opened(*args, **kwargs))  # noqa: E731
        io.open = builtins.open = place

    def _audit(self, event, arguments):
        if (event == "open" and arguments[2] & WRITES) or event == "os.mkdir":
            self._change(arguments[0])
        elif event in MOVES:
            self._change(arguments[0], moves=True)

    def _watched(self, file):
        if file.writable() and self._is_below(file.name):
            return _Watched(file, self)
        return file

    def _is_below(self, path):
        if not isinstance(path, str | bytes | os.PathLike):
            return False
        return Path(os.path.abspath(os.fsdecode(path))).is_relative_to(self.root)  # noqa: PTH100

    def _change(self, path, *, moves=False, name=True):
        if not self._is_below(path):
            return
        self.count += 1
        if self.at is None or self.count < self.at:
            return
        if self.fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif not moves:
            full = (errno.ENOSPC, os.strerror(errno.ENOSPC))
            raise OSError(*full, os.fsdecode(path)) if name else OSError(*full)


class _Watched:
    def __init__(self, file, faults):
        self._file, self._faults = file, faults

    def write(self, data):
        faults = self._faults
        if faults.at == faults.count + 1:
            self._file.write(data[: len(data) // 2])
            self._file.flush()
        faults._change(self._file.name, name=False)
        return self._file.write(data)

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()

    def __iter__(self):
        return iter(self._file)


def run(main, argv, faults, log):
    """Types a command in a copy of this process; returns its exit code (negative: its signal).

    The number of changes is in the file ``log.count``, unless it was killed.
    """
    child = os.fork()
    if child == 0:
        code = 70
        try:
            sys.argv = [main.__module__, *argv]
            sys.stdout = sys.stderr = log.open("w", buffering=1)
            faults.install()
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        except BaseException:
            traceback.print_exc()
        finally:
            log.with_suffix(".count").write_text(str(faults.count))
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
