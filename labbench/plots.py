"""Figures of measurements: DataFrame in, Axes out. Milliseconds and ratios on the axes, SI in the frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
MS = 1e3
ROW_IN = 0.3  # inches of height a model takes
WIDTH_IN = 7.2
DODGE = 0.16  # of a row, between platforms
MARKS = {"faster": "▲", "slower": "▼", "same": "=", "undecided": "?"}


def theme() -> None:
    """Seaborn defaults of all figures: white panel, light grid, readable on a phone."""
    import seaborn as sns

    sns.set_theme(
        style="whitegrid", context="notebook", font_scale=0.9, rc={"axes.edgecolor": "0.7", "figure.dpi": 110}
    )


def platform_colors(platforms: pd.Series) -> dict[str, tuple[float, float, float]]:
    """A colour for each platform, from seaborn's colour-blind palette, in alphabetical order."""
    import seaborn as sns

    names = sorted(platforms.dropna().astype("str").unique())
    return dict(zip(names, sns.color_palette("colorblind", len(names)), strict=True))


def _axes(ax: Axes | None, size: tuple[float, float]) -> Axes:
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    _, made = plt.subplots(figsize=size, layout="constrained")
    return made


def _nothing(ax: Axes | None) -> Axes:
    """A figure that says that there is nothing to draw."""
    ax = _axes(ax, (WIDTH_IN, 0.6))
    ax.set_axis_off()
    ax.text(0.5, 0.5, "nothing of this kind was measured", ha="center", va="center", color="0.4")
    return ax


def _plain(axis: object) -> None:
    """Numbers like 0.1 and 20 on a log axis, not powers of ten."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))  # type: ignore[attr-defined]
    axis.set_minor_formatter(NullFormatter())  # type: ignore[attr-defined]


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
    ax = _axes(ax, (WIDTH_IN, 1.2 + ROW_IN * max(len(order), 1)))
    colors = platform_colors(rows["platform"])
    for i, (name, color) in enumerate(colors.items()):
        part = rows[rows["platform"].astype("str") == name]
        y = np.array([order.index(str(model)) for model in part["model"]]) + (i - (len(colors) - 1) / 2) * DODGE
        x = part["latency_s"].to_numpy() * MS
        low, high = part["latency_ci_low_s"].to_numpy() * MS, part["latency_ci_high_s"].to_numpy() * MS
        ax.hlines(y, low, high, color=color, lw=1.5)
        measured = (part["provenance"] == "measured").to_numpy()
        marker = MARKERS[i % len(MARKERS)]
        ax.scatter(x[measured], y[measured], color=[color], marker=marker, s=26, label=name, zorder=3)
        ax.scatter(x[~measured], y[~measured], facecolor="white", edgecolor=[color], marker=marker, s=26, zorder=3)
    ax.set(xscale="log", xlabel="median latency of one call (ms), 95 % interval", ylabel="")
    ax.set_yticks(range(len(order)), order)
    ax.set_ylim(-0.6, len(order) - 0.4)
    ax.grid(axis="y", visible=False)
    _plain(ax.xaxis)
    if colors:
        ax.legend(ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    return ax


def plot_speedup(comparison: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Speed-up over the baseline as a heat map with the verdict beside each number (▲ faster, ▼ slower, = same, ? undecided)."""
    import seaborn as sns

    if comparison.empty:
        return _nothing(ax)
    rows = comparison.assign(row=comparison["model"].astype("str") + " · " + comparison["series"].astype("str"))
    rows = rows.drop_duplicates(["row", "platform"])
    values = rows.pivot(index="row", columns="platform", values="speedup").sort_index()
    marks = rows.pivot(index="row", columns="platform", values="verdict").sort_index()
    text = values.copy().astype(object)
    for column in values:
        text[column] = [
            "" if value != value else f"{value:.2f} {MARKS[mark]}"
            for value, mark in zip(values[column], marks[column], strict=True)
        ]
    ax = _axes(ax, (WIDTH_IN, 1.2 + ROW_IN * max(len(values), 1)))
    reach = max(float(np.nanmax(np.abs(np.log2(values.to_numpy(dtype=float))))), 0.5) if len(values) else 1.0
    sns.heatmap(
        np.log2(values.astype(float)), annot=text, fmt="", cmap="vlag_r", center=0, vmin=-reach, vmax=reach,
        cbar_kws={"label": "log₂ speed-up over the baseline", "shrink": 0.6}, linewidths=0.6, ax=ax,
    )  # fmt: skip
    ax.set(xlabel="", ylabel="")
    ax.tick_params(axis="y", rotation=0)
    return ax


def plot_matrix(matrix: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Model × platform: what ran (green), what failed (red), what is not supported (grey)."""
    import seaborn as sns
    from matplotlib.colors import ListedColormap

    kinds = matrix.map(lambda text: 2 if text.startswith("ok") else 0 if text in ("not run", "unsupported") else 1)
    ax = _axes(ax, (WIDTH_IN, 1.0 + ROW_IN * max(len(matrix), 1)))
    colors = ListedColormap(["#d9d9d9", "#e9a3a3", "#bfe3c8"])
    sns.heatmap(
        kinds.astype(int), annot=matrix.map(lambda text: text.removeprefix("ok ")), fmt="", cmap=colors, vmin=0, vmax=2,
        cbar=False, linewidths=0.8, annot_kws={"color": "0.15"}, ax=ax,
    )  # fmt: skip
    ax.set(xlabel="", ylabel="")
    ax.tick_params(axis="y", rotation=0)
    return ax


def plot_roofline(placed: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Achieved FLOP/s against arithmetic intensity, under the measured ceilings of each precision."""
    if placed.empty:
        return _nothing(ax)
    ax = _axes(ax, (WIDTH_IN, 4.6))
    colors = platform_colors(placed["platform"])
    x = np.geomspace(placed["intensity"].min() / 2, placed["intensity"].max() * 2, 200)
    for precision, part in placed.groupby("precision", observed=True):
        peak, bandwidth = part["peak_flops"].iloc[0], part["bandwidth_bytes_s"].iloc[0]
        ax.plot(x, np.minimum(peak, x * bandwidth) / 1e9, color="0.35", lw=1.5)
        ax.annotate(
            f"measured ceiling, {precision}",
            (x[-1], peak / 1e9),
            ha="right",
            va="bottom",
            fontsize="small",
            color="0.3",
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
        )
    for i, (name, color) in enumerate(colors.items()):
        part = placed[placed["platform"].astype("str") == name]
        ax.scatter(
            part["intensity"], part["achieved_flops"] / 1e9, color=[color], marker=MARKERS[i % len(MARKERS)], s=28,
            alpha=0.85, label=name,
        )  # fmt: skip
    ax.set(
        xscale="log",
        yscale="log",
        xlabel="arithmetic intensity (FLOP per byte, nothing fused)",
        ylabel="achieved GFLOP/s",
    )
    _plain(ax.xaxis)
    _plain(ax.yaxis)
    ax.legend(frameon=False, fontsize="small", loc="lower right")
    return ax


def plot_one_off(frame: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Preparation time of each platform over models: a dot a model, the median as a bar."""
    import seaborn as sns

    rows = frame[(frame["status"] == "ok") & frame["primary"]]
    table = rows.assign(
        platform=rows["platform"].astype("str"), one_off=rows[["load_s", "prepare_s", "first_run_s"]].sum(axis=1)
    )
    ax = _axes(ax, (WIDTH_IN, 0.9 + 0.5 * max(table["platform"].nunique(), 1)))
    colors = platform_colors(rows["platform"])
    sns.stripplot(
        table,
        x="one_off",
        y="platform",
        hue="platform",
        palette=colors,
        order=list(colors),
        legend=False,
        alpha=0.7,
        ax=ax,
    )
    for i, name in enumerate(colors):
        middle = table.loc[table["platform"] == name, "one_off"].median()
        ax.vlines(middle, i - 0.3, i + 0.3, color="0.2", lw=2)
        ax.annotate(f"{middle:.2g} s", (middle, i - 0.32), ha="center", va="bottom", fontsize="small")
    ax.set(xscale="log", xlabel="load + prepare + first run (s)", ylabel="")
    _plain(ax.xaxis)
    return ax
