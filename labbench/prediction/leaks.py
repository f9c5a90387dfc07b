"""Guard against leaks: what the training part must not know of the test part, checked before anything is scored.

An error measured on leaked data is worth nothing and looks best of all, so a leak ends the evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from labbench.prediction.config import PredictionError
from labbench.prediction.features import CONFIGURATION, PER_CLASS, TOTALS
from labbench.prediction.splits import operator_graphs
from labbench.words import count

if TYPE_CHECKING:
    import pandas as pd

# Fewest rows of which a feature in the target's order is no chance: measured latencies are off by a per cent or so, and
# that is enough to put neighbours among thirty honest rows out of order.
ORDERED_ROWS = 30
SIZES = (*TOTALS, "parameters", "activation_bytes")


def _texts(*names: str) -> Callable[[pd.DataFrame, str], Sequence[object] | None]:
    """The values of columns as texts, or None where the frame has not all of them."""

    def key(table: pd.DataFrame, target: str) -> Sequence[object] | None:
        del target
        if not set(names) <= set(table):
            return None
        return list(zip(*(table[name].astype("str") for name in names), strict=True))

    return key


def _graph(table: pd.DataFrame, target: str) -> Sequence[object]:
    del target
    return [None if graph < 0 else int(graph) for graph in operator_graphs(table)]


def _result(table: pd.DataFrame, target: str) -> Sequence[object]:
    """Configuration, demand and target of each row: a measurement that comes twice, whatever it is called."""
    names = list(zip(*(table[name].astype("str") for name in (*CONFIGURATION, "batch_size")), strict=True))
    numbers = table[[*TOTALS, target]].to_numpy(float, na_value=np.nan)
    return [
        (*name, *row) if np.isfinite(row).all() else None for name, row in zip(names, numbers.tolist(), strict=True)
    ]


# What identifies a row -> how it is called, and a key for each row (None: has none).
IDENTITIES: dict[str, tuple[str, Callable[[pd.DataFrame, str], Sequence[object] | None]]] = {
    "record": ("record", _texts("record_id")),
    "cell": ("cell", _texts("cell_id", "machine_id")),
    "model": ("model", _texts("model")),
    "family": ("model family", _texts("family")),
    "graph": ("operator graph", _graph),
    "result": ("measured result, to the last digit", _result),
}


def check_split(
    table: pd.DataFrame, train: np.ndarray, test: np.ndarray, apart: Sequence[str], target: str = "latency_s"
) -> None:
    """Refuse a split whose training part knows the test part.

    Parameters
    ----------
    table : DataFrame
        Of :func:`labbench.prediction.predictor.training_rows`.
    train, test : array of int
        Its rows on either side.
    apart : sequence of str
        Keys of :data:`IDENTITIES` that must not be on both sides.
    target : str
        The quantity that is predicted.

    Raises
    ------
    PredictionError
        If a row, or something that identifies a row, is on both sides; the message names it.
    """
    if both := np.intersect1d(train, test).tolist():
        raise PredictionError(
            f"leak: {count(len(both), 'row')} on both sides of the split, e.g. {_row(table, both[0])}"
        )
    for name in apart:
        called, key = IDENTITIES[name]
        keys = key(table, target)
        if keys is None:
            continue
        trained = {keys[row]: row for row in train if keys[row] is not None}
        row = next((row for row in test if keys[row] in trained), None)
        if row is not None:
            raise PredictionError(
                f"leak: {_row(table, row)} among the test rows has the same {called} as "
                f"{_row(table, trained[keys[row]])} among the training rows; keep them on one side of the split"
            )


def check_features(table: pd.DataFrame, target: str = "latency_s") -> None:
    """Refuse a table that tells the target: a column that is learnt from equals it, or is a monotone function of it.

    Looked for among all rows and among those of one batch size, for throughput is ``batch / latency``.

    Raises
    ------
    PredictionError
        Naming the column.
    """
    batch = table["batch_size"].to_numpy(float, na_value=np.nan)
    sizes = [batch == size for size in np.unique(batch[np.isfinite(batch)])]
    measured = table[target].to_numpy(float, na_value=np.nan)
    for name in features(table):
        values = table[name].to_numpy(float, na_value=np.nan)
        of_sizes = {_monotone(values[rows], measured[rows]) for rows in sizes} - {None}
        if _monotone(values, measured) or of_sizes == {True}:
            raise PredictionError(
                f"leak: column {name!r} is a monotone function of {target}, which is to be predicted from it; drop the column"
            )


def features(table: pd.DataFrame) -> list[str]:
    """Numeric columns that a predictor or a baseline may learn from."""
    return [name for name in table.columns.astype(str) if name in SIZES or name.startswith(PER_CLASS)]


def _monotone(values: np.ndarray, target: np.ndarray) -> bool | None:
    """Whether one is a strictly monotone function of the other; None of too few rows to tell."""
    known = np.isfinite(values) & np.isfinite(target)
    ranks, order = (np.unique(x[known], return_inverse=True)[1] for x in (values, target))
    if len(np.unique(order)) < ORDERED_ROWS:
        return None
    return bool((ranks == order).all() or (ranks == order.max() - order).all())


def _row(table: pd.DataFrame, row: int) -> str:
    one = table.iloc[row]
    return f"{one['model']} on {one['platform']} at batch {one['batch_size']}"
