"""Live audio: what the end to end consists of, and how it spreads."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    ax = new_axes(ax, 1.3 + ROW_IN * 1.6 * len(rows))
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
    ax.set_yticks(y, [_label(row) for row in rows.itertuples()])
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_xlim(0, most * (1.2 if rows["dropped_hops"].any() else 1.04))
    ax.set_xlabel("from a hop's first sample to its result (ms)")
    ax.grid(axis="y", visible=False)
    legend_above(ax, columns=3)
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
    colors = platform_colors(rows["browser"])
    styles = dict(zip(dict.fromkeys(map(_run, rows.itertuples())), ("-", "--", ":", "-."), strict=False))
    for row in rows.itertuples():
        mine = samples[(samples["record_id"] == row.record_id) & (samples["series"] == "live")]
        late = np.sort(mine["seconds"].to_numpy(float)) * MS
        share = 1 - np.arange(len(late)) / len(late)
        name = f"{row.browser}, {_run(row)}"
        ax.step(
            late, share, where="post", color=colors[str(row.browser)], ls=styles.get(_run(row), "-"), lw=1.3, label=name
        )
    ax.set_yscale("log")
    ax.set_xlabel("from a hop's first sample to its result (ms)")
    ax.set_ylabel("share that comes later")
    plain_ticks(ax, "x")
    legend_above(ax, columns=2)
    return ax


def _run(row: object) -> str:
    """Model, hop and load of a run."""
    beside = "" if row.load == "nothing else" else f", {row.load}"  # type: ignore[attr-defined]
    return f"{row.model}, {row.hop_s * MS:g} ms{beside}"  # type: ignore[attr-defined]


def _label(row: object) -> str:
    provider = "" if row.provider == "wasm" else f" {row.provider}"  # type: ignore[attr-defined]
    return f"{row.browser}{provider}\n{_run(row)}"  # type: ignore[attr-defined]
