r"""An append-only journal of JSON lines with checksums: what makes an acknowledged record survive ``kill -9``.

Each line is ``<length> <crc32> <number> <type> <JSON>\n``: length and CRC-32 of the rest of the line (8 hex digits each), a
number that counts all entries a database ever had, and ``record``, ``environment`` or ``baseline``. Of entries that were written
at once the number is ``<number>:<number of the first>``. The first line, of type ``journal``, says which entry was the last
before it. Behind the last entry the file may hold zeros: room made in advance, because overwriting is made durable in about
half the time that growing takes.

An entry that a crash cut short fails its checksum; it was never acknowledged and is dropped when the next writer opens the journal.
Why not HDF5 alone, or its SWMR mode: ``docs/store.md``.
"""

from __future__ import annotations

import json
import os
import re
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from labbench.records import SCHEMA_VERSION
from labbench.store import disk
from labbench.store.errors import StoreError, damaged

HEADER = 18  # bytes of "<length> <crc32> "
ROOM = 1 << 20  # bytes of zeros made in advance: a few hundred records
BEFORE_ENTRY = re.compile(rb"[\n\0](?=[0-9a-f]{8} [0-9a-f]{8} )")  # a line, or a hole that a power cut left
FIRST_LINE_OF_SCHEMA_1 = b'{"type":'  # after its checksum; it had no length


class Entry(NamedTuple):
    """One thing that was appended, as JSON, and the number of the first thing that was written together with it."""

    number: int
    type: str
    text: str
    first: int


class Gap(NamedTuple):
    """A stretch of a journal that is no intact entry."""

    at: int
    size: int
    last: bool  # nothing intact follows


@dataclass
class Log:
    """What a journal holds.

    Attributes
    ----------
    entries : list of Entry
        The intact ones.
    damage : bytes
        What is there besides.
    lost : bool
        Whether intact entries follow the damage: after a power cut, where nobody waited for the disk.
    version : int
        Schema of the writer.
    end, inode : int
        Where the intact entries at the start end, and the file's number: what :func:`read_on` needs.
    """

    entries: list[Entry] = field(default_factory=list)
    damage: bytes = b""
    lost: bool = False
    version: int = SCHEMA_VERSION
    end: int = 0
    inode: int = -1


def read(path: Path) -> Log:
    """The entries of a journal; none if there is no such file.

    Raises
    ------
    StoreError
        If an entry before those that were written last is damaged (that is no torn write, and must not pass silently, unless
        its writer chose not to wait for the disk), or the journal is a newer version's.
    """
    try:
        with path.open("rb") as file:
            inode, data = os.fstat(file.fileno()).st_ino, file.read()
    except FileNotFoundError:
        return Log()
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from None
    if is_schema_1(data):
        from labbench.store.migrate import read_journal_of_schema_1

        return Log(*read_journal_of_schema_1(path, data), version=1)
    log, durable = Log(end=len(data.rstrip(b"\0")), inode=inode), True
    last: int | None = None  # number of the last entry before a gap
    gap: Gap | None = None
    for found in salvage(data):
        if isinstance(found, Gap):
            gap = gap or found
            log.end = gap.at
            log.damage += data[found.at : found.at + found.size]
            continue
        if gap is not None and (last is None or found.first > last + 1):  # the gap was not in the last write
            if durable:
                raise damaged(path.with_suffix(""), f"its journal, from byte {gap.at} on,")
            log.lost = True
        if found.type == "journal":
            log.version, durable = schema_of(path, found), is_durable(found)
        else:
            log.entries.append(found)
        last = last if gap is not None else found.number
    return log


def read_on(path: Path, before: Log) -> Log | None:
    """Only the entries that came after what was read ``before``; None if that cannot be told: read it all then."""
    try:
        with path.open("rb") as file:
            if before.damage or os.fstat(file.fileno()).st_ino != before.inode:
                return None
            file.seek(before.end)
            data = file.read()
    except OSError:
        return None
    log = Log(end=before.end + len(data.rstrip(b"\0")), inode=before.inode)
    for found in salvage(data):
        if isinstance(found, Gap):  # an entry in the making, if nothing follows
            if not found.last:
                return None
            log.end = before.end + found.at
        else:
            log.entries.append(found)
    return log


def is_schema_1(data: bytes) -> bool:
    """Whether these are the lines of a journal before there were numbers and lengths."""
    return data[9:].startswith(FIRST_LINE_OF_SCHEMA_1)


def schema_of(path: Path, first: Entry) -> int:
    """The schema that the first entry of a journal states; raises ``StoreError`` if it is newer than we are."""
    version = int(json.loads(first.text)["schema_version"])
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"{path} has schema {version}; this labbench reads up to {SCHEMA_VERSION}: install a newer labbench"
        )
    return version


def is_durable(first: Entry) -> bool:
    """Whether the writer that began a journal waited for the disk."""
    return bool(json.loads(first.text)["durable"])


def _entry(data: bytes, start: int) -> tuple[Entry, int] | None:
    """The entry at ``start`` and where the next one begins; None if there is no intact one."""
    try:
        length = int(data[start : start + 8], 16)
    except ValueError:
        return None
    body = data[start + HEADER : start + HEADER + length]
    if not body or data[start : start + HEADER] != header(body):
        return None
    numbers, kind, text = body.split(b" ", 2)
    number, _, first = numbers.partition(b":")
    entry = Entry(int(number), kind.decode(), text.decode().rstrip("\n"), int(first or number))
    return entry, start + HEADER + length


def _next_entry(data: bytes, start: int) -> int | None:
    """Where the first intact entry at or after ``start`` begins."""
    places = (found.end() for found in BEFORE_ENTRY.finditer(data, max(start - 1, 0)))
    return next((place for place in places if _entry(data, place) is not None), None)


def salvage(data: bytes) -> Iterator[Entry | Gap]:
    """Every intact entry (the first, of type ``journal``, too), and the stretches of something else."""
    at, end = 0, len(data.rstrip(b"\0"))
    while at < end:
        found = _entry(data, at)
        if found is None:
            following = _next_entry(data, at + 1)
            yield Gap(at, (following or end) - at, last=following is None)
            at = following or end
        else:
            entry, at = found
            yield entry


def header(body: bytes) -> bytes:
    """What stands before the rest of a line."""
    return b"%08x %08x " % (len(body), zlib.crc32(body))


def line(entry: Entry) -> bytes:
    """An entry as it stands in the file."""
    number = f"{entry.number}" if entry.first == entry.number else f"{entry.number}:{entry.first}"
    body = f"{number} {entry.type} {entry.text}\n".encode()
    return header(body) + body


def set_aside(path: Path, damage: bytes) -> None:
    """Keep, out of the way, what was never acknowledged or is damaged, before its journal goes."""
    if damage:
        path.with_name(f"{path.name}.torn-{time.time_ns()}").write_bytes(damage)


class Journal:
    """The journal of a database that is open for writing.

    Parameters
    ----------
    path : path
        Where it will be, from the first :meth:`append` on.
    last : int
        Number of the last entry before.
    durable : bool
        Whether :meth:`append` returns only when the disk has the entries.
    """

    def __init__(self, path: Path, last: int, *, durable: bool) -> None:
        self.path, self.last, self.durable = path, last, durable
        self.count = 0
        self._descriptor: int | None = None
        self._end = self._size = 0

    def append(self, entries: list[tuple[str, str]]) -> None:
        """Add entries of given type and text in one write; when it fails (``OSError``), none of them is there."""
        if self._descriptor is None:
            self._start()
        assert self._descriptor is not None
        first = self.last + 1
        data = b"".join(line(Entry(first + i, kind, text, first)) for i, (kind, text) in enumerate(entries))
        if self._end + len(data) > self._size:
            self._make_room(len(data))
        try:
            disk.write(self._descriptor, data, self._end)
            if self.durable:
                disk.sync(self._descriptor)
        except OSError:
            disk.truncate(self._descriptor, self._end)
            self._size = self._end
            raise
        self._end += len(data)
        self._size = max(self._size, self._end)
        self.last += len(entries)
        self.count += len(entries)

    def _start(self) -> None:
        """A new file that says which entry was the last before it, put in the old one's place."""
        about = json.dumps({"schema_version": SCHEMA_VERSION, "durable": self.durable})
        head = line(Entry(self.last, "journal", about, self.last))
        disk.write_whole(self.path, head)
        self._descriptor = disk.reopen(self.path)
        self._end = self._size = len(head)

    def _make_room(self, needed: int) -> None:
        """Zeros behind the end, if the disk has them to spare."""
        assert self._descriptor is not None
        if not self.durable:
            return
        try:
            disk.write(self._descriptor, bytes(needed + ROOM), self._end)
            disk.sync(self._descriptor)
            self._size = self._end + needed + ROOM
        except OSError:
            disk.truncate(self._descriptor, self._end)

    def restart(self, last: int) -> None:
        """Begin anew after entry ``last``: all up to it are safe elsewhere. Who reads the old file goes on reading it."""
        self.close()
        self.last, self.count = last, 0
        disk.remove(self.path)

    def close(self) -> None:
        """Close the file; room behind the end is given back."""
        if self._descriptor is not None and self._size > self._end:
            disk.truncate(self._descriptor, self._end)
        self.drop()

    def drop(self) -> None:
        """Close the file as it is."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)
