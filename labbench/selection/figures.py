"""Figures of a decision: what each option costs, which are worth considering, which was chosen."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from labbench.plots import MARKERS, MS, WIDTH_IN, new_axes, plain_ticks, platform_colors
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
