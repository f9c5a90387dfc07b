"""What a predictor must beat, on the same folds: ``baseline(train, name, ceilings)`` fits and returns ``test -> prediction``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from labbench.prediction.features import (
    CONFIGURATION,
    PER_CLASS,
    TOTALS,
    Ceilings,
    Device,
    latency_terms,
    memory_terms,
)
from labbench.prediction.law import labels, rows_of

if TYPE_CHECKING:
    import pandas as pd

Guess = Callable[["pd.DataFrame"], np.ndarray]
Baseline = Callable[["pd.DataFrame", str, Mapping[Device, Ceilings]], Guess]

RIDGE = 1e-3  # of standardized columns: enough to bear columns that are alike, too little to matter otherwise


def roofline(train: pd.DataFrame, name: str, ceilings: Mapping[Device, Ceilings]) -> Guess:
    """The roofline model (Williams et al. 2009), nothing fitted: ``max(FLOPs / peak, bytes / bandwidth)``."""
    del train, name
    return lambda test: np.asarray(latency_terms(test, ceilings)[:, :2].max(axis=1))


def roofline_and_dispatch(train: pd.DataFrame, name: str, ceilings: Mapping[Device, Ceilings]) -> Guess:
    """The same plus kernels x the measured time of one dispatch."""
    bound = roofline(train, name, ceilings)
    return lambda test: bound(test) + latency_terms(test, ceilings)[:, 2:4].sum(axis=1)


def constant_throughput(train: pd.DataFrame, name: str, ceilings: Mapping[Device, Ceilings]) -> Guess:
    """Each configuration does so many FLOP a second, the median of what it was seen to do, whatever the model."""
    del ceilings
    return _by_configuration(
        train, name, lambda near, asked: _flops(asked) * np.median(near[name].to_numpy(float) / _flops(near))
    )


def log_linear(train: pd.DataFrame, name: str, ceilings: Mapping[Device, Ceilings]) -> Guess:
    """A power law of FLOPs, bytes and kernels with a factor for each configuration: ridge regression in the log."""
    del ceilings
    from sklearn.linear_model import Ridge

    known = _configurations(train)
    model = Ridge(alpha=RIDGE)
    model.fit(np.hstack([_sizes(train), _named(train, known)]), np.log(train[name].to_numpy(float)))
    return lambda test: np.exp(model.predict(np.hstack([_sizes(test), _named(test, known)])))


def boosting(train: pd.DataFrame, name: str, ceilings: Mapping[Device, Ceilings]) -> Guess:
    """Gradient boosting of the logarithm, scikit-learn's defaults: sizes, batch, operator classes, configurations' names.

    A device is but a name to it, so of a new one it knows nothing.
    """
    del ceilings
    from sklearn.ensemble import HistGradientBoostingRegressor
    from threadpoolctl import threadpool_limits

    # Threads that wait for one another on a busy machine make tenths of a second into minutes.
    one_thread = partial(threadpool_limits, limits=1, user_api="openmp")
    known, by_class = _configurations(train), [column for column in train if str(column).startswith(PER_CLASS)]

    def features(frame: pd.DataFrame) -> np.ndarray:
        demand = frame[["batch_size", *by_class]].to_numpy(float, na_value=np.nan)
        return np.hstack([_sizes(frame), np.log(demand + 1), _named(frame, known)])

    def guess(test: pd.DataFrame) -> np.ndarray:
        with one_thread():
            return np.exp(model.predict(features(test)))

    with one_thread():
        model = HistGradientBoostingRegressor(random_state=0).fit(features(train), np.log(train[name].to_numpy(float)))
    return guess


def nearest(train: pd.DataFrame, name: str, ceilings: Mapping[Device, Ceilings]) -> Guess:
    """The value of the nearest cell of the same configuration, by FLOPs, bytes and kernels in the log."""
    del ceilings

    def of_nearest(near: pd.DataFrame, asked: pd.DataFrame) -> np.ndarray:
        from scipy.spatial import KDTree

        return near[name].to_numpy(float)[KDTree(_sizes(near)).query(_sizes(asked))[1]]

    return _by_configuration(train, name, of_nearest)


def median(train: pd.DataFrame, name: str, ceilings: Mapping[Device, Ceilings]) -> Guess:
    """The median of the same configuration, whatever the model."""
    del ceilings
    return _by_configuration(train, name, lambda near, asked: np.full(len(asked), np.exp(np.log(near[name]).median())))


def held(train: pd.DataFrame, name: str, ceilings: Mapping[Device, Ceilings]) -> Guess:
    """The bytes of weights and intermediate results, nothing fitted."""
    del train, name
    return lambda test: np.asarray(memory_terms(test, ceilings)[:, :2].sum(axis=1))


FITTED: dict[str, Baseline] = {
    "log-linear": log_linear,
    "gradient boosting": boosting,
    "nearest measured cell": nearest,
    "platform median": median,
}
LATENCY_BASELINES: dict[str, Baseline] = {
    "roofline, measured ceilings": roofline,
    "roofline + dispatch": roofline_and_dispatch,
    "constant FLOP/s": constant_throughput,
    **FITTED,
}
MEMORY_BASELINES: dict[str, Baseline] = {"weights + activations": held, **FITTED}


def _flops(frame: pd.DataFrame) -> np.ndarray:
    return np.maximum(frame["flops"].to_numpy(float), 1.0)


def _sizes(frame: pd.DataFrame) -> np.ndarray:
    return np.asarray(np.log(frame[list(TOTALS)].to_numpy(float) + 1))


def _configurations(train: pd.DataFrame) -> list[tuple[str, ...]]:
    return sorted(set(labels(train, CONFIGURATION)))


def _named(frame: pd.DataFrame, known: list[tuple[str, ...]]) -> np.ndarray:
    """An indicator for each known configuration, shape (n, configurations)."""
    return np.array([[one == key for key in known] for one in labels(frame, CONFIGURATION)], dtype=float)


def _by_configuration(train: pd.DataFrame, name: str, value: Callable[[Any, Any], np.ndarray]) -> Guess:
    """``value(near, asked)`` within each configuration; NaN where the training part has nothing of it."""
    columns = [*TOTALS, name]
    there = rows_of(labels(train, CONFIGURATION))

    def guess(test: pd.DataFrame) -> np.ndarray:
        out = np.full(len(test), np.nan)
        here = rows_of(labels(test, CONFIGURATION))
        for key in here.keys() & there.keys():
            out[here[key]] = value(train[columns].iloc[there[key]], test[columns].iloc[here[key]])
        return out

    return guess
