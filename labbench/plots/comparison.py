"""Latency and speed-up: a row a model while they can be read, else the distribution and the names at its ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from labbench.analysis.compare import family
from labbench.analysis.labels import WORK, place, work
from labbench.plots.base import (
    ENDS,
    MANY,
    MARKERS,
    MS,
    ROW_IN,
    WIDTH_IN,
    hollow_note,
    legend_above,
    legend_in,
    name_in_legend,
    new_axes,
    nothing,
    plain_ticks,
    platform_colors,
    scatter,
    short,
    wrapped,
)
from labbench.plots.table import coloured_table, table_axes

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

DODGE = 0.16  # of a row, between platforms
FITTING = 5  # platforms that a row has room for
MARKS = {"faster": "▲", "slower": "▼", "same": "=", "undecided": "?"}
FAMILIES = 7  # told apart by colour; the others are grey
OTHER = "0.72"
SIDE_CHARACTERS = 34  # of a label along the height of a square figure


def _latency_label(rows: pd.DataFrame) -> str:
    """What the points are: hollow ones, and means where there is no median, are told."""
    note = hollow_note(rows)
    text = "median latency (ms), 95 % interval" + (f"\n{note}" if note else "")
    return text + (", mean where no median is known" if (rows["latency_statistic"] == "mean").any() else "")


def plot_latency(frame: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Median latency with its 95 % interval, a row a model, a marker a platform; log scale.

    Of more than 40 models the distribution is shown: one platform against the other if there are two
    (:func:`plot_latency_pairs`), else the share of models that each answers in time (:func:`plot_latency_shares`).

    Parameters
    ----------
    frame : DataFrame
        Tidy rows of one series kind; measured values are filled, others (predicted, simulated, imported) hollow.
    """
    rows = frame[frame["latency_s"].notna()]
    if rows.empty:
        return nothing(ax)
    rows = rows.assign(side=place(rows), row=work(rows))
    if rows["row"].nunique() > MANY:
        return (plot_latency_pairs if rows["side"].nunique() == 2 else plot_latency_shares)(rows, ax=ax)
    order = rows.groupby("row")["latency_s"].median().sort_values().index.tolist()
    colors = platform_colors(rows["side"])
    crowd = max(len(colors) / FITTING, 1)  # rows are taller and marks closer where many platforms share a row
    ax = new_axes(ax, 1.0 + legend_in(colors) + ROW_IN * crowd * len(order))
    for i, (name, color) in enumerate(colors.items()):
        part = rows[rows["side"] == name]
        y = np.array([order.index(name) for name in part["row"]]) + (i - (len(colors) - 1) / 2) * DODGE / crowd
        low, high = part["latency_ci_low_s"].to_numpy() * MS, part["latency_ci_high_s"].to_numpy() * MS
        ax.hlines(y, low, high, color=color, lw=1.5)
        measured = (part["provenance"] == "measured").to_numpy()
        x = part["latency_s"].to_numpy() * MS
        scatter(ax, x, y, measured, color=color, marker=MARKERS[i % len(MARKERS)])
    ax.set(xscale="log", ylabel="")
    ax.set_xlabel(_latency_label(rows), loc="right")
    ax.set_yticks(range(len(order)), [short(name) for name in order])
    ax.set_ylim(-0.6, len(order) - 0.4)
    ax.grid(axis="y", visible=False)
    plain_ticks(ax, "x")
    name_in_legend(ax, colors, right=True)
    return ax


def plot_latency_shares(frame: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """The share of models that each platform answers within a time: an empirical distribution, the median marked.

    How many models a platform ran stands behind its name.
    """
    rows = frame[frame["latency_s"].notna()]
    if rows.empty:
        return nothing(ax)
    names = place(rows)
    counts = rows["model"].groupby(names).transform("nunique")
    rows = rows.assign(side=names + counts.map(" ({:,})".format))
    colors = platform_colors(rows["side"])
    ax = new_axes(ax, 3.0 + 0.2 * len(colors))
    for i, (name, color) in enumerate(colors.items()):
        part = rows[rows["side"] == name]
        x = np.sort(part["latency_s"].to_numpy()) * MS
        measured = np.array([(part["provenance"] == "measured").all()])
        ax.step(x, np.arange(1, len(x) + 1) / len(x) * 100, where="post", color=color, lw=1.6)
        scatter(
            ax, np.median(x, keepdims=True), np.array([50.0]), measured,
            color=color, marker=MARKERS[i % len(MARKERS)], size=40,
        )  # fmt: skip
    ax.set(xscale="log", xlabel=_latency_label(rows).replace(", 95 % interval", ""), ylim=(0, 100))
    ax.set_ylabel("% of the models of a platform")
    plain_ticks(ax, "x")
    name_in_legend(ax, colors)
    return ax


def plot_latency_pairs(frame: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Latency on one platform against that on the other: a point a workload that both ran, coloured by family.

    Points on the dashed line are equally fast; the dotted one is the geometric mean of all. Rows must be of two platforms.
    """
    rows = frame[frame["latency_s"].notna()]
    rows = rows.assign(side=place(rows))
    names = sorted(rows["side"].unique())
    if len(names) != 2:
        return nothing(ax, "two platforms are needed")
    first, second = (rows[rows["side"] == name].drop_duplicates([*WORK, "precision"]) for name in names)
    both = first.merge(second, on=[*WORK, "precision"], suffixes=("", "_other"))
    if both.empty:
        return nothing(ax, "the platforms have no workload in common")
    ax = new_axes(ax, 4.6)
    x, y = both["latency_s"].to_numpy() * MS, both["latency_s_other"].to_numpy() * MS
    measured = ((both["provenance"] == "measured") & (both["provenance_other"] == "measured")).to_numpy()
    names_of = {name: family(name) for name in both["model"].astype("str").unique()}
    families = both["model"].astype("str").map(names_of)
    colors = _family_colors(families)
    shown = families.where(families.isin(list(colors)), "other")
    for i, (name, color) in enumerate(colors.items()):
        chosen = (shown == name).to_numpy()
        scatter(ax, x[chosen], y[chosen], measured[chosen], color=color, marker=MARKERS[i % len(MARKERS)], size=13)
    ends = np.array([min(x.min(), y.min()) * 0.8, max(x.max(), y.max()) * 1.25])
    ratio = float(np.exp(np.mean(np.log(x / y))))
    ax.plot(ends, ends, color="0.35", lw=1, ls="--", zorder=4)
    ax.plot(ends, ends / ratio, color="0.35", lw=1.2, ls=":", zorder=4)
    total, note = len(rows.drop_duplicates([*WORK, "precision"])), hollow_note(rows)
    ax.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
    ax.set_ylabel(wrapped(f"latency on {names[1]} (ms)", SIDE_CHARACTERS))
    ax.set_xlabel(
        wrapped(
            f"latency on {names[0]} (ms)\n{len(both):,} of {total:,} workloads ran on both"
            + (f"; {note}" if note else "")
            + f"\ndashed: equal\ndotted: geometric mean,\nthe other {ratio:.2f} times as fast"
        )
    )
    plain_ticks(ax)
    name_in_legend(ax, colors, columns=4)
    return ax


def _family_colors(families: pd.Series) -> dict[str, Any]:
    """Colours of the families with most members; ``other``, first so that it is drawn below, is grey."""
    import seaborn as sns

    counts = families.value_counts()
    named = counts.index[:FAMILIES].tolist()
    colors = dict(zip(named, sns.color_palette("colorblind", FAMILIES), strict=False))
    return {"other": OTHER, **colors} if len(counts) > FAMILIES else colors


def plot_speedup(comparison: pd.DataFrame, *, by: str = "platform", ax: Axes | None = None) -> Axes:
    """Speed-up over the baseline as a heat map with the verdict beside each number (▲ faster, ▼ slower, = same, ? undecided).

    Of more than 40 rows the distribution is shown, and below it those with the largest and smallest speed-up by name
    (unless ``ax`` is given: then only the distribution).

    Parameters
    ----------
    comparison : DataFrame
        As :func:`labbench.analysis.compare.compare` gives it.
    by : str
        Column of the compared sides.
    """
    import seaborn as sns

    if comparison.empty:
        return nothing(ax)
    rows = comparison.assign(row=comparison["work"], side=comparison[by].astype("str"))
    if rows["row"].nunique() > MANY:
        return _plot_many_speedups(rows, ax)
    rows = rows.drop_duplicates(["row", "side"])
    values = rows.pivot(index="row", columns="side", values="speedup").sort_index()
    marks = rows.pivot(index="row", columns="side", values="verdict").sort_index()
    text = values.copy().astype(object)
    for column in values:
        text[column] = [
            "" if value != value else f"{value:.2f} {MARKS[mark]}"
            for value, mark in zip(values[column], marks[column], strict=True)
        ]
    ax = table_axes(ax, values)
    reach = max(float(np.nanmax(np.abs(np.log2(values.to_numpy(dtype=float))))), 0.5)
    cmap = sns.color_palette("vlag_r", as_cmap=True)
    coloured_table(ax, np.log2(values.astype(float)), text, cmap, (-reach, reach))
    return ax


def _plot_many_speedups(rows: pd.DataFrame, ax: Axes | None) -> Axes:
    import matplotlib.pyplot as plt

    colors = platform_colors(rows["side"])
    if ax is not None:
        return _plot_speedup_shares(rows, colors, ax)
    heights = [3.2, 0.9 + ROW_IN * 2 * ENDS]
    size = (WIDTH_IN, sum(heights))
    figure = plt.figure(figsize=size, layout="constrained")
    top, bottom = figure.subfigures(2, 1, squeeze=False, height_ratios=heights)[:, 0]
    distribution = _plot_speedup_shares(rows, colors, top.subplots())
    _plot_extremes(rows, colors, bottom.subplots())
    return distribution


def _plot_speedup_shares(rows: pd.DataFrame, colors: dict[str, Any], ax: Axes) -> Axes:
    """Share of comparisons below each speed-up, the geometric mean marked; 10 and 90 % quantiles in the legend."""
    for i, (name, color) in enumerate(colors.items()):
        part = rows[rows["side"] == name]
        x = np.sort(part["speedup"].to_numpy(dtype=float))
        share = np.arange(1, len(x) + 1) / len(x) * 100
        mean = np.exp(np.log(x).mean(keepdims=True))
        low, high = np.quantile(x, [0.1, 0.9])
        text = f"{wrapped(name)}\n×{mean[0]:.2f}, 10 to 90 %: {low:.2f} to {high:.2f}"
        marker = MARKERS[i % len(MARKERS)]
        ax.step(x, share, where="post", color=color, lw=1.6)
        ax.plot(mean, np.interp(mean, x, share), color=color, marker=marker, ms=7, ls="", label=text)
    ax.axvline(1, color="0.35", lw=1, ls="--")
    ax.set(xscale="log", ylim=(0, 100), ylabel="% of comparisons below")
    ax.set_xlabel(wrapped(f"speed-up over {_baseline(rows)}\n{len(rows):,} comparisons; mark: geometric mean"))
    plain_ticks(ax, "x")
    legend_above(ax, columns=1)
    return ax


def _plot_extremes(rows: pd.DataFrame, colors: dict[str, Any], ax: Axes) -> None:
    """The largest and the smallest speed-ups by name, with their intervals where they have one."""
    ordered = rows.sort_values("speedup", ascending=False)
    shown = ordered.iloc[np.r_[:ENDS, len(ordered) - ENDS : len(ordered)]]
    y = np.r_[:ENDS, ENDS + 1 : 2 * ENDS + 1]
    for i, (name, color) in enumerate(colors.items()):
        chosen = (shown["side"] == name).to_numpy()
        part = shown[chosen]
        ax.hlines(y[chosen], 1 / part["ci_high"], 1 / part["ci_low"], color=color, lw=1.5)
        measured = (part["provenance"] == "measured").to_numpy()
        scatter(ax, part["speedup"].to_numpy(), y[chosen], measured, color=color, marker=MARKERS[i % len(MARKERS)])
    ax.axvline(1, color="0.35", lw=1, ls="--")
    ax.set_xscale("log")
    rest = f"{len(rows) - 2 * ENDS:,} more in between"
    ax.text(0.5, ENDS, rest, transform=ax.get_yaxis_transform(), ha="center", va="center", color="0.4")
    ax.set_yticks(y, [short(name) for name in shown["row"]])
    ax.set_ylim(2 * ENDS + 0.7, -0.7)
    ax.grid(axis="y", visible=False)
    note = hollow_note(shown)
    text = f"speed-up over {_baseline(rows)}\nthe {ENDS} largest and {ENDS} smallest of {len(rows):,}"
    ax.set_xlabel(text + (f"\n{note}" if note else ""), loc="right")
    plain_ticks(ax, "x")


def _baseline(rows: pd.DataFrame) -> str:
    return str(rows["baseline"].iloc[0])
