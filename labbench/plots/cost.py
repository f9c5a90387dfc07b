"""What bounds the cells, and what starting costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from labbench.plots.base import MARKERS, legend_above, new_axes, nothing, plain_ticks, platform_colors

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


def plot_roofline(placed: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Achieved FLOP/s against arithmetic intensity, under the measured ceilings of machines and precisions."""
    if placed.empty:
        return nothing(ax)
    ax = new_axes(ax, 4.2)
    colors = platform_colors(placed["platform"])
    x = np.geomspace(placed["intensity"].min() / 2, placed["intensity"].max() * 2, 200)
    for i, (name, color) in enumerate(colors.items()):
        part = placed[placed["platform"].astype("str") == name]
        ax.scatter(
            part["intensity"], part["achieved_flops"] / 1e9, color=[color], marker=MARKERS[i % len(MARKERS)], s=24,
            alpha=0.85, label=name,
        )  # fmt: skip
    _ceilings(ax, placed, x)
    ax.set(
        xscale="log",
        yscale="log",
        xlabel="arithmetic intensity (FLOP per byte, nothing fused)",
        ylabel="achieved GFLOP/s",
    )
    ax.set_ylim(top=ax.get_ylim()[1] * 3)
    plain_ticks(ax)
    legend_above(ax)
    return ax


def _ceilings(ax: Axes, placed: pd.DataFrame, x: np.ndarray) -> None:
    """A line for each machine, precision and number of threads; the highest of each precision is named."""
    limits = placed[["precision", "peak_flops", "bandwidth_bytes_s"]].dropna().drop_duplicates()
    for peak, bandwidth in limits[["peak_flops", "bandwidth_bytes_s"]].itertuples(index=False):
        ax.plot(x, np.minimum(peak, x * bandwidth) / 1e9, color="0.35", lw=1.5, zorder=1)
    for precision, part in limits.groupby("precision", observed=True):
        peak = part["peak_flops"].max()
        name = f"matrix product, {precision}: {peak / 1e9:.0f} GFLOP/s"
        ax.annotate(name, (x[-1], peak / 1e9), (0, 5), textcoords="offset points", ha="right", color="0.3")
    if len(limits):
        text = f"slope: memory copy, {limits['bandwidth_bytes_s'].max() / 1e9:.0f} GB/s"
        ax.text(0.02, 0.97, text, transform=ax.transAxes, va="top", color="0.3")


def plot_one_off(frame: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Seconds before the first useful result on each platform: a dot a model, the median as a bar."""
    seconds = frame[["load_s", "prepare_s", "first_run_s"]].sum(axis=1)
    rows = frame[(frame["status"] == "ok") & frame["primary"] & (seconds > 0)]
    if rows.empty:
        return nothing(ax)
    colors = platform_colors(rows["platform"])
    ax = new_axes(ax, 0.7 + 0.5 * len(colors))
    for i, (name, color) in enumerate(colors.items()):
        part = np.sort(seconds[rows.index[rows["platform"].astype("str") == name]].to_numpy(float))
        apart = (np.arange(len(part)) % 3 - 1) * 0.1  # neighbours do not hide each other
        ax.scatter(part, i + apart, color=[color], marker=MARKERS[i % len(MARKERS)], s=20, alpha=0.7)
        middle = float(np.median(part))
        ax.vlines(middle, i - 0.28, i + 0.28, color="0.2", lw=2)
        ax.annotate(f"{middle:.2g} s", (middle, i - 0.3), ha="center", va="bottom")
    ax.set(xscale="log", ylabel="")
    ax.set_xlabel("load + prepare + first run (s); bar: median", loc="right")
    ax.set_yticks(range(len(colors)), list(colors))
    ax.set_ylim(len(colors) - 0.55, -0.75)
    ax.grid(axis="y", visible=False)
    plain_ticks(ax, "x")
    return ax
