"""Columns to and from one HDF5 file that h5py, h5dump or a viewer can read without labbench.

Layout
------
``/records/<column>``
    One entry a record. A text column holds small integers; its attribute ``categories`` names the dataset with the texts.
``/records/@series``
    Record ``i`` owns rows ``@series[i]`` to ``@series[i + 1]`` of ``/series``.
``/series/<column>``, ``/series/@samples``
    One entry a series; series ``j`` owns ``/samples/*[@samples[j] : @samples[j + 1]]``.
``/samples/{seconds,process,round}``
    Raw samples.
``/environments/{id,json}``, ``/baselines/<column>``
    Machines with their software, and pinned baselines.
``/index/record_id``
    Rows of ``/records`` in ascending order of ``record_id``.
``/chart``
    A second way to all this, should HDF5 not find it (:mod:`labbench.store.chart`).

Every dataset carries its unit, its description and the CRC-32 of its values; a chunk carries a Fletcher-32 checksum, and so
does, in this version of the format (HDF5 1.10), all metadata. The image of a file is made in memory and written as a
whole, so a full disk can break no half-written file and a file is never changed in place.
"""

from __future__ import annotations

import itertools
import uuid
import zlib
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np

from labbench import __version__
from labbench.records import SCHEMA_VERSION
from labbench.store import chart, disk
from labbench.store.chart import Chart, plain
from labbench.store.columns import INT_NULL, SAMPLE_COLUMNS, Column, baseline_columns, series_columns
from labbench.store.errors import StoreError, damaged
from labbench.store.table import Coded, Contents, Table, TableName, Values, lengths, spans

SIGNATURE = b"\x89HDF\r\n\x1a\n"
FORMAT = "labbench"
ABOUT = "labbench database; https://docs.hdfgroup.org tells how to read HDF5. See the attributes of each dataset."
CHUNK = 8192  # rows: a chunk is the least that is read, 64 KiB of floats
SAMPLE_CHUNK = 2048  # of samples, which are read a record at a time
COMPRESSIBLE = 4  # times smaller: below that, inflating a column costs more than reading it
COMPRESSIBLE_SAMPLES = 1.5  # the same for samples, of which few are read at once
ROOM_OF_LAYOUTS = 4096  # bytes: the chart of a small database takes 3200
ROOM_OF_CHUNK = 10  # bytes more for each chunk
TRIAL = 1 << 15  # bytes compressed to find out
LONG_TEXTS = 1 << 20  # bytes that texts may take when padded to the longest; beyond, they are stored end to end
SAMPLE_TEXT = {
    "seconds": ("s", "seconds per call, in the order taken"),
    "process": ("", "index of the worker process that took the sample"),
    "round": ("", "index of the interleaved round, counted within the process"),
}


def write(path: Path, contents: Contents, folded: int = 0) -> None:
    """Replace the file at ``path`` in one step; ``folded`` is the number of the last journal entry that is in it."""
    disk.write_whole(path, image(contents, folded))


def image(contents: Contents, folded: int = 0, room: int | None = None) -> bytes:
    """The bytes of an HDF5 file with everything in ``contents``; ``room`` is how many the chart may take."""
    # HDF5 1.10 is the first whose metadata has checksums throughout; every build since 2016 reads it.
    versions = ("v110", "v110")
    room = room or _room_of_chart(contents)
    with h5py.File(f"labbench-{uuid.uuid4().hex}", "w", driver="core", backing_store=False, libver=versions) as file:
        _describe(file, format=FORMAT, schema_version=SCHEMA_VERSION, labbench_version=__version__, folded=folded)
        _describe(file, about=ABOUT)
        place = file.create_dataset(chart.NAME, data=np.zeros(room, np.uint8))
        _describe(place, description=chart.ABOUT)
        _write_everything(file, contents)
        file.flush()
        packed, at = Chart.of(file).pack(), place.id.get_offset()
        data: bytes = file.id.get_file_image()
    if len(packed) > room:
        return image(contents, folded, 2 * len(packed))
    return data[:at] + packed + data[at + len(packed) :]


def _room_of_chart(contents: Contents) -> int:
    """Enough, as a rule: the names and types of the columns, and for each chunk where it is."""
    chunks = sum(len(table) // CHUNK * len(table.columns) for table in (contents.records, contents.series))
    chunks += len(contents.raw["seconds"]) // SAMPLE_CHUNK * len(contents.raw)
    return ROOM_OF_LAYOUTS + ROOM_OF_CHUNK * chunks


def _write_everything(file: h5py.File, contents: Contents) -> None:
    """What is large and least needed comes last: a file that was cut short keeps the rest."""
    _write_table(file, "records", contents.records)
    _write_table(file, "series", contents.series)
    _write_table(file, "baselines", contents.baselines)
    _write(file, "records/@series", contents.first_series, "row of each record's first series in /series; one more")
    about = "position of each series' first sample in /samples; one more"
    _write(file, "series/@samples", contents.first_sample, about)
    _write_texts(file, "environments/id", list(contents.environments), "content-derived id")
    _write_texts(file, "environments/json", list(contents.environments.values()), "machine and software")
    order = np.argsort(contents.record_ids, kind="stable").astype(np.uint32)
    _write(file, "index/record_id", order, "rows of /records in ascending order of record_id")
    for name, (unit, text) in reversed(SAMPLE_TEXT.items()):  # `seconds` last
        values = contents.raw[name]
        if values.dtype.kind == "u":
            values = values.astype(np.min_scalar_type(values.max(initial=0)))
        _write(file, f"samples/{name}", values, text, unit=unit)


def _write_table(file: h5py.File, name: str, table: Table) -> None:
    for column in table.columns:
        values, null = table.values[column.name], column.null
        path, categories = f"{name}/{column.name}", f"categories/{name}/{column.name}"
        more: dict[str, Any] = {"kind": column.kind}
        if isinstance(values, Coded):
            _write_texts(file, categories, list(values.categories), f"texts of /{path}")
            more["categories"] = f"/{categories}"
            values = values.codes.astype(_integer_type(-1, len(values.categories)))
        elif column.kind == "int":
            values, null = _narrowed(values)
        _write(file, path, values, column.description, column.unit, null, **more)


def _integer_type(low: int, high: int) -> type[np.signedinteger[Any]]:
    """The smallest that holds both and has its least value to spare, for null."""
    kinds: tuple[type[np.signedinteger[Any]], ...] = (np.int8, np.int16, np.int32, np.int64)
    return next(t for t in kinds if np.iinfo(t).min < low and high <= np.iinfo(t).max)


def _narrowed(values: np.ndarray) -> tuple[np.ndarray, int]:
    """Integers in the smallest type that holds them, and what is null in it: less to inflate."""
    null = values == INT_NULL
    known = values[~null]
    kind = _integer_type(int(known.min(initial=0)), int(known.max(initial=0)))
    narrow = values.astype(kind)
    narrow[null] = np.iinfo(kind).min
    return narrow, np.iinfo(kind).min


def widened(column: Column, values: np.ndarray) -> np.ndarray:
    """A column as it is in memory, of what :func:`_narrowed` made of it."""
    if column.kind != "int" or values.dtype.itemsize == 8:
        return values
    wide = values.astype(np.int64)
    wide[values == np.iinfo(values.dtype).min] = INT_NULL
    return wide


def _write(
    file: h5py.File, path: str, values: np.ndarray, text: str, unit: str = "", null: Any = None, **more: Any
) -> None:
    samples = path.startswith("samples/")
    chunks = _chunks(len(values), SAMPLE_CHUNK if samples else CHUNK)
    filters: dict[str, Any] = {}
    if chunks:
        filters = {"chunks": chunks, "fletcher32": True}
        if _compressible(values, COMPRESSIBLE_SAMPLES if samples else COMPRESSIBLE):
            filters |= {"compression": "gzip", "compression_opts": 1, "shuffle": True}
    if len(values) and null is not None and _all_null(values, null):  # takes no room: nothing is written
        dataset = file.create_dataset(path, shape=values.shape, dtype=values.dtype, fillvalue=null, **filters)
    else:
        dataset = file.create_dataset(path, data=values, **filters)
    if null is not None and values.dtype.kind == "i":
        more["null"] = values.dtype.type(null)
    _describe(dataset, description=text, unit=unit, crc32=np.uint32(crc32(values)), **more)


def _chunks(length: int, most: int) -> tuple[int] | None:
    """Chunks of equal size, so that the last is not filled up with what nobody needs."""
    return (-(-length // -(-length // most)),) if length else None


def _describe(thing: h5py.Group | h5py.Dataset, **attributes: Any) -> None:
    """Set attributes. Texts have a fixed length: HDF5 keeps others in a heap that has no checksum."""
    for key, value in attributes.items():
        if isinstance(value, str) and value:
            raw = value.encode()
            thing.attrs.create(key, np.array(raw, dtype=h5py.string_dtype("utf-8", len(raw))))
        elif not isinstance(value, str):
            thing.attrs[key] = value


def crc32(values: np.ndarray) -> int:
    """CRC-32 of an array's bytes."""
    return zlib.crc32(np.ascontiguousarray(values).view(np.uint8).data) if values.size else 0


def _all_null(values: np.ndarray, null: Any) -> bool:
    return bool(np.isnan(values).all() if null != null else (values == null).all())


def _compressible(values: np.ndarray, times: float) -> bool:
    """Whether gzip makes the values so many times smaller; few values always are, next to a chunk's padding."""
    if len(values) < CHUNK:
        return True
    width = values.dtype.itemsize
    trial = values[: TRIAL // width]
    shuffled = trial.view(np.uint8).reshape(-1, width).T.tobytes()
    return len(zlib.compress(shuffled, 1)) * times <= len(shuffled)


def _write_texts(file: h5py.File, path: str, texts: list[str], about: str) -> None:
    r"""Texts as fixed-length UTF-8 or, if a few are much longer than the others, end to end with offsets.

    Backslashes are doubled, and NUL, which pads HDF5 strings, is backslash and zero.
    """
    raw = [text.replace("\\", "\\\\").replace("\0", "\\0").encode() for text in texts]
    lengths = np.array([len(text) for text in raw], dtype=np.int64)
    longest = int(lengths.max(initial=1)) or 1
    if longest * len(raw) <= max(LONG_TEXTS, 4 * int(lengths.sum())):
        array = np.array(raw, dtype=f"S{longest}")
        _write(file, path, array.astype(h5py.string_dtype("utf-8", longest)), about)
    else:
        _write(file, f"{path}/utf8", np.frombuffer(b"".join(raw), np.uint8), about + ", UTF-8 end to end")
        ends = np.concatenate([[0], np.cumsum(lengths)])
        _write(file, f"{path}/offsets", ends, "position of each text's first byte; one more")


class _Missing(KeyError):
    """There is no such dataset."""


class File:
    """An open database file that reads the columns it is asked for (a :class:`labbench.store.table.Source`).

    Raises
    ------
    StoreError
        If it is no labbench database, was written by a newer version, or is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open_datasets: dict[str, Any] = {}
        try:
            self._file = _open(path)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StoreError(_unreadable(path, error)) from None
        try:
            self._read_attributes()
        except BaseException:
            self._file.close()
            raise

    def _read_attributes(self) -> None:
        attributes = self._attributes()
        self.version = schema_of(self.path, attributes)
        self.folded = int(attributes.get("folded", 0))

    def _attributes(self) -> dict[str, Any]:
        try:
            return plain(self._file.attrs)
        except (OSError, RuntimeError, KeyError, TypeError) as error:
            raise damaged(self.path, "its header", error) from None

    def close(self) -> None:
        """Close the file."""
        self._open_datasets.clear()
        self._file.close()

    def __len__(self) -> int:
        return len(self.first_series) - 1

    def read(self, name: str, rows: np.ndarray | None = None) -> np.ndarray:
        """A dataset, whole or at ascending rows; only chunks with such rows are read."""
        try:
            return self._read(name, rows)
        except _Missing:
            raise damaged(self.path, f"/{name}", "missing") from None

    def _read(self, name: str, rows: np.ndarray | None = None) -> np.ndarray:
        """The same; raises :class:`_Missing` if there is no such dataset."""
        if rows is None:
            return self._span(name, 0, self._dataset(name).shape[0])
        if not len(rows):
            return self._span(name, 0, 0)
        runs = np.split(rows, np.flatnonzero(np.diff(rows // CHUNK, prepend=rows[0] // CHUNK) > 1))
        parts = [self._span(name, run[0], run[-1] + 1)[run - run[0]] for run in runs]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _span(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows of a dataset from one on up to another."""
        dataset = self._dataset(name)
        out = np.empty(stop - start, dataset.dtype)
        if stop > start:
            try:
                space = dataset.get_space()
                space.select_hyperslab((int(start),), (int(stop - start),))
                dataset.read(h5py.h5s.create_simple(out.shape), space, out)
            except (OSError, RuntimeError) as error:
                raise damaged(self.path, f"/{name}", error) from None
        return out

    def _dataset(self, name: str) -> Any:
        """The open dataset."""
        if name not in self._open_datasets:
            try:
                self._open_datasets[name] = h5py.h5d.open(self._file.id, name.encode())
            except (KeyError, OSError, RuntimeError) as error:
                if self.has(name) and not self.has(f"{name}/utf8"):
                    raise damaged(self.path, f"/{name}", error) from None
                raise _Missing(name) from None
        return self._open_datasets[name]

    def has(self, name: str) -> bool:
        """Whether there is a dataset or group of that name."""
        try:
            return name in self._file
        except (OSError, RuntimeError, KeyError) as error:
            raise damaged(self.path, f"/{name}", error) from None

    @cached_property
    def first_series(self) -> np.ndarray:
        """See :class:`labbench.store.table.Source`."""
        return self.read("records/@series")

    @cached_property
    def first_sample(self) -> np.ndarray:
        """See :class:`labbench.store.table.Source`."""
        return self.read("series/@samples")

    def column(self, table: TableName, column: Column, rows: np.ndarray | None = None) -> Values:
        """See :class:`labbench.store.table.Source`. A column that the file does not have is all null."""
        if (
            table == "series" and column.name == "name" and rows is not None
        ):  # asked for with the samples of every record
            return self._series_names[rows]
        return self._column(table, column, rows)

    @cached_property
    def _series_names(self) -> Values:
        return self._column("series", next(column for column in series_columns() if column.name == "name"))

    def _column(self, table: str, column: Column, rows: np.ndarray | None = None) -> Values:
        name = f"{table}/{column.name}"
        coded = column.kind in ("str", "json")
        try:
            values = self._read(name, rows)
        except _Missing:
            owner = self.first_series if table == "records" else self.first_sample
            values = np.full(len(owner) - 1 if rows is None else len(rows), column.null, column.dtype)
            return Coded(values, np.array([], dtype=object)) if coded else values
        return Coded(values, self._texts(f"categories/{name}")) if coded else widened(column, values)

    def _texts(self, name: str) -> np.ndarray:
        cached = self._open_datasets.get(f"texts {name}")
        if cached is None:
            try:
                texts = read_texts(self._read, name)
            except _Missing:
                texts = read_texts(self.read, name, packed=True)
            except ValueError as error:
                raise damaged(self.path, f"/{name}", error) from None
            cached = self._open_datasets[f"texts {name}"] = np.array(texts, dtype=object)
        return cached

    def samples(self, name: str, series: np.ndarray | None = None) -> np.ndarray:
        """See :class:`labbench.store.table.Source`."""
        return self._samples(f"samples/{name}", series).astype(SAMPLE_COLUMNS[name], copy=False)

    def _samples(self, name: str, series: np.ndarray | None) -> np.ndarray:
        if series is None:
            return self.read(name)
        if len(series) and series[-1] - series[0] == len(series) - 1:  # as the series of one record are
            return self._span(name, self.first_sample[series[0]], self.first_sample[series[-1] + 1])
        return self.read(name, spans(self.first_sample[series], lengths(self.first_sample, series)))

    @cached_property
    def record_ids(self) -> np.ndarray:
        """Id of each record, as bytes."""
        return self.read("records/record_id")

    @cached_property
    def _order(self) -> np.ndarray:
        return self.read("index/record_id")

    def find(self, record_ids: Iterable[str]) -> np.ndarray:
        """Rows of the records with the given ids, ascending; ids that are not there are left out."""
        from bisect import bisect_left

        ids, order = self.record_ids, self._order
        rows = []
        for text in record_ids:
            key = text.encode(errors="surrogatepass")
            at = bisect_left(order, key, key=ids.__getitem__)
            if at < len(order) and ids[order[at]] == key:
                rows.append(int(order[at]))
        return np.unique(np.array(rows, dtype=np.int64))

    @cached_property
    def environments(self) -> dict[str, str]:
        """Environment id to JSON."""
        return dict(zip(self._texts("environments/id"), self._texts("environments/json"), strict=True))

    @cached_property
    def baselines(self) -> Table:
        """The pinned baselines."""
        return Table(baseline_columns(), {c.name: self._column("baselines", c) for c in baseline_columns()})


def schema_of(path: Path, attributes: Mapping[str, Any]) -> int:
    """The schema of a file with the given attributes; raises ``StoreError`` if it is not ours, or newer than we are."""
    if attributes.get("format") != FORMAT:
        raise StoreError(f"{path} is an HDF5 file, but not a labbench database; choose another path")
    try:
        version = int(attributes["schema_version"])
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(path, "its schema_version", error) from None
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"{path} has schema {version}; this labbench ({__version__}) reads up to {SCHEMA_VERSION}: "
            f"install labbench {attributes.get('labbench_version', 'in a newer version')} or later"
        )
    return version


def _open(path: Path) -> h5py.File:
    """Open for reading, with HDF5's lock where there are locks: a process that has one open can open others the same way."""
    try:
        return h5py.File(path, "r")
    except FileNotFoundError:
        raise
    except OSError:
        return h5py.File(path, "r", locking=False)


def read_texts(
    read: Callable[[str], np.ndarray],
    name: str,
    *,
    packed: bool = False,
    errors: Literal["strict", "replace"] = "strict",
) -> list[str]:
    """What :func:`_write_texts` wrote; ``packed`` if it did so end to end."""
    if packed:
        data, ends = read(f"{name}/utf8").tobytes(), read(f"{name}/offsets").tolist()
        raw = [data[start:end] for start, end in itertools.pairwise(ends)]
    else:
        raw = read(name).tolist()
    return [_unescape(text.decode(errors=errors)) for text in raw]


def _unescape(text: str) -> str:
    return "\\".join(part.replace("\\0", "\0") for part in text.split("\\\\")) if "\\" in text else text


def _unreadable(path: Path, error: OSError) -> str:
    if isinstance(error, PermissionError):
        return f"{path} may not be read by this user; change its permissions"
    start = path.read_bytes()[:8] if path.is_file() else b""
    if start == SIGNATURE:
        return str(damaged(path, "the file", error))
    return f"{path} is no HDF5 file; choose another path"
