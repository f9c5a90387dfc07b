"""Peak memory of a stretch of work, a cheap look at another process's memory, and a heap that behaves the same in every process."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


# <malloc.h>: parameters of mallopt, and the largest values it takes.
M_TRIM_THRESHOLD, LARGEST_TRIM = -1, 2**31 - 1
M_MMAP_THRESHOLD, LARGEST_MMAP = -3, 32 * 2**20
SMALL_BLOCK = 64 * 2**10  # bytes: smaller blocks than this are too many to map one by one, and take little together


def keep_heap() -> None:
    """Let this process keep the memory that it frees, as far as glibc can be told to; nothing elsewhere.

    By default glibc gives the top of the heap back when enough of it is free, and the next call faults it in again: or not,
    depending on where a process's allocations happened to land. Of identical processes of one model (clap-tiny) some
    took 4.6 ms and no page fault a call, others 7 ms and 900. That lottery must not be taken for a difference.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP)
        libc.mallopt(M_TRIM_THRESHOLD, LARGEST_TRIM)


def return_heap() -> bool:
    """Let every block of some size go back to the system when it is freed; tells whether that can be had (glibc).

    What is resident then is what lives, if no holes are there yet. A heap that keeps holes, as glibc's does otherwise, took up to
    half as much again, and not the same in every process.
    """
    return platform.libc_ver()[0] == "glibc" and bool(ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, SMALL_BLOCK))


def release_garbage() -> None:
    """Give back what is free, so that leftovers of loading and compiling do not count as the need of a call."""
    gc.collect()
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


@dataclass
class Peak:
    """Result of :func:`peak`: ``bytes`` is None where there is a ``reason``."""

    bytes: int | None = None
    method: str | None = None
    reason: str | None = None


def rss_of(pid: int) -> int | None:
    """Resident memory of a process in bytes; None if it is gone or the system does not tell."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES
    except (OSError, IndexError):
        pass
    import psutil

    try:
        rss: int = psutil.Process(pid).memory_info().rss
    except psutil.Error:
        return None
    return rss


def current_bytes(device: str) -> int:
    """Memory in use now: resident (CPU), or allocated by torch on the accelerator."""
    if device.startswith("cpu"):
        return rss_of(os.getpid()) or 0
    import torch

    used: int = torch.accelerator.memory_allocated()
    return used


def _status_bytes(field: str) -> int:
    """A field of /proc/self/status that is given in kB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"no {field} in /proc/self/status")


@contextmanager
def peak(device: str) -> Iterator[Peak]:
    """Record the highest memory in use while the block runs.

    On the CPU the kernel's high-water mark of resident memory is reset first (``/proc/self/clear_refs``, proc(5)) and read
    after; on an accelerator torch's allocator does the same. Where the mark cannot be reset there is a reason instead.
    """
    found = Peak()
    if not device.startswith("cpu"):
        import torch

        torch.accelerator.reset_peak_memory_stats()
        yield found
        found.bytes, found.method = torch.accelerator.max_memory_allocated(), "torch allocator"
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError as error:
        found.reason = f"the peak of resident memory cannot be reset here: /proc/self/clear_refs: {error.strerror}"
    yield found
    if found.reason is None:
        found.bytes, found.method = _status_bytes("VmHWM"), "VmHWM after clear_refs"
