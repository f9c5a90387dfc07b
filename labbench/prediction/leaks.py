"""Guard against leaks: what the training part must not know of the test part, checked before anything is scored.

An error measured on leaked data is worth nothing and looks best of all, so a leak ends the evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from labbench.prediction.config import PredictionError
from labbench.prediction.features import CONFIGURATION, HELD, PER_CLASS, TOTALS, operator_graphs
from labbench.words import count

if TYPE_CHECKING:
    import pandas as pd

# Fewest rows of which a feature in the target's order is no chance: measured latencies are off by a per cent or so, and
# that is enough to put neighbours among thirty honest rows out of order.
ORDERED_ROWS = 30
SIZES = (*TOTALS, "parameters", "activation_bytes", *HELD)


def _alike(*names: str) -> Callable[[pd.DataFrame, str], np.ndarray]:
    """Rows with equal values in some columns; none, where the frame has not all of them."""

    def codes(table: pd.DataFrame, target: str) -> np.ndarray:
        del target
        if not set(names) <= set(table):
            return np.full(len(table), -1)
        return np.asarray(table.groupby(list(names), observed=True, sort=False).ngroup())

    return codes


def _same_graph(table: pd.DataFrame, target: str) -> np.ndarray:
    del target
    return operator_graphs(table)


def _same_result(table: pd.DataFrame, target: str) -> np.ndarray:
    """Rows of one configuration, demand and target: a measurement that comes twice, whatever it is called."""
    columns = [*CONFIGURATION, "batch_size", *TOTALS, target]
    return np.asarray(table[columns].groupby(columns, observed=True, sort=False).ngroup())


# What identifies a row -> how it is called, and a number for each row: equal where it is the same, -1 where there is none.
IDENTITIES: dict[str, tuple[str, Callable[[pd.DataFrame, str], np.ndarray]]] = {
    "record": ("record", _alike("record_id")),
    "cell": ("cell", _alike("cell_id", "machine_id")),
    "model": ("model", _alike("model")),
    "family": ("model family", _alike("family")),
    "graph": ("operator graph", _same_graph),
    "result": ("measured result, to the last digit", _same_result),
}


@dataclass(frozen=True)
class Guard:
    """Refuses splits whose training part knows the test part.

    Attributes
    ----------
    table : DataFrame
        Of :func:`labbench.prediction.predictor.training_rows`.
    identities : dict
        Keys of :data:`IDENTITIES` that must not be on both sides, and the numbers of the rows.
    """

    table: pd.DataFrame
    identities: dict[str, np.ndarray]

    @classmethod
    def of(cls, table: pd.DataFrame, apart: Sequence[str], target: str = "latency_s") -> Guard:
        """One that keeps ``apart`` what should be, for predictions of ``target``."""
        return cls(table, {name: IDENTITIES[name][1](table, target) for name in apart})

    def check(self, train: np.ndarray, test: np.ndarray) -> None:
        """Look at one split, given as rows of the table.

        Raises
        ------
        PredictionError
            If a row, or something that identifies a row, is on both sides; the message names it.
        """
        if both := np.intersect1d(train, test).tolist():
            raise PredictionError(
                f"leak: {count(len(both), 'row')} on both sides of the split, e.g. {_row(self.table, both[0])}"
            )
        for name, codes in self.identities.items():
            shared = test[np.isin(codes[test], codes[train]) & (codes[test] >= 0)]
            if len(shared):
                twin = train[codes[train] == codes[shared[0]]][0]
                raise PredictionError(
                    f"leak: {_row(self.table, shared[0])} among the test rows has the same {IDENTITIES[name][0]} as "
                    f"{_row(self.table, twin)} among the training rows; keep them on one side of the split"
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
