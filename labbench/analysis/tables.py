"""Tables of the reports: what :mod:`labbench.analysis` computed, in human units and words."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from labbench.analysis.few import MOST_ROWS
from labbench.analysis.labels import place, work
from labbench.analysis.ratio import VERDICTS
from labbench.words import about, digits

if TYPE_CHECKING:
    import pandas as pd

NOISE = ("quiet", "noisy", "unstable")
PHASES = {"prefill": "first token", "decode": "further token"}
MS, MB = 1e3, 1e-6
MOST_FAMILIES = 40  # rows of the table by family
CHANGED = {
    "runtime": "runtime",
    "precision": "precision",
    "batch_size": "batch",
    "threads": "threads",
    "memory_format": "memory format",
    "kv_cache": "KV cache",
}


def noise_table(frame: pd.DataFrame) -> pd.DataFrame:
    """How many records of each platform were measured in quiet, noise, or worse."""
    rows = frame[(frame["status"] == "ok") & frame["primary"]]
    sizes = rows.groupby(["platform", "noise"], observed=True).size().unstack(fill_value=0)
    return sizes.reindex(columns=list(NOISE), fill_value=0).rename_axis(columns=None).reset_index()


def comparison_table(comparison: pd.DataFrame, by: str = "platform") -> pd.DataFrame:
    """Every comparison with its interval, its verdict, and what would decide it."""
    import pandas as pd

    named = comparison.assign(model=work(comparison))
    columns = {name: named[name] for name in dict.fromkeys(("model", "mode", "batch_size", "series", by))}
    rows = list(comparison.itertuples(index=False))
    more = ["" if not r.more_samples > 0 else about(r.more_samples) if r.more_samples < math.inf else "∞" for r in rows]
    return pd.DataFrame(
        {
            **columns,
            "ms": [digits(value * MS) for value in comparison["latency_s"]],
            "speed-up": [f"{value:.3f}×" for value in comparison["speedup"]],
            "95 % interval": [
                "" if r.ci_low != r.ci_low else f"{1 / r.ci_high:.3f} to {1 / r.ci_low:.3f}" for r in rows
            ],
            "verdict": ["undecided (unstable)" if r.unstable else r.verdict for r in rows],
            "samples to decide": more,
            "differs": comparison["differs"],
        }
    )


def advice_table(advice: pd.DataFrame) -> pd.DataFrame:
    """Advice in words: what to change, what it brings, what it costs, how to test it."""
    import pandas as pd

    rows = list(advice.itertuples(index=False))
    return pd.DataFrame(
        {
            "model": work(advice),
            "series": [r.series for r in rows],
            "change": [f"{CHANGED[r.change]}: {r.before} → {r.after}" for r in rows],
            "gain": [f"{r.gain:.2f}×" for r in rows],
            "95 % interval": [_interval(r.gain_ci_low, r.gain_ci_high) for r in rows],
            "rests on": [evidence(r) for r in rows],
            "ms before": [digits(r.latency_s * MS) for r in rows],
            "ms after": [digits(r.latency_after_s * MS) for r in rows],
            "memory": ["–" if r.memory_bytes != r.memory_bytes else f"{r.memory_bytes * MB:+.0f} MB" for r in rows],
            "one-off": ["–" if r.one_off_s != r.one_off_s else f"{r.one_off_s:+.2g} s" for r in rows],
            "pays after calls": [about(r.break_even_calls) for r in rows],
            "output error": [
                f"{r.check_error:.1g} of {r.check_tolerance:g}" if r.check_error == r.check_error else "–" for r in rows
            ],
            "test it": [r.command for r in rows],
        }
    )


def evidence(advice: Any) -> str:
    """What a piece of advice rests on."""
    text = "measurement" if advice.source == "measured" else f"{advice.models} other models"
    return text + (", unstable machine" if advice.unstable else "")


def _interval(low: float, high: float) -> str:
    return f"{low:.2f} to {high:.2f}" if low == low and low > 0 and high < math.inf else "unknown"


def outcome_table(outcomes: pd.DataFrame) -> pd.DataFrame:
    """What advice promised and what came."""
    import pandas as pd

    rows = list(outcomes.itertuples(index=False))
    return pd.DataFrame(
        {
            "model": [r.model for r in rows],
            "series": [r.series for r in rows],
            "change": [CHANGED[r.change] for r in rows],
            "promised": [f"{r.promised:.2f}×" for r in rows],
            "came": ["–" if r.gain != r.gain else f"{r.gain:.2f}×" for r in rows],
            "95 % interval": [_interval(r.gain_ci_low, r.gain_ci_high) for r in rows],
            "kept": ["yes" if r.kept else "no" if r.gain == r.gain else f"no: {r.status} ({r.reason})" for r in rows],
        }
    )


def speedup_table(totals: pd.DataFrame, comparison: pd.DataFrame, by: str = "platform") -> pd.DataFrame:
    """:func:`labbench.analysis.compare.summary` with intervals, verdicts, and what was too unstable to count."""
    import pandas as pd

    unstable = comparison[comparison["unstable"].astype(bool)][by].astype("str").value_counts()
    names = totals[by].astype("str")
    return pd.DataFrame(
        {
            by.replace("_", " "): names,
            **({"family": totals["family"]} if "family" in totals else {}),
            "speed-up": [f"{value:.2f}×" for value in totals["speedup"]],
            "95 % interval": [_interval(r.ci_low, r.ci_high) for r in totals.itertuples()],
            "models": totals["models"],
            "comparisons": totals["workloads"],
            **{name: totals[name] for name in VERDICTS},
            **({} if "family" in totals else {"unstable, left out": names.map(unstable).fillna(0).astype(int)}),
        }
    )


def family_table(comparison: pd.DataFrame, by: str = "platform") -> pd.DataFrame:
    """Geometric-mean speed-ups within the families that have most comparisons, at most 40 rows."""
    from labbench.analysis.compare import summary

    totals = summary(comparison, by, families=True)
    return speedup_table(totals.nlargest(MOST_FAMILIES, "workloads").reset_index(drop=True), comparison, by)


def phase_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Milliseconds to the first token and for every further one: a row a model and phase, a column a platform."""
    import pandas as pd

    rows = frame[frame["series"].isin(list(PHASES))]
    phases = pd.Categorical(rows["series"].astype("str").map(PHASES), list(PHASES.values()), ordered=True)
    table = rows.assign(model=work(rows), platform=place(rows), phase=phases, ms=rows["latency_s"] * MS)
    table = table.pivot_table(index=["model", "phase"], columns="platform", values="ms", observed=True)
    return table.map(digits).rename_axis(columns=None).reset_index().rename(columns={"phase": "milliseconds"})


def memory_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Peak memory above the empty worker over models, in MB."""
    rows = frame[(frame["status"] == "ok") & frame["primary"] & frame["memory_increase_bytes"].notna()]
    rows = rows.assign(model=rows["model"].astype("str"), MB=rows["memory_increase_bytes"].astype(float) * MB)
    groups = rows.groupby(place(rows))
    table = groups["MB"].agg(["min", "median", "max"]).rename_axis("platform").reset_index()
    table.insert(1, "models", groups["model"].nunique().to_numpy())
    table.columns = ["platform", "models", "smallest MB", "median MB", "largest MB"]
    return table.map(lambda value: value if isinstance(value, str) else f"{value:.0f}")


def gaps_table(pairs: pd.DataFrame) -> pd.DataFrame:
    """What is missing in the matrix and the way out; what a command can run first, at most 100 rows."""
    import pandas as pd

    rows = pairs[pairs["status"] != "ok"].sort_values("command", key=lambda column: column.isna(), kind="stable")
    rows = rows.head(MOST_ROWS)
    return pd.DataFrame(
        {
            "model": rows["model"],
            "mode": rows["mode"],
            "platform": rows["platform"],
            "status": rows["status"].str.replace("_", " "),
            "reason": rows["reason"].fillna("–"),
            "cells": rows["cells"].astype(int),
            "about s": rows["estimated_s"].map(digits),
            "way out": rows["way_out"].where(rows["command"].isna(), rows["command"]),
        }
    ).reset_index(drop=True)
