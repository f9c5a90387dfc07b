"""What each cell waits for: a coloured square a series, or shares of all where there are too many."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labbench.analysis.labels import place, work
from labbench.plots.base import MANY, ROW_IN, legend_above, new_axes, nothing
from labbench.plots.table import coloured_table, stacked_counts
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
        row=_names(found), column=place(found), kind=found["bottleneck"].map(names.index), text=_texts(found)
    ).drop_duplicates(["row", "column"])
    kinds = rows.pivot_table(index="row", columns="column", values="kind", aggfunc="first", observed=True)
    if len(kinds) > MANY:
        return _plot_counts(found, ax)
    from matplotlib.colors import ListedColormap

    text = rows.pivot_table(index="row", columns="column", values="text", aggfunc="first", observed=True)
    ax = new_axes(ax, 0.9 + ROW_IN * len(kinds))
    coloured_table(ax, kinds.astype(float), text.fillna(""), ListedColormap(list(COLORS.values())), (0, len(names) - 1))
    _legend(ax, [name for name in names if (found["bottleneck"] == name).any()])
    ax.set_xlabel("share of the latency; ?: low confidence")
    return ax


def _names(found: pd.DataFrame) -> pd.Series:
    """Model, input size, batch size where there are several, and series where it says something."""
    text = work(found)
    series = found["series"].astype("str")
    text = text.mask(series != "forward", text + " · " + series)
    if found["batch_size"].nunique() > 1:
        text = text + " · batch " + found["batch_size"].astype("str")
    return text


def _texts(found: pd.DataFrame) -> list[str]:
    return [
        "–" if row.bottleneck == "unexplained" else percent(row.share) + " ?" * (row.confidence == "low")
        for row in found.itertuples()
    ]


def _legend(ax: Axes, names: list[str]) -> None:
    from matplotlib.patches import Patch

    patches = [Patch(facecolor=COLORS[name], edgecolor="0.6", label=name) for name in names]
    figure = ax.get_figure(root=True)
    assert figure is not None
    high = 1 + 0.62 / figure.get_size_inches()[1]  # above the names of the columns
    ax.legend(handles=patches, ncols=3, loc="lower center", bbox_to_anchor=(0.5, high), frameon=False)


def _plot_counts(found: pd.DataFrame, ax: Axes | None) -> Axes:
    sizes = found.assign(column=place(found)).groupby(["column", "bottleneck"], observed=True).size()
    table = sizes.unstack(fill_value=0)
    ax = stacked_counts(table[[name for name in COLORS if name in table]], COLORS, ax)
    ax.set_xlabel(f"series ({len(found):,} in all)")
    legend_above(ax, columns=3)
    return ax
