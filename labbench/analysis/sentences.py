"""Sentences computed from data, in Markdown, for the reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from labbench.analysis.matrix import Coverage


def count(number: int, noun: str) -> str:
    """``1 model``, ``3 models``, ``no model``."""
    return f"no {noun}" if number == 0 else f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def collected(coverage: Coverage, frame: pd.DataFrame) -> str:
    """What was measured, and how far it can be trusted."""
    if frame.empty:
        return "Nothing was measured."
    rows = frame[frame["primary"]]
    total = sum(coverage.counts.values())
    text = (
        f"The store holds {count(total, 'record')} of {count(rows['model'].nunique(), 'model')} on "
        f"{count(rows['platform'].nunique(), 'platform')}; **{coverage.share_ok:.0%} are ok**."
    )
    ok = rows[rows["status"] == "ok"]
    if len(ok):
        quiet = int((ok["noise"] == "quiet").sum())
        slow = int((frame["stop_reason"] == "time_budget").sum())
        text += f" {quiet} of {len(ok)} were measured in quiet; {count(slow, 'series').replace('seriess', 'series')} "
        text += (
            "ended by its time budget before the interval was as narrow as asked."
            if slow == 1
            else ("ended by their time budget before the interval was as narrow as asked.")
        )
    return text


def winners(best: pd.DataFrame) -> str:
    """Which platform is fastest for how many workloads, and how many leads are real."""
    if best.empty:
        return "There is nothing to compare."
    contested = best[best["runner_up"].notna()]
    if contested.empty:
        return "Every workload ran on one platform only, so there is nothing to compare."
    wins = contested["platform"].astype("str").value_counts()
    first, times = wins.index[0], int(wins.iloc[0])
    real = int(contested["real"].sum())
    others = ", ".join(f"`{name}` {n}" for name, n in wins.iloc[1:].items())
    text = f"**`{first}` is fastest in {times} of {len(contested)} comparisons**" + (f" ({others})" if others else "")
    return (
        text
        + f"; {real} of the {len(contested)} leads over the next platform are real, the others are within chance or 2 %."
    )


def speedups(table: pd.DataFrame, baseline: str) -> str:
    """The geometric-mean speed-up of the best platform, with its interval."""
    if table.empty:
        return f"No platform can be compared with `{baseline}`."
    parts = [
        f"`{r.platform}` **×{r.speedup:.2f}** ({r.ci_low:.2f} to {r.ci_high:.2f})"
        for r in table.itertuples(index=False)
    ]
    return f"Geometric-mean speed-up over `{baseline}`: " + ", ".join(parts) + "."


def bounds(placed: pd.DataFrame) -> str:
    """What bounds how many cells."""
    if placed.empty:
        return "No record has a footprint to place on the roofline."
    counts = placed["bound"].value_counts()
    listed = ", ".join(f"{int(n)} by {name}" for name, n in counts.items() if name != "unexplained")
    rest = int(counts.get("unexplained", 0))
    tail = f"; for {rest} the counted demand explains less than a tenth of the time" if rest else ""
    middle = placed["achieved_flops"].div(placed["peak_flops"]).median()
    return (
        f"Of {count(len(placed), 'series').replace('seriess', 'series')}, bounded: {listed or 'none'}{tail}. "
        f"The median one reaches {middle:.0%} of the measured matrix-product rate."
    )


def payback(table: pd.DataFrame) -> str:
    """After how many calls a costly preparation has paid for itself."""
    finite = table.dropna(subset=["calls_to_pay_back"])
    if finite.empty:
        return "No other platform is both slower to prepare and faster to run than the baseline."
    middle = finite.groupby("platform", observed=True)["calls_to_pay_back"].median().sort_values()
    listed = ", ".join(f"`{name}` after {n:,.0f} calls" for name, n in middle.items())
    return f"Preparation has paid for itself (median over models): {listed}."


def failures(coverage: Coverage) -> str:
    """What could not run, and why."""
    if coverage.reasons.empty:
        return "Every cell ran."
    lines = [f"- `{r.model}` on `{r.platform}`: {r.status}: {r.reason}" for r in coverage.reasons.itertuples()]
    return f"{count(len(lines), 'cell')} did not run:\n\n" + "\n".join(lines)
