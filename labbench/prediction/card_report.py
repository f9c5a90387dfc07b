"""What the commands say: how well a predictor does, its card, whether it drifted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from labbench.prediction.evaluate import LABBENCH
from labbench.prediction.report import QUANTITIES, percents, span
from labbench.prediction.splits import SPLITS
from labbench.words import count, listed, percent, seconds

if TYPE_CHECKING:
    import pandas as pd

    from labbench.prediction.card import Card, Errors
    from labbench.prediction.drift import Drift


def evaluation_table(scores: pd.DataFrame) -> pd.DataFrame:
    """All figures of :func:`labbench.prediction.score`, for a terminal; best mean error first within each quantity."""
    import pandas as pd

    table = scores.sort_values(["quantity", "mape"], kind="stable")
    shares = {
        "mean %": "mape", "median %": "median_ape", "≤10 %": "within_10", "≤15 %": "within_15", "bias %": "bias",
        "covers %": "coverage", "width %": "width",
    }  # fmt: skip
    return pd.DataFrame(
        {
            "quantity": table["quantity"].map(QUANTITIES),
            "method": table["method"],
            "cells": table["cells"],
            "refused": table["refused"],
            **{label: percents(table[name]) for label, name in shares.items()},
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
        f"{count(len(data.machines), 'machine')}: {listed(data.devices)} (data {data.sha256[:12]})",
    ]
    for quantity, name in QUANTITIES.items():
        of_quantity = sorted(
            (one for one in card.errors if one.quantity == quantity and one.mape is not None),
            key=lambda one: one.mape or 0,
        )
        if of_quantity:
            lines.append(f"  {name} on an unseen family:")
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
            "mean error %": percents(table["mape"]),
            "95 % interval": span(100 * table["mape_low"], 100 * table["mape_high"]),
            "card's error %": percents(table["card_mape"]),
            "interval covers %": percents(table["coverage"]),
            "promised %": percents(table["level"]),
        }
    )
