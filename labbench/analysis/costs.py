"""One-off costs against running costs: when does a preparation pay?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from labbench.analysis.compare import beside
from labbench.analysis.labels import WORK

if TYPE_CHECKING:
    import pandas as pd

ONE_OFF = ("load_s", "prepare_s", "first_run_s")


def payback(frame: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Calls after which each platform has caught up with the baseline, preparation included; of cells that tell it.

    Columns: ``model``, ``batch_size``, ``platform``, ``one_off_s`` (load + prepare + first run), ``latency_s``,
    ``calls_to_pay_back`` (0 if it starts ahead, NaN if it never catches up).
    """
    rows = frame[(frame["status"] == "ok") & frame["primary"] & (frame["mode"] == "inference")].copy()
    rows["one_off_s"] = rows[list(ONE_OFF)].sum(axis=1, min_count=1)
    rows = rows[rows["one_off_s"].notna()]
    of_baseline = rows["platform"] == baseline
    joined = beside(rows[~of_baseline], rows[of_baseline], [*WORK, "precision", "machine_id"])
    extra = joined["one_off_s"] - joined["one_off_s_baseline"]
    gain = joined["latency_s_baseline"] - joined["latency_s"]
    calls = np.where(gain > 0, np.ceil(np.maximum(extra, 0) / gain.where(gain > 0, np.nan)), np.nan)
    joined["calls_to_pay_back"] = calls
    return joined[["model", "batch_size", "platform", "one_off_s", "latency_s", "calls_to_pay_back"]].reset_index(
        drop=True
    )
