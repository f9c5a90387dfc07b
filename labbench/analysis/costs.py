"""One-off costs against running costs: when does a preparation pay?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

ONE_OFF = ("load_s", "prepare_s", "first_run_s")


def payback(frame: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Calls after which each platform has caught up with the baseline, preparation included.

    Columns: ``model``, ``batch_size``, ``platform``, ``one_off_s`` (load + prepare + first run), ``latency_s``,
    ``calls_to_pay_back`` (0 if it starts ahead, NaN if it never catches up).
    """
    rows = frame[(frame["status"] == "ok") & frame["primary"] & (frame["mode"] == "inference")].copy()
    rows["one_off_s"] = rows[list(ONE_OFF)].sum(axis=1)
    keys = ["model", "batch_size", "precision", "machine_id"]
    base = rows[rows["platform"] == baseline].set_index(keys)[["one_off_s", "latency_s"]].add_suffix("_baseline")
    base = base[~base.index.duplicated()]
    joined = rows[rows["platform"] != baseline].join(base, on=keys, how="inner")
    extra = joined["one_off_s"] - joined["one_off_s_baseline"]
    gain = joined["latency_s_baseline"] - joined["latency_s"]
    calls = np.where(gain > 0, np.ceil(np.maximum(extra, 0) / gain.where(gain > 0, np.nan)), np.nan)
    joined["calls_to_pay_back"] = calls
    return joined[["model", "batch_size", "platform", "one_off_s", "latency_s", "calls_to_pay_back"]].reset_index(
        drop=True
    )
