""":class:`Store`: what people and notebooks ask of a database."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from labbench.cells import Cell, Grid
from labbench.records import Baseline, Environment, Record
from labbench.store.columns import EPOCH, INT_NULL, MICROSECOND, series_columns
from labbench.store.disk import real
from labbench.store.errors import StoreError
from labbench.store.frame import frame, matching, to_pandas
from labbench.store.snapshot import Snapshot, read_snapshot
from labbench.store.table import Coded, Contents, lengths, spans, to_baselines
from labbench.store.writer import Writer

if TYPE_CHECKING:
    import pandas as pd

Moment = str | date | datetime
NAME = next(column for column in series_columns() if column.name == "name")


class Store:
    """An HDF5 database of records.

    Parameters
    ----------
    path : path
        The ``.h5`` file; it need not exist when ``writable``.
    writable : bool
        Open for appending. Only one process at a time can.
    durability : "power" or "process"
        What an appended record survives when ``append`` has returned: a loss of power, or the death of every process.
    wait : float or True, optional
        Seconds to wait for another writer to finish (True: for ever); by default an error says at once who it is.

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
    >>> Store("data/study.h5").frame(model="bert-base", mode="inference")[["platform", "latency_s"]]
    """

    def __init__(
        self,
        path: str | Path,
        *,
        writable: bool = False,
        durability: Literal["power", "process"] = "power",
        wait: float | bool | None = None,
    ) -> None:
        self.path = real(path)
        if durability not in ("power", "process"):
            raise StoreError(f"unknown durability {durability!r}; known: 'power', 'process'")
        if not (wait is None or (isinstance(wait, int | float) and wait >= 0)):
            raise StoreError(f"wait = {wait!r} is no time; give seconds, or True to wait for ever")
        self._writer = Writer(self.path, durable=durability == "power", wait=wait) if writable else None
        self._read: Snapshot | None = None
        if self._writer is None:
            self._snapshot()

    # ---------------------------------------------------------------- writing

    def append(self, record: Record, environment: Environment | None = None) -> None:
        """Keep a record. When this returns it survives what ``durability`` says.

        Raises
        ------
        StoreError
            If it cannot be kept (the disk is full, another record has its id); the earlier ones are safe.
        """
        self.extend([record], [environment] if environment else ())

    def extend(
        self, records: Iterable[Record], environments: Iterable[Environment] = (), baselines: Iterable[Baseline] = ()
    ) -> int:
        """Keep many records, with one wait for the disk per few hundred; returns how many were new.

        What is there already, with the same content, is not added again.

        Raises
        ------
        Refused
            If a record cannot be kept because of what it is: another has its id, or a number does not fit into 64 bits.
        StoreError
            If it cannot be kept for another reason (the disk is full); the earlier ones are safe.
        """
        return self._writing().extend(records, environments, baselines)

    def retract(self, record_id: str, reason: str) -> Record:
        """Take a mistaken record back: a later record says why. It stays visible with ``retracted=True``."""
        writer = self._writing()
        [mistaken] = self.records([record_id])
        retraction = Record(cell=mistaken.cell, status="retraction", retracts=record_id, reason=reason)
        writer.extend([retraction])
        return retraction

    def pin(self, name: str, record_ids: Iterable[str] | None = None, note: str | None = None) -> Baseline:
        """Pin records (default: the newest of each cell, machine and provenance that is ok) under a name, to compare with later.

        A later pin of the same name supersedes the earlier, which stays in :meth:`baselines`.
        """
        writer = self._writing()
        ids = sorted(set(self.latest(status="ok")["record_id"] if record_ids is None else record_ids))
        if unknown := set(ids) - set(self._snapshot().known(ids)):
            raise StoreError(f"cannot pin {name!r}: {self.path} has no record {min(unknown)}")
        baseline = Baseline(name=name, record_ids=ids, note=note)
        writer.extend([], baselines=[baseline])
        return baseline

    def fold(self) -> None:
        """Move the journal into the HDF5 file now."""
        self._writing().fold()

    def close(self) -> None:
        """Fold the journal and let the next writer in; harmless on a database open for reading."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.close()
        if self._read is not None:
            self._read.close()
            self._read = None

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _writing(self) -> Writer:
        if self._writer is None:
            raise StoreError(f"{self.path} is open for reading; open it with Store(path, writable=True)")
        return self._writer

    # ---------------------------------------------------------------- reading

    def _snapshot(self) -> Snapshot:
        """What is in the database now: the same object as long as nothing changes."""
        if self._writer is not None:
            return self._writer.snapshot()
        self._read = read_snapshot(self.path, self._read)
        return self._read

    def __len__(self) -> int:
        return len(self._snapshot())

    def frame(
        self,
        columns: Sequence[str] | None = None,
        *,
        since: Moment | None = None,
        until: Moment | None = None,
        retracted: bool = False,
        references: bool = False,
        **equals: Any,
    ) -> pd.DataFrame:
        """The tidy view (see :func:`labbench.store.frame.frame`), restricted to rows whose columns equal the values given.

        Predictions are no results: they are left out unless ``provenance`` is given and names them.

        Parameters
        ----------
        columns : sequence of str, optional
            Only these (default: all).
        since, until : str or datetime, optional
            Only records that started at or after ``since`` and before ``until``; a date means its midnight, UTC. A record
            of which nobody knows when it started is in no such period.
        retracted : bool
            Include retracted records and the retractions, with the columns ``retracts`` and ``retracted_because``.
        references : bool
            Include the references that other records were measured in turn with: ``reference_id`` is their own ``record_id``.
            They say nothing of how fast a cell is today.
        **equals
            Column to value; a list means any of them: ``store.frame(model="bert-base", runtime=["eager", "compile"])``.
        """
        snapshot = self._snapshot()
        rows = _rows(snapshot, since, until, retracted, references, "provenance" in equals)
        if not retracted:
            return frame(snapshot, rows, columns, equals)
        table = frame(snapshot, rows, columns, equals)
        told = frame(snapshot, rows, ["record_id", "retracts"], equals)
        because = told["record_id"].map(snapshot.retractions.reasons).astype("str")
        return table.assign(retracts=told["retracts"], retracted_because=because)

    def latest(self, **equals: Any) -> pd.DataFrame:
        """Like :meth:`frame`, but only the newest record of each cell on each machine and of each provenance, no reference."""
        snapshot = self._snapshot()
        rows = _rows(snapshot, None, None, retracted=False, predictions="provenance" in equals)
        rows = np.arange(len(snapshot)) if rows is None else rows
        if equals:
            rows = matching(snapshot, rows, equals)
        codes = [snapshot.record_column(name, rows) for name in ("cell_id", "machine_id", "provenance")]
        started = snapshot.record_column("started_at", rows)
        assert isinstance(started, np.ndarray)
        keys = [c.codes for c in codes if isinstance(c, Coded)]
        order = np.lexsort((rows, started, *keys))
        newest = np.ones(len(order), dtype=bool)
        newest[:-1] = np.any([key[order][1:] != key[order][:-1] for key in keys], axis=0)
        return frame(snapshot, np.sort(rows[order[newest]]), None, equals)

    def history(self, cell: Cell | str, *, retracted: bool = False) -> pd.DataFrame:
        """Every run of a cell (or cell id), references too, oldest first, with the host and the versions of the software.

        Returns
        -------
        DataFrame
            As :meth:`frame`, plus ``hostname`` and a column ``version_<package>`` for each package known to any of them.
        """
        import pandas as pd

        table = self.frame(cell_id=cell if isinstance(cell, str) else cell.id, retracted=retracted, references=True)
        table = table.sort_values("started_at", kind="stable", na_position="first", ignore_index=True)
        environments = self.environments()
        facts = {
            key: {"hostname": one.hostname, **{f"version_{name}": text for name, text in one.software.items()}}
            for key in table["environment_id"].dropna().unique()
            if (one := environments.get(key)) is not None
        }
        known = pd.DataFrame.from_dict(facts, orient="index").astype("str")
        return table.join(known.reindex(table["environment_id"].astype("str")).set_axis(table.index))

    def coverage(self, cells: Grid | Iterable[Cell]) -> pd.DataFrame:
        """What the database has of each of the cells.

        Parameters
        ----------
        cells : Grid or iterable of Cell
            Cells as campaigns store them, or with the task and shape left to the model's defaults.

        Returns
        -------
        DataFrame
            One row a cell: ``cell_id``, the fields of the cell, ``status`` of the newest record (``missing`` if there is none),
            ``records`` (how many, over all machines) and ``latest`` (when the newest one started).
        """
        import pandas as pd

        columns = ["cell_id", "record_id", "status", "started_at"]
        table = self.frame(columns, primary=True).sort_values("started_at", kind="stable", na_position="first")
        found = dict(iter(table.groupby(table["cell_id"].astype("str"), sort=False)))
        lines = []
        for cell in cells.cells() if isinstance(cells, Grid) else cells:
            whole = cell if cell.id in found else _resolved(cell)
            group = found.get(whole.id, table.iloc[:0])
            newest = group.iloc[-1] if len(group) else {"status": "missing", "started_at": pd.NaT}
            lines.append(
                {"cell_id": whole.id, **whole.flat(), "status": str(newest["status"]), "records": len(group)}
                | {"latest": newest["started_at"]}
            )
        return pd.DataFrame(lines)

    def samples(self, record_ids: Iterable[str] | None = None) -> pd.DataFrame:
        """Raw samples of the given records (default: all that are not retracted, references too), in the order taken.

        Columns: ``record_id``, ``series``, ``process``, ``round``, ``seconds`` (per call).
        """
        import pandas as pd

        snapshot = self._snapshot()
        rows = _rows(snapshot, None, None, False, True, True) if record_ids is None else snapshot.find(record_ids)
        counts = lengths(snapshot.first_series, rows)
        series = None if rows is None else spans(snapshot.first_series[rows], counts)
        taken = lengths(snapshot.first_sample, series)
        owner = np.repeat(np.repeat(np.arange(len(counts)), counts), taken)
        ids = [key.decode() for key in (snapshot.record_ids if rows is None else snapshot.record_ids[rows]).tolist()]
        names = snapshot.column("series", NAME, series)
        assert isinstance(names, Coded)
        return pd.DataFrame(
            {
                "record_id": pd.Categorical.from_codes(owner, pd.Index(ids, dtype="str"), validate=False),
                "series": to_pandas(NAME, Coded(np.repeat(names.codes, taken), names.categories)),
                **{name: snapshot.samples(name, series) for name in ("process", "round", "seconds")},
            },
            copy=False,
        )

    def records(self, record_ids: Iterable[str] | None = None) -> list[Record]:
        """Whole records (default: all, retracted ones and retractions too), in the order appended.

        Raises
        ------
        StoreError
            If one of the ids is not there.
        """
        snapshot = self._snapshot()
        if record_ids is None:
            return list(snapshot.contents().to_records())
        ids = list(record_ids)
        if missing := set(ids) - set(snapshot.known(ids)):
            raise StoreError(f"{self.path} has no record {min(missing)}")
        return list(snapshot.contents(snapshot.find(ids)).to_records())

    def contents(self) -> Contents:
        """A consistent snapshot of everything, in columns."""
        return self._snapshot().contents()

    def environments(self) -> dict[str, Environment]:
        """Environment id to machine and software."""
        stored: Mapping[str, str] = self._snapshot().environments
        return {key: Environment.model_validate_json(text) for key, text in stored.items()}

    def baselines(self) -> list[Baseline]:
        """Every pin ever made, oldest first."""
        return to_baselines(self._snapshot().baselines)

    def baseline(self, name: str) -> pd.DataFrame:
        """The records pinned under a name (its newest pin), as :meth:`frame` gives them.

        Raises
        ------
        ConfigError
            If nothing was pinned under that name, with the nearest one.
        """
        from labbench.config import unknown_name

        pins = {pin.name: pin for pin in self.baselines()}
        if name not in pins:
            raise unknown_name("baseline", name, pins)
        snapshot = self._snapshot()
        return frame(snapshot, snapshot.find(pins[name].record_ids))

    def content_hash(self) -> str:
        """SHA-256 of everything in the database, the same for the same content in whatever order it came."""
        from labbench.store.merge import content_hash

        return content_hash(self.contents())

    def _repr_html_(self) -> str:
        counts = self.frame(["status"], primary=True)["status"].value_counts()
        parts = ", ".join(f"{n} {status}" for status, n in counts.items() if n)
        return f"<b>Store</b> <code>{self.path}</code>: {parts or 'empty'}"


def _rows(
    snapshot: Snapshot,
    since: Moment | None,
    until: Moment | None,
    retracted: bool,
    references: bool = False,
    predictions: bool = False,
) -> np.ndarray | None:
    """Rows of the records that a query is about; None for all."""
    keep: np.ndarray | None = None
    hidden = np.concatenate(
        [
            [] if retracted else snapshot.retractions.rows,
            [] if references else snapshot.references,
            [] if predictions else snapshot.predictions,
        ]
    ).astype(int)
    if len(hidden):
        keep = np.ones(len(snapshot), dtype=bool)
        keep[hidden] = False
    if since is not None or until is not None:
        started = snapshot.record_column("started_at")
        assert isinstance(started, np.ndarray)
        known = started != INT_NULL
        keep = known if keep is None else keep & known
        if since is not None:
            keep &= started >= _microseconds(since)
        if until is not None:
            keep &= started < _microseconds(until)
    return None if keep is None else np.flatnonzero(keep)


def _resolved(cell: Cell) -> Cell:
    """The cell with what its model leaves to defaults filled in; as it is, if the zoo does not know the model."""
    from labbench import zoo
    from labbench.config import ConfigError

    try:
        return cell.model_copy(update={"workload": zoo.resolve(cell.workload)})
    except ConfigError:
        return cell


def _microseconds(moment: Moment) -> int:
    if not isinstance(moment, datetime):
        try:
            moment = datetime.fromisoformat(str(moment))
        except ValueError:
            raise StoreError(f"{moment!r} is no date; write it like 2026-11-25 or 2026-11-25T18:30:00Z") from None
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - EPOCH) // MICROSECOND
