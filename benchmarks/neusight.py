"""Whole language models on GPUs that were never measured, after NeuSight (Lee et al., ASPLOS 2025): each device is predicted from
single kernels of the others.

FOLDER is NeuSight's ``scripts/asplos`` data: ``ops/*.parquet`` (single kernels), ``end_to_end.csv`` (whole models),
``published_predictions.csv`` (theirs, Habitat's, a micro-benchmark's, a roofline's, for the same runs) and ``model_configs``.

- A device with kernels is left out, kernels and all; every other one is predicted from all that have kernels.
- *kernels*: learnt from single kernels alone, no whole model was seen. *scaled*: the same times one factor, the mean ratio of
  measured to predicted over the other devices' whole models (those with kernels), each device weighing the same.
- Operators are traced (``neusight_runs.py``); prices are summed, launches are taken to hide behind kernels.
- Several GPUs: the link of a ring all-reduce is the datasheet's, used to ``LINK_SHARE``. Data parallel: gradients travel behind the
  backward pass. Tensor parallel (Shoeybi et al. 2019, arXiv:1909.08053): products of a layer and what lies between are split,
  activations are summed twice forward and twice backward a layer. Pipeline (Huang et al. 2019, arXiv:1811.06965): with P stages and
  M micro-batches, (M + P - 1) / M of the time of a P-th of the model.

    python benchmarks/neusight.py FOLDER
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from labbench.importers.neusight_kernels import kernels
from labbench.machine.datasheet import Datasheet, datasheet
from labbench.operators import Operator, fused, table
from labbench.prediction.config import PredictionError
from labbench.prediction.kernels import KernelModel

if TYPE_CHECKING:
    from neusight_runs import Run

RUN = ["device", "model", "mode", "seq", "batch", "variant"]
METHODS = ("neusight", "habitat", "micro", "roofline")
PARALLEL = re.compile(r"(dp|tp|pp)(\d+)(?:_(\d+))?")
# Bytes/s that a GPU sends: NVLink of NVIDIA's A100 and H100 data sheets (600 and 900 GB/s both ways together), else PCIe 4.0 x16.
LINKS = {"A100-SXM4": 300e9, "A100 SXM4": 300e9, "H100 80GB HBM3": 450e9, "H200": 450e9, "V100-SXM2": 150e9}
PCIE = 32e9
LINK_SHARE = 0.8  # as kernels use memory; an assumption
BACKWARD = 2 / 3  # of a training step
FLOAT = 4  # bytes
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
    sheets = {name: sheet_of(name) for name in {*single["device"], *runs["device"]}}
    runs, untold = with_operators(runs, folder / "model_configs")
    for reason in untold:
        print(reason)
    begun = perf_counter()
    everything = KernelModel.fit(single, sheets)
    fitted_s = perf_counter() - begun
    many = table_of_many(single)
    begun = perf_counter()
    everything.seconds(many, next(iter(sheets.values())))
    print(f"fit with intervals {fitted_s:.0f} s; {len(many):,} operators priced in {perf_counter() - begun:.1f} s\n")
    print_kernels(everything)
    predicted = predict_runs(runs, single, sheets, everything)
    print_runs(predicted)


def measured_runs(folder: Path) -> pd.DataFrame:
    """Measured runs with ``measured_s`` and a column of seconds for each published method."""
    runs = pd.read_csv(folder / "end_to_end.csv").fillna({"variant": ""})
    runs["measured_s"] = runs.pop("e2e_latency") * 1e-3
    published = pd.read_csv(folder / "published_predictions.csv").fillna({"variant": ""})
    wide = published.pivot_table(index=RUN, columns="method", values="predicted_ms").mul(1e-3).reset_index()
    runs = runs[[*RUN, "measured_s"]].merge(wide, on=RUN, how="left").reindex(columns=[*RUN, "measured_s", *METHODS])
    return runs.assign(device=runs["device"].str.replace("_", " "))


def sheet_of(name: str) -> Datasheet:
    """The datasheet by the device's own name.

    Raises
    ------
    PredictionError
        If no sheet fits.
    """
    sheet = datasheet(name)
    if sheet is None:
        raise PredictionError(
            f"no datasheet of {name!r} is known; add its driver's name to labbench.machine.datasheet.ALIASES"
        )
    return sheet


@dataclass(frozen=True)
class Demand:
    """What a run asks of one GPU: operators as a table, how often, bytes all-reduced behind the backward pass and in the open."""

    operators: pd.DataFrame
    times: float = 1.0
    hidden_bytes: float = 0.0
    open_bytes: float = 0.0


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
    sent = 2 * (parts - 1) / parts  # of a buffer, by a GPU of a ring all-reduce (Patarasuk & Yuan 2009)
    if kind == "dp":
        return Demand(table(traced.operators), hidden_bytes=sent * traced.parameter_bytes)
    if kind == "tp":
        activations = FLOAT * tokens * traced.width
        return Demand(table(split(traced, parts, tokens)), open_bytes=4 * traced.layers * sent * activations)
    micro = int(parallel[3] or 1)
    return Demand(table(traced.operators), times=(micro + parts - 1) / (micro * parts))


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


def priced(model: KernelModel, sheet: Datasheet, demand: Demand, device: str) -> np.ndarray:
    """Seconds of a run, and the interval's ends."""
    link = next((speed for name, speed in LINKS.items() if name in device), PCIE) * LINK_SHARE
    computing = demand.times * np.array(model.total(demand.operators, sheet))
    hidden = np.maximum(demand.hidden_bytes / link - BACKWARD * computing, 0.0)
    return np.asarray(computing + hidden + demand.open_bytes / link)


def predict_runs(
    runs: pd.DataFrame, single: pd.DataFrame, sheets: Mapping[str, Datasheet], everything: KernelModel
) -> pd.DataFrame:
    """``kernels``, ``low``, ``high`` and ``scaled`` of each run, in seconds, from models that know nothing of its device."""
    known = set(single["device"])
    parts = []
    for held, rows in runs.groupby("device"):
        if held in known:
            print(f"leaving out {held}", flush=True)
            model = KernelModel.fit(single[single["device"] != held], sheets)
        else:
            model = everything
        others = runs[runs["device"].isin(known - {held})]
        seen = np.array([priced(model, sheets[r.device], r.demand, r.device)[0] for r in others.itertuples()])
        factor = np.exp(np.log(others["measured_s"] / seen).groupby(others["device"]).mean().mean())
        prices = np.array([priced(model, sheets[r.device], r.demand, r.device) for r in rows.itertuples()])
        parts.append(
            rows.assign(
                kernels=prices[:, 0], low=prices[:, 1], high=prices[:, 2], scaled=prices[:, 0] * factor, factor=factor
            )
        )
    return pd.concat(parts, ignore_index=True).assign(learnt=lambda frame: frame["device"].isin(known))


def table_of_many(single: pd.DataFrame) -> pd.DataFrame:
    """So many operators that pricing them takes long enough to time."""
    return single.sample(PRICED, replace=True, random_state=0)


def print_kernels(model: KernelModel) -> None:
    """Errors of single kernels on the device left out."""
    if model.errors is None:
        return
    errors = model.errors.assign(error=lambda frame: (frame["predicted_s"] / frame["measured_s"] - 1).abs())
    wide = errors.pivot_table(
        index="kind", columns="device", values="error", aggfunc="mean", margins=True, margins_name="all"
    )
    print("Single kernels of the device left out, mean absolute error in %:")
    print(wide.mul(100).round(1).to_string(), "\n")


def print_runs(runs: pd.DataFrame) -> None:
    """By run, then by device, mode and variant, beside the published predictions of the same runs."""
    error = {name: runs[name] / runs["measured_s"] - 1 for name in ("kernels", "scaled", *METHODS)}
    shown = pd.DataFrame({name: (100 * value).round(1) for name, value in error.items()})
    print("\nError of each run in %:")
    print(pd.concat([runs[[*RUN, "measured_s"]], shown], axis=1).to_string(index=False))
    runs = runs.assign(kind=(runs["mode"] + " " + runs["variant"]).str.strip())
    for by in (["device"], ["device", "kind"], ["kind"]):
        rows = []
        for key, these in runs.groupby(by):
            row = dict(zip(by, key, strict=True)) | {"runs": len(these)}
            covered = (these["low"] <= these["measured_s"]) & (these["measured_s"] <= these["high"])
            row |= {
                "covered": round(float(covered.mean()), 2),
                "factor": round(float((these["high"] / these["kernels"]).median()), 2),
            }
            mine = error["kernels"][these.index]
            row |= {"median": round(100 * float(mine.abs().median()), 1), "bias": round(100 * float(mine.mean()), 1)}
            row |= {name: mape(error[name][these.index]) for name in error}
            both = these["neusight"].notna()
            row["kernels, their runs"] = mape(mine[both])
            rows.append(row)
        print(f"\nMean absolute error in % by {' and '.join(by)} (median, bias and intervals are of 'kernels'):")
        print(pd.DataFrame(rows).to_string(index=False))


def mape(error: pd.Series) -> float:
    """Mean absolute relative error in %."""
    return round(100 * float(error.abs().mean()), 1)


if __name__ == "__main__":
    main()
