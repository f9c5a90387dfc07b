"""timm's results as rows, a law of the operators of their architectures, and what tells graphs and configurations alike.

The law is a sum of terms by kind of operator, each in units of the device's datasheet; see ``labbench.prediction.law``. Its levels
are everything, the kind of device, and the *settings* (precision, layout, compiled or not): a version or a device departs less from
the others than one setting from the next, so that both are left to ``labbench.prediction.adaptation``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from labbench.importers import read_foreign
from labbench.machine.datasheet import datasheet
from labbench.prediction.adaptation import Traits, graph_features
from labbench.prediction.features import family_of
from labbench.prediction.law import Law, law_keys

DENSE = ("pointwise", "convolution", "patch", "grouped", "transposed", "depthwise", "linear", "bmm", "attention")
WINDOWED = (
    "convolution",
    "depthwise",
    "grouped",
)  # reads its input once for each position of the kernel, if no cache holds it
BY_RUN = ("layer_norm", "softmax", "copy", "elementwise", "reduction", "activation")  # slow on short contiguous runs
RARE = 0.002  # a term of fewer architectures than this share is left out
REFERENCE_BATCH = 128  # at which graphs are told alike
LAUNCH_S, CALL_S = 5e-6, 1e-5  # where the coefficients of launches and calls begin; learnt
LEVELS = (("kind",), ("kind", "settings"))
WIDTH, LEVEL_WIDTH, NOISE = 2.0, 2.0, 0.1
AMOUNTS = ("flops", "read_bytes", "weight_bytes", "written_bytes")
SHAPE = (
    "kind",
    "flops",
    "read_bytes",
    "weight_bytes",
    "written_bytes",
    "flops_fixed",
    "m",
    "n",
    "k",
    "window",
    "stride",
    "count",
)
# FP32 FLOP/s and bytes/s by Intel's product pages: cores x lanes x 2 at the highest clock, channels x 8 bytes x rate.
# i7: 6 cores of 2 x 8 lanes at 4.7 GHz and 8 of 2 x 4 at 3.5 GHz, 2 channels DDR5-4800;
# i9: 14 cores of 2 x 16 lanes at 4.6 GHz, 4 channels DDR4-2933.
PROCESSORS = {"Core i7-12700H": (1.35e12, 76.8e9), "Core i9-10940X": (4.12e12, 93.9e9)}


@cache
def ceilings(device: str) -> tuple[float, float] | None:
    """FLOP/s and bytes/s by the datasheet. Half precision's rate goes with the single one's among GPUs of a kind."""
    sheet = datasheet(device)
    if sheet and sheet.flops.get("fp32") and sheet.bandwidth_bytes_s:
        return sheet.flops["fp32"], sheet.bandwidth_bytes_s
    return PROCESSORS.get(device)


@dataclass(frozen=True)
class Graphs:
    """Amounts of the law's terms for each architecture, as they are written and as a compiler fuses them.

    Attributes
    ----------
    each, fixed : array, shape (2, graphs, terms)
        A sample's part and the fixed part of a call; second along the first axis: fused.
    unit : array of str, shape (terms,)
        ``flops``, ``bytes`` or ``seconds``.
    statistics : array, shape (graphs, q)
    """

    each: np.ndarray
    fixed: np.ndarray
    unit: np.ndarray
    statistics: np.ndarray

    def terms(self, table: pd.DataFrame) -> np.ndarray:
        """Seconds of a sample that each term takes at the device's ceilings, shape (rows, terms)."""
        at, batch = (table["compiled"].astype(int), table["at"]), table["batch_size"].to_numpy(float)[:, None]
        limits = np.array([ceilings(name) for name in table["device"]])
        scale = np.where(self.unit == "flops", limits[:, :1], np.where(self.unit == "bytes", limits[:, 1:], 1.0))
        return np.asarray((self.each[at] + self.fixed[at] / batch) / scale)

    def features(self, shares: np.ndarray) -> np.ndarray:
        """Of each graph; ``shares`` are of each graph, too."""
        return graph_features(self.statistics, shares)


def read(folder: Path, graphs: Path, mode: str = "inference") -> tuple[pd.DataFrame, Graphs]:
    """Results whose architecture was traced and whose device has a sheet; what is left out is printed."""
    found = read_foreign(folder, format="timm")
    rows = [
        {
            "model": record.cell.workload.model,
            "image_size": record.cell.workload.image_size,
            "batch_size": record.cell.workload.batch_size,
            "precision": record.cell.workload.precision,
            "runtime": record.cell.platform.runtime,
            "kind": record.cell.platform.device.split(":")[0],
            "device": record.device_name,
            "torch": found.environments[record.environment_id].software["torch"],
            "seconds": record.series[0].mean_s / record.cell.workload.batch_size,
        }
        for record in found.records
        if record.cell.workload.mode == mode
    ]
    table = pd.DataFrame(rows)
    operators = pd.read_parquet(graphs)
    operators["at"] = operators.groupby(["model", "image_size"], sort=False).ngroup()
    of_graph = operators.drop_duplicates("at").set_index("at")[["model", "image_size", "parameters"]]
    written = operators[~operators["fused"]]
    of_operator = pd.util.hash_pandas_object(written[list(SHAPE)].round(3), index=False)
    of_graph["graph"] = of_operator.groupby(written["at"]).agg(lambda one: str(hash(tuple(sorted(one)))))
    for name in sorted(table["device"].unique()):
        if ceilings(name) is None:
            print(f"{name}: no datasheet is known, left out; labbench.machine.datasheet.ALIASES can name one")
    table = table[[ceilings(name) is not None for name in table["device"]]]
    traced = table.merge(of_graph.reset_index()[["at", "model", "image_size", "graph"]], on=["model", "image_size"])
    print(f"{len(traced)} of {len(table)} {mode} results have a traced architecture")
    traced["compiled"] = traced["runtime"].str.startswith("compile")
    traced["settings"] = traced["precision"] + " " + traced["runtime"] + ("" if mode == "inference" else f" {mode}")
    traced["configuration"] = traced["device"] + " " + traced["torch"] + " " + traced["settings"]
    traced["family"] = traced["model"].map(family_of)
    return traced.reset_index(drop=True), _graphs(operators, of_graph)


def _graphs(operators: pd.DataFrame, of_graph: pd.DataFrame) -> Graphs:
    amounts = [_amounts(operators[operators["fused"] == fused], len(of_graph)) for fused in (False, True)]
    names = {name: unit for one in amounts for name, (unit, _, _) in one.items()}
    zero = np.zeros(len(of_graph))
    each, fixed = (
        np.array([[one.get(name, ("", zero, zero))[part] for name in names] for one in amounts]).transpose(0, 2, 1)
        for part in (1, 2)
    )
    kept = ((each + fixed) > 0).mean(axis=(0, 1)) > RARE
    unit = np.array(list(names.values()))[kept]
    return Graphs(
        np.maximum(each[:, :, kept], 0), np.maximum(fixed[:, :, kept], 0), unit, _statistics(operators, of_graph)
    )


def _amounts(operators: pd.DataFrame, graphs: int) -> dict[str, tuple[str, np.ndarray, np.ndarray]]:
    """Term to its unit, a sample's part and the fixed part in each graph."""
    at, count = operators["at"].to_numpy(), operators["count"].to_numpy(float)
    kinds = operators["kind"].to_numpy()
    value = {f"{name}{end}": operators[f"{name}{end}"].to_numpy(float) for name in AMOUNTS for end in ("", "_fixed")}
    ones, window, run = (
        np.ones(len(at)),
        operators["window"].to_numpy(float),
        operators["width"].clip(lower=1).to_numpy(),
    )
    found: dict[str, tuple[str, np.ndarray, np.ndarray]] = {}

    def add(term: str, unit: str, names: tuple[str, ...], kind: str, factor: np.ndarray = ones) -> None:
        rows = kinds == kind
        each, fixed = (
            np.bincount(at[rows], (sum(value[f"{name}{end}"] for name in names) * factor * count)[rows], graphs)
            for end in ("", "_fixed")
        )
        found[f"{term} {kind}"] = (unit, each, fixed)

    for kind in np.unique(kinds):
        if kind in DENSE:
            for name in AMOUNTS:
                add(name, "flops" if name == "flops" else "bytes", (name,), kind)
            if kind in WINDOWED:
                add("window", "bytes", ("read_bytes",), kind, window / 10)
        else:
            add("bytes", "bytes", AMOUNTS[1:], kind)
            if kind in BY_RUN:
                add("runs", "bytes", AMOUNTS[1:], kind, 10 / run)
        rows = kinds == kind
        found[f"launches {kind}"] = ("seconds", np.zeros(graphs), LAUNCH_S * np.bincount(at[rows], count[rows], graphs))
    return found | {"call": ("seconds", np.zeros(graphs), np.full(graphs, CALL_S))}


def _statistics(operators: pd.DataFrame, of_graph: pd.DataFrame) -> np.ndarray:
    """Sizes of products (mean and spread of their logs, weighed by FLOPs) and totals of each graph as it is written."""
    written = operators[~operators["fused"]]
    at, count, graphs = written["at"].to_numpy(), written["count"].to_numpy(float), len(of_graph)
    flops = written["flops"].to_numpy(float) * count
    moved = (written["read_bytes"] + written["written_bytes"]).to_numpy(float) * count
    product = np.where((written["k"] > 0) & (flops > 0), flops, 0.0)

    def mean(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
        return np.asarray(np.bincount(at, values * weight, graphs) / (np.bincount(at, weight, graphs) + 1e-9))

    columns = []
    for values in (
        written["m"] + written["m_fixed"],
        written["n"],
        written["k"],
        written["groups"] + written["groups_fixed"],
    ):
        log = np.log2(np.maximum(values.to_numpy(float), 1))
        centre = mean(log, product)
        columns += [centre, np.sqrt(np.maximum(mean(log**2, product) - centre**2, 0))]
    for name in ("n", "k"):
        columns.append(mean((written[name] % 8 == 0).to_numpy(float), product))
    columns.append(mean((written["n"] <= 64).to_numpy(float), product))
    totals = [np.log(np.bincount(at, one, graphs) + 1) for one in (moved, flops, count)]
    columns += [*totals, totals[1] - totals[0], mean(np.log2(written["width"].clip(lower=1).to_numpy(float)), moved)]
    columns += [np.log(of_graph["parameters"].to_numpy(float) + 1), np.log2(of_graph["image_size"].to_numpy(float))]
    return np.column_stack(columns)


@dataclass(frozen=True)
class Fitted:
    """A law and what it says of all rows: ``left_over`` is ``log(measured / law)``."""

    left_over: np.ndarray
    traits: Traits


def fit(table: pd.DataFrame, graphs: Graphs, terms: np.ndarray, rows: np.ndarray) -> Fitted:
    """Fit the law to some rows; :class:`~labbench.prediction.adaptation.Traits` of all."""
    keys = law_keys(table, LEVELS)
    train = table[rows]
    law = Law(WIDTH, LEVEL_WIDTH, NOISE).fit(
        [keys[i] for i in rows.nonzero()[0]], terms[rows], train["seconds"].to_numpy()
    )
    parts = law.parts(keys, terms)
    total = parts.sum(axis=1)
    typical = (graphs.each[0] + graphs.fixed[0] / REFERENCE_BATCH) / np.where(
        graphs.unit == "flops", 1e13, np.where(graphs.unit == "bytes", 5e10, 1.0)
    )
    typical = typical * np.exp(law.log_coefficients[()])
    features = graphs.features(typical / typical.sum(axis=1, keepdims=True))
    levels = {name: table[name].to_numpy(str) for name in ("kind", "device")}
    levels["settings"] = (table["kind"] + " " + table["settings"]).to_numpy(str)
    levels["version"] = (table["kind"] + " " + table["settings"] + " " + table["torch"]).to_numpy(str)
    levels["configuration"] = table["configuration"].to_numpy(str)
    traits = Traits(table["graph"].to_numpy(str), features[table["at"]], parts / total[:, None], levels)
    return Fitted(np.log(table["seconds"].to_numpy() / total), traits)
