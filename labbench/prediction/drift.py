"""Does a kept predictor still hold? New measurements, which it never saw, against what it predicts for them.

Two things make a refit due, each beyond chance: intervals that cover less than they promise, and errors above those that the
card was given. Families count, not rows: cells of one family are wrong together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from labbench.prediction.errors import mean_interval
from labbench.prediction.features import MEMORY
from labbench.words import count, listed, percent

if TYPE_CHECKING:
    import pandas as pd

    from labbench.prediction.card import Card, Saved

ALPHA = 0.05  # chance of calling for a refit, for one of the reasons, though nothing changed
EVERYWHERE = "all"
INTERVALS = {"latency_s": ("latency_low_s", "latency_high_s")} | {
    MEMORY: ("memory_increase_low_bytes", "memory_increase_high_bytes")
}
NAMES = {"latency_s": "latency", MEMORY: "memory"}


@dataclass(frozen=True)
class Drift:
    """What came of new measurements.

    Attributes
    ----------
    card : Card
        Of the predictor.
    table : DataFrame
        A row a quantity and platform, and one for all of them (platform ``all``): ``cells`` scored, ``refused`` and ``outside``
        of the domain (not scored), ``families``, ``mape`` with ``mape_low`` and ``mape_high`` (95 %, bootstrap over families; NaN
        of one family), ``card_mape``, ``coverage``, ``level`` (the coverage promised), ``p_coverage`` (of so little coverage, if
        the promise held) and ``p_error`` (of errors so much larger than the card's, if they were alike; NaN of one platform).
    reasons : tuple of str
        Why a refit is due; none if it is not.
    """

    card: Card
    table: pd.DataFrame
    reasons: tuple[str, ...]

    @property
    def due(self) -> bool:
        """Whether to refit."""
        return bool(self.reasons)

    def to_dict(self) -> dict[str, Any]:
        """JSON form; what is not known is null."""
        rows = self.table.astype(object).where(self.table.notna(), None).to_dict("records")
        return {"predictor": self.card.signature, "refit": self.due, "reasons": list(self.reasons), "table": rows}

    def __str__(self) -> str:
        whole = self.table[self.table["platform"] == EVERYWHERE].to_dict("records")
        if not whole:
            return f"Nothing that counts was measured since predictor {self.card.name!r} was fitted: there is nothing to judge."
        told = [
            _told(row) if row["cells"] else f"No new result of {NAMES[row['quantity']]} counts: {_left_out(row)}."
            for row in whole
        ]
        verdict = f"Refit: beyond chance, {listed(list(self.reasons))}." if self.due else "No refit is due."
        return " ".join([*told, verdict])


def drift(saved: Saved, frame: pd.DataFrame) -> Drift:
    """Score what a predictor did not learn from.

    Parameters
    ----------
    saved : Saved
        Of :func:`labbench.prediction.card.load`.
    frame : DataFrame
        ``Store.latest()``; records that the predictor learnt from are left out, and those whose operators it does not know.

    Returns
    -------
    Drift

    Raises
    ------
    PredictionError
        If there is no measurement at all, or the machine was not quiet during any.

    Notes
    -----
    A conformal interval covers a row of a new family with its level. Were one row drawn from each family, the number covered
    would be binomial; the sum of the families' shares of covered rows, which is taken here, has the same mean and spreads less, so
    that the binomial tail (at the sum rounded up) errs towards no alarm. Errors are compared family by family with those that
    the card has, by the test of Mann and Whitney (1947), which asks for no shape. Each test is at ``ALPHA`` divided by how many
    there are (Bonferroni).
    """
    import pandas as pd

    from labbench.prediction.predictor import learnt_rows

    rows = learnt_rows(frame, saved.card.config, saved.predictor.graphs)
    rows = rows[~rows["record_id"].astype("str").isin(saved.record_ids)].reset_index(drop=True)
    if rows.empty:
        return Drift(saved.card, pd.DataFrame(columns=list(_COLUMNS)), ())
    predicted = saved.predictor.predict(rows)
    found = []
    for quantity, ends in INTERVALS.items():
        if quantity not in predicted or rows[quantity].isna().all():
            continue
        scored = _scored(rows, predicted, quantity, ends)
        error = saved.card.error(quantity)
        card_mape = math.nan if error is None or error.mape is None else error.mape
        expected = list(saved.card.family_errors.get(quantity, {}).values())
        parts = [(EVERYWHERE, scored), *scored.groupby(rows["platform"].astype("str"), sort=True)]
        for name, part in parts:
            row = {"quantity": quantity, "platform": name, "card_mape": card_mape}
            found.append(row | _judged(part, expected if name == EVERYWHERE else []))
    table = pd.DataFrame(found, columns=list(_COLUMNS))
    return Drift(saved.card, table, tuple(_reasons(table)))


_COLUMNS = (
    *("quantity", "platform", "cells", "refused", "outside", "families", "mape", "mape_low", "mape_high", "card_mape"),
    *("coverage", "level", "p_coverage", "p_error"),
)


def _scored(rows: pd.DataFrame, predicted: pd.DataFrame, quantity: str, ends: tuple[str, str]) -> pd.DataFrame:
    """Error and whether the interval holds it, of each row that has the quantity; memory is told by the primary series."""
    import pandas as pd

    measured = rows[quantity].astype(float)
    if quantity == MEMORY:
        measured = measured.where(rows["primary"].astype(bool))
    table = pd.DataFrame(
        {
            "family": rows["group"],
            "ape": (predicted[quantity] / measured - 1).abs(),
            "covered": measured.between(predicted[ends[0]], predicted[ends[1]]).astype(float),
            "refused": predicted[quantity].isna(),
            "outside": predicted["out_of_domain"].astype(bool) & predicted[quantity].notna(),
            "level": predicted["level"],
        }
    )
    return table[measured.notna()]


def _judged(part: pd.DataFrame, expected: list[float]) -> dict[str, Any]:
    """Figures of some rows; ``expected`` are the errors of families, by the card."""
    from scipy.stats import binom, mannwhitneyu

    inside = part[~part["refused"] & ~part["outside"]]
    families = inside.groupby("family")
    share = families["covered"].mean()
    level = float(inside["level"].min()) if len(inside) else math.nan
    low, high = mean_interval(families["ape"].sum().to_numpy(), families["ape"].size().to_numpy())
    return {
        "cells": len(inside),
        "refused": int(part["refused"].sum()),
        "outside": int(part["outside"].sum()),
        "families": len(share),
        "mape": float(inside["ape"].mean()),
        "mape_low": low,
        "mape_high": high,
        "coverage": float(inside["covered"].mean()),
        "level": level,
        "p_coverage": float(binom.cdf(math.ceil(share.sum() - 1e-9), len(share), level)) if len(share) else math.nan,
        "p_error": float(mannwhitneyu(families["ape"].mean(), expected, alternative="greater").pvalue)
        if expected and len(share)
        else math.nan,
    }


def _reasons(table: pd.DataFrame) -> list[str]:
    """Why a refit is due."""
    alpha = ALPHA / max(int(table[["p_coverage", "p_error"]].notna().to_numpy().sum()), 1)
    found = []
    for row in table.to_dict("records"):
        name = NAMES[row["quantity"]] + ("" if row["platform"] == EVERYWHERE else f" on {row['platform']}")
        if row["p_coverage"] <= alpha:
            found.append(f"intervals of {name} hold {percent(row['coverage'])} and promise {percent(row['level'])}")
        if row["p_error"] <= alpha:
            found.append(f"errors of {name} are {percent(row['mape'])} and were {percent(row['card_mape'])}")
    return found


def _told(row: Mapping[str, Any]) -> str:
    reach = "" if math.isnan(row["mape_low"]) else f" ({percent(row['mape_low'])} to {percent(row['mape_high'])})"
    card = "" if math.isnan(row["card_mape"]) else f"; the card says {percent(row['card_mape'])}"
    return (
        f"{count(row['cells'], 'new result')} of {NAMES[row['quantity']]} in "
        f"{count(row['families'], 'family', 'families')}: off by {percent(row['mape'])} on average{reach}{card}; "
        f"{percent(row['coverage'])} inside intervals that promise {percent(row['level'])}."
        + (f" Not counted: {_left_out(row)}." if row["refused"] or row["outside"] else "")
    )


def _left_out(row: Mapping[str, Any]) -> str:
    return f"{row['refused']} refused, {row['outside']} outside what it knows, which a refit would take in"
