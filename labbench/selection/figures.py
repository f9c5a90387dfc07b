"""Figures of a decision: what each option costs, which are worth considering, which was chosen."""

from __future__ import annotations

import math
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from labbench.plots import MARKERS, MS, ROW_IN, WIDTH_IN, legend_above, new_axes, plain_ticks, platform_colors
from labbench.plots.base import nothing, wrapped

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from labbench.selection.decision import Decision

MB = 1e-6
COLUMNS = 2
TITLE_CHARACTERS = 28  # of one of so many columns
MOST = 6  # workloads of an overview
MOST_OPTIONS = 20  # rows of a figure
NEAR = 1.5  # a limit further out than this times the axis is not drawn: it would squeeze the options together


def pareto_front(table: pd.DataFrame, x: str, y: str) -> pd.DataFrame:
    """Rows that no other row beats in both columns (less is better), sorted by ``x``."""
    ordered = table.dropna(subset=[x, y]).sort_values([x, y], kind="stable")
    best_before = ordered[y].cummin().shift(fill_value=np.inf)
    return ordered[ordered[y] < best_before]


def plot_selection(decision: Decision, workload: str, *, ax: Axes | None = None) -> Axes:
    """Latency and peak memory of every option of one workload, with the Pareto front, the limits and the choice.

    Filled: measured. Hollow, with an interval: predicted. Grey: excluded. Ring: the choice.
    """
    ax = new_axes(ax, 4.2)
    table = decision.options[decision.options["workload"] == workload].dropna(subset=["latency_s", "memory_bytes"])
    colors = platform_colors(decision.options["platform"])
    front = pareto_front(table[table["allowed"]], "latency_s", "memory_bytes")
    ax.plot(front["latency_s"] * MS, front["memory_bytes"] * MB, color="0.6", lw=1.2, ls="--", zorder=1)
    points: Any = table.itertuples()
    for row in points:
        color = colors[str(row.platform)] if row.allowed else (0.72, 0.72, 0.72)
        marker = MARKERS[list(colors).index(str(row.platform)) % len(MARKERS)]
        x, y = row.latency_s * MS, row.memory_bytes * MB
        if row.predicted:  # a measured interval is narrower than its marker
            ax.plot([row.latency_low_s * MS, row.latency_high_s * MS], [y, y], color=color, lw=1, zorder=2)
        face = "white" if row.predicted else color
        ax.scatter(x, y, s=52, marker=marker, facecolor=[face], edgecolor=[color], linewidth=1.6, zorder=3)
        if row.rank == 1:
            ax.scatter(x, y, s=190, marker="o", facecolor="none", edgecolor="black", linewidth=1.4, zorder=4)
    ax.set_xscale("log")
    ax.margins(0.12)
    ends = ax.get_xlim(), ax.get_ylim()
    limits = decision.requirements
    if limits.max_latency_s and limits.max_latency_s * MS < NEAR * ends[0][1]:
        ax.axvline(limits.max_latency_s * MS, color="tab:red", lw=1, ls=":")
    if limits.max_memory_bytes and limits.max_memory_bytes * MB < NEAR * ends[1][1]:
        ax.axhline(limits.max_memory_bytes * MB, color="tab:red", lw=1, ls=":")
    plain_ticks(ax, "x")
    ax.set_title(wrapped(workload, TITLE_CHARACTERS))
    return ax


def plot_selection_overview(decision: Decision, workloads: list[str] | None = None) -> Figure:
    """:func:`plot_selection` of several workloads (default: the first six with a figure to show), one legend for all."""
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D

    known = set(decision.options.dropna(subset=["latency_s", "memory_bytes"])["workload"])
    names = workloads or [choice.question for choice in decision.choices if choice.question in known][:MOST]
    if not names:
        nothing(None, "of no option both latency and memory are known")
        return plt.gcf()
    columns = min(COLUMNS, len(names))
    rows = math.ceil(len(names) / columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(WIDTH_IN, 1.9 * rows + 0.9), layout="constrained", squeeze=False
    )
    for ax, name in zip(axes.flat, names, strict=False):
        plot_selection(decision, name, ax=ax)
    for ax in axes.flat[len(names) :]:
        ax.set_visible(False)
    shown = decision.options[decision.options["workload"].isin(names)]
    percentile = decision.requirements.latency_percentile
    figure.supxlabel(f"{'median' if percentile == 50 else f'p{percentile}'} latency (ms)")
    figure.supylabel("peak memory (MB)")
    style: dict[str, Any] = {"marker": "o", "ls": "", "ms": 7, "color": "0.3"}
    handles = [
        Line2D([], [], ls="", marker=MARKERS[i % len(MARKERS)], ms=7, color=color, label=name)
        for i, (name, color) in enumerate(platform_colors(decision.options["platform"]).items())
    ]
    handles += [
        Line2D([], [], label="choice", **{**style, "ms": 12, "markerfacecolor": "none", "color": "black"}),
        Line2D([], [], color="0.6", ls="--", lw=1.2, label="Pareto front"),
    ]
    if shown["predicted"].any():
        handles.append(Line2D([], [], label="predicted", **{**style, "markerfacecolor": "white"}))
    if not shown["allowed"].all():
        handles.append(Line2D([], [], label="excluded", **{**style, "color": "0.72"}))
    if decision.requirements.max_latency_s or decision.requirements.max_memory_bytes:
        handles.append(Line2D([], [], color="tab:red", ls=":", lw=1, label="limit"))
    figure.legend(handles=handles, loc="outside upper center", ncols=3, frameon=False)
    return figure


def plot_compatibility(decision: Decision, workload: str, *, ax: Axes | None = None) -> Axes:
    """How well each option of one workload suits, part by part, 0 to 1; best first, those excluded in grey. Empty: not known."""
    from labbench.selection.score import DEFINITIONS

    [choice] = [one for one in decision.choices if one.question == workload]
    options = [*choice.ranked, *(option for option, _ in choice.excluded)][:MOST_OPTIONS]
    values = np.array([[option["compatibility"].parts[name] for name in DEFINITIONS] for option in options], float)
    ax = new_axes(ax, 0.7 + ROW_IN * len(options))
    ax.grid(False)
    ax.imshow(values, vmin=0, vmax=1, cmap="Blues", aspect="auto", alpha=0.5)
    for (row, column), value in np.ndenumerate(values):
        ax.text(column, row, "–" if np.isnan(value) else f"{value:.2f}", ha="center", va="center")
    ax.set_xticks(range(len(DEFINITIONS)), [name.replace("_", " ") for name in DEFINITIONS])
    ax.xaxis.tick_top()
    ax.set_yticks(range(len(options)), [option["option"] for option in options])
    for label, option in zip(ax.get_yticklabels(), options, strict=True):
        label.set_color("black" if option["allowed"] else "0.6")
    return ax


def plot_chances(decision: Decision, *, ax: Axes | None = None) -> Axes:
    """How sure each choice is: the chance that it is the best, against that it meets all limits (at least)."""
    ax = new_axes(ax, 2.6)
    made = [choice.best for choice in decision.choices if choice.best is not None]
    predicted = np.array([bool(option["predicted"]) for option in made], bool)
    best = np.array([option["chance_best"] for option in made], float)
    limits = np.array([option["chance_of_limits"] for option in made], float)
    for rows, face, label in ((~predicted, "tab:blue", "measured"), (predicted, "white", "predicted")):
        ax.scatter(limits[rows], best[rows], facecolor=face, edgecolor="tab:blue", s=30, label=label, zorder=3)
    if decision.requirements.probability:
        ax.axvline(decision.requirements.probability, color="tab:red", ls=":", lw=1, label="asked for")
    ax.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    ax.set_xlabel("probability that all limits are met")
    ax.set_ylabel("probability of being the best")
    legend_above(ax, 3)
    return ax


def plot_sensitivity(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Share of the choices that stay as one thing is multiplied, from :func:`labbench.selection.sensitivity.sensitivity`."""
    if table.empty:
        return nothing(ax, "no price, load or prediction to turn")
    ax = new_axes(ax, 2.6)
    for (what, rows), marker in zip(table.groupby("what", sort=False), cycle(MARKERS)):
        stays = (~rows["changes"]).groupby(rows["factor"]).mean()
        stays.loc[1.0] = 1.0
        stays = stays.sort_index()
        ax.plot(stays.index, 100 * stays, marker=marker, label=str(what))
    ax.set_xscale("log")
    plain_ticks(ax, "x")
    ax.set_ylim(-3, 103)
    ax.set_xlabel("times what it is")
    ax.set_ylabel("choices that stay (%)")
    legend_above(ax)
    return ax
