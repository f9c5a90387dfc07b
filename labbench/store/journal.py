r"""An append-only journal of JSON lines with checksums: what makes an acknowledged record survive ``kill -9``.

Each line is ``<crc32 of the body, 8 hex digits> <body>\n``. A line that was cut short by a crash fails its checksum and
was never acknowledged; it is dropped when the next writer opens the journal. HDF5 alone offers no such thing: a
writer killed between two flushes leaves columns of unequal length, and SWMR leaves a flag that blocks the file.
"""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from typing import Any

CHECKSUM_DIGITS = 8


def read(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Entries of a journal, and the number of bytes up to the end of the last intact one.

    Raises
    ------
    ValueError
        If an entry before the last one is damaged: that is no torn write, and must not pass silently.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return [], 0
    entries: list[dict[str, Any]] = []
    start = 0
    while (end := data.find(b"\n", start)) >= 0:
        body = data[start + CHECKSUM_DIGITS + 1 : end]
        if data[start : start + CHECKSUM_DIGITS] != _checksum(body):
            if end + 1 < len(data):
                raise ValueError(f"{path}: the entry at byte {start} is damaged; records after it were not read")
            break
        entries.append(json.loads(body))
        start = end + 1
    return entries, start


def _checksum(body: bytes) -> bytes:
    return b"%08x" % zlib.crc32(body)


class Journal:
    """An open journal; every :meth:`append` is on the disk when it returns."""

    def __init__(self, path: Path) -> None:
        self.entries, intact = read(path)
        self._file = open(path, "ab")  # noqa: SIM115 - open as long as the journal
        self._file.truncate(intact)
        self._file.seek(intact)

    def append(self, *entries: dict[str, Any]) -> None:
        """Add entries in one write, and wait until they are on the disk."""
        lines = []
        for entry in entries:
            body = json.dumps(entry, separators=(",", ":"), allow_nan=False).encode()
            lines.append(_checksum(body) + b" " + body + b"\n")
        start = self._file.tell()
        try:
            self._file.write(b"".join(lines))
            self._file.flush()
            os.fdatasync(self._file.fileno()) if hasattr(os, "fdatasync") else os.fsync(self._file.fileno())
        except OSError:
            self._file.truncate(start)
            raise
        self.entries.extend(entries)

    def clear(self) -> None:
        """Forget everything: the entries are safe elsewhere."""
        self._file.truncate(0)
        self._file.seek(0)
        os.fsync(self._file.fileno())
        self.entries = []

    def close(self) -> None:
        """Close the file."""
        self._file.close()
