"""Databases made on several machines, put together: idempotent, commutative and associative.

The outcome depends only on which records go in: the same record twice is kept once, the order is that of time, and two
different records under one id are an error that shows both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from labbench.store import disk, hdf5, journal
from labbench.store.columns import baseline_columns, canonical_json, flatten
from labbench.store.errors import StoreError, conflict
from labbench.store.lock import WriterLock
from labbench.store.migrate import keep_older
from labbench.store.snapshot import journal_path, read_snapshot
from labbench.store.table import Coded, Contents, Table, to_baselines


def merge(paths: Sequence[str | Path], output: str | Path) -> int:
    """Write everything that is in any of the databases into ``output``; returns how many records that has then.

    ``output`` may be one of them, or exist: what it holds is kept, so the same command can be given again.

    Raises
    ------
    StoreError
        If one cannot be read, or two records with one id differ; ``output`` is then as it was.
    StoreLocked
        If ``output`` is being written to.
    """
    target = disk.real(output)
    merged = union(_contents(disk.real(path)) for path in paths)
    try:
        lock = WriterLock(target)
        try:
            last = 0
            if target.exists() or journal_path(target).exists():
                present = _contents(target)
                merged = union([present, merged])
                log = journal.read(journal_path(target))
                last = max([present.folded, *(entry.number for entry in log.entries)])
                journal.set_aside(journal_path(target), log.damage)
                keep_older(target, present.version)
            hdf5.write(target, merged, folded=last)
            disk.remove(journal_path(target))
        finally:
            lock.release()
    except OSError as error:
        raise StoreError(f"cannot write {target}: {error.strerror or error}; it is as it was") from error
    return len(merged)


def _contents(path: Path) -> Contents:
    snapshot = read_snapshot(path)
    contents = snapshot.contents()
    contents.folded, contents.version = snapshot.base.folded, snapshot.base.version
    snapshot.close()
    return contents


def union(parts: Iterable[Contents]) -> Contents:
    """Everything that is in any of the parts, once, in an order that depends on nothing else.

    Raises
    ------
    StoreError
        If two records with one id differ.
    """
    total = Contents.of()
    for part in parts:
        shared, here, there = np.intersect1d(part.record_ids, total.record_ids, return_indices=True)
        differing = np.flatnonzero(part.digests[here] != total.digests[there])
        if len(differing):
            pair = (total.take(there[differing[:1]]), part.take(here[differing[:1]]))
            one, other = (next(side.to_records()) for side in pair)
            raise StoreError(f"cannot merge: {conflict(one, other)}")
        total = total + part.take(np.flatnonzero(~np.isin(part.record_ids, shared)))
    return canonical(total)


def canonical(contents: Contents) -> Contents:
    """The same content ordered by time, then id; texts, environments and pins sorted and each there once."""
    ordered = contents.take(np.lexsort((contents.record_ids, contents.times("started_at"))))
    pins = {canonical_json(pin.model_dump(mode="json")): pin for pin in to_baselines(contents.baselines)}
    pinned = sorted(pins.values(), key=lambda pin: (pin.pinned_at, pin.name, pin.record_ids))
    rows = [flatten(pin.model_dump(mode="json"), baseline_columns()) for pin in pinned]
    return Contents(
        records=_sorted_texts(ordered.records),
        series=_sorted_texts(ordered.series),
        first_series=ordered.first_series,
        first_sample=ordered.first_sample,
        raw=ordered.raw,
        environments=dict(sorted(contents.environments.items())),
        baselines=_sorted_texts(Table.of(baseline_columns(), rows)),
    )


def _sorted_texts(table: Table) -> Table:
    """The same table with the texts of each column sorted, and only those that occur."""
    values = dict(table.values)
    for name, column in values.items():
        if isinstance(column, Coded):
            used = np.unique(column.codes[column.codes >= 0])
            used = used[np.argsort(column.categories[used])] if len(used) else used
            places = np.full(len(column.categories) + 1, -1, dtype=np.int32)
            places[used] = np.arange(len(used))
            values[name] = Coded(places[column.codes], column.categories[used])
    return Table(table.columns, values)


def content_hash(contents: Contents) -> str:
    """SHA-256 of all records, environments and pins, whatever their order."""
    whole = hashlib.sha256()
    order = np.argsort(contents.record_ids)
    whole.update(contents.record_ids[order].tobytes())
    whole.update(contents.digests[order].astype(">i8").tobytes())
    pins = [pin.model_dump(mode="json") for pin in to_baselines(canonical(contents).baselines)]
    whole.update(canonical_json([sorted(contents.environments.items()), pins]).encode())
    return whole.hexdigest()
