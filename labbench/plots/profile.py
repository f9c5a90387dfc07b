"""One model on its platforms, or one platform's models: curves over batch size, starting costs, the Pareto front."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from labbench.analysis.profiles import KIND, PHASES, SERIES_NAMES, UNITS
from labbench.plots.base import (
    ENDS,
    MANY,
    MARKERS,
    MB,
    MS,
    ROW_IN,
    hollow_note,
    legend_above,
    name_in_legend,
    new_axes,
    nothing,
    plain_ticks,
    scatter,
    short,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

NAMED = 8  # sides that a reader can tell apart by colour and marker; further ones are grey
GREY = "0.75"
MOST_TICKS = 8  # batch sizes that are all told on an axis
PHASE_COLORS = {"start_s": "#0173b2", "load_s": "#029e73", "prepare_s": "#de8f05", "first_run_s": "#cc78bc"}
PHASE_NAMES = {"start_s": "start", "load_s": "load", "prepare_s": "prepare", "first_run_s": "first run"}


def panels(plot: Callable[..., Axes], rows: pd.DataFrame) -> list[Axes]:
    """A figure for each kind of series (forward pass, reading a prompt, a further token, training step): it fits a page.

    Parameters
    ----------
    plot : callable
        Takes the rows of one kind.
    rows : DataFrame
        With the columns ``mode``, and ``series`` and ``throughput_unit`` where it is a table of series.
    """
    kinds = [name for name in KIND if name in rows]
    parts = [part for _, part in rows.groupby(kinds, observed=True, sort=True)]
    if len(parts) < 2:
        return [plot(rows)]
    axes = [plot(part) for part in parts]
    for ax, part in zip(axes, parts, strict=True):
        ax.figure.suptitle(_title(part), fontsize="medium")
    return axes


def _title(rows: pd.DataFrame) -> str:
    if "series" not in rows:
        return str(rows["mode"].iloc[0])
    series = str(rows["series"].iloc[0])
    return f"{SERIES_NAMES[series]} ({series})" if series in SERIES_NAMES else series


def _height(rows: pd.DataFrame) -> float:
    """Inches that a figure of curves or points needs."""
    return 3.2 + 0.2 * min(rows["side"].nunique(), NAMED)


def _named(rows: pd.DataFrame) -> dict[str, Any]:
    """Colours of the sides that are told apart: of many, evenly spaced ones from the highest to the lowest throughput."""
    import seaborn as sns

    best = rows.groupby("side")["throughput"].max().sort_values(ascending=False).index
    chosen = best[np.unique(np.linspace(0, len(best) - 1, NAMED).round().astype(int))] if len(best) > NAMED else best
    return dict(zip(sorted(chosen), sns.color_palette("colorblind", NAMED), strict=False))


def _how_many_named(rows: pd.DataFrame, colors: dict[str, Any]) -> str:
    count = rows["side"].nunique()
    return f"{len(colors)} of {count:,} named" if count > len(colors) else ""


def _notes(*notes: str) -> str:
    """The notes that there are, on a line of their own."""
    told = [note for note in notes if note]
    return "\n" + "; ".join(told) if told else ""


def plot_curve(curve: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Throughput against latency over the batch size, a curve a side, 95 % intervals in both; log scales.

    Parameters
    ----------
    curve : DataFrame
        One kind of :func:`labbench.analysis.profiles.over_batch`. The numbers at the ends are batch sizes. Of more than
        eight sides, eight are named; of the others there are grey points.
    """
    if curve.empty:
        return nothing(ax)
    ax = new_axes(ax, _height(curve))
    colors = _named(curve)
    _plot_others(ax, curve[~curve["side"].isin(list(colors))], "latency_s", MS, "throughput", 1)
    all_named = len(colors) == curve["side"].nunique()
    for side, part in curve[curve["side"].isin(list(colors))].groupby("side", sort=False):
        _plot_one_curve(ax, part, colors[side], _marker(colors, side))
        if all_named:  # among many others the numbers would cover one another
            _tell_sizes(ax, part)
    unit = str(curve["throughput_unit"].iloc[0])
    statistic = "latency of a call (ms), median" if (curve["latency_statistic"] == "median").all() else "latency (ms)"
    alone = "" if curve.groupby("side")["batch_size"].nunique().gt(1).any() else "one batch size each: no curve"
    ax.set(xscale="log", yscale="log", ylabel=f"{UNITS.get(unit, unit)} per second")
    ax.set_xlabel(
        statistic
        + _notes("numbers: batch size" if ax.texts else "", alone)
        + _notes(_how_many_named(curve, colors), hollow_note(curve))
    )
    ax.margins(0.12)
    plain_ticks(ax)
    name_in_legend(ax, colors)
    return ax


def _plot_others(ax: Axes, rows: pd.DataFrame, x: str, x_factor: float, y: str, y_factor: float) -> None:
    """Sides that are not named, as small grey points."""
    at = rows[x].to_numpy(dtype=float) * x_factor, rows[y].to_numpy(dtype=float) * y_factor
    scatter(ax, *at, (rows["provenance"] == "measured").to_numpy(), color=GREY, size=6)


def _marker(colors: dict[str, Any], side: str) -> str:
    return MARKERS[list(colors).index(side) % len(MARKERS)] if side in colors else "."


def _plot_one_curve(ax: Axes, part: pd.DataFrame, color: Any, marker: str) -> None:
    x, y = part["latency_s"].to_numpy(dtype=float) * MS, part["throughput"].to_numpy(dtype=float)
    ax.hlines(y, part["latency_ci_low_s"] * MS, part["latency_ci_high_s"] * MS, color=color, lw=1.2)
    ax.vlines(x, part["throughput_ci_low"], part["throughput_ci_high"], color=color, lw=1.2)
    for _, line in part.groupby("provenance", observed=True):
        style = "-" if (line["provenance"] == "measured").all() else "--"
        ax.plot(line["latency_s"] * MS, line["throughput"], color=color, lw=1, ls=style, zorder=2)
    scatter(ax, x, y, (part["provenance"] == "measured").to_numpy(), color=color, marker=marker)


def _tell_sizes(ax: Axes, part: pd.DataFrame) -> None:
    """The batch sizes at the ends of a curve."""
    for at in dict.fromkeys((0, len(part) - 1)):
        row = part.iloc[at]
        place = float(row["latency_s"]) * MS, float(row["throughput"])
        ax.annotate(str(row["batch_size"]), place, (4, -9), textcoords="offset points", color="0.35", fontsize="small")


def plot_memory(rows: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Peak memory above the empty worker over the batch size, a curve a side.

    Parameters
    ----------
    rows : DataFrame
        One kind of :func:`labbench.analysis.profiles.with_memory`.
    """
    if rows.empty:
        return nothing(ax, "no memory was recorded")
    ax = new_axes(ax, _height(rows))
    colors = _named(rows)
    _plot_others(ax, rows[~rows["side"].isin(list(colors))], "batch_size", 1, "memory_increase_bytes", MB)
    for side, part in rows[rows["side"].isin(list(colors))].groupby("side", sort=False):
        x, y = part["batch_size"].to_numpy(dtype=float), part["memory_increase_bytes"].to_numpy(dtype=float) * MB
        ax.plot(x, y, color=colors[side], lw=1, zorder=2)
        measured = (part["provenance"] == "measured").to_numpy()
        scatter(ax, x, y, measured, color=colors[side], marker=_marker(colors, side))
    ax.set(xscale="log", ylabel="peak memory above\nthe empty worker (MB)", ylim=(0, None))
    ax.set_xlabel("batch size" + _notes(_how_many_named(rows, colors), hollow_note(rows)))
    sizes = np.unique(rows["batch_size"].to_numpy(dtype=int))
    if len(sizes) <= MOST_TICKS:
        ax.set_xticks(sizes, sizes.astype(str))
        ax.minorticks_off()
    else:
        plain_ticks(ax, "x")
    name_in_legend(ax, colors)
    return ax


def plot_cold_start(starts: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Seconds from the request for a worker to its first result, in parts, a bar a side; of many, the ends by name.

    Parameters
    ----------
    starts : DataFrame
        Rows of one mode of :func:`labbench.analysis.profiles.cold_start`. Hatched: not measured here.
    """
    if starts.empty:
        return nothing(ax, "no record tells what starting costs")
    rows = starts.sort_values("total_s", kind="stable")
    if len(rows) > MANY:
        rows = rows.iloc[np.r_[:ENDS, len(rows) - ENDS : len(rows)]]
    ax = new_axes(ax, 1.5 + ROW_IN * len(rows))
    y, begin = np.arange(len(rows)), np.zeros(len(rows))
    foreign = (rows["provenance"] != "measured").to_numpy()
    for phase in PHASES:
        seconds = rows[phase].fillna(0).to_numpy(dtype=float)
        bars = ax.barh(y, seconds, left=begin, height=0.7, color=PHASE_COLORS[phase], label=PHASE_NAMES[phase])
        for at in np.flatnonzero(foreign).tolist():
            bars[at].set(hatch="///", fill=False, edgecolor=PHASE_COLORS[phase])
        begin += seconds
    for at, (total, complete) in enumerate(zip(rows["total_s"], rows["complete"], strict=True)):
        ax.annotate(
            f"{'' if complete else '≥ '}{total:.2g}", (total, at), (3, 0), textcoords="offset points", va="center"
        )
    few = f"the {ENDS} quickest and {ENDS} slowest of {len(starts):,}" if len(rows) < len(starts) else ""
    parts = "" if rows["complete"].all() else "≥: not all parts are known"
    notes = _notes(few, parts) + _notes(hollow_note(rows).replace("hollow", "hatched"))
    ax.set_xlabel("seconds to the first result" + notes, loc="right")
    ax.set_yticks(y, [short(side) for side in rows["side"]])
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.margins(x=0.25)
    ax.grid(axis="y", visible=False)
    legend_above(ax, columns=4, right=True)
    return ax


def plot_pareto(cells: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Which cells are worth having: throughput against latency, the size of a mark its memory.

    Parameters
    ----------
    cells : DataFrame
        One kind of :func:`labbench.analysis.profiles.pareto`. Coloured: no other cell clearly dominates it. Grey: one does.
    """
    if cells.empty:
        return nothing(ax)
    ax = new_axes(ax, _height(cells))
    colors = _named(cells)
    memory = cells["memory_increase_bytes"].astype("float64")
    sizes = 20 + 140 * (memory / memory.max()).fillna(0)
    for (side, efficient), part in cells.assign(size=sizes).groupby(["side", "efficient"], sort=False):
        color = colors.get(side, "0.4") if efficient else GREY
        measured = (part["provenance"] == "measured").to_numpy()
        face = np.where(measured, "filled", "hollow")
        for kind in np.unique(face):
            at = part[face == kind]
            ax.scatter(
                at["latency_s"] * MS, at["throughput"], s=at["size"], marker=_marker(colors, side),
                facecolor=[color] if kind == "filled" else "white", edgecolor=[color], zorder=3 if efficient else 2,
            )  # fmt: skip
    unit = str(cells["throughput_unit"].iloc[0])
    counted = "larger mark: more memory" if memory.notna().any() else "memory is not known"
    ax.set(xscale="log", yscale="log", ylabel=f"{UNITS.get(unit, unit)} per second")
    ax.set_xlabel(
        "latency of a call (ms)"
        + _notes(f"coloured: {int(cells['efficient'].sum())} of {len(cells):,} not dominated", counted)
        + _notes(_how_many_named(cells, colors), hollow_note(cells))
    )
    ax.margins(0.12)
    plain_ticks(ax)
    name_in_legend(ax, colors)
    return ax
