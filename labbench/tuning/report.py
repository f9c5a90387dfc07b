"""What tuning found, in sentences and tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labbench.analysis.few import MOST_ROWS
from labbench.tuning import largest_batch
from labbench.tuning.studies import USUAL, ratios
from labbench.words import count, digits, listed, size

if TYPE_CHECKING:
    import pandas as pd

    from labbench.tuning.largest_batch import LargestBatch
    from labbench.tuning.studies import Tuning


def largest(found: list[LargestBatch]) -> str:
    """The largest batch of each model, and how many probes it took."""
    if not found:
        return "No cell was asked about."
    told = [f"`{one.cell.workload.model}` **{one.batch_size:,}**" for one in found if one.batch_size]
    limit = size(found[0].limit_bytes)
    none = [f"`{one.cell.workload.model}`" for one in found if not one.batch_size]
    text = f"Into {limit} fit batches of {listed(told)}" if told else f"Nothing fits into {limit}"
    text += f"; not even one sample of {listed(none)}" if none and told else ""
    probes = sum(len(one.probes) for one in found)
    return f"{text}. That took {count(probes, 'probe')}, {max(len(one.probes) for one in found)} for one model at most."


def probe_table(found: list[LargestBatch]) -> pd.DataFrame:
    """Every probe in human units, at most 100."""
    rows = largest_batch.probe_table(found).head(MOST_ROWS)
    rows["peak"] = [size(value) if value == value else "–" for value in rows["bytes"].astype(float)]
    rows["limit"] = [size(value) for value in rows["limit_bytes"]]
    rows["reason"] = rows["reason"].fillna("")
    rows["fits"] = rows["fits"].map({True: "yes", False: "no"})
    return rows[["model", "probe", "batch_size", "peak", "limit", "fits", "reason"]].rename(
        columns={"batch_size": "batch"}
    )


def batches(table: pd.DataFrame) -> str:
    """The fastest batch of each model, and the smallest that comes within a tenth of it."""
    if table.empty:
        return "No batch size was measured."
    told = []
    for model, part in table.groupby("model", sort=True):
        best = part.loc[part["throughput"].idxmax()]
        enough = part[part["throughput"] >= 0.9 * best["throughput"]].sort_values("memory_bytes").iloc[0]
        text = f"`{model}` is fastest with batches of **{best['batch_size']:,}**"
        if enough["batch_size"] != best["batch_size"]:
            saved = 1 - enough["memory_bytes"] / best["memory_bytes"]
            text += f"; batches of {enough['batch_size']:,} come within a tenth of it with {saved:.0%} less memory"
        told.append(text)
    return ". ".join(told) + "."


def tuned(found: Tuning) -> str:
    """How much sooner the tuned settings reach the target than the usual one, and what the search cost."""
    of = ratios(found.judged)
    spent = found.judged.groupby("setting")["spent_s"].median()
    usual = found.judged.loc[found.judged["setting"] == USUAL, "seconds"].median()
    text = (
        f"What TPE found reaches the target in **{of['tpe'].median():.2f} of the usual setting's time** in the median of "
        f"{count(len(of), 'search', 'searches')} ({of['tpe'].min():.2f} to {of['tpe'].max():.2f}); random search with as many "
        f"trials {of['random'].median():.2f}."
    )
    return (
        f"{text} A search took {digits(spent['tpe'])} s of training ({digits(spent['random'])} s at random); the usual setting "
        f"reaches the target in {digits(usual)} s, so a search pays if one trains often, or for longer than this."
    )


def tuned_table(found: Tuning) -> pd.DataFrame:
    """Each search's setting beside the usual one, with the median time to the target."""
    import pandas as pd

    keys = ["seed", "setting", "batch_size", "learning_rate", "spent_s"]
    rows = (
        found.judged.groupby(keys, sort=False)
        .agg(seconds=("seconds", "median"), reached=("reached", "all"))
        .reset_index()
    )
    return pd.DataFrame(
        {
            "search": rows["seed"],
            "setting": rows["setting"],
            "batch": rows["batch_size"],
            "learning rate": [digits(value) for value in rows["learning_rate"]],
            "s to the target": [digits(value) for value in rows["seconds"]],
            "always reached": rows["reached"].map({True: "yes", False: "no"}),
            "s of search": ["–" if not value else digits(value) for value in rows["spent_s"]],
        }
    )
