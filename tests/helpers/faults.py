"""Commands that are killed, or meet a full disk, at their n-th change of a folder."""

import builtins
import errno
import io
import json
import os
import platform
import re
import signal
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_PROCESS = rf"\.{re.escape(platform.node())}-\d+\.part"  # in names of files that are not complete
SIGNALS = {"kill": signal.SIGKILL, "interrupt": signal.SIGINT, "terminate": signal.SIGTERM}
MOVES = ("os.rename", "os.remove", "os.rmdir")  # which succeed on a full disk


@dataclass
class Faults:
    """Counts every open, write, rename, mkdir and removal below ``root``.

    At number ``at`` the process gets a signal, in the middle of a write after half of it, or the
    disk is full from there on.
    """

    root: Path
    at: int | None = None
    fault: str = "kill"
    seen: list[str] = field(default_factory=list)

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
        file = os.path.relpath(os.fsdecode(path), self.root)
        self.seen.append(re.sub(_PROCESS, ".part", file) + " write" * (not name))
        if self.at is None or len(self.seen) < self.at:
            return
        if self.fault in SIGNALS:
            if len(self.seen) == self.at:
                os.kill(os.getpid(), SIGNALS[self.fault])
        elif not moves:
            full = (errno.ENOSPC, os.strerror(errno.ENOSPC))
            raise OSError(*full, os.fsdecode(path)) if name else OSError(*full)


class _Watched:
    def __init__(self, file, faults):
        self._file, self._faults = file, faults

    def write(self, data):
        faults = self._faults
        if faults.at == len(faults.seen) + 1 and faults.fault != "terminate":  # it may continue
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

    Its changes, by file, are in ``log.json``, unless it was killed.
    """
    child = os.fork()
    if child == 0:
        code = 70
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's & ignores
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
            log.with_suffix(".json").write_text(json.dumps(faults.seen))
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def places(seen: Sequence[str]) -> list[int]:
    """Numbers of all changes; of many writes to one file the first, the middle and the last."""
    found, before = [], 0
    for _, same in groupby(seen):
        n = len(list(same))
        found += [before + 1, before + (n + 1) // 2, before + n]
        before += n
    return sorted(set(found))


def write_row(file: Path, row: Sequence[str]) -> None:
    """Replaces the row of a Markdown table that begins with the same two cells, or adds it."""
    line = f"| {' | '.join(row)} |"
    lines = file.read_text().splitlines()
    same = [n for n, old in enumerate(lines) if old.split("|")[1:3] == line.split("|")[1:3]]
    last = max(n for n, old in enumerate(lines) if old.startswith("|"))
    lines[same[0] if same else last + 1 : (same[0] if same else last) + 1] = [line]
    file.write_text("\n".join(lines) + "\n")
