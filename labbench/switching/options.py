"""What a backend is before it runs: a cell, how long its calls take, and how long it takes to start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from labbench.config import ConfigError

if TYPE_CHECKING:
    from labbench.cells import Cell
    from labbench.store import Store


SOON_S = 1e-3  # after one call another one finds its core and caches as that left them
LEAST_QUEUED = 10  # calls, and as many others: fewer do not tell by how much that is faster
USUAL_LOAD = 1 / 3  # of what all backends can serve: bursts of four times the quiet rate then still fit
HANDY_S = (
    0.005  # of several models the one whose calls take about so long: much longer than dispatching, and yet many fit
)


class SwitchingError(ValueError):
    """There is nothing to switch between; the message names what is missing and how to get it."""


@dataclass(frozen=True)
class Option:
    """A backend that requests can go to.

    Attributes
    ----------
    name : str
    samples_s : array of float, shape (samples,)
        Measured service times of one call each, in seconds.
    cold_start_s : float
        Seconds from nothing to the first answer.
    at_s : array of float, shape (samples,), optional
        When each was taken, ascending: a simulation then draws from those nearest in time, as the machine's speed changes.
    queued : array of bool, shape (samples,), optional
        Which of them began as soon as another call had ended.
    """

    name: str
    samples_s: np.ndarray
    cold_start_s: float
    at_s: np.ndarray | None = None
    queued: np.ndarray | None = None

    @property
    def usual_s(self) -> float:
        """Median service time, seconds."""
        return float(np.median(self.samples_s))

    @property
    def queued_factor(self) -> float:
        """How many times as long a call takes that follows another one at once, by the medians; 1 where too few tell."""
        if self.queued is None or min(self.queued.sum(), (~self.queued).sum()) < LEAST_QUEUED:
            return 1.0
        return float(np.median(self.samples_s[self.queued]) / np.median(self.samples_s[~self.queued]))


def capacity(options: Sequence[Option]) -> float:
    """What they can serve together at most, requests per second."""
    return float(sum(1 / option.samples_s.mean() for option in options))


def fastest_first(options: Sequence[Option]) -> list[Option]:
    """In order of preference."""
    return sorted(options, key=lambda option: option.usual_s)


def named(cells: Sequence[Cell]) -> dict[str, Cell]:
    """A short name for each cell: its runtime, or as much more as it takes to tell them apart.

    Raises
    ------
    ConfigError
        If two cells are the same, or do not run the same model on the same input: those cannot stand in for one another.
    """
    work = {cell.workload.model_copy(update={"precision": "fp32"}) for cell in cells}
    if len(work) != 1:
        raise ConfigError("backends must run the same model on inputs of the same size, each a request's whole work")
    for found in (
        [cell.platform.runtime for cell in cells],
        [f"{cell.platform.runtime} {cell.workload.precision}" for cell in cells],
        [f"{cell.platform.label} {cell.workload.precision}" for cell in cells],
    ):
        if len(set(found)) == len(found):
            return dict(zip(found, cells, strict=True))
    raise ConfigError("two backends are the same cell; let them differ in runtime, precision or device")


def stored_cells(store: Store, model: str | None = None, runtimes: Sequence[str] | None = None) -> list[Cell]:
    """Cells that can stand in for one another: one workload, at fp32 and its smallest batch, on several runtimes.

    Parameters
    ----------
    model : str, optional
        Default: of those measured on most of the runtimes, the one whose calls take about 5 ms.
    runtimes : sequence of str, optional
        Only these; default: all.

    Raises
    ------
    SwitchingError
        If no workload was measured on two of the runtimes.
    """
    from labbench.cells import by_workload

    table = store.latest(status="ok", provenance="measured", primary=True, mode="inference", precision="fp32")
    if model is not None:
        table = table[table["model"] == model]
    if runtimes is not None:
        table = table[table["runtime"].isin(list(runtimes))]
    table = table.sort_values("latency_s").drop_duplicates("cell_id")
    latency = dict(zip(table["cell_id"].astype("str"), table["latency_s"], strict=True))
    cells = [record.cell for record in store.records(table["record_id"])]
    groups = []
    for group in by_workload(cells):
        quickest = {cell.platform.runtime: cell for cell in sorted(group, key=lambda one: -latency[one.id])}
        chosen = sorted(quickest.values(), key=lambda one: latency[one.id])
        if len(chosen) > 1:
            size = chosen[0].workload.batch_size
            groups.append(
                (-len(chosen), abs(np.log(latency[chosen[0].id] / HANDY_S)) if model is None else size, chosen)
            )
    if not groups:
        of = "any model" if model is None else model
        on = " or ".join(runtimes) if runtimes else "different runtimes"
        raise SwitchingError(
            f"{store.path} holds no two measurements of {of} on {on} that could stand in for one another; "
            f"run e.g. `labbench run --model {model or 'bert-tiny'} --runtime eager onnxruntime --threads 1`"
        )
    chosen_first: list[Cell] = min(groups, key=lambda group: group[:2])[2]
    return chosen_first


def stored_options(store: Store, cells: Sequence[Cell]) -> list[Option]:
    """Options whose service times and cold starts a store holds, fastest first.

    A sample of a very short call is the mean of a few (``calls_per_sample``), so that its scatter is a little too small.

    Raises
    ------
    SwitchingError
        If a cell was not measured, with the command that measures it.
    """
    table = store.latest(status="ok", provenance="measured", primary=True)
    found = []
    for name, cell in named(cells).items():
        rows = table[table["cell_id"] == cell.id].sort_values("started_at")
        if rows.empty:
            raise SwitchingError(f"no measurement of {cell.label} in {store.path}; run `{cell.command}`")
        row = rows.iloc[-1]
        samples = store.samples([row["record_id"]])
        seconds = samples.loc[samples["series"] == row["series"], "seconds"].to_numpy(float)
        phases = np.array([row[f"{phase}_s"] for phase in ("load", "prepare", "first_run")], float)
        found.append(Option(name, seconds, float(np.nansum(phases))))
    return fastest_first(found)
