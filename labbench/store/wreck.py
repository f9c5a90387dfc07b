"""A database file that may be damaged anywhere, read as far as it goes.

Values that cannot be right become null, and those that may be wrong stay: the digest of each record tells which are.
"""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from labbench.records import RECORD_ID, SCHEMA_VERSION, Environment
from labbench.store import hdf5
from labbench.store.chart import Chart
from labbench.store.columns import (
    INT_NULL,
    SAMPLE_COLUMNS,
    Column,
    baseline_columns,
    record_columns,
    series_columns,
)
from labbench.store.errors import StoreError
from labbench.store.table import Coded, Contents, Table, Values, offsets, spans

Say = Callable[[str, str, bool], None]  # place, what is wrong there, whether something is lost by it
YEARS = 1900 * 365 * 86400 * 10**6  # microseconds: a time further from 1970 than that is none
EOF_ADDRESS = slice(28, 36)  # in the superblock of version 3; HDF5 file format specification, III.A


class Wreck:
    """The bytes of a database file.

    Parameters
    ----------
    path : path
        Its name, for messages.
    data : bytes
        What it contains.
    say : callable
        Called with each place that is not as it should be, what is wrong there, and whether records are lost by it that
        cannot be named.

    Attributes
    ----------
    chart : Chart or None
        Where everything is; None if that cannot be found out.
    damaged : set of str
        Datasets whose values are not those that were written.

    Raises
    ------
    StoreError
        If it is no HDF5 file, or not ours.
    """

    def __init__(self, path: Path, data: bytes, say: Say) -> None:
        self.say = say
        self.damaged: set[str] = set()
        self._data = data
        self._file = self._open(path)
        self.chart = Chart.unpack(data)
        if self.chart is None and self._file is not None:
            try:
                self.chart = Chart.of(self._file)
            except (OSError, RuntimeError, KeyError) as error:
                say(str(path), f"its attributes cannot be read ({error})", False)
        self.version = 0 if self.chart is None else hdf5.schema_of(path, self.chart.attributes)

    def _open(self, path: Path) -> h5py.File | None:
        """By HDF5, if that can; a file that was cut short as if zeros were where the rest was."""
        data = self._data
        if not data.startswith(hdf5.SIGNATURE) and Chart.unpack(data) is None:
            raise StoreError(f"{path} is no HDF5 file; choose another path")
        stated = int.from_bytes(data[EOF_ADDRESS], "little")
        if len(data) < stated < 2 * len(data) + 2**30:
            self.say(str(path), f"cut short: {len(data)} bytes of {stated}", False)
            data = data + bytes(stated - len(data))
        try:
            return h5py.File(io.BytesIO(data), "r")
        except (OSError, RuntimeError) as error:
            self.say(str(path), f"HDF5 cannot open it ({error})", False)
            return None

    def contents(self) -> Contents:
        """Everything there is, as it is."""
        assert self.chart is not None
        if Chart.unpack(self._data) is None:
            self.say("/chart", "damaged or missing", False)
        self._arrays = {name: self._array(name) for name in self.chart.layouts}
        self._examine_hdf5()
        records, series = self._table("records", record_columns()), self._table("series", series_columns())
        raw = {name: self._arrays.get(f"samples/{name}", np.empty(0, kind)) for name, kind in SAMPLE_COLUMNS.items()}
        first, counts = self._stretches("records/@series", len(records), len(series))
        samples = min(len(array) for array in raw.values())
        first_sample, sample_counts = self._stretches("series/@samples", len(series), samples)
        rows = spans(first, counts)
        positions = spans(first_sample[rows], sample_counts[rows])
        self._examine_index(records)
        return Contents(
            records=records,
            series=series.take(rows),
            first_series=offsets(counts),
            first_sample=offsets(sample_counts[rows]),
            raw={name: array[positions].astype(SAMPLE_COLUMNS[name], copy=False) for name, array in raw.items()},
            environments=self._environments(),
            baselines=self._table("baselines", baseline_columns()),
            folded=int(self.chart.attributes["folded"]),
        )

    def _array(self, name: str) -> np.ndarray:
        assert self.chart is not None
        layout = self.chart.layouts[name]
        values = layout.read(self._data)
        if hdf5.crc32(values) != layout.crc32:
            self._damage(name, "its values do not match their checksum")
        return values

    def _examine_hdf5(self) -> None:
        """Whether the HDF5 library finds the same values."""
        assert self.chart is not None
        unreadable = {}
        for name, layout in self.chart.layouts.items():
            try:
                dataset = None if self._file is None or name in self.damaged else self._file[name]
                if dataset is not None and not layout.crc32 == dataset.attrs["crc32"] == hdf5.crc32(dataset[()]):
                    unreadable[name] = "other values"
            except (OSError, RuntimeError, KeyError) as error:
                unreadable[name] = str(error)
        for name, why in list(unreadable.items())[:1]:
            more = f" and {len(unreadable) - 1} other datasets" if len(unreadable) > 1 else ""
            self.say(f"/{name}{more}", f"HDF5 cannot read this ({why}), but it is intact or can be put right", False)

    def _damage(self, name: str, what: str, lost: bool = False) -> None:
        self.damaged.add(name)
        self.say(f"/{name}", what, lost)

    def _table(self, table: str, columns: tuple[Column, ...]) -> Table:
        arrays = [array for name, array in self._arrays.items() if name.startswith(f"{table}/") and "@" not in name]
        [(length, _)] = Counter(map(len, arrays)).most_common(1) or [(0, 0)]
        return Table(columns, {c.name: self._column(f"{table}/{c.name}", c, length) for c in columns})

    def _column(self, name: str, column: Column, length: int) -> Values:
        values = self._arrays.get(name)
        if (
            values is None and self.version < SCHEMA_VERSION
        ):  # a field that came later; a lost one fails its record's digest
            nothing = np.full(length, column.null, column.dtype)
            return Coded(nothing, np.array([], dtype=object)) if column.kind in ("str", "json") else nothing
        if values is None or len(values) != length:
            what = "missing" if values is None else f"{len(values)} values instead of {length}"
            self._damage(name, what, lost=True)
            values = np.full(length, column.null, column.dtype)
        if column.kind in ("str", "json"):
            texts = self._texts(f"categories/{name}")
            if column.kind == "json":
                texts = [text if _is_json(text) else "null" for text in texts]
            possible = (values >= 0) & (values < len(texts))
            return Coded(np.where(possible, values, -1).astype(np.int32), np.array(texts, dtype=object))
        if column.kind == "time":
            return np.where(np.abs(values.astype(float)) < YEARS, values, INT_NULL)
        if column.kind == "id":
            return np.array([one if re.match(RECORD_ID.encode(), one) else b"" for one in values.tolist()], "S32")
        return hdf5.widened(column, values)

    def _texts(self, name: str) -> list[str]:
        try:
            packed = f"{name}/utf8" in self._arrays
            return hdf5.read_texts(self._arrays.__getitem__, name, packed=packed, errors="replace")
        except KeyError:
            self._damage(name, "missing", lost=True)
            return []

    def _stretches(self, name: str, owners: int, total: int) -> tuple[np.ndarray, np.ndarray]:
        """Start and length of what each owner has; empty where that cannot be."""
        found = self._arrays.get(name, np.empty(0, dtype=np.int64))
        edges = np.full(owners + 1, -1, dtype=np.int64)
        edges[: len(found)] = found[: owners + 1]
        start, end = edges[:-1], edges[1:]
        sound = (start >= 0) & (start <= end) & (end <= total)
        whole = len(found) == owners + 1 and sound.all() and edges[0] == 0 and edges[-1] == total
        if name not in self.damaged and not whole:
            self._damage(name, "its stretches do not fit what they point to")
        return np.where(sound, start, 0), np.where(sound, end - start, 0)

    def _examine_index(self, records: Table) -> None:
        index, ids = self._arrays.get("index/record_id"), records.values["record_id"]
        if {"index/record_id", "records/record_id"} & self.damaged:
            return
        if index is None or not np.array_equal(index, np.argsort(ids, kind="stable")):  # type: ignore[arg-type]
            self._damage("index/record_id", "not the order of the record ids")

    def _environments(self) -> dict[str, str]:
        intact = {}
        for text in self._texts("environments/json"):
            try:
                intact[Environment.model_validate_json(text).id] = text
            except ValueError:
                self.say("an environment", f"not valid: {text[:60]!r}", True)
        for key in set(self._texts("environments/id")) ^ intact.keys():
            self.say(f"environment {key}", "its content and its id do not fit", False)
        return intact


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
