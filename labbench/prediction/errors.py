"""What is behind the errors: do intervals hold what they promise, and what do the larger errors go with?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from labbench.analysis.labels import place
from labbench.prediction.evaluate import LABBENCH
from labbench.prediction.features import TOTALS
from labbench.prediction.leaks import features

if TYPE_CHECKING:
    import pandas as pd

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)  # nominal coverages of a calibration
DRAWS = 1000  # bootstrap
DRAWS_OF_MEAN = 2000
FEWEST_FAMILIES = 4  # that have some of an operator class, and lack it or have less, before it is looked at


def calibration(predictions: pd.DataFrame, quantity: str = "latency_s") -> pd.DataFrame:
    """How much of each family lies inside the intervals of each nominal coverage.

    Parameters
    ----------
    predictions : DataFrame
        Of :func:`labbench.prediction.cross_validate` with ``levels``.
    quantity : str

    Returns
    -------
    DataFrame
        One row a family, one column a level: the share of its cells inside. The mean of a column is to be the level or
        more, as each interval is meant for a new family. Levels that so few families cannot support are left out.
    """
    import pandas as pd

    table = ours(predictions, quantity)
    families = table["group"].astype("str")
    trained_on = families.nunique() - 1
    inside = {level: table["holds_at"] <= level for level in LEVELS if level <= trained_on / (trained_on + 1)}
    return pd.DataFrame(inside, index=table.index).groupby(families).mean()


def drivers(predictions: pd.DataFrame, frame: pd.DataFrame, quantity: str = "latency_s") -> pd.DataFrame:
    """What larger errors go with: sizes, batch, shares of operator classes, and each platform and mode.

    Parameters
    ----------
    predictions : DataFrame
        Of :func:`labbench.prediction.cross_validate`.
    frame : DataFrame
        ``Store.latest()``, as it was given there: for what each cell demands.
    quantity : str

    Returns
    -------
    DataFrame
        ``driver`` (in words), ``correlation`` (of ranks, with the absolute error in the log; Spearman), ``low`` and ``high``
        (95 %, bootstrap over families, whose cells are wrong together), the strongest first. An interval without zero is no
        proof among so many; and a correlation is no cause.
    """
    import pandas as pd

    table = ours(predictions, quantity)
    demands = frame[["record_id", "series", *features(frame)]]
    rows = (
        table[["record_id", "series"]]
        .astype("str")
        .merge(
            demands.assign(record_id=demands["record_id"].astype("str"), series=demands["series"].astype("str")),
            how="left",
        )
    )
    error = np.abs(np.log(table["predicted"].to_numpy(float) / table["measured"].to_numpy(float)))
    families, member = np.unique(table["group"].astype("str"), return_inverse=True)
    found = []
    for name, values in _candidates(table, rows).items():
        if len(np.unique(values)) > 1:
            found.append({"driver": name, **_correlation(values, error, member, len(families))})
    known = pd.DataFrame(found, columns=["driver", "correlation", "low", "high"]).dropna(subset=["correlation"])
    return known.iloc[np.argsort(-known["correlation"].abs().to_numpy(), kind="stable")].reset_index(drop=True)


def ours(predictions: pd.DataFrame, quantity: str = "latency_s") -> pd.DataFrame:
    """The rows of labbench's own predictions of a quantity, refusals left out."""
    table = predictions[(predictions["quantity"] == quantity) & (predictions["method"] == LABBENCH)]
    return table.dropna(subset=["predicted"]).reset_index(drop=True)


def mean_interval(sums: np.ndarray, sizes: np.ndarray) -> tuple[float, float]:
    """95 % interval of a mean over rows, whole families drawn (bootstrap); NaN of one family.

    Parameters
    ----------
    sums, sizes : array, shape (families,)
        Of each family the sum over its rows, and how many there are.
    """
    if len(sums) < 2:
        return np.nan, np.nan
    picked = np.random.default_rng(0).integers(len(sums), size=(DRAWS_OF_MEAN, len(sums)))
    low, high = np.quantile(sums[picked].sum(axis=1) / sizes[picked].sum(axis=1), [0.025, 0.975])
    return float(low), float(high)


def _candidates(table: pd.DataFrame, rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """What errors may go with, in words, and its value in each row."""
    size = {name: rows[name].to_numpy(float, na_value=np.nan) for name in (*TOTALS, "parameters")}
    found = {
        "FLOPs": size["flops"],
        "bytes moved": size["bytes"],
        "number of operators": size["kernels"],
        "parameters": size["parameters"],
        "FLOPs per byte": size["flops"] / np.maximum(size["bytes"], 1.0),
        "FLOPs per operator": size["flops"] / np.maximum(size["kernels"], 1.0),
        "batch size": table["batch_size"].to_numpy(float, na_value=np.nan),
    }
    groups = table["group"].astype("str")
    for name in sorted(str(column) for column in rows if str(column).startswith("bytes_")):
        share = rows[name].fillna(0.0).to_numpy(float) / np.maximum(size["bytes"], 1.0)
        having = groups[share > 0].nunique()
        if having >= FEWEST_FAMILIES:
            found[f"share of {name.removeprefix('bytes_').replace('_', ' ')}"] = share
    kinds = {"platform": place(table), "mode": table["mode"].astype("str"), "series": table["series"].astype("str")}
    for kind, names in kinds.items():
        values = sorted(names.unique())
        if len(values) > 1:
            found |= {f"{kind} {value}": (names == value).to_numpy(float) for value in values}
    return {name: values for name, values in found.items() if np.isfinite(values).all()}


def _correlation(x: np.ndarray, y: np.ndarray, member: np.ndarray, families: int) -> dict[str, float]:
    """Spearman's rank correlation with a 95 % interval, whole families drawn."""
    from scipy.stats import rankdata

    a, b = rankdata(x) / len(x) - 0.5, rankdata(y) / len(y) - 0.5
    sums = np.array([np.bincount(member, part, families) for part in (np.ones(len(a)), a, b, a * a, b * b, a * b)])
    picked = np.random.default_rng(0).integers(families, size=(DRAWS, families))
    drawn = _pearson(sums[:, picked].sum(axis=2))
    low, high = np.nanquantile(drawn, [0.025, 0.975]) if np.isfinite(drawn).any() else (np.nan, np.nan)
    return {"correlation": float(_pearson(sums.sum(axis=1))), "low": float(low), "high": float(high)}


def _pearson(sums: np.ndarray) -> np.ndarray:
    """Correlation from counts and sums of a, b, a², b² and ab; NaN where one does not vary."""
    n, a, b, aa, bb, ab = sums
    variance = (aa - a * a / n) * (bb - b * b / n)
    return np.asarray((ab - a * b / n) / np.sqrt(np.where(variance > 1e-12, variance, np.nan)))
