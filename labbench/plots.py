"""Figures of measurements: DataFrame in, Axes out. Milliseconds and ratios on the axes, SI in the frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
MS = 1e3
ROW_IN = 0.27  # inches of height a model takes
WIDTH_IN = 5.2  # of every figure: a phone then shows it whole, its text at some 9 pixels
DODGE = 0.16  # of a row, between platforms
DARK = 0.5  # luminance below which a cell's text is white
MARKS = {"faster": "▲", "slower": "▼", "same": "=", "undecided": "?"}
TICKS = ((0.9, (1, 1.5, 2, 3, 5, 7)), (2.5, (1, 2, 5)), (np.inf, (1,)))  # of a log axis: up to so many decades, these
FILLS = {"ok": "#bfe3c8", "unsupported": "#d9d9d9", "not run": "#ffffff"}  # any other status is an error
ERROR = "#e9a3a3"


def theme() -> None:
    """Defaults of a notebook: figures with a white panel, light grid and text for a phone; tables with whole texts."""
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


def new_axes(ax: Axes | None, height_in: float) -> Axes:
    """``ax``, or a figure of the width that all have."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    _, made = plt.subplots(figsize=(WIDTH_IN, height_in), layout="constrained")
    return made


def plain_ticks(ax: Axes, axes: str = "xy") -> None:
    """Numbers like 0.1 and 20 on log axes, not powers of ten; 2 and 5 between them where there is room."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    for name in axes:
        axis = getattr(ax, f"{name}axis")
        low, high = axis.get_view_interval()
        decades = np.log10(high / low)
        axis.set_major_locator(LogLocator(subs=next(subs for most, subs in TICKS if decades <= most)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_locator(NullLocator())


def legend_above(ax: Axes, columns: int = 2) -> None:
    """Legend over the axes, where it hides nothing."""
    ax.legend(ncols=columns, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)


def _nothing(ax: Axes | None) -> Axes:
    """A figure that says that there is nothing to draw."""
    ax = new_axes(ax, 0.6)
    ax.set_axis_off()
    ax.text(0.5, 0.5, "nothing of this kind was measured", ha="center", va="center", color="0.4")
    return ax


def _latency_label(rows: pd.DataFrame) -> str:
    """What the points of :func:`plot_latency` are: hollow ones, and means where there is no median, are told."""
    label = "median latency (ms), 95 % interval"
    others = sorted(set(rows["provenance"].astype("str")) - {"measured"})
    if others:
        label += f"\nhollow: {', '.join(others)}"
    return label + (", mean where no median is known" if (rows["latency_statistic"] == "mean").any() else "")


def plot_latency(frame: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Median latency with its 95 % interval, a row a model, a marker a platform; log scale.

    Parameters
    ----------
    frame : DataFrame
        Tidy rows of one series kind; measured values are filled, others (predicted, simulated, imported) hollow.
    """
    rows = frame[frame["latency_s"].notna()]
    if rows.empty:
        return _nothing(ax)
    order = rows.groupby("model", observed=True)["latency_s"].median().sort_values().index.astype("str").tolist()
    ax = new_axes(ax, 1.2 + ROW_IN * len(order))
    colors = platform_colors(rows["platform"])
    for i, (name, color) in enumerate(colors.items()):
        part = rows[rows["platform"].astype("str") == name]
        y = np.array([order.index(str(model)) for model in part["model"]]) + (i - (len(colors) - 1) / 2) * DODGE
        x = part["latency_s"].to_numpy() * MS
        low, high = part["latency_ci_low_s"].to_numpy() * MS, part["latency_ci_high_s"].to_numpy() * MS
        ax.hlines(y, low, high, color=color, lw=1.5)
        measured = (part["provenance"] == "measured").to_numpy()
        marker = MARKERS[i % len(MARKERS)]
        ax.scatter(x[measured], y[measured], color=[color], marker=marker, s=24, label=name, zorder=3)
        ax.scatter(x[~measured], y[~measured], facecolor="white", edgecolor=[color], marker=marker, s=24, zorder=3)
    ax.set(xscale="log", xlabel=_latency_label(rows), ylabel="")
    ax.set_yticks(range(len(order)), order)
    ax.set_ylim(-0.6, len(order) - 0.4)
    ax.grid(axis="y", visible=False)
    plain_ticks(ax, "x")
    legend_above(ax)
    return ax


def plot_speedup(comparison: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Speed-up over the baseline as a heat map with the verdict beside each number (▲ faster, ▼ slower, = same, ? undecided)."""
    import seaborn as sns

    if comparison.empty:
        return _nothing(ax)
    rows = comparison.assign(row=comparison["model"].astype("str") + " · " + comparison["series"].astype("str"))
    rows = rows.assign(row=rows["row"].str.removesuffix(" · forward")).drop_duplicates(["row", "platform"])
    values = rows.pivot(index="row", columns="platform", values="speedup").sort_index()
    marks = rows.pivot(index="row", columns="platform", values="verdict").sort_index()
    text = values.copy().astype(object)
    for column in values:
        text[column] = [
            "" if value != value else f"{value:.2f} {MARKS[mark]}"
            for value, mark in zip(values[column], marks[column], strict=True)
        ]
    ax = new_axes(ax, 0.4 + ROW_IN * len(values))
    reach = max(float(np.nanmax(np.abs(np.log2(values.to_numpy(dtype=float))))), 0.5)
    cmap = sns.color_palette("vlag_r", as_cmap=True)
    _coloured_table(ax, np.log2(values.astype(float)), text, cmap, (-reach, reach))
    return ax


def plot_matrix(matrix: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Workload × platform: milliseconds where it ran (green), errors (red), not supported (grey), not asked for (white)."""
    from matplotlib.colors import ListedColormap

    names = list(FILLS)
    kinds = matrix.map(lambda text: names.index(text.split()[0]) if text.split()[0] in names else len(names))
    kinds = kinds.mask(matrix == "not run", names.index("not run"))
    text = matrix.map(
        lambda text: text.removeprefix("ok ").removesuffix(" ms").replace("not run", "").replace("_", " ")
    )
    ax = new_axes(ax, 0.4 + ROW_IN * max(len(matrix), 1))
    _coloured_table(ax, kinds.astype(float), text, ListedColormap([*FILLS.values(), ERROR]), (0, len(names)))
    return ax


def _coloured_table(
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
    ax.set_xticks(np.arange(values.shape[1]) + 0.5, [str(name).replace("/", "/\n") for name in values.columns])
    ax.set_yticks(np.arange(values.shape[0]) + 0.5, [str(name) for name in values.index])
    ax.invert_yaxis()
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0, labeltop=True, labelbottom=False)


def plot_roofline(placed: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Achieved FLOP/s against arithmetic intensity, under the measured ceilings of each precision."""
    if placed.empty:
        return _nothing(ax)
    ax = new_axes(ax, 4.2)
    colors = platform_colors(placed["platform"])
    x = np.geomspace(placed["intensity"].min() / 2, placed["intensity"].max() * 2, 200)
    for i, (name, color) in enumerate(colors.items()):
        part = placed[placed["platform"].astype("str") == name]
        ax.scatter(
            part["intensity"], part["achieved_flops"] / 1e9, color=[color], marker=MARKERS[i % len(MARKERS)], s=24,
            alpha=0.85, label=name,
        )  # fmt: skip
    for precision, part in placed.groupby("precision", observed=True):
        peak, bandwidth = part["peak_flops"].iloc[0], part["bandwidth_bytes_s"].iloc[0]
        middle = np.sqrt(x[0] * peak / bandwidth)
        ax.plot(x, np.minimum(peak, x * bandwidth) / 1e9, color="0.35", lw=1.5, zorder=1)
        name = f"matrix product, {precision}: {peak / 1e9:.0f} GFLOP/s"
        ax.annotate(name, (x[-1], peak / 1e9), (0, 16), textcoords="offset points", ha="right", color="0.3")
        ax.annotate(
            f"memory copy: {bandwidth / 1e9:.0f} GB/s", (middle, middle * bandwidth / 1e9), (-5, 3),
            textcoords="offset points", ha="right", color="0.3",
        )  # fmt: skip
    ax.set(
        xscale="log",
        yscale="log",
        xlabel="arithmetic intensity (FLOP per byte, nothing fused)",
        ylabel="achieved GFLOP/s",
    )
    ax.set_ylim(top=ax.get_ylim()[1] * 2)
    plain_ticks(ax)
    legend_above(ax)
    return ax


def plot_one_off(frame: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Seconds before the first useful result on each platform: a dot a model, the median as a bar."""
    rows = frame[(frame["status"] == "ok") & frame["primary"]]
    if rows.empty:
        return _nothing(ax)
    seconds = rows[["load_s", "prepare_s", "first_run_s"]].sum(axis=1)
    colors = platform_colors(rows["platform"])
    ax = new_axes(ax, 0.7 + 0.5 * len(colors))
    for i, (name, color) in enumerate(colors.items()):
        part = np.sort(seconds[rows["platform"].astype("str") == name].to_numpy(float))
        apart = (np.arange(len(part)) % 3 - 1) * 0.1  # neighbours do not hide each other
        ax.scatter(part, i + apart, color=[color], marker=MARKERS[i % len(MARKERS)], s=20, alpha=0.7)
        middle = float(np.median(part))
        ax.vlines(middle, i - 0.28, i + 0.28, color="0.2", lw=2)
        ax.annotate(f"{middle:.2g} s", (middle, i - 0.3), ha="center", va="bottom")
    ax.set(xscale="log", xlabel="load + prepare + first run (s); bar: median", ylabel="")
    ax.set_yticks(range(len(colors)), list(colors))
    ax.set_ylim(len(colors) - 0.55, -0.75)
    ax.grid(axis="y", visible=False)
    plain_ticks(ax, "x")
    return ax
