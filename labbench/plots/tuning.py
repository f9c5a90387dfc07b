"""Searches: probes of memory, throughput over memory, learning rates, trials on the way to a target loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from labbench.plots.base import MB, ROW_IN, legend_above, new_axes, nothing, plain_ticks, platform_colors

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from labbench.tuning.largest_batch import LargestBatch
    from labbench.tuning.studies import Tuning

FITS, TOO_MUCH = "#029e73", "#d55e00"
SETTINGS = {"usual": "0.45", "random": "#de8f05", "tpe": "#0173b2"}


def plot_probes(found: list[LargestBatch], *, ax: Axes | None = None) -> Axes:
    """A row a model: its probes by batch size over the largest found, numbered, green if they fit; the gap is what is not known."""
    if not found:
        return nothing(ax)
    ax = new_axes(ax, 1.2 + 1.4 * ROW_IN * len(found))
    for y, one in enumerate(found):
        unit = max(one.batch_size, 1)
        for number, probe in enumerate(one.probes, 1):
            color = FITS if probe.fits else TOO_MUCH
            ax.plot(probe.batch_size / unit, y, marker="o", ms=13, color=color, alpha=0.85, zorder=3)
            ax.text(probe.batch_size / unit, y, str(number), color="white", ha="center", va="center_baseline", zorder=4)
    ax.axvline(1, color="0.5", lw=1)
    ax.set_yticks(range(len(found)), [f"{one.cell.workload.model}: {one.batch_size:,}" for one in found])
    ax.set_ylim(len(found) - 0.4, -0.6)
    ax.set_xlabel("batch size of the probe over the largest that fits\n(numbered in order; green fits, red does not)")
    ax.grid(axis="y", visible=False)
    return ax


def plot_batches(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Throughput over memory of every batch size that was measured, the sizes as numbers; the Pareto front is joined."""
    if table.empty:
        return nothing(ax)
    ax = new_axes(ax, 3.6)
    colors = platform_colors(table["model"])
    for model, part in table.groupby("model", sort=True):
        best = part["throughput"].max()
        x, y = part["memory_bytes"] * MB, part["throughput"] / best
        ax.plot(x, y, ls="", marker="o", ms=5, color=colors[str(model)], label=str(model))
        front = part[part["efficient"]].sort_values("memory_bytes")
        ax.plot(front["memory_bytes"] * MB, front["throughput"] / best, color=colors[str(model)], lw=1)
        for at, high, batch in zip(x, y, part["batch_size"], strict=True):
            ax.annotate(f"{batch:,}", (at, high), (0, 5), textcoords="offset points", ha="center", fontsize="small")
    ax.set_xscale("log")
    plain_ticks(ax, "x")
    ax.set(xlabel="memory above an empty process (MB)", ylabel="throughput / the model's best", ylim=(0, 1.12))
    legend_above(ax, columns=3)
    return ax


def plot_range_test(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Loss while the learning rate grows, smoothed, a line a batch size; dotted where the loss falls most steeply."""
    if table.empty:
        return nothing(ax)
    ax = new_axes(ax, 3.0)
    colors = platform_colors(table["batch_size"])
    for size, part in table.groupby("batch_size", sort=True):
        smooth = part["loss"].rolling(9, center=True, min_periods=1).mean()
        ax.plot(part["learning_rate"], smooth, color=colors[str(size)], label=f"batch {size}")
        ax.axvline(part["suggested"].iloc[0], color=colors[str(size)], ls=":", lw=1.3)
    ax.set_xscale("log")
    ax.set(xlabel="learning rate (dotted: the loss falls most steeply)", ylabel="training loss")
    ax.set_ylim(0, min(float(table["loss"].max()), 2.0 * float(table["loss"].iloc[0])))
    legend_above(ax, columns=3)
    return ax


def plot_trials(found: Tuning, *, ax: Axes | None = None) -> Axes:
    """The best time to the target so far over the trials of each search, and as a band the usual setting's trainings."""
    from matplotlib.ticker import MaxNLocator

    if found.trials.empty:
        return nothing(ax)
    ax = new_axes(ax, 3.2)
    usual = found.judged.loc[found.judged["setting"] == "usual", "seconds"]
    ax.axhspan(usual.min(), usual.max(), color=SETTINGS["usual"], alpha=0.18, lw=0)
    ax.axhline(usual.median(), color=SETTINGS["usual"], lw=1.2, label="usual setting")
    for sampler, of_sampler in found.trials.groupby("sampler", sort=False):
        curves = [
            part.sort_values("number")["seconds"]
            .where(part.sort_values("number")["state"] == "complete")
            .cummin()
            .ffill()
            for _, part in of_sampler.groupby("seed")
        ]
        length = min(map(len, curves))
        stacked = np.array([curve.to_numpy(float)[:length] for curve in curves])
        at = np.arange(1, length + 1)
        for line in stacked:
            ax.plot(at, line, color=SETTINGS[str(sampler)], lw=0.8, alpha=0.4)
        known = np.isfinite(stacked).any(axis=0)
        ax.plot(
            at[known], np.nanmedian(stacked[:, known], axis=0), color=SETTINGS[str(sampler)], lw=2, label=str(sampler)
        )
    ax.set_yscale("log")
    plain_ticks(ax, "y")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="trials", ylabel="best time to the target so far (s)")
    legend_above(ax, columns=3)
    return ax
