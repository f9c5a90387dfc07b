"""Training steps in sentences and tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from labbench.analysis import training
from labbench.analysis.few import MOST_ROWS
from labbench.analysis.labels import place, work
from labbench.records import CAUSES, PARTS
from labbench.words import count, digits, listed, percent, rate, size

if TYPE_CHECKING:
    import pandas as pd

MS = 1e3
MB = 1e-6
DATA_BOUND = 0.2  # share of a step from which the data loader is worth naming
SUM_GOAL = 0.02  # parts add up to the whole within this


def anatomy(steps: pd.DataFrame) -> str:
    """Where the time of a step goes in the median, which steps wait for data, and whether the parts add up."""
    rows = steps[steps["parts_s"].notna()]
    if rows.empty:
        return "No training step told its parts."
    shares = {
        part: float((rows[f"{part}_s"] / rows["parts_s"]).median()) for part in PARTS if rows[f"{part}_s"].notna().any()
    }
    largest = max(shares, key=lambda part: shares[part])
    text = (
        f"In the median of {count(len(rows), 'step')} the **{largest} takes {percent(shares[largest])}** of the time, the forward "
        f"pass {percent(shares['forward'])}, the optimizer {percent(shares['optimizer'])}; the backward pass takes "
        f"{rows['backward_forward'].median():.2f} times as long as forward pass and loss."
    )
    waiting = rows[(rows["data_s"] / rows["parts_s"]) > DATA_BOUND]
    if len(waiting):
        text += f" {count(len(waiting), 'step')} wait for data: {_named(waiting)} (more loader workers help)."
    off = (rows["told"] - 1).abs()
    median, worst = (percent(float(value)) for value in (off.median(), off.max()))
    text += f" The parts add up to the step within {median} in the median, {worst} at worst."
    if rows["mfu"].notna().any():
        best = rows.loc[rows["mfu"].idxmax()]
        median, most = (percent(float(value)) for value in (rows["mfu"].median(), best["mfu"]))
        text += f" The median MFU is {median} of the measured rate, the best {most} (`{best['model']}`)."
    return text


def _named(rows: pd.DataFrame) -> str:
    return listed(
        [f"`{name}` on `{where}`" for name, where in zip(work(rows).head(5), rows["platform"].head(5), strict=True)]
    )


def variants(table: pd.DataFrame) -> str:
    """Which departure from the plain way saves most time, and which most memory, as geometric means over models."""
    rows = table[(table["kind"] != "plain") & table["time_ratio"].notna()]
    if rows.empty:
        return "No variant was measured beside the plain way (fp32, AdamW, every parameter trained)."
    means = np.exp(np.log(rows[["time_ratio", "memory_ratio"]].astype(float)).groupby(rows["kind"]).mean())
    fast, small = means["time_ratio"].idxmin(), means["memory_ratio"].idxmin()
    time, memory = means.min()
    kinds = count(len(means), "kind of training", "kinds of training")
    text = f"Of {kinds}, **{fast}** is the fastest: ×{time:.2f} the plain time an item"
    return f"{text}; **{small}** needs least memory: ×{memory:.2f}."


def memory(steps: pd.DataFrame) -> str:
    """What memory goes to, and how far the estimate is off."""
    rows = steps[steps["parameters_bytes"].notna() & steps["memory_increase_bytes"].notna()]
    if rows.empty:
        return "No training step's memory is known."
    total = rows["memory_increase_bytes"].astype(float)
    shares = {cause: float((rows[f"{cause}_bytes"] / total).median()) for cause in CAUSES}
    most = max(shares, key=lambda cause: shares[cause])
    text = f"In the median most memory goes to the **{most}** ({percent(shares[most])})."
    counted = training.memory(rows)
    if counted.empty:
        return text
    error, kept = counted["error"].abs().median(), (counted["live_bytes"] / counted["resident_bytes"]).median()
    return (
        f"{text} The counted estimate is within {percent(float(error))} of what lives at the peak in the median of "
        f"{count(len(counted), 'step')}; {percent(1 - float(kept))} of the resident peak is freed memory that the heap keeps."
    )


def beside(both: pd.DataFrame) -> str:
    """How much more a training step costs than inference."""
    if both.empty:
        return "No model was measured in both modes with the same input."
    ratio = both["time_ratio"].median()
    text = (
        f"A training step takes **{ratio:.1f} times** as long as inference in the median of {count(len(both), 'pair')}"
    )
    text += f" ({both['time_ratio'].min():.1f} to {both['time_ratio'].max():.1f})"
    if both["memory_ratio"].notna().any():
        text += f" and {both['memory_ratio'].median():.1f} times the memory"
    if both["energy_ratio"].notna().any():
        text += f" and {both['energy_ratio'].median():.1f} times the energy"
    return text + "."


def step_table(steps: pd.DataFrame) -> pd.DataFrame:
    """Steps in human units, the slowest first, at most 100."""
    import pandas as pd

    rows = steps.sort_values("latency_s", ascending=False, kind="stable").head(MOST_ROWS)
    told = [part for part in PARTS if rows[f"{part}_s"].notna().any()]
    return pd.DataFrame(
        {
            "model": work(rows),
            "platform": place(rows),
            "batch": rows["batch_size"],
            "ms a step": [digits(value * MS) for value in rows["latency_s"]],
            "throughput": [rate(r.throughput, str(r.throughput_unit)) for r in rows.itertuples()],
            **{f"{part.replace('_', ' ')} ms": [digits(value * MS) for value in rows[f"{part}_s"]] for part in told},
            "backward / forward": [digits(value) for value in rows["backward_forward"]],
            "MFU": [percent(value) if value == value else "–" for value in rows["mfu"]],
            "memory": [size(value) if value == value else "–" for value in rows["memory_increase_bytes"].astype(float)],
            "estimate": [size(value) if value == value else "–" for value in rows["estimate_bytes"]],
        }
    ).reset_index(drop=True)


def memory_table(steps: pd.DataFrame) -> pd.DataFrame:
    """Memory by cause, measured, beside the estimate."""
    import pandas as pd

    rows = (
        steps[steps["parameters_bytes"].notna()].sort_values("memory_increase_bytes", ascending=False).head(MOST_ROWS)
    )
    return pd.DataFrame(
        {
            "model": work(rows),
            "platform": place(rows),
            "batch": rows["batch_size"],
            **{f"{cause} MB": [digits(value * MB) for value in rows[f"{cause}_bytes"]] for cause in CAUSES},
            "live MB": [digits(value * MB) for value in rows["memory_live_bytes"].astype(float)],
            "peak MB": [digits(value * MB) for value in rows["memory_increase_bytes"].astype(float)],
            "estimate MB": [digits(value * MB) for value in rows["estimate_bytes"]],
        }
    ).reset_index(drop=True)


def variant_table(variants: pd.DataFrame) -> pd.DataFrame:
    """Each kind of training of each model that was trained in several beside the plain way, at most 100 rows."""
    import pandas as pd

    name = work(variants.assign(variant=None))
    several = variants.groupby([name, "batch_size"], observed=True)["kind"].transform("nunique") > 1
    rows = variants[variants["time_ratio"].notna() & several]
    rows = rows.sort_values(["model", "batch_size", "time_ratio"], kind="stable").head(MOST_ROWS)
    return pd.DataFrame(
        {
            "model": name[rows.index],
            "batch": rows["batch_size"],
            "kind": rows["kind"],
            "ms a step": [digits(value * MS) for value in rows["latency_s"]],
            "time an item": [f"×{value:.2f}" for value in rows["time_ratio"]],
            "memory": [f"×{value:.2f}" if value == value else "–" for value in rows["memory_ratio"]],
            "energy": [f"×{value:.2f}" if value == value else "–" for value in rows["energy_ratio"]],
        }
    ).reset_index(drop=True)


def proof_table(steps: pd.DataFrame) -> pd.DataFrame:
    """Loss of the first and of the last step, and what the first step did to the parameters, at most 100 rows."""
    import pandas as pd

    rows = steps.head(MOST_ROWS)

    def told(name: str) -> list[str]:
        values = rows[f"metric_{name}"] if f"metric_{name}" in rows else [float("nan")] * len(rows)
        return [digits(value) for value in values]

    changed = (
        rows["metric_tensors_changed_fraction"]
        if "metric_tensors_changed_fraction" in rows
        else [float("nan")] * len(rows)
    )
    return pd.DataFrame(
        {
            "model": work(rows),
            "platform": place(rows),
            "batch": rows["batch_size"],
            "first loss": told("loss_first"),
            "last loss": told("loss_last"),
            "gradient norm": told("gradient_norm"),
            "parameters trained": told("parameters_trained"),
            "tensors changed": [percent(value) if value == value else "–" for value in changed],
        }
    ).reset_index(drop=True)
