"""Where the bytes of each dataset lie: kept at the start of a database file, for a repair without HDF5.

The HDF5 library refuses a file, or a whole dataset, for one wrong bit in its metadata, and a file that was cut short altogether.
The chart is a second way to the values: what it takes to find and undo every chunk. To HDF5 it is a dataset, ``/chart``.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, NamedTuple

import h5py
import numpy as np

NAME = "chart"
ABOUT = "where each chunk of each dataset lies, for a repair without HDF5: zlib-compressed JSON after 20 bytes"
HEAD = struct.Struct("<8sQI")  # magic, then length and CRC-32 of what follows
MAGIC = b"labchart"
WORD_SUMS = 65535  # Fletcher-32 sums modulo this
FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32"}  # numbers of the HDF5 specification


class Chunk(NamedTuple):
    """One stored chunk: its first row, and where its bytes are."""

    row: int
    at: int
    size: int
    mask: int  # bit i is set if filter i was left out


@dataclass(frozen=True)
class Layout:
    """How a dataset of one dimension is stored."""

    dtype: str
    length: int
    chunk: int
    filters: tuple[str, ...]
    fill: str  # bytes of the value where no chunk is, in hex
    crc32: int
    chunks: tuple[Chunk, ...]

    @classmethod
    def of(cls, dataset: h5py.Dataset) -> Layout:
        """Take it down from the open dataset."""
        found: list[Chunk] = []
        plist = dataset.id.get_create_plist()
        if dataset.chunks:
            dataset.id.chunk_iter(
                lambda info: found.append(Chunk(info.chunk_offset[0], info.byte_offset, info.size, info.filter_mask))
            )
        return cls(
            dtype=dataset.dtype.str,
            length=dataset.shape[0],
            chunk=dataset.chunks[0] if dataset.chunks else 0,
            filters=tuple(FILTERS[plist.get_filter(i)[0]] for i in range(plist.get_nfilters())),
            fill=np.asarray(dataset.fillvalue, dataset.dtype).tobytes().hex(),
            crc32=int(dataset.attrs["crc32"]),
            chunks=tuple(found),
        )

    @cached_property
    def nothing(self) -> Any:
        """The value where nothing is stored."""
        return np.frombuffer(bytes.fromhex(self.fill), self.dtype)[0]

    def read(self, data: bytes) -> np.ndarray:
        """The values, as far as they can be read: right ones where the bytes are right. Others must be told by checksum."""
        values = np.full(self.length, self.nothing, self.dtype)
        for chunk in self.chunks:
            part = self._decoded(data[chunk.at : chunk.at + chunk.size], chunk.mask)
            count = min(len(part), self.length - chunk.row)
            values[chunk.row : chunk.row + count] = part[:count]
        return values

    def _decoded(self, raw: bytes, mask: int) -> np.ndarray:
        dtype = np.dtype(self.dtype)
        for i, name in reversed(list(enumerate(self.filters))):
            if mask >> i & 1:
                continue
            if name == "fletcher32":
                raw = corrected(raw)
            elif name == "gzip":
                try:
                    raw = zlib.decompress(raw)
                except zlib.error:
                    return np.empty(0, dtype)
            else:
                raw = np.frombuffer(raw[: len(raw) // dtype.itemsize * dtype.itemsize], np.uint8).reshape(
                    dtype.itemsize, -1
                ).T.tobytes()  # fmt: skip
        return np.frombuffer(raw[: len(raw) // dtype.itemsize * dtype.itemsize], dtype)


@dataclass(frozen=True)
class Chart:
    """Layouts of all datasets by path, and the attributes that say what the file is."""

    attributes: dict[str, Any]
    layouts: dict[str, Layout]

    @classmethod
    def of(cls, file: h5py.File) -> Chart:
        """Take it down from an open file whose content is flushed; datasets that cannot be opened are left out."""
        layouts: dict[str, Layout] = {}
        _visit(file, layouts)
        return cls(plain(file.attrs), layouts)

    def pack(self) -> bytes:
        """The bytes of the chart."""
        names = [field.name for field in fields(Layout)]
        layouts = {path: [getattr(one, name) for name in names] for path, one in self.layouts.items()}
        packed = zlib.compress(json.dumps([self.attributes, layouts]).encode(), 9)
        return HEAD.pack(MAGIC, len(packed), zlib.crc32(packed)) + packed

    @classmethod
    def unpack(cls, data: bytes) -> Chart | None:
        """The chart in the bytes of a file; None if there is none, or it is damaged."""
        at = data.find(MAGIC)
        if at < 0 or len(data) < at + HEAD.size:
            return None
        _, length, crc = HEAD.unpack_from(data, at)
        packed = data[at + HEAD.size : at + HEAD.size + length]
        if zlib.crc32(packed) != crc:
            return None
        attributes, layouts = json.loads(zlib.decompress(packed))
        return cls(attributes, {name: _layout(*one) for name, one in layouts.items()})


def plain(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes as Python numbers and texts."""
    values = {key: value.tolist() if hasattr(value, "tolist") else value for key, value in attributes.items()}
    return {key: value.decode() if isinstance(value, bytes) else value for key, value in values.items()}


def _layout(
    dtype: str, length: int, chunk: int, filters: list[str], fill: str, crc32: int, chunks: list[Any]
) -> Layout:
    return Layout(dtype, length, chunk, tuple(filters), fill, crc32, tuple(Chunk(*one) for one in chunks))


def _visit(group: h5py.Group, layouts: dict[str, Layout]) -> None:
    for name in group:
        try:
            found = group[name]
            if isinstance(found, h5py.Dataset):
                if name != NAME:
                    layouts[found.name.lstrip("/")] = Layout.of(found)
            else:
                _visit(found, layouts)
        except (OSError, RuntimeError, KeyError):
            continue


def corrected(raw: bytes) -> bytes:
    """A chunk without the Fletcher-32 checksum at its end, and with one wrong 16-bit word put right, if that is all that is wrong.

    Both sums are linear: if word ``i`` of ``n`` is too large by ``e``, the first sum is too large by ``e`` and the second by
    ``(n - i) e``, modulo 65535. Whether the outcome is right is for a stronger checksum to say.
    """
    body, stored = raw[:-4], int.from_bytes(raw[-4:], "little")
    words = np.frombuffer(body + bytes(len(body) % 2), ">u2").astype(np.int64)
    n = len(words)
    ahead = int((words % WORD_SUMS).sum() - (stored & 0xFFFF)) % WORD_SUMS
    second = int((words * np.arange(n, 0, -1) % WORD_SUMS).sum() - (stored >> 16)) % WORD_SUMS
    if not ahead or math.gcd(ahead, WORD_SUMS) != 1:
        return body
    place = n - second * pow(ahead, -1, WORD_SUMS) % WORD_SUMS
    if not 0 <= place < n:
        return body
    words[place] = (words[place] - ahead) % WORD_SUMS
    return words.astype(">u2").tobytes()[: len(body)]
