"""Memory that is no longer in use goes back to the system: glibc keeps it, in several heaps for each core."""

import ctypes
from contextlib import suppress


def keep_together() -> bool:
    """Let all threads take memory from two heaps instead of several a core; whether that could be asked for.

    Each heap keeps what it once had for a large picture. To be called before there are threads.
    """
    return _glibc("mallopt", -8, 2)  # M_ARENA_MAX of its malloc.h


def give_back() -> bool:
    """Return memory that is no longer in use to the system; whether any was."""
    return _glibc("malloc_trim", 0)


def _glibc(function: str, *arguments: int) -> bool:
    with suppress(OSError, AttributeError):  # another C library
        return getattr(ctypes.CDLL("libc.so.6"), function)(*arguments) == 1
    return False
