"""Figures of predictions: DataFrame in, Axes out. What was predicted is hollow, what was measured is filled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from labbench.plots import MARKERS, MS, ROW_IN, legend_above, new_axes, plain_ticks, platform_colors
from labbench.prediction.evaluate import LABBENCH
from labbench.words import percent

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

DODGE = 0.12  # octaves between platforms that share a place on the axis
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
    table = predictions[(predictions["quantity"] == "latency_s") & (predictions["method"] == LABBENCH)]
    table = table.dropna(subset=["predicted"])
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


def _distinct(table: pd.DataFrame) -> list[str]:
    """Methods in their order, without those that predict exactly what an earlier one does."""
    seen: dict[tuple[float, ...], str] = {}
    for method, rows in table.groupby("method", sort=False):
        seen.setdefault(tuple(rows["predicted"].fillna(-1)), str(method))
    return list(seen.values())


def plot_prediction_residuals(predictions: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Where it fails: predicted over measured latency for each family and platform; families by their mean error."""
    table = predictions[(predictions["quantity"] == "latency_s") & (predictions["method"] == LABBENCH)]
    table = table.dropna(subset=["predicted"]).assign(ratio=lambda t: t["predicted"] / t["measured"])
    order = np.log(table["ratio"]).abs().groupby(table["family"].astype("str")).mean().sort_values().index
    ax = new_axes(ax, 1.1 + ROW_IN * len(order))
    ax.axvspan(1 - BAND, 1 + BAND, color="0.5", alpha=0.15, lw=0)
    ax.axvline(1, color="0.4", lw=1)
    place = {family: index for index, family in enumerate(order)}
    colors = platform_colors(table["platform"])
    for index, (name, color) in enumerate(colors.items()):
        rows = table[table["platform"].astype("str") == name]
        shift = (index - (len(colors) - 1) / 2) * 0.16
        ax.scatter(
            rows["ratio"], rows["family"].astype("str").map(place) + shift, s=26, marker=MARKERS[index % len(MARKERS)],
            facecolor="white", edgecolor=[color], linewidth=1.3, label=name,
        )  # fmt: skip
    ax.set_yticks(range(len(order)), order)
    ax.set(xscale="log", xlabel="predicted / measured latency (1 is right)", ylabel="")
    low, high = (np.log2(limit) for limit in ax.get_xlim())
    ax.set_xticks(2.0 ** np.arange(np.ceil(low), np.floor(high) + 1), minor=False)
    ax.set_xticks([], minor=True)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.grid(axis="y", visible=False)
    legend_above(ax)
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
    ax = new_axes(ax, 4.4)
    guess = predicted[(predicted["model"] == model) & predicted["latency_s"].notna()]
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
