"""Faults made to happen to a rank, and what came of them: who was blamed, how soon, and what was left running."""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

from labbench.distributed.job import Fault, Job
from labbench.distributed.launcher import Launched, Limits, launch
from labbench.distributed.rank_cells import fault_cell
from labbench.records import Record

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["kill", "hang", "exception", "out_of_memory", "rendezvous", "restart"]
KINDS: tuple[Kind, ...] = get_args(Kind)
ENDS = {
    "hang": ("timeout",),
    "out_of_memory": ("out_of_memory",),
    "rendezvous": ("failed", "timeout"),
    "restart": ("ok",),
}
STRATEGIES = ("ddp", "fsdp", "tensor", "pipeline-1f1b")
SMALL = {"layers": 4, "width": 16, "vocabulary": 32, "tokens": 8}
VICTIM, BEAT = 1, 6  # the rank, and at which sign of life: among the first steps, all connections made
HANG_S = 10.0  # a busy machine may take as long to load a framework, without a sign of life
MEMORY_BYTES = 2**30
NOBODY = "192.0.2.1:29400"  # an address that no host has (RFC 5737)
UNANSWERED_S = 10
MARK = "LABBENCH_FAULT_TRIAL"  # in the environment of all that a trial starts, whoever its parent becomes
REPORT_S = 2.0  # a lost rank is reported so soon after it is lost, or after its time-out


def trial(kind: Kind, mode: str, ranks: int = 2, hang_s: float = HANG_S) -> Record:
    """Let rank 1 have a fault while steps are timed; ``restart``: kill it, and let the agent start all again.

    Parameters
    ----------
    kind : str
        One of ``KINDS``; ``rendezvous``: nobody answers where the ranks are to meet.
    mode : str
        A strategy.
    ranks : int
    hang_s : float
        Without a sign of life until a hang is told.

    Returns
    -------
    Record
        Status and reason as the launcher gave them; metrics ``as_expected`` (1: the right status with the right rank),
        ``reported_after_s`` (since the fault), ``left_running`` (processes), ``rejoined_after_s`` and ``lost_s`` (restart: since
        the kill, until all had joined again, and until the same step was reached again).
    """
    fault: Any = {"kind": "kill" if kind == "restart" else kind, "rank": VICTIM, "beat": BEAT}
    job = Job(
        task="steps",
        options={"modes": [mode], "shape": SMALL, "steps": 5, "overlap": False},
        seconds_without_sign=hang_s if kind == "hang" else 60,
        memory_limit_bytes=MEMORY_BYTES if kind == "out_of_memory" else None,
        fault=None if kind == "rendezvous" else Fault(**fault),
    )
    mark = os.environ[MARK] = uuid.uuid4().hex
    try:
        if kind == "rendezvous":
            done = launch(job, ranks, limits=Limits(start_s=UNANSWERED_S), rendezvous=NOBODY)
        else:
            done = launch(job, ranks, restarts=int(kind == "restart"))
        left = left_running(mark)
    finally:
        del os.environ[MARK]
    return _record(kind, mode, ranks, done, left)


def _record(kind: Kind, mode: str, ranks: int, done: Launched, left: int) -> Record:
    blamed = [] if kind in ("rendezvous", "restart") else [VICTIM]
    expected = done.ending.status in ENDS.get(kind, ("failed",)) and done.ending.ranks == blamed
    metrics = {"as_expected": float(expected), "left_running": float(left), "attempts": float(done.attempts)}
    times = {
        "reported_after_s": None if kind == "restart" else done.reported_after_s,
        "rejoined_after_s": done.rejoined_after_s,
        "lost_s": done.lost_s,
    }
    return Record(
        cell=fault_cell(kind, mode, ranks),
        status=done.ending.status,
        reason=done.ending.reason,
        stage="steady",
        stderr_tail=None if expected else done.output_tail or None,
        duration_s=done.seconds,
        processes=ranks,
        threads=ranks,
        metrics=metrics | {name: value for name, value in times.items() if value is not None},
    )


def left_running(mark: str) -> int:
    """Processes that a trial has started and that are still there, orphans too."""
    import psutil

    found = 0
    for process in psutil.process_iter():
        try:
            found += process.pid != os.getpid() and process.environ().get(MARK) == mark
        except psutil.Error:  # gone, or not ours to look at
            continue
    return found


def allowed_s(kind: str, hang_s: float = HANG_S) -> float:
    """Within how many seconds of the fault it is to be reported; a lack of memory begins when memory begins to be taken."""
    return float("inf") if kind == "out_of_memory" else REPORT_S + (hang_s if kind == "hang" else 0.0)


def fault_table(records: Sequence[Record]) -> pd.DataFrame:
    """A row for each fault and strategy, over however many trials.

    Returns
    -------
    DataFrame
        ``fault``, ``strategy``, ``trials``, ``as_expected`` (how many ended with the right status and rank), ``reported_s`` and
        ``slowest_s`` (median and largest time to the report), ``rejoined_s`` and ``lost_s`` (medians, restarts), ``left_running``.
    """
    import pandas as pd

    rows = [
        record.metrics
        | {"fault": (record.cell.workload.task or "").removeprefix("fault-"), "strategy": record.cell.platform.runtime}
        for record in records
        if (record.cell.workload.task or "").startswith("fault-")
    ]
    if not rows:
        return pd.DataFrame()
    names = ("reported_after_s", "rejoined_after_s", "lost_s")
    table = pd.DataFrame(rows).reindex(columns=["fault", "strategy", "as_expected", "left_running", *names])
    return (
        table.groupby(["fault", "strategy"], sort=False)
        .agg(
            trials=("as_expected", "size"),
            as_expected=("as_expected", "sum"),
            reported_s=("reported_after_s", "median"),
            slowest_s=("reported_after_s", "max"),
            rejoined_s=("rejoined_after_s", "median"),
            lost_s=("lost_s", "median"),
            left_running=("left_running", "sum"),
        )
        .reset_index()
        .dropna(axis="columns", how="all")
    )


def fault_shown(table: pd.DataFrame) -> pd.DataFrame:
    """Of :func:`fault_table`, in units of people."""
    from labbench import words

    shown = table.copy()
    shown["as_expected"] = shown["as_expected"].map("{:.0f}".format) + " of " + shown["trials"].astype(str)
    names = {
        "reported_s": "reported after",
        "slowest_s": "at most",
        "rejoined_s": "joined again after",
        "lost_s": "lost",
    }
    for name in names:
        if name in shown:
            shown[name] = shown[name].map(words.seconds)
    shown["left_running"] = shown["left_running"].astype(int)
    return shown.drop(columns="trials").rename(
        columns={**names, "as_expected": "as expected", "left_running": "left running"}
    )
