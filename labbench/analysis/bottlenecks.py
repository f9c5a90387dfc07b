"""What holds each cell back, on what evidence, and how sure that is.

====================  ==============================================================================================
compute               the cores: arithmetic, and data that stay in their caches
memory                main memory: weights and intermediate results that the last cache does not hold
dispatch              the framework between operators: launches, views, allocation, waiting
preparation           loading, compiling and the first run, for a job of few calls
====================  ==============================================================================================

Feeding data is not among them: inputs lie ready before the clock starts.

Counts give lower bounds for each class of operators: FLOPs over the measured matrix-product rate, and bytes over the
measured bandwidth. Bytes that a cache can hold are not counted: weights if all of them fit, and intermediate results of a class
whose operators on average fit. The larger bound says what resource the class waits for. Runtimes that dispatch operator by
operator pay the measured cost of a dispatch for each. Where a profile was taken (``labbench run --profile``), each class has its
own time: what the profiler tells, less one dispatch for each operator. The rest of the call is dispatch. A profiler slows a call
down, so it is shares that count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from labbench.analysis.costs import ONE_OFF
from labbench.operators import NAMES
from labbench.runtimes.profiling import FUSED

if TYPE_CHECKING:
    import pandas as pd

STEADY = ("compute", "memory", "dispatch")
LABELS = (*STEADY, "preparation", "unexplained")
FAR = 0.1  # a bound below this share of the latency explains nothing
CLEAR, MOST = 0.6, 0.5  # shares of the latency
WEIGHTED = ("matmul", "convolution")  # classes that read weights
CLASSES = (*NAMES, FUSED)  # the last is a class that only profiles have
DISPATCHING = ("eager",)  # runtimes whose every kernel pays the framework's dispatch
INFLATED = 3.0  # a call that took so many times the latency under the profiler is not what was timed


def attribute(placed: pd.DataFrame, calls: float | None = None) -> pd.DataFrame:
    """What each series waits for most.

    Parameters
    ----------
    placed : DataFrame
        From :func:`labbench.analysis.roofline.place`.
    calls : float, optional
        How many calls a job makes after it started; default: so many that starting does not count.

    Returns
    -------
    DataFrame
        ``placed`` with ``compute_s``, ``memory_s``, ``dispatch_s`` (seconds of a call that each takes; lower bounds without a
        profile), ``bottleneck`` (one of ``LABELS``), ``share`` (of the time of a call, with its part of starting if ``calls``
        is given), ``reached`` (the resource's lower bound over the latency: how close to the ceiling; NaN if there is none),
        ``evidence`` (``profile``, ``counts`` or ``phases``), ``confidence``, ``main_class`` (of operators, within the
        bottleneck) and ``break_even_calls`` (which take as long as starting).

        Confidence is ``high`` if a profile shows at least 60 % and counts agree, ``medium`` if a profile shows at least half
        or counts alone explain 60 %, else ``low``; also where the machine was unstable, or the call took
        three times as long under the profiler.
    """
    rows = placed.reset_index(drop=True).copy()
    bounds, latency = _bounds(rows), rows["latency_s"].to_numpy(float)
    counted = bounds.sum(axis=2)
    launches = rows["kernels"].astype(float) * rows["launch_s"]
    counted[:, STEADY.index("dispatch")] = launches.where(rows["runtime"].isin(DISPATCHING), 0.0)
    profiled = _column(rows, "profile_wall_s") > 0
    spent = _spent(rows, bounds)
    by_class = np.where(profiled[:, None, None], spent, bounds)
    seconds = np.where(profiled[:, None], _with_rest(rows, spent), counted)
    rows[[f"{name}_s" for name in STEADY]] = seconds
    shares = np.nan_to_num(seconds / latency[:, None])
    first, at = _largest(shares), np.arange(len(rows))
    rows["bottleneck"], rows["share"] = np.array(STEADY, dtype=object)[first], shares[at, first]
    rows["reached"] = _positive(counted[at, first]) / latency
    rows["evidence"] = np.where(profiled, "profile", "counts")
    doubtful = (rows["noise"].astype("str") == "unstable") | (_column(rows, "profile_wall_s") > INFLATED * latency)
    agrees = _largest(np.nan_to_num(counted)) == first
    rows["confidence"] = _confidence(rows["share"].to_numpy(), profiled, agrees, doubtful.to_numpy())
    classes = np.array(CLASSES, dtype=object)[_largest(by_class[at, first])]
    rows["main_class"] = np.where(first == STEADY.index("dispatch"), "", classes)
    rows.loc[~profiled & (rows["share"] < FAR), ["bottleneck", "confidence", "main_class"]] = "unexplained", "low", ""
    return _with_preparation(rows, calls)


def _largest(values: np.ndarray) -> np.ndarray:
    """Place of the largest value of each row; there may be no rows."""
    return values.argmax(axis=1) if len(values) else np.zeros(0, dtype=int)


def _positive(values: np.ndarray) -> np.ndarray:
    return np.where(values > 0, values, np.nan)


def _bounds(rows: pd.DataFrame) -> np.ndarray:
    """Lower bounds in seconds, rows × (compute, memory, dispatch) × classes: each class counts where its larger bound is."""
    arithmetic = of_classes(rows, "flops") / rows["peak_flops"].to_numpy(float)[:, None]
    traffic = uncached_bytes(rows) / rows["bandwidth_bytes_s"].to_numpy(float)[:, None]
    waits = traffic > arithmetic
    bounds = [np.where(waits, 0, arithmetic), np.where(waits, traffic, 0), np.zeros_like(traffic)]
    return np.nan_to_num(np.stack(bounds, axis=1))


def of_classes(rows: pd.DataFrame, kind: str) -> np.ndarray:
    """A figure of each class of operators, rows × classes; 0 where there is none."""
    return np.column_stack([_column(rows, f"{kind}_{name}") for name in CLASSES])


def _column(rows: pd.DataFrame, name: str) -> np.ndarray:
    return rows[name].to_numpy(float, na_value=0.0) if name in rows else np.zeros(len(rows))


def uncached_bytes(rows: pd.DataFrame) -> np.ndarray:
    """Bytes that must come from main memory or go there, rows × classes; ``rows`` are placed on the roofline."""
    sizes, kernels = of_classes(rows, "bytes"), of_classes(rows, "kernels")
    cache = rows["cache_bytes"].to_numpy(float)[:, None]
    reading = sizes * np.isin(CLASSES, WEIGHTED)
    weights = np.minimum(_column(rows, "parameter_bytes"), reading.sum(axis=1))[:, None]
    weights = weights * reading / np.maximum(reading.sum(axis=1), 1)[:, None]
    activations = sizes - weights
    kept = activations / np.maximum(kernels, 1) <= cache
    kept[:, CLASSES.index("embedding")] = True  # the table counts whole, but only the rows looked up are read
    return np.where(weights.sum(axis=1, keepdims=True) > cache, weights, 0) + np.where(kept, 0, activations)


def _spent(rows: pd.DataFrame, bounds: np.ndarray) -> np.ndarray:
    """Seconds that profiles tell, rows × (compute, memory, dispatch) × classes, each class where its larger bound is."""
    launch_s = np.nan_to_num(rows["launch_s"].to_numpy(float))[:, None]
    work = np.maximum(of_classes(rows, "profile_s") - of_classes(rows, "profile_kernels") * launch_s, 0)
    waits = bounds[:, 1] > bounds[:, 0]
    others = ~np.isin(CLASSES, (*WEIGHTED, "attention"))
    fused = (bounds[:, 1] * others).sum(axis=1) > (bounds[:, 0] * others).sum(axis=1)
    waits[:, CLASSES.index(FUSED)] = fused
    return np.stack([np.where(waits, 0, work), np.where(waits, work, 0), np.zeros_like(work)], axis=1)


def _with_rest(rows: pd.DataFrame, spent: np.ndarray) -> np.ndarray:
    """Seconds of the latency on each resource: the shares of the profiled call; what operators do not take is dispatch."""
    seconds = spent.sum(axis=2)
    total = seconds.sum(axis=1)
    call = np.fmax(total, rows["profile_wall_s"].fillna(1.0).to_numpy(float))  # any, where there is no profile
    seconds[:, STEADY.index("dispatch")] = call - total
    return seconds * (rows["latency_s"].to_numpy(float) / call)[:, None]


def _confidence(share: np.ndarray, profiled: np.ndarray, agrees: np.ndarray, doubtful: np.ndarray) -> np.ndarray:
    high, medium = profiled & agrees & (share >= CLEAR), np.where(profiled, share >= MOST, share >= CLEAR)
    return np.select([doubtful, high, medium], ["low", "high", "medium"], "low").astype(object)


def _with_preparation(rows: pd.DataFrame, calls: float | None) -> pd.DataFrame:
    """Starting as a resource of a job of so many calls."""
    start_s = rows[list(ONE_OFF)].sum(axis=1, min_count=1)
    rows["break_even_calls"] = start_s / rows["latency_s"]
    if calls is None:
        return rows
    part = start_s / (start_s + calls * rows["latency_s"])
    rows["share"] *= 1 - part.fillna(0)
    outweighs = (part > rows["share"]).to_numpy()
    rows.loc[outweighs, "share"] = part[outweighs]
    rows.loc[outweighs, ["bottleneck", "main_class", "evidence"]] = "preparation", "", "phases"
    rows.loc[outweighs, "reached"] = np.nan
    rows.loc[outweighs, "confidence"] = np.where(part[outweighs] >= CLEAR, "high", "medium")
    return rows
