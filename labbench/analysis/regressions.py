"""Did anything get slower, or stop running? The newest run of each cell against a pinned baseline or the run before."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from labbench.analysis.attribution import causes
from labbench.analysis.compare import beside, by_reference, judge_pairs
from labbench.analysis.history import HISTORY, TOLD
from labbench.analysis.ratio import ALPHA, THRESHOLD, verdict
from labbench.analysis.references import with_references

if TYPE_CHECKING:
    import pandas as pd

    from labbench.records import Environment

FAIL_ON = 0.05
CELL = ("cell_id", "machine_id", "provenance")  # what a record that failed, and so has no series, is known by
RESULT = (
    "record_id", "record_id_baseline", "started_at", "latency_s", "latency_baseline_s", "ratio", "ci_low", "ci_high",
    "p_adjusted", "verdict", "regressed", "reason", "cause",
)  # fmt: skip
UNSTABLE, NO_BASELINE, NO_RUN_BEFORE, NOT_SINCE, NO_SAMPLES = (
    "the machine was unstable",
    "the baseline has no record of it",
    "there is no earlier run that is ok and stable",
    "it was not measured since the baseline",
    "there are no samples to judge by",
)


def regressions(
    frame: pd.DataFrame,
    samples: pd.DataFrame,
    baseline_ids: Iterable[str] | None = None,
    fail_on: float = FAIL_ON,
    *,
    environments: Mapping[str, Environment] | None = None,
    alpha: float = ALPHA,
) -> pd.DataFrame:
    """The newest run of each cell on each machine against what it was.

    Where both runs were measured in turn with the same reference, their ratios to it are compared, however the machine was.

    Parameters
    ----------
    frame : DataFrame
        Tidy rows of all records, failed ones too, and their references (``Store.frame(references=True)``).
    samples : DataFrame
        Raw samples (:meth:`labbench.store.Store.samples`) of at least the records compared: :func:`compared` names them.
    baseline_ids : iterable of str, optional
        Records of a pinned baseline; default: of each cell the newest earlier run that is ok and has the same reference, or,
        if there is none, was not unstable.
    fail_on : float
        How much slower is a regression, as a fraction; less than 2 % counts as 2 %.
    environments : mapping, optional
        Environment id to what it was, to name what may have caused a regression, and to tell references apart.

    Returns
    -------
    DataFrame
        A row a cell, machine and series: the cell, the two records, ``ratio`` of latencies with ``ci_low`` and ``ci_high``,
        ``p_adjusted`` (Benjamini–Hochberg over all that are judged), ``verdict`` (``not judged`` where there is none),
        ``regressed`` (slower beyond chance and by ``fail_on``, or ran before and now does not), ``reason`` (why it was not
        judged, or how it failed), ``cause`` (what else changed; empty where the speed did not). A cell that never ran, or of
        which only the baseline's own run is there, is no regression.
    """
    import pandas as pd

    pairs = _pairs(frame, None if baseline_ids is None else set(baseline_ids), environments)
    judged = pairs["reason"].isna()
    table = pairs.rename(columns={"latency_s_baseline": "latency_baseline_s"})
    found = judge_pairs(pairs[judged], samples, alpha, THRESHOLD)
    for name in ("ratio", "ci_low", "ci_high", "p_adjusted"):
        table[name] = found[name].reindex(pairs.index).astype(float)
    silent = judged & table["p_adjusted"].isna()
    table["reason"] = table["reason"].mask(silent, NO_SAMPLES)
    table["verdict"] = [
        verdict(r.ratio, r.ci_low, r.ci_high, r.p_adjusted, alpha, THRESHOLD) if decided else "not judged"
        for r, decided in zip(table.itertuples(), judged & ~silent, strict=True)
    ]
    slower = (table["verdict"] == "slower") & (table["ratio"] - 1 >= fail_on)
    table["regressed"] = slower | table["failed"]
    table["reference"] = table["reference"].where(by_reference(pairs))
    table["shift"] = np.select(
        [table["regressed"], table["verdict"].isin(["slower", "faster"])], ["slower", table["verdict"]], "none"
    )
    known = table[judged | table["failed"]]
    table["cause"] = causes(known, environments or {}).reindex(table.index).astype(object).fillna("")
    table = table.sort_values(
        ["regressed", "ratio"], ascending=False, kind="stable", na_position="last", ignore_index=True
    )
    return pd.DataFrame(table, columns=[*TOLD, *RESULT])


def compared(
    frame: pd.DataFrame,
    baseline_ids: Iterable[str] | None = None,
    environments: Mapping[str, Environment] | None = None,
) -> list[str]:
    """Ids of the records whose samples :func:`regressions` needs, asked the same way."""
    pairs = _pairs(frame, None if baseline_ids is None else set(baseline_ids), environments)
    judged = pairs[pairs["reason"].isna()]
    references = judged[by_reference(judged)]
    return [
        str(key)
        for part, name in ((judged, "record_id"), (references, "reference_id"))
        for side in ("", "_baseline")
        for key in part[name + side]
    ]


def _pairs(
    frame: pd.DataFrame, baseline_ids: set[str] | None, environments: Mapping[str, Environment] | None
) -> pd.DataFrame:
    """Newest rows beside their baselines, with the reason why a pair cannot be judged, and whether it ``failed`` since."""
    import pandas as pd

    rows = with_references(frame, environments)
    rows = rows.sort_values("started_at", kind="stable", na_position="first", ignore_index=True)
    codes = rows.groupby(list(CELL), observed=True, dropna=False, sort=False).ngroup()
    newest_id = rows.groupby(codes)["record_id"].transform("last")
    newest = (rows["record_id"] == newest_id).to_numpy(bool)
    ok = (rows["status"] == "ok").to_numpy(bool) & rows["series"].notna().to_numpy(bool)
    stable = ~(rows["noise"] == "unstable").fillna(False).to_numpy(bool)
    steady = stable | rows["reference"].notna().to_numpy(bool)
    pinned = ~newest & steady if baseline_ids is None else rows["record_id"].isin(baseline_ids).to_numpy(bool)
    base = rows[pinned & ok]
    ran = _beside_the_like(rows[newest & ok], base, base if baseline_ids is not None else rows[pinned & ok & stable])
    missing = ran["record_id_baseline"].isna()
    same = ran["record_id"] == ran["record_id_baseline"]
    reason = pd.Series(None, index=ran.index, dtype=object)
    unstable = (ran["noise"] == "unstable") | (ran["noise_baseline"] == "unstable")
    reason[unstable.fillna(False).astype(bool) & ~by_reference(ran)] = UNSTABLE
    reason[same.fillna(False).astype(bool)] = NOT_SINCE
    reason[missing] = NO_RUN_BEFORE if baseline_ids is None else NO_BASELINE
    failed = _failed(rows[newest & ~ok], base)
    return pd.concat([ran.assign(reason=reason, failed=False), failed], ignore_index=True)


def _beside_the_like(rows: pd.DataFrame, base: pd.DataFrame, others: pd.DataFrame) -> pd.DataFrame:
    """Each row beside the last of ``base`` with the same reference, or none; where there is none, beside the last of ``others``."""
    import pandas as pd

    found = beside(rows, base, list(HISTORY), how="left")
    alone = found["record_id_baseline"].isna().to_numpy(bool)
    anyway = beside(rows[alone], others, [name for name in HISTORY if name != "reference"], how="left")
    return pd.concat([found[~alone], anyway], ignore_index=True) if len(anyway) else found


def _failed(newest: pd.DataFrame, base: pd.DataFrame) -> pd.DataFrame:
    """Cells whose newest record is not ok, beside the series that they had."""
    last = base.drop_duplicates([name for name in HISTORY if name != "reference"], keep="last")
    pairs = beside(last, newest, list(CELL))
    sides = {
        name: name.removesuffix("_baseline") if name.endswith("_baseline") else f"{name}_baseline" for name in pairs
    }
    pairs = pairs.rename(columns=sides)
    texts = (
        pairs["status"].astype("str").str.replace("_", " ") + ": " + pairs["reason"].astype("str").fillna("no reason")
    )
    return pairs.assign(series=pairs["series_baseline"], reason=texts, failed=True, latency_s=math.nan)
