"""Tables as figures: texts on coloured cells, a row a workload and a column a platform."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from labbench.plots.base import MANY, ROW_IN, WIDTH_IN, legend_above, new_axes, nothing, short

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

LETTER_IN = 0.082  # of width, on average
NARROWEST_IN = 0.68  # a column of numbers with a mark, or of small words
DARK = 0.5  # luminance below which a cell's text is white
FILLS = {"ok": "#bfe3c8", "unsupported": "#d9d9d9", "not run": "#ffffff"}  # any other status is an error
ERROR = "#e9a3a3"


def plot_matrix(matrix: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Workload × platform: milliseconds where it ran (green), errors (red), not supported (grey), not asked for (white).

    Of more than 40 workloads the share of each is shown, a bar a platform.
    """
    from matplotlib.colors import ListedColormap

    if matrix.empty:
        return nothing(ax)
    names = list(FILLS)
    kinds = matrix.map(lambda text: names.index(text.split()[0]) if text.split()[0] in names else len(names))
    kinds = kinds.mask(matrix == "not run", names.index("not run"))
    if len(matrix) > MANY:
        return _plot_shares(kinds, ax)
    text = matrix.map(_shown)
    ax = table_axes(ax, matrix)
    coloured_table(ax, kinds.astype(float), text, ListedColormap([*FILLS.values(), ERROR]), (0, len(names)))
    for label in ax.texts:
        if not label.get_text()[:1].isdigit():
            label.set_fontsize("x-small")  # a word would not fit into its column
    return ax


def _shown(text: str) -> str:
    """A cell as it is drawn: a number, words, or nothing; the longest status on two lines."""
    bare = text.removeprefix("ok ").removesuffix(" ms").replace("not run", "")
    return bare.replace("_of_", " of\n").replace("_", " ")


def _plot_shares(kinds: pd.DataFrame, ax: Axes | None) -> Axes:
    """How many workloads of each platform ended how, as stacked bars."""
    import pandas as pd

    colors = {**FILLS, "error": ERROR}
    counts = pd.DataFrame({name: (kinds == kind).sum() for kind, name in enumerate(colors)})
    ax = stacked_counts(counts, colors, ax)
    ax.set(xlim=(0, len(kinds)), xlabel=f"workloads ({len(kinds):,} in all)")
    legend_above(ax, columns=4, right=True)
    return ax


def stacked_counts(counts: pd.DataFrame, colors: dict[str, str], ax: Axes | None) -> Axes:
    """A bar a row, made of the counts of each column in its colour; a part too short for its number has none."""
    ax = new_axes(ax, 1.2 + 0.4 * len(counts))
    y = np.arange(len(counts))
    begin = np.zeros(len(y))
    shortest = counts.sum(axis=1).max() / 12
    for name in counts:
        part = counts[name].to_numpy()
        ax.barh(y, part, left=begin, color=colors[name], edgecolor="0.6", lw=0.6, height=0.7, label=name)
        for place in np.flatnonzero(part > shortest).tolist():
            ax.text(begin[place] + part[place] / 2, place, f"{part[place]:,}", ha="center", va="center_baseline")
        begin += part
    ax.set_yticks(y, [str(name) for name in counts.index])
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    return ax


def table_axes(ax: Axes | None, values: pd.DataFrame) -> Axes:
    """Axes for :func:`coloured_table`, wide enough for its columns; a page lets what is too wide scroll."""
    names = max((len(short(str(name))) for name in values.index), default=0)
    above = max(map(len, _heads(values).split("\n")), default=0) if _upright(values) else 0
    width_in = max(WIDTH_IN, names * LETTER_IN + len(values.columns) * NARROWEST_IN)
    return new_axes(ax, 0.4 + above * LETTER_IN + ROW_IN * len(values), width_in)


def _upright(values: pd.DataFrame) -> bool:
    """Whether the names of the columns stand upright: too many to lie side by side."""
    names = max((len(short(str(name))) for name in values.index), default=0)
    room_in = (WIDTH_IN - names * LETTER_IN) / max(len(values.columns), 1)
    return max(map(len, _heads(values).replace("/", "/\n").split("\n")), default=0) * LETTER_IN > room_in


def _heads(values: pd.DataFrame) -> str:
    return "\n".join(str(name) for name in values.columns)


def coloured_table(
    ax: Axes, values: pd.DataFrame, text: pd.DataFrame, cmap: Colormap, limits: tuple[float, float]
) -> None:
    """Texts on coloured cells, white where there is no value; names of columns above, of rows to the left.

    Like seaborn's heatmap, which draws every figure once more to see whether its labels overlap.
    """
    mesh = ax.pcolormesh(
        values.to_numpy(), cmap=cmap, vmin=limits[0], vmax=limits[1], edgecolors="white", linewidth=0.8
    )
    fills = np.asarray(mesh.to_rgba(values.to_numpy()))
    luminance = fills[..., :3] @ (0.2126, 0.7152, 0.0722)  # WCAG 2's weights, gamma left out
    for row, column in np.ndindex(*values.shape):
        ink = "0.15" if luminance[row, column] > DARK else "white"
        ax.text(column + 0.5, row + 0.5, text.iat[row, column], ha="center", va="center_baseline", color=ink)
    upright = _upright(values)
    heads = [str(name) if upright else str(name).replace("/", "/\n") for name in values.columns]
    ax.set_xticks(np.arange(values.shape[1]) + 0.5, heads, rotation=90 if upright else 0)
    ax.set_yticks(np.arange(values.shape[0]) + 0.5, [short(str(name)) for name in values.index])
    ax.invert_yaxis()
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0, labeltop=True, labelbottom=False)
