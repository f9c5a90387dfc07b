"""What a database holds, in memory and in columns: :class:`Contents`, made of :class:`Table`.

A :class:`Source` is anything that hands out columns, all of them or at given rows: a :class:`Contents`, an HDF5 file that reads
only what is asked for (:class:`labbench.store.hdf5.File`), or two sources end to end (:class:`Joined`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from labbench.records import SCHEMA_VERSION, Baseline, Environment, Record
from labbench.store.columns import (
    EPOCH,
    INT_NULL,
    MICROSECOND,
    SAMPLE_COLUMNS,
    Column,
    Row,
    baseline_columns,
    canonical_json,
    flatten,
    flatten_record,
    nest,
    record_columns,
    series_columns,
)

TableName = Literal["records", "series"]
ROWS_AT_ONCE = 8192  # as Python objects, which take ten times the room of arrays


@dataclass
class Coded:
    """A column of few distinct texts: codes into ``categories``; -1 is null."""

    codes: np.ndarray
    categories: np.ndarray

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, rows: Any) -> Coded:
        return Coded(self.codes[rows], self.categories)


Values = np.ndarray | Coded


class Source(Protocol):
    """Columns of records and their series, read when they are asked for."""

    @property
    def first_series(self) -> np.ndarray:
        """Row of each record's first series in the series table; one entry more than there are records."""

    @property
    def first_sample(self) -> np.ndarray:
        """Position of each series' first sample; one entry more than there are series."""

    @property
    def environments(self) -> dict[str, str]:
        """Environment id to JSON."""

    @property
    def baselines(self) -> Table:
        """The pinned baselines."""

    def column(self, table: TableName, column: Column, rows: np.ndarray | None = None) -> Values:
        """A column, whole or at ascending rows."""

    def samples(self, name: str, series: np.ndarray | None = None) -> np.ndarray:
        """Raw samples of the given series (ascending rows of the series table; default: all), end to end."""


def encode(column: Column, values: list[Any]) -> Values:
    """Plain values, as :func:`labbench.store.columns.flatten` gives them, to arrays."""
    if column.kind in ("str", "json"):
        import pandas as pd

        codes, categories = pd.factorize(np.array(values, dtype=object), use_na_sentinel=True)
        return Coded(codes.astype(np.int32), np.asarray(categories, dtype=object))
    return np.array([column.null if value is None else value for value in values], dtype=column.dtype)


def decode(column: Column, stored: Values) -> list[Any]:
    """Arrays back to plain values (times as datetimes)."""
    if isinstance(stored, Coded):
        return [None if code < 0 else stored.categories[code] for code in stored.codes.tolist()]
    plain = stored.tolist()
    if column.kind == "float":
        return [None if value != value else value for value in plain]
    if column.kind == "bool":
        return [None if value < 0 else bool(value) for value in plain]
    if column.kind == "id":
        return [value.decode() for value in plain]
    if column.kind == "time":
        return [None if value == INT_NULL else EPOCH + value * MICROSECOND for value in plain]
    return [None if value == INT_NULL else value for value in plain]


def concatenate(first: Values, second: Values) -> Values:
    """Two stretches of one column, end to end."""
    if isinstance(first, Coded) and isinstance(second, Coded):
        known = {category: code for code, category in enumerate(first.categories)}
        fresh = [category for category in second.categories if category not in known]
        known.update({category: len(known) + i for i, category in enumerate(fresh)})
        table = np.array([known[category] for category in second.categories] + [-1], dtype=np.int32)
        categories = np.concatenate([first.categories, np.array(fresh, dtype=object)])
        return Coded(np.concatenate([first.codes.astype(np.int32), table[second.codes]]), categories)
    assert isinstance(first, np.ndarray)
    assert isinstance(second, np.ndarray)
    return np.concatenate([first, second])


def lengths(edges: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
    """How many entries each row owns (default: every row); row ``i`` owns those from ``edges[i]`` to ``edges[i + 1]``."""
    return np.diff(edges) if rows is None else edges[rows + 1] - edges[rows]


def spans(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Positions ``start, start + 1, ...`` of each span, end to end."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) + np.repeat(starts - (ends - counts), counts)


@dataclass
class Table:
    """Named columns of equal length."""

    columns: tuple[Column, ...]
    values: dict[str, Values]

    @classmethod
    def of(cls, columns: tuple[Column, ...], rows: list[Row]) -> Table:
        """Build from plain rows."""
        return cls(columns, {c.name: encode(c, [row.get(c.name) for row in rows]) for c in columns})

    def __len__(self) -> int:
        return len(self.values[self.columns[0].name])

    def __add__(self, other: Table) -> Table:
        return Table(
            self.columns, {c.name: concatenate(self.values[c.name], other.values[c.name]) for c in self.columns}
        )

    def take(self, rows: np.ndarray) -> Table:
        """The given rows, in the order given."""
        return Table(self.columns, {name: values[rows] for name, values in self.values.items()})

    def rows(self) -> Iterator[Row]:
        """Plain rows, times as datetimes."""
        for start in range(0, len(self), ROWS_AT_ONCE):
            part = slice(start, start + ROWS_AT_ONCE)
            decoded = [decode(column, self.values[column.name][part]) for column in self.columns]
            names = [column.name for column in self.columns]
            yield from (dict(zip(names, values, strict=True)) for values in zip(*decoded, strict=True))


@dataclass
class Contents:
    """Everything a database holds: a :class:`Source` in memory, plus environments and baselines."""

    records: Table
    series: Table
    first_series: np.ndarray
    first_sample: np.ndarray
    raw: dict[str, np.ndarray]
    environments: dict[str, str] = field(default_factory=dict)  # id -> JSON
    baselines: Table = field(default_factory=lambda: Table.of(baseline_columns(), []))
    version: int = SCHEMA_VERSION  # of the file it was read from
    folded: int = 0

    @classmethod
    def of(
        cls,
        records: Iterable[Record] = (),
        environments: dict[str, str] | None = None,
        baselines: Iterable[Baseline] = (),
    ) -> Contents:
        """Columns of the given records, in order."""
        builder = Builder()
        for record in records:
            builder.add("record", canonical_json(record.to_dict()))
        builder.environments.update(environments or {})
        for baseline in baselines:
            builder.add("baseline", canonical_json(baseline.model_dump(mode="json")))
        return builder.build()

    def __len__(self) -> int:
        return len(self.records)

    @property
    def record_ids(self) -> np.ndarray:
        """Id of each record, as bytes."""
        return self._array("record_id")

    @property
    def digests(self) -> np.ndarray:
        """What tells a record's content (see :func:`labbench.store.columns.digest`)."""
        return self._array("digest")

    def times(self, name: str) -> np.ndarray:
        """A column of times, microseconds since 1970."""
        return self._array(name)

    def _array(self, name: str) -> np.ndarray:
        values = self.records.values[name]
        assert isinstance(values, np.ndarray)
        return values

    def __add__(self, other: Contents) -> Contents:
        return Contents(
            records=self.records + other.records,
            series=self.series + other.series,
            first_series=_joined_offsets(self.first_series, other.first_series),
            first_sample=_joined_offsets(self.first_sample, other.first_sample),
            raw={name: np.concatenate([self.raw[name], other.raw[name]]) for name in SAMPLE_COLUMNS},
            environments=self.environments | other.environments,
            baselines=self.baselines + other.baselines,
        )

    def take(self, rows: np.ndarray) -> Contents:
        """The records at the given rows, in the order given, with their series and samples; environments stay."""
        series_counts = lengths(self.first_series, rows)
        series_rows = spans(self.first_series[rows], series_counts)
        sample_counts = lengths(self.first_sample, series_rows)
        positions = spans(self.first_sample[series_rows], sample_counts)
        return Contents(
            records=self.records.take(rows),
            series=self.series.take(series_rows),
            first_series=offsets(series_counts),
            first_sample=offsets(sample_counts),
            raw={name: array[positions] for name, array in self.raw.items()},
            environments=self.environments,
            baselines=self.baselines,
        )

    def column(self, table: TableName, column: Column, rows: np.ndarray | None = None) -> Values:
        """See :class:`Source`."""
        values = (self.records if table == "records" else self.series).values[column.name]
        return values if rows is None else values[rows]

    def samples(self, name: str, series: np.ndarray | None = None) -> np.ndarray:
        """See :class:`Source`."""
        if series is None:
            return self.raw[name]
        return self.raw[name][spans(self.first_sample[series], lengths(self.first_sample, series))]

    def to_dicts(self) -> Iterator[dict[str, Any]]:
        """The records one by one, as nested dicts that :class:`~labbench.records.Record` validates."""
        series = self.series.rows()
        series_index = 0
        for row, count in zip(self.records.rows(), np.diff(self.first_series).tolist(), strict=True):
            owned = []
            for _ in range(count):
                part = slice(self.first_sample[series_index], self.first_sample[series_index + 1])
                samples = {name: array[part].tolist() for name, array in self.raw.items()}
                owned.append(nest(next(series), series_columns()) | {"samples": samples})
                series_index += 1
            yield nest(row, record_columns()) | {"series": owned}

    def to_records(self) -> Iterator[Record]:
        """The records one by one, whole."""
        return (Record.model_validate(data) for data in self.to_dicts())

    def find(self, record_ids: Iterable[str]) -> np.ndarray:
        """Rows of the records with the given ids, ascending; ids that are not there are left out."""
        wanted = {key.encode(errors="surrogatepass") for key in record_ids}
        return np.array([row for row, key in enumerate(self.record_ids.tolist()) if key in wanted], dtype=np.int64)

    def close(self) -> None:
        """Nothing is open."""


def to_baselines(table: Table) -> list[Baseline]:
    """The pins in a baselines table, in the order they were made."""
    return [Baseline.model_validate(nest(row, baseline_columns())) for row in table.rows()]


def gather(source: Source, rows: np.ndarray | None = None) -> Contents:
    """The records of a source at the given ascending rows (default: all), in memory."""
    first, first_sample = source.first_series, source.first_sample
    series = None if rows is None else spans(first[rows], lengths(first, rows))
    return Contents(
        records=Table(record_columns(), {c.name: source.column("records", c, rows) for c in record_columns()}),
        series=Table(series_columns(), {c.name: source.column("series", c, series) for c in series_columns()}),
        first_series=first if rows is None else offsets(lengths(first, rows)),
        first_sample=first_sample if series is None else offsets(lengths(first_sample, series)),
        raw={name: source.samples(name, series) for name in SAMPLE_COLUMNS},
        environments=source.environments,
        baselines=source.baselines,
    )


class Joined:
    """Two sources, one after the other."""

    def __init__(self, first: Source, second: Source) -> None:
        self.first, self.second = first, second
        self.first_series = _joined_offsets(first.first_series, second.first_series)
        self.first_sample = _joined_offsets(first.first_sample, second.first_sample)
        self.environments = first.environments | second.environments
        self.baselines = first.baselines + second.baselines

    def column(self, table: TableName, column: Column, rows: np.ndarray | None = None) -> Values:
        """See :class:`Source`."""
        if rows is None:
            return concatenate(self.first.column(table, column), self.second.column(table, column))
        owner = self.first.first_series if table == "records" else self.first.first_sample
        here, there = _split(rows, len(owner) - 1)
        return concatenate(self.first.column(table, column, here), self.second.column(table, column, there))

    def samples(self, name: str, series: np.ndarray | None = None) -> np.ndarray:
        """See :class:`Source`."""
        here, there = (None, None) if series is None else _split(series, len(self.first.first_sample) - 1)
        return np.concatenate([self.first.samples(name, here), self.second.samples(name, there)])


def _split(rows: np.ndarray, boundary: int) -> tuple[np.ndarray, np.ndarray]:
    at = int(np.searchsorted(rows, boundary))
    return rows[:at], rows[at:] - boundary


def offsets(counts: np.ndarray) -> np.ndarray:
    """Where each of consecutive stretches begins, and where the last one ends."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _joined_offsets(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.concatenate([first, second[1:] + first[-1]])


class Builder:
    """Collects entries in their canonical JSON form and turns them into columns at once."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}  # by record id
        self.series: list[Row] = []
        self.series_counts: list[int] = []
        self.samples: dict[str, list[np.ndarray]] = {name: [] for name in SAMPLE_COLUMNS}
        self.environments: dict[str, str] = {}
        self.baselines: list[Row] = []

    def add(self, kind: str, text: str) -> None:
        """Add a ``record``, an ``environment`` or a ``baseline``."""
        self.push(self.prepare(kind, text))

    def prepare(self, kind: str, text: str) -> tuple[str, Any]:
        """An entry made ready for :meth:`push`; raises ``ValueError`` if it cannot be stored."""
        if kind == "environment":
            return kind, (Environment.model_validate_json(text).id, text)
        value = json.loads(text)
        if kind == "baseline":
            return kind, flatten(value, baseline_columns())
        series = value.get("series", ())
        samples = [
            {name: np.asarray(one.get("samples", {}).get(name, []), dtype) for name, dtype in SAMPLE_COLUMNS.items()}
            for one in series
        ]
        return kind, (flatten_record(value), [flatten(one, series_columns()) for one in series], samples)

    def push(self, prepared: tuple[str, Any]) -> None:
        """Add what :meth:`prepare` made."""
        kind, value = prepared
        if kind == "environment":
            self.environments[value[0]] = value[1]
        elif kind == "baseline":
            self.baselines.append(value)
        else:
            row, series, samples = value
            self.rows[row["record_id"]] = row
            self.series += series
            self.series_counts.append(len(series))
            for name, stretches in self.samples.items():
                stretches.extend(one[name] for one in samples)

    def build(self) -> Contents:
        """Everything added so far."""
        return Contents(
            records=Table.of(record_columns(), list(self.rows.values())),
            series=Table.of(series_columns(), self.series),
            first_series=offsets(np.array(self.series_counts, dtype=np.int64)),
            first_sample=offsets(np.array([len(one) for one in self.samples["seconds"]], dtype=np.int64)),
            raw={
                name: np.concatenate([np.zeros(0, dtype), *self.samples[name]])
                for name, dtype in SAMPLE_COLUMNS.items()
            },
            environments=dict(self.environments),
            baselines=Table.of(baseline_columns(), self.baselines),
        )
