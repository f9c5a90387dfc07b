"""What a fleet would take if all rates rose, and where it ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from labbench.selection.fleet.assign import assign
from labbench.selection.fleet.conflicts import Infeasible
from labbench.selection.fleet.problem import Fleet
from labbench.words import number

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

FACTORS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)


def growth(fleet: Fleet, factors: Sequence[float] = FACTORS, *, seconds: float = 10.0) -> pd.DataFrame:
    """A plan at each multiple of all rates, up to the first without one.

    Parameters
    ----------
    fleet : Fleet
    factors : sequence of float
        Of the rates, ascending.
    seconds : float
        Each plan may take.

    Returns
    -------
    DataFrame
        ``factor``, ``value`` (of the objective; NaN where there is no plan), ``devices`` (in use), ``gap``, and ``conflict``: why
        there is none.
    """
    import pandas as pd

    rows = []
    for factor in sorted(factors):
        demands = tuple(d.model_copy(update={"per_second": factor * d.per_second}) for d in fleet.demands)
        try:
            plan = assign(replace(fleet, demands=demands), seconds=seconds)
        except Infeasible as error:
            rows.append({"factor": factor, "value": float("nan"), "devices": 0, "gap": 0.0, "conflict": str(error)})
            break
        rows.append(
            {"factor": factor, "value": plan.value, "devices": len(plan.devices), "gap": plan.gap, "conflict": None}
        )
    return pd.DataFrame(rows)


def growth_sentence(table: pd.DataFrame) -> str:
    """Where it ends, and what stands in the way."""
    carried, failed = table[table["conflict"].isna()], table[table["conflict"].notna()]
    most = f"{number(carried['factor'].max())} times" if len(carried) else "less than"
    text = f"The fleet carries {most} the rates asked for"
    if failed.empty:
        return f"{text}, and nothing more was tried."
    first = failed.iloc[0]
    return f"{text}, not {number(first['factor'])} times: {first['conflict']}"


def plot_growth(table: pd.DataFrame, unit: str) -> Axes:
    """The objective over the rates; the cross is the first without a plan."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator

    from labbench.plots.base import WIDTH_IN

    _, ax = plt.subplots(figsize=(WIDTH_IN, 2.6), layout="constrained")
    carried, failed = table[table["conflict"].isna()], table[table["conflict"].notna()]
    ax.plot(carried["factor"], carried["value"], marker="o")
    if len(failed):
        ax.plot(failed["factor"], [carried["value"].max()] * len(failed), "x", color="tab:red", ms=9)
        ax.annotate("no plan", (failed["factor"].iloc[0], carried["value"].max()), (0, -16), ha="center",
                    textcoords="offset points", fontsize="small", color="tab:red")  # fmt: skip
    ax.set_xscale("log", base=2)
    ax.set_xticks(table["factor"], [f"{number(factor)}×" for factor in table["factor"]])
    ax.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=unit == "devices"))
    ax.set_xlabel("multiple of all rates")
    ax.set_ylabel(unit)
    ax.set_ylim(0, 1.1 * max(carried["value"].max(), 1e-9) if len(carried) else 1)
    return ax
