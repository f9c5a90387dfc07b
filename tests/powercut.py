"""What a power cut can leave of a folder, whatever a program did to it until then.

:func:`crashes` plays every prefix of a sequence of disk operations (:class:`disktap.Recorder` takes one down) and gives the
states in which the folder can be found when the power fails there::

    Create j   Write j   Sync j   SyncFolder .   Ack 1   Write j   Sync j   Ack 2
             ^         ^        ^              ^       ^ the power can fail at each of these places

What the model promises is what POSIX promises and no more: contents are on the disk once ``fsync(file)`` has returned, names
(created, replaced, removed) once ``fsync(folder)`` has; anything newer is there, or not, each operation by itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from dataclasses import replace as changed
from pathlib import Path, PurePosixPath


@dataclass(frozen=True)
class Create:
    """A new, empty file."""

    path: str


@dataclass(frozen=True)
class Write:
    """Bytes into a file, from an offset on; a gap before them reads as zeros."""

    path: str
    offset: int
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class Truncate:
    """A file cut to a size, or grown to it with zeros."""

    path: str
    size: int


@dataclass(frozen=True)
class Sync:
    """``fsync`` or ``fdatasync`` of a file."""

    path: str


@dataclass(frozen=True)
class Replace:
    """A file renamed, over another one if there is one."""

    source: str
    target: str


@dataclass(frozen=True)
class Link:
    """A second name for a file."""

    source: str
    target: str


@dataclass(frozen=True)
class Unlink:
    """A name removed."""

    path: str


@dataclass(frozen=True)
class SyncFolder:
    """``fsync`` of a folder."""

    folder: str


@dataclass(frozen=True)
class Ack:
    """The program was told that its first ``number`` records are kept."""

    number: int


Operation = Create | Write | Truncate | Sync | Replace | Link | Unlink | SyncFolder | Ack
Files = dict[str, bytes]


@dataclass(frozen=True)
class Crash:
    """A state in which a power cut can leave the folder.

    Attributes
    ----------
    after : int
        Operations that the program had done.
    variant : str
        What became of those not yet synced.
    acknowledged : int
        Records that must be there.
    files : dict
        Path in the folder to content.
    """

    after: int
    variant: str
    acknowledged: int
    files: Files = field(repr=False)

    @property
    def key(self) -> str:
        """Hash of the folder's state: crashes of equal key find the same files."""
        found = hashlib.sha256()
        for path in sorted(self.files):
            found.update(f"{path}\0{len(self.files[path])}\0".encode() + self.files[path])
        return found.hexdigest()


@dataclass(frozen=True)
class _Names:
    """A change of the folder: names that now lead to a file (by number), names that are gone."""

    folder: str
    now: dict[str, int]
    gone: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Content:
    """A change of a file's content: a write, or (``data`` is None) a new size."""

    file: int
    offset: int
    data: bytes | None = field(repr=False)


_Change = _Names | _Content


class _Disk:
    """What is on the disk for certain, and what is on its way."""

    def __init__(self, files: Files) -> None:
        self.names = {path: number for number, path in enumerate(files)}
        self.data = dict(enumerate(files.values()))
        self.live = dict(self.names)  # names as the running program sees them
        self.pending: list[tuple[Operation, _Change]] = []

    def do(self, operation: Operation) -> None:
        match operation:
            case Create(path):
                number = len(self.data)
                self.data[number] = b""
                self._rename(operation, {path: number})
            case Write(path, offset, data):
                self.pending.append((operation, _Content(self.live[path], offset, data)))
            case Truncate(path, size):
                self.pending.append((operation, _Content(self.live[path], size, None)))
            case Replace(source, target):
                if _folder(source) != _folder(target):
                    raise NotImplementedError(f"{source} -> {target}: renames between folders are not modelled")
                self._rename(operation, {target: self.live[source]}, (source,))
            case Link(source, target):
                self._rename(operation, {target: self.live[source]})
            case Unlink(path):
                self._rename(operation, {}, (path,))
            case Sync(path):
                number = self.live[path]
                self._settle(lambda change: isinstance(change, _Content) and change.file == number)
            case SyncFolder(folder):
                self._settle(lambda change: isinstance(change, _Names) and change.folder == folder)

    def _rename(self, operation: Operation, now: dict[str, int], gone: tuple[str, ...] = ()) -> None:
        change = _Names(_folder(*now, *gone), now, gone)
        _apply(change, self.live, {})
        self.pending.append((operation, change))

    def _settle(self, reached: Callable[[_Change], bool]) -> None:
        """These changes are on the disk from now on."""
        for _, change in self.pending:
            if reached(change):
                _apply(change, self.names, self.data)
        self.pending = [item for item in self.pending if not reached(item[1])]

    def found(self, changes: Iterable[_Change]) -> Files:
        """The folder after a restart, if of all that was on its way just these changes have arrived."""
        names, data = dict(self.names), dict(self.data)
        for change in changes:
            _apply(change, names, data)
        return {path: data[number] for path, number in names.items()}

    def variants(self) -> Iterator[tuple[str, Files]]:
        """All that is on its way arrives, nothing does, all but one operation, one alone, the last write in part."""
        changes = [change for _, change in self.pending]
        yield "unsynced lost", self.found([])
        if not changes:
            return
        yield "all applied", self.found(changes)
        if len(changes) > 1:
            for i, (operation, change) in enumerate(self.pending):
                yield f"without {operation}", self.found(changes[:i] + changes[i + 1 :])
                yield f"only {operation}", self.found([change])
        writes = [i for i, change in enumerate(changes) if isinstance(change, _Content) and change.data]
        if writes:
            last = writes[-1]
            write = changes[last]
            assert isinstance(write, _Content)
            assert write.data is not None
            for how, part in _torn(write.data).items():
                torn = changed(write, data=part)
                yield f"{how} of {self.pending[last][0]}", self.found([*changes[:last], torn, *changes[last + 1 :]])
                yield f"nothing but {how} of {self.pending[last][0]}", self.found([torn])


def _folder(*paths: str) -> str:
    return str(PurePosixPath(paths[0]).parent)


def _torn(data: bytes) -> dict[str, bytes]:
    """What can be there of a write that the power cut through: sectors reach the disk in any order."""
    half = len(data) // 2
    return {
        "half": data[:half],
        "half and zeros": data[:half] + bytes(len(data) - half),
        "zeros and half": bytes(half) + data[half:],
    }


def _apply(change: _Change, names: dict[str, int], data: dict[int, bytes]) -> None:
    if isinstance(change, _Names):
        for path in change.gone:
            names.pop(path, None)
        names.update(change.now)
        return
    old = data[change.file]
    if change.data is None:
        data[change.file] = old[: change.offset].ljust(change.offset, b"\0")
    else:
        end = change.offset + len(change.data)
        data[change.file] = old[: change.offset].ljust(change.offset, b"\0") + change.data + old[end:]


def crashes(operations: Iterable[Operation], files: Files | None = None) -> Iterator[Crash]:
    """Every state in which a power cut can leave a folder that held ``files``, at any place in the sequence.

    At each place: nothing unsynced has arrived; all of it; all but one operation; one operation alone; and the last
    write in part (half of it, half with zeros for the rest, zeros for the first half), with the others and without them.
    """
    disk = _Disk(files or {})
    acknowledged = 0
    for after, operation in enumerate((None, *operations)):
        if isinstance(operation, Ack):
            acknowledged = operation.number
        elif operation is not None:
            disk.do(operation)
        for variant, found in disk.variants():
            yield Crash(after, variant, acknowledged, found)


def played(operations: Iterable[Operation], files: Files | None = None) -> Files:
    """The folder after the whole sequence, without a crash."""
    disk = _Disk(files or {})
    for operation in operations:
        disk.do(operation)
    return disk.found([change for _, change in disk.pending])


def read_folder(folder: Path) -> Files:
    """Path in the folder to content, for every file in it."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def write_folder(folder: Path, files: Files) -> None:
    """Make the folder hold these files and no others."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in read_folder(folder).keys() - files.keys():
        (folder / path).unlink()
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
