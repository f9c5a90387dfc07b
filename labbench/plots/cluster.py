"""Figures of simulated training on clusters: what was validated, where a step's time goes, how it goes on with more ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from labbench.plots.base import ROW_IN, legend_above, new_axes, nothing, platform_colors

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

PARTS = {  # of a step, to a colour and what people call it: computing, what is sent, waiting
    "compute": ("#0173b2", "computing"),
    "update": ("#56b4e9", "update"),
    "tensor": ("#de8f05", "messages of tensor ranks"),
    "stages": ("#ca9161", "messages between stages"),
    "gather": ("#d55e00", "exchange of ZeRO-2 and -3"),
    "gradients": ("#cc78bc", "gradients that come late"),
    "weights": ("#fbafe4", "updated weights"),
    "bubble": ("0.55", "waiting in the pipeline"),
    "slowest": ("0.8", "waiting for the slowest"),
}
MEMORY = {
    "weights": "#0173b2",
    "gradients": "#cc78bc",
    "optimizer": "#029e73",
    "activations": "#de8f05",
    "working": "0.6",
}
GB = 1e-9
SMALL = 1e-3  # of a step: parts that are less everywhere are not drawn


def plot_published(runs: pd.DataFrame, goal: float, *, ax: Axes | None = None) -> Axes:
    """Simulated over reported step time of each published run by its number of devices; the band is the goal."""
    if runs.empty:
        return nothing(ax)
    ax = new_axes(ax, 3.6)
    labels = runs["source"] + ", " + runs["device"]
    colors = platform_colors(labels)
    ax.axhspan(-100 * goal, 100 * goal, color="0.92", zorder=0)
    ax.axhline(0, color="0.5", lw=1)
    for label, part in runs.groupby(labels, sort=False):
        ax.plot(
            part["ranks"],
            100 * part["off"],
            ls="",
            marker="o",
            ms=5,
            alpha=0.8,
            color=colors[str(label)],
            label=str(label),
        )
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    ax.set_xlabel("devices")
    ax.set_ylabel("simulated step time\nover reported, %")
    legend_above(ax)
    return ax


def plot_parts(table: pd.DataFrame, labels: pd.Series, *, share: bool = False, ax: Axes | None = None) -> Axes:
    """A bar a strategy: seconds of a step by what they go to, or its shares. ``table`` is a plan's."""
    if table.empty:
        return nothing(ax)
    ax = new_axes(ax, 1.6 + ROW_IN * len(table))
    left = np.zeros(len(table))
    whole = table["step_s"].to_numpy(float) / 100 if share else np.ones(len(table))
    for name, (color, told) in PARTS.items():
        values = table[f"{name}_s"].to_numpy(float).clip(min=0) / whole
        if (values * whole > SMALL * table["step_s"]).any():
            ax.barh(range(len(table)), values, left=left, color=color, label=told, height=0.7)
            left += values
    ax.set_yticks(range(len(table)), list(labels))
    ax.invert_yaxis()
    ax.set_xlabel("% of a step, simulated" if share else "seconds of a step, simulated")
    ax.grid(axis="y", visible=False)
    legend_above(ax)
    return ax


def plot_rank_memory(table: pd.DataFrame, labels: pd.Series, limit_bytes: float, *, ax: Axes | None = None) -> Axes:
    """A bar a strategy: memory of the fullest rank by what it holds; the line is what a rank may take."""
    if table.empty:
        return nothing(ax)
    ax = new_axes(ax, 1.6 + ROW_IN * len(table))
    left = np.zeros(len(table))
    for name, color in MEMORY.items():
        values = table[f"{name}_bytes"].to_numpy(float) * GB
        ax.barh(range(len(table)), values, left=left, color=color, label=name, height=0.7)
        left += values
    ax.axvline(limit_bytes * GB, color="black", ls="--", lw=1.2)
    ax.set_yticks(range(len(table)), list(labels))
    ax.invert_yaxis()
    ax.set_xlabel("GB of the fullest rank, simulated (dashed: the limit)")
    ax.grid(axis="y", visible=False)
    legend_above(ax)
    return ax


def plot_cluster_scaling(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Tokens a second over devices, dashed because it is simulated, beside what as many times the smallest cluster would do."""
    table = table[table["fits"]]
    if table.empty:
        return nothing(ax)
    ax = new_axes(ax, 3.4)
    ranks, rate = table["ranks"].to_numpy(float), table["tokens_s"].to_numpy(float)
    ax.plot(ranks, rate[0] * ranks / ranks[0], color="0.6", lw=1, label="in proportion")
    ax.plot(ranks, rate, ls="--", marker="o", color=PARTS["compute"][0], label="simulated")
    for x, y, efficiency in zip(ranks, rate, rate / rate[0] * ranks[0] / ranks, strict=True):
        ax.annotate(f"{efficiency:.0%}", (x, y), textcoords="offset points", xytext=(4, -5), va="top", fontsize="small")
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_xticks(ranks)
    ax.minorticks_off()
    ax.margins(x=0.1, y=0.15)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    ax.set_xlabel("devices")
    ax.set_ylabel("tokens/s")
    legend_above(ax)
    return ax
