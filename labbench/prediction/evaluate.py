"""How well it predicts families it has not seen, beside baselines on the same folds. Random rows are never a split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from labbench.prediction.baselines import LATENCY_BASELINES, MEMORY_BASELINES
from labbench.prediction.config import PredictionConfig
from labbench.prediction.features import CONFIGURATION, MEMORY, PER_CLASS, PLATFORM, TOTALS, WORKLOAD
from labbench.prediction.predictor import Predictor, ceilings_of, training_rows
from labbench.prediction.residual import folds_by_group

if TYPE_CHECKING:
    import pandas as pd

    from labbench.records import Environment

LABBENCH = "labbench"
LAW_ONLY = "labbench, without residual"
FIXED_CHOICE = "best fixed platform"
WITHIN = (0.15, 0.25)
# What predictor and baselines look at: folds of a narrow table are taken in a third of the time.
LEARNT_FROM = (
    *(*CONFIGURATION, "device", "series", "primary", "batch_size", "group", "cell_key"),
    *(*TOTALS, "parameters", "activation_bytes", "latency_s", MEMORY),
)


def cross_validate(
    frame: pd.DataFrame, environments: Mapping[str, Environment], config: PredictionConfig | None = None
) -> pd.DataFrame:
    """Predictions of every measured row by methods that never saw its model family.

    One family is left out at a time, up to ``config.max_folds``; with more families they are left out in groups.

    Returns
    -------
    DataFrame
        One row a (measured row, quantity, method): the row's description, ``quantity``, ``method``, ``measured``,
        ``predicted``, ``low``, ``high`` (NaN for methods without an interval), ``out_of_domain``, ``fold``.

    Raises
    ------
    PredictionError
        If there are too few families.
    """
    import pandas as pd

    config = config or PredictionConfig()
    table = training_rows(frame, config)
    ceilings = ceilings_of(table, environments)
    lean = table[[name for name in table if name in LEARNT_FROM or str(name).startswith(PER_CLASS)]].copy()
    memory = table["primary"].astype(bool) if "primary" in table else pd.Series(True, table.index)
    asked_of = {"latency_s": np.ones(len(table), bool), MEMORY: (memory & table[MEMORY].notna()).to_numpy()}
    parts = []
    for fold, (train, test) in enumerate(folds_by_group(table["group"].to_numpy(str), config.max_folds, config.seed)):
        predictor = Predictor(config).fit_rows(lean.iloc[train].reset_index(drop=True), ceilings)
        for name, quantity in predictor.quantities.items():
            rows = test[asked_of[name][test]]
            seen, unseen = lean.iloc[train[asked_of[name][train]]], lean.iloc[rows]
            verdict = predictor.judge(unseen)
            inside = verdict["departure"].isna().to_numpy()
            ours = quantity.predict(unseen, inside, config.level).where(verdict["refusal"].isna())
            guesses: dict[str, Any] = {LABBENCH: ours["point"], LAW_ONLY: ours["law"]}
            baselines = LATENCY_BASELINES if name == "latency_s" else MEMORY_BASELINES
            guesses |= {label: guess(seen, unseen, name, ceilings) for label, guess in baselines.items()}
            for method, predicted in guesses.items():
                found = {
                    "quantity": name,
                    "method": method,
                    "measured": unseen[name].to_numpy(float, na_value=np.nan),
                    "predicted": predicted,
                    "low": ours["low"] if method == LABBENCH else np.nan,
                    "high": ours["high"] if method == LABBENCH else np.nan,
                    "out_of_domain": ~inside,
                    "fold": fold,
                }
                parts.append(pd.DataFrame(found, index=rows))
    results = pd.concat(parts)
    described = [c for c in (*WORKLOAD, *PLATFORM, "family", "group", "series", "cell_id", "cell_key") if c in table]
    return table[described].join(results, how="right").dropna(subset=["measured"]).reset_index(drop=True)


def score(predictions: pd.DataFrame, by: Sequence[str] = ()) -> pd.DataFrame:
    """Errors of each quantity and method, and of each value of ``by`` (e.g. ``["platform"]``, ``["family"]``).

    Returns
    -------
    DataFrame
        ``cells`` scored and ``refused``, ``families``, ``mape`` (mean absolute percentage error over rows),
        ``family_mape`` (families weighing the same), ``median_ape``, ``p95_ape``, ``within_15``, ``within_25``
        (shares), ``coverage`` of the interval, ``family_coverage`` (families weighing the same) and ``width`` (median
        of (high - low) / point). All are fractions.
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
                "coverage": answered["inside"].astype(float).mean(),
                "family_coverage": family["inside"].agg(lambda inside: inside.astype(float).mean()).mean(),
                "width": answered["relative"].median(),
            }
        )
    return pd.DataFrame(rows)


def choice_regret(predictions: pd.DataFrame) -> pd.DataFrame:
    """How much slower than the best the platform is that each method would pick for each workload.

    Regret is the measured latency of the pick over that of the best measured platform, minus 1. Beside the methods
    stands the best fixed choice: always the platform with the lowest geometric mean over the other folds' workloads.
    Only workloads with at least two platforms count.

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
        regrets = [
            group["measured"].to_numpy()[group["predicted"].to_numpy().argmin()] / group["measured"].min() - 1
            for _, group in part.dropna(subset=["predicted"]).groupby("question", sort=False)
            if len(group) > 1
        ]
        if regrets:
            rows.append(
                {
                    "method": method,
                    "workloads": len(regrets),
                    "mean_regret": float(np.mean(regrets)),
                    "p95_regret": float(np.quantile(regrets, 0.95)),
                    "best_picked": float(np.mean(np.array(regrets) < 1e-9)),
                }
            )
    return pd.DataFrame(rows, columns=["method", "workloads", "mean_regret", "p95_regret", "best_picked"])


def evaluate(
    frame: pd.DataFrame, environments: Mapping[str, Environment], config: PredictionConfig | None = None
) -> pd.DataFrame:
    """Cross-validated errors of the predictor and of every baseline: :func:`score` of :func:`cross_validate`."""
    return score(cross_validate(frame, environments, config))


def _typical(train: pd.DataFrame) -> pd.Series:
    """Each option's geometric mean of latency relative to the fastest of the same question."""
    relative = train["measured"] / train.groupby("question")["measured"].transform("min")
    typical: pd.Series = relative.groupby(train["option"]).apply(lambda ratio: np.exp(np.log(ratio).mean()))
    return typical
