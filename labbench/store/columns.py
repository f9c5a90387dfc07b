"""Records as columns: how the pydantic models become typed HDF5 datasets and come back without loss.

Two tables hold everything: ``records`` (one row a record) and ``series`` (one row a steady-state series, with its
raw samples at ``samples[offset : offset + count]``). A column is a leaf of the model, named by its path; its kind
follows from the annotation:

======== ============================== =====================
kind     stored as                      null
======== ============================== =====================
float    float64                        NaN (records hold none)
int      int64                          -2**63
bool     int8                           -1
time     int64, microseconds since 1970 -2**63
str      int32 code + category list     -1
json     int32 code + category list     -1
======== ============================== =====================

Lists and free dictionaries are ``json``: each distinct text is stored once, so a protocol shared by a thousand
records costs a thousand integers.
"""

from __future__ import annotations

import json
import types
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin

import numpy as np
from pydantic import BaseModel

from labbench.records import Record, Samples, Series

INT_NULL = np.iinfo(np.int64).min
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class Column:
    """One stored column: its dotted path in the model, its kind and what it means."""

    name: str
    kind: Literal["float", "int", "bool", "time", "str", "json"]
    description: str = ""

    @property
    def dtype(self) -> Any:
        """NumPy type of the values as stored."""
        return {"float": np.float64, "bool": np.int8, "str": np.int32, "json": np.int32}.get(self.kind, np.int64)

    @property
    def unit(self) -> str:
        """SI unit, read off the suffix of the name; empty if there is none."""
        path = self.name.split(".")
        leaf = path[-2] if path[-1] in ("value", "ci_low", "ci_high") else path[-1]
        suffix = leaf.rsplit("_", 1)[-1]
        return {"s": "s", "bytes": "byte", "hz": "Hz", "flops": "FLOP", "call": ""}.get(suffix, "")


@cache
def record_columns() -> tuple[Column, ...]:
    """Columns of the ``records`` table."""
    return tuple(_columns(Record, skip={"series"}))


@cache
def series_columns() -> tuple[Column, ...]:
    """Columns of the ``series`` table."""
    return tuple(_columns(Series, skip={"samples"}))


SAMPLE_COLUMNS = {"seconds": np.float64, "process": np.uint16, "round": np.uint32}


def _columns(model: type[BaseModel], prefix: str = "", skip: Iterable[str] = ()) -> Iterable[Column]:
    for name, info in model.model_fields.items():
        if name in skip:
            continue
        annotation = info.annotation
        if get_origin(annotation) in (Union, types.UnionType):
            annotation = next(arg for arg in get_args(annotation) if arg is not type(None))
        path = prefix + name
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            if info.default is None:  # an optional part: remember whether it is there at all
                yield Column(f"{path}?", "bool", f"whether {path} is present")
            yield from _columns(annotation, f"{path}.")
        else:
            yield Column(path, _kind(annotation), info.description or "")


def _kind(annotation: Any) -> Any:
    if annotation is float:
        return "float"
    if annotation is int:
        return "int"
    if annotation is bool:
        return "bool"
    if annotation is str or get_origin(annotation) is Literal:
        return "str"
    if get_origin(annotation) in (dict, list):
        return "json"
    return "time"


def flatten(model: BaseModel, columns: Iterable[Column]) -> dict[str, Any]:
    """One row: column name to plain value (``None`` for null, canonical JSON text for ``json``)."""
    row: dict[str, Any] = {}
    for column in columns:
        value: Any = model
        for part in column.name.rstrip("?").split("."):
            value = getattr(value, part, None)
        if column.name.endswith("?"):
            value = value is not None
        elif column.kind == "json" and value is not None:
            value = json.dumps(_plain(value), sort_keys=True, separators=(",", ":"))
        row[column.name] = value
    return row


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def nest(row: dict[str, Any], columns: Iterable[Column]) -> dict[str, Any]:
    """Undo :func:`flatten`: the nested dict that the model validates."""
    tree: dict[str, Any] = {}
    absent: list[str] = []
    for column in columns:
        value = row[column.name]
        if column.name.endswith("?"):
            if not value:
                absent.append(column.name[:-1] + ".")
            continue
        if any(column.name.startswith(prefix) for prefix in absent):
            continue
        *parents, leaf = column.name.split(".")
        node = tree
        for part in parents:
            node = node.setdefault(part, {})
        node[leaf] = json.loads(value) if column.kind == "json" and value is not None else value
    return tree


@dataclass
class Coded:
    """A column of few distinct texts: codes into ``categories``; -1 is null."""

    codes: np.ndarray
    categories: np.ndarray

    def __len__(self) -> int:
        return len(self.codes)


Values = np.ndarray | Coded


def encode(column: Column, values: list[Any]) -> Values:
    """Plain values to the stored form."""
    if column.kind in ("str", "json"):
        return _code(np.array(values, dtype=object))
    if column.kind == "float":
        return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    if column.kind == "bool":
        return np.array([-1 if value is None else value for value in values], dtype=np.int8)
    if column.kind == "time":
        values = [None if value is None else (value - EPOCH) // MICROSECOND for value in values]
    return np.array([INT_NULL if value is None else value for value in values], dtype=np.int64)


def _code(values: np.ndarray) -> Coded:
    import pandas as pd

    codes, categories = pd.factorize(values, use_na_sentinel=True)
    return Coded(codes.astype(np.int32), np.asarray(categories, dtype=object))


def decode(column: Column, stored: Values) -> list[Any]:
    """The stored form back to plain values."""
    if isinstance(stored, Coded):
        return [None if code < 0 else stored.categories[code] for code in stored.codes]
    plain = stored.tolist()
    if column.kind == "float":
        return [None if value != value else value for value in plain]
    if column.kind == "bool":
        return [None if value < 0 else bool(value) for value in plain]
    plain = [None if value == INT_NULL else value for value in plain]
    if column.kind == "time":
        return [None if value is None else EPOCH + value * MICROSECOND for value in plain]
    return plain


def concatenate(first: Values, second: Values) -> Values:
    """Two stretches of one column, end to end."""
    if isinstance(first, Coded) and isinstance(second, Coded):
        known = {category: code for code, category in enumerate(first.categories)}
        fresh = [category for category in second.categories if category not in known]
        known.update({category: len(known) + i for i, category in enumerate(fresh)})
        table = np.array([known[category] for category in second.categories] + [-1], dtype=np.int32)
        categories = np.concatenate([first.categories, np.array(fresh, dtype=object)])
        return Coded(np.concatenate([first.codes, table[second.codes]]), categories)
    assert isinstance(first, np.ndarray)
    assert isinstance(second, np.ndarray)
    return np.concatenate([first, second])


@dataclass
class Table:
    """Named columns of equal length in their stored form."""

    columns: tuple[Column, ...]
    values: dict[str, Values]

    @classmethod
    def of(cls, columns: tuple[Column, ...], rows: list[dict[str, Any]]) -> Table:
        """Build from plain rows."""
        return cls(columns, {c.name: encode(c, [row[c.name] for row in rows]) for c in columns})

    def __len__(self) -> int:
        return len(self.values[self.columns[0].name])

    def __add__(self, other: Table) -> Table:
        joined = {c.name: concatenate(self.values[c.name], other.values[c.name]) for c in self.columns}
        return Table(self.columns, joined)

    def rows(self, index: np.ndarray) -> list[dict[str, Any]]:
        """Plain rows at the given positions."""
        picked: dict[str, list[Any]] = {}
        for column in self.columns:
            stored = self.values[column.name]
            part = Coded(stored.codes[index], stored.categories) if isinstance(stored, Coded) else stored[index]
            picked[column.name] = decode(column, part)
        return [{name: values[i] for name, values in picked.items()} for i in range(len(index))]


@dataclass
class Contents:
    """Everything a database holds, in columnar form."""

    records: Table
    series: Table
    record_of_series: np.ndarray  # row in `records` of each series
    sample_counts: np.ndarray
    samples: dict[str, np.ndarray]
    environments: dict[str, str]  # id -> JSON

    @classmethod
    def of(cls, records: list[Record], environments: dict[str, str]) -> Contents:
        """Columns of the given records, in order."""
        series = [(i, s) for i, record in enumerate(records) for s in record.series]
        samples = {
            name: np.concatenate(
                [np.zeros(0, dtype), *(np.asarray(getattr(s.samples, name), dtype) for _, s in series)]
            )
            for name, dtype in SAMPLE_COLUMNS.items()
        }
        return cls(
            records=Table.of(record_columns(), [flatten(record, record_columns()) for record in records]),
            series=Table.of(series_columns(), [flatten(s, series_columns()) for _, s in series]),
            record_of_series=np.array([i for i, _ in series], dtype=np.int64),
            sample_counts=np.array([len(s.samples.seconds) for _, s in series], dtype=np.int64),
            samples=samples,
            environments=dict(environments),
        )

    def __add__(self, other: Contents) -> Contents:
        return Contents(
            records=self.records + other.records,
            series=self.series + other.series,
            record_of_series=np.concatenate([self.record_of_series, other.record_of_series + len(self.records)]),
            sample_counts=np.concatenate([self.sample_counts, other.sample_counts]),
            samples={name: np.concatenate([self.samples[name], other.samples[name]]) for name in SAMPLE_COLUMNS},
            environments=self.environments | other.environments,
        )

    @property
    def sample_offsets(self) -> np.ndarray:
        """Where each series' samples begin; one entry more than there are series."""
        return np.concatenate([[0], np.cumsum(self.sample_counts)]).astype(np.int64)

    def to_records(self, index: np.ndarray | None = None) -> list[Record]:
        """The records at the given positions (default: all), whole."""
        index = np.arange(len(self.records)) if index is None else index
        offsets = self.sample_offsets
        owned: dict[int, list[dict[str, Any]]] = {int(i): [] for i in index}
        wanted = np.flatnonzero(np.isin(self.record_of_series, index))
        for position, row in zip(wanted, self.series.rows(wanted), strict=True):
            part = slice(offsets[position], offsets[position + 1])
            samples = Samples(**{name: array[part].tolist() for name, array in self.samples.items()})
            owned[int(self.record_of_series[position])].append(nest(row, series_columns()) | {"samples": samples})
        return [
            Record.model_validate(nest(row, record_columns()) | {"series": owned[int(i)]})
            for i, row in zip(index, self.records.rows(index), strict=True)
        ]
