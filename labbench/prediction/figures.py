"""Figures of predictions: DataFrame in, Axes out. What was predicted is hollow, what was measured is filled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from labbench.analysis.labels import place
from labbench.plots import MARKERS, MS, ROW_IN, legend_above, new_axes, plain_ticks, platform_colors
from labbench.plots.base import ENDS, MANY, MOST_VECTORS, nothing, scatter, short
from labbench.prediction.errors import ours
from labbench.prediction.evaluate import LABBENCH
from labbench.words import percent

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from labbench.prediction.measure_next import Plan

DODGE = 0.12  # octaves between platforms that share a place on the axis
MOST_ROWS = 40  # of models in a figure of doubts
RATIOS = (0.5, 0.67, 0.8, 0.9, 1, 1.1, 1.25, 1.5, 2)  # ticks where less than two powers of two are shown
BAND = 0.25  # the share of error that the shaded band of a figure stands for


def plot_predicted_measured(predictions: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Predicted against measured latency of families that were left out, with intervals and a band of ±25 %.

    Parameters
    ----------
    predictions : DataFrame
        Of :func:`labbench.prediction.cross_validate`.
    ax : Axes, optional
        Drawn into; default: a new figure.
    """
    ax = new_axes(ax, 4.8)
    table = ours(predictions)
    colors = platform_colors(table["platform"])
    limits = np.array(
        [table[["measured", "predicted"]].min().min() / 1.6, table[["measured", "predicted"]].max().max() * 1.6]
    )
    ax.fill_between(
        limits * MS,
        limits * (1 - BAND) * MS,
        limits * (1 + BAND) * MS,
        color="0.5",
        alpha=0.15,
        lw=0,
        label=f"±{percent(BAND)}",
    )
    ax.plot(limits * MS, limits * MS, color="0.4", lw=1)
    for (name, color), marker in zip(colors.items(), MARKERS * len(colors), strict=False):
        rows = table[table["platform"].astype("str") == name]
        span = np.abs(rows[["low", "high"]].to_numpy() - rows[["predicted"]].to_numpy()).T * MS
        ax.errorbar(
            rows["measured"] * MS, rows["predicted"] * MS, yerr=span,
            fmt="none", ecolor=color, alpha=0.25, elinewidth=1, zorder=1,
        )  # fmt: skip
        ax.scatter(
            rows["measured"] * MS, rows["predicted"] * MS,
            s=30, marker=marker, facecolor="white", edgecolor=[color], linewidth=1.4, label=name, zorder=2,
        )  # fmt: skip
    ax.set(
        xscale="log", yscale="log", xlim=limits * MS, ylim=limits * MS,
        xlabel="measured latency (ms)", ylabel="predicted latency (ms), family left out",
    )  # fmt: skip
    plain_ticks(ax)
    ax.legend(loc="upper left", frameon=False)
    return ax


def plot_prediction_errors(predictions: pd.DataFrame, quantity: str = "latency_s", *, ax: Axes | None = None) -> Axes:
    """Share of cells predicted within an error, for each method: the further up and left a curve, the better."""
    import seaborn as sns

    ax = new_axes(ax, 4.4)
    table = predictions[predictions["quantity"] == quantity]
    methods = _distinct(table)
    styles = ("-", "-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
    for index, (method, color) in enumerate(zip(methods, sns.color_palette("colorblind", len(methods)), strict=True)):
        rows = table[table["method"] == method]
        error = np.sort((rows["predicted"] / rows["measured"] - 1).abs().dropna().to_numpy())
        share = np.arange(1, len(error) + 1) / len(rows)
        ax.step(
            100 * error, 100 * share, where="post", label=method, color=color,
            linestyle=styles[index % len(styles)], lw=2.4 if method == LABBENCH else 1.4,
        )  # fmt: skip
    ax.axvline(100 * BAND, color="0.6", lw=0.8)
    ax.set(
        xscale="log", xlim=(1, 1000), ylim=(0, 100),
        xlabel="error (%), family left out", ylabel="share of cells within it (%)",
    )  # fmt: skip
    plain_ticks(ax, "x")
    legend_above(ax)
    return ax


def plot_plan(plan: Plan, *, ax: Axes | None = None) -> Axes:
    """Error to expect of what is not measured against the time spent: each point one cell of a plan of what to measure next."""
    ax = new_axes(ax, 3.6)
    table = plan.table.dropna(subset=["expected_error"])
    minutes = np.concatenate([[0.0], table["spent_s"].to_numpy(float) / 60])
    ax.step(minutes, 100 * np.concatenate([[plan.error], table["expected_error"]]), where="post", color="C0", lw=1.4)
    names = table["platform"].astype("str")
    for (name, color), marker in zip(platform_colors(names).items(), MARKERS * names.nunique(), strict=False):
        rows = table[names == name]
        ax.scatter(
            rows["spent_s"] / 60, 100 * rows["expected_error"], s=34, color=[color], marker=marker, label=name, zorder=3
        )
    ax.set(xlabel="time spent measuring (min)", ylabel="expected error (%)", xlim=(0, None), ylim=(0, None))
    legend_above(ax)
    return ax


def plot_doubt(plan: Plan, *, ax: Axes | None = None) -> Axes:
    """How unsure each cell is that nobody measured: a point a cell, models by their largest doubt, most doubtful on top."""
    table = plan.open.dropna(subset=["doubt"])
    order = table.groupby(table["model"].astype("str"))["doubt"].max().sort_values().index[-MOST_ROWS:]
    ax = new_axes(ax, 1.1 + ROW_IN * len(order))
    names, at = table["platform"].astype("str"), {model: index for index, model in enumerate(order)}
    shown = table["model"].astype("str").isin(order)
    for (name, color), marker in zip(platform_colors(names).items(), MARKERS * names.nunique(), strict=False):
        rows = table[shown & (names == name)]
        ax.scatter(
            100 * rows["doubt"], rows["model"].astype("str").map(at), s=26, marker=marker,
            facecolor="white", edgecolor=[color], linewidth=1.3, label=name,
        )  # fmt: skip
    ax.set_yticks(range(len(order)), order)
    ax.set(xlabel="error to expect of its prediction (%)", xlim=(0, 105 * table["doubt"].max() if len(table) else None))
    legend_above(ax)
    return ax


def _distinct(table: pd.DataFrame) -> list[str]:
    """Methods in their order, without those that predict exactly what an earlier one does."""
    seen: dict[tuple[float, ...], str] = {}
    for method, rows in table.groupby("method", sort=False):
        seen.setdefault(tuple(rows["predicted"].fillna(-1)), str(method))
    return list(seen.values())


def plot_prediction_residuals(
    predictions: pd.DataFrame, by: Literal["family", "place"] = "family", *, ax: Axes | None = None
) -> Axes:
    """Where it fails: predicted over measured latency, a row a family or a place; rows by their mean error.

    Parameters
    ----------
    predictions : DataFrame
        Of :func:`labbench.prediction.cross_validate`.
    by : {'family', 'place'}
        A place is a platform, with device and precision where there are several.
    ax : Axes, optional
        Drawn into; default: a new figure.
    """
    table = ours(predictions).assign(place=lambda t: place(t), ratio=lambda t: t["predicted"] / t["measured"])
    rows_by = table[by].astype("str")
    error = np.log(table["ratio"]).abs().groupby(rows_by).mean().sort_values()
    names = _ends(error.index.to_list())
    kept = rows_by.isin(names)
    ax = new_axes(ax, 1.1 + ROW_IN * len(names))
    ax.axvspan(1 - BAND, 1 + BAND, color="0.5", alpha=0.15, lw=0)
    ax.axvline(1, color="0.4", lw=1)
    at = rows_by[kept].map({name: index for index, name in enumerate(names)})
    colors = platform_colors(table["platform"])
    for index, (name, color) in enumerate(colors.items()):
        rows = (table["platform"].astype("str") == name) & kept
        shift = (index - (len(colors) - 1) / 2) * 0.16 if by == "family" else 0.0
        ax.scatter(
            table.loc[rows, "ratio"], at[rows] + shift, s=26, marker=MARKERS[index % len(MARKERS)],
            facecolor="white", edgecolor=[color], linewidth=1.3, label=name, rasterized=int(rows.sum()) > MOST_VECTORS,
        )  # fmt: skip
    ax.set_yticks(range(len(names)), [short(name) for name in names])
    ax.set(xscale="log", ylim=(-0.7, len(names) - 0.3), xlabel="predicted / measured latency (1 is right)", ylabel="")
    low, high = (np.log2(limit) for limit in ax.get_xlim())
    ticks = 2.0 ** np.arange(np.ceil(low), np.floor(high) + 1)
    ticks = ticks if len(ticks) > 2 else np.array([one for one in RATIOS if low <= np.log2(one) <= high])
    ax.set_xticks(ticks, minor=False)
    ax.set_xticks([], minor=True)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.grid(axis="y", visible=False)
    if by == "family":
        legend_above(ax)
    return ax


def _ends(names: list[str]) -> list[str]:
    """All names, or those at either end where they are very many."""
    return names if len(names) <= MANY else [*names[:ENDS], *names[-ENDS:]]


def plot_calibration(calibrated: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Promise against delivery: nominal coverage, and the share of cells inside, of each family and of all, weighing the same.

    The band is where the mean lies by chance in 95 % of cases if the promise holds (binomial, a family counting once).

    Parameters
    ----------
    calibrated : DataFrame
        Of :func:`labbench.prediction.errors.calibration`.
    ax : Axes, optional
        Drawn into; default: a new figure.
    """
    import seaborn as sns
    from scipy.stats import binom

    ax = new_axes(ax, 4.4)
    color = sns.color_palette("colorblind")[0]
    levels, count = np.array(calibrated.columns, dtype=float), len(calibrated)
    low, high = (binom.ppf(tail, count, levels) / count for tail in (0.025, 0.975))
    ax.fill_between(100 * levels, 100 * low, 100 * high, color="0.5", alpha=0.15, lw=0, label="by chance")
    ax.plot([0, 100], [0, 100], color="0.4", lw=1)
    for number, (_, family) in enumerate(calibrated.iterrows()):
        ax.plot(
            100 * levels,
            100 * family.to_numpy(float),
            color="0.6",
            lw=0.8,
            alpha=0.7,
            label="" if number else "one family",
        )
    ax.plot(
        100 * levels, 100 * calibrated.mean().to_numpy(float), "o-", color=color, ms=4, lw=2, label="mean of families"
    )
    ax.set(
        xlim=(0, 100), ylim=(-2, 102), xlabel="nominal coverage of the interval (%)",
        ylabel="cells inside, family left out (%)",
    )  # fmt: skip
    legend_above(ax, columns=3)
    return ax


def plot_error_drivers(driven: pd.DataFrame, *, most: int = 15, ax: Axes | None = None) -> Axes:
    """What larger errors go with: rank correlations and their intervals, the strongest on top; filled where zero is outside.

    Parameters
    ----------
    driven : DataFrame
        Of :func:`labbench.prediction.errors.drivers`.
    most : int
        How many are shown.
    ax : Axes, optional
        Drawn into; default: a new figure.
    """
    if driven.empty:
        return nothing(ax, "the cells do not differ in anything that errors could go with")
    import seaborn as sns

    table, color = driven.head(most)[::-1].reset_index(drop=True), sns.color_palette("colorblind")[0]
    ax = new_axes(ax, 0.9 + ROW_IN * len(table))
    ax.axvline(0, color="0.4", lw=1)
    ax.hlines(table.index, table["low"], table["high"], color=color, lw=1.4)
    clear = ((table["low"] > 0) | (table["high"] < 0)).to_numpy()
    scatter(ax, table["correlation"].to_numpy(), table.index.to_numpy(), clear, color=color, size=34)
    ax.set_yticks(table.index, [short(name) for name in table["driver"]])
    ax.set(
        xlim=(-1, 1),
        xticks=np.linspace(-1, 1, 5),
        xlabel="rank correlation with the error: smaller ← 0 → larger",
        ylabel="",
    )
    ax.grid(axis="y", visible=False)
    return ax


def plot_prediction_forecast(
    predicted: pd.DataFrame, measured: pd.DataFrame, model: str, *, x: str = "batch_size", ax: Axes | None = None
) -> Axes:
    """Latency of one model over ``x``: filled where measured, hollow with an interval where predicted.

    Parameters
    ----------
    predicted : DataFrame
        Of :meth:`Predictor.predict`. Points outside the measured domain are crosses: their interval is not calibrated.
    measured : DataFrame
        ``Store.latest()``.
    model : str
        Which model.
    x : str
        A numeric column of both frames.
    ax : Axes, optional
        Drawn into; default: a new figure.
    """
    guess = predicted[(predicted["model"] == model) & predicted["latency_s"].notna()]
    if guess.empty:
        return nothing(ax, f"nothing can be predicted of {model}: the table says why")
    ax = new_axes(ax, 4.4)
    known = measured[(measured["model"] == model) & (measured["status"] == "ok") & measured["primary"].astype(bool)]
    known = known[known["mode"].isin(guess["mode"]) & known["precision"].isin(guess["precision"])]
    colors = platform_colors(guess["platform"])
    for index, (name, color) in enumerate(colors.items()):
        shift = 2 ** (DODGE * (index - (len(colors) - 1) / 2))
        here, there = guess[guess["platform"].astype("str") == name], known[known["platform"].astype("str") == name]
        here = here[here["primary"].astype(bool)]
        span = np.abs(here[["latency_low_s", "latency_high_s"]].to_numpy() - here[["latency_s"]].to_numpy()).T * MS
        ax.errorbar(
            here[x].astype(float) * shift, here["latency_s"] * MS, yerr=span, fmt="none", ecolor=color, alpha=0.45
        )
        inside = ~here["out_of_domain"].astype(bool)
        place, time = here[x].astype(float) * shift, here["latency_s"] * MS
        ax.scatter(place[inside], time[inside], s=46, facecolor="white", edgecolor=[color], linewidth=1.4, zorder=3)
        ax.scatter(place[~inside], time[~inside], s=40, marker="x", color=[color], linewidth=1.6, zorder=3)
        ax.scatter(there[x].astype(float) * shift, there["latency_s"] * MS, s=46, color=[color], zorder=4, label=name)
    ax.scatter([], [], s=46, color="0.3", label="measured")
    ax.scatter([], [], s=46, facecolor="white", edgecolor="0.3", label="predicted")
    ax.scatter([], [], s=40, marker="x", color="0.3", label="predicted, out of domain")
    ax.set_xscale("log", base=2)
    ax.set(yscale="log", xlabel=x.replace("_", " "), ylabel=f"latency of {model} (ms)")
    plain_ticks(ax, "y")
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    legend_above(ax)
    return ax
