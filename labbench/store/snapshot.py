"""A consistent view of a database at one moment: the HDF5 file plus the journal's entries that are not in it yet."""

from __future__ import annotations

import json
import os
import time
import warnings
from collections import Counter, deque
from collections.abc import Iterable
from functools import cache, cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from labbench.records import FIRST_LASTING_SCHEMA
from labbench.store import journal, lock
from labbench.store.columns import record_columns
from labbench.store.errors import StoreError, StoreWarning
from labbench.store.hdf5 import File
from labbench.store.journal import Entry
from labbench.store.table import Builder, Contents, Joined, Source, Table, Values, gather

TICK_NS = (
    50_000_000  # file systems tell the time of a change in steps of 1 to 10 ms, and the journal grows within its room
)


class Retractions(NamedTuple):
    """Rows that a reader does not want to see, and why records were taken back (record id to reason)."""

    rows: np.ndarray
    reasons: dict[str, str]


class Snapshot:
    """A :class:`~labbench.store.table.Source` of everything acknowledged when it was taken.

    Parameters
    ----------
    base : File or Contents
        What was folded, read when it is asked for.
    tail : Contents
        What was still in the journal.
    state, log : State, Log
        What the files looked like when it was taken, and how far the journal was read.
    """

    def __init__(
        self, base: File | Contents, tail: Contents, state: State | None = None, log: journal.Log | None = None
    ) -> None:
        self.base, self.tail, self.state, self.log = base, tail, state, log
        source: Source = Joined(base, tail) if len(tail) else base
        self.column, self.samples = source.column, source.samples
        self.first_series, self.first_sample = source.first_series, source.first_sample

    def __len__(self) -> int:
        return len(self.first_series) - 1

    @cached_property
    def environments(self) -> dict[str, str]:
        """Environment id to JSON."""
        return self.base.environments | self.tail.environments

    @cached_property
    def baselines(self) -> Table:
        """Every pin, oldest first."""
        return self.base.baselines + self.tail.baselines

    def record_column(self, name: str, rows: np.ndarray | None = None) -> Values:
        """A column of the records table by its stored name."""
        column = next(c for c in record_columns() if c.name == name)
        return self.column("records", column, rows)

    @cached_property
    def record_ids(self) -> np.ndarray:
        """Id of each record, as bytes."""
        return np.concatenate([self.base.record_ids, self.tail.record_ids]) if len(self.tail) else self.base.record_ids

    @cached_property
    def _tail_rows(self) -> dict[str, int]:
        before = len(self) - len(self.tail)
        return {key.decode(): before + i for i, key in enumerate(self.tail.record_ids.tolist())}

    def find(self, record_ids: Iterable[str]) -> np.ndarray:
        """Rows of the records with the given ids, ascending; ids that are not there are left out."""
        ids = list(record_ids)
        tail = np.array([self._tail_rows[key] for key in ids if key in self._tail_rows], dtype=np.int64)
        return np.concatenate([self.base.find(ids), np.unique(tail)])

    def known(self, record_ids: Iterable[str]) -> list[str]:
        """Those of the ids that are there."""
        return [key.decode() for key in self.record_ids[self.find(record_ids)].tolist()]

    def contents(self, rows: np.ndarray | None = None) -> Contents:
        """The records at the given rows (default: all) in memory, with all environments and baselines."""
        return gather(self, rows)

    @cached_property
    def retractions(self) -> Retractions:
        """What was taken back. A retraction that was itself retracted counts no more."""
        retracts = self.record_column("retracts")
        rows = np.flatnonzero(retracts.codes >= 0)  # type: ignore[union-attr]
        if not len(rows):
            return Retractions(rows, {})
        part = gather(self, rows)
        found = {row["record_id"]: (row["retracts"], row["reason"]) for row in part.records.rows()}
        standing = _standing({key: target for key, (target, _) in found.items()})
        reasons = {target: reason for key, (target, reason) in found.items() if key in standing}
        return Retractions(np.union1d(rows, self.find(reasons)), reasons)

    @cached_property
    def references(self) -> np.ndarray:
        """Rows of the records that are references of others."""
        stored = self.record_column("reference_id")
        named = np.flatnonzero(stored.codes >= 0)  # type: ignore[union-attr]
        texts = np.array([text.encode() for text in stored.categories], dtype=self.record_ids.dtype)  # type: ignore[union-attr]
        own: np.ndarray = named[texts[stored.codes[named]] == self.record_ids[named]] if len(named) else named  # type: ignore[union-attr]
        return own

    @cached_property
    def predictions(self) -> np.ndarray:
        """Rows of the records that were predicted: nothing ran."""
        stored = self.record_column("provenance")
        predicted = [code for code, text in enumerate(stored.categories) if text == "predicted"]  # type: ignore[union-attr]
        return np.flatnonzero(np.isin(stored.codes, predicted)) if predicted else np.zeros(0, dtype=int)  # type: ignore[union-attr]

    def close(self) -> None:
        """Close the file."""
        self.base.close()


def _standing(targets: dict[str, str]) -> set[str]:
    """Those retractions (id to what each takes back) that no standing one takes back; of a ring, none."""
    waiting = Counter(targets.values())  # for that many that take it back
    ready = deque(key for key in targets if not waiting[key])
    standing: set[str] = set()
    fallen: set[str] = set()
    while ready:
        key = ready.popleft()
        target = targets[key]
        if key not in fallen:
            standing.add(key)
            fallen.add(target)
        waiting[target] -= 1
        if target in targets and not waiting[target]:
            ready.append(target)
    return standing


def beside(path: Path, suffix: str) -> Path:
    """The file that goes with a database, e.g. its journal."""
    return path.with_name(path.name + suffix)


def journal_path(path: Path) -> Path:
    """Where the journal of a database is."""
    return beside(path, ".journal")


def read_snapshot(path: Path, earlier: Snapshot | None = None) -> Snapshot:
    """The present snapshot of the database at ``path``: ``earlier`` itself if nothing changed since.

    Raises
    ------
    StoreError
        If there is none, or it cannot be read.
    """
    state = State.of(path)
    if earlier is not None and earlier.state == state and state.settled:
        return earlier
    if state.file is None and state.journal is None:
        raise StoreError(f"no database at {path}; `labbench run --store {path}` makes one")
    if earlier is not None and (later := _appended(path, earlier, state)) is not None:
        return later
    # The journal first: a fold in between leaves entries that are in both, and those are known by their number.
    log = journal.read(journal_path(path))
    base = read_base(path)
    if log.lost or (log.damage and not lock.is_held(path)):
        warnings.warn(_about_damage(journal_path(path), log), StoreWarning, stacklevel=4)
    if earlier is not None:
        earlier.close()
    entries = fresh(log, base)
    return Snapshot(base, build(entries).build() if entries else _nothing(), state, log)


def _appended(path: Path, earlier: Snapshot, state: State) -> Snapshot | None:
    """What came since, on top of the earlier snapshot; None if there was more than an append."""
    if earlier.log is None or earlier.state is None or earlier.state.file != state.file:
        return None
    log = journal.read_on(journal_path(path), earlier.log)
    if log is None:
        return None
    tail = earlier.tail + build(log.entries).build() if log.entries else earlier.tail
    return Snapshot(earlier.base, tail, state, log)


def _about_damage(path: Path, log: journal.Log) -> str:
    size = len(log.damage)
    if log.lost:
        return f"{path}: {size} bytes were lost in a power cut, for its writer did not wait for the disk; the rest is there"
    return (
        f"{path}: the last entry ({size} bytes) is incomplete: its writer died before it was acknowledged, or it is damaged; "
        "it was left out"
    )


class State(NamedTuple):
    """What the files of a database look like from outside: inode, time of the last change, size; None where there is none."""

    file: tuple[int, int, int] | None
    journal: tuple[int, int, int] | None
    settled: bool  # whether a change from now on must give another time

    @classmethod
    def of(cls, path: Path) -> State:
        """As it is now."""
        now = time.time_ns()
        log, file = (
            _look(journal_path(path)),
            _look(path),
        )  # in this order: the first fold makes the file, then the journal goes
        return cls(file, log, settled=all(one is None or now - one[1] > TICK_NS for one in (file, log)))


def _look(path: Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def read_base(path: Path) -> File | Contents:
    """The folded part: the open file, an older schema's content brought up to date, or nothing."""
    if not path.exists():
        return Contents.of()
    try:
        file = File(path)
    except FileNotFoundError:
        return Contents.of()
    if file.version >= FIRST_LASTING_SCHEMA:
        return file
    file.close()
    from labbench.store.migrate import read_older

    return read_older(path, file.version)


def fresh(log: journal.Log, base: File | Contents) -> list[Entry]:
    """Entries of the journal that are not in the file."""
    if log.version == 1:  # its entries have no numbers
        return [e for e in log.entries if e.type != "record" or not len(base.find([json.loads(e.text)["record_id"]]))]
    return [entry for entry in log.entries if entry.number > base.folded]


@cache
def _nothing() -> Contents:
    return Contents.of()


def build(entries: list[Entry]) -> Builder:
    """Entries as columns in the making."""
    builder = Builder()
    for entry in entries:
        builder.add(entry.type, entry.text)
    return builder
