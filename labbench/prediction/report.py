"""Tables and sentences of the prediction notebook: computed from the data, in human units."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from labbench.prediction.config import PredictionConfig, PredictionError
from labbench.prediction.errors import ours
from labbench.prediction.evaluate import FIXED_CHOICE, LABBENCH
from labbench.prediction.features import MEASURED
from labbench.prediction.predictor import NOT_CALIBRATED, Predictor, ceilings_of, training_rows
from labbench.words import count, digits, listed, percent, size

if TYPE_CHECKING:
    import pandas as pd

    from labbench.prediction.measure_next import Plan
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
    nominal = [f"{device} of {machine}" for (machine, device), limit in ceilings.items() if not limit.known]
    sheets = sorted({limit.source for limit in ceilings.values() if limit.known and limit.source != MEASURED})
    text = (
        f"{len(table)} measured series of {table['model'].nunique()} models in {table['family'].nunique()} families "
        f"({table['group'].nunique()} distinct by operator graph) on {count(table['platform'].nunique(), 'platform')} of "
        f"{count(table['machine_id'].nunique(), 'machine')}."
    )
    text += f" {left_out} series were left out: the machine was not quiet enough." if left_out else ""
    text += f" Ceilings that were not measured are those of the {', the '.join(sheets)}." if sheets else ""
    return text + (f" Ceilings of {', '.join(nominal)} are not known: nominal ones stand in." if nominal else "")


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
            "mean error %": percents(table["mape"]),
            "mean over families %": percents(table["family_mape"]),
            "median error %": percents(table["median_ape"]),
            "p95 error %": percents(table["p95_ape"]),
            "within 15 %": percents(table["within_15"]),
            "within 25 %": percents(table["within_25"]),
            "interval covers %": percents(table["coverage"]),
            "interval width %": percents(table["width"]),
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
    law = "fitted roofline" if predictor.graphs is None else "law of operators"
    learner, weight = latency.far.learner, latency.far.weight
    learnt = (
        f"{learner} corrects it with weight {weight:.2f}"
        if learner
        else "what was learnt besides did not help and was dropped"
    )
    return (
        f"The {radius.level:.0%} interval of a latency reaches from the prediction divided by {np.exp(radius.value):.1f} to "
        f"the prediction times {np.exp(radius.value):.1f}. It comes from a {law}; {learnt}."
    ).replace("%", " %")


def regret_table(regret: pd.DataFrame) -> pd.DataFrame:
    """:func:`labbench.prediction.choice_regret` in per cent, least regret first."""
    import pandas as pd

    table = regret.sort_values("mean_regret", kind="stable")
    return pd.DataFrame(
        {
            "chooses by": table["method"],
            "workloads": table["workloads"],
            "mean regret %": percents(table["mean_regret"]),
            "95th percentile %": percents(table["p95_regret"]),
            "best picked %": percents(table["best_picked"]),
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


def calibration_sentence(calibrated: pd.DataFrame) -> str:
    """Whether intervals hold what they promise, at the highest level that the families support."""
    from scipy.stats import binom

    level, families = float(calibrated.columns[-1]), len(calibrated)
    share = calibrated[calibrated.columns[-1]]
    low, high = (binom.ppf(tail, families, level) / families for tail in (0.025, 0.975))
    mean = float(share.mean())
    verdict = (
        "too narrow" if mean < low else "wider than need be" if mean > high else "as promised, as far as one can tell"
    )
    worst = share.idxmin()
    text = f"Intervals of {percent(level)} hold {percent(mean)} of a new family's cells: {verdict}"
    text += f" (by chance {percent(low)} to {percent(high)} with {count(families, 'family', 'families')})."
    return text + (f" The worst is {worst}: {percent(float(share[worst]))}." if share[worst] < level else "")


def drivers_sentence(driven: pd.DataFrame) -> str:
    """What larger errors go with beyond chance."""
    clear = driven[(driven["low"] > 0) | (driven["high"] < 0)]
    if clear.empty:
        return "Nothing that was looked at goes with larger errors beyond chance."
    told = []
    for way, rows in (("larger", clear[clear["correlation"] > 0]), ("smaller", clear[clear["correlation"] < 0])):
        if len(rows):
            told.append(
                f"{way} with {listed([f'{r.driver} ({r.correlation:+.2f})' for r in rows.head(3).itertuples()])}"
            )
    return (
        f"Errors are {', and '.join(told)}. Of {len(driven)} things that were looked at, one in twenty would look like that "
        "by chance, and what goes with an error need not cause it."
    )


def failure_sentence(predictions: pd.DataFrame) -> str:
    """Which family is predicted worst, and on which platform."""
    table = ours(predictions)
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
        "interval ms": span(predicted["latency_low_s"] * MS, predicted["latency_high_s"] * MS),
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


def batch_table(found: pd.DataFrame) -> pd.DataFrame:
    """:func:`labbench.prediction.largest_batches` in human units."""
    import pandas as pd

    sizes = {
        title: ["–" if np.isnan(value) else f"{value:.0f}" for value in found[name]]
        for title, name in (("largest batch", "batch_size"), ("safe", "safe_batch_size"))
    }
    table = pd.DataFrame(
        {
            **{name: found[name] for name in ("model", "mode", "precision", "platform")},
            "machine": found["machine_id"].astype("str").str[:20],
            "memory": found["memory_bytes"].map(size),
            **sizes,
            "provenance": found["provenance"],
            "reason": found["reason"].fillna(""),
        }
    )
    told = {"machine": table["machine"].nunique() > 1, "reason": (table["reason"] != "").any()}
    return table[[name for name in table if told.get(str(name), True)]]


def batch_sentence(found: pd.DataFrame, level: float) -> str:
    """What the columns mean, and what has no answer."""
    none = found[found["batch_size"].isna()]
    text = (
        "The peak of memory that is predicted for the largest batch fits the device; for the safe one the upper end of its "
        f"interval of {percent(level)} does."
    )
    if len(none):
        text += f" {count(len(none), 'row has', 'rows have')} no answer: {none['reason'].iloc[0]}."
    return text


def plan_table(plan: Plan) -> pd.DataFrame:
    """What to measure next in human units: what is expected, how unsure that is, what it costs, and why."""
    import pandas as pd

    table = plan.table
    return pd.DataFrame(
        {
            "model": table["model"],
            "batch": table["batch_size"],
            "mode": table["mode"],
            "precision": table["precision"],
            "platform": table["platform"],
            "latency ms": _rounded(table["latency_s"] * MS),
            "costs s": table["cost_s"].map(digits),
            "expected error then %": percents(table["expected_error"]),
            "reason": table["reason"],
        }
    )


def plan_sentence(plan: Plan) -> str:
    """What the plan brings, and where doubt is largest now."""
    doubt = plan.open.dropna(subset=["doubt"])
    unknown = plan.open.loc[plan.open["doubt"].isna(), "platform"].astype("str").unique()
    text = str(plan)
    if len(doubt):
        by_platform = doubt.groupby(doubt["platform"].astype("str"))["doubt"].mean().sort_values()
        most = by_platform.index[-1]
        text += f" Doubt is largest on {most}: an error of {percent(by_platform.iloc[-1])} is to be expected there."
    if len(unknown):
        text += f" Nothing can be said yet of {listed(sorted(unknown))}: one cell of each comes first."
    return text


def forecast_sentence(predicted: pd.DataFrame) -> str:
    """How many predictions can be relied on, and why the others cannot."""
    refused = predicted["latency_s"].isna()
    outside = predicted[predicted["out_of_domain"] & ~refused]
    inside = len(predicted) - len(outside) - int(refused.sum())
    text = f"{inside} of {len(predicted)} predictions lie inside what was measured."
    for told, rows in (("are guesses", outside), ("have no prediction", predicted[refused])):
        if len(rows):
            first = rows.iloc[0]
            text += (
                f" {len(rows)} {told}, such as {first['model']} at batch {first['batch_size']} on {first['platform']}: "
                f"{_reasons(rows).iloc[0]}."
            )
    level = predicted["level"].dropna()
    if len(level):
        text += f" The intervals stand for a coverage of {level.min():.0%} of new families".replace("%", " %")
        text += "; for another size of a model that was measured they are wider than they need be."
    return text


def _reasons(predicted: pd.DataFrame) -> pd.Series:
    """Why each row is out of the domain, without the words that are the same in all of them."""
    return predicted["reason"].fillna("").astype("str").str.removeprefix(f"{NOT_CALIBRATED}: ")


def percents(values: pd.Series) -> pd.Series:
    """Fractions as per cent, one digit below ten; empty where not known."""
    return (100 * values).map(
        lambda value: "" if np.isnan(value) else f"{value:.1f}" if abs(value) < 10 else f"{value:.0f}"
    )


def _rounded(values: pd.Series) -> pd.Series:
    return values.astype(float).map(digits)


def span(low: pd.Series, high: pd.Series) -> list[str]:
    """E.g. ``1.20 to 3.40``; a dash where not known."""
    return ["–" if np.isnan(a) else f"{digits(a)} to {digits(b)}" for a, b in zip(low, high, strict=True)]
