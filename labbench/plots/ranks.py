"""Figures of ranks on one machine: collectives with their fits, scaling, where a step's time goes as ranks grow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from labbench.plots.base import ROW_IN, legend_above, new_axes, nothing, plain_ticks, platform_colors

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

PARTS = {  # of a step, to a colour and what people call it
    "compute_s": ("#0173b2", "computing"),
    "update_s": ("#56b4e9", "update"),
    "communication_s": ("#d55e00", "messages nothing hides"),
    "waiting_s": ("0.6", "waiting for other stages"),
}
MILLI = 1e3
LABEL = 0.8  # of the way, in the log, up the line that it names


def plot_collectives(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Median over size of each operation by the fewest ranks; the line is the fit of alpha and beta."""
    timed = table.dropna(subset=["median_s"]) if "median_s" in table else table.iloc[:0]
    if timed.empty:
        return nothing(ax)
    timed = timed[timed["ranks"] == timed["ranks"].min()]
    ax = new_axes(ax, 3.8)
    for name, color in platform_colors(timed["operation"]).items():
        rows = timed[timed["operation"] == name].sort_values("size_bytes")
        size = rows["size_bytes"].to_numpy(float)
        ax.plot(size / 1024, rows["median_s"] * MILLI, ls="", marker="o", ms=4, color=color, label=name)
        if "beta_s_byte" in rows and rows["beta_s_byte"].notna().all():
            fit = rows["alpha_s"].iloc[0] + rows["beta_s_byte"].iloc[0] * size
            ax.plot(size / 1024, fit * MILLI, color=color, lw=1)
    ax.set_xscale("log")
    ax.set_yscale("log")
    plain_ticks(ax)
    ax.set_xlabel("KiB of the whole buffer")
    ax.set_ylabel("ms, slowest rank")
    legend_above(ax, 3)
    return ax


def plot_rank_scaling(measured: pd.DataFrame, simulated: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Speed-up over ranks: measured solid (hollow where ranks shared cores), simulated dashed."""
    if measured.empty:
        return nothing(ax)
    ax = new_axes(ax, 3.8)
    most = max(measured["ranks"].max(), simulated["ranks"].max() if len(simulated) else 0)
    ax.plot([1, most], [1, most], color="0.75", lw=1, zorder=0)
    label: dict[str, Any] = {"ha": "right", "xytext": (-6, 3), "textcoords": "offset points", "color": "0.5"}
    ax.annotate("in proportion", (most**LABEL, most**LABEL), **label)
    for name, color in platform_colors(measured["strategy"]).items():
        rows = measured[measured["strategy"] == name].sort_values("ranks")
        crowded = rows["oversubscribed"].to_numpy(bool)
        own = rows[~crowded]
        ax.plot(own["ranks"], own["speedup"], color=color, marker="o", ms=5, label=name)
        ax.plot(rows[crowded]["ranks"], rows[crowded]["speedup"], ls="", marker="o", ms=5, mfc="white", color=color)
        more = simulated[simulated["strategy"] == name].sort_values("ranks") if len(simulated) else simulated
        if len(more):
            ax.plot(more["ranks"], more["speedup"], color=color, ls="--", lw=1.2)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log", base=2)
    ax.set_xticks(sorted({*measured["ranks"], *(simulated["ranks"] if len(simulated) else ())}))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.set_xlabel("ranks\nsolid: measured, hollow: sharing cores, dashed: simulated")
    ax.set_ylabel("times one process")
    legend_above(ax, 3)
    return ax


def plot_rank_parts(measured: pd.DataFrame, simulated: pd.DataFrame, strategy: str, *, ax: Axes | None = None) -> Axes:
    """A bar a number of ranks: what a step of a strategy consists of; measured solid, simulated dashed and paler."""
    import pandas as pd

    rows = measured[measured["strategy"] == strategy].assign(simulated=False) if len(measured) else measured
    more = simulated[simulated["strategy"] == strategy].assign(simulated=True) if len(simulated) else simulated
    if rows.empty:
        return nothing(ax)
    both = pd.concat([rows, more], ignore_index=True).sort_values(["ranks", "simulated"], kind="stable")
    ax = new_axes(ax, 1.5 + ROW_IN * len(both))
    left = np.zeros(len(both))
    dashed = both["simulated"].to_numpy(bool)
    whole = both[list(PARTS)].clip(lower=0).sum(axis=1).to_numpy(float)
    for column, (color, name) in PARTS.items():
        seconds = both[column].clip(lower=0).to_numpy(float)
        if not (seconds > 1e-3 * whole).any():
            continue
        bars = ax.barh(range(len(both)), MILLI * seconds, left=left, color=color, height=0.7, label=name)
        for bar, pale in zip(bars, dashed, strict=True):
            if pale:
                bar.set(alpha=0.45, linestyle="--", edgecolor="black", linewidth=0.8)
        left += MILLI * seconds
    crowd = both["oversubscribed"].map(lambda value: value is True or value == 1.0).to_numpy(bool)
    names = [
        f"{ranks:g} ranks" + (", simulated" if pale else ", share cores" if full else "")
        if ranks > 1
        else "one process"
        for ranks, pale, full in zip(both["ranks"], dashed, crowd, strict=True)
    ]
    ax.set_yticks(range(len(both)), names)
    ax.invert_yaxis()
    ax.set_xlabel(f"ms of a step of {strategy}")
    ax.grid(visible=False)
    legend_above(ax)
    return ax
