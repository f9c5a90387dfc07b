"""Cells over time: every run with its error, and where the level of a cell changed.

A *history* is what one machine gave for one series of one cell, in order of time; machines and provenances never mix. A *run*
is one record of it. What a change point is and how it is tested stands in :mod:`labbench.analysis.segments`;
``benchmarks/change_points.py`` shows how many are found in real noise.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from labbench.analysis.levels import levels
from labbench.analysis.ratio import (
    ALPHA,
    CAMPAIGN_SD,
    ONE_ROUND_SD,
    THRESHOLD,
    Contrast,
    benjamini_hochberg,
    judge,
)
from labbench.analysis.segments import Change, Histories, Noise, changes, noise_of, wild

if TYPE_CHECKING:
    import pandas as pd

HISTORY = ("cell_id", "series", "machine_id", "provenance")  # what makes runs one history
TOLD = (
    *HISTORY, "model", "task", "mode", "batch_size", "seq_len", "image_size", "frames", "audio_s", "kv_cache", "precision",
    "platform", "runtime", "device_name",
)  # fmt: skip
RUN = ("record_id", "campaign_id", "started_at", "environment_id", "protocol_id", "threads", "noise", "latency_s")
NORMAL = 1.96  # standard deviations to either end of a 95 % interval
CHANGE = (
    "at", "record_id", "record_id_before", "ratio", "ci_low", "ci_high", "p_adjusted", "verdict", "runs_before",
    "runs_after", "mean_before_s", "mean_after_s", "begin", "end",
)  # fmt: skip


def runs(frame: pd.DataFrame, samples: pd.DataFrame) -> pd.DataFrame:
    """Every run of every history, in order of time.

    Parameters
    ----------
    frame : DataFrame
        Tidy rows of all records (:meth:`labbench.store.Store.frame`); those with status ok take part.
    samples : DataFrame
        Their raw samples (:meth:`labbench.store.Store.samples`).

    Returns
    -------
    DataFrame
        The cell, the record, and ``history`` (a number), ``log_s`` (mean over processes of the median over rounds; without
        samples the log of ``latency_s``), ``variance`` of it (by processes and rounds, or the stored interval; plus that between
        campaigns), ``ci_low_s`` and ``ci_high_s`` (NaN where nothing is known), ``judged``: false where the machine was
        unstable or nobody knows when it was. Such runs are shown and take no part in judgements.
    """
    rows = frame[(frame["status"] == "ok") & frame["series"].notna() & (frame["latency_s"] > 0)]
    rows = rows[[*TOLD, *RUN, "latency_ci_low_s", "latency_ci_high_s"]].copy()
    rows["history"] = rows.groupby(list(HISTORY), observed=True, dropna=False, sort=False).ngroup()
    rows = rows.sort_values(["history", "started_at"], kind="stable", na_position="first", ignore_index=True)
    rows["log_s"], rows["variance"] = _levels(rows, samples)
    known = rows["variance"].notna()
    reach = NORMAL * np.sqrt(rows["variance"])
    rows["ci_low_s"], rows["ci_high_s"] = np.exp(rows["log_s"] - reach), np.exp(rows["log_s"] + reach)
    rows["variance"] = rows["variance"].where(known, ONE_ROUND_SD**2 + CAMPAIGN_SD**2)
    unstable = (rows["noise"] == "unstable").fillna(False).astype(bool)
    rows["judged"] = rows["started_at"].notna() & ~unstable & np.isfinite(rows["log_s"])
    return rows.drop(columns=["latency_ci_low_s", "latency_ci_high_s"])


def _levels(rows: pd.DataFrame, samples: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Log latency and its variance: by samples, else by the stored interval, else NaN."""
    plain = np.log(rows["latency_s"].to_numpy(float))
    width = np.log(rows["latency_ci_high_s"].to_numpy(float) / rows["latency_ci_low_s"].to_numpy(float))
    stored = (width / (2 * NORMAL)) ** 2
    keys = rows[["record_id"]].assign(series=rows["series"].astype(object), record_id=rows["record_id"].astype(object))
    found = keys.merge(levels(samples).astype({"record_id": object, "series": object}), how="left")
    log_s, own = found["log_s"].to_numpy(float), found["variance"].to_numpy(float)
    sampled = np.isfinite(log_s)
    return np.where(sampled, log_s, plain), np.where(sampled, own, stored) + CAMPAIGN_SD**2


def change_points(runs: pd.DataFrame, *, alpha: float = ALPHA, threshold: float = THRESHOLD) -> pd.DataFrame:
    """Where the level of a history changed: beyond chance, for all histories together, and beyond the practical threshold.

    Parameters
    ----------
    runs : DataFrame
        From :func:`runs`.

    Returns
    -------
    DataFrame
        A row a change: the cell, ``history``, ``at`` (when the first run after it started), ``record_id`` of that run and of
        the one before (``record_id_before``), ``ratio`` of latencies after / before with ``ci_low`` and ``ci_high``,
        ``p_adjusted`` (Benjamini–Hochberg over the candidates of all histories), ``verdict``, ``runs_before``,
        ``runs_after``, ``mean_before_s``, ``mean_after_s`` (of the segments beside it, which reach from ``begin`` to ``end``).
        The newest run of a history, if it alone is off, is ``unconfirmed``: an outlier or a change, the next run will tell.
    """
    import pandas as pd

    kept = runs[runs["judged"].astype(bool)].sort_values(["history", "started_at"], kind="stable", ignore_index=True)
    noise, sd = noise_of(_histories(kept))
    outlier = wild(_histories(kept), sd)
    level = kept[~outlier].reset_index(drop=True)
    found, without = changes(_histories(level), noise, sd)
    adjusted = benjamini_hochberg(np.array([one.p_value for one in found] + [1.0] * without))
    rows = [_row(level, one, noise, p) for one, p in zip(found, adjusted, strict=False) if p <= alpha]
    newest = _newest(kept, outlier, noise, {row["history"]: row["at"] for row in rows})
    adjusted = benjamini_hochberg(np.array([one.p_value for one in newest]))
    sure = [(one, p) for one, p in zip(newest, adjusted, strict=True) if p <= alpha and one.beyond(threshold)]
    rows += [_row(kept, one, noise, p) | {"verdict": "unconfirmed"} for one, p in sure]
    table = pd.DataFrame(rows, columns=["history", *CHANGE])
    cells = kept.drop_duplicates("history").set_index("history")[list(TOLD)]
    return (
        cells.join(table.set_index("history"), how="inner")
        .reset_index()
        .sort_values(["history", "at"], ignore_index=True)
    )


def _histories(kept: pd.DataFrame) -> Histories:
    begin = np.flatnonzero(np.diff(kept["history"].to_numpy(), prepend=-1))
    own = np.maximum(kept["variance"].to_numpy(float) - CAMPAIGN_SD**2, 0)
    return Histories(kept["log_s"].to_numpy(float), own, np.append(begin, len(kept)))


def _newest(kept: pd.DataFrame, outlier: np.ndarray, noise: Noise, changed: dict[int, Any]) -> list[Change]:
    """The newest run of each history against those since its last change, outliers left out."""
    import pandas as pd

    last = (~kept["history"].duplicated(keep="last")).to_numpy()
    since = pd.to_datetime(kept["history"].map(changed), utc=True)
    before = ~last & ~outlier & ~(kept["started_at"] < since).to_numpy(bool)
    own = np.maximum(kept["variance"] - CAMPAIGN_SD**2, 0)
    earlier = kept.assign(own=own, row=np.arange(len(kept)))[before].groupby("history")
    known = earlier.agg(
        mean=("log_s", "mean"),
        variance=("log_s", "var"),
        runs=("log_s", "size"),
        own=("own", "mean"),
        row=("row", "min"),
    )
    rows = kept.assign(at=np.arange(len(kept)))[last].set_index("history").loc[known.index]
    step = rows["log_s"] - known["mean"]
    df = known["runs"] - 1
    factor = 1 + noise.inflation / known["runs"]
    variance = known["variance"].fillna(0.0)
    p_value = noise.p_values(
        step.to_numpy(), variance.to_numpy(), df.to_numpy(), known["own"].to_numpy(), factor.to_numpy()
    )
    return [
        Change(
            int(row), int(at), int(at) + 1, Contrast(float(a), float(b), int(c), float(d), float(e), False), float(p)
        )
        for row, at, a, b, c, d, e, p in zip(
            known["row"], rows["at"], step, variance, df, known["own"], factor, p_value, strict=True
        )
    ]


def _row(kept: pd.DataFrame, change: Change, noise: Noise, p_adjusted: float) -> dict[str, Any]:
    """A change in the terms of the table."""
    found = judge(change.contrast, noise.spread)
    part = kept.iloc[[change.begin, change.at - 1, change.at, change.end - 1]]
    started, ids = part["started_at"].tolist(), part["record_id"].tolist()
    before_s = math.exp(float(kept["log_s"].iloc[change.begin : change.at].mean()))
    return {
        "history": part["history"].iloc[0],
        "at": started[2],
        "record_id": ids[2],
        "record_id_before": ids[1],
        "ratio": found.ratio,
        "ci_low": found.ci_low,
        "ci_high": found.ci_high,
        "p_adjusted": p_adjusted,
        "verdict": "slower" if found.ratio > 1 else "faster",
        "runs_before": change.at - change.begin,
        "runs_after": change.end - change.at,
        "mean_before_s": before_s,
        "mean_after_s": before_s * found.ratio,
        "begin": started[0],
        "end": started[3],
    }
