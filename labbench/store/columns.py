"""Records as flat rows: how the pydantic models become typed columns and come back without loss.

Two tables hold everything: ``records`` (one row a record) and ``series`` (one row a steady-state series, which has its raw
samples elsewhere). A column is a leaf of the model, named by its path; its kind follows from the annotation:

======== ============================================ =====================
kind     in memory                                    null
======== ============================================ =====================
float    float64                                      NaN (records hold none)
int      int64                                        -2**63
bool     int8                                         -1
time     int64, microseconds since 1970               -2**63
str      integer code + list of texts                 -1
json     integer code + list of texts                 -1
id       32 hex digits, fixed length                  (never)
======== ============================================ =====================

In the file integers have the smallest type that holds them (:func:`labbench.store.hdf5.widened`). Lists and free dictionaries
are ``json``: each distinct text is stored once, so a protocol shared by a thousand records costs a thousand integers.
"""

from __future__ import annotations

import hashlib
import json
import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from operator import attrgetter
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import numpy as np
from pydantic import BaseModel

from labbench.cells import Cell
from labbench.records import Baseline, Environment, Record, Series

Kind = Literal["float", "int", "bool", "time", "str", "json", "id"]
DTYPES = {"float": np.float64, "bool": np.int8, "str": np.int32, "json": np.int32, "id": np.dtype("S32")}
INT_NULL = np.iinfo(np.int64).min
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
UNITS = {"s": "s", "bytes": "byte", "hz": "Hz", "flops": "FLOP", "joules": "J"}
SIGNS = ("NaN", "Infinity", "\ufffd")  # in JSON that pydantic made of what JSON cannot say (the last: lone surrogates)
SAMPLE_COLUMNS = {"seconds": np.float64, "process": np.uint16, "round": np.uint32}


Row = dict[str, Any]  # column name to plain value; a null is left out


@dataclass(frozen=True)
class Column:
    """One stored column: its dotted path in the model, its kind and what it means."""

    name: str
    kind: Kind
    description: str = ""

    @property
    def dtype(self) -> Any:
        """NumPy type of the values in memory."""
        return DTYPES.get(self.kind, np.int64)

    @property
    def null(self) -> float | int | bytes:
        """What stands for null."""
        nulls: dict[str, float | int | bytes] = {"float": np.nan, "int": INT_NULL, "time": INT_NULL, "id": b""}
        return nulls.get(self.kind, -1)

    @property
    def unit(self) -> str:
        """SI unit, read off the suffix of the name; empty if there is none."""
        path = self.name.split(".")
        leaf = path[-2] if path[-1] in ("value", "ci_low", "ci_high") else path[-1]
        if self.kind == "time":
            return "microseconds since 1970-01-01T00:00:00Z"
        if self.kind not in ("int", "float"):
            return ""
        if leaf == "joules_per_call":
            return "J"
        return UNITS.get(leaf.rsplit("_", 1)[-1], "")


DERIVED = (
    Column("cell_id", "str", "id of the cell, derived from its content"),
    Column(
        "digest",
        "int",
        "first 64 bits of the SHA-256 of the record's JSON: keys sorted, no spaces, no nulls but started_at",
    ),
)


@cache
def record_columns() -> tuple[Column, ...]:
    """Columns of the ``records`` table."""
    return (*_columns(Record, skip={"series"}), *DERIVED)


@cache
def series_columns() -> tuple[Column, ...]:
    """Columns of the ``series`` table."""
    return tuple(_columns(Series, skip={"samples"}))


@cache
def baseline_columns() -> tuple[Column, ...]:
    """Columns of the ``baselines`` table."""
    return tuple(_columns(Baseline))


def _columns(model: type[BaseModel], prefix: str = "", skip: Iterable[str] = (), text: str = "") -> Iterator[Column]:
    for name, info in model.model_fields.items():
        if name in skip:
            continue
        annotation = _unwrapped(info.annotation)
        path = prefix + name
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            if info.default is None:  # an optional part: remember whether it is there at all
                yield Column(f"{path}?", "bool", f"whether {path} is present")
            yield from _columns(annotation, f"{path}.", text=info.description or text)
        else:
            parts = (text, info.description or "") if prefix else (info.description or "",)
            yield Column(path, "id" if path == "record_id" else _kind(annotation), ": ".join(filter(None, parts)))


def _unwrapped(annotation: Any) -> Any:
    """The type inside ``X | None`` and ``Annotated[X, ...]``."""
    while get_origin(annotation) in (Union, types.UnionType, Annotated):
        annotation = next(arg for arg in get_args(annotation) if arg is not type(None))
    return annotation


def _kind(annotation: Any) -> Kind:
    if annotation is float:
        return "float"
    if annotation is int:
        return "int"
    if annotation is bool:
        return "bool"
    if annotation is datetime:
        return "time"
    if annotation is str or get_origin(annotation) is Literal:
        return "str"
    if get_origin(annotation) in (dict, list):
        return "json"
    return "time"  # pydantic's AwareDatetime


def flatten(data: dict[str, Any], columns: tuple[Column, ...]) -> Row:
    """One row from a model's JSON form (nulls left out or not). Times become microseconds, free parts canonical JSON.

    Raises
    ------
    ValueError
        For an integer that does not fit in 64 bits, naming the field.
    """
    row: Row = {}
    _flatten(data, "", _plan(columns), row)
    return row


@cache
def _plan(columns: tuple[Column, ...]) -> dict[str, Any]:
    """The columns as a tree: key -> Kind of a leaf, or the tree of a part (whose "?" says that its presence is recorded)."""
    tree: dict[str, Any] = {}
    for column in columns:
        *parents, leaf = column.name.split(".")
        node = tree
        for part in parents:
            node = node.setdefault(part, {})
        if leaf.endswith("?"):
            node.setdefault(leaf[:-1], {})["?"] = True
        else:
            node[leaf] = column.kind
    return tree


def _flatten(data: dict[str, Any], prefix: str, plan: dict[str, Any], row: Row) -> None:
    for key, value in data.items():
        if value is None or key not in plan:
            continue
        kind, name = plan[key], prefix + key
        if isinstance(kind, dict):
            if "?" in kind:
                row[name + "?"] = True
            _flatten(value, name + ".", kind, row)
        elif kind == "json":
            row[name] = canonical_json(value)
        elif kind == "time":
            row[name] = (datetime.fromisoformat(value) - EPOCH) // MICROSECOND
        else:
            if kind == "int" and not INT_NULL < value <= np.iinfo(np.int64).max:
                raise ValueError(f"{name} = {value} does not fit in 64 bits")
            row[name] = value


def flatten_record(data: dict[str, Any]) -> Row:
    """The row of a record, given in its JSON form, with what is derived from it."""
    row = flatten(data, record_columns())
    row["cell_id"] = _cell_id(json.dumps(data["cell"]))
    row["digest"] = digest(canonical_json(data))
    return row


def to_json(thing: Record | Environment | Baseline) -> str:
    """The JSON form of something that is stored, as text, fast.

    Raises
    ------
    ValueError
        If it holds what JSON cannot say, or a number that does not fit into its column, naming it.
    """
    if not isinstance(thing, Record):
        return _that_comes_back(thing)
    text = thing.model_dump_json(exclude_none=True)
    if thing.started_at is None or any(sign in text for sign in SIGNS) or not _fits(thing):
        data = thing.to_dict()
        text = canonical_json(data)
        if "\ufffd" in text and Record.model_validate(data) != thing:
            raise ValueError("a text with lone surrogates, which are no characters, cannot be stored")
        for series in data.get("series", ()):
            flatten(series, series_columns())
        flatten_record(data)
    return text


def _that_comes_back(thing: Environment | Baseline) -> str:
    """JSON of something of which there are few, so that it can be read at once, as it will be read later."""
    what = type(thing).__name__.lower()
    try:
        text = canonical_json(thing.model_dump(mode="json", warnings=False))
        back = type(thing).model_validate_json(text)
    except ValueError as error:
        raise ValueError(f"the {what} would not come back ({error})") from None
    if back != thing:
        raise ValueError(f"the {what} would not come back as it is")
    return text


def _fits(record: Record) -> bool:
    """Whether every integer that has a column of its own fits into 64 bits."""
    of_record, of_series, of_footprint = _integers()
    values = list(of_record(record))
    for series in record.series:
        values += of_series(series)
        if series.footprint is not None:
            values += of_footprint(series.footprint)
    return all(value is None or INT_NULL < value < -INT_NULL for value in values)


@cache
def _integers() -> list[attrgetter[tuple[int | None, ...]]]:
    """What reads the integers of a record, of a series, and of its footprint."""
    record, series = (
        [column.name for column in columns if column.kind == "int" and column not in DERIVED]
        for columns in (record_columns(), series_columns())
    )
    footprint = [name for name in series if name.startswith("footprint.")]
    return [
        attrgetter(*record),
        attrgetter(*(name for name in series if name not in footprint)),
        attrgetter(*(name.removeprefix("footprint.") for name in footprint)),
    ]


def canonical_json(data: Any) -> str:
    """JSON text that is the same for the same content: keys sorted, no spaces."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(text: str) -> int:
    """What tells whether a record is intact, and the same as another: 64 bits of SHA-256, signed."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big", signed=True)


@lru_cache(maxsize=4096)
def _cell_id(cell: str) -> str:
    return Cell.model_validate_json(cell).id


def nest(row: dict[str, Any], columns: Iterable[Column]) -> dict[str, Any]:
    """Undo :func:`flatten`, for a row of decoded values: the nested dict that the model validates."""
    tree: dict[str, Any] = {}
    absent: list[str] = []
    for column in columns:
        value = row.get(column.name)
        if column.name.endswith("?"):
            if not value:
                absent.append(column.name[:-1] + ".")
            continue
        if column in DERIVED or column.name.startswith(tuple(absent)):
            continue
        *parents, leaf = column.name.split(".")
        node = tree
        for part in parents:
            node = node.setdefault(part, {})
        node[leaf] = json.loads(value) if column.kind == "json" and value is not None else value
    return tree
