"""Whole language models on GPUs that were never measured, after NeuSight (Lee et al., ASPLOS 2025): each device is predicted from
single kernels of the others.

FOLDER is NeuSight's ``scripts/asplos`` data: ``ops/*.parquet`` (single kernels), ``end_to_end.csv`` (whole models),
``published_predictions.csv`` (theirs, Habitat's, a micro-benchmark's, a roofline's, for the same runs) and ``model_configs``.

- A device with kernels is left out, kernels and all; every other one is predicted from all that have kernels.
- *kernels*: learnt from single kernels of other devices alone; no whole model was seen. *scaled*: the same times one factor, the
  mean ratio of measured to predicted over whole models (one GPU, not fused) of those same other devices, each weighing the same.
- *seen*: *scaled*, learnt from all devices with kernels, the run's own among them, as NeuSight's published predictions are.
- Intervals come from leaving out each of the devices that were learnt from, in turn, and judging its whole models.
- Operators are traced (``neusight_runs.py``); prices are summed, launches are taken to hide behind kernels.
- Several GPUs: messages cost what ``labbench.distributed`` says, by all-reduces timed on nodes of eight GPUs of the same kind, or
  by the datasheet's link. Data parallel: gradients travel behind the backward pass in DDP's buckets. Tensor parallel (Shoeybi et
  al. 2019, arXiv:1909.08053): products of a layer and what lies between are split, activations are summed twice forward and twice
  backward a layer. Pipeline (Huang et al. 2019, arXiv:1811.06965): with P stages and M micro-batches, (M + P - 1) / M of the time
  of a P-th of the model.

    python benchmarks/neusight.py FOLDER
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from labbench.distributed.cluster import Accelerator, cluster
from labbench.distributed.collectives_model import Collectives
from labbench.distributed.schedules import beside, makespan, overlap
from labbench.importers.neusight_kernels import kernels
from labbench.machine.datasheet import Datasheet, datasheet
from labbench.operators import Operator, fused, table
from labbench.prediction.conformal import Radius, radius
from labbench.prediction.kernels import KernelModel

if TYPE_CHECKING:
    from neusight_runs import Run

Sheets = Mapping[str, Datasheet]
RUN = ["device", "model", "mode", "seq", "batch", "variant"]
METHODS = ("neusight", "habitat", "micro", "roofline")
PARALLEL = re.compile(r"(dp|tp|pp)(\d+)(?:_(\d+))?")
BUCKET = 25 * 2**20  # bytes of DDP's gradients that travel together (torch's default)
BACKWARD = 2 / 3  # of a training step
FLOAT = 4  # bytes
LEVEL = 0.9
PRICED = 100_000  # operators that are priced against the clock


def main() -> None:
    """Print kernels' errors by operator, then whole models' by device and by run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    if not (folder / "ops").is_dir() or not (folder / "end_to_end.csv").is_file():
        print(f"{folder} holds no ops/*.parquet and end_to_end.csv: nothing to compare with")
        return
    pd.set_option("display.width", 200)
    single, runs = kernels(folder / "ops"), measured_runs(folder)
    found = {name: sheet_of(name, folder / "device_configs") for name in {*single["device"], *runs["device"]}}
    sheets = {name: sheet for name, sheet in found.items() if sheet}
    for name in sorted(set(found) - set(sheets)):
        print(f"{name}: no datasheet is known, left out; labbench.machine.datasheet.ALIASES can name one")
    single, runs = single[single["device"].isin(sheets)], runs[runs["device"].isin(sheets)]
    runs, untold = with_operators(runs, folder / "model_configs")
    for reason in untold:
        print(reason)
    begun = perf_counter()
    model = KernelModel.fit(single, sheets)
    print(f"kernel model with intervals fitted in {perf_counter() - begun:.0f} s")
    many = single.sample(PRICED, replace=True, random_state=0)
    begun = perf_counter()
    model.seconds(many, next(iter(sheets.values())))
    print(f"{PRICED:,} operators priced in {perf_counter() - begun:.1f} s\n")
    print_kernels(model)
    print_runs(predict_runs(runs, single, sheets))


def measured_runs(folder: Path) -> pd.DataFrame:
    """Measured runs with ``measured_s`` and a column of seconds for each published method."""
    runs = pd.read_csv(folder / "end_to_end.csv").fillna({"variant": ""})
    runs["measured_s"] = runs.pop("e2e_latency") * 1e-3
    published = pd.read_csv(folder / "published_predictions.csv").fillna({"variant": ""})
    wide = published.pivot_table(index=RUN, columns="method", values="predicted_ms").mul(1e-3).reset_index()
    runs = runs[[*RUN, "measured_s"]].merge(wide, on=RUN, how="left").reindex(columns=[*RUN, "measured_s", *METHODS])
    return runs.assign(device=runs["device"].str.replace("_", " "))


def sheet_of(name: str, configs: Path) -> Datasheet | None:
    """The datasheet by the device's own name, or else what the device_configs tell; None if neither knows it."""
    config = configs / f"{name.replace(' ', '_')}.json"
    sheet = datasheet(name)
    if sheet or not config.is_file():
        return sheet
    told = json.loads(config.read_text())
    return Datasheet(
        name=told["Device"],
        memory_bytes=told["Dev_Mem"] * 1e9,
        bandwidth_bytes_s=told["Mem_Bw"] * 1e9,
        flops={"fp32": told["SingleFLOPs"] * 1e9},
        multiprocessors=told["Num_Sm"],
        tdp_w=None,
        source=str(config),
        lanes=told["Num_Sm"] * told["Core_Per_SM"],
    )


@dataclass(frozen=True)
class Demand:
    """What a run asks of each of its GPUs.

    Attributes
    ----------
    operators : DataFrame
    ranks : int
    times : float
        How often the operators run.
    gradient_bytes : float
        All-reduced behind the backward pass.
    messages : int
    message_bytes : float
        All-reduces in the open.
    """

    operators: pd.DataFrame
    ranks: int = 1
    times: float = 1.0
    gradient_bytes: float = 0.0
    messages: int = 0
    message_bytes: float = 0.0


def with_operators(runs: pd.DataFrame, configs: Path) -> tuple[pd.DataFrame, list[str]]:
    """Runs that can be traced, with their ``demand``, and why the others cannot."""
    from neusight_runs import run

    demands, untold = {}, []
    for key in runs[RUN[1:]].drop_duplicates().itertuples(index=False):
        name = " ".join(str(part) for part in key if part != "")
        config = configs / f"{key.model}.json"
        if not config.is_file():
            untold.append(f"{name}: no {config.name} among the model_configs, left out")
            continue
        parallel = PARALLEL.fullmatch(key.variant)
        if key.variant not in ("", "fusion") and parallel is None:
            untold.append(f"{name}: unknown variant, left out")
            continue
        parts = int(parallel[2]) if parallel else 1
        share = key.batch // parts if parallel and parallel[1] == "dp" else key.batch
        demands[tuple(key)] = demand(run(config, key.mode, key.seq, share), key.variant, key.seq * key.batch)
    keys = [tuple(key) for key in runs[RUN[1:]].itertuples(index=False)]
    return runs.assign(demand=[demands.get(key) for key in keys]).dropna(subset="demand"), untold


def demand(traced: Run, variant: str, tokens: int) -> Demand:
    """What a variant asks of each GPU."""
    parallel = PARALLEL.fullmatch(variant)
    if parallel is None:
        return Demand(table(fused(traced.operators) if variant == "fusion" else traced.operators))
    kind, parts = parallel[1], int(parallel[2])
    if kind == "dp":
        return Demand(table(traced.operators), parts, gradient_bytes=traced.parameter_bytes)
    if kind == "tp":
        activations = FLOAT * tokens * traced.width
        return Demand(table(split(traced, parts, tokens)), parts, messages=4 * traced.layers, message_bytes=activations)
    micro = int(parallel[3] or 1)
    return Demand(table(traced.operators), parts, times=makespan(1.0, 0.0, 0.0, micro, parts) / (micro * parts))


def split(traced: Run, parts: int, tokens: int) -> Iterable[Operator]:
    """Operators of one of several GPUs that share products and what lies between them; the residual stream is whole on each."""
    for one in traced.operators:
        if one.m == 0 and one.width == traced.width:
            yield one
            continue
        sides = {"groups": one.groups} if one.groups > 1 else {name: getattr(one, name) for name in "nkm"}
        features = {name: size for name, size in sides.items() if size != tokens} if one.m else {}
        widest = max(features, key=lambda name: features[name], default=None)
        size = {} if widest is None else {widest: max(features[widest] // parts, 1)}
        yield replace(
            one, flops=one.flops / parts, read_bytes=one.read_bytes / parts, weight_bytes=one.weight_bytes / parts,
            written_bytes=one.written_bytes / parts, **size,
        )  # fmt: skip


def priced(model: KernelModel, sheet: Datasheet, demand: Demand) -> float:
    """Seconds of a run."""
    computing = demand.times * model.total(demand.operators, sheet)[0]
    if demand.ranks == 1:
        return computing
    nodes = cluster(Accelerator.from_sheet(sheet), demand.ranks, demand.ranks)
    prices, group = Collectives.of(nodes), nodes.group(demand.ranks, 1)
    open_s = demand.messages * float(prices.seconds("all_reduce", demand.message_bytes, group))
    buckets = ceil(demand.gradient_bytes / BUCKET)
    if not buckets:
        return computing + open_s
    backward = BACKWARD * computing
    cost = [float(prices.seconds("all_reduce", demand.gradient_bytes / buckets, group))] * buckets
    ready = np.cumsum(beside([backward / buckets] * buckets, [0.0, *cost[:-1]], nodes.device.taken_by_messages))
    return computing + max(float(overlap(list(ready), cost)), float(ready[-1])) - backward


@dataclass(frozen=True)
class Learnt:
    """A kernel model, the factor from its sums to whole models, and the half-width, in the log, of the interval of those."""

    model: KernelModel
    factor: float
    spread: Radius | None = None

    @classmethod
    def fit(cls, runs: pd.DataFrame, single: pd.DataFrame, sheets: Sheets, devices: frozenset[str]) -> Learnt:
        """From kernels and whole runs of some devices."""
        model = KernelModel.fit(single[single["device"].isin(devices)], sheets, judge=False)
        own = runs[runs["device"].isin(devices) & (runs["variant"] == "")]
        off = np.log(own["measured_s"] / prices(model, own, sheets))
        return cls(model, float(np.exp(off.groupby(own["device"]).mean().mean())))

    @classmethod
    def judged(cls, runs: pd.DataFrame, single: pd.DataFrame, sheets: Sheets, devices: frozenset[str]) -> Learnt:
        """With an interval, for which each of the devices is left out once."""
        scores, groups = [], []
        for held in sorted(devices):
            less = cls.fit(runs, single, sheets, devices - {held})
            own = runs[(runs["device"] == held) & (runs["variant"] == "")]
            scores.append(np.abs(np.log(less.factor * prices(less.model, own, sheets) / own["measured_s"])))
            groups += [held] * len(own)
        spread = radius(np.concatenate(scores), np.array(groups), LEVEL)
        return replace(cls.fit(runs, single, sheets, devices), spread=spread)


def prices(model: KernelModel, runs: pd.DataFrame, sheets: Sheets) -> np.ndarray:
    """Seconds of each run."""
    return np.array([priced(model, sheets[run.device], run.demand) for run in runs.itertuples()])


def predict_runs(runs: pd.DataFrame, single: pd.DataFrame, sheets: Sheets) -> pd.DataFrame:
    """``kernels``, ``scaled``, ``low``, ``high`` of each run from what knows nothing of its device, and ``seen``; in seconds."""
    known = frozenset(single["device"])
    everything = Learnt.judged(runs, single, sheets, known)
    parts = []
    for held, rows in runs.groupby("device"):
        learnt = Learnt.judged(runs, single, sheets, known - {held}) if held in known else everything
        sums, spread = prices(learnt.model, rows, sheets), np.exp(learnt.spread.value)
        scaled = learnt.factor * sums
        seen = everything.factor * prices(everything.model, rows, sheets)
        parts.append(rows.assign(kernels=sums, scaled=scaled, low=scaled / spread, high=scaled * spread, seen=seen))
        told = f"{held}: factor {learnt.factor:.3f}, interval of {learnt.spread.level:.0%} within a factor {spread:.2f}"
        print("; ".join([told, *learnt.model.departures(sheets[held])]), flush=True)
    return pd.concat(parts, ignore_index=True)


def print_kernels(model: KernelModel) -> None:
    """Errors of single kernels on the device left out."""
    assert model.errors is not None
    errors = model.errors.assign(error=lambda frame: (frame["predicted_s"] / frame["measured_s"] - 1).abs())
    wide = errors.pivot_table(
        index="kind", columns="device", values="error", aggfunc="mean", margins=True, margins_name="all"
    )
    print("Single kernels of the device left out, mean absolute error in %:")
    print(wide.mul(100).round(1).to_string(), "\n")


def print_runs(runs: pd.DataFrame) -> None:
    """By run, then by device, mode and variant, beside the published predictions of the same runs."""
    error = {name: runs[name] / runs["measured_s"] - 1 for name in ("kernels", "scaled", "seen", *METHODS)}
    shown = pd.DataFrame({name: (100 * value).round(1) for name, value in error.items()})
    print("\nError of each run in %:")
    print(pd.concat([runs[[*RUN, "measured_s"]], shown], axis=1).to_string(index=False))
    runs = runs.assign(kind=(runs["mode"] + " " + runs["variant"]).str.strip())
    for by in (["device"], ["device", "kind"], ["kind"], []):
        rows = []
        for key, these in runs.groupby(by) if by else [((), runs)]:
            mine, both = error["scaled"][these.index], these["neusight"].notna()
            covered = (these["low"] <= these["measured_s"]) & (these["measured_s"] <= these["high"])
            rows.append(
                dict(zip(by, key, strict=True))
                | {"runs": len(these), "covered": round(float(covered.mean()), 2)}
                | {"median": round(100 * float(mine.abs().median()), 1), "bias": round(100 * float(mine.mean()), 1)}
                | {name: mape(error[name][these.index]) for name in error}
                | {"scaled, NeuSight's runs": mape(mine[both])}
            )
        print(
            f"\nMean absolute error in % by {' and '.join(by) or 'nothing'} (coverage, median and bias are of 'scaled'):"
        )
        print(pd.DataFrame(rows).to_string(index=False))


def mape(error: pd.Series) -> float:
    """Mean absolute relative error in %."""
    return round(100 * float(error.abs().mean()), 1)


if __name__ == "__main__":
    main()
