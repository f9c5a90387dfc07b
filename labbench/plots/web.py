"""Models in browsers: what runs where, and how much slower than without a browser."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from labbench.plots.base import MARKERS, ROW_IN, legend_above, new_axes, nothing, plain_ticks, platform_colors
from labbench.plots.table import plot_matrix

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

DODGE = 0.16  # of a row, between browsers


def plot_compatibility(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """As caniuse: milliseconds where a model ran (green), grey where the browser does not support it, errors red.

    Parameters
    ----------
    table : DataFrame
        :func:`labbench.web.report.table`.
    """
    from labbench.web.report import compatibility

    ax = plot_matrix(compatibility(table), ax=ax)
    ax.set_xlabel("milliseconds of a call (median)")
    return ax


def plot_slowdown(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Times as long as native onnxruntime with the same threads, with 95 % intervals: a row a model, a marker a browser.

    Adapters in software are hollow.
    """
    from labbench.web.report import slowdown

    rows = slowdown(table)
    if rows.empty:
        return nothing(ax)
    rows = rows.assign(where=rows["browser"] + "/" + rows["provider"])
    colors = platform_colors(rows["where"])
    models = list(dict.fromkeys(rows["model"].astype(str)))
    ax = new_axes(ax, 1.4 + max(ROW_IN, 0.09 * len(colors)) * len(models) + 0.2 * ((len(colors) + 1) // 2))
    for place, (where, color) in enumerate(colors.items()):
        one = rows[rows["where"] == where]
        y = one["model"].astype(str).map(models.index) + DODGE * (place - (len(colors) - 1) / 2) * min(
            1, 5 / len(colors)
        )
        x = one["slowdown"].to_numpy(float)
        ends = np.abs(one[["slowdown_ci_low", "slowdown_ci_high"]].to_numpy(float).T - x)
        software = one["adapter"].astype(str).str.contains("software").any()
        ax.errorbar(
            x, y, xerr=ends, fmt=MARKERS[place % len(MARKERS)], color=color, ms=5, lw=1,
            mfc="white" if software else color, label=where + (" (software)" if software else ""),
        )  # fmt: skip
    ax.set_xscale("log")
    plain_ticks(ax, "x")
    ax.axvline(1, color="0.5", lw=1, zorder=0)
    ax.set_yticks(range(len(models)), models)
    ax.set_ylim(len(models) - 0.5, -0.5)
    ax.set_xlabel("times as long as native (95 % interval)")
    legend_above(ax, columns=2, right=True)
    return ax
