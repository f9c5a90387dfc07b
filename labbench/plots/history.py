"""Cells over time: runs with their error, levels as steps, change points, and what else changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from labbench.analysis.history_report import names
from labbench.plots.base import MS, new_axes, nothing

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

HEIGHT_IN = 3.0
MOST_FIGURES = 6
MOST_NOTES = 6  # in a figure: more would overlap
LONGEST_NOTE = 34  # characters, of a note that stands upright beside its line
RUN, LEVEL, UNSTABLE = "#0173b2", "0.25", "0.65"  # of seaborn's colour-blind palette, and greys
CHANGE = {"slower": "#d55e00", "faster": "#029e73", "unconfirmed": "#de8f05"}


def plot_histories(runs: pd.DataFrame, points: pd.DataFrame, most: int = MOST_FIGURES) -> list[Axes]:
    """A figure for each cell that changed, the largest change first; if none did, for the cells with most runs.

    Parameters
    ----------
    runs, points : DataFrame
        From :func:`labbench.analysis.history.runs` and :func:`labbench.analysis.history.change_points`.
    most : int
        How many figures at most.
    """
    sizes = runs.groupby("history").size()
    largest = points.assign(size=np.abs(np.log(points["ratio"].astype(float)))).sort_values("size", ascending=False)
    confirmed = largest["verdict"] != "unconfirmed"
    changed = [*largest.loc[confirmed, "history"], *largest.loc[~confirmed, "history"]]
    chosen = list(dict.fromkeys(changed or sizes[sizes > 1].nlargest(most).index))[:most]
    if not chosen:
        return [nothing(None, "no cell was run twice")]
    return [plot_history(runs[runs["history"] == one], points[points["history"] == one]) for one in chosen]


def plot_history(runs: pd.DataFrame, points: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Latency of one cell over time with 95 % intervals, its levels and change points.

    Hollow marks were not measured by labbench, grey ones were taken on an unstable machine; dotted lines say what else changed.

    Parameters
    ----------
    runs : DataFrame
        Of one history; with a column ``changed`` (:func:`labbench.analysis.attribution.with_changes`) that is told too.
    points : DataFrame
        Its change points.
    """
    rows = runs[runs["started_at"].notna()]
    if rows.empty:
        return nothing(ax, "nobody knows when these runs were")
    ax = new_axes(ax, HEIGHT_IN)
    _runs(ax, rows)
    confirmed = points[points["verdict"] != "unconfirmed"]
    _levels(ax, rows, confirmed)
    for point in points.itertuples():
        ax.axvline(point.at, color=CHANGE[point.verdict], lw=1.6, alpha=0.8, zorder=1)
    if "changed" in rows:
        _notes(ax, rows)
    first = rows.iloc[[0]]
    ax.set_title(f"{names(first).iloc[0]} on {first['platform'].iloc[0]}", pad=6)
    ax.set_ylabel("median latency (ms), 95 % interval")
    ax.set_xlabel(_legend(rows, points))
    _dates(ax)
    return ax


def _runs(ax: Axes, rows: pd.DataFrame) -> None:
    """Points with error bars: filled if measured, grey if they are not judged."""
    for (judged, measured), part in rows.groupby(["judged", rows["provenance"] == "measured"]):
        color = RUN if judged else UNSTABLE
        at, y = part["started_at"], np.exp(part["log_s"]) * MS
        ax.vlines(at, part["ci_low_s"] * MS, part["ci_high_s"] * MS, color=color, lw=1, zorder=2)
        face = color if measured else "white"
        ax.scatter(at, y, s=22, facecolor=face, edgecolor=color, linewidth=1.2, zorder=3)


def _levels(ax: Axes, rows: pd.DataFrame, points: pd.DataFrame) -> None:
    """The level of each segment: the geometric mean of its judged runs."""
    judged = rows[rows["judged"]]
    edges = points["at"].sort_values().tolist()
    segment = np.searchsorted(np.array(edges, dtype="datetime64[us]"), _naive(judged["started_at"]), side="right")
    for number, part in judged.groupby(segment):
        level = np.exp(part["log_s"].median()) * MS
        end = edges[int(number)] if int(number) < len(edges) else part["started_at"].iloc[-1]
        begin = part["started_at"].iloc[0]
        ax.hlines(level, begin, end, color=LEVEL, lw=2, zorder=2.5)


def _naive(moments: pd.Series) -> np.ndarray:
    found: np.ndarray = moments.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy("datetime64[us]")
    return found


def _notes(ax: Axes, rows: pd.DataFrame) -> None:
    """What else changed, upright beside a dotted line at the run where it did."""
    told = rows[rows["changed"] != ""]
    for row in told.tail(MOST_NOTES).itertuples():
        note = row.changed if len(row.changed) <= LONGEST_NOTE else row.changed[: LONGEST_NOTE - 1] + "…"
        ax.axvline(row.started_at, color="0.45", lw=1, ls=":", zorder=1)
        ax.annotate(
            note, (row.started_at, 1), (-2, -3), xycoords=("data", "axes fraction"), textcoords="offset points",
            rotation=90, ha="right", va="top", fontsize=7.5, color="0.3",
        )  # fmt: skip


def _legend(rows: pd.DataFrame, points: pd.DataFrame) -> str:
    """What marks mean, of those that are there."""
    said = ["bars: levels"]
    confirmed = points["verdict"] != "unconfirmed"
    if confirmed.any():
        said.append("coloured lines: changes")
    if (~confirmed).any():
        said.append("amber line: newest run is off, unconfirmed")
    if not rows["judged"].all():
        said.append("grey: unstable, left out")
    others = sorted(set(rows["provenance"].astype("str")) - {"measured"})
    said += [f"hollow: {', '.join(others)}"] if others else []
    said += ["dotted: what else changed"] if "changed" in rows and (rows["changed"] != "").any() else []
    half = (len(said) + 1) // 2 if len(said) > 2 else len(said)
    lines = ["; ".join(said[:half]), "; ".join(said[half:])]
    return "started (UTC)\n" + "\n".join(line for line in lines if line)


def _dates(ax: Axes) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=3, maxticks=6)
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    ax.margins(x=0.04, y=0.15)
