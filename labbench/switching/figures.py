"""Figures of arrivals and runs: simulated hollow or dashed, measured filled or solid."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from labbench.plots import MARKERS, MS, ROW_IN, WIDTH_IN, legend_above, new_axes, plain_ticks, platform_colors
from labbench.plots.base import scatter
from labbench.switching.report import summaries

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from labbench.switching.arrivals import Arrivals
    from labbench.switching.disturbances import Disturbance
    from labbench.switching.run import Run

BINS = 60  # of a trace's rate


def plot_arrivals(arrivals: Arrivals, disturbances: Iterable[Disturbance] = (), *, ax: Axes | None = None) -> Axes:
    """The rate of a trace over time, and when something is done to a backend."""
    ax = new_axes(ax, 1.9)
    counts, edges = np.histogram(arrivals.times_s, bins=BINS, range=(0, arrivals.seconds))
    ax.stairs(counts / np.diff(edges), edges, fill=True, color="0.75")
    ax.axhline(arrivals.rate, color="0.3", lw=1)
    _mark(ax, disturbances)
    ax.set_xlim(0, arrivals.seconds)
    ax.set_xlabel("seconds")
    ax.set_ylabel("requests/s")
    return ax


def plot_runs(runs: Sequence[Run]) -> Figure:
    """Open requests and latency over time, of runs of a policy on one trace: measured solid, filled; simulated dashed, hollow."""
    import matplotlib.pyplot as plt
    import pandas as pd
    from matplotlib.lines import Line2D

    figure, (queue, latency) = plt.subplots(2, 1, figsize=(WIDTH_IN, 4.6), sharex=True, layout="constrained")
    colors = platform_colors(pd.concat([run.attempts["backend"] for run in runs]))
    handles = []
    for run in runs:
        measured = run.provenance == "measured"
        style: dict[str, Any] = {"color": "0.2", "lw": 1} if measured else {"color": "0.5", "lw": 1, "ls": (0, (2, 1))}
        queue.step(*_open_requests(run), where="post", **style)
        face = style["color"] if measured else "white"
        handles.append(Line2D([], [], label=run.provenance, marker="o", ms=4, markerfacecolor=face, **style))
        done = run.requests[run.requests["outcome"] == "answered"]
        for place, (name, color) in enumerate(colors.items()):
            own = done[done["backend"] == name]
            x, y = own["arrived_s"].to_numpy(), own["latency_s"].to_numpy() * MS
            scatter(latency, x, y, np.full(len(x), measured), color=color, marker=MARKERS[place], size=9)
    for place, (name, color) in enumerate(colors.items()):
        handles.append(Line2D([], [], ls="", marker=MARKERS[place], color=color, ms=5, label=f"answered by {name}"))
    _mark(queue, runs[0].disturbances)
    _mark(latency, runs[0].disturbances, words=False)
    queue.set_ylabel("open requests")
    latency.set_yscale("log")
    plain_ticks(latency, "y")
    latency.set_ylabel("latency (ms)")
    latency.set_xlabel("second of arrival")
    figure.legend(handles=handles, loc="outside upper center", ncols=2, frameon=False)
    return figure


def plot_p99(runs: Iterable[Run], *, ax: Axes | None = None) -> Axes:
    """99th percentile of latency by policy: measured filled, simulated hollow."""
    table = summaries(runs)
    names = list(dict.fromkeys(table["policy"]))[::-1]
    ax = new_axes(ax, 1.3 + ROW_IN * len(names))
    for place, (kind, rows) in enumerate(table.groupby("provenance")):
        y = rows["policy"].map(names.index).to_numpy(float)
        measured = np.full(len(y), kind == "measured")
        scatter(ax, rows["p99_s"].to_numpy() * MS, y, measured, color="C0", marker=MARKERS[place], size=52)
        ax.scatter(
            [], [], marker=MARKERS[place], s=52, label=kind, color="C0", facecolor="C0" if measured.all() else "white"
        )
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(-0.6, len(names) - 0.4)
    ax.set_xscale("log")
    ax.margins(x=0.12)
    plain_ticks(ax, "x")
    ax.set_xlabel("p99 latency of answered requests (ms)")
    legend_above(ax)
    return ax


def _open_requests(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Steps of the number of accepted requests that are not finished."""
    kept = run.requests[run.requests["outcome"] != "refused"]
    at_s = np.concatenate([kept["seen_s"], kept["finished_s"]])
    change = np.repeat([1, -1], len(kept))
    order = np.argsort(at_s, kind="stable")
    return at_s[order], np.cumsum(change[order])


def _mark(ax: Axes, disturbances: Iterable[Disturbance], *, words: bool = True) -> None:
    """A line where something was done to a backend, and what, above the axes."""
    for one in disturbances:
        ax.axvline(one.at_s, color="tab:red", lw=1, ls=":")
    if words:
        told = [f"{one} at {one.at_s:g} s" for one in disturbances]
        ax.set_title("\n".join(told), color="tab:red", fontsize=8)
