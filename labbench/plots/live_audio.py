"""Live audio: what the end to end consists of, and how it spreads."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from labbench.plots.base import ROW_IN, legend_above, new_axes, nothing, plain_ticks, platform_colors

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from labbench.store import Store

PARTS = {  # column of the table -> what it is called, and its colour
    "filling_s": ("the hop itself", "0.85"),
    "buffering_s": ("buffering", "#de8f05"),
    "inference_s": ("features and model", "#0173b2"),
    "delivery_s": ("to the page", "#cc78bc"),
}
MS = 1e3
STYLES = ("-", "--", ":", "-.")
MOST_ROWS = 16  # runs that a reader takes in


def plot_live_parts(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """A bar a run: means of the parts of the end to end; a line from its median to its 99th percentile; hops that were dropped.

    Parameters
    ----------
    table : DataFrame
        :func:`labbench.web.live_report.live_table`; the first sixteen runs that gave figures are drawn.
    """
    rows = table[(table["status"] == "ok") & table["end_to_end_s"].notna()].head(MOST_ROWS)
    if rows.empty:
        return nothing(ax)
    ax = new_axes(ax, 1.4 + ROW_IN * len(rows))
    y = np.arange(len(rows))
    start = np.zeros(len(rows))
    for column, (name, color) in PARTS.items():
        length = rows[column].clip(lower=0).to_numpy(float) * MS
        ax.barh(y, length, left=start, height=0.62, color=color, label=name)
        start += length
    ends = rows[["p50_s", "p99_s"]].to_numpy(float) * MS
    ax.hlines(y, *ends.T, color="black", lw=1.2)
    ax.plot(ends[:, 1], y, ls="", marker="|", color="black", label="median to 99th percentile")
    most = max(float(ends.max()), float(start.max()))
    for at, dropped, hops in zip(range(len(rows)), rows["dropped_hops"], rows["hops"], strict=True):
        if dropped:
            ax.text(
                most * 1.02,
                at,
                f"{dropped / (dropped + hops):.0%} dropped",
                va="center",
                fontsize="small",
                color="#a3271f",
            )
    several = rows["model"].nunique() > 1
    ax.set_yticks(y, [_label(row, several) for row in rows.itertuples()])
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_xlim(0, most * (1.4 if rows["dropped_hops"].any() else 1.04))
    ax.set_xlabel("from a hop's first sample to its result (ms)")
    ax.grid(axis="y", visible=False)
    legend_above(ax, columns=2, right=True)
    return ax


def plot_live_spread(store: Store, table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Share of results that come later than so long after their hop began, of runs that keep up: the tail is what is heard.

    Parameters
    ----------
    store : Store
        Where the raw times are.
    table : DataFrame
        :func:`labbench.web.live_report.live_table`.
    """
    rows = table[(table["status"] == "ok") & (table["keeps_up"] == 1)].head(MOST_ROWS)
    if rows.empty:
        return nothing(ax, "no run keeps up")
    ax = new_axes(ax, 3.4)
    samples = store.samples(rows["record_id"])
    several = rows["model"].nunique() > 1
    names = [_run(row, several) for row in rows.itertuples()]
    colors = platform_colors(rows["browser"])
    styles = dict(zip(dict.fromkeys(names), itertools.cycle(STYLES), strict=False))
    for row, name in zip(rows.itertuples(), names, strict=True):
        mine = samples[(samples["record_id"] == row.record_id) & (samples["series"] == "live")]
        late = np.sort(mine["seconds"].to_numpy(float)) * MS
        share = 1 - np.arange(len(late)) / len(late)
        ax.step(late, share, where="post", color=colors[str(row.browser)], ls=styles[name], lw=1.3)
    for browser, color in colors.items():
        ax.plot([], [], color=color, lw=3, label=browser)
    for name, style in styles.items():
        ax.plot([], [], color="0.3", ls=style, label=name)
    ax.set(xscale="log", yscale="log")
    ax.set_xlabel("from a hop's first sample to its result (ms)")
    ax.set_ylabel("share that comes later")
    plain_ticks(ax)
    legend_above(ax, columns=2)
    return ax


def _run(row: Any, with_model: bool) -> str:
    """Hop and load of a run, and its model where there are several."""
    from labbench.web.live_report import ALONE

    model = f"{row.model}, " if with_model else ""
    beside = "" if row.load == ALONE else f", {row.load}"
    return f"{model}{row.hop_s * MS:g} ms{beside}"


def _label(row: Any, with_model: bool) -> str:
    provider = "" if row.provider == "wasm" else f" {row.provider}"
    return f"{row.browser}{provider}, {_run(row, with_model)}"
