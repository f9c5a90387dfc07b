"""Training steps: what their time and memory consist of, what variants cost, and training beside inference."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from labbench.analysis.compare import USUAL
from labbench.analysis.labels import place, work
from labbench.plots.base import (
    MANY,
    MB,
    MS,
    ROW_IN,
    legend_above,
    new_axes,
    nothing,
    plain_ticks,
    platform_colors,
    short,
    wrapped,
)
from labbench.records import CAUSES, PARTS
from labbench.words import digits

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

# From the colour-blind palette of Okabe and Ito, lightened like those of bottlenecks.
PART_COLORS = {
    "zero_grad": "#bdbdbd",
    "data": "#f4c26b",
    "forward": "#9fd0ee",
    "loss": "#d9a9c6",
    "backward": "#5b9bd0",
    "clip": "#e8e08a",
    "optimizer": "#8fd3bd",
}
CAUSE_COLORS = {
    "parameters": "#9fd0ee",
    "gradients": "#5b9bd0",
    "optimizer": "#8fd3bd",
    "activations": "#f4c26b",
    "workspace": "#d9d9d9",
    "heap": "#f4f4f4",
}
PART_NAMES = {"zero_grad": "zero grad", "heap": "kept by the heap"}
MET, MISSED = "#029e73", "#d55e00"
WORTH_TELLING = 0.2  # share of a bar that has room for its number


def names(steps: pd.DataFrame) -> pd.Series:
    """Model, input and variant; the batch size where a model has several; and the place where it is not the usual one."""
    text = work(steps)
    several = steps.groupby("model", observed=True)["batch_size"].transform("nunique") > 1
    text = text.mask(several, text + " · batch " + steps["batch_size"].astype("str"))
    where = place(steps)
    return text.mask(where != USUAL, text + " · " + where.str.removeprefix(f"{USUAL}·"))


def plot_anatomy(steps: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """A bar a step: the share of each part of its time, and the whole in milliseconds; the 40 slowest if there are more.

    Parameters
    ----------
    steps : DataFrame
        From :func:`labbench.analysis.training.steps`.
    """
    rows = steps[steps["parts_s"].notna()].sort_values("latency_s").tail(MANY)
    if rows.empty:
        return nothing(ax, "no step told its parts")
    shares = {part: (rows[f"{part}_s"] / rows["parts_s"]).fillna(0.0).to_numpy() for part in PARTS}
    ax = _stacked(rows, shares, PART_COLORS, ax)
    for bars in ax.containers:
        told = [f"{share:.0%}" if share > WORTH_TELLING else "" for share in bars.datavalues]  # type: ignore[attr-defined]
        ax.bar_label(bars, told, label_type="center", fontsize="small")  # type: ignore[arg-type]
    for at, seconds in enumerate(rows["latency_s"]):
        ax.text(1.03, at, f"{digits(seconds * MS)} ms", va="center_baseline", fontsize="small")
    ax.set(xlim=(0, 1), xlabel="share of the step")
    return ax


def plot_memory_causes(steps: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """A bar a step: what its memory above an empty process goes to, measured; the mark is counted: what lives, without the heap."""
    rows = steps[steps["parameters_bytes"].notna()].sort_values("memory_increase_bytes").tail(MANY)
    if rows.empty:
        return nothing(ax, "no step's memory is known")
    sizes = {cause: rows[f"{cause}_bytes"].fillna(0.0).to_numpy() * MB for cause in CAUSES}
    ax = _stacked(rows, sizes, CAUSE_COLORS, ax)
    estimate = rows["estimate_bytes"].to_numpy() * MB
    ax.plot(estimate, np.arange(len(rows)), ls="", marker="D", ms=4.5, mfc="white", mec="0.2", label="estimate")
    legend_above(ax, columns=3, right=True)
    ax.set_xlabel("MB above an empty process")
    return ax


def _stacked(rows: pd.DataFrame, parts: dict[str, np.ndarray], colors: dict[str, str], ax: Axes | None) -> Axes:
    """A horizontal bar a row, made of its parts."""
    ax = new_axes(ax, 1.4 + ROW_IN * len(rows))
    y, begin = np.arange(len(rows)), np.zeros(len(rows))
    for name, values in parts.items():
        if not (values > 0).any():
            continue
        ax.barh(
            y,
            values,
            left=begin,
            color=colors[name],
            edgecolor="0.6",
            lw=0.5,
            height=0.72,
            label=PART_NAMES.get(name, name),
        )
        begin = begin + values
    ax.set_yticks(y, [short(name) for name in names(rows)])
    ax.set_ylim(-0.6, len(rows) - 0.4)
    ax.grid(axis="y", visible=False)
    legend_above(ax, columns=3, right=True)
    return ax


def plot_variants(variants: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """A row a kind of training: time and memory of an item over those of the plain way; geometric means, range over models thin.

    Parameters
    ----------
    variants : DataFrame
        From :func:`labbench.analysis.training.variants`.
    """
    rows = variants[(variants["kind"] != "plain") & variants["time_ratio"].notna()]
    if rows.empty:
        return nothing(ax, "no variant was measured beside the plain way")
    order = np.log(rows["time_ratio"]).groupby(rows["kind"]).mean().sort_values(ascending=False).index
    ax = new_axes(ax, 1.3 + 1.3 * ROW_IN * len(order))
    looks = {"time_ratio": ("time", "#0173b2", "o", 0.16), "memory_ratio": ("memory", "#de8f05", "s", -0.16)}
    for column, (label, color, marker, shift) in looks.items():
        logs = np.log(rows[column].astype(float)).groupby(rows["kind"]).agg(["mean", "min", "max"]).reindex(order)
        y = np.arange(len(order)) + shift
        ax.hlines(y, np.exp(logs["min"]), np.exp(logs["max"]), color=color, lw=1, alpha=0.6)
        ax.plot(np.exp(logs["mean"]), y, ls="", marker=marker, ms=6, color=color, label=label)
    ax.axvline(1, color="0.5", lw=1)
    ax.set_xscale("log")
    plain_ticks(ax, "x")
    ax.set_yticks(np.arange(len(order)), [str(name) for name in order])
    ax.set_xlabel("relative to plain training in fp32")
    ax.grid(axis="y", visible=False)
    legend_above(ax)
    return ax


def plot_beside_inference(both: pd.DataFrame, over: str = "batch_size", *, ax: Axes | None = None) -> Axes:
    """Training step over inference, in time and memory, over batch size (or sequence length), a line a model and platform."""
    rows = both[both[over].notna() & both["time_ratio"].notna()]
    if rows.empty:
        return nothing(ax, "no model was measured in both modes")
    label = work(rows.assign(seq_len=None) if over == "seq_len" else rows) + " · " + place(rows)
    several = rows.groupby(label)[over].transform("nunique") > 1
    if several.any():  # a single point tells nothing of how the ratio scales
        rows, label = rows[several], label[several]
    ax = new_axes(ax, 3.4)
    colors = platform_colors(label)
    for name, part in rows.groupby(label, sort=True):
        line = part.sort_values(over)
        ax.plot(line[over].astype(float), line["time_ratio"], color=colors[name], marker="o", ms=4, label=name)
        ax.plot(
            line[over].astype(float), line["memory_ratio"], color=colors[name], marker="s", ms=4, ls="--", mfc="white"
        )
    ax.set_xscale("log", base=2)
    ax.set_xticks(
        sorted(rows[over].astype(float).unique()), [f"{value:g}" for value in sorted(rows[over].astype(float).unique())]
    )
    ax.set(xlabel=over.replace("_", " ").replace("seq len", "sequence length"))
    ax.set_ylabel("training step / inference\n(dashed: memory)")
    legend_above(ax, columns=2)
    return ax


def plot_findings(findings: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """A row a benchmark: each case a dot at its ratio, the goal a band.

    Parameters
    ----------
    findings : DataFrame
        From :func:`labbench.analysis.training_benchmarks.findings`.
    """
    if findings.empty:
        return nothing(ax, "no benchmark was kept here")
    whats = list(dict.fromkeys(findings["what"]))
    ax = new_axes(ax, 1.0 + 1.6 * ROW_IN * len(whats))
    for y, what in enumerate(whats):
        rows = findings[findings["what"] == what]
        low, high = rows["low"].iloc[0], rows["high"].iloc[0]
        ax.barh(y, high - low, left=low, height=0.7, color="0.88", zorder=0, label="goal" if not y else None)
        for met, color, name in ((True, MET, "meets it"), (False, MISSED, "does not")):
            part = rows[rows["met"] == met]
            ax.plot(
                part["ratio"],
                np.full(len(part), y),
                ls="",
                marker="o",
                ms=5.5,
                alpha=0.6,
                color=color,
                label=name if not y else None,
            )
    ax.axvline(1, color="0.5", lw=1, zorder=0)
    ax.set_yticks(range(len(whats)), [wrapped(what, 26) for what in whats])
    ax.set_ylim(len(whats) - 0.4, -0.6)
    ax.set_xlabel("ratio")
    ax.grid(axis="y", visible=False)
    legend_above(ax, columns=3, right=True)
    return ax
