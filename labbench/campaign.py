"""Run a grid of cells: skip what is stored and still valid, keep every record as it comes, lose nothing on Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from pydantic import Field

from labbench.cells import Cell, Frozen, Grid, by_workload
from labbench.measure.interpreter import Interpreter
from labbench.measure.protocol import PRESETS, Protocol, preset
from labbench.records import Advice, Environment, Footprint, Record
from labbench.store import Store
from labbench.words import count

if TYPE_CHECKING:
    import pandas as pd

# Versions that a stored record must share with this environment to stay valid, besides its runtime's own packages.
DECISIVE_PACKAGES = ("labbench", "python", "torch", "transformers")


class BenchmarkConfig(Frozen):
    """``notebooks/config/benchmark_config.json``: what to measure, and how."""

    protocol: str = Field("quick", description=f"a preset: {', '.join(PRESETS)}")
    protocol_changes: dict[str, Any] = Field(default_factory=dict, description="single fields of the preset, changed")
    grids: list[Grid] = Field(min_length=1)

    def cells(self) -> list[Cell]:
        """The cells of all grids, resolved, each once."""
        return resolve(cell for grid in self.grids for cell in grid.cells())

    def make_protocol(self) -> Protocol:
        """The preset with its changes."""
        return preset(self.protocol, **self.protocol_changes)


def resolve(cells: Iterable[Cell]) -> list[Cell]:
    """Cells with their task and input shape filled in from the zoo, each once; names that nobody knows are refused.

    Raises
    ------
    ConfigError
        For an unknown model or runtime (with the nearest known one), or a shape field that the model does not use.
    """
    from labbench import runtimes, zoo

    unique: dict[str, Cell] = {}
    for cell in cells:
        runtimes.get(cell.platform.runtime)
        whole = cell.model_copy(update={"workload": zoo.resolve(cell.workload)})
        unique[whole.id] = whole
    return list(unique.values())


@dataclass
class Summary:
    """What a campaign did.

    Attributes
    ----------
    kept : int
        Cells whose stored record was still valid.
    records : list of Record
        New records of the cells, in the order they were stored.
    references : list of Record
        What came of their references.
    interrupted : bool
        Whether it was stopped early; the same call goes on where it stopped.
    """

    store: Path
    kept: int = 0
    records: list[Record] = field(default_factory=list)
    references: list[Record] = field(default_factory=list)
    interrupted: bool = False

    @property
    def counts(self) -> dict[str, int]:
        """New records by status."""
        return dict(Counter(record.status for record in self.records))

    def frame(self) -> pd.DataFrame:
        """A table for people: one row a new record."""
        import pandas as pd

        rows = [
            {
                "model": r.cell.workload.model,
                "shape": r.cell.workload.shape_label,
                "precision": r.cell.workload.precision,
                "mode": r.cell.workload.mode,
                "platform": r.cell.platform.label,
                "status": r.status,
                "latency_s": r.primary.latency_s if r.primary else None,
                "prepare_s": r.phases.prepare_s,
                "noise": r.noise.verdict if r.noise else None,
                "reason": r.reason,
            }
            for r in self.records
        ]
        return pd.DataFrame(rows)

    def __str__(self) -> str:
        done = ", ".join(f"{n} {status}" for status, n in sorted(self.counts.items())) or "nothing new"
        tail = "; interrupted: run the same command again to go on" if self.interrupted else ""
        return f"{self.store}: {done}; {self.kept} kept from before{self._beside()}{tail}"

    def _beside(self) -> str:
        """How many have a reference, and why others have none."""
        if not self.references:
            return ""
        bad = [record for record in self.references if record.status != "ok"]
        why = f", {len(bad)} without ({bad[0].status} in the reference environment: {bad[0].reason})" if bad else ""
        return f"; {len(self.references) - len(bad)} with a reference{why}"

    def _repr_html_(self) -> str:
        by = ", ".join(f"{n} {status.replace('_', ' ')}" for status, n in sorted(self.counts.items()))
        tail = " It was interrupted: run this again to go on." if self.interrupted else ""
        done = f"{count(len(self.records), 'cell')}{by and f' ({by})'}"
        return f"<p>Measured now: {done}; kept from before: {self.kept}{self._beside()}.{tail}</p>"


class Campaign:
    """A grid of cells, to be measured into a store.

    Parameters
    ----------
    cells : iterable of Cell, or Grid
    store : path
        The database; made if it is not there.
    protocol : Protocol, optional
        Default: the ``standard`` preset.
    rerun : bool
        Measure again what is stored and valid.
    retry : bool
        Measure again what is stored with a status other than ``ok``.
    advice : mapping of str to Advice
        Cell id to the promise that its record tests.
    reference : path, optional
        The Python of another environment, which stays what it is (that of the last release, say). Each cell is measured there
        too, in turn with the cell, by this labbench; the history judges the ratio. Models from plugin files are the same in
        both, those from installed packages are each environment's own.

    Raises
    ------
    ConfigError
        If a cell, model or runtime is not known, or the reference cannot run labbench.

    Examples
    --------
    >>> grid = Grid(axes={"model": ["bert-tiny", "vit-tiny"], "runtime": ["eager", "compile"]})
    >>> print(Campaign(grid, "data/study.h5").run())
    """

    def __init__(
        self,
        cells: Iterable[Cell] | Grid,
        store: str | Path,
        protocol: Protocol | None = None,
        *,
        rerun: bool = False,
        retry: bool = False,
        advice: Mapping[str, Advice] | None = None,
        reference: str | Path | None = None,
    ) -> None:
        self.cells = resolve(cells.cells() if isinstance(cells, Grid) else cells)
        self.store_path = Path(store)
        self.protocol = protocol or preset("standard")
        self.rerun = rerun
        self.retry = retry
        self.advice = advice or {}
        own = _own(self.cells)  # refuses what cannot be sent to a worker, before anything runs
        self.reference = None if reference is None else Interpreter(reference)
        self._reference_software = {} if self.reference is None else _software_of(self.reference, own)
        self.id = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{self.protocol.id[:6]}"

    def run(self, *, progress: bool = True) -> Summary:
        """Measure what is not stored yet.

        Ctrl-C ends the cells in flight and returns the summary of what is stored, marked ``interrupted``.

        Raises
        ------
        StoreLocked
            If another campaign is writing to the same store.
        """
        from labbench import machine

        environment = machine.environment(cell.platform.device for cell in self.cells)
        environment = environment.model_copy(update={"software": environment.software | _own(self.cells)})
        beside = environment.model_copy(update={"software": self._reference_software})
        summary = Summary(self.store_path)
        with Store(self.store_path, writable=True) as store:
            todo = self.todo(store, environment)
            summary.kept = len(self.cells) - len(todo)
            bar = Progress(len(todo), progress)
            try:
                for record in self._measure(todo, bar):
                    where, found = (
                        (beside, summary.references) if record.is_reference else (environment, summary.records)
                    )
                    advice = None if record.is_reference else self.advice.get(record.cell_id)
                    record = record.taken_in(where, campaign_id=self.id, advice=advice)
                    store.append(record, where)
                    found.append(record)
                    bar.done(record)
            except KeyboardInterrupt:
                summary.interrupted = True
            finally:
                bar.close()
                if self.reference is not None:
                    self.reference.close()
        return summary

    def todo(self, store: Store, environment: Environment) -> list[Cell]:
        """Cells without a valid record: same cell, machine, protocol, and versions that matter to it."""
        if self.rerun:
            return self.cells
        return without_valid_record(self.cells, store, environment, self.protocol, _decisive, retry=self.retry)

    def _measure(self, cells: list[Cell], bar: Progress) -> Iterator[Record]:
        from labbench import zoo
        from labbench.machine import physical_cores
        from labbench.measure import group

        footprints: dict[str, dict[str, Footprint]] = {}
        for part in groups(cells, self.protocol.group_size):
            bar.label = ", ".join(dict.fromkeys(cell.workload.model for cell in part))
            yield from group.measure(
                part,
                self.protocol,
                threads=physical_cores(),
                plugins=tuple(zoo.plugins()),
                footprints=footprints,
                reference=self.reference,
                on_stage=bar.stage,
            )


def groups(cells: list[Cell], size: int) -> Iterator[list[Cell]]:
    """Cells that are measured together: whole workloads, as many as fit into ``size``; a larger one is divided."""
    pack: list[Cell] = []
    for same in by_workload(cells):
        if pack and len(pack) + len(same) > size:
            yield pack
            pack = []
        if len(same) <= size:
            pack = pack + same
        else:
            yield from (same[start : start + size] for start in range(0, len(same), size))
    if pack:
        yield pack


def _own(cells: Iterable[Cell]) -> dict[str, str]:
    """Versions of the users' own models and runtimes among these cells, for an environment's software.

    Raises
    ------
    ConfigError
        If one is known in this process only and cannot be sent to a worker.
    """
    from labbench import runtimes, zoo

    versions = {f"model {name}": zoo.version(name) for name in {cell.workload.model for cell in cells}}
    versions |= {f"runtime {name}": runtimes.version(name) for name in {cell.platform.runtime for cell in cells}}
    return {name: version for name, version in sorted(versions.items()) if version}


def _software_of(reference: Interpreter, own: dict[str, str]) -> dict[str, str]:
    """Versions in the reference environment; what only this process knows goes there with the jobs, and is the same."""
    from labbench import zoo

    names = [(kind, name) for kind, name in (key.split(" ", 1) for key in own)]
    return own | reference.software(zoo.plugins(), names)


def without_valid_record(
    cells: Iterable[Cell],
    store: Store,
    environment: Environment,
    protocol: Protocol,
    decisive: Callable[[Cell], Iterable[str]],
    *,
    retry: bool = False,
) -> list[Cell]:
    """Cells that the store has no record of that was taken on this machine, by this protocol, with the same versions.

    Parameters
    ----------
    decisive : callable
        Names of the software whose versions matter to a cell.
    retry : bool
        Whether a record with a status other than ``ok`` counts as none.
    """
    if not len(store):
        return list(cells)
    known = {key: env for key, env in store.environments().items() if env.machine_id == environment.machine_id}
    table = store.frame(machine_id=environment.machine_id, protocol_id=protocol.id, provenance="measured")
    stored: dict[str, set[str]] = {}
    for row in table.drop_duplicates("record_id").itertuples():
        if row.status == "ok" or not retry:
            stored.setdefault(str(row.cell_id), set()).add(str(row.environment_id))

    def valid(cell: Cell) -> bool:
        names = set(decisive(cell))
        taken = [known[key] for key in stored.get(cell.id, ()) if key in known]
        return any(all(then.software.get(n) == environment.software.get(n) for n in names) for then in taken)

    return [cell for cell in cells if not valid(cell)]


def _decisive(cell: Cell) -> set[str]:
    from labbench import runtimes

    names = {*DECISIVE_PACKAGES, *runtimes.get(cell.platform.runtime).packages}
    return names | {f"model {cell.workload.model}", f"runtime {cell.platform.runtime}"}


PROGRESS_VARIABLE = "LABBENCH_PROGRESS"  # a terminal or file that shows the progress of a campaign inside a notebook


class Progress:
    """A live bar with the time left where somebody may be watching; one line a record elsewhere."""

    def __init__(self, total: int, show: bool) -> None:
        self.label = ""
        self._count, self._total = 0, total
        self._bar: Any = None
        self._stream = _stream() if show and total else None
        if self._stream is not None and (self._stream.isatty() or "ipykernel" in type(self._stream).__module__):
            from tqdm.auto import tqdm

            self._bar = tqdm(total=total, unit="cell", smoothing=0.1, dynamic_ncols=True, file=self._stream)

    def stage(self, text: str) -> None:
        """Say what is going on."""
        if self._bar is not None:
            self._bar.set_description_str(f"{self.label}: {text}", refresh=True)

    def skip(self, cells: int) -> None:
        """So many cells need no measuring after all."""
        self._total -= cells
        if self._bar is not None:
            self._bar.total = self._total
            self._bar.refresh()

    def done(self, record: Record) -> None:
        """One more cell is stored, or a reference, which counts as none."""
        if record.is_reference:
            return
        self._count += 1
        if self._bar is not None:
            self._bar.update()
        elif self._stream is not None:
            print(f"[{self._count}/{self._total}] {record}", file=self._stream, flush=True)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()


def _stream() -> TextIO | None:
    """Where progress goes: the file that the environment names, stderr, or nowhere (a notebook run in batch)."""
    if path := os.environ.get(PROGRESS_VARIABLE):
        with contextlib.suppress(OSError):  # the terminal has been closed meanwhile
            return open(path, "a")
        return None
    return None if "ipykernel" in sys.modules and os.environ.get("LABBENCH_BATCH") else sys.stderr
