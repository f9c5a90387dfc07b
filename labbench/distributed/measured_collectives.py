"""Records of collectives: a record each, a series of each size, the fit of alpha and beta.

A collective stands where the model stands in other records (``all_reduce inference ... on cpu/gloo×2``).
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from labbench.config import ConfigError
from labbench.distributed.collectives_model import Measured, bandwidths, bus_factor, hops
from labbench.distributed.hosts import HERE, Host
from labbench.distributed.job import Job
from labbench.distributed.launcher import Limits, launch
from labbench.distributed.place import missing
from labbench.distributed.rank_cells import collective_cell
from labbench.distributed.rank_records import crowd, lost, series
from labbench.records import Record

KIB = 1024
SIZES = tuple(KIB * 4**power for power in range(9))  # 1 KiB to 64 MiB
LIMITS = Limits()


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
    device = job.get("device", "cpu")
    cells = {name: collective_cell(name, ranks, device) for name in operations}
    if reason := missing(device, ranks):
        return [Record(cell=one, status="unsupported", reason=reason) for one in cells.values()]
    done = launch(Job(task="collectives", options=options, **job), each, limits=limits, hosts=hosts)
    if done.ending.status != "ok":
        return [lost(one, done, "steady") for one in cells.values()]
    found = []
    for operation in operations:
        rows = [row for row in done.results[0] if row["operation"] == operation]
        metrics: dict[str, float] = crowd(ranks, device) | fitted(operation, rows, ranks)
        for row in rows:
            label = size_label(row["size_bytes"])
            bus = bandwidths(operation, row["size_bytes"], statistics.median(row["seconds"]), ranks)[1]  # type: ignore[arg-type]
            metrics[f"bus_bytes_s {label}"] = float(bus)
            metrics[f"p10_s {label}"] = float(np.quantile(row["seconds"], 0.1))
        found.append(
            Record(
                cell=cells[operation],
                status="ok",
                threads=ranks,
                processes=ranks,
                duration_s=done.seconds / len(operations),
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


def size_label(size: int) -> str:
    """``64 KiB``; bytes where it is no whole number of KiB."""
    for unit, name in ((KIB**2, "MiB"), (KIB, "KiB")):
        if size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size} B"
