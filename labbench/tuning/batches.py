"""The batch size with the best throughput, and what throughput costs in memory: every size is a cell, measured into the store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labbench.tuning.largest_batch import with_batch
from labbench.tuning.search import go_on, open_study

if TYPE_CHECKING:
    import optuna
    import pandas as pd

    from labbench.cells import Cell
    from labbench.measure.protocol import Protocol
    from labbench.records import Record

TRIALS = 12


@dataclass(frozen=True)
class BatchTrial:
    """A batch size and what came of it: items per second and peak bytes above an empty process."""

    batch_size: int
    throughput: float
    memory_bytes: int
    record_id: str


def tune_batch(
    cell: Cell,
    store: str | Path,
    studies: str | Path,
    *,
    largest: int,
    trials: int = TRIALS,
    protocol: Protocol | None = None,
    measure: Callable[[Cell], Record] | None = None,
) -> list[BatchTrial]:
    """Optuna's search for high throughput and low memory over batch sizes up to ``largest``; it goes on where it stopped.

    Parameters
    ----------
    cell : Cell
        Its own batch size does not matter.
    store : path
        The database that the cells are measured into; what is stored and valid is not measured again.
    studies : path
        Optuna's journal; the study is called after the cell.
    largest : int
        E.g. from :func:`labbench.tuning.largest_batch.largest_batch`.
    measure : callable, optional
        What measures a cell; for tests.

    Returns
    -------
    list of BatchTrial
        Every batch size that ran, the smallest first.
    """
    import optuna

    measure = measure or _measured_into(store, protocol)
    found = open_study(
        studies,
        f"batch of {cell.label}",
        directions=["maximize", "minimize"],
        sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=4),
    )
    if not found.trials:
        for size in sorted({1, largest, max(round(largest**0.5), 1)}):
            found.enqueue_trial({"batch_size": size})

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        size = trial.suggest_int("batch_size", 1, largest, log=True)
        known = next((t for t in found.trials if t.values and t.params == trial.params), None)
        if known is not None:
            raise optuna.TrialPruned(f"a batch of {size} is known")
        record = measure(with_batch(cell, size))
        memory = record.memory.increase_bytes if record.memory.live_bytes is None else record.memory.live_bytes
        if record.primary is None or memory is None:
            raise optuna.TrialPruned(str(record))
        trial.set_user_attr("record_id", record.record_id)
        return record.primary.items_per_call / record.primary.latency_s, memory

    go_on(found, objective, trials)
    ran = [
        BatchTrial(int(t.params["batch_size"]), float(t.values[0]), int(t.values[1]), t.user_attrs["record_id"])
        for t in found.trials
        if t.values
    ]
    return sorted(ran, key=lambda one: one.batch_size)


def _measured_into(store: str | Path, protocol: Protocol | None) -> Callable[[Cell], Record]:
    """Measure a cell into a store, or take the record that is there."""
    from labbench.campaign import Campaign
    from labbench.measure.protocol import preset
    from labbench.store import Store

    def measure(cell: Cell) -> Record:
        campaign = Campaign([cell], store, protocol or preset("quick"))
        summary = campaign.run(progress=False)
        if summary.records:
            return summary.records[0]
        rows = Store(store).latest(cell_id=cell.id)
        [record] = Store(store).records([rows["record_id"].iloc[-1]])
        return record

    return measure


def batch_table(trials: list[BatchTrial]) -> pd.DataFrame:
    """``batch_size``, ``throughput``, ``memory_bytes``, ``record_id``, and ``efficient``: on the Pareto front of both."""
    import pandas as pd

    table = pd.DataFrame(
        [vars(one) for one in trials], columns=["batch_size", "throughput", "memory_bytes", "record_id"]
    )
    efficient: list[Any] = [
        not ((table["throughput"] >= r.throughput) & (table["memory_bytes"] <= r.memory_bytes)
             & ((table["throughput"] > r.throughput) | (table["memory_bytes"] < r.memory_bytes))).any()
        for r in table.itertuples()
    ]  # fmt: skip
    return table.assign(efficient=efficient)
