"""Keep memory that a process has freed."""

import ctypes
import platform

# parameters of glibc's mallopt
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
_ROOM = 256 << 20  # by which the heap grows beyond a request, so that aligned blocks fit again
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Make the C library keep freed blocks for the next step instead of unmapping them.

    glibc maps every block of 32 MiB or more anew, and the kernel zeroes it page by page; the
    activations of a training step at full size are such blocks. Computed values do not change.

    Returns:
        Whether the C library supports it.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    parameters = {_ARENA_MAX: 1, _MMAP_MAX: 0, _TRIM_THRESHOLD: _NEVER, _TOP_PAD: _ROOM}
    results = [bool(library.mallopt(*item)) for item in parameters.items()]
    return all(results)
