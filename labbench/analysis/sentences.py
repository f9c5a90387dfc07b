"""Sentences computed from data, in Markdown, for the reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labbench.analysis.labels import work
from labbench.analysis.ratio import VERDICTS
from labbench.analysis.tables import CHANGED, evidence
from labbench.words import about, count, listed, percent, seconds

if TYPE_CHECKING:
    import pandas as pd

    from labbench.analysis.matrix import Coverage

MOST_ADVICE = 10  # sentences; the table has all
MOST_FAILURES = 100  # told one by one


def collected(coverage: Coverage, frame: pd.DataFrame) -> str:
    """What was measured, and how far it can be trusted."""
    if frame.empty:
        return "Nothing was measured."
    rows = frame[frame["primary"]]
    total = sum(coverage.counts.values())
    text = (
        f"The store holds {count(total, 'record')} of {count(rows['model'].nunique(), 'model')} on "
        f"{count(rows['platform'].nunique(), 'platform')}; **{percent(coverage.share_ok)} are ok**."
    )
    noise = rows.loc[rows["status"] == "ok", "noise"].dropna().astype("str").value_counts()
    if len(noise):
        text += f" The machine was quiet during {noise.get('quiet', 0)} of {noise.sum()}"
        text += f", noisy during {noise['noisy']}" if noise.get("noisy") else ""
        text += f", unstable during {noise['unstable']}" if noise.get("unstable") else ""
        text += "."
    slow = int((frame["stop_reason"] == "time_budget").sum())
    if slow:
        text += f" The time budget of {slow} series ended before the interval was as narrow as asked."
    return text


def winners(best: pd.DataFrame) -> str:
    """Which platform is clearly fastest how often; leads that may be chance are nobody's."""
    if best.empty:
        return "There is nothing to compare."
    contested = best[best["runner_up"].notna()]
    if contested.empty:
        return "Every workload ran on one platform only, so there is nothing to compare."
    clear = contested[contested["real"].astype(bool)]
    wins = clear["platform"].astype("str").value_counts()
    names = listed([f"`{name}` in {times:,}" for name, times in wins.items()])
    of = count(len(contested), "comparison")
    text = f"**One platform is clearly the fastest in {len(clear):,} of {of}**: {names}."
    text = text if names else f"**No platform is clearly the fastest in any of {of}**."
    judged = contested["p_value"].notna()
    open_ = contested[judged & ~contested["real"].astype(bool)]
    if unjudged := int((~judged).sum()):
        text += f" In {unjudged:,} there are no samples to judge the lead by."
    if len(open_):
        unstable = int(open_["unstable"].sum())
        text += f" In {len(open_):,} the lead over the next is within chance or 2 %"
        text += f", or the machine was unstable ({unstable:,})." if unstable else "."
    return text


def left_out(everything: pd.DataFrame, shown: pd.DataFrame) -> str:
    """What of very many results a page shows (:func:`labbench.analysis.few.at_most`), as a further sentence; empty if all."""
    if len(shown) == len(everything):
        return ""
    return (
        f" Of {len(everything):,} results {len(shown):,} are shown and compared here: those at the smallest batch sizes of "
        f"{count(shown['model'].nunique(), 'model')}. `labbench compare` and `labbench show` take all."
    )


def speedups(totals: pd.DataFrame, comparison: pd.DataFrame, by: str = "platform") -> str:
    """The geometric-mean speed-up of each platform (or what else is compared), with its interval."""
    if totals.empty and len(comparison):
        return f"In all of {count(len(comparison), 'comparison')} the machine was unstable, so no speed-up is told."
    if totals.empty:
        return f"No two results that differ in {by.replace('_', ' ')} alone can be compared."
    parts = [
        f"`{name}` **×{r.speedup:.2f}**" + (f" ({r.ci_low:.2f} to {r.ci_high:.2f})" if r.ci_low == r.ci_low else "")
        for name, r in zip(totals[by], totals.itertuples(index=False), strict=True)
    ]
    return f"Geometric-mean speed-up over `{comparison['baseline'].iloc[0]}`: {', '.join(parts)}."


def verdicts(comparison: pd.DataFrame) -> str:
    """How many comparisons are decided, what would decide the others, and what is not alike."""
    if comparison.empty:
        return "There is nothing to judge."
    judged = comparison[comparison["p_value"].notna()]
    text = f"Of {count(len(comparison), 'comparison')}, {f'{len(judged):,}' if len(judged) else 'none'} can be judged by samples"
    if len(judged):
        counts = judged["verdict"].value_counts()
        told = [f"{counts[name]:,} {name}" for name in VERDICTS if counts.get(name)]
        text += f": {listed(told)}"
    text += "."
    open_ = judged[(judged["verdict"] == "undecided") & ~judged["unstable"].astype(bool)]
    finite = open_["more_samples"][open_["more_samples"] < float("inf")]
    if len(finite):
        text += (
            f" Of the undecided, {len(finite):,} would be decided by more samples on each side, half of them by "
            f"{about(finite.median())} or fewer (`labbench run --rerun --protocol thorough`)."
        )
    if unstable := int(judged["unstable"].sum()):
        text += f" In {unstable:,} the machine was unstable, so nothing is concluded."
    others = comparison["differs"][comparison["differs"] != ""]
    if len(others):
        kinds = others.str.split(", ").explode().value_counts()
        text += (
            f" Not everything is alike in {len(others):,}: {listed([f'{name} ({n:,})' for name, n in kinds.items()])}."
        )
    return text


def payback(table: pd.DataFrame) -> str:
    """After how many calls a costly preparation has paid for itself."""
    if table.empty:
        return "No workload has known starting costs on the baseline platform and on another one."
    finite = table.dropna(subset=["calls_to_pay_back"])
    if finite.empty:
        return "No other platform is faster to run than the baseline, so none pays for its preparation."
    middle = finite.groupby("platform", observed=True)["calls_to_pay_back"].median().sort_values()
    when = [f"after about {about(calls)} calls" if calls >= 1 else "from the first call on" for calls in middle]
    named = listed([f"`{name}` {told}" for name, told in zip(middle.index, when, strict=True)])
    text = f"Preparation has paid for itself (median over models): {named}."
    never = table[table["calls_to_pay_back"].isna()]["platform"].astype("str").value_counts()
    if len(never):
        where = listed([f"{count(n, 'workload')} on `{name}`" for name, n in never.items()])
        text += f" It never does for {where}."
    return text


def failures(coverage: Coverage) -> str:
    """What could not run, and why."""
    if coverage.reasons.empty:
        return "Every cell ran." if coverage.counts else "Nothing was measured."
    told = coverage.reasons.head(MOST_FAILURES).itertuples()
    lines = [f"- `{r.model}` on `{r.platform}`: {r.status.replace('_', ' ')}: {r.reason}" for r in told]
    rest = len(coverage.reasons) - len(lines)
    lines += [f"- and {rest:,} more, which `labbench show` lists"] if rest else []
    return f"{count(len(coverage.reasons), 'cell')} did not run:\n\n" + "\n".join(lines)


def opportunities(best: pd.DataFrame) -> str:
    """The best single change of each model, as advice; the largest gains if there are many."""
    if best.empty:
        return "No single change of what was measured promises a gain."
    lines = []
    shown = best.assign(name=work(best)).nlargest(MOST_ADVICE, "gain")
    for r in shown.itertuples():
        cost = [f"{r.memory_bytes / 1e6:+.0f} MB"] if r.memory_bytes == r.memory_bytes else []
        if r.break_even_calls == r.break_even_calls and r.break_even_calls > 0:
            cost.append(f"{r.one_off_s:.2g} s once, earned after {about(r.break_even_calls)} calls")
        rests = evidence(r)
        what = f"{CHANGED[r.change]} {r.before} → {r.after}"
        name = f"`{r.name}`" + ("" if r.series == "forward" else f" ({r.series})")
        lines.append(
            f"- {name}: **{what}** is {r.gain:.2f} times as fast per item ({r.gain_ci_low:.2f} to {r.gain_ci_high:.2f}; {rests})"
            + (f"; costs {', '.join(cost)}" if cost else "")
        )
    rest = len(best) - len(shown)
    head = f"{count(len(best), 'piece')} of advice" + (", of which those with the largest gain:" if rest else ":")
    return f"{head}\n\n" + "\n".join(lines)


def hit_rate(outcomes: pd.DataFrame) -> str:
    """How often advice kept its promise when it was tested."""
    if outcomes.empty:
        return "None of this advice was tested yet: `labbench verify-advice` does."
    kept = int(outcomes["kept"].sum())
    middle = outcomes["share"].median()
    text = f"Of {count(len(outcomes), 'piece')} of advice that was tested, **{kept} brought at least half of the promised gain**"
    return text + (f"; the median brought {percent(middle)} of it." if middle == middle else ".")


def gaps(pairs: pd.DataFrame) -> str:
    """How complete the matrix of models and platforms is, and how long the rest would take."""
    if pairs.empty:
        return "There is no matrix to complete: nothing was measured."
    missing = pairs[pairs["status"] != "ok"]
    text = f"**{percent(1 - len(missing) / len(pairs))} of {count(len(pairs), 'pair')} of model and platform are complete**."
    if missing.empty:
        return text
    kinds = missing["status"].str.replace("_", " ").value_counts()
    text += f" Missing: {listed([f'{times:,} {name}' for name, times in kinds.items()])}."
    runnable = missing[missing["command"].notna()]
    if len(runnable):
        known = runnable["estimated_s"].dropna()
        text += f" {count(len(runnable), 'command')} would run {count(int(runnable['cells'].sum()), 'cell')}"
        text += f", which takes about {seconds(known.sum())}" if len(known) else ", for how long no record tells"
        unknown = len(runnable) - len(known)
        text += f" without {count(unknown, 'pair')} of unknown duration." if unknown and len(known) else "."
    rest = len(missing) - len(runnable)
    return text + (f" {count(rest, 'pair')} cannot be run by a command: the table says why." if rest else "")
