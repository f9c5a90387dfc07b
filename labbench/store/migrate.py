"""Older schemas brought up to date: what a database, journal or exported line of an earlier labbench holds, as today's.

Every schema that was ever released has a small frozen file in ``tests/frozen``; the tests read them through this module.

======= ============================================================================================
schema  what changed with it
======= ============================================================================================
2       retractions, licences; medians and intervals may be missing (imports); samples and series by offset; checksums
3       only further fields that may be missing: memory format, KV cache, profile, advice. Read as it is, null where it lacks one
4       only further fields that may be missing: training variants, parts of a step, memory by cause, peak of a footprint
======= ============================================================================================
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from labbench.records import SCHEMA_VERSION, Environment, Record, upgrade
from labbench.store import disk
from labbench.store.columns import EPOCH, INT_NULL, MICROSECOND, canonical_json
from labbench.store.errors import damaged
from labbench.store.journal import Entry
from labbench.store.table import Builder, Contents


def read_older(path: Path, version: int) -> Contents:
    """Everything in a database of an earlier schema."""
    builder = Builder()
    try:
        with h5py.File(path, "r", locking=False) as file:
            for kind, value in READERS[version](file):
                builder.add(kind, _up_to_date(kind, value))
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError) as error:  # it has no checksums
        raise damaged(path, "the file", error) from None
    contents = builder.build()
    contents.version = version
    return contents


def keep_older(path: Path, version: int) -> None:
    """Give a file of an earlier schema a second name, before a new one takes its place."""
    keep = path.with_suffix(f".schema{version}{path.suffix}")
    if version < SCHEMA_VERSION and not keep.exists():
        disk.keep(path, keep)


def read_journal_of_schema_1(path: Path, data: bytes) -> tuple[list[Entry], bytes]:
    """Entries of a journal of schema 1, lines ``<crc32> {"type": ..., "value": ...}``, not numbered; and its torn end."""
    entries: list[Entry] = []
    lines = data.splitlines(keepends=True)
    for index, line in enumerate(lines):
        if line[:8] != b"%08x" % zlib.crc32(line[9:-1]) or not line.endswith(b"\n"):
            if index < len(lines) - 1:
                raise damaged(path.with_suffix(""), f"line {index + 1} of the journal")
            return entries, line
        entry = json.loads(line[9:])
        entries.append(Entry(0, entry["type"], _up_to_date(entry["type"], entry["value"]), 0))
    return entries, b""


def _up_to_date(kind: str, value: dict[str, Any]) -> str:
    """A record or environment of an earlier schema as today's canonical JSON."""
    if kind == "record":
        return canonical_json(Record.model_validate(upgrade(value)).to_dict())
    return canonical_json(Environment.model_validate(value).model_dump(mode="json"))


def _read_schema_1(file: h5py.File) -> list[tuple[str, dict[str, Any]]]:
    """Schema 1: ``/series/@record`` and ``/samples/count`` instead of offsets, texts of variable length, nothing checksummed."""
    series = _rows_of_schema_1(file["series"], file)
    ends = np.concatenate([[0], np.cumsum(file["samples/count"][()])]).astype(int)
    samples = {name: file[f"samples/{name}"][()] for name in ("seconds", "process", "round")}
    owned: dict[int, list[Any]] = {}
    for i, (record, row) in enumerate(zip(file["series/@record"][()].tolist(), series, strict=True)):
        part = slice(ends[i], ends[i + 1])
        row["samples"] = {name: array[part].tolist() for name, array in samples.items()}
        owned.setdefault(record, []).append(row)
    records = _rows_of_schema_1(file["records"], file)
    environments = [json.loads(_unescape(text)) for text in file["environments/json"].asstr()[()]]
    return [("environment", one) for one in environments] + [
        ("record", {**row, "series": owned.get(i, [])}) for i, row in enumerate(records)
    ]


def _rows_of_schema_1(group: h5py.Group, file: h5py.File) -> list[dict[str, Any]]:
    """Nested rows of a table; a part with a false ``part?`` column is absent."""
    columns = {name: _plain(dataset, file) for name, dataset in group.items() if not name.startswith("@")}
    rows = []
    for values in zip(*columns.values(), strict=True):
        row = dict(zip(columns, values, strict=True))
        absent = tuple(f"{name[:-1]}." for name, value in row.items() if name.endswith("?") and not value)
        tree: dict[str, Any] = {}
        for name, value in row.items():
            if name.endswith("?") or name.startswith(absent):
                continue
            *parents, leaf = name.split(".")
            node = tree
            for part in parents:
                node = node.setdefault(part, {})
            node[leaf] = value
        rows.append(tree)
    return rows


def _plain(dataset: h5py.Dataset, file: h5py.File) -> list[Any]:
    """Values of a column of schema 1 in their JSON form."""
    kind, values = dataset.attrs["kind"], dataset[()].tolist()
    if "categories" in dataset.attrs:
        texts = [_unescape(text) for text in file[dataset.attrs["categories"]].asstr()[()]]
        plain = [json.loads(text) for text in texts] if kind == "json" else texts
        return [None if code < 0 else plain[code] for code in values]
    if kind == "float":
        return [None if value != value else value for value in values]
    if kind == "bool":
        return [None if value < 0 else bool(value) for value in values]
    if kind == "time":
        return [None if v == INT_NULL else (EPOCH + v * MICROSECOND).isoformat() for v in values]
    return [None if value == INT_NULL else value for value in values]


def _unescape(text: str) -> str:
    return "\\".join(part.replace("\\0", "\0") for part in text.split("\\\\"))


READERS = {1: _read_schema_1}
