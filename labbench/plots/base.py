"""What all figures share: theme, size, colours, marks of provenance, ticks, legends."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from labbench.analysis.few import MOST_ROWS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
MS = 1e3
MB = 1e-6
ROW_IN = 0.27  # inches of height a model takes
WIDTH_IN = 5.2  # of every figure: a phone then shows it whole, its text at some 9 pixels
TICKS = ((0.9, (1, 1.5, 2, 3, 5, 7)), (2.5, (1, 2, 5)), (np.inf, (1,)))  # of a log axis: up to so many decades, these
LEGEND_ROW_IN = 0.2
LEGEND_CHARACTERS, MARK_CHARACTERS = 60, 5  # what fits into WIDTH_IN, and what a mark and its gaps take of it
MANY = 40  # rows above which a figure shows a distribution instead of every name: it would be taller than a screen
ENDS = 15  # rows then named at either end
MOST_VECTORS = 2000  # points of one colour that a figure keeps as such; more are one picture within it
LABEL_CHARACTERS = 48  # of an axis label: centred under axes that do not begin at the figure's edge
LONGEST_NAME = 34  # characters of a row's name, so that the axes keep half of the width
SHORTEST_MODEL = 16  # characters of a model's name that are kept in any case


def theme() -> None:
    """Defaults of a notebook: figures with a white panel, light grid, text for a phone; tables whole up to 100 rows."""
    import pandas as pd
    import seaborn as sns

    text = dict.fromkeys(
        ("font.size", "figure.labelsize", "axes.labelsize", "xtick.labelsize", "ytick.labelsize", "legend.fontsize"),
        9.5,
    )
    rc = {**text, "axes.titlesize": 9.5, "axes.edgecolor": "0.7", "figure.dpi": 110}
    rc |= {"svg.fonttype": "none"}  # numbers in figures can be searched and copied
    sns.set_theme(style="whitegrid", rc=rc)
    _draw_once()
    pd.set_option("display.max_colwidth", None)
    pd.set_option("display.max_rows", MOST_ROWS)
    pd.set_option("display.min_rows", MOST_ROWS)


def _draw_once() -> None:
    """In a notebook, leave out the cropping of figures: these have a layout, and cropping draws each twice."""
    import sys

    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is not None:
        shell.run_line_magic("config", "InlineBackend.print_figure_kwargs = {'bbox_inches': None}")


def platform_colors(platforms: pd.Series) -> dict[str, tuple[float, float, float]]:
    """A colour for each platform, from seaborn's colour-blind palette, in alphabetical order."""
    import seaborn as sns

    names = sorted(platforms.dropna().astype("str").unique())
    return dict(zip(names, sns.color_palette("colorblind", len(names)), strict=True))


def new_axes(ax: Axes | None, height_in: float, width_in: float = WIDTH_IN) -> Axes:
    """``ax``, or a figure of the width that all have but tables of many columns."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    _, made = plt.subplots(figsize=(width_in, height_in), layout="constrained")
    return made


def plain_ticks(ax: Axes, axes: str = "xy") -> None:
    """Numbers like 0.1 and 20 on log axes, not powers of ten; 2 and 5 between them where there is room."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    for name in axes:
        axis = getattr(ax, f"{name}axis")
        low, high = axis.get_view_interval()
        decades = np.log10(high / low)
        axis.set_major_locator(LogLocator(subs=next(subs for most, subs in TICKS if decades <= most)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1000 else f"{value:g}"))
        axis.set_minor_locator(NullLocator())


def wrapped(text: str, most: int = LABEL_CHARACTERS) -> str:
    """Text whose lines are broken at spaces, so that a label does not run out of its figure."""
    import textwrap

    return "\n".join(textwrap.fill(line, most, break_on_hyphens=False) for line in text.split("\n"))


def short(name: str) -> str:
    """A row's name that leaves room for the axes.

    Of a long one the middle of the model goes, never its end or the size or place that tells it apart.
    """
    model, dot, rest = name.partition(" · ")
    room = max(LONGEST_NAME - len(dot + rest), SHORTEST_MODEL)
    if len(model) > room:
        end = room // 2 - 1
        model = f"{model[: room - 1 - end]}…{model[-end:]}"
    return model + dot + rest


def legend_above(ax: Axes, columns: int = 2, *, right: bool = False) -> None:
    """Legend over the axes, where it hides nothing; ``right`` as in :func:`name_in_legend`."""
    ax.legend(ncols=columns, **_above(right))


def nothing(ax: Axes | None, text: str = "nothing of this kind was measured") -> Axes:
    """A figure that says that there is nothing to draw."""
    ax = new_axes(ax, 0.6)
    ax.set_axis_off()
    ax.text(0.5, 0.5, text, ha="center", va="center", color="0.4")
    return ax


def hollow_note(rows: pd.DataFrame) -> str:
    """What the hollow marks of a figure are, e.g. ``hollow: imported``; empty if everything was measured."""
    others = sorted(set(rows["provenance"].astype("str")) - {"measured"})
    return f"hollow: {', '.join(others)}" if others else ""


def scatter(
    ax: Axes, x: np.ndarray, y: np.ndarray, measured: np.ndarray, *, color: Any, marker: str = "o", size: float = 24
) -> None:
    """Points, filled where ``measured``, else hollow."""
    options: dict[str, Any] = {"marker": marker, "s": size, "zorder": 3, "rasterized": len(x) > MOST_VECTORS}
    ax.scatter(x[measured], y[measured], color=[color], **options)
    ax.scatter(x[~measured], y[~measured], facecolor="white", edgecolor=[color], **options)


def _legend_columns(names: Iterable[str], columns: int) -> int:
    return max(min(columns, LEGEND_CHARACTERS // (max(map(len, names), default=0) + MARK_CHARACTERS)), 1)


def legend_in(names: dict[str, Any], columns: int = 2) -> float:
    """Inches of height that :func:`name_in_legend` takes."""
    return LEGEND_ROW_IN * -(-len(names) // _legend_columns(names, columns))


def name_in_legend(ax: Axes, names: dict[str, Any], columns: int = 2, *, right: bool = False) -> None:
    """Legend above with a mark for each name, in its colour and the marker of its place; fewer columns for long names.

    ``right`` ends it where the axes end: for axes that names of rows make narrow.
    """
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], ls="", marker=MARKERS[i % len(MARKERS)], ms=5, color=color, label=wrapped(name))
        for i, (name, color) in enumerate(names.items())
    ]
    ax.legend(handles=handles, ncols=_legend_columns(names, columns), **_above(right))


def _above(right: bool) -> dict[str, Any]:
    """Where a legend above the axes is anchored."""
    where: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0)} if right else {}
    return {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "frameon": False, **where}
