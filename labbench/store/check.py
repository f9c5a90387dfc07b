"""Is a database whole? If not: what is wrong, and what of it can be saved?

:func:`check` reads everything twice, through HDF5 and past it (:mod:`labbench.store.chart`), and believes a record only if its
content gives the digest that was stored with it. So one wrong bit costs one record, not the chunk or the file it is in.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import ValidationError
from tqdm import tqdm

from labbench.records import FIRST_LASTING_SCHEMA, Record
from labbench.store import hdf5, journal, lock
from labbench.store.columns import canonical_json, digest, record_columns
from labbench.store.disk import real
from labbench.store.errors import StoreError
from labbench.store.journal import Entry, Gap
from labbench.store.snapshot import journal_path
from labbench.store.table import Builder, Coded, Contents, encode, to_baselines
from labbench.store.wreck import Wreck

DERIVED = {"records/digest", "records/cell_id", "categories/records/cell_id", "index/record_id"}  # can be made again
SHOWN = 20  # problems that are printed


class Problem(NamedTuple):
    """What is wrong, where, and whether a record (an environment, a pin) is lost by it."""

    place: str
    what: str
    lost: bool = False

    def __str__(self) -> str:
        return f"{self.place}: {self.what}"


@dataclass
class Report:
    """What :func:`check` found.

    Attributes
    ----------
    problems : list of Problem
        Everything that is not as it should be; empty if the database is whole.
    contents : Contents
        What is intact.
    file_bytes, sample_bytes : int
        Size of the HDF5 file, and of the raw samples in it.
    """

    path: Path
    problems: list[Problem] = field(default_factory=list)
    contents: Contents = field(default_factory=Contents.of)
    file_bytes: int = 0
    sample_bytes: int = 0

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    @property
    def lost(self) -> list[Problem]:
        """What cannot be saved."""
        return [problem for problem in self.problems if problem.lost]

    def lost_in_words(self) -> str:
        """What cannot be saved, one line each."""
        return f"{len(self.lost)} lost" + _listed(self.lost) if self.lost else "nothing lost"

    def add(self, place: str, what: str, lost: bool = False) -> None:
        """Note a problem."""
        self.problems.append(Problem(place, what, lost))

    def to_dict(self) -> dict[str, Any]:
        """All of it, for ``--json``."""
        problems = [problem._asdict() for problem in self.problems]
        sizes = {"file_bytes": self.file_bytes, "sample_bytes": self.sample_bytes}
        return {"path": str(self.path), "ok": self.ok, "intact": self._counts(), **sizes, "problems": problems}

    def _counts(self) -> dict[str, int]:
        found = self.contents
        return {"records": len(found), "environments": len(found.environments), "baselines": len(found.baselines)}

    def __str__(self) -> str:
        from labbench.words import count, size

        nouns = {"records": "record", "environments": "environment", "baselines": "pinned baseline"}
        intact = ", ".join(count(amount, nouns[name]) for name, amount in self._counts().items())
        if not self.ok:
            return f"{self.path}: {count(len(self.problems), 'problem')}; intact: {intact}{_listed(self.problems)}"
        whole = f"{self.path}: everything is intact ({intact})"
        if not len(self.contents) or not self.file_bytes:
            return whole
        each, bare = (part / len(self.contents) for part in (self.file_bytes, self.file_bytes - self.sample_bytes))
        return f"{whole}\n{size(self.file_bytes)}: {size(each)} a record, {size(bare)} without raw samples"


def _listed(problems: list[Problem]) -> str:
    more = [f"and {len(problems) - SHOWN} more; --json lists them all"] if len(problems) > SHOWN else []
    return "".join(f"\n  {line}" for line in [*map(str, problems[:SHOWN]), *more])


def check(path: str | Path, *, progress: bool = False) -> Report:
    """Verify everything: checksums, structure, every record against the schema and its digest, references, the journal.

    Raises
    ------
    StoreError
        If there is no database there at all, or it was written by a newer version.
    """
    report = Report(real(path))
    log, data = _read(journal_path(report.path)), _read(report.path)  # in this order: see `read_snapshot`
    if log is None and data is None:
        raise StoreError(f"no database at {path}")
    contents = Contents.of() if data is None else _check_file(data, report, progress)
    report.contents = _check_journal(log or b"", contents, report)
    _check_references(report)
    return report


def repair(path: str | Path, output: str | Path, *, progress: bool = False) -> Report:
    """Write all that is intact into a new database; the damaged one is not touched.

    Returns
    -------
    Report
        Of the damaged one: ``lost`` lists what could not be saved.

    Raises
    ------
    StoreError
        If ``output`` exists, or cannot be written.
    """
    target = Path(output)
    for taken in (target, journal_path(target)):
        if taken.exists():
            raise StoreError(f"{taken} exists; choose another file for what can be saved")
    report = check(path, progress=progress)
    try:
        hdf5.write(target, report.contents)
    except OSError as error:
        raise StoreError(f"cannot write {target}: {error.strerror or error}") from error
    return report


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from None


def _check_file(data: bytes, report: Report, progress: bool) -> Contents:
    """What is intact in the bytes of a file."""
    wreck = Wreck(report.path, data, report.add)
    if wreck.chart is None:
        report.add(str(report.path), "neither HDF5's metadata nor the chart of it can be read", lost=True)
        return Contents.of()
    if wreck.version < FIRST_LASTING_SCHEMA:
        from labbench.store.migrate import read_older

        try:
            return read_older(report.path, wreck.version)
        except StoreError as error:
            report.add(
                str(report.path), f"schema {wreck.version}, which only its own labbench can repair ({error})", lost=True
            )
            return Contents.of()
    contents = wreck.contents()
    layouts = wreck.chart.layouts.items()
    report.file_bytes = len(data)
    report.sample_bytes = sum(
        chunk.size for name, one in layouts if name.startswith("samples/") for chunk in one.chunks
    )
    if any(name.startswith(("baselines/", "categories/baselines/")) for name in wreck.damaged):
        report.add("/baselines", f"{len(contents.baselines)} pins cannot be trusted", lost=True)
        contents.baselines = Contents.of().baselines
    return _intact(contents, wreck.damaged, report, progress)


def _intact(contents: Contents, damaged: set[str], report: Report, progress: bool) -> Contents:
    """The records that are what was stored, with what is derived from them made anew."""
    needed = [
        name for name in damaged - DERIVED if not name.startswith(("environments", "baselines", "categories/baselines"))
    ]
    cell_ids: dict[int, str] = {}  # of the intact rows
    digests: list[int] = []
    rows = zip(contents.records.rows(), contents.to_dicts(), strict=True)
    for i, (row, data) in enumerate(tqdm(rows, "records", len(contents), disable=not progress or None, leave=False)):
        place = f"record {row['record_id']}" if row["record_id"] else f"the record in row {i}"
        try:
            record = Record.model_validate(data)
            found = digest(canonical_json(record.to_dict()))
        except (ValidationError, UnicodeError) as error:
            report.add(place, f"not valid ({_reason(error)})", lost=True)
            continue
        if found != row["digest"] and (needed or "records/digest" not in damaged):
            report.add(place, "its content is not what was stored: the digest differs", lost=True)
            continue
        if record.cell_id != row["cell_id"] and not DERIVED & damaged:
            report.add(place, f"its cell has the id {record.cell_id}, not {row['cell_id']}")
        cell_ids[i] = record.cell_id
        digests.append(found)
    intact = contents.take(np.array(list(cell_ids), dtype=np.int64))
    intact.folded = contents.folded
    for name, values in (("cell_id", [*cell_ids.values()]), ("digest", digests)):
        column = next(c for c in record_columns() if c.name == name)
        intact.records.values[name] = encode(column, list(values))
    return intact


def _reason(error: Exception) -> str:
    """The first thing that is wrong, in one line."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(error)


def _check_journal(data: bytes, contents: Contents, report: Report) -> Contents:
    """The contents, with what the journal adds."""
    place = journal_path(report.path).name
    if journal.is_schema_1(data):
        entries = journal.read(journal_path(report.path)).entries
    else:
        entries = _entries(data, contents.folded, place, report)
    present = {key.decode() for key in contents.record_ids.tolist()}
    builder = Builder()
    for entry in entries:
        known = 0 < entry.number <= contents.folded
        try:
            if entry.type == "record":
                key = Record.model_validate_json(entry.text).record_id
                if key in present:
                    if not known and entry.number:
                        report.add(f"record {key}", "in the file and in the journal")
                    continue
                present.add(key)
            elif known and entry.type == "baseline":
                continue
            builder.add(entry.type, entry.text)
        except ValueError as error:
            report.add(f"{place}, entry {entry.number}", f"not valid ({_reason(error)})", lost=True)
    return contents + builder.build()


def _entries(data: bytes, folded: int, place: str, report: Report) -> list[Entry]:
    """Every intact entry of a journal, those after a damaged one too."""
    entries: list[Entry] = []
    last: int | None = None
    for found in journal.salvage(data):
        if isinstance(found, Gap):
            if not found.last:
                report.add(f"{place}, byte {found.at}", f"{found.size} bytes are damaged", lost=True)
            elif not lock.is_held(report.path):
                what = "are no whole entry: their writer died before it was acknowledged, or they are damaged"
                report.add(f"{place}, byte {found.at}", f"{found.size} bytes {what}", lost=True)
            continue
        if found.type == "journal":
            journal.schema_of(report.path, found)
            last = min(found.number, folded) if last is None else last
        if last is not None and found.number > last + 1:
            report.add(place, f"entries {last + 1} to {found.number - 1} are missing", lost=True)
        last = found.number
        if found.type != "journal":
            entries.append(found)
    return entries


def _check_references(report: Report) -> None:
    """Whether everything that something refers to is there, once."""
    contents = report.contents
    ids = Counter(key.decode() for key in contents.record_ids.tolist())
    for key in [key for key, count in ids.items() if count > 1]:
        report.add(f"record {key}", f"there {ids[key]} times")
    for name, known in (("environment_id", contents.environments), ("retracts", ids), ("reference_id", ids)):
        values = contents.records.values[name]
        assert isinstance(values, Coded)
        users = np.bincount(values.codes[values.codes >= 0], minlength=len(values.categories))
        for text, count in zip(values.categories, users.tolist(), strict=True):
            if count and text not in known:
                report.add(f"/records/{name}", f"{count} records name {text}, which is not there")
    for pin in to_baselines(contents.baselines):
        if absent := [key for key in pin.record_ids if key not in ids]:
            report.add(f"baseline {pin.name!r}", f"{len(absent)} of its records are not there, e.g. {absent[0]}")
