"""What a predictor must beat, on the same folds: ``baseline(train, test, ceilings) -> prediction of each test row``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from labbench.prediction.features import CONFIGURATION, TOTALS, Ceilings, Device, latency_terms
from labbench.prediction.law import labels, rows_of

if TYPE_CHECKING:
    import pandas as pd

Baseline = Callable[["pd.DataFrame", "pd.DataFrame", str, Mapping[Device, Ceilings]], np.ndarray]


def roofline(train: pd.DataFrame, test: pd.DataFrame, name: str, ceilings: Mapping[Device, Ceilings]) -> np.ndarray:
    """The roofline model (Williams et al. 2009), nothing fitted: ``max(FLOPs / peak, bytes / bandwidth)``."""
    del train, name
    x = latency_terms(test, ceilings)
    return np.asarray(np.maximum(x[:, 0], x[:, 1]))


def roofline_and_dispatch(
    train: pd.DataFrame, test: pd.DataFrame, name: str, ceilings: Mapping[Device, Ceilings]
) -> np.ndarray:
    """The same plus kernels x the measured time of one dispatch."""
    return roofline(train, test, name, ceilings) + latency_terms(test, ceilings)[:, 2:4].sum(axis=1)


def nearest(train: pd.DataFrame, test: pd.DataFrame, name: str, ceilings: Mapping[Device, Ceilings]) -> np.ndarray:
    """The value of the nearest cell of the same configuration, by FLOPs, bytes and kernels in the log."""
    del ceilings
    return _by_configuration(train, test, name, _value_of_nearest)


def median(train: pd.DataFrame, test: pd.DataFrame, name: str, ceilings: Mapping[Device, Ceilings]) -> np.ndarray:
    """The median of the same configuration, whatever the model."""
    del ceilings
    return _by_configuration(
        train, test, name, lambda near, asked, name: np.full(len(asked), np.exp(np.log(near[name]).median()))
    )


LATENCY_BASELINES: dict[str, Baseline] = {
    "roofline, measured ceilings": roofline,
    "roofline + dispatch": roofline_and_dispatch,
    "nearest measured cell": nearest,
    "platform median": median,
}
MEMORY_BASELINES: dict[str, Baseline] = {"nearest measured cell": nearest, "platform median": median}


def _value_of_nearest(near: pd.DataFrame, asked: pd.DataFrame, name: str) -> np.ndarray:
    here, there = (np.log(table[list(TOTALS)].to_numpy(float) + 1) for table in (asked, near))
    distance = ((here[:, None, :] - there[None, :, :]) ** 2).sum(axis=2)
    return near[name].to_numpy(float)[distance.argmin(axis=1)]


def _by_configuration(
    train: pd.DataFrame,
    test: pd.DataFrame,
    name: str,
    value: Callable[[pd.DataFrame, pd.DataFrame, str], np.ndarray],
) -> np.ndarray:
    """``value`` within each configuration; NaN where the training part has nothing of it."""
    out = np.full(len(test), np.nan)
    columns = [*TOTALS, name]
    there, here = (rows_of(labels(table, CONFIGURATION)) for table in (train, test))
    for key in here.keys() & there.keys():
        out[here[key]] = value(train[columns].iloc[there[key]], test[columns].iloc[here[key]], name)
    return out
