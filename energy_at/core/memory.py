"""What a process does with memory that it has freed, and how much it holds."""

import ctypes
import platform
from pathlib import Path

# parameters of glibc's mallopt
_TRIM, _PAD, _MMAP_MOST, _ARENAS = -1, -2, -4, -8
_ROOM = 256 << 20  # by which the heap grows beyond a request, so that aligned blocks fit again
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Makes the C library keep freed blocks for the next step instead of unmapping them.

    glibc maps every block of 32 MiB and more anew, and the kernel fills it with zeros page by page;
    activations of a training step at full size are such blocks. The values computed are the same.

    Returns:
        Whether the C library is one that can be told so.
    """
    return _set({_ARENAS: 1, _MMAP_MOST: 0, _TRIM: _NEVER, _PAD: _ROOM})


def resident() -> int | None:
    """Bytes that the process holds now; ``None`` where the system does not tell."""
    return _status("VmRSS")


def peak_resident() -> int | None:
    """The most bytes that it has held since ``forget_peak``; ``None`` where nobody tells."""
    return _status("VmHWM")


def forget_peak() -> None:
    """Counts the peak from here, after what was freed is given back."""
    if _is_glibc():
        ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _set(parameters: dict[int, int]) -> bool:
    if not _is_glibc():
        return False
    library = ctypes.CDLL(None)
    done = [bool(library.mallopt(*item)) for item in parameters.items()]
    return all(done)


def _is_glibc() -> bool:
    return platform.libc_ver()[0] == "glibc"


def _status(name: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith(f"{name}:")]
    return 1024 * int(found[0]) if found else None
