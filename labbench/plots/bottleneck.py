"""What each cell waits for: a coloured square a series, or shares of all where there are too many."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labbench.analysis.labels import place, series
from labbench.plots.base import MANY, legend_above, nothing
from labbench.plots.table import coloured_table, stacked_counts, table_axes
from labbench.words import percent

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

# From the colour-blind palette of Okabe and Ito, lightened, so that dark text reads on each.
COLORS = {
    "compute": "#9fd0ee",
    "memory": "#f4c26b",
    "dispatch": "#d9a9c6",
    "preparation": "#8fd3bd",
    "unexplained": "#e3e3e3",
}


def plot_bottlenecks(found: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Model × platform: what it waits for by colour, the share of the latency as text; ``?`` where confidence is low.

    Of more than 40 models the numbers of each platform are shown as bars.
    """
    if found.empty:
        return nothing(ax)
    names = list(COLORS)
    rows = found.assign(
        row=series(found), column=place(found), kind=found["bottleneck"].map(names.index), text=_texts(found)
    ).drop_duplicates(["row", "column"])
    kinds = rows.pivot_table(index="row", columns="column", values="kind", aggfunc="first", observed=True)
    if len(kinds) > MANY:
        return _plot_counts(found, ax)
    from matplotlib.colors import ListedColormap

    text = rows.pivot_table(index="row", columns="column", values="text", aggfunc="first", observed=True)
    ax = table_axes(ax, kinds)
    coloured_table(ax, kinds.astype(float), text.fillna(""), ListedColormap(list(COLORS.values())), (0, len(names) - 1))
    _legend(ax, [name for name in names if (found["bottleneck"] == name).any()])
    return ax


def _texts(found: pd.DataFrame) -> list[str]:
    return [
        "–" if row.bottleneck == "unexplained" else percent(row.share) + " ?" * (row.confidence == "low")
        for row in found.itertuples()
    ]


def _legend(ax: Axes, names: list[str]) -> None:
    from matplotlib.patches import Patch

    patches = [Patch(facecolor=COLORS[name], edgecolor="0.6", label=name) for name in names]
    title = "share of the latency; ?: low confidence"
    ax.legend(
        handles=patches, title=title, ncols=len(names), loc="upper center", bbox_to_anchor=(0.5, 0), frameon=False
    )


def _plot_counts(found: pd.DataFrame, ax: Axes | None) -> Axes:
    sizes = found.assign(column=place(found)).groupby(["column", "bottleneck"], observed=True).size()
    table = sizes.unstack(fill_value=0)
    ax = stacked_counts(table[[name for name in COLORS if name in table]], COLORS, ax)
    ax.set_xlabel(f"series ({len(found):,} in all)")
    legend_above(ax, columns=3)
    return ax
