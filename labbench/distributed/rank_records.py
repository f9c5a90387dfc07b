"""What records of ranks have in common: series of samples, whether ranks shared cores, what a lost launch leaves, the store."""

from __future__ import annotations

from collections.abc import Sequence

from labbench.cells import Cell
from labbench.distributed.launcher import Launched
from labbench.records import Environment, Record, Series


def series(name: str, seconds: Sequence[float], items: float, unit: str, calls: int = 1) -> Series:
    """A series from raw samples of one launch, in the order taken."""
    from labbench.measure import stats

    taken, process, rounds = list(seconds), [0] * len(seconds), list(range(len(seconds)))
    return stats.series(
        name, taken, process, rounds, items=items, unit=unit, calls_per_sample=calls, stop_reason="max_samples"
    )


def lost(cell: Cell, done: Launched, stage: str) -> Record:
    """What a launch that did not end well leaves of a cell: how it ended, at which ranks, how soon that was known."""
    ranks = {f"failing_rank_{index}": float(rank) for index, rank in enumerate(done.ending.ranks)}
    late = {} if done.reported_after_s is None else {"reported_after_s": done.reported_after_s}
    return Record(
        cell=cell,
        status=done.ending.status,
        reason=done.ending.reason,
        stage=stage,
        stderr_tail=done.output_tail or None,
        duration_s=done.seconds,
        metrics=ranks | late,
    )


def crowd(ranks: int, device: str = "cpu") -> dict[str, float]:
    """Whether ranks shared cores: then times are the scheduler's, and no link should be calibrated from them."""
    return {"oversubscribed": float(device == "cpu" and ranks > usable_cores())}


def usable_cores() -> int:
    """Cores that ranks may have."""
    from labbench.machine.detect import physical_cores

    return physical_cores()


def stored(records: Sequence[Record], path: str) -> list[Record]:
    """Append records to a database with what is known of this machine; returns them as stored."""
    from labbench import machine
    from labbench.store import Store

    environment: Environment = machine.environment(["cpu"])
    found = [record.taken_in(environment) for record in records]
    with Store(path, writable=True) as store:
        store.extend(found, [environment])
    return found
