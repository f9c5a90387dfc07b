"""Tables and sentences about runs: computed from them, in human units."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from labbench.switching.policies import ExpectedFinish
from labbench.switching.run import Run, hindsight
from labbench.words import count, listed, percent, seconds

if TYPE_CHECKING:
    import pandas as pd

    from labbench.switching.options import Option

AGREES = 0.2  # simulated and measured: within 20 % of each other
PERCENTILE_REQUESTS = 1000  # a p99 of fewer answers is one of their ten slowest


def summaries(runs: Iterable[Run]) -> pd.DataFrame:
    """:meth:`Run.summary` of each, SI units."""
    import pandas as pd

    return pd.DataFrame([run.summary() for run in runs])


def option_table(options: Sequence[Option]) -> pd.DataFrame:
    """What is known of each backend before the runs."""
    import numpy as np
    import pandas as pd

    return pd.DataFrame(
        {
            "backend": [one.name for one in options],
            "calls measured": [len(one.samples_s) for one in options],
            "median": [seconds(one.usual_s) for one in options],
            "p99": [seconds(float(np.percentile(one.samples_s, 99))) for one in options],
            "cold start": [seconds(one.cold_start_s) for one in options],
        }
    )


def run_table(runs: Iterable[Run]) -> pd.DataFrame:
    """One row a run, for people."""
    table = summaries(runs)
    for name in ("p50", "p99", "mean"):
        table[f"{name}_s"] = table[f"{name}_s"].map(seconds)
    return table.rename(columns={"p50_s": "median", "p99_s": "p99", "mean_s": "mean"})


def agreement(runs: Iterable[Run]) -> pd.DataFrame:
    """Simulated beside measured runs of each policy on the same trace.

    Columns: ``policy``, ``p99_simulated_s``, ``p99_measured_s``, ``answered_simulated``, ``answered_measured``, ``p99_ratio`` and
    ``answered_ratio`` (measured over simulated), ``agrees`` (both within 20 %). Policies with one of the two only are left out.
    """
    table = summaries(runs)[["policy", "provenance", "p99_s", "answered"]]
    kinds = [table[table["provenance"] == kind].drop(columns="provenance") for kind in ("simulated", "measured")]
    both = kinds[0].merge(kinds[1], on="policy", suffixes=("_simulated", "_measured"))
    both.columns = both.columns.str.replace(r"p99_s_(\w+)", r"p99_\1_s", regex=True)
    both["p99_ratio"] = both["p99_measured_s"] / both["p99_simulated_s"]
    both["answered_ratio"] = both["answered_measured"] / both["answered_simulated"]
    off = both[["p99_ratio", "answered_ratio"]]
    both["agrees"] = ((off <= 1 + AGREES) & (off >= 1 / (1 + AGREES))).all(axis=1)
    return both


def retold(runs: Iterable[Run]) -> list[Run]:
    """The measured runs, each with a simulation of the machine as it was during it (:func:`hindsight`)."""
    return [one for run in runs if run.provenance == "measured" for one in (hindsight(run), run)]


def agreement_sentences(runs: Sequence[Run]) -> str:
    """Whether simulation and reality agree: by what was known before, and in hindsight (:func:`retold`)."""
    if {run.provenance for run in runs} != {"simulated", "measured"}:
        return "Nothing was run both simulated and live, so there is nothing to hold the simulation against."
    return f"Forecast: {_agreement(runs)}\nIn hindsight: {_agreement(retold(runs))}"


def _agreement(runs: Sequence[Run]) -> str:
    table = agreement(runs)
    worst = table.loc[(table["p99_ratio"].map(lambda ratio: max(ratio, 1 / ratio))).idxmax()]
    rest = "" if table["agrees"].all() else f"; not for {listed(table.loc[~table['agrees'], 'policy'].tolist())}"
    return (
        f"p99 and answered requests of simulation and reality are within {percent(AGREES)} of each other for "
        f"{int(table['agrees'].sum())} of {count(len(table), 'policy', 'policies')}{rest}. The p99 furthest apart is that of "
        f"{worst['policy']}: {seconds(worst['p99_measured_s'])} measured, {seconds(worst['p99_simulated_s'])} simulated."
    )


def policy_sentence(runs: Sequence[Run]) -> str:
    """Whether routing by expected finish has the lowest p99, and against which policies it has not; by provenance."""
    table, told = summaries(runs), []
    for kind, rows in table.groupby("provenance", sort=False):
        p99 = rows.set_index("policy")["p99_s"]
        if ExpectedFinish.name not in p99 or len(p99) < 2:
            continue
        own, others = p99[ExpectedFinish.name], p99.drop(ExpectedFinish.name)
        better = [f"{name}'s ({seconds(value)})" for name, value in others.items() if own < value]
        worse = [f"{name}'s ({seconds(value)})" for name, value in others.items() if not own < value]
        sides = [f"below {listed(better)}"] * bool(better) + [f"not below {listed(worse)}"] * bool(worse)
        told.append(f"{kind.capitalize()}, p99 of {ExpectedFinish.name} is {seconds(own)}, {', but '.join(sides)}.")
    few = int(table["answered"].min())
    if told and 0 < few < PERCENTILE_REQUESTS:
        slowest = "the slowest" if few < 200 else f"the {few // 100} slowest"
        told.append(f"A p99 of {few:,} answers rests on {slowest}: take small differences for chance.")
    return " ".join(told)


def loss_sentence(runs: Iterable[Run]) -> str:
    """What became of the accepted requests of all runs, by provenance."""
    told = []
    for kind, rows in summaries(runs).groupby("provenance", sort=False):
        lost, accepted, retried, refused = (
            int(rows[name].sum()) for name in ("lost", "accepted", "retried", "refused")
        )
        if lost:
            by = listed(
                [f"{number:,} by {name}" for name, number in zip(rows["policy"], rows["lost"], strict=True) if number]
            )
            text = f"of {accepted:,} accepted requests {lost:,} were not answered within the limit ({by})"
        else:
            text = f"all {accepted:,} accepted requests were answered within the limit"
        text += f", {retried:,} of them after an attempt that failed" if retried and not lost else ""
        text += f"; {retried:,} were answered after an attempt that failed" if retried and lost else ""
        text += f"; {refused:,} more were refused before they were accepted" if refused else ""
        told.append(f"{kind.capitalize()}, {text}.")
    return " ".join(told)


def log_sentence(run: Run) -> str:
    """What happened to the backends during a run, in order."""
    words = {"died": "died", "started": "was there again", "opened": "was cut off", "closed": "got requests again"}
    lines: list[str] = [f"{row.backend} {words[str(row.what)]} at {row.at_s:.2f} s" for row in run.log.itertuples()]
    return f"{listed(lines)}." if lines else "No backend failed."


def overhead_sentence(runs: Iterable[Run]) -> str:
    """What dispatching costs, live, at most in any of the runs."""
    found = [run.overhead() for run in runs if run.provenance == "measured"]
    if not found:
        return ""
    worst = {name: max(one[name] for one in found) for name in found[0]}
    return (
        f"Generating, dispatching and looking after the workers took at most {seconds(worst['cpu_per_request_s'])} of processor "
        f"time a request; a request was seen {seconds(worst['lag_p50_s'])} after its arrival in the median "
        f"(p99 {seconds(worst['lag_p99_s'])}), and a call spent {seconds(worst['transport_p50_s'])} outside its worker "
        f"(p99 {seconds(worst['transport_p99_s'])})."
    )
