"""Histories and regressions in sentences and tables: what changed over time, in human units and words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from labbench.analysis.few import MOST_ROWS
from labbench.analysis.labels import place, work
from labbench.analysis.segments import MIN_RUNS
from labbench.words import count, digits, listed, percent

if TYPE_CHECKING:
    import pandas as pd

MS = 1e3
MOST_NAMED = 5  # in a sentence
MUCH = 0.02  # scatter from run to run beyond which a change of 5 % is not seen after a few runs
USUAL_SERIES = ("forward", "step")  # the only series of a record: its name says nothing more


def names(table: pd.DataFrame) -> pd.Series:
    """What was run, in words: model, size of the input, batch, and mode, series and provenance where they are not the usual."""
    text = work(table) + " · batch " + table["batch_size"].astype("str")
    for column, usual in (("mode", ("inference",)), ("series", USUAL_SERIES), ("provenance", ("measured",))):
        values = table[column].astype("str")
        told = table[column].notna() & ~values.isin(usual)
        text = text.mask(told, text + " · " + values)
    return text


# --- sentences --------------------------------------------------------------------------------------------------------


def changed(points: pd.DataFrame, runs: pd.DataFrame) -> str:
    """How many cells changed their speed for good, which most, and what could not be judged."""
    if runs.empty:
        return "Nothing that is stored ran, so there is no history."
    sizes = runs[runs["judged"]].groupby("history").size()
    long = int((sizes >= 2 * MIN_RUNS).sum())
    total = runs["history"].nunique()
    if len(runs) == total:
        cells = runs["record_id"].nunique()
        return (
            f"There is no history yet: {'the' if cells == 1 else 'each of the'} {count(cells, 'cell')} was run once. "
            "A change can be told from chance after two runs on each side of it (`labbench run --rerun`)."
        )
    real = points[points["verdict"] != "unconfirmed"]
    text = f"**{count(real['history'].nunique(), 'cell')} of {total:,} changed** over {count(len(runs), 'run')}"
    parts = [f"{n} {name}" for name in ("slower", "faster") if (n := int((real["verdict"] == name).sum()))]
    text += f": {count(len(real), 'change')}, {listed(parts)}." if parts else "."
    if len(real):
        text += f" The largest is {_shift(real.loc[(real['ratio'] - 1).abs().idxmax()], real)}."
    return text + _relative(runs) + _visible(runs) + _left_out(points, runs, total - long)


def _relative(runs: pd.DataFrame) -> str:
    """Which levels are ratios to a reference, and what that runs on."""
    known = runs[runs["reference"].notna()]
    if known.empty:
        return ""
    counts = known.groupby("reference")["history"].nunique().sort_values(ascending=False)
    named = [f"{text} ({count(int(n), 'history', 'histories')})" for text, n in counts.head(MOST_NAMED).items()]
    rest = [f"{len(counts) - MOST_NAMED:,} more"] if len(counts) > MOST_NAMED else []
    return (
        f" The levels of {count(known['history'].nunique(), 'history', 'histories')} are relative to a reference measured in "
        f"turn, times its median latency: {'; '.join(named + rest)}."
    )


def _visible(runs: pd.DataFrame) -> str:
    """How much neighbouring runs differ, and so from which size on a lasting change can be told from chance."""
    paired = runs["reference"].notna()
    return _scatter(runs[paired], "the ratio to the reference") + _scatter(runs[~paired], "latency")


def _scatter(runs: pd.DataFrame, what: str) -> str:
    import numpy as np

    known = runs[runs["judged"]].sort_values(["history", "started_at"], kind="stable")
    steps = known.groupby("history")["log_s"].diff().abs().dropna()
    if len(steps) < 2 * MIN_RUNS:
        return ""
    scatter = float(np.median(steps)) * 1.4826 / np.sqrt(2)  # of one run, if steps are normal and changes are rare
    text = (
        f" From run to run {what} scatters by {percent(scatter)}, so a lasting change must be about {percent(3 * scatter)} "
        "to be seen after a few runs."
    )
    if scatter < MUCH or known["reference"].notna().any():
        return text
    return (
        text
        + " What the machine does meanwhile cancels if cells are measured beside a reference: `labbench run --reference PYTHON`."
    )


def _left_out(points: pd.DataFrame, runs: pd.DataFrame, short: int) -> str:
    """What no judgement was made on, or none yet."""
    text = ""
    if newest := int((points["verdict"] == "unconfirmed").sum()):
        text += f" The newest run of {count(newest, 'cell')} is off, which one run alone cannot confirm."
    if short:
        text += f" {count(short, 'history', 'histories').capitalize()} with fewer than {2 * MIN_RUNS} runs cannot show a change."
    if unstable := int(((runs["noise"] == "unstable") & ~runs["judged"]).sum()):
        text += f" {count(unstable, 'run').capitalize()} on an unstable machine {'is' if unstable == 1 else 'are'} left out."
    if undated := int(runs["started_at"].isna().sum()):
        text += f" Of {count(undated, 'run')} nobody knows when it was."
    return text


def _shift(row: Any, table: pd.DataFrame) -> str:
    name = names(table)[row.name]
    return (
        f"`{name}` on `{row['platform']}`, {_change(row['ratio'])} ({_change(row['ci_low'])} to {_change(row['ci_high'])}) "
        f"on {row['at']:%-d %B %Y}"
    )


def _change(ratio: float) -> str:
    """A ratio of latencies as a change: ``+5.1 %``."""
    return f"{ratio - 1:+.1%}".replace("%", " %").replace("-", "−")


def attribution(shifts: pd.DataFrame, causes: pd.Series) -> str:
    """What else changed when cells did: a line for each cause, with the cells it may explain.

    Parameters
    ----------
    shifts : DataFrame
        Change points, or rows of :func:`labbench.analysis.regressions.regressions`.
    causes : Series
        In words, of those that are to be told; same labels.
    """
    told = shifts.assign(cause=causes, name=names(shifts))
    told = told[told["cause"].notna() & (told["cause"] != "")]
    if told.empty:
        return "Nothing changed, so there is nothing to explain."
    lines = []
    for cause, part in sorted(told.groupby("cause", sort=False), key=lambda pair: -len(pair[1]))[:MOST_ROWS]:
        cells = [
            f"`{r.name}` on `{r.platform}` ({_change(r.ratio) if r.ratio == r.ratio else 'no longer runs'})"
            for r in part.head(MOST_NAMED).itertuples(index=False)
        ]
        rest = [f"{len(part) - MOST_NAMED:,} more"] if len(part) > MOST_NAMED else []
        lines.append(f"- {listed(cells + rest)}: {cause}.")
    return "What else changed at the same time:\n\n" + "\n".join(lines)


def regressed(table: pd.DataFrame, fail_on: float, baseline: str | None) -> str:
    """How many cells regressed, and what could not be judged, with the reasons."""
    against = f"baseline `{baseline}`" if baseline else "the run before"
    if table.empty:
        return f"No cell ran, so there is nothing to hold against {against}."
    judged = table[table["verdict"] != "not judged"]
    bad = table[table["regressed"]]
    silent = table[(table["verdict"] == "not judged") & ~table["regressed"]]
    why = silent["reason"].value_counts()
    reasons = [f"{reason} ({n:,})" for reason, n in why.items()]
    if len(silent) == len(table):
        return f"**No cell could be held against {against}**: {listed(reasons if len(why) > 1 else list(why.index))}."
    failed = int((bad["verdict"] == "not judged").sum())
    text = f"**{count(len(bad), 'regression').capitalize()}** against {against}"
    text += f" (slower beyond chance and by at least {percent(fail_on)}, or no longer running)"
    text += f"; {failed} of them no longer {'runs' if failed == 1 else 'run'}." if failed else "."
    if len(judged):
        counts = judged["verdict"].value_counts()
        parts = [f"{counts[name]:,} {name}" for name in ("slower", "faster", "same", "undecided") if counts.get(name)]
        text += f" Of {count(len(table), 'cell')}, {len(judged):,} were judged: {listed(parts)}."
    return text + (f" Not judged: {listed(reasons)}." if reasons else "")


# --- tables -----------------------------------------------------------------------------------------------------------


def change_table(points: pd.DataFrame) -> pd.DataFrame:
    """Change points for people, the largest first, unconfirmed ones last; at most 100."""
    import pandas as pd

    order = points.assign(open=points["verdict"] == "unconfirmed", size=-(points["ratio"].astype(float) - 1).abs())
    rows = order.sort_values(["open", "size"], kind="stable").head(MOST_ROWS)
    return pd.DataFrame(
        {
            "what": names(rows),
            "platform": place(rows),
            "since": [f"{at:%Y-%m-%d %H:%M}" for at in rows["at"]],
            "change": [_change(value) for value in rows["ratio"]],
            "95 % interval": _intervals(rows),
            "ms before": [digits(value * MS) for value in rows["mean_before_s"]],
            "ms after": [digits(value * MS) for value in rows["mean_after_s"]],
            "runs": [f"{r.runs_before} + {r.runs_after}" for r in rows.itertuples()],
            "verdict": rows["verdict"],
            **_relative_to(rows),
        }
    ).reset_index(drop=True)


def _intervals(rows: pd.DataFrame) -> list[str]:
    return [
        f"{_change(low)} to {_change(high)}" if low == low else "–"
        for low, high in zip(rows["ci_low"], rows["ci_high"], strict=True)
    ]


def regression_table(table: pd.DataFrame) -> pd.DataFrame:
    """Regressions first, then what was judged besides from slower to faster, at most 100 rows; :func:`regressed` tells the rest."""
    import pandas as pd

    rows = table[table["regressed"] | (table["verdict"] != "not judged")].head(MOST_ROWS)
    reasons = rows["reason"].astype(object).fillna("")
    return pd.DataFrame(
        {
            "what": names(rows),
            "platform": place(rows),
            "ms before": [digits(value * MS) for value in rows["latency_baseline_s"]],
            "ms": [digits(value * MS) for value in rows["latency_s"]],
            "change": ["–" if value != value else _change(value) for value in rows["ratio"]],
            "95 % interval": _intervals(rows),
            "verdict": ["regressed" if r.regressed else r.verdict for r in rows.itertuples()],
            **({"reason": reasons} if reasons.any() else {}),
            **_relative_to(rows),
        }
    )


def _relative_to(rows: pd.DataFrame) -> dict[str, pd.Series]:
    """A column that names the references, if there are any."""
    texts = rows["reference"].astype(object)
    return {"relative to": texts.fillna("")} if texts.notna().any() else {}
