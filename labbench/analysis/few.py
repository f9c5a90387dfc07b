"""Of very many results, those that a page can show: pages must open in a browser, and judging a pair takes a millisecond."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from labbench.analysis.labels import SIZES

if TYPE_CHECKING:
    import pandas as pd

MOST_ROWS = 100  # of a table on a page
MOST_RESULTS = 10_000  # judged in some twenty seconds, and drawn in a figure of about a megabyte


def at_most(frame: pd.DataFrame, most: int = MOST_RESULTS) -> pd.DataFrame:
    """All rows if there are at most ``most``; else the smallest batch sizes of as many models as possible.

    All platforms of a workload stay together, so that it can be compared; models are taken in a random but fixed order.
    """
    if len(frame) <= most:
        return frame
    keys = ["model", "mode", *SIZES, "batch_size"]
    workload = frame.groupby(keys, observed=True, dropna=False, sort=False).ngroup().to_numpy()
    table = frame[["model", "batch_size"]].assign(workload=workload).drop_duplicates("workload")
    sizes = np.bincount(workload)
    table = table.sort_values("batch_size", kind="stable", na_position="first")
    names = table["model"].astype("str")
    turn = names.groupby(names).cumcount().to_numpy()
    model = names.factorize(sort=True)[0]
    place = np.random.default_rng(0).permutation(model.max() + 1)[model]
    order = table["workload"].to_numpy()[np.lexsort((place, turn))]
    kept = order[np.cumsum(sizes[order]) <= most]
    return frame[np.isin(workload, kept)]
