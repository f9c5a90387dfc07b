"""The database of records: one HDF5 file, append-only, with history; see :class:`Store`.

An appended record goes to a journal beside the file and is on the disk when ``append`` returns. The journal is folded
into the HDF5 file when the writer closes (or when it has grown): the file is written anew and renamed, so that it is whole at every
moment. Readers see the file plus the journal. One writer at a time; any number of readers, who never wait.
"""

from __future__ import annotations

import json
import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from labbench.records import Environment, Record
from labbench.store import hdf5
from labbench.store.columns import Coded, Contents
from labbench.store.hdf5 import StoreError
from labbench.store.journal import Journal
from labbench.store.journal import read as read_journal

if TYPE_CHECKING:
    import pandas as pd

    from labbench.cells import Cell

__all__ = ["Store", "StoreError", "StoreLocked"]

FOLD_AT = 2000  # journal entries: reading that many back takes about as long as a fold


class StoreLocked(StoreError):
    """Somebody else is writing to the database."""


class Store:
    """An HDF5 database of records.

    Parameters
    ----------
    path : path
        The ``.h5`` file; it need not exist when ``writable``.
    writable : bool
        Open for appending. Only one process at a time can.

    Raises
    ------
    StoreError
        If the file is missing (reading), is no labbench database, or was written by a newer version.
    StoreLocked
        If another process has it open for writing; names the holder.

    Examples
    --------
    >>> with Store("data/study.h5", writable=True) as store:
    ...     store.append(record, environment)
    >>> Store("data/study.h5").frame()[["model", "platform", "latency_s"]]
    """

    def __init__(self, path: str | Path, *, writable: bool = False) -> None:
        self.path = Path(path)
        self._journal: Journal | None = None
        if writable:
            self._open_for_writing()
        elif not self.path.exists() and not self._journal_path.exists():
            raise StoreError(f"no database at {self.path}; `labbench run --store {self.path}` makes one")

    @property
    def _journal_path(self) -> Path:
        return self.path.with_name(self.path.name + ".journal")

    @property
    def _holder_path(self) -> Path:
        return self.path.with_name(self.path.name + ".writer")

    def _open_for_writing(self) -> None:
        from filelock import FileLock, Timeout

        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self.path.with_name(self.path.name + ".lock"))
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise StoreLocked(f"{self.path} is being written by {self._holder()}; wait for it or stop it") from None
        try:
            holder = {
                "process": os.getpid(),
                "host": socket.gethostname(),
                "since": datetime.now(UTC).isoformat(),
            }
            self._holder_path.write_text(json.dumps(holder))
            self._stored = hdf5.read(self.path) if self.path.exists() else Contents.of([], {})
            self._journal = Journal(self._journal_path)
            hdf5.sync_folder(self.path.parent)
        except BaseException:
            self._release()
            raise
        self._known = set(self._stored.environments) | {
            entry["id"] for entry in self._journal.entries if entry["type"] == "environment"
        }

    def _holder(self) -> str:
        try:
            holder = json.loads(self._holder_path.read_text())
            return f"process {holder['process']} on {holder['host']} since {holder['since']}"
        except (OSError, ValueError, KeyError):
            return "another process"

    def _release(self) -> None:
        self._holder_path.unlink(missing_ok=True)
        self._lock.release()

    def append(self, record: Record, environment: Environment | None = None) -> None:
        """Keep a record. When this returns it survives the death of every process and a loss of power."""
        if self._journal is None:
            raise StoreError(f"{self.path} is open for reading; open it with Store(path, writable=True)")
        entries: list[dict[str, Any]] = []
        if environment is not None and environment.id not in self._known:
            entries.append({"type": "environment", "id": environment.id, "value": environment.model_dump(mode="json")})
        entries.append({"type": "record", "value": record.model_dump(mode="json")})
        try:
            self._journal.append(*entries)
        except OSError as error:
            raise StoreError(
                f"cannot append to {self.path}: {error.strerror}; earlier records are safe, this one was not kept"
            ) from error
        if environment is not None:
            self._known.add(environment.id)
        if len(self._journal.entries) >= FOLD_AT:
            self.fold()

    def fold(self) -> None:
        """Move the journal into the HDF5 file."""
        assert self._journal is not None
        if not self._journal.entries and self.path.exists():
            return
        self._stored = _with_journal(self._stored, self._journal.entries)
        hdf5.write(self.path, self._stored)
        self._journal.clear()

    def close(self) -> None:
        """Fold the journal and let the next writer in; harmless on a database open for reading."""
        if self._journal is None:
            return
        try:
            self.fold()
        finally:
            self._journal.close()
            self._journal = None
            self._release()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def contents(self) -> Contents:
        """A consistent snapshot of everything, in columnar form."""
        if self._journal is not None:
            return _with_journal(self._stored, self._journal.entries)
        # The journal first: a fold in between leaves entries that are in both, which are then dropped.
        entries, _ = read_journal(self._journal_path)
        stored = hdf5.read(self.path) if self.path.exists() else Contents.of([], {})
        return _with_journal(stored, entries)

    def __len__(self) -> int:
        return len(self.contents().records)

    def frame(self, **equals: Any) -> pd.DataFrame:
        """The tidy view (see :func:`labbench.store.frame.frame`), restricted to rows whose columns equal the values given.

        A list of values means any of them: ``store.frame(model="bert-base", runtime=["eager", "compile"])``.
        """
        from labbench.config import unknown_name
        from labbench.store.frame import frame

        table = frame(self.contents())
        for name, value in equals.items():
            if name not in table:
                raise unknown_name("column", name, table.columns)
            table = table[table[name].isin(value if isinstance(value, list | tuple | set) else [value])]
        return table.reset_index(drop=True)

    def latest(self, **equals: Any) -> pd.DataFrame:
        """Like :meth:`frame`, but only the newest record of each cell on each machine."""
        table = self.frame(**equals)
        newest = (
            table.sort_values("started_at", kind="stable")
            .drop_duplicates(["cell_id", "machine_id", "record_id"], keep="last")
            .drop_duplicates(["cell_id", "machine_id"], keep="last")
        )
        return table[table["record_id"].isin(newest["record_id"])].reset_index(drop=True)

    def history(self, cell: Cell | str) -> pd.DataFrame:
        """Every record of a cell (or cell id), oldest first."""
        cell_id = cell if isinstance(cell, str) else cell.id
        return self.frame(cell_id=cell_id).sort_values("started_at", kind="stable").reset_index(drop=True)

    def samples(self, record_ids: Any = None) -> pd.DataFrame:
        """Raw samples of the given records (default: all), in the order taken.

        Columns: ``record_id``, ``series``, ``process``, ``round``, ``seconds`` (per call).
        """
        import pandas as pd

        contents = self.contents()
        ids = contents.records.values["record_id"]
        names = contents.series.values["name"]
        assert isinstance(ids, Coded)
        assert isinstance(names, Coded)
        owner = np.repeat(contents.record_of_series, contents.sample_counts)
        series = np.repeat(names.codes, contents.sample_counts)
        table = pd.DataFrame(
            {
                "record_id": pd.Categorical.from_codes(ids.codes[owner], pd.Index(ids.categories, dtype="str")),
                "series": pd.Categorical.from_codes(series, pd.Index(names.categories, dtype="str")),
                **contents.samples,
            }
        )
        if record_ids is None:
            return table
        return table[table["record_id"].isin(set(record_ids))].reset_index(drop=True)

    def records(self, record_ids: Any = None) -> list[Record]:
        """Whole records (default: all), in the order appended."""
        contents = self.contents()
        if record_ids is None:
            return contents.to_records()
        ids = contents.records.values["record_id"]
        assert isinstance(ids, Coded)
        wanted = [code for code, text in enumerate(ids.categories) if text in set(record_ids)]
        return contents.to_records(np.flatnonzero(np.isin(ids.codes, wanted)))

    def environments(self) -> dict[str, Environment]:
        """Environment id to machine and software."""
        stored = self.contents().environments
        return {key: Environment.model_validate_json(text) for key, text in stored.items()}

    def _repr_html_(self) -> str:
        table = self.frame()
        counts = table.drop_duplicates("record_id")["status"].value_counts()
        parts = ", ".join(f"{n} {status}" for status, n in counts.items() if n)
        return f"<b>Store</b> <code>{self.path}</code>: {parts or 'empty'}"


def _with_journal(stored: Contents, entries: list[dict[str, Any]]) -> Contents:
    """What is stored plus the journal's entries, each record once."""
    if not entries:
        return stored
    ids = stored.records.values["record_id"]
    assert isinstance(ids, Coded)
    seen = set(ids.categories)
    records = [e["value"] for e in entries if e["type"] == "record" and e["value"]["record_id"] not in seen]
    environments = {e["id"]: json.dumps(e["value"], sort_keys=True) for e in entries if e["type"] == "environment"}
    return stored + Contents.of([Record.model_validate(value) for value in records], environments)
