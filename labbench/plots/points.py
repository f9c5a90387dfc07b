"""Any quantity against any other: the figure of :func:`labbench.explore`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labbench.plots.base import MARKERS, hollow_note, name_in_legend, new_axes, nothing, plain_ticks, scatter

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

NAMED = 8  # values that a reader can tell apart by colour and marker; rarer ones are grey
OTHER = "0.72"
MOST_POINTS = 20_000  # more are a blot, and take a browser or a person's patience too long


def plot_points(
    table: pd.DataFrame,
    x: str,
    y: str,
    color: str,
    *,
    log_x: bool = False,
    log_y: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """A point a row; hollow if it was not measured.

    Parameters
    ----------
    table : DataFrame
        With the columns ``x``, ``y``, ``color`` and ``provenance``. The columns ``<name> low`` and ``<name> high`` are the ends of
        an interval, where they exist.
    color : str
        The eight commonest values get a colour of their own.
    log_x, log_y : bool
        Logarithmic axes; values that are not positive are then left out, and the label says how many.

    Notes
    -----
    Of more than 20,000 points a random 20,000 are drawn, always the same, and the label says so.
    """
    import seaborn as sns

    known = table[table[x].notna() & table[y].notna()]
    rows = known[((known[x] > 0) | (not log_x)) & ((known[y] > 0) | (not log_y))]
    if rows.empty:
        return nothing(ax, "no row has both quantities")
    notes = [f"{len(known) - len(rows):,} not positive, left out" if len(rows) < len(known) else ""]
    if len(rows) > MOST_POINTS:
        notes.append(f"{MOST_POINTS:,} of {len(rows):,} points, at random")
        rows = rows.sample(MOST_POINTS, random_state=0)
    notes.append(hollow_note(rows))
    ax = new_axes(ax, 4.2)
    values = rows[color].astype("str").fillna("not known")
    common = sorted(values.value_counts().index[:NAMED])
    colors = dict(zip(common, sns.color_palette("colorblind", NAMED), strict=False))
    rest = {} if values.isin(common).all() else {"other": OTHER}
    for i, (name, shade) in enumerate({**colors, **rest}.items()):
        part = rows[values == name if name in colors else ~values.isin(common)]
        at = part[x].to_numpy(dtype=float), part[y].to_numpy(dtype=float)
        for quantity, lines, other in ((x, ax.hlines, at[1]), (y, ax.vlines, at[0])):
            if f"{quantity} low" in rows:
                lines(other, part[f"{quantity} low"], part[f"{quantity} high"], color=shade, lw=1)
        scatter(ax, *at, (part["provenance"] == "measured").to_numpy(), color=shade, marker=MARKERS[i % len(MARKERS)])
    ax.set(xscale="log" if log_x else "linear", yscale="log" if log_y else "linear", ylabel=y)
    ax.set_xlabel("\n".join([x, *filter(None, notes)]))
    plain_ticks(ax, "x" * log_x + "y" * log_y)
    name_in_legend(ax, {**colors, **rest})
    return ax
