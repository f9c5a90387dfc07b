"""What holds cells back, in sentences and tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labbench.analysis.labels import place, work
from labbench.words import about, count, digits, listed, percent

if TYPE_CHECKING:
    import pandas as pd

MS = 1e3
WAITS = {
    "compute": "the cores",
    "memory": "main memory",
    "dispatch": "the dispatch of operators",
    "preparation": "preparation",
}
HELPS = {
    "compute": "more threads, a lower precision, a runtime with faster kernels",
    "memory": "a lower precision, a runtime that fuses operators; more threads help little",
    "dispatch": "a larger batch, a runtime that compiles the graph; more threads do not help",
    "preparation": "more calls a start, a runtime that prepares less",
    "unexplained": "a profile: `labbench run --profile`",
}


def overview(found: pd.DataFrame) -> str:
    """What how many series wait for, how sure that is, and on what evidence."""
    if found.empty:
        return "No record has a footprint to place on the roofline."
    counts = found["bottleneck"].value_counts()
    told = [f"{counts[name]} for {what}" for name, what in WAITS.items() if counts.get(name)]
    text = (
        f"What {count(len(found), 'series', 'series')} wait for most: {listed([f'**{told[0]}**', *told[1:]])}."
        if told
        else ""
    )
    rest = int(counts.get("unexplained", 0))
    text += f" For {rest} the counted demand explains less than a tenth of the time." if rest else ""
    profiled = int((found["evidence"] == "profile").sum())
    text += f" {profiled or 'None'} of them {'were' if profiled > 1 else 'was'} profiled"
    text += (
        ""
        if profiled == len(found)
        else ", the others are placed by counts alone (`labbench run --profile` tells more)"
    )
    sure = found["confidence"].value_counts()
    text += f". Confidence is {listed([f'{name} in {sure[name]}' for name in ('high', 'medium', 'low') if sure.get(name)])}."
    known = found["achieved_flops"].div(found["peak_flops"]).dropna()
    if len(known):
        text += f" The median series reaches {percent(known.median())} of the measured matrix-product rate."
    above = found[found["achieved_flops"] > found["peak_flops"]]
    if len(above):
        models = listed(sorted(f"`{name}`" for name in above["model"].astype("str").unique()))
        text += f" {len(above)} exceed it ({models}), by faster kernels or fewer operations than were counted."
    return text.strip()


def helps(found: pd.DataFrame) -> str:
    """What helps against each bottleneck that was found."""
    kinds = [name for name in HELPS if (found["bottleneck"] == name).any()]
    return "\n".join(f"- *{name.capitalize()}*: {HELPS[name]}." for name in kinds)


def table(found: pd.DataFrame) -> pd.DataFrame:
    """Every attribution with its evidence."""
    import pandas as pd

    rows = list(found.itertuples(index=False))
    return pd.DataFrame(
        {
            "model": work(found),
            "series": found["series"].astype("str"),
            "platform": place(found),
            "batch": found["batch_size"],
            "ms": [digits(row.latency_s * MS) for row in rows],
            "waits for": found["bottleneck"],
            "share": [percent(row.share) for row in rows],
            "most in": found["main_class"].where(found["main_class"] != "", "–"),
            "of ceiling": [percent(row.reached) if row.reached == row.reached else "–" for row in rows],
            "evidence": found["evidence"],
            "confidence": found["confidence"],
            "starting takes as long as": [f"{about(row.break_even_calls)} calls" for row in rows],
        }
    )
