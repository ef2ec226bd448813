"""Ctrl-C that no library can lose.

A ``KeyboardInterrupt`` that is raised inside a library's clean-up can become another exception
there, or be lost: the program runs on as if nothing had been pressed.
"""

import os
import signal
import sys
import threading
import traceback
from pathlib import Path
from types import FrameType
from typing import NoReturn

from energy_at.core.files import is_first, remove_empty

_pressed = False


def remember_interrupts() -> None:
    """Has Ctrl-C be remembered from here on; it raises ``KeyboardInterrupt`` as before.

    Where another program handles it, or ignores it (``&`` of a shell), nothing changes.
    """
    global _pressed
    _pressed = False
    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if usual and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, _remember)


def _remember(number: int, frame: FrameType | None) -> None:
    global _pressed
    _pressed = True
    signal.default_int_handler(number, frame)


def was_interrupted() -> bool:
    """Whether Ctrl-C was pressed."""
    return _pressed


def stop_if_interrupted() -> None:
    """Raises the ``KeyboardInterrupt`` that was lost, if there was one."""
    if _pressed:
        raise KeyboardInterrupt


def end_stopped(error: BaseException, folder: Path | None = None, hint: str = "") -> NoReturn:
    """Ends a command after Ctrl-C with one line and exit code 130.

    A folder of the command that is empty is removed; without one, that which Hydra has just made.
    """
    for frame, _ in traceback.walk_tb(error.__traceback__ if folder is None else None):
        if frame.f_code.co_name == "run_job" and "output_dir" in frame.f_locals:
            folder = Path(frame.f_locals["output_dir"])
    if folder is not None:
        remove_empty(folder)
        hint = hint if folder.exists() else "nothing was written"
    if is_first():
        sys.stderr.write(f"\nstopped{hint and ': '}{hint}\n")
    if _while_importing(error):  # torch, half imported, can abort the process at its regular end
        sys.stderr.flush()
        os._exit(128 + signal.SIGINT)
    sys.exit(128 + signal.SIGINT)


def _while_importing(error: BaseException | None) -> bool:
    """Whether the code of a module, but for the program itself, was interrupted."""
    while error is not None:
        frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
        modules = (f.f_globals for f in frames if f.f_code.co_name == "<module>")
        if any(names.get("__name__") != "__main__" for names in modules):  # none in an exec
            return True
        error = error.__cause__ or error.__context__
    return False
