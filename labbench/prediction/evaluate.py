"""How well it predicts what it has not seen (a family, a device, ...), beside baselines on the same folds."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from labbench.prediction import leaks
from labbench.prediction.baselines import LATENCY_BASELINES, MEMORY_BASELINES, Baseline
from labbench.prediction.config import PredictionConfig
from labbench.prediction.features import (
    HELD,
    MEMORY,
    PER_CLASS,
    PLATFORM,
    TOTALS,
    WORKLOAD,
    Ceilings,
    Device,
)
from labbench.prediction.graphs import WORKLOAD_KEY
from labbench.prediction.predictor import Predictor, learnt_from
from labbench.prediction.profiled import PROFILE
from labbench.prediction.regret import regret
from labbench.prediction.splits import SPLITS, folds
from labbench.prediction.tracing import PATIENCE_S, traced

if TYPE_CHECKING:
    import pandas as pd

    from labbench.prediction.graphs import Graphs
    from labbench.records import Environment

LABBENCH = "labbench"
LAW_ONLY = "labbench, without residual"
FIXED_CHOICE = "best fixed platform"
WITHIN = (0.10, 0.15, 0.25)
# What predictor and baselines look at: folds of a narrow table are taken in a third of the time.
LEARNT_FROM = (
    *(
        *WORKLOAD,
        *WORKLOAD_KEY,
        *PLATFORM,
        "device",
        "runtime",
        "framework",
        "primary",
        "architecture",
        "group",
        "cell_key",
    ),
    *(*TOTALS, "parameters", "activation_bytes", *HELD, "latency_s", MEMORY),
)
DESCRIBED = (
    *(*WORKLOAD, *PLATFORM, "device", "device_name", "runtime", "family", "group", "series", "record_id", "cell_id"),
    *("cell_key", "provenance"),
)


def cross_validate(
    frame: pd.DataFrame,
    environments: Mapping[str, Environment],
    config: PredictionConfig | None = None,
    *,
    split: str = "family",
    probes: int = 0,
    levels: Sequence[float] = (),
    graphs: Graphs | None = None,
) -> pd.DataFrame:
    """Predictions of measured rows by methods that never saw what is new in them, e.g. their model family.

    One family (architecture, device, ...) is left out at a time, up to ``config.max_folds``; with more of them they are left
    out in groups. Each fold is checked for leaks first (:mod:`labbench.prediction.leaks`).

    Parameters
    ----------
    frame : DataFrame
        ``Store.latest()``; for the split ``version`` ``Store.frame()``, which has earlier versions' records too.
    environments : mapping
        ``Store.environments()``.
    config : PredictionConfig, optional
    split : str
        What is new in the test rows: one of :data:`labbench.prediction.splits.SPLITS`.
    probes : int
        Of the split ``device``: how many cells of the new device are trained on.
    levels : sequence of float
        Nominal coverages to try the interval at, for :func:`labbench.prediction.errors.calibration`.
    graphs : Graphs, optional
        See :meth:`Predictor.fit`.

    Returns
    -------
    DataFrame
        One row a (measured row, quantity, method): the row's description, ``quantity``, ``method``, ``measured``,
        ``predicted``, ``low``, ``high`` (NaN for methods without an interval), ``out_of_domain``, ``fold``; and of its fold
        ``fit_s`` (seconds to fit; labbench fits all quantities at once) and ``predict_s`` (to predict all its rows).
        What a method refuses to answer has no ``predicted``. With ``levels`` also ``holds_at``: the least of them whose
        interval holds what was measured (infinite: none does).

    Raises
    ------
    PredictionError
        If the data cannot support the split, there are too few families, or the split leaks.
    ConfigError
        For an unknown split.
    """
    import pandas as pd
    from tqdm.auto import tqdm

    config = config or PredictionConfig()
    graphs = traced(frame, config) if graphs is None else graphs
    table, ceilings = learnt_from(frame, environments, config, graphs)
    asked_of = _asked_of(table)
    held_out = folds(split, table, environments, config, probes)
    guards = {name: leaks.Guard.of(table, SPLITS[split].apart, name) for name in asked_of}
    for name, asked in asked_of.items():
        leaks.check_features(table[asked], name)
    parts = []
    for fold, (train, test) in enumerate(tqdm(held_out, "left out in turn", delay=PATIENCE_S, leave=False)):
        for name, asked in asked_of.items():
            guards[name].check(train[asked[train]], test[asked[test]])
        guesses = _guesses(table, train, test, asked_of, ceilings, config, levels, graphs)
        parts += [part.assign(fold=fold) for part in guesses]
    results = pd.concat(parts)
    described = [name for name in DESCRIBED if name in table]
    return table[described].join(results, how="right").dropna(subset=["measured"]).reset_index(drop=True)


def _asked_of(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """Of each quantity, which rows have it to predict: memory is a cell's, told by its primary series."""
    primary = table["primary"].to_numpy(bool) if "primary" in table else np.ones(len(table), bool)
    return {"latency_s": np.ones(len(table), bool), MEMORY: primary & table[MEMORY].notna().to_numpy()}


def _guesses(
    table: pd.DataFrame,
    train: np.ndarray,
    test: np.ndarray,
    asked_of: Mapping[str, np.ndarray],
    ceilings: Mapping[Device, Ceilings],
    config: PredictionConfig,
    levels: Sequence[float],
    graphs: Graphs | None,
) -> Iterator[pd.DataFrame]:
    """What each method, fitted to the training rows, predicts for the test rows: a table for each quantity and method."""
    import pandas as pd

    lean = table[[name for name in table if name in LEARNT_FROM or str(name).startswith((*PER_CLASS, PROFILE))]]
    counted = np.isfinite(table[list(TOTALS)].to_numpy(float)).all(axis=1)
    began = time.perf_counter()
    predictor = Predictor(config).fit_rows(lean.iloc[train].reset_index(drop=True), ceilings, graphs)
    fit_s = time.perf_counter() - began
    for name, quantity in predictor.quantities.items():
        rows, learnt = test[asked_of[name][test]], train[(asked_of[name] & counted)[train]]
        if not len(rows):
            continue
        seen, unseen, told = lean.iloc[learnt], lean.iloc[rows], counted[rows]
        began = time.perf_counter()
        verdict = predictor.judge(unseen)
        inside = verdict["departure"].isna().to_numpy()
        ours = quantity.predict(unseen, inside, config.level).where(verdict["refusal"].isna())
        times = {"fit_s": fit_s, "predict_s": time.perf_counter() - began}
        common = {"quantity": name, "measured": unseen[name].to_numpy(float, na_value=np.nan), "out_of_domain": ~inside}
        interval = {"low": ours["low"], "high": ours["high"]}
        if levels:
            interval["holds_at"] = _holds_at(
                common["measured"], {level: quantity.predict(unseen, inside, level) for level in levels}
            )
        yield pd.DataFrame({**common, "method": LABBENCH, "predicted": ours["point"], **interval, **times}, index=rows)
        none = {"low": np.nan, "high": np.nan}
        yield pd.DataFrame({**common, "method": LAW_ONLY, "predicted": ours["law"], **none, **times}, index=rows)
        for method, baseline in (LATENCY_BASELINES if name == "latency_s" else MEMORY_BASELINES).items():
            guess = _timed(baseline, seen, unseen, told, name, ceilings)
            yield pd.DataFrame({**common, "method": method, **none, **guess}, index=rows)


def _holds_at(measured: np.ndarray, at: Mapping[float, pd.DataFrame]) -> np.ndarray:
    """The least level whose interval holds what was measured."""
    holds = np.full(len(measured), np.inf)
    for level in sorted(at, reverse=True):
        inside = (at[level]["low"].to_numpy() <= measured) & (measured <= at[level]["high"].to_numpy())
        holds[inside] = level
    return holds


def _timed(
    baseline: Baseline,
    seen: pd.DataFrame,
    unseen: pd.DataFrame,
    told: np.ndarray,
    name: str,
    ceilings: Mapping[Device, Ceilings],
) -> dict[str, Any]:
    """What a baseline predicts where the demand is told, and how long fitting and predicting took."""
    began = time.perf_counter()
    guess = baseline(seen, name, ceilings)
    fitted = time.perf_counter()
    predicted = np.full(len(unseen), np.nan)
    if told.any():
        predicted[told] = guess(unseen[told])
    return {"predicted": predicted, "fit_s": fitted - began, "predict_s": time.perf_counter() - fitted}


def score(predictions: pd.DataFrame, by: Sequence[str] = ()) -> pd.DataFrame:
    """Errors of each quantity and method, and of each value of ``by`` (e.g. ``["platform"]``, ``["family"]``).

    Returns
    -------
    DataFrame
        ``cells`` scored and ``refused``, ``families``, ``mape`` (mean absolute percentage error over rows),
        ``family_mape`` (families weighing the same), ``median_ape``, ``p95_ape``, ``within_10``, ``within_15``,
        ``within_25`` (shares), ``bias`` (geometric mean of predicted / measured, less one), ``spearman`` (rank
        correlation with what was measured), ``coverage`` of the interval, ``family_coverage`` (families weighing the
        same) and ``width`` (median of (high - low) / point), all fractions; ``fit_s`` and ``predict_s`` (seconds, mean
        over folds).
    """
    import pandas as pd

    covered = predictions["measured"].between(predictions["low"], predictions["high"])
    table = predictions.assign(
        ape=(predictions["predicted"] / predictions["measured"] - 1).abs(),
        inside=covered.where(predictions["low"].notna()),
        relative=(predictions["high"] - predictions["low"]) / predictions["predicted"],
    )
    rows = []
    for key, part in table.groupby(["quantity", "method", *by], observed=True, sort=False):
        answered = part.dropna(subset=["predicted"])
        family = answered.groupby("group", observed=True)
        rows.append(
            dict(zip(("quantity", "method", *by), key, strict=True))
            | {
                "cells": len(answered),
                "refused": len(part) - len(answered),
                "families": answered["group"].nunique(),
                "mape": answered["ape"].mean(),
                "family_mape": family["ape"].mean().mean(),
                "median_ape": answered["ape"].median(),
                "p95_ape": answered["ape"].quantile(0.95),
                **{f"within_{round(100 * limit)}": (answered["ape"] <= limit).mean() for limit in WITHIN},
                "bias": np.exp(np.log(answered["predicted"] / answered["measured"]).mean()) - 1,
                "spearman": answered["predicted"].rank().corr(answered["measured"].rank()),
                "coverage": answered["inside"].astype(float).mean(),
                "family_coverage": family["inside"].agg(lambda inside: inside.astype(float).mean()).mean(),
                "width": answered["relative"].median(),
                **part.groupby("fold")[["fit_s", "predict_s"]].first().mean(),
            }
        )
    return pd.DataFrame(rows)


def choice_regret(predictions: pd.DataFrame) -> pd.DataFrame:
    """How much slower than the best the platform is that each method would pick for each workload.

    Regret is the measured latency of the pick over that of the best measured platform, minus 1. Beside the methods
    stands the best fixed choice: always the platform with the lowest geometric mean over the other folds' workloads.
    Only workloads with at least two platforms count. Of platforms that tie in prediction one is picked blindly.

    Returns
    -------
    DataFrame
        ``method``, ``workloads``, ``mean_regret``, ``p95_regret``, ``best_picked`` (share of picks that were the best).
    """
    import pandas as pd

    table = predictions[predictions["quantity"] == "latency_s"].copy()
    what = [name for name in (*WORKLOAD, "machine_id", "series") if name in table and name != "precision"]
    table["question"] = table.groupby(what, dropna=False, observed=True).ngroup()
    table["option"] = table["platform"].astype("str") + " " + table["precision"].astype("str")
    fixed = table[table["method"] == LABBENCH].assign(method=FIXED_CHOICE)
    for fold in fixed["fold"].unique():
        rows = fixed["fold"] == fold
        fixed.loc[rows, "predicted"] = fixed.loc[rows, "option"].map(_typical(fixed[~rows]))
    rows = []
    for method, part in pd.concat([table, fixed]).groupby("method", sort=False):
        part = part.dropna(subset=["predicted"])
        found = regret(*(part[name].to_numpy() for name in ("measured", "predicted", "question")))
        lost = found.loc[found["options"] > 1, "regret"].to_numpy()
        regrets = lost / (1 - lost)  # the latency that is added, where regret is the throughput that is lost
        if len(regrets):
            rows.append(
                {
                    "method": method,
                    "workloads": len(regrets),
                    "mean_regret": float(np.mean(regrets)),
                    "p95_regret": float(np.quantile(regrets, 0.95)),
                    "best_picked": float(np.mean(regrets < 1e-9)),
                }
            )
    return pd.DataFrame(rows, columns=["method", "workloads", "mean_regret", "p95_regret", "best_picked"])


def evaluate(
    frame: pd.DataFrame,
    environments: Mapping[str, Environment],
    config: PredictionConfig | None = None,
    *,
    split: str = "family",
    probes: int = 0,
    graphs: Graphs | None = None,
) -> pd.DataFrame:
    """Cross-validated errors of the predictor and of every baseline: :func:`score` of :func:`cross_validate`."""
    return score(cross_validate(frame, environments, config, split=split, probes=probes, graphs=graphs))


def _typical(train: pd.DataFrame) -> pd.Series:
    """Each option's geometric mean of latency relative to the fastest of the same question."""
    relative = train["measured"] / train.groupby("question")["measured"].transform("min")
    typical: pd.Series = relative.groupby(train["option"]).apply(lambda ratio: np.exp(np.log(ratio).mean()))
    return typical
