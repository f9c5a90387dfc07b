"""Tables and sentences of the prediction notebook: computed from the data, in human units."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from labbench.prediction.config import PredictionConfig
from labbench.prediction.evaluate import FIXED_CHOICE, LABBENCH
from labbench.prediction.predictor import ceilings_of, training_rows

if TYPE_CHECKING:
    import pandas as pd

    from labbench.records import Environment

QUANTITIES = {"latency_s": "latency", "memory_increase_bytes": "peak memory"}
ENOUGH_FAMILIES = 30  # below, coverage of families is known to worse than ±10 points (binomial, at 90 %)
MS, MB = 1e3, 1e-6


def data_sentence(
    frame: pd.DataFrame, environments: Mapping[str, Environment], config: PredictionConfig | None = None
) -> str:
    """What the predictor learns from, and what it leaves out."""
    config = config or PredictionConfig()
    table = training_rows(frame, config)
    left_out = int((frame["latency_s"].notna() & frame["noise"].isin(config.ignore)).sum())
    ceilings = ceilings_of(table, environments)
    nominal = [f"{device} of {machine}" for (machine, device), limit in ceilings.items() if not limit.measured]
    text = (
        f"{len(table)} measured series of {table['model'].nunique()} models in {table['family'].nunique()} families "
        f"({table['group'].nunique()} distinct by operator graph) on {table['platform'].nunique()} platforms of "
        f"{table['machine_id'].nunique()} machine{'s' if table['machine_id'].nunique() > 1 else ''}."
    )
    text += f" {left_out} series were left out: the machine was not quiet enough." if left_out else ""
    return text + (f" Ceilings of {', '.join(nominal)} were not measured: nominal ones stand in." if nominal else "")


def error_table(scores: pd.DataFrame) -> pd.DataFrame:
    """Errors of :func:`labbench.prediction.score` in per cent, best mean error first within each quantity."""
    import pandas as pd

    table = scores.sort_values(["quantity", "mape"], kind="stable")
    return pd.DataFrame(
        {
            "quantity": table["quantity"].map(QUANTITIES),
            "method": table["method"],
            "cells": table["cells"],
            "mean error %": _percent(table["mape"]),
            "mean over families %": _percent(table["family_mape"]),
            "median error %": _percent(table["median_ape"]),
            "95th percentile %": _percent(table["p95_ape"]),
            "within 15 %": _percent(table["within_15"]),
            "within 25 %": _percent(table["within_25"]),
            "interval covers %": _percent(table["coverage"]),
            "interval width %": _percent(table["width"]),
        }
    ).reset_index(drop=True)


def error_sentence(scores: pd.DataFrame) -> str:
    """Whether the predictor beats the baselines, and whether its interval keeps its promise."""
    table = scores[scores["quantity"] == "latency_s"].set_index("method")
    ours = table.loc[LABBENCH]
    rivals = table[~table.index.str.startswith(LABBENCH)].sort_values("mape")
    best = rivals.iloc[0]
    verdict = "beats" if ours["mape"] < best["mape"] else "does not beat"
    text = (
        f"On families it has not seen the predictor's mean error is {ours['mape']:.0%} (median "
        f"{ours['median_ape']:.0%}), and it {verdict} the best baseline, {best.name} ({best['mape']:.0%}). "
        f"Its interval covered {ours['coverage']:.0%} of the cells and is {ours['width']:.0%} of the prediction wide."
    )
    if ours["families"] < ENOUGH_FAMILIES:
        text += f" With {ours['families']:.0f} families these figures are themselves uncertain."
    return text.replace("%", " %")


def regret_table(regret: pd.DataFrame) -> pd.DataFrame:
    """:func:`labbench.prediction.choice_regret` in per cent, least regret first."""
    import pandas as pd

    table = regret.sort_values("mean_regret", kind="stable")
    return pd.DataFrame(
        {
            "chooses by": table["method"],
            "workloads": table["workloads"],
            "mean regret %": _percent(table["mean_regret"]),
            "95th percentile %": _percent(table["p95_regret"]),
            "best picked %": _percent(table["best_picked"]),
        }
    ).reset_index(drop=True)


def regret_sentence(regret: pd.DataFrame) -> str:
    """Whether choosing by prediction is worth more than a fixed choice."""
    table = regret.set_index("method")["mean_regret"]
    if LABBENCH not in table or FIXED_CHOICE not in table:
        return "No workload was measured on two platforms, so there is nothing to choose."
    ours, fixed = table[LABBENCH], table[FIXED_CHOICE]
    verdict = "better than" if ours < fixed else "no better than"
    return (
        f"Choosing a platform for an unseen model by its prediction costs {ours:.1%} of latency on average against the "
        f"best choice, {verdict} always taking the same platform ({fixed:.1%})."
    ).replace("%", " %")


def failure_sentence(predictions: pd.DataFrame) -> str:
    """Which family is predicted worst, and on which platform."""
    table = predictions[(predictions["quantity"] == "latency_s") & (predictions["method"] == LABBENCH)]
    table = table.dropna(subset=["predicted"])
    table = table.assign(off=np.log((table["predicted"] / table["measured"]).to_numpy(float)))
    by_family = table["off"].abs().groupby(table["family"].astype("str")).mean().sort_values()
    worst = table.iloc[int(table["off"].abs().to_numpy().argmax())]
    factor, side = float(np.exp(abs(worst["off"]))), "slow" if worst["off"] > 0 else "fast"
    return (
        f"Best predicted: {', '.join(by_family.index[:3])}. Worst: {', '.join(by_family.index[::-1][:3])}. "
        f"The single worst cell is {worst['model']} ({worst['series']}) on {worst['platform']}, predicted "
        f"{factor:.1f} times too {side}."
    )


def forecast_table(predicted: pd.DataFrame) -> pd.DataFrame:
    """Predictions with their intervals in human units."""
    import pandas as pd

    columns = {
        "model": predicted["model"],
        "batch": predicted["batch_size"],
        "platform": predicted["platform"],
        "series": predicted["series"],
        "latency ms": _rounded(predicted["latency_s"] * MS),
        "interval ms": _span(predicted["latency_low_s"] * MS, predicted["latency_high_s"] * MS),
    }
    if "memory_increase_bytes" in predicted:
        columns["peak memory MB"] = _rounded(predicted["memory_increase_bytes"] * MB)
    columns |= {
        "in domain": np.where(predicted["out_of_domain"], "no", "yes"),
        "reason": predicted["reason"].fillna(""),
    }
    return pd.DataFrame(columns)


def forecast_sentence(predicted: pd.DataFrame) -> str:
    """How many predictions can be relied on, and why the others cannot."""
    outside = predicted[predicted["out_of_domain"]]
    text = f"{len(predicted) - len(outside)} of {len(predicted)} predictions lie inside what was measured."
    if len(outside):
        first = outside.iloc[0]
        text += f" {first['model']} at batch {first['batch_size']} on {first['platform']} does not: {first['reason']}."
    level = predicted["level"].dropna()
    if len(level):
        text += f" The intervals stand for a coverage of {level.min():.0%} of new families".replace("%", " %")
        text += "; for another size of a model that was measured they are wider than they need be."
    return text


def _percent(values: pd.Series) -> pd.Series:
    return (100 * values).map(lambda value: "" if np.isnan(value) else f"{value:.1f}" if value < 10 else f"{value:.0f}")


def _rounded(values: pd.Series) -> pd.Series:
    return values.astype(float).map(_short)


def _span(low: pd.Series, high: pd.Series) -> list[str]:
    return ["–" if np.isnan(a) else f"{_short(a)} to {_short(b)}" for a, b in zip(low, high, strict=True)]


def _short(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
