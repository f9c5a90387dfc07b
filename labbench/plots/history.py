"""Cells over time: runs with their error, levels as steps, change points, and what else changed."""

from __future__ import annotations

from string import ascii_lowercase
from typing import TYPE_CHECKING

import numpy as np

from labbench.analysis.history_report import names
from labbench.plots.base import MS, new_axes, nothing

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

HEIGHT_IN = 3.3
MOST_FIGURES = 6
MOST_NOTES = 4  # in a figure: more would push the axes out
LONGEST_NOTE = 62  # characters of a line below the axes
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
    rows = runs[runs["started_at"].notna()].reset_index(drop=True)
    if rows.empty:
        return nothing(ax, "nobody knows when these runs were")
    ax = new_axes(ax, HEIGHT_IN)
    _runs(ax, rows)
    _levels(ax, rows, points)
    for point in points.itertuples():
        ax.axvline(_between(rows, point.record_id), color=CHANGE[point.verdict], lw=1.6, alpha=0.8, zorder=1)
    notes = _notes(ax, rows) if "changed" in rows else []
    first = rows.iloc[[0]]
    ax.set_title(f"{names(first).iloc[0]} on {first['platform'].iloc[0]}", pad=14 if notes else 6)
    relative = "relative" if rows["reference"].notna().any() else "median"
    ax.set_ylabel(f"{relative} latency (ms), 95 % interval")
    ax.set_xlabel("\n".join(["started (UTC)", *_legend(rows, points), *notes]))
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
    """The level of each segment: the median of its judged runs."""
    judged = rows[rows["judged"]]
    segment = judged["record_id"].isin(points["record_id"]).cumsum()
    for _, part in judged.groupby(segment):
        level = np.exp(part["log_s"].median()) * MS
        ax.hlines(level, part["started_at"].iloc[0], part["started_at"].iloc[-1], color=LEVEL, lw=2, zorder=2.5)


def _between(rows: pd.DataFrame, record_id: str) -> pd.Timestamp:
    """Midway between the run before a record and it: somewhere there something changed."""
    place = int(np.flatnonzero(rows["record_id"] == record_id)[0])
    before, after = rows["started_at"].iloc[[max(place - 1, 0), place]]
    middle: pd.Timestamp = before + (after - before) / 2
    return middle


def _notes(ax: Axes, rows: pd.DataFrame) -> list[str]:
    """Letters above dotted lines where something else changed, the last ones if there are many, and what they stand for."""
    told = rows[rows["changed"] != ""].tail(MOST_NOTES)
    notes = []
    for letter, row in zip(ascii_lowercase, told.itertuples(), strict=False):
        at = _between(rows, row.record_id)
        ax.axvline(at, color="0.45", lw=1, ls=":", zorder=1.5)
        ax.annotate(
            letter, (at, 1), (0, 2), xycoords=("data", "axes fraction"), textcoords="offset points", ha="center"
        )
        notes.append(f"{letter}: {_short(row.changed)}")
    return notes


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_NOTE else text[: LONGEST_NOTE - 1] + "…"


def _legend(rows: pd.DataFrame, points: pd.DataFrame) -> list[str]:
    """What marks mean, of those that are there, in lines that fit."""
    confirmed = points["verdict"] != "unconfirmed"
    others = sorted(set(rows["provenance"].astype("str")) - {"measured"})
    references = rows["reference"].dropna()
    said = {
        **{_short(f"relative to {text}"): True for text in references.head(1)},
        "black: levels": True,
        "coloured line: change": confirmed.any(),
        "amber line: newest run off, unconfirmed": (~confirmed).any(),
        "grey: unstable, left out": not rows["judged"].all(),
        f"hollow: {', '.join(others)}": bool(others),
        "dotted: other changes": "changed" in rows and (rows["changed"] != "").any(),
    }
    lines = [""]
    for text in (text for text, shown in said.items() if shown):
        longer = f"{lines[-1]}; {text}".removeprefix("; ")
        lines = [*lines[:-1], longer] if len(longer) <= LONGEST_NOTE else [*lines, text]
    return lines


def _dates(ax: Axes) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=3, maxticks=6)
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    ax.margins(x=0.04, y=0.15)
