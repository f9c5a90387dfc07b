"""Did advice keep its promise? What was measured to test it, beside what it promised."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from labbench.analysis.compare import beside, judge_pairs

if TYPE_CHECKING:
    import pandas as pd

    from labbench.store import Store

KEPT = 0.5  # advice kept its promise if at least this share of the promised gain came
PROMISE = ("advice_change", "advice_baseline_cell_id", "advice_series")
COLUMNS = (
    "model", "change", "series", "cell_id", "promised", "promised_ci_low", "promised_ci_high", "gain", "gain_ci_low",
    "gain_ci_high", "share", "kept", "status", "reason", "started_at", "record_id",
)  # fmt: skip


def outcomes(store: Store) -> pd.DataFrame:
    """Every test of advice that the store holds, newest of each cell and starting point.

    Returns
    -------
    DataFrame
        ``model``, ``change``, ``series``, ``cell_id``, the promised gain (time per item before / after) with its interval, the
        gain that came with its own, ``share`` of the promised saving that came ((gain - 1) / (promised - 1)), ``kept``
        (whether that is at least half), ``status`` and ``reason`` of the record that was taken to test it.
    """
    import pandas as pd

    promised = _promises(store)
    if promised.empty:
        return pd.DataFrame(columns=list(COLUMNS))
    rows = store.frame(campaign_id=promised["campaign_id"].unique().tolist())
    measured = rows[(rows["status"] == "ok") & rows["series"].notna()].assign(
        series=lambda t: t["series"].astype("str")
    )
    tests = promised.merge(measured.drop(columns=[*set(promised) & set(measured) - {"record_id"}]), on="record_id")
    tests = tests.assign(wanted_cell_id=tests["advice_baseline_cell_id"], series=tests["advice_series"])
    ours = measured[["record_id", "series", "latency_s", "items_per_call"]]
    tests = tests.drop(columns=["latency_s", "items_per_call"]).drop_duplicates("record_id")
    tests = tests.merge(ours, on=["record_id", "series"])
    starts = measured.assign(wanted_cell_id=measured["cell_id"].astype("str"))
    pairs = beside(tests, starts, ["campaign_id", "wanted_cell_id", "series"])
    judged = judge_pairs(pairs, store.samples(pairs["record_id"].tolist() + pairs["record_id_baseline"].tolist()))
    items = pairs["items_per_call"].to_numpy(float) / pairs["items_per_call_baseline"].to_numpy(float)
    came = pd.DataFrame(
        {
            "record_id": pairs["record_id"],
            "gain": items / judged["ratio"],
            "gain_ci_low": items / judged["ci_high"],
            "gain_ci_high": items / judged["ci_low"],
        }
    )
    names = {"advice_change": "change", "advice_series": "series", "advice_gain": "promised"}
    names |= {f"advice_gain_{end}": f"promised_{end}" for end in ("ci_low", "ci_high")}
    table = promised.rename(columns=names).merge(came, on="record_id", how="left")
    table["share"] = (table["gain"] - 1) / (table["promised"] - 1)
    table["kept"] = (table["share"] >= KEPT).to_numpy(bool)
    return table[list(COLUMNS)]


def _promises(store: Store) -> pd.DataFrame:
    """The records that were taken to test advice, the newest of each piece."""
    gains = ("advice_gain", "advice_gain_ci_low", "advice_gain_ci_high")
    facts = ("record_id", "campaign_id", "cell_id", "model", "status", "reason", "started_at", "primary")
    rows = store.frame(columns=[*facts, *PROMISE, *gains])
    rows = rows[rows["primary"] & rows["advice_change"].notna()].sort_values("started_at", kind="stable")
    for name in ("campaign_id", "cell_id", "model", *PROMISE):
        rows[name] = rows[name].astype("str")
    newest = rows.drop_duplicates(["cell_id", *PROMISE], keep="last")
    return newest.drop(columns="primary").reset_index(drop=True)


def hit_rate(table: pd.DataFrame) -> float:
    """Share of tested advice that kept its promise; NaN if none was tested."""
    return float(table["kept"].mean()) if len(table) else float(np.nan)
