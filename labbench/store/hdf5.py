"""Columns to and from one HDF5 file that h5py, h5dump or a viewer can read without labbench.

Layout: ``/records/<column>`` and ``/series/<column>`` (codes of text columns have their texts in ``/categories/...``),
``/series/@record``, ``/samples/{count,seconds,process,round}``, ``/environments/{id,json}``. Every dataset has its
unit and description as attributes. A file is never changed in place: it is written anew beside the old one and renamed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from labbench.records import SCHEMA_VERSION
from labbench.store.columns import SAMPLE_COLUMNS, Coded, Contents, Table, Values, record_columns, series_columns

FORMAT = "labbench"
TEXT = h5py.string_dtype("utf-8")


class StoreError(Exception):
    """A database that cannot be read or written; the message says which, why, and the way out."""


def write(path: Path, contents: Contents) -> None:
    """Replace the file at ``path`` in one step: write beside it, sync, rename, sync the folder."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with h5py.File(temporary, "w") as file:
            _write(file, contents)
        with open(temporary, "rb+") as raw:
            os.fsync(raw.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames and creations in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(file: h5py.File, contents: Contents) -> None:
    file.attrs.update(format=FORMAT, schema_version=SCHEMA_VERSION)
    for name, table in (("records", contents.records), ("series", contents.series)):
        for column in table.columns:
            values = table.values[column.name]
            path = f"{name}/{column.name}"
            stored = values.codes if isinstance(values, Coded) else values
            dataset = file.create_dataset(path, data=stored.astype(column.dtype))
            dataset.attrs.update(kind=column.kind, unit=column.unit, description=column.description)
            if isinstance(values, Coded):
                categories = f"categories/{path}"
                _write_text(file, categories, values.categories)
                dataset.attrs["categories"] = f"/{categories}"
    file.create_dataset("series/@record", data=contents.record_of_series)
    file["series/@record"].attrs["description"] = "row in /records that the series belongs to"
    file.create_dataset("samples/count", data=contents.sample_counts)
    file["samples/count"].attrs["description"] = "samples of each series; they follow one another in series order"
    for name, dtype in SAMPLE_COLUMNS.items():
        file.create_dataset(f"samples/{name}", data=contents.samples[name].astype(dtype))
    file["samples/seconds"].attrs["unit"] = "s"
    _write_text(file, "environments/id", contents.environments)
    _write_text(file, "environments/json", contents.environments.values())


def _write_text(file: h5py.File, path: str, texts: Any) -> None:
    """Texts as UTF-8; backslashes are doubled and NUL, which HDF5 strings cannot hold, is backslash and zero."""
    file.create_dataset(path, data=[text.replace("\\", "\\\\").replace("\0", "\\0") for text in texts], dtype=TEXT)


def _read_text(dataset: h5py.Dataset) -> np.ndarray:
    raw = dataset.asstr()[()]
    return np.array([_unescape(text) if "\\" in text else text for text in raw], dtype=object)


def _unescape(text: str) -> str:
    return "\\".join(part.replace("\\0", "\0") for part in text.split("\\\\"))


def read(path: Path) -> Contents:
    """Everything in the file.

    Raises
    ------
    StoreError
        If it is not a labbench database, or was written by a newer version.
    """
    try:
        file = h5py.File(path, "r", locking=False)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StoreError(f"{path} cannot be read as HDF5 ({error}); restore it from a backup") from None
    with file:
        if file.attrs.get("format") != FORMAT:
            raise StoreError(f"{path} is an HDF5 file, but not a labbench database; choose another path")
        version = int(file.attrs["schema_version"])
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"{path} has schema {version}; this labbench reads up to {SCHEMA_VERSION}: install a newer labbench"
            )
        return Contents(
            records=_read_table(file, "records", record_columns()),
            series=_read_table(file, "series", series_columns()),
            record_of_series=file["series/@record"][()],
            sample_counts=file["samples/count"][()],
            samples={name: file[f"samples/{name}"][()] for name in SAMPLE_COLUMNS},
            environments=dict(
                zip(_read_text(file["environments/id"]), _read_text(file["environments/json"]), strict=True)
            ),
        )


def _read_table(file: h5py.File, name: str, columns: Any) -> Table:
    values: dict[str, Values] = {}
    for column in columns:
        dataset = file[f"{name}/{column.name}"]
        stored = dataset[()]
        if "categories" in dataset.attrs:
            values[column.name] = Coded(stored, _read_text(file[dataset.attrs["categories"]]))
        else:
            values[column.name] = stored
    return Table(columns, values)
