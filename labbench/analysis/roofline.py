"""Each cell on its machine's measured roofline.

The lower bounds of a call are its FLOPs over the measured matrix-product rate and its bytes over the measured bandwidth (Williams,
Waterman and Patterson, "Roofline", CACM 52(4), 2009). Bytes count every operator's inputs and outputs as if nothing were fused or
cached; :mod:`labbench.analysis.bottlenecks` takes caches into account and says what holds a cell back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

    from labbench.records import Environment

LIMITS = ("peak_flops", "bandwidth_bytes_s", "launch_s", "cache_bytes")
CACHES = ("l3_bytes", "l2_bytes")  # the last level that the machine tells of


def place(frame: pd.DataFrame, environments: Mapping[str, Environment]) -> pd.DataFrame:
    """Rows with a footprint, placed on the roofline of their machine.

    Adds the ceilings ``peak_flops`` (FLOP/s), ``bandwidth_bytes_s``, ``launch_s`` (of one operator, by eager) and ``cache_bytes``
    (last level; 0 where it is not known), and the cell's ``intensity`` (FLOP/byte) and ``achieved_flops`` (FLOP/s). Ceilings are
    NaN where they were not measured; a CPU cell on fewer threads than the ceilings has that share of the FLOP/s.
    """
    import pandas as pd

    rows = frame[(frame["status"] == "ok") & frame["flops"].notna() & frame["latency_s"].notna()].copy()
    keys = ["environment_id", "device", "precision", "threads"]
    told = rows[keys].astype(dict.fromkeys(keys[:3], "str") | {"threads": float})
    where = told.drop_duplicates()
    known = [_limits(environments.get(row.environment_id), row) for row in where.itertuples()]
    table = where.join(pd.DataFrame(known, columns=list(LIMITS), index=where.index, dtype=float))
    found = told.merge(table, on=keys, how="left")
    rows[list(LIMITS)] = found[list(LIMITS)].to_numpy()
    rows["intensity"] = rows["flops"] / rows["bytes"].where(rows["bytes"] > 0)
    rows["achieved_flops"] = rows["flops"] / rows["latency_s"]
    return rows.reset_index(drop=True)


def _limits(environment: Environment | None, row: Any) -> tuple[float, float, float, float]:
    """FLOP/s, bytes/s, seconds a dispatch and bytes of cache."""
    found = environment.ceilings(row.device) if environment else None
    if not environment or not found:
        return np.nan, np.nan, np.nan, 0.0
    rates = found["gemm_flops"]
    cpu = environment.machine.get("cpu") if row.device == "cpu" else None
    cache = next((cpu[name] for name in CACHES if cpu.get(name)), 0) if isinstance(cpu, dict) else 0
    fewer = row.threads / found["threads"] if cpu and row.threads > 0 and found.get("threads") else 1.0
    peak = rates.get(row.precision, rates["fp32"]) * min(fewer, 1.0)
    return peak, found["bandwidth_bytes_s"], found["dispatch_s"], float(cache)
