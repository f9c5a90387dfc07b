"""What Python code does to the files of a folder, seen as it happens.

:class:`Tap` hands every change that goes through ``open`` or ``os`` on as an operation (see :mod:`powercut`), before it happens;
:class:`Recorder` keeps them in order. A recording is complete if ``played`` makes the same folder of it.
"""

from __future__ import annotations

import builtins
import io
import os
from collections.abc import Callable
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

from powercut import Ack, Create, Link, Operation, Replace, Sync, SyncFolder, Truncate, Unlink, Write, read_folder

Around = Callable[[Operation, Callable[..., Any]], Any]


class Tap:
    """While it is open, every change that Python code makes to files of a folder goes through ``around``.

    ``around(operation, perform)`` gets the operation before it happens and must call ``perform()``, and return what that
    returns; for a :class:`Write` it can give ``perform`` other bytes. What C code writes (h5py into a file by name) is not
    seen as it happens: such a file is handed on as one :class:`Create` and :class:`Write` when Python next opens or renames it.

    Parameters
    ----------
    folder : path
        It must exist; files anywhere below it are watched.
    around : callable
        See above.
    """

    NAMES = ("open", "close", "write", "pwrite", "ftruncate", "truncate", "fsync", "fdatasync", "posix_fallocate")
    RENAMES = ("replace", "rename", "link", "unlink", "remove")

    def __init__(self, folder: Path, around: Around) -> None:
        self.folder = Path(os.path.realpath(folder))
        self.around = around
        self._real = {name: getattr(os, name) for name in self.NAMES + self.RENAMES if hasattr(os, name)}
        self._real_open = builtins.open
        self._paths: dict[int, str | None] = {}  # descriptor -> path in the folder; None once the name is gone
        self._flags: dict[int, int] = {}
        self._known = {str(p.relative_to(self.folder)) for p in self.folder.rglob("*") if p.is_file()}

    def __enter__(self) -> Tap:
        builtins.open = io.open = self._open_file  # type: ignore[assignment]
        for name in self._real:
            setattr(os, name, getattr(self, f"_{name}"))
        return self

    def __exit__(self, *_: object) -> None:
        builtins.open = io.open = self._real_open
        for name, function in self._real.items():
            setattr(os, name, function)

    def _path(self, file: Any, **at: Any) -> str | None:
        """Path in the folder, ``.`` for the folder itself, or None if it lies elsewhere."""
        if isinstance(file, int) or any(value is not None for value in at.values()):
            return None
        name = os.path.abspath(os.fsdecode(file))
        full = os.path.join(os.path.realpath(os.path.dirname(name)), os.path.basename(name))
        found = os.path.relpath(os.path.realpath(full) if os.path.isdir(full) else full, self.folder)
        return None if found == ".." or found.startswith("../") else found

    def _notice(self, path: str) -> None:
        """Hand on a file that somebody made unseen."""
        full = self.folder / path
        if path in self._known or not full.is_file():
            return
        self._known.add(path)
        self.around(Create(path), lambda: None)
        with io.FileIO(full) as file:
            data = file.readall()
        self.around(Write(path, 0, data), lambda data=data: len(data))

    # --- the functions of os

    def _opened(self, path: str, cut: bool, perform: Callable[[], int]) -> int:
        """Open for writing: what that changes by itself is a creation or a truncation, or nothing."""
        if not (self.folder / path).exists():
            self._known.add(path)
            return self.around(Create(path), perform)
        self._notice(path)
        return self.around(Truncate(path, 0), perform) if cut else perform()

    def _open(self, file: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        path = self._path(file, dir_fd=dir_fd)

        def perform() -> int:
            return self._real["open"](file, flags, mode, dir_fd=dir_fd)

        if path is None:
            return perform()
        writing = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        changes = writing and ((self.folder / path).exists() or flags & os.O_CREAT)
        descriptor = self._opened(path, bool(flags & os.O_TRUNC), perform) if changes else perform()
        self._paths[descriptor], self._flags[descriptor] = path, flags
        return descriptor

    def _close(self, descriptor: int) -> None:
        self._paths.pop(descriptor, None)
        self._real["close"](descriptor)

    def _write(self, descriptor: int, data: Any) -> int:
        appending = self._flags.get(descriptor, 0) & os.O_APPEND
        offset = os.fstat(descriptor).st_size if appending else None
        return self._written(descriptor, data, offset, lambda data: self._real["write"](descriptor, data))

    def _pwrite(self, descriptor: int, data: Any, offset: int) -> int:
        appending = self._flags.get(descriptor, 0) & os.O_APPEND  # Linux then ignores the offset: pwrite(2), BUGS
        start = os.fstat(descriptor).st_size if appending else offset
        return self._written(descriptor, data, start, lambda data: self._real["pwrite"](descriptor, data, offset))

    def _written(self, descriptor: int, data: Any, offset: int | None, write: Callable[[Any], int]) -> int:
        path = self._paths.get(descriptor)
        if path is None:
            return write(data)
        offset = os.lseek(descriptor, 0, os.SEEK_CUR) if offset is None else offset
        whole = bytes(data)
        count = self.around(Write(path, offset, whole), lambda data=whole: write(data))
        if self._flags.get(descriptor, 0) & (os.O_DSYNC | os.O_SYNC):
            self.around(Sync(path), lambda: None)
        return count

    def _ftruncate(self, descriptor: int, size: int) -> None:
        self._sized(self._paths.get(descriptor), size, lambda: self._real["ftruncate"](descriptor, size))

    def _truncate(self, file: Any, size: int) -> None:
        path = self._paths.get(file) if isinstance(file, int) else self._path(file)
        self._sized(path, size, lambda: self._real["truncate"](file, size))

    def _posix_fallocate(self, descriptor: int, offset: int, length: int) -> None:
        size = max(os.fstat(descriptor).st_size, offset + length)
        path = self._paths.get(descriptor)
        self._sized(path, size, lambda: self._real["posix_fallocate"](descriptor, offset, length))

    def _sized(self, path: str | None, size: int, perform: Callable[[], Any]) -> Any:
        return perform() if path is None else self.around(Truncate(path, size), perform)

    def _fsync(self, descriptor: Any, name: str = "fsync") -> None:
        number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        path = self._paths.get(number)
        if path is None:
            self._real[name](number)
        elif (self.folder / path).is_dir():
            self.around(SyncFolder(path), lambda: self._real[name](number))
        else:
            self.around(Sync(path), lambda: self._real[name](number))

    def _fdatasync(self, descriptor: Any) -> None:
        self._fsync(descriptor, "fdatasync")

    def _replace(self, source: Any, target: Any, **at: Any) -> None:
        old, new = self._path(source, **at), self._path(target, **at)
        if old is None or new is None or not (self.folder / old).exists() or self._same(old, new):
            self._real["replace"](source, target, **at)
            return
        self._notice(old)
        self.around(Replace(old, new), lambda: self._real["replace"](source, target, **at))
        self._known.discard(old)
        self._known.add(new)
        moved = {new: None, old: new}
        self._paths = {number: moved.get(path, path) if path else path for number, path in self._paths.items()}

    _rename = _replace

    def _same(self, old: str, new: str) -> bool:
        """Whether both are names of one file: then a rename does nothing (rename(2))."""
        target = self.folder / new
        return target.exists() and os.path.samefile(self.folder / old, target)

    def _link(self, source: Any, target: Any, **options: Any) -> None:
        old, new = self._path(source), self._path(target)
        if old is None or new is None or (self.folder / new).exists():
            self._real["link"](source, target, **options)
            return
        self._notice(old)
        self.around(Link(old, new), lambda: self._real["link"](source, target, **options))
        self._known.add(new)

    def _unlink(self, file: Any, *, dir_fd: int | None = None) -> None:
        path = self._path(file, dir_fd=dir_fd)
        if path is None or not os.path.lexists(self.folder / path):
            self._real["unlink"](file, dir_fd=dir_fd)
            return
        self._notice(path)
        self.around(Unlink(path), lambda: self._real["unlink"](file, dir_fd=dir_fd))
        self._known.discard(path)
        self._paths = {number: None if name == path else name for number, name in self._paths.items()}

    _remove = _unlink

    # --- open()

    def _open_file(
        self,
        file: Any,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        closefd: bool = True,
        opener: Any = None,
    ) -> Any:
        path = self._paths.get(file) if isinstance(file, int) else self._path(file)
        if path is None or not set(mode) & set("wax+"):
            return self._real_open(file, mode, buffering, encoding, errors, newline, closefd, opener)
        raw = _Raw(self, file, path, mode.replace("b", "").replace("t", ""), closefd, opener)
        if buffering == 0:
            return raw
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        if "b" in mode:
            return buffered
        return io.TextIOWrapper(buffered, encoding, errors, newline, line_buffering=buffering == 1)


class _Raw(io.FileIO):
    """The lowest layer of a file that was opened with ``open``."""

    def __init__(self, tap: Tap, file: Any, path: str, mode: str, closefd: bool, opener: Any) -> None:
        self.tap = tap

        def perform() -> int:
            super(_Raw, self).__init__(file, mode, closefd, opener)
            return self.fileno()

        if isinstance(file, int):
            perform()
        else:
            exists = (tap.folder / path).exists()
            changes = exists or set(mode) & set("wax")
            descriptor = tap._opened(path, "w" in mode, perform) if changes else perform()
            tap._paths[descriptor], tap._flags[descriptor] = path, os.O_APPEND if "a" in mode else 0

    def write(self, data: Any) -> int:
        offset = os.fstat(self.fileno()).st_size if "a" in self.mode else None
        return self.tap._written(self.fileno(), data, offset, super().write)

    def truncate(self, size: int | None = None) -> int:
        wanted = self.tell() if size is None else size
        truncate = super().truncate
        self.tap._sized(self.tap._paths.get(self.fileno()), wanted, lambda: truncate(wanted))
        return wanted

    def close(self) -> None:
        if not self.closed and self.closefd:
            self.tap._paths.pop(self.fileno(), None)
        super().close()


class Recorder(Tap):
    """Keeps what happened to a folder: ``files`` before, ``operations`` since.

    Examples
    --------
    >>> with Recorder(folder) as recorder:
    ...     (folder / "a").write_bytes(b"x")
    >>> recorder.operations
    [Create(path='a'), Write(path='a', offset=0)]
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, self._record)
        self.files = read_folder(folder)
        self.operations: list[Operation] = []

    def _record(self, operation: Operation, perform: Callable[..., Any]) -> Any:
        result = perform()
        if isinstance(operation, Write):
            operation = changed(operation, data=operation.data[:result])  # a write can be short
        self.operations.append(operation)
        return result

    def ack(self, number: int) -> None:
        """The program is told here that its first ``number`` records are kept."""
        self.operations.append(Ack(number))
