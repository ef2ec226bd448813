"""Ctrl-C that no library can lose.

A ``KeyboardInterrupt`` that is raised inside a library's clean-up can become another exception
there, or be lost: the program runs on as if nothing had been pressed. While torch is imported it
aborts the process; one that is pressed in an import is raised after it, or when pressed again.
"""

import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from types import FrameType
from typing import NoReturn

from energy_at.core.files import is_first, remove_empty

_pressed = False
_waits = False  # for the end of an import


def remember_interrupts() -> None:
    """Has Ctrl-C be remembered from here on; it raises ``KeyboardInterrupt`` as before.

    Where another program handles it, or ignores it (``&`` of a shell), nothing changes.
    """
    global _pressed, _waits
    _pressed = _waits = False
    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if usual and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, _remember)


def _remember(number: int, frame: FrameType | None) -> None:
    global _pressed, _waits
    _pressed = True
    if _waits or not _imports(frame):
        signal.default_int_handler(number, frame)
    _waits = True
    threading.Thread(target=_press_again, daemon=True).start()


def _imports(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code.co_filename != "<frozen importlib._bootstrap>":
        frame = frame.f_back
    return frame is not None


def _press_again() -> None:
    """Presses Ctrl-C again when imports have ended, unless the command ends already."""
    global _waits
    main = threading.main_thread().ident or 0
    while _waits and _imports(sys._current_frames().get(main)):
        time.sleep(0.02)
    if _waits:
        _waits = False
        signal.pthread_kill(main, signal.SIGINT)


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
    global _waits
    _waits = False
    for frame, _ in traceback.walk_tb(error.__traceback__ if folder is None else None):
        if frame.f_code.co_name == "run_job" and "output_dir" in frame.f_locals:
            folder = Path(frame.f_locals["output_dir"])
    if folder is not None:
        remove_empty(folder)
        hint = hint if folder.exists() else "nothing was written"
    if is_first():
        sys.stderr.write(f"\nstopped{hint and ': '}{hint}\n")
    sys.exit(128 + signal.SIGINT)
