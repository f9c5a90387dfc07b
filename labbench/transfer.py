"""Records in and out of a database: JSON lines without loss, tables for other tools, other tools' results.

::

    records.jsonl ─┐                          ┌─> jsonl: every record, environment and pin, whole
    timm, pyperf … ┴─> import_into ──> store ─┴─> parquet, csv: the tidy table, one row a series, without raw samples
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import ValidationError
from tqdm import tqdm

from labbench.config import ConfigError
from labbench.importers import Skipped, read_foreign
from labbench.records import PROVENANCES, Baseline, Environment, Record, upgrade
from labbench.store import Refused, Store
from labbench.store.columns import canonical_json

FORMATS = ("jsonl", "parquet", "csv")
LINES = (".jsonl", ".ndjson")  # names of files of JSON lines
BATCH = 500  # lines stored at once

Item = Record | Environment | Baseline | Skipped


@dataclass
class Imported:
    """What came of an import.

    Attributes
    ----------
    new, known : int
        Records that were added, and that were there already.
    skipped : list of Skipped
        What could not be imported: file, line and reason.
    """

    new: int = 0
    known: int = 0
    skipped: list[Skipped] = field(default_factory=list)

    def __str__(self) -> str:
        from labbench.words import count

        known = f", {count(self.known, 'record')} there already" if self.known else ""
        listed = "".join(f"\n  {one}" for one in self.skipped)
        return (
            f"{count(self.new, 'record')} imported{known}, {len(self.skipped)} skipped{':' if listed else ''}{listed}"
        )


def import_into(
    store: Store, paths: Iterable[str | Path], format: str | None = None, *, progress: bool = False, **options: Any
) -> Imported:
    """Add what is in files: labbench's own JSON lines, or results of other tools.

    What makes no sense is noted and the rest goes in; importing the same again changes nothing.

    Parameters
    ----------
    store : Store
        Open for writing.
    paths : iterable of path
        Files (``.jsonl``: JSON lines), or folders of other tools' files.
    format : str, optional
        ``jsonl``, or one of :data:`labbench.importers.FORMATS`; by default what name and content say.
    progress : bool
        Whether to show a bar.
    **options
        What other tools' files do not tell (see :func:`labbench.importers.read_foreign`).

    Raises
    ------
    ConfigError
        If a file cannot be read or is of no known format.
    StoreError
        If the disk is full or the like; what was imported before is safe.
    """
    result = Imported()
    for path in map(Path, paths):
        lines = format == "jsonl" or (format is None and path.suffix in LINES)
        items = read_lines(path) if lines else _foreign(path, format, options)
        bar = tqdm(items, path.name, unit=" records", disable=not progress or None, leave=False)
        for batch in _batched(bar):
            _add(store, path, batch, result)
    return result


def read_lines(path: Path) -> Iterator[Item]:
    """What each JSON line is, in today's schema; lines that are nothing are :class:`~labbench.importers.Skipped`.

    Raises
    ------
    ConfigError
        If there is no such file, or it cannot be read.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    try:
                        yield _item(line)
                    except (ValueError, TypeError, AttributeError, RecursionError) as error:
                        yield Skipped(str(path), number, _reason(error))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None


def _item(line: bytes) -> Record | Environment | Baseline:
    data = json.loads(line)
    if not isinstance(data, dict):
        raise ValueError("not a record: a line is one JSON object")
    if "environment" in data:
        return Environment.model_validate(data["environment"])
    if "baseline" in data:
        return Baseline.model_validate(data["baseline"])
    return Record.model_validate(upgrade(data))


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first, *more = error.errors()
        others = f" (and {len(more)} more)" if len(more) else ""
        return f"{'.'.join(map(str, first['loc'])) or 'record'}: {first['msg']}{others}"
    if isinstance(error, json.JSONDecodeError):
        return f"not valid JSON ({error.msg}); is the line cut off?"
    return str(error)


def _foreign(path: Path, format: str | None, options: dict[str, Any]) -> Iterator[Item]:
    found = read_foreign(path, format, **options)
    return itertools.chain(found.environments.values(), found.records, found.skipped)


def _batched(items: Iterable[Item]) -> Iterator[list[Item]]:
    items = iter(items)
    while batch := list(itertools.islice(items, BATCH)):
        yield batch


def _add(store: Store, path: Path, batch: list[Item], result: Imported) -> None:
    records = [item for item in batch if isinstance(item, Record)]
    environments = [item for item in batch if isinstance(item, Environment)]
    baselines = [item for item in batch if isinstance(item, Baseline)]
    result.skipped += [item for item in batch if isinstance(item, Skipped)]
    try:
        new = store.extend(records, environments, baselines)
    except Refused:  # one of them; the others go in
        new = store.extend([], environments, baselines)
        for record in records:
            try:
                new += store.extend([record])
            except Refused as error:
                result.skipped.append(Skipped(str(path), None, str(error)))
                result.known -= 1
    result.new += new
    result.known += len(records) - new


def export_to(store: Store, path: Path, format: str) -> None:
    """Like :func:`export`, into a file that is there whole or not at all.

    Raises
    ------
    ConfigError
        If it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            export(store, file, format)
        temporary.replace(path)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from None
    finally:
        temporary.unlink(missing_ok=True)


def to_lines(store: Store) -> Iterator[str]:
    """Everything in a database as JSON lines: environments, then pins, then records in the order appended."""
    for environment in store.environments().values():
        yield canonical_json({"environment": environment.model_dump(mode="json")})
    for baseline in store.baselines():
        yield canonical_json({"baseline": baseline.model_dump(mode="json", exclude_none=True)})
    for record in store.contents().to_records():
        yield canonical_json(record.to_dict())


def export(store: Store, to: BinaryIO, format: str = "jsonl") -> None:
    """Write a database's records.

    ``jsonl`` has everything, retracted records too, and :func:`import_into` takes it back without loss; ``parquet`` and
    ``csv`` have the tidy table of :meth:`labbench.store.Store.frame`.
    """
    if format == "jsonl":
        for line in to_lines(store):
            to.write(line.encode() + b"\n")
    else:
        table = store.frame(references=True, provenance=PROVENANCES)
        if format == "parquet":
            table.to_parquet(to, index=False, compression="zstd")
        else:
            table.to_csv(to, index=False)
