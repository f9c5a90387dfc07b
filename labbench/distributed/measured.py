"""Records of what ranks did: strategies held against one process and timed, collectives, and what could not be run.

A strategy stands where the runtime stands in other records (``cpu/fsdp×2``), a collective where the model does
(``all_reduce inference ... on cpu/gloo×2``), each size of it as a series.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from labbench.cells import Cell, content_id
from labbench.config import ConfigError
from labbench.distributed.collectives_model import Measured, bandwidths, bus_factor, hops
from labbench.distributed.hosts import HERE, Host
from labbench.distributed.job import Fault, Job
from labbench.distributed.launcher import Launched, Limits, launch
from labbench.distributed.sizes import Shape
from labbench.records import Check, Environment, Record, Series

MODEL = "decoder"
KIB = 1024
SIZES = tuple(KIB * 4**power for power in range(9))  # 1 KiB to 64 MiB
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
    fault: Fault | None = None,
    limits: Limits = LIMITS,
    **job: Any,
) -> list[Record]:
    """Hold each mode against one process in ``precision``, and time those that are right, in fp32.

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
        Sizes of the model (:class:`labbench.distributed.decoder.Shape`).
    fault : Fault, optional
        Made to happen while steps are timed.
    limits : Limits
    **job
        Further fields of :class:`~labbench.distributed.job.Job`.
    """
    sizes = shape or {}
    compared = launch(
        Job(task="correct", options={"modes": list(modes), "precision": precision, "shape": sizes}, **job),
        ranks,
        limits=limits,
    )
    if compared.ending.status != "ok":
        return [_lost(_cell(mode, ranks, sizes), compared, "check") for mode in modes]
    found = []
    share = compared.seconds / len(modes)
    for verdict in compared.results[0]:
        cell = _cell(verdict["mode"], ranks, sizes)
        common = {"cell": cell, "threads": ranks, "processes": ranks, "stage": "check"}
        check = None
        if verdict["max_error"] is not None:
            check = Check(
                passed=verdict["status"] == "ok",
                max_error=min(verdict["max_error"], 1e300),  # a record holds no infinity
                tolerance=verdict["tolerance"],
                reference=f"one process, {precision}; error over the global norm",
            )
        if verdict["status"] != "ok" or not steps:
            found.append(
                Record(
                    status=verdict["status"],
                    reason=verdict["reason"],
                    check=check,
                    duration_s=share,
                    **common,
                )
            )
            continue
        timed = launch(
            Job(task="steps", options={"modes": [verdict["mode"]], "steps": steps, "shape": sizes}, fault=fault, **job),
            ranks,
            limits=limits,
        )
        if timed.ending.status != "ok":
            found.append(_lost(cell, timed, "steady"))
            continue
        times = timed.results[0][0]
        found.append(
            Record(
                status="ok",
                check=check,
                duration_s=share + timed.seconds,
                metrics=overhead(times) | _crowd(ranks),
                series=[series("step", times["step_s"], cell.workload.batch_size, "samples")],
                cell=cell,
                threads=ranks,
                processes=ranks,
            )
        )
    return found


def overhead(times: dict[str, Any]) -> dict[str, float]:
    """Seconds of a step that communication adds: forward and backward with it, less the same without (medians).

    Negative differences are what noise leaves of nothing, and stay as they are.
    """
    if times["silent_s"] is None:
        return {}
    compute = statistics.median(times["silent_s"])
    return {"compute_s": compute, "exposed_communication_s": statistics.median(times["backward_s"]) - compute}


def collectives(
    operations: Sequence[str],
    ranks: int,
    sizes: Sequence[int] = SIZES,
    *,
    samples: int = 11,
    limits: Limits = LIMITS,
    hosts: Sequence[Host] = (HERE,),
    **job: Any,
) -> list[Record]:
    """Time collectives by ranks dealt evenly over hosts; a record each, with a series of each size and the fit of alpha and beta.

    Metrics are ``alpha_s`` and ``beta_s_byte`` of ``seconds = alpha + beta x size``, ``fit_error`` (mean absolute error of the
    log), and of each size bus bandwidth and the fastest tenth, which is what the link does when the scheduler lets it.
    """
    options = {"operations": list(operations), "sizes": list(sizes), "samples": samples}
    each, left = divmod(ranks, len(hosts))
    if left or not each:
        raise ConfigError(f"{ranks} ranks on {len(hosts)} hosts: give as many ranks to each")
    done = launch(Job(task="collectives", options=options, **job), each, limits=limits, hosts=hosts)
    cells = {name: _collective_cell(name, ranks) for name in operations}
    if done.ending.status != "ok":
        return [_lost(cell, done, "steady") for cell in cells.values()]
    found = []
    for operation, cell in cells.items():
        rows = [row for row in done.results[0] if row["operation"] == operation]
        metrics: dict[str, float] = _crowd(ranks) | fitted(operation, rows, ranks)
        for row in rows:
            label = size_label(row["size_bytes"])
            bus = bandwidths(operation, row["size_bytes"], statistics.median(row["seconds"]), ranks)[1]  # type: ignore[arg-type]
            metrics[f"bus_bytes_s {label}"] = float(bus)
            metrics[f"p10_s {label}"] = float(np.quantile(row["seconds"], 0.1))
        found.append(
            Record(
                cell=cell,
                status="ok",
                threads=ranks,
                processes=ranks,
                duration_s=done.seconds / len(cells),
                metrics=metrics,
                series=[
                    series(
                        f"{operation} {size_label(row['size_bytes'])}",
                        row["seconds"],
                        row["size_bytes"],
                        "bytes",
                        row["calls"],
                    )
                    for row in rows
                ],
            )
        )
    return found


def fitted(operation: Any, rows: Sequence[dict[str, Any]], ranks: int) -> dict[str, float]:
    """Alpha and beta by least squares in the log; nothing from fewer than three sizes, which any line would fit."""
    if len(rows) < 3:
        return {}
    sizes = np.array([row["size_bytes"] for row in rows], float)
    medians = np.array([statistics.median(row["seconds"]) for row in rows])
    link, error = Measured(operation, ranks, sizes, medians).fit()
    return {
        "alpha_s": link.alpha_s * hops(operation, ranks),
        "beta_s_byte": bus_factor(operation, ranks) / link.bytes_s,
        "fit_error": error,
    }


def series(name: str, seconds: Sequence[float], items: float, unit: str, calls: int = 1) -> Series:
    """A series from raw samples of one launch, in the order taken."""
    from labbench.measure import stats

    taken, process, rounds = list(seconds), [0] * len(seconds), list(range(len(seconds)))
    return stats.series(
        name, taken, process, rounds, items=items, unit=unit, calls_per_sample=calls, stop_reason="max_samples"
    )


def stored(records: Sequence[Record], path: str) -> list[Record]:
    """Append records to a database with what is known of this machine; returns them as stored."""
    from labbench import machine
    from labbench.store import Store

    environment: Environment = machine.environment(["cpu"])
    where = {"environment_id": environment.id, "machine_id": environment.machine_id}
    found = [record.model_copy(update=where) for record in records]
    with Store(path, writable=True) as store:
        store.extend(found, [environment])
    return found


def size_label(size: int) -> str:
    """``64 KiB``; bytes where it is no whole number of KiB."""
    for unit, name in ((KIB**2, "MiB"), (KIB, "KiB")):
        if size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size} B"


def usable_cores() -> int:
    """Cores that ranks may have."""
    from labbench.machine.detect import physical_cores

    return physical_cores()


def _crowd(ranks: int) -> dict[str, float]:
    """Whether ranks shared cores: then times are the scheduler's, and no link should be calibrated from them."""
    return {"oversubscribed": float(ranks > usable_cores())}


def _cell(mode: str, ranks: int, shape: dict[str, int]) -> Cell:
    sizes = asdict(Shape(**shape))
    model = MODEL if Shape(**shape) == Shape() else f"{MODEL}-{content_id(sizes, 6)}"
    return Cell.of(
        model=model,
        mode="training",
        batch_size=sizes["batch"],
        seq_len=sizes["tokens"],
        runtime=mode,
        world_size=ranks,
        threads=1,
    )


def _collective_cell(operation: str, ranks: int) -> Cell:
    return Cell.of(model=operation, task="collective", runtime="gloo", world_size=ranks, threads=1)


def _lost(cell: Cell, done: Launched, stage: str) -> Record:
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
