"""The one process that may change a database: it holds the lock, the journal and what is not folded yet."""

from __future__ import annotations

import itertools
import warnings
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path

from labbench.records import SCHEMA_VERSION, Baseline, Environment, Record
from labbench.store import disk, hdf5, journal
from labbench.store.columns import to_json
from labbench.store.errors import Refused, StoreError, StoreWarning, conflict
from labbench.store.hdf5 import File
from labbench.store.journal import Entry, Journal, Log
from labbench.store.lock import WriterLock
from labbench.store.migrate import keep_older
from labbench.store.snapshot import Snapshot, build, fresh, journal_path, read_base
from labbench.store.table import Builder, Contents, gather, to_baselines

FOLD_AT = 2000  # journal entries: reading that many back takes about as long as a fold
FOLD_SHARE = 32  # and a large file is written anew only when this share of it has come, so that appending stays cheap
BATCH = 500  # records that `extend` makes durable at once


class Writer:
    """See :class:`labbench.store.Store`, which has the words for people."""

    def __init__(self, path: Path, *, durable: bool, wait: float | bool | None) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot write to {path}: {error.strerror} ({path.parent})") from None
        self._durable = durable
        self._torn = False  # whether Ctrl-C or the like came while memory and disk were not the same
        self._lock = WriterLock(path, wait_s=float("inf") if wait is True else wait or 0.0)
        try:
            self._open()
        except OSError as error:
            self._lock.release()
            raise StoreError(f"cannot write to {path}: {error.strerror or error}") from error
        except BaseException:
            self._lock.release()
            raise

    def _open(self) -> None:
        place = journal_path(self.path)
        for target in (self.path, place):
            disk.remove_leftovers(target)
        log = journal.read(place)
        journal.set_aside(place, log.damage)
        base = read_base(self.path)
        entries = fresh(log, base)
        if min(log.version, base.version) < SCHEMA_VERSION:
            base = self._bring_up_to_date(base, entries)
            log, entries = Log(), []
        self._base = base
        self._pending = build(entries)
        self._late: deque[tuple[str, str]] = deque()
        self._recent = {*self._pending.rows, *self._pending.environments}
        self._fold_at = self._next_fold()
        self._snapshot: Snapshot | None = None
        self._journal = Journal(place, max([base.folded, *(entry.number for entry in entries)]), durable=self._durable)
        if place.exists():  # its writer died; begin with a new one
            self._fold(anew=bool(entries))

    def _bring_up_to_date(self, base: File | Contents, entries: list[Entry]) -> File | Contents:
        """Write a database of an older schema anew, in one step; the old file stays beside it."""
        keep_older(self.path, base.version)
        hdf5.write(self.path, gather(base) + build(entries).build())
        disk.remove(journal_path(self.path))
        return read_base(self.path)

    def _next_fold(self) -> int:
        return max(FOLD_AT, len(self._base) // FOLD_SHARE)

    def _mend(self) -> None:
        """After an interruption only the disk knows what was kept: take its word for it."""
        if self._torn:
            self._torn = False
            try:
                self._journal.drop()
                self._base.close()
                self._open()
            except BaseException:
                self._torn = True
                raise

    def snapshot(self) -> Snapshot:
        """Everything appended so far."""
        self._mend()
        if self._snapshot is None:
            self._torn = True
            while self._late:
                self._pending.add(*self._late.popleft())
            self._torn = False
            self._snapshot = Snapshot(self._base, self._pending.build())
        return self._snapshot

    def extend(
        self, records: Iterable[Record], environments: Iterable[Environment] = (), baselines: Iterable[Baseline] = ()
    ) -> int:
        """Keep records, environments and pins that are not there yet; returns how many records those were."""
        self._mend()
        try:
            new = {key: one for one in environments if (key := one.id) not in self._recent}
        except ValueError as error:  # no id can be made of what JSON cannot say
            raise Refused(f"cannot append to {self.path}: {error}; nothing was kept") from None
        self._keep("environment", {key: one for key, one in new.items() if key not in self._base.environments})
        count = 0
        records = iter(records)
        while batch := list(itertools.islice(records, BATCH)):
            fresh_ones = self._new(batch)
            self._keep("record", fresh_ones)
            count += len(fresh_ones)
        if baselines := list(baselines):
            pinned = to_baselines(self.snapshot().baselines)
            new_pins = [one for i, one in enumerate(baselines) if one not in [*pinned, *baselines[:i]]]
            self._keep("baseline", {f"pin {i}": one for i, one in enumerate(new_pins)})
        return count

    def _new(self, batch: list[Record]) -> dict[str, Record]:
        """Those of the records that are not there yet, by id."""
        new: dict[str, Record] = {}
        for record in batch:
            key = record.record_id
            earlier = new.get(key)
            if earlier is None and (key in self._recent or len(self._base.find([key]))):
                snapshot = self.snapshot()
                [earlier] = snapshot.contents(snapshot.find([key])).to_records()
            if earlier is None:
                new[key] = record
            elif earlier != record:
                raise Refused(f"cannot append to {self.path}: {conflict(earlier, record)}")
        return new

    def _keep(self, kind: str, things: Mapping[str, Record | Environment | Baseline]) -> None:
        """Put things of one kind, by id, into the journal, all or none of them."""
        if not things:
            return
        try:
            entries = [(kind, to_json(thing)) for thing in things.values()]
        except ValueError as error:
            raise Refused(f"cannot append to {self.path}: {error}; nothing was kept") from None
        self._torn = True
        try:
            self._journal.append(entries)
        except OSError as error:
            self._torn = False
            raise StoreError(
                f"cannot append to {self.path}: {error.strerror or error}; earlier records are safe, this was not kept"
            ) from error
        self._late.extend(entries)  # columns are made of them when somebody looks, or at the next fold
        self._recent.update(things)
        self._snapshot = None
        self._torn = False
        if self._journal.count >= self._fold_at:
            self._try_to_fold()

    def _try_to_fold(self) -> None:
        try:
            self.fold()
        except StoreError as error:
            warnings.warn(str(error), StoreWarning, stacklevel=5)
            self._fold_at = self._journal.count + FOLD_AT  # not again at every record

    def fold(self) -> None:
        """Move the journal into the HDF5 file."""
        self._mend()
        self._fold()

    def _fold(self, anew: bool = False) -> None:
        if anew or self._journal.count or not self.path.exists():
            contents, last = self.snapshot().contents(), self._journal.last
            self._torn = True
            try:
                hdf5.write(self.path, contents, folded=last)
            except OSError as error:
                self._torn = False
                raise StoreError(
                    f"cannot write {self.path} anew: {error.strerror or error}; every record is safe in its journal, and goes "
                    "into the file when the database is next opened for writing with enough room"
                ) from error
            self._base.close()
            self._base, self._pending, self._snapshot = read_base(self.path), Builder(), None
            self._recent = set()
            self._fold_at = self._next_fold()
        self._torn = True
        self._journal.restart(self._base.folded)
        self._torn = False

    def close(self) -> None:
        """Fold, and let the next writer in."""
        try:
            self.fold()
        finally:
            self._journal.close()
            self._base.close()
            self._lock.release()
