"""Records of strategies: held against one process, timed, or why they could not be run.

A strategy stands where the runtime stands in other records (``cpu/fsdp×2``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from labbench.cells import Cell
from labbench.distributed import overhead
from labbench.distributed.job import Job, read_json
from labbench.distributed.launcher import Launched, Limits, launch, watch
from labbench.distributed.place import missing
from labbench.distributed.rank_cells import cell, checked_cell
from labbench.distributed.rank_records import crowd, lost, series
from labbench.distributed.sizes import ONE
from labbench.records import Check, Record

LIMITS = Limits()
PRECISIONS = ("fp64", "fp32")


def correctness(modes: Sequence[str], ranks: int, precision: str = "fp64", **launching: Any) -> list[Record]:
    """Each mode held against one process; a record each, with what it was compared with and the error.

    The cell's precision is ``fp32``: cells know no float64, and the check's ``reference`` says what was compared.
    """
    return strategies(modes, ranks, precision=precision, steps=0, **launching)


def strategies(
    modes: Sequence[str],
    ranks: int,
    *,
    precision: str = "fp64",
    steps: int = 21,
    shape: dict[str, int] | None = None,
    limits: Limits = LIMITS,
    **job: Any,
) -> list[Record]:
    """Hold each mode against one process in ``precision``, and time those that are right, in fp32.

    All are timed in one launch; if that is lost, each in one of its own, so that only the one to blame is lost. A record without
    ``trace_communication_s`` where others have it is of such a launch.

    Parameters
    ----------
    modes : sequence of str
        Names of :data:`labbench.distributed.strategies.MODES`.
    ranks : int
    precision : str
        Of the comparison, one of ``PRECISIONS``.
    steps : int
        To time; 0: only the comparison.
    shape : dict, optional
        Sizes of the model (:class:`labbench.distributed.sizes.Shape`).
    limits : Limits
    **job
        Further fields of :class:`~labbench.distributed.job.Job`; a fault is met while steps are timed.
    """
    sizes = shape or {}
    device = job.get("device", "cpu")
    cells = {mode: (cell if steps else checked_cell)(mode, ranks, sizes, device) for mode in modes}
    if reason := missing(device, ranks):
        return [Record(cell=one, status="unsupported", reason=reason) for one in cells.values()]
    plain = {name: value for name, value in job.items() if name != "fault"}
    compared = launch(
        Job(task="correct", options={"modes": list(modes), "precision": precision, "shape": sizes}, **plain),
        ranks,
        limits=limits,
    )
    if compared.ending.status != "ok":
        return [lost(one, compared, "check") for one in cells.values()]
    share = compared.seconds / len(modes)
    verdicts = {verdict["mode"]: verdict for verdict in compared.results[0]}
    checked = {mode: _checked(cells[mode], verdict, precision, share) for mode, verdict in verdicts.items()}
    right = [mode for mode, record in checked.items() if record.status == "ok" and steps]
    timed = timings(right, ranks, steps, sizes, limits, **job)
    return [_with_times(record, timed[mode]) if mode in timed else record for mode, record in checked.items()]


def alone(steps: int = 21, shape: dict[str, int] | None = None, limits: Limits = LIMITS, **job: Any) -> Record:
    """Steps of a single process, which ranks are compared with; metrics also hold ``forward_s`` of each layer and the output."""
    sizes, device = shape or {}, job.get("device", "cpu")
    own = cell(ONE, 1, sizes, device)
    if reason := missing(device, 1):
        return Record(cell=own, status="unsupported", reason=reason)
    timed = timings([ONE], 1, steps, sizes, limits, **job)[ONE]
    return _with_times(Record(cell=own, status="ok"), timed)


def watched(folder: Path, ranks: int, limits: Limits = LIMITS) -> list[Record]:
    """Records of a job that others start: steps of strategies, or their comparison with one process."""
    done = watch(folder, ranks, limits)
    job = Job.model_validate(read_json(folder / "job.json"))
    sizes, modes = job.options.get("shape") or {}, job.options["modes"]
    stage, place = ("check", checked_cell) if job.task == "correct" else ("steady", cell)
    cells = {mode: place(mode, ranks, sizes, job.device) for mode in modes}
    if done.ending.status != "ok":
        return [lost(one, done, stage) for one in cells.values()]
    if job.task == "correct":
        verdicts, precision = done.results[0], job.options["precision"]
        return [_checked(cells[one["mode"]], one, precision, done.seconds) for one in verdicts]
    parts = [replace(done, results=[rank[index] for rank in done.results]) for index in range(len(modes))]
    return [_with_times(Record(cell=cells[mode], status="ok"), part) for mode, part in zip(modes, parts, strict=True)]


def timings(
    modes: Sequence[str],
    ranks: int,
    steps: int,
    shape: dict[str, int],
    limits: Limits = LIMITS,
    *,
    overlap: bool = True,
    **job: Any,
) -> dict[str, Launched]:
    """Steps of each mode, timed; its launch holds what each rank returned of this mode alone.

    If the launch is lost, and nobody asked for that, each mode gets one of its own, without hooks and traces.
    """
    if not modes:
        return {}
    options = {"modes": list(modes), "steps": steps, "shape": shape, "overlap": overlap}
    done = launch(Job(task="steps", options=options, **job), ranks, limits=limits)
    if done.ending.status != "ok" and overlap and not job.get("fault"):
        again = [timings([mode], ranks, steps, shape, limits, overlap=False, **job) for mode in modes]
        return {name: one for each in again for name, one in each.items()}
    share = done.seconds / len(modes)
    return {
        mode: replace(done, results=[rank[index] for rank in done.results], seconds=share)
        for index, mode in enumerate(modes)
    }


def _checked(cell: Cell, verdict: dict[str, Any], precision: str, seconds: float) -> Record:
    """A record of the comparison; its check is of the kind that comes closest to its tolerance, its metrics hold all."""
    check, errors, allowed = None, verdict["errors"], verdict["tolerances"]
    metrics = {f"{kind}_tolerance": value for kind, value in allowed.items()} if errors else {}
    if errors:
        bounded = {kind: min(error, 1e300) for kind, error in errors.items()}  # a record holds no infinity
        worst = max(errors, key=lambda kind: errors[kind] / allowed[kind])
        metrics |= {f"{kind}_error": value for kind, value in bounded.items()}
        check = Check(
            passed=verdict["status"] == "ok",
            max_error=bounded[worst],
            tolerance=allowed[worst],
            reference=f"one process, {precision}; error of the {worst} over its global norm",
        )
    return Record(
        cell=cell,
        status=verdict["status"],
        reason=verdict["reason"],
        stage="check",
        check=check,
        duration_s=seconds,
        metrics=metrics,
        threads=cell.platform.world_size,
        processes=cell.platform.world_size,
    )


def _with_times(record: Record, timed: Launched) -> Record:
    """The record with its steps; the loss of the launch in its place if that did not end well."""
    cell = record.cell
    if timed.ending.status != "ok":
        return lost(cell, timed, "steady")
    ranks = cell.platform.world_size
    found = {
        "stage": None,
        "duration_s": (record.duration_s or 0.0) + timed.seconds,
        "metrics": record.metrics | overhead.metrics(timed.results) | crowd(ranks, cell.platform.device),
        "series": [series("step", overhead.step_s(timed.results), cell.workload.batch_size, "samples")],
        "threads": ranks,
        "processes": ranks,
    }
    return record.model_copy(update=found)
