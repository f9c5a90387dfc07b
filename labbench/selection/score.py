"""How well an option suits, in parts that can be read: support, memory fit, evidence, stability. Never one number."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from labbench.words import listed, percent, size

if TYPE_CHECKING:
    import pandas as pd

DEFINITIONS = {
    "support": "share of the cells tried on this platform at this precision that ran; 0 if this one did not",
    "memory_fit": "share of the device's memory that is left free at the peak",
    "evidence": "latency over the pessimistic end of its interval: 1 is exact, 0 that none is known",
    "stability": "median over the 99th percentile of the latency: 1 if all calls take the same",
}
BYTES_PER_WEIGHT = {"fp32": 4, "amp": 4, "bf16": 2, "fp16": 2, "int8": 1}


@dataclass(frozen=True)
class Compatibility:
    """Parts of how well an option suits, each in 0..1 by :data:`DEFINITIONS`; NaN where nothing tells.

    Attributes
    ----------
    support, memory_fit, evidence, stability : float
    sentence : str
        What each stands on.
    """

    support: float
    memory_fit: float
    evidence: float
    stability: float
    sentence: str

    @property
    def parts(self) -> dict[str, float]:
        """Name to value."""
        return {name: getattr(self, name) for name in DEFINITIONS}

    @property
    def weakest(self) -> str | None:
        """The part with the lowest value; None where nothing is known."""
        known = {name: value for name, value in self.parts.items() if not math.isnan(value)}
        return min(known, key=known.__getitem__) if known else None


def compatibility(rows: list[dict[str, Any]], frame: pd.DataFrame) -> list[Compatibility]:
    """Of every option of a decision, by what the store tells of its platform.

    Parameters
    ----------
    rows : list of dict
        Of the table of :func:`labbench.selection.options.options`.
    frame : DataFrame
        ``Store.latest()``: what was tried on each platform.
    """
    tried = frame[frame["primary"].astype(bool) & frame["provenance"].isin(("measured", "imported", "simulated"))]
    keys = ["machine_id", "platform", "precision"]
    ran = (tried["status"] == "ok").groupby([tried[name].astype("str") for name in keys]).agg(["sum", "size"])
    counts: dict[tuple[str, ...], tuple[int, int]] = {
        (str(machine), str(platform), str(precision)): (int(done), int(total))
        for (machine, platform, precision), done, total in ran.itertuples(name=None)
    }
    return [_of(row, counts) for row in rows]


def _of(row: Mapping[str, Any], counts: Mapping[tuple[str, ...], tuple[int, int]]) -> Compatibility:
    done, tried = counts.get((str(row["machine_id"]), str(row["platform"]), str(row["precision"])), (0, 0))
    failed = row["status"] != "ok" or isinstance(row["lacks"], str)
    support = 0.0 if failed else done / tried if tried else math.nan
    device, peak = float(row["device_memory_bytes"]), float(row["memory_high_bytes"])
    fit = float(np.clip(1 - peak / device, 0, 1)) if device > 0 else math.nan
    point, high = float(row["latency_s"]), float(row["latency_high_s"])
    known = point > 0 and math.isfinite(high) and not row["out_of_domain"]
    evidence = (float(np.clip(point / high, 0, 1)) if high > point else math.nan) if known else 0.0
    stability = float(np.clip(row["median_s"] / row["latency_p99_s"], 0, 1))
    said = [
        str(row["status"]).replace("_", " ") if failed else f"{done} of {tried} cells tried there ran" if tried
        else "nothing was tried there",
        f"{percent(fit)} of {size(device)} stays free" if math.isfinite(fit) else "memory or its use is not known",
        ("predicted" if row["predicted"] else str(row["provenance"])) + f" to {percent(1 / evidence - 1)}" if evidence > 0
        else "no interval of the latency is known" if known else "no latency is known",
        f"the slowest in a hundred calls take {1 / stability:.2f} times the median" if stability > 0
        else "no percentile is known",
    ]  # fmt: skip
    said += ["the machine was unstable"] if row["noise"] == "unstable" else []
    return Compatibility(support, fit, evidence, stability, "; ".join(said))


def memory_parts(row: Mapping[str, Any]) -> dict[str, float]:
    """Bytes of the peak by what they are: weights, other tensors (activations, KV cache, gradients), runtime and the rest.

    Weights are parameters times the bytes of the precision; other tensors are what was counted to live at the same time, less the
    weights. Empty where nothing was counted.
    """
    peak = float(row["memory_bytes"])
    parameters, tensors = (float(row[name]) for name in ("parameters", "tensor_peak_bytes"))
    width = BYTES_PER_WEIGHT.get(str(row["precision"]))
    if width is None or not parameters > 0 or not peak > 0:
        return {}
    parts = {"weights": width * parameters}
    if tensors > parts["weights"]:
        parts["other tensors"] = tensors - parts["weights"]
    rest = peak - sum(parts.values())
    return parts | ({"runtime and rest": rest} if rest > 0 else {})


def score_sentence(name: str, score: Compatibility) -> str:
    """An option's parts in one line."""
    told = [f"{part.replace('_', ' ')} {value:.2f}" for part, value in score.parts.items() if not math.isnan(value)]
    return f"{name}: {listed(told)} ({score.sentence})"
