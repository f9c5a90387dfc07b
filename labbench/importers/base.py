"""What every importer shares: the file it reads, what came of it, and how an imported record gets its id."""

from __future__ import annotations

import csv
import gzip
import json
import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from labbench.cells import Cell, content_id
from labbench.config import ConfigError
from labbench.records import UNKNOWN_HOST, Energy, Environment, Memory, Phases, Record, Series

RECORD_ID_LENGTH = 32  # hex digits, as long as the random id of a measured record
LARGEST_COUNT = 2**31 - 1  # no batch or image is larger; what exceeds it is a damaged number

# Instances that all records share: pydantic copies a default, but not a value.
NO_PHASES, NO_MEMORY, NO_ENERGY = Phases(), Memory(), Energy()


class Unreadable(ConfigError):
    """A file that cannot be imported; the message names the file, the reason and the way out."""

    def __init__(self, file: str, reason: str, line: int | None = None) -> None:
        super().__init__(str(Skipped(file, line, reason)))
        self.file, self.line, self.reason = file, line, reason


class BadRow(ValueError):
    """A result that makes no sense; the message is why."""


@dataclass(frozen=True)
class Skipped:
    """Something that was not imported.

    Attributes
    ----------
    file : str
        As named by the caller, or relative to the folder that the caller named.
    line : int or None
        Counted from 1, header included; None where the reason concerns the whole file, or for JSON.
    reason : str
    """

    file: str
    line: int | None
    reason: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.reason}"


@dataclass
class Import:
    """What came of reading other tools' files.

    Attributes
    ----------
    records : list of Record
        Each once, in the order read; ids are derived from content, so that a second import gives the same ones.
    environments : dict
        Those that the records refer to, by id.
    skipped : list of Skipped
        Rows and files that were not imported, and why.
    """

    records: list[Record] = field(default_factory=list)
    environments: dict[str, Environment] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)
    _places: dict[str, tuple[str, int | None]] = field(default_factory=dict, repr=False)

    def add(self, record: Record, environment: Environment, file: str, line: int | None = None) -> None:
        """Keep a record, unless the same is there already, which is noted."""
        assert record.environment_id is not None
        if record.record_id in self._places:
            first, at = self._places[record.record_id]
            place = ":".join(str(part) for part in (first, at) if part is not None)
            self.skip(file, line, f"same as line {at}" if first == file and at else f"same as {place}")
            return
        self._places[record.record_id] = (file, line)
        self.environments.setdefault(record.environment_id, environment)
        self.records.append(record)

    def skip(self, file: str, line: int | None, reason: str) -> None:
        """Note that something was not imported."""
        self.skipped.append(Skipped(file, line, reason))

    def __str__(self) -> str:
        from labbench.words import count

        noted = "".join(f"\n  {one}" for one in self.skipped)
        return (
            f"{count(len(self.records), 'record')} imported, {len(self.skipped)} skipped{':' if noted else ''}{noted}"
        )


@dataclass
class File:
    """A file to import. Attributes: where it is, and ``name``, what messages call it.

    What is wrong with it as a whole is raised as :class:`Unreadable` when its text, table or data is first asked for.
    """

    path: Path
    name: str

    @cached_property
    def text(self) -> str:
        """All of it, with Unix line ends; a byte-order mark is dropped, ``.gz`` is unpacked."""
        try:
            raw = self.path.read_bytes()
            if self.path.suffix == ".gz":
                raw = gzip.decompress(raw)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise self.unreadable(f"not a whole gzip file ({error}); fetch it again") from None
        except OSError as error:
            raise self.unreadable(f"cannot be read: {error.strerror}") from None
        if not raw.strip():
            raise self.unreadable("is empty; fetch it again")
        if b"\0" in raw:
            line = raw[: raw.index(b"\0")].count(b"\n") + 1
            raise self.unreadable("holds NUL bytes, so it is damaged or no text in UTF-8; fetch it again", line)
        try:
            decoded = raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = raw[: error.start].count(b"\n") + 1
            raise self.unreadable("is not in UTF-8; convert it with `iconv -t UTF-8`", line) from None
        return decoded.replace("\r\n", "\n").replace("\r", "\n")

    @cached_property
    def data(self) -> Any:
        """The value of a JSON file."""
        try:
            return json.loads(self.text)
        except json.JSONDecodeError as error:
            raise self.unreadable(f"not valid JSON ({error.msg}); is it cut off?", error.lineno) from None
        except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets nested as deep
            raise self.unreadable(f"not usable JSON ({error})") from None

    @cached_property
    def is_json(self) -> bool:
        """Whether the name says that it is JSON."""
        return self.path.name.endswith((".json", ".json.gz"))

    @cached_property
    def header(self) -> tuple[str, ...]:
        """Column names of a CSV file."""
        line = self.text.split("\n", 1)[0]
        return tuple(name.strip() for name in next(csv.reader([line]), []))

    def table(
        self, required: tuple[str, ...], into: Import, rename: Callable[[str], str] = str
    ) -> Iterator[tuple[int, dict[str, str]]]:
        """Line number and fields, by column, of each row of a CSV file; blank lines are passed over.

        A row with more or fewer fields than the header has is noted in ``into``. Every line is parsed by itself, so that an
        unbalanced quote spoils no other row.
        """
        names = tuple(map(rename, self.header))
        if missing := [name for name in required if name not in names]:
            raise self.unreadable(f"no column {', '.join(missing)}; it has {', '.join(self.header)}", 1)
        if twice := [name for name in required if names.count(name) > 1]:
            raise self.unreadable(f"column {', '.join(twice)} is there more than once", 1)
        lines = [(number, line) for number, line in enumerate(self.text.split("\n"), start=1) if line.strip()][1:]
        if not lines:
            raise self.unreadable("no rows below the header; fetch it again", 1)
        for number, line in lines:
            try:
                fields = next(csv.reader([line]))
            except csv.Error as error:
                into.skip(self.name, number, str(error))
                continue
            if len(fields) != len(names):
                into.skip(self.name, number, f"{len(fields)} fields, but the header has {len(names)}")
                continue
            yield number, dict(zip(names, fields, strict=True))

    def unreadable(self, reason: str, line: int | None = None) -> Unreadable:
        """The error that says why the file cannot be imported."""
        return Unreadable(self.name, reason, line)


@dataclass(frozen=True)
class Origin:
    """What all records of one run or file have in common."""

    source: str
    licence: str | None
    environment: Environment
    device_name: str | None
    protocol: dict[str, Any]

    @cached_property
    def shared(self) -> dict[str, Any]:
        """The fields of a record that follow from it."""
        return {
            "status": "ok",
            "provenance": "imported",
            "source": self.source,
            "licence": self.licence,
            "environment_id": self.environment.id,
            "machine_id": self.environment.machine_id,
            "device_name": self.device_name,
            "protocol_id": content_id(self.protocol),
            "protocol": self.protocol,
        }

    def record(self, cell: Cell, series: list[Series], **fields: Any) -> Record:
        """An imported record with its final id; ``started_at`` is null unless given."""
        more = {"started_at": None, "phases": NO_PHASES, "memory": NO_MEMORY, "energy": NO_ENERGY, **fields}
        return identified(Record(cell=cell, series=series, **self.shared, **more))


def identified(record: Record) -> Record:
    """The record under an id derived from its content, so that the same content has the same id wherever it is read.

    The id is the start of the SHA-256 of the record's canonical JSON without the id itself, the schema's version and fields
    that are null, which lets later versions add optional fields without renaming what was imported before.
    """
    content = record.model_dump(mode="json", exclude={"record_id", "schema_version"}, exclude_none=True)
    return record.model_copy(update={"record_id": content_id(content, RECORD_ID_LENGTH)})


def environment(
    tool: str,
    *,
    device: str,
    device_name: str | None,
    software: dict[str, str],
    hostname: str = UNKNOWN_HOST,
    **machine: Any,
) -> Environment:
    """Machine and software as far as a source tells them.

    The machine's id is derived from the tool, the device's name and the hostname, if known: one source's records of one kind
    of device count as one machine, those of another source do not.
    """
    part: dict[str, Any] = {"cpu": {"name": device_name}}
    if device != "cpu":
        part = {"accelerators": [{"device": device, "name": device_name}]}
    return Environment(
        machine_id=content_id({"tool": tool, "device_name": device_name, "host": hostname}),
        hostname=hostname,
        machine={**part, **machine},
        software=software,
    )


def number(value: Any, name: str) -> float:
    """A finite number from CSV text or JSON; raises :class:`BadRow` for anything else."""
    if value is None or value == "":
        raise BadRow(f"{name} is missing")
    try:
        if isinstance(value, bool) or (isinstance(value, str) and "_" in value):  # float() would take both
            raise ValueError
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        raise BadRow(f"{name} is no number: {value!r}") from None
    if not math.isfinite(found):
        raise BadRow(f"{name} is {found}")
    return found


def positive(value: Any, name: str) -> float:
    """A finite number above zero."""
    found = number(value, name)
    if found <= 0:
        raise BadRow(f"{name} is {found:g}, not above zero")
    return found


def whole(value: Any, name: str) -> int:
    """A whole number of at least one; ``"1024.0"`` is one."""
    found = positive(value, name)
    if found > LARGEST_COUNT:
        raise BadRow(f"{name} is {found:g}, which cannot be")
    if found != int(found):
        raise BadRow(f"{name} is no whole number: {found:g}")
    return int(found)


def milliseconds(value: Any, name: str) -> float:
    """A time above zero that the source gives in milliseconds, in seconds."""
    return positive(positive(value, name) / 1e3, name)


def explained(error: ValueError) -> str:
    """Why a row was refused, on one line; of a :class:`pydantic.ValidationError`, the field and what is wrong with it."""
    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors())
    return str(error)
