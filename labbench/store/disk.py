"""The few ways in which the store changes the disk; every write of a database goes through here.

That is what makes the power-cut simulation of ``benchmarks/store_powercut.py`` possible: it records these calls.
"""

from __future__ import annotations

import glob
import os
import sys
from pathlib import Path


def create(path: Path) -> int:
    """Open a new, empty file (an old one is emptied) for writing; returns its descriptor."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)


def reopen(path: Path) -> int:
    """Open an existing file for writing; returns its descriptor."""
    return os.open(path, os.O_RDWR | os.O_CLOEXEC)


def write(descriptor: int, data: bytes, at: int) -> None:
    """Write all of ``data`` at a position."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, at)
        view, at = view[written:], at + written


def truncate(descriptor: int, size: int) -> None:
    """Cut a file short."""
    os.ftruncate(descriptor, size)


def sync(descriptor: int) -> None:
    """Return when the file's content is on the disk."""
    if sys.platform == "darwin":  # there, fsync leaves it in the drive's cache (fsync(2) of macOS)
        import fcntl

        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        getattr(os, "fdatasync", os.fsync)(descriptor)


def replace(source: Path, target: Path) -> None:
    """Put a file in another's place, in one step."""
    os.replace(source, target)


def keep(source: Path, target: Path) -> None:
    """Give a file a second name; on a file system without hard links, copy it."""
    try:
        os.link(source, target)
    except OSError:
        write_whole(target, source.read_bytes())


def real(path: str | Path) -> Path:
    """The file that a path leads to: a symbolic link stays one when the file is replaced, and both names have one journal."""
    path = Path(path)
    return path.resolve() if path.is_symlink() else path


def remove(path: Path) -> None:
    """Delete a file, if it is there."""
    path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Return when creations, renames and deletions in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(path: Path) -> None:
    """Delete what :func:`write_whole` left unfinished when its process was killed. Only for who holds the lock."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        remove(left)


def write_whole(path: Path, data: bytes) -> None:
    """Replace a file's content in one step that survives a power cut: write beside it, sync, rename, sync the folder."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    descriptor = None
    try:
        descriptor = create(temporary)
        write(descriptor, data, 0)
        sync(descriptor)
        replace(temporary, path)
    except BaseException:
        remove(temporary)
        raise
    finally:
        if descriptor is not None:
            os.close(descriptor)
    sync_folder(path.parent)
