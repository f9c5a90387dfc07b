"""Tables and sentences of the prediction notebook: computed from the data, in human units."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from labbench.prediction.config import PredictionConfig, PredictionError
from labbench.prediction.evaluate import FIXED_CHOICE, LABBENCH
from labbench.prediction.predictor import NOT_CALIBRATED, Predictor, ceilings_of, training_rows
from labbench.prediction.splits import SPLITS
from labbench.words import count, digits, listed, percent, seconds

if TYPE_CHECKING:
    import pandas as pd

    from labbench.prediction.card import Card, Errors
    from labbench.prediction.drift import Drift
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
        f"{count(table['machine_id'].nunique(), 'machine')}."
    )
    text += f" {left_out} series were left out: the machine was not quiet enough." if left_out else ""
    return text + (f" Ceilings of {', '.join(nominal)} were not measured: nominal ones stand in." if nominal else "")


def fitted(
    frame: pd.DataFrame, environments: Mapping[str, Environment], config: PredictionConfig | None = None
) -> tuple[Predictor | None, str]:
    """A predictor fitted to the store and what it learnt from; or none, and why not."""
    config = config or PredictionConfig()
    try:
        predictor = Predictor(config).fit(frame, environments)
    except PredictionError as error:
        return None, f"Nothing is predicted: {error}."
    return predictor, f"Cells without a record are predicted from {data_sentence(frame, environments, config)}"


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
            "p95 error %": _percent(table["p95_ape"]),
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
        f"Its interval covered {ours['coverage']:.0%} of the cells and spans on average {ours['width']:.1f} times the "
        "prediction."
    )
    for name in scores["quantity"].unique():
        if name != "latency_s":
            text += _other_quantity(scores[scores["quantity"] == name], QUANTITIES.get(name, name))
    if ours["families"] < ENOUGH_FAMILIES:
        text += f" With {ours['families']:.0f} families these figures are themselves uncertain."
    return text.replace("%", " %")


def _other_quantity(scores: pd.DataFrame, name: str) -> str:
    """Whether the baselines are beaten at this, too."""
    table = scores.set_index("method")["mape"]
    rivals = table[~table.index.str.startswith(LABBENCH)].sort_values()
    if LABBENCH not in table or rivals.empty:
        return ""
    ours = table[LABBENCH]
    verdict = "better" if ours < rivals.iloc[0] else "no better"
    return f" For {name} the mean error is {ours:.1%}, {verdict} than that of {rivals.index[0]} ({rivals.iloc[0]:.1%})."


def fit_sentence(predictor: Predictor) -> str:
    """What was fitted: how far the interval reaches, and whether a learnt correction was worth its place."""
    latency = predictor.quantities["latency_s"]
    radius = latency.radius(predictor.config.level)
    learnt = f"corrects it with weight {latency.weight:.2f}" if latency.weight else "was dropped: it did not help"
    return (
        f"The {radius.level:.0%} interval of a latency reaches from the prediction divided by {np.exp(radius.value):.1f} to "
        f"the prediction times {np.exp(radius.value):.1f}. Gradient boosting {learnt}."
    ).replace("%", " %")


def evaluation_table(scores: pd.DataFrame) -> pd.DataFrame:
    """All figures of :func:`labbench.prediction.score`, for a terminal; best mean error first within each quantity."""
    import pandas as pd

    table = scores.sort_values(["quantity", "mape"], kind="stable")
    percents = {
        "mean %": "mape", "median %": "median_ape", "≤10 %": "within_10", "≤15 %": "within_15", "bias %": "bias",
        "covers %": "coverage", "width %": "width",
    }  # fmt: skip
    return pd.DataFrame(
        {
            "quantity": table["quantity"].map(QUANTITIES),
            "method": table["method"],
            "cells": table["cells"],
            "refused": table["refused"],
            **{label: _percent(table[name]) for label, name in percents.items()},
            "rank corr.": table["spearman"].map(lambda value: "" if np.isnan(value) else f"{value:.3f}"),
            "to fit": table["fit_s"].map(seconds),
            "to predict": table["predict_s"].map(seconds),
        }
    ).reset_index(drop=True)


def evaluation_sentence(scores: pd.DataFrame, split: str, probes: int = 0) -> str:
    """What was new in the test rows, and what came of it."""
    ours = scores[(scores["method"] == LABBENCH) & (scores["quantity"] == "latency_s")].iloc[0]
    new = SPLITS[split].about + (f", but for {count(probes, 'cell')} of it" if probes else "")
    if not ours["cells"]:
        return f"On {new}: nothing is predicted, {count(ours['refused'], 'row was', 'rows were')} refused."
    refused = f"; {ours['refused']} of {ours['cells'] + ours['refused']} rows were refused" if ours["refused"] else ""
    warning = (
        " That is a leak and no result: other cells of the same models were trained on. What counts is the split by family."
        if split == "random"
        else ""
    )
    return (
        f"On {new}: latency is off by {percent(ours['mape'])} on average, {percent(ours['median_ape'])} in the median"
        f"{refused}.{warning}"
    )


def card_text(card: Card) -> str:
    """A model card for a terminal: what it learnt from, how wrong it was, what not to ask it."""
    data = card.data
    smallest, largest = data.batch_sizes
    lines = [
        f"{card.name}, fitted {card.fitted_at:%Y-%m-%d %H:%M} UTC with "
        + listed([f"{name} {version}" for name, version in card.versions.items()]),
        f"  learnt from {count(data.rows, 'series', 'series')} of {count(data.models, 'model')} in "
        f"{count(len(data.families), 'family', 'families')}, batch {smallest} to {largest}, on {listed(data.platforms)} of "
        f"{count(len(data.machines), 'machine')} (data {data.sha256[:12]})",
    ]
    for quantity, name in QUANTITIES.items():
        of_quantity = sorted(
            (one for one in card.errors if one.quantity == quantity and one.mape is not None),
            key=lambda one: one.mape or 0,
        )
        if of_quantity:
            lines.append(f"  {name} on an unseen {of_quantity[0].split}:")
            lines += [_error_line(one) for one in of_quantity]
    return "\n".join([*lines, "  limits:", *(f"    - {limit}" for limit in card.limits)])


def _error_line(one: Errors) -> str:
    covered = "" if one.coverage is None else f", {percent(one.coverage)} inside the interval"
    refused = f", {one.refused} refused" if one.refused else ""
    return (
        f"    {one.method}: off by {percent(one.mape or 0)} on average, {percent(one.median_ape or 0)} in the median, "
        f"{percent(one.within_15 or 0)} within 15 %{covered}{refused}"
    )


def drift_table(found: Drift) -> pd.DataFrame:
    """:func:`labbench.prediction.drift.drift` in per cent, by quantity and platform."""
    import pandas as pd

    table = found.table
    return pd.DataFrame(
        {
            "quantity": table["quantity"].map(QUANTITIES),
            "platform": table["platform"],
            "new cells": table["cells"],
            "refused": table["refused"],
            "out of domain": table["outside"],
            "mean error %": _percent(table["mape"]),
            "95 % interval": _span(100 * table["mape_low"], 100 * table["mape_high"]),
            "card's error %": _percent(table["card_mape"]),
            "interval covers %": _percent(table["coverage"]),
            "promised %": _percent(table["level"]),
        }
    )


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
        f"Choosing a platform for an unseen model by its prediction costs {percent(ours)} of latency on average against "
        f"the best choice, {verdict} always taking the same platform ({percent(fixed)})."
    )


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
        "machine": predicted["machine_id"].astype("str").str[:6],
        "series": predicted["series"],
        "latency ms": _rounded(predicted["latency_s"] * MS),
        "interval ms": _span(predicted["latency_low_s"] * MS, predicted["latency_high_s"] * MS),
    }
    if "memory_increase_bytes" in predicted:
        columns["peak memory MB"] = _rounded(predicted["memory_increase_bytes"] * MB)
    columns |= {
        "provenance": np.select(
            [predicted["latency_s"].isna(), predicted["out_of_domain"]],
            ["not predicted", "predicted, out of domain"],
            "predicted",
        ),
        "reason": _reasons(predicted),
    }
    table = pd.DataFrame(columns)
    told = {"machine": table["machine"].nunique() > 1, "series": table["series"].nunique() > 1}
    told["reason"] = (table["reason"] != "").any()
    return table[[name for name in table if told.get(str(name), True)]]


def forecast_sentence(predicted: pd.DataFrame) -> str:
    """How many predictions can be relied on, and why the others cannot."""
    outside = predicted[predicted["out_of_domain"]]
    inside = len(predicted) - len(outside)
    text = f"{inside} of {len(predicted)} predictions lie inside what was measured."
    if len(outside):
        first = outside.iloc[0]
        text += (
            f" The others are guesses, such as {first['model']} at batch {first['batch_size']} on {first['platform']}"
        )
        text += f": {_reasons(outside).iloc[0]}."
    level = predicted["level"].dropna()
    if len(level):
        text += f" The intervals stand for a coverage of {level.min():.0%} of new families".replace("%", " %")
        text += "; for another size of a model that was measured they are wider than they need be."
    return text


def _reasons(predicted: pd.DataFrame) -> pd.Series:
    """Why each row is out of the domain, without the words that are the same in all of them."""
    return predicted["reason"].fillna("").astype("str").str.removeprefix(f"{NOT_CALIBRATED}: ")


def _percent(values: pd.Series) -> pd.Series:
    return (100 * values).map(
        lambda value: "" if np.isnan(value) else f"{value:.1f}" if abs(value) < 10 else f"{value:.0f}"
    )


def _rounded(values: pd.Series) -> pd.Series:
    return values.astype(float).map(digits)


def _span(low: pd.Series, high: pd.Series) -> list[str]:
    return ["–" if np.isnan(a) else f"{digits(a)} to {digits(b)}" for a, b in zip(low, high, strict=True)]
