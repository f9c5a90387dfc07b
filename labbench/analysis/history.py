"""Cells over time: every run with its error, and where the level of a cell changed.

A *history* is what one machine gave for one series of one cell, in order of time; machines and provenances never mix. A *run*
is one record of it. Where a run has a reference, the same cell in an environment that stays what it is, measured in turn, its level
is the ratio to that: whatever the machine did meanwhile is in both. Runs with another reference, or with none, are another history.

What a change point is and how it is tested stands in :mod:`labbench.analysis.segments`;
``benchmarks/change_points.py`` shows how many are found in real noise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from labbench.analysis.levels import levels
from labbench.analysis.ratio import (
    CAMPAIGN_SD,
    ONE_ROUND_SD,
    RATIO_SD,
    THRESHOLD,
    benjamini_hochberg,
)
from labbench.analysis.references import with_references
from labbench.analysis.segments import CHANGE_ALPHA, Changes, Histories, Noise, changes, largest_step, noise_of, wild

if TYPE_CHECKING:
    import pandas as pd

    from labbench.records import Environment

HISTORY = ("cell_id", "series", "machine_id", "provenance", "reference")  # what makes runs one history
TOLD = (
    *HISTORY, "model", "task", "mode", "batch_size", "seq_len", "image_size", "frames", "audio_s", "kv_cache", "variant",
    "precision",    "platform", "runtime", "device_name",
)  # fmt: skip
RUN = (
    "record_id", "reference_id", "campaign_id", "started_at", "environment_id", "protocol_id", "threads", "noise", "latency_s",
)  # fmt: skip
PASSES = 3  # noise is measured between changes, so each pass knows it better and may find more
NORMAL = 1.96  # standard deviations to either end of a 95 % interval


def runs(
    frame: pd.DataFrame, samples: pd.DataFrame, environments: Mapping[str, Environment] | None = None
) -> pd.DataFrame:
    """Every run of every history, in order of time.

    Parameters
    ----------
    frame : DataFrame
        Tidy rows of all records and their references (``Store.frame(references=True)``); those with status ok take part.
    samples : DataFrame
        Their raw samples (:meth:`labbench.store.Store.samples`).
    environments : mapping, optional
        Environment id to what it was, to tell one reference from another by versions (:func:`with_references`).

    Returns
    -------
    DataFrame
        The cell, the record, and ``history`` (a number), ``log_s`` (mean over processes of the median over rounds; without
        samples the log of ``latency_s``), ``variance`` of it (by processes and rounds, or the stored interval; plus that between
        campaigns), ``ci_low_s`` and ``ci_high_s`` (NaN where nothing is known), ``judged``: false where the machine was
        unstable and there is no reference, or nobody knows when it was. Such runs are shown and take no part in judgements.
        ``reference`` says what the reference ran on, null if there is none; ``log_s`` is then the ratio to it, times the median
        latency of the history's references.
    """
    rows = with_references(frame, environments)
    rows = rows[(rows["status"] == "ok") & rows["series"].notna() & (rows["latency_s"] > 0)]
    rows = rows[[*TOLD, *RUN, "latency_ci_low_s", "latency_ci_high_s"]].reset_index(drop=True)
    rows["log_s"], rows["variance"] = _levels(rows, samples)
    ratio, ratio_variance, anchor = _ratios(rows, samples)
    paired = np.isfinite(ratio)
    rows["reference"] = rows["reference"].where(paired)
    rows["history"] = rows.groupby(list(HISTORY), observed=True, dropna=False, sort=False).ngroup()
    anchor = anchor.groupby(rows["history"]).transform("median")
    rows["log_s"] = rows["log_s"].mask(paired, ratio + anchor)
    rows["variance"] = rows["variance"].mask(paired, ratio_variance + RATIO_SD**2)
    rows = rows.sort_values(["history", "started_at"], kind="stable", na_position="first", ignore_index=True)
    known = rows["variance"].notna()
    reach = NORMAL * np.sqrt(rows["variance"])
    rows["ci_low_s"], rows["ci_high_s"] = np.exp(rows["log_s"] - reach), np.exp(rows["log_s"] + reach)
    rows["variance"] = rows["variance"].where(known, ONE_ROUND_SD**2 + CAMPAIGN_SD**2)
    unstable = (rows["noise"] == "unstable").fillna(False).astype(bool)
    steady = ~unstable | rows["reference"].notna()
    rows["judged"] = rows["started_at"].notna() & steady & np.isfinite(rows["log_s"])
    return rows.drop(columns=["latency_ci_low_s", "latency_ci_high_s"])


def _levels(rows: pd.DataFrame, samples: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Log latency and its variance: by samples, else by the stored interval, else NaN."""
    plain = np.log(rows["latency_s"].to_numpy(float))
    width = np.log(rows["latency_ci_high_s"].to_numpy(float) / rows["latency_ci_low_s"].to_numpy(float))
    stored = (width / (2 * NORMAL)) ** 2
    found = _of(rows, "record_id", levels(samples))
    log_s, own = found["log_s"].to_numpy(float), found["variance"].to_numpy(float)
    sampled = np.isfinite(log_s)
    return np.where(sampled, log_s, plain), np.where(sampled, own, stored) + CAMPAIGN_SD**2


def _ratios(rows: pd.DataFrame, samples: pd.DataFrame) -> tuple[pd.Series, pd.Series, pd.Series]:
    """Log ratio to the reference, its variance, and log latency of the reference; NaN where there is none."""
    named = rows[rows["reference"].notna()]
    references = dict(zip(named["record_id"].astype(object), named["reference_id"].astype(object), strict=True))
    taken = samples[samples["record_id"].isin([*references, *references.values()])]
    found = _of(rows, "record_id", levels(taken, references))
    return found["log_s"], found["variance"], _of(rows, "reference_id", levels(taken))["log_s"]


def _of(rows: pd.DataFrame, key: str, found: pd.DataFrame) -> pd.DataFrame:
    """The levels that were found, of the record that a column of each row names."""
    keys = rows[[key, "series"]].astype(object).rename(columns={key: "record_id"})
    return keys.merge(found.astype({"record_id": object, "series": object}), how="left")


def change_points(runs: pd.DataFrame, *, alpha: float = CHANGE_ALPHA, threshold: float = THRESHOLD) -> pd.DataFrame:
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
        Histories by reference, which are much less noisy, are judged apart from the others.
    """
    import pandas as pd

    paired = runs["reference"].notna()
    kinds = [(runs[paired], RATIO_SD), (runs[~paired], CAMPAIGN_SD)]
    tables = [_change_points(part, sd, alpha, threshold) for part, sd in kinds if len(part)]
    found = [table for table in tables if len(table)] or tables or [_change_points(runs, CAMPAIGN_SD, alpha, threshold)]
    return pd.concat(found).sort_values(["history", "at"], kind="stable", ignore_index=True)


def _change_points(runs: pd.DataFrame, sd: float, alpha: float, threshold: float) -> pd.DataFrame:
    """Of histories whose runs differ by about ``sd`` beyond their own variance."""
    import pandas as pd

    kept = runs[runs["judged"].astype(bool)].sort_values(["history", "started_at"], kind="stable", ignore_index=True)
    kept["own"] = np.maximum(kept["variance"].astype(float) - sd**2, 0)
    everything = _histories(kept, sd)
    outlier = wild(everything, noise_of(everything)[1])
    level = kept[~outlier].reset_index(drop=True)
    histories = _histories(level, sd)
    starts = largest_step(histories)
    for _ in range(PASSES):
        noise, sds = noise_of(histories, starts)
        found, without = changes(histories, noise, sds)
        before, starts = starts, found.at[found.p_value <= alpha]
        if np.array_equal(before, starts):
            break
    p_adjusted = benjamini_hochberg(np.concatenate([found.p_value, np.ones(without)]))[: len(found.p_value)]
    sure = p_adjusted <= alpha
    table = _table(level, found.picked(sure), noise, p_adjusted[sure])
    newest = _newest(kept, outlier, noise, table.drop_duplicates("history", keep="last").set_index("history")["at"])
    p_adjusted = benjamini_hochberg(newest.p_value)
    sure = (p_adjusted <= alpha) & (np.abs(newest.step) > math.log1p(threshold))
    last = _table(kept, newest.picked(sure), noise, p_adjusted[sure]).assign(verdict="unconfirmed")
    parts = [part for part in (table, last) if len(part)]
    return pd.concat(parts) if parts else table


def _histories(kept: pd.DataFrame, sd: float) -> Histories:
    begin = np.flatnonzero(np.diff(kept["history"].to_numpy(), prepend=-1))
    return Histories(kept["log_s"].to_numpy(float), kept["own"].to_numpy(float), np.append(begin, len(kept)), sd)


def _newest(kept: pd.DataFrame, outlier: np.ndarray, noise: Noise, changed: pd.Series) -> Changes:
    """The newest run of each history against those since its last change, outliers left out."""
    last = (~kept["history"].duplicated(keep="last")).to_numpy()
    since = changed.reindex(kept["history"]).array
    before = ~last & ~outlier & ~np.asarray(kept["started_at"].array < since, dtype=bool)
    earlier = kept.assign(row=np.arange(len(kept)))[before].groupby("history")
    known = earlier.agg(
        mean=("log_s", "mean"), var=("log_s", "var"), runs=("log_s", "size"), own=("own", "mean"), row=("row", "min")
    )
    known["squares"] = known["var"].fillna(0.0) * (known["runs"] - 1)
    rows = kept.assign(at=np.arange(len(kept)))[last].set_index("history").loc[known.index]
    runs, at = known["runs"].to_numpy(), rows["at"].to_numpy(int)
    step = (rows["log_s"] - known["mean"]).to_numpy(float)
    df = noise.freedom(runs)
    variance = np.divide(known["squares"].to_numpy(float), df, out=np.zeros(len(df)), where=df > 0)
    error = np.sqrt(
        noise.spread.moderated(variance, df, known["own"].to_numpy(float)) * noise.factor(runs, np.ones(len(runs)))
    )
    return Changes(known["row"].to_numpy(int), at, at + 1, step, error, df, noise.p_values(step, error, df))


def _table(kept: pd.DataFrame, found: Changes, noise: Noise, p_adjusted: np.ndarray) -> pd.DataFrame:
    """Changes in the terms of :func:`change_points`."""
    started, ids = kept["started_at"], kept["record_id"].to_numpy()
    reach = noise.reach(found.error, found.df)
    total = np.concatenate([[0.0], np.cumsum(kept["log_s"].to_numpy(float))])
    runs_before = found.at - found.begin
    before_s = np.exp((total[found.at] - total[found.begin]) / np.maximum(runs_before, 1))
    return kept[["history", *TOLD]].iloc[found.at].reset_index(drop=True).assign(
        at=started.iloc[found.at].array,
        record_id=ids[found.at],
        record_id_before=ids[found.at - 1],
        ratio=np.exp(found.step),
        ci_low=np.exp(found.step - reach),
        ci_high=np.exp(found.step + reach),
        p_adjusted=p_adjusted,
        verdict=np.where(found.step > 0, "slower", "faster"),
        runs_before=runs_before,
        runs_after=found.end - found.at,
        mean_before_s=before_s,
        mean_after_s=before_s * np.exp(found.step),
        begin=started.iloc[found.begin].array,
        end=started.iloc[found.end - 1].array,
    )  # fmt: skip
