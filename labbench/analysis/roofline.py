"""Where the time goes: each cell on its machine's measured roofline.

The lower bounds of a call are its FLOPs over the measured matrix-product rate, its bytes over the measured bandwidth (Williams,
Waterman and Patterson, "Roofline", CACM 52(4), 2009), and, for runtimes that dispatch operator by operator, its kernels times the
measured cost of one dispatch. The largest is what bounds the cell; its share of the measured latency is how close the
runtime comes. Bytes count every operator's inputs and outputs as if nothing were fused or cached, so for fusing runtimes and
for tensors that fit in a cache the memory bound is too high and the share may exceed 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

    from labbench.records import Environment

DISPATCHING = ("eager",)  # runtimes whose every kernel pays the framework's dispatch
FAR = 0.1  # below this share of every bound, the counted demand does not explain the time


def place(frame: pd.DataFrame, environments: Mapping[str, Environment]) -> pd.DataFrame:
    """Rows with a footprint, placed on the roofline of their machine.

    Adds ``intensity`` (FLOP/byte), ``achieved_flops`` (FLOP/s), ``peak_flops``, ``bandwidth_bytes_s``, the bounds
    ``compute_s``, ``memory_s``, ``dispatch_s``, ``bound`` (the largest one's name, or ``unexplained``) and
    ``share`` (that bound / latency).
    """
    rows = frame[(frame["status"] == "ok") & frame["flops"].notna() & frame["latency_s"].notna()].copy()
    limits = [
        _limits(environments.get(str(r.environment_id)), str(r.device), str(r.precision)) for r in rows.itertuples()
    ]
    rows["peak_flops"], rows["bandwidth_bytes_s"], dispatch = (
        np.array(column, dtype=float) for column in (zip(*limits, strict=True) if limits else ([], [], []))
    )
    rows["intensity"] = rows["flops"] / rows["bytes"]
    rows["achieved_flops"] = rows["flops"] / rows["latency_s"]
    rows["compute_s"] = rows["flops"] / rows["peak_flops"]
    rows["memory_s"] = rows["bytes"] / rows["bandwidth_bytes_s"]
    kernels = rows["kernels"].astype(float).where(rows["runtime"].isin(DISPATCHING), 0.0)
    rows["dispatch_s"] = kernels * dispatch
    bounds = rows[["compute_s", "memory_s", "dispatch_s"]].to_numpy(dtype=float)
    names = np.array(["compute", "memory", "dispatch"])
    largest = np.nanmax(bounds, axis=1) if len(rows) else np.zeros(0)
    rows["share"] = largest / rows["latency_s"]
    rows["bound"] = names[np.nan_to_num(bounds).argmax(axis=1)] if len(rows) else names[:0]
    rows.loc[rows["share"] < FAR, "bound"] = "unexplained"
    return rows.reset_index(drop=True)


def _limits(environment: Environment | None, device: str, precision: str) -> tuple[float, float, float]:
    """Peak FLOP/s, bytes/s and seconds a dispatch; NaN where they were not measured."""
    found = environment.ceilings(device) if environment else None
    if not found:
        return np.nan, np.nan, np.nan
    rates = found["gemm_flops"]
    return rates.get(precision, rates["fp32"]), found["bandwidth_bytes_s"], found["dispatch_s"]
