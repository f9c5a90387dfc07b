"""A process's own end and that of its children, and whether lack of memory was the cause."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # <sys/prctl.h>
OUT_OF_MEMORY = ("can't allocate memory", "bad_alloc", "out of memory", "not enough memory")  # allocators' words


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there was not enough memory, by its type or in an allocator's words."""
    text = str(error).lower()
    known = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"  # torch's, unloaded perhaps
    return known or any(words in text for words in OUT_OF_MEMORY)


def runs(process: psutil.Process) -> bool:
    """Whether a process has not ended; one that its parent has not fetched yet, which may take init a second, has."""
    import psutil

    try:
        return process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends (Linux; elsewhere nothing happens)."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def adopt_orphans() -> None:
    """Become the parent of all descendants whose own parent ends, so that none is lost (Linux; elsewhere nothing happens)."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(option, value)
