"""Tables of what ranks here did, from their records."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from labbench.distributed.collectives_model import bus_factor
from labbench.records import Record


def strategy_table(records: Sequence[Record]) -> pd.DataFrame:
    """A row for each strategy: whether it is right, by how much not, its step, and why it has none.

    Returns
    -------
    DataFrame
        ``strategy``, ``ranks``, ``status``, ``max_error`` and ``tolerance`` (in units of the global norm), ``step_s``,
        ``exposed_communication_s``, ``reason``.
    """
    rows = [
        {
            "strategy": record.cell.platform.runtime,
            "ranks": record.cell.platform.world_size,
            "status": record.status,
            "max_error": record.check.max_error if record.check else None,
            "tolerance": record.check.tolerance if record.check else None,
            "step_s": record.primary.latency_s if record.primary else None,
            "exposed_communication_s": record.metrics.get("exposed_communication_s"),
            "reason": record.reason,
        }
        for record in records
    ]
    return pd.DataFrame(rows).dropna(axis="columns", how="all")


def collective_table(records: Sequence[Record]) -> pd.DataFrame:
    """A row for each collective and size; bandwidths as nccl-tests define them.

    Returns
    -------
    DataFrame
        ``operation``, ``ranks``, ``size_bytes``, ``median_s``, ``p10_s``, ``algorithm_bytes_s``, ``bus_bytes_s``, ``alpha_s``,
        ``fit_error``, ``oversubscribed``; one row with ``status`` and ``reason`` where there are none.
    """
    rows = []
    for record in records:
        common = {"operation": record.cell.workload.model, "ranks": record.cell.platform.world_size}
        for one in record.series:
            label = one.name.partition(" ")[2]
            factor = bus_factor(record.cell.workload.model, record.cell.platform.world_size)  # type: ignore[arg-type]
            rows.append(
                common
                | {
                    "size_bytes": one.items_per_call,
                    "median_s": one.latency_s,
                    "p10_s": record.metrics[f"p10_s {label}"],
                    "algorithm_bytes_s": one.throughput,
                    "bus_bytes_s": one.throughput * factor,
                    "alpha_s": record.metrics.get("alpha_s"),
                    "fit_error": record.metrics.get("fit_error"),
                    "oversubscribed": bool(record.metrics["oversubscribed"]),
                }
            )
        if not record.series:
            rows.append(common | {"status": record.status, "reason": record.reason})
    return pd.DataFrame(rows)
