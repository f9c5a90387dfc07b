"""From the tidy frame to what the predictor sees: physical terms, features of the residual, and the domain."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from labbench.prediction.config import PredictionConfig, PredictionError

if TYPE_CHECKING:
    import pandas as pd

    from labbench.records import Environment

WORKLOAD = ("model", "task", "mode", "batch_size", "precision", "seq_len", "image_size", "frames", "audio_s")
PLATFORM = ("machine_id", "platform")
CONFIGURATION = (*PLATFORM, "precision", "mode")
VERSIONED = (*CONFIGURATION, "framework")  # laws of operators tell versions of PyTorch apart
NO_FRAMEWORK = "unknown version"
LEVELS = (("machine_id",), PLATFORM, CONFIGURATION)
TOTALS = ("flops", "bytes", "kernels")
PER_CLASS = tuple(f"{total}_" for total in TOTALS)  # what the columns of an operator class begin with
MEMORY = "memory_increase_bytes"
ANYWHERE = "any machine"  # in place of a machine's id
MADE = "made"  # family of networks that are measured only to learn from (:mod:`labbench.zoo.made`)
Device = tuple[str, str]  # machine id and device
TRAINS_ON = ("measured", "imported")  # provenances: a prediction or a simulation never becomes training data

# Used where a machine's ceilings are not known: a few-core CPU. The law learns the factor; only its start is here.
NOMINAL_FLOPS = 1e11  # FLOP/s
NOMINAL_BANDWIDTH = 1e10  # bytes/s
NOMINAL_DISPATCH_S = 5e-6
CALL_S = 1e-5  # start of the cost of a call whatever it computes; learnt
RUNTIME_BYTES = 3e7  # start of what a runtime takes whatever it runs; learnt
BYTES_PER_VALUE = {"fp32": 4, "bf16": 2, "fp16": 2, "int8": 1}

# Classes that a runtime executes one by one; of the others it fuses or drops as many as it can.
DENSE = ("matmul", "convolution", "attention")
LATENCY_TERMS = ("compute", "traffic", "dense operators", "other operators", "call")
MEMORY_TERMS = ("weights", "tensors", "attention scores", "operators", "runtime")
HELD = ("held_weight_bytes", "held_tensor_bytes", "held_score_bytes", "held_operators")
EXPORTING = ("onnxruntime", "openvino")  # runtimes that hold each program with weights of its own
OPERATOR_BYTES = 1e4  # start of what a runtime takes for each operator; learnt
NAMED = ("machine_id", "platform", "precision", "mode", "series")  # texts among the residual's features


def family_of(model: str) -> str:
    """Family of a model's name: what stands before its size, e.g. ``bert`` of ``bert-tiny``.

    Of a name in one word, as timm has them, the letters it begins with, less where the weights come from: ``resnet`` of
    ``tf_resnet50_v2``.
    """
    if "-" in model:
        return model.rsplit("-", 1)[0]
    found = re.match(r"(?:(?:tf|test|legacy|gluon|gc|ssl|swsl)_)?([a-z]+)", model)
    return found[1] if found else model


MEASURED, NOMINAL = "measured", "nominal"  # where ceilings come from, if not from a datasheet, which is named
HALVES = ("fp16", "bf16", "fp32")  # which rate is taken for mixed precision, the first that is known


@dataclass(frozen=True)
class Ceilings:
    """Limits of a device, in SI units.

    Attributes
    ----------
    flops : mapping of str to float
        FLOP/s of a large matrix product, by precision.
    bandwidth : float
        Bytes per second of a streaming copy.
    dispatch_s : float
        Seconds to launch one small operator.
    source : str
        ``measured``; ``datasheet of ...``, with the cards that it may be; or ``nominal``, where nothing is known: the mean of those
        that are, if any, so that the device can be compared with none.
    """

    flops: Mapping[str, float]
    bandwidth: float
    dispatch_s: float
    source: str = MEASURED

    @classmethod
    def of(cls, environment: Environment | None, device: str) -> Ceilings:
        """Those of a device of an environment's machine: measured, else of its datasheet, else nominal."""
        found: dict[str, Any] = (environment.ceilings(device) or {}) if environment else {}
        rates = found.get("gemm_flops")
        if rates and found.get("bandwidth_bytes_s") and found.get("dispatch_s"):
            return cls(rates, found["bandwidth_bytes_s"], found["dispatch_s"])
        name = _device_name(environment, device) if environment else None
        return (cls.named(name) if name else None) or cls(
            {"fp32": NOMINAL_FLOPS}, NOMINAL_BANDWIDTH, NOMINAL_DISPATCH_S, NOMINAL
        )

    @classmethod
    def named(cls, device_name: str) -> Ceilings | None:
        """Those of the datasheet of a device, by its name or short for it; None if no one sheet fits.

        Of several cards that a short name may mean and that are alike (:func:`labbench.machine.datasheet.datasheets`) the geometric
        mean. What a datasheet does not tell, the time to launch an operator, is nominal.
        """
        from labbench.machine.datasheet import HALF, datasheets

        sheets = datasheets(device_name)
        if not sheets:
            return None
        rates = [{name: sheet.peak(name) or 0.0 for name in ("fp32", *HALF)} for sheet in sheets]
        each = [
            cls(flops, sheet.bandwidth_bytes_s or 0.0, NOMINAL_DISPATCH_S)
            for flops, sheet in zip(rates, sheets, strict=True)
        ]
        return cls.mean(each, f"datasheet of {' or '.join(sheet.name for sheet in sheets)}")

    @classmethod
    def mean(cls, several: Sequence[Ceilings], source: str) -> Ceilings:
        """Geometric mean of several devices', at the precisions that all have."""

        def middle(values: Iterable[float]) -> float:
            return float(np.exp(np.mean(np.log(list(values)))))

        names = [name for name in several[0].flops if all(one.flops.get(name) for one in several)]
        flops = {name: middle(one.flops[name] for one in several) for name in names}
        bandwidth, dispatch_s = (middle(getattr(one, name) for one in several) for name in ("bandwidth", "dispatch_s"))
        return cls(flops, bandwidth, dispatch_s, source)

    @property
    def known(self) -> bool:
        """Whether they say anything about the device."""
        return self.source != NOMINAL

    def peak(self, precision: str) -> float:
        """FLOP/s at a precision; fp32's where that one is not known, for mixed precision that of its halves."""
        names = (precision, *(HALVES if precision == "amp" else ()), "fp32")
        return next((self.flops[name] for name in names if self.flops.get(name)), max(self.flops.values()))


def _device_name(environment: Environment, device: str) -> str | None:
    """What a device of an environment's machine calls itself."""
    if device == "cpu":
        name = environment.machine.get("cpu", {}).get("name")
    else:
        parts = environment.machine.get("accelerators", [])
        name = next((part.get("name") for part in parts if part.get("device") == device), None)
    return str(name) if name else None


def prepare(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with ``family``, ``group`` and ``cell_key`` added, and zeros for operator classes that are not there.

    A ``group`` is what a split must not tear apart: a family, or families that share an operator graph. Llama and Qwen2, say,
    differ in name only: with one of them in the training part the other is no unseen model. Made networks are no family: each is
    drawn anew.
    """
    missing = [name for name in ("model", *CONFIGURATION, *TOTALS) if name not in frame]
    if missing:
        raise PredictionError(
            f"the frame lacks {', '.join(missing)}; use Store.latest() for measured cells, "
            "labbench.prediction.candidates() for others"
        )
    table = frame.reset_index(drop=True).copy()
    for name in (*TOTALS, "parameters", "activation_bytes"):
        if name in table:
            table[name] = table[name].to_numpy(float, na_value=np.nan)
    table["architecture"] = table["model"].astype("str")
    table["family"] = table["model"].astype("str").map(family_of)
    by_class = [name for name in table.columns.astype(str) if name.startswith(PER_CLASS)]
    table[by_class] = table[by_class].fillna(0.0).astype(float)
    table["group"] = table["family"].where(table["family"] != MADE, table["architecture"])
    table["group"] = table["group"].map(joined(table["group"].to_numpy(str), operator_graphs(table)))
    cell = ["record_id"] if "record_id" in table else [name for name in (*PLATFORM, *WORKLOAD) if name in table]
    table["cell_key"] = table.groupby(cell, dropna=False, observed=True).ngroup()
    return table if set(HELD) <= set(table) else table.assign(**_held(table))


def operator_graphs(table: pd.DataFrame) -> np.ndarray:
    """A number for each row that is equal where the operators of every class are as many; -1 where nobody counted."""
    counts = [name for name in table if str(name).startswith("kernels_")]
    if not counts:
        return np.full(len(table), -1)
    codes = table.groupby(counts, sort=False).ngroup().to_numpy()
    return np.where(np.isfinite(table["kernels"].to_numpy(float)), codes, -1)


def joined(names: np.ndarray, shared: np.ndarray) -> dict[str, str]:
    """Each name to the first of all those that are connected to it by something shared (not -1)."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    known, name = np.unique(names, return_inverse=True)
    told = shared >= 0
    size = len(known) + int(shared.max(initial=-1)) + 1
    edges = coo_matrix((np.ones(told.sum()), (name[told], len(known) + shared[told])), shape=(size, size))
    part = connected_components(edges, directed=False)[1][: len(known)]
    first = {label: str(one) for one, label in zip(known[::-1], part[::-1], strict=True)}
    return {str(one): first[label] for one, label in zip(known, part, strict=True)}


def classes(frame: pd.DataFrame) -> list[str]:
    """Operator classes that the frame has columns for, sorted."""
    return sorted(name.removeprefix("flops_") for name in frame.columns.astype(str) if name.startswith("flops_"))


def kind_of(frame: pd.DataFrame) -> pd.Series:
    """Kind of each row's device: ``cuda`` of ``cuda:0``."""
    names = frame["device"].astype("str")
    return names.map({name: name.split(":")[0] for name in names.unique()})


def limits(frame: pd.DataFrame, ceilings: Mapping[Device, Ceilings]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Peak rate at its precision, bandwidth and dispatch time of each row's device, in SI units, shape (n,) each."""
    places = frame.groupby(["machine_id", "device", "precision"], sort=False, observed=True, dropna=False)
    found = np.empty((len(frame), 3))
    for (machine, device, precision), rows in places.indices.items():
        limit = ceilings[machine, device]
        found[rows] = limit.peak(precision), limit.bandwidth, limit.dispatch_s
    return found[:, 0], found[:, 1], found[:, 2]


def latency_terms(frame: pd.DataFrame, ceilings: Mapping[Device, Ceilings]) -> np.ndarray:
    """Seconds each term of a call takes at the machine's ceilings, shape (n, 5): ``LATENCY_TERMS``.

    One coefficient serves the FLOPs of all classes: with the few convolutional families of a small store, one of their
    own made errors on unseen families worse.
    """
    peak, bandwidth, dispatch = limits(frame, ceilings)
    dense = sum(
        (frame[f"kernels_{name}"].to_numpy(float) for name in DENSE if f"kernels_{name}" in frame), np.zeros(len(frame))
    )
    flops, moved, kernels = (frame[name].to_numpy(float, na_value=np.nan) for name in TOTALS)
    return np.column_stack(
        [
            flops / peak,
            moved / bandwidth,
            dense * dispatch,
            (kernels - dense) * dispatch,
            np.full(len(frame), CALL_S),
        ]
    )


def memory_terms(frame: pd.DataFrame, ceilings: Mapping[Device, Ceilings]) -> np.ndarray:
    """Bytes that each term would hold at its start value, shape (n, 5): ``MEMORY_TERMS``."""
    del ceilings  # memory has none; the signature is latency_terms'
    held = frame[list(HELD)].to_numpy(float) * (1, 1, 1, OPERATOR_BYTES)
    return np.column_stack([held, np.full(len(frame), RUNTIME_BYTES)])


def _held(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """What a cell's worker holds, from the footprints of all its series: ``HELD``.

    Weights are those of the module, but exporting runtimes hold what each operator of each program reads: tied weights as often as
    they are used. Tensors are the most that live at one time beside the weights, scores those of the largest attention, which some
    runtimes write out.
    """
    import pandas as pd

    def column(name: str) -> np.ndarray:
        return table[name].to_numpy(float, na_value=np.nan) if name in table else np.full(len(table), np.nan)

    def of_cell(value: np.ndarray, how: str) -> np.ndarray:
        return pd.Series(value).groupby(table["cell_key"].to_numpy()).transform(how).to_numpy(float)

    own = column("parameters") * table["precision"].astype("str").map(BYTES_PER_VALUE).fillna(4).to_numpy(float)
    uses = of_cell(column("weight_use_bytes"), "sum")
    exported = table["runtime"].astype("str").isin(EXPORTING).to_numpy() & (uses > 0)
    on_cpu = table["device"].astype("str").to_numpy(object) == "cpu"
    peak = np.where(on_cpu, column("tensor_peak_cpu_bytes"), column("tensor_peak_bytes"))
    tensors = np.where(np.isfinite(peak), np.maximum(peak - own, 0.0), column("activation_bytes"))
    held = (
        np.where(exported, uses, of_cell(own, "max")),
        of_cell(tensors, "max"),
        np.nan_to_num(of_cell(column("score_bytes"), "max")),
        of_cell(column("kernels"), "sum"),
    )
    return dict(zip(HELD, held, strict=True))


@dataclass(frozen=True)
class ResidualFeatures:
    """What the residual is learnt from: sizes in the log, shares of operator classes and of the law's terms, and names.

    Attributes
    ----------
    classes : tuple of str
        Operator classes of the training rows.
    names : tuple of (str, str)
        Columns of texts and a value each: one indicator for each pair.
    """

    classes: tuple[str, ...]
    names: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, frame: pd.DataFrame) -> ResidualFeatures:
        """Those of training rows."""
        names = [(column, value) for column in NAMED for value in sorted(frame[column].astype("str").unique())]
        return cls(tuple(classes(frame)), tuple(names))

    def table(self, frame: pd.DataFrame) -> np.ndarray:
        """Features that do not depend on the law, shape (n, q)."""
        sizes = {name: frame[name].to_numpy(float) for name in (*TOTALS, "parameters", "activation_bytes")}
        logs = {name: np.log10(size + 1) for name, size in sizes.items()}
        texts = {column: frame[column].astype("str").to_numpy(object) for column in NAMED}
        return np.column_stack(
            [
                *logs.values(),
                logs["flops"] - logs["bytes"],
                np.log2(frame["batch_size"].to_numpy(float)),
                *(class_share(frame, total, name) for total in TOTALS for name in self.classes),
                *(texts[column] == value for column, value in self.names),
            ]
        )


def class_share(frame: pd.DataFrame, total: str, name: str) -> np.ndarray:
    """Share of an operator class in the FLOPs, bytes or kernels of each row; zero where the frame has no such class."""
    column = f"{total}_{name}"
    if column not in frame:
        return np.zeros(len(frame))
    whole = np.maximum(frame[total].to_numpy(float), 1e-30)
    return np.asarray(frame[column].to_numpy(float) / whole)


def largest_shares(frame: pd.DataFrame) -> dict[str, np.ndarray]:
    """Operator class to its share in each row's FLOPs, bytes or kernels, whichever is largest."""
    return {name: np.max([class_share(frame, total, name) for total in TOTALS], axis=0) for name in classes(frame)}


@dataclass(frozen=True)
class Domain:
    """What was measured on each platform: a cell outside it gets its prediction marked, with the reason.

    Attributes
    ----------
    ranges : dict
        Platform to the (smallest, largest) measured FLOPs, bytes and kernels.
    configurations : set
        (machine, platform, precision, mode) with measurements.
    shares : dict
        Platform to operator class to the largest share of FLOPs, bytes or kernels it ever had.
    measured : set
        (machine, platform, device, runtime) with measurements, few or many.
    """

    config: PredictionConfig
    ranges: dict[tuple[str, ...], dict[str, tuple[float, float]]]
    configurations: set[tuple[str, ...]]
    shares: dict[tuple[str, ...], dict[str, float]]
    measured: set[tuple[str, ...]]

    @classmethod
    def of(cls, frame: pd.DataFrame, config: PredictionConfig, few: np.ndarray) -> Domain:
        """The domain that a training frame spans; ``few``: rows of platforms with too few to span one themselves.

        What nobody measured but a few times, on any device, is spanned by all that its kind of device ran: as the law is, so is
        what it can be asked about.
        """
        ranges: dict[Any, dict[str, tuple[float, float]]] = {}
        shares: dict[Any, dict[str, float]] = {}
        configurations: set[tuple[str, ...]] = set()
        frame = frame.assign(few=few).reset_index(drop=True)
        runtime, kind = frame["runtime"].astype("str"), kind_of(frame)
        anywhere = [
            frame.assign(machine_id=ANYWHERE, platform=kind + "/" + name) for name in (runtime.map(_plain), runtime)
        ]
        for rows in (frame[~few], *anywhere):
            for platform, part in rows.groupby(list(PLATFORM), observed=True):
                if part["few"].all():
                    part = frame[kind == kind[part.index[0]]]
                ranges[platform] = {name: (float(part[name].min()), float(part[name].max())) for name in TOTALS}
                shares[platform] = {name: float(share.max()) for name, share in largest_shares(part).items()}
            configurations |= set(rows[list(CONFIGURATION)].itertuples(index=False, name=None))
        return cls(
            config, ranges, configurations, shares, {key for key, _ in rows_by(frame, (*PLATFORM, "device", "runtime"))}
        )

    @cached_property
    def devices(self) -> set[Device]:
        """(machine, device) with measurements."""
        return {(machine, device) for machine, _, device, _ in self.measured}

    def place(self, machine: str, platform: str, device: str, runtime: str) -> tuple[str, str]:
        """Where the like was measured: on the platform, on such a one anywhere, or, failing these, with another layout."""
        kind = device.split(":")[0]
        like = ((machine, platform), (ANYWHERE, f"{kind}/{runtime}"))
        return next((one for one in like if one in self.ranges), (ANYWHERE, f"{kind}/{_plain(runtime)}"))

    def refusals(self, frame: pd.DataFrame, ceilings: Mapping[Device, Ceilings]) -> list[str | None]:
        """Why a row cannot be predicted at all, or ``None``."""
        counted = np.isfinite(frame[list(TOTALS)].to_numpy(float, na_value=np.nan)).all(axis=1)
        reasons = np.full(len(frame), None, object)
        reasons[~counted] = NOT_COUNTED
        known = ", ".join(sorted({platform for machine, platform in self.ranges if machine != ANYWHERE}))
        ran = {(machine, device, runtime) for machine, _, device, runtime in self.measured}
        for (machine, platform, device, runtime), rows in rows_by(frame, (*PLATFORM, "device", "runtime")):
            nothing = f"nothing was measured on {platform} of machine {machine}"
            # On a device that ran the runtime with other threads only, neither those nor other devices tell what these would do.
            elsewise = (machine, platform, device, runtime) not in self.measured and (machine, device, runtime) in ran
            if elsewise or self.place(machine, platform, device, runtime) not in self.ranges:
                reasons[rows] = f"{nothing} (measured: {known})"
            elif (machine, device) not in self.devices and not ceilings[machine, device].known:
                reasons[rows] = (
                    f"{nothing}, and neither measurements nor a datasheet tell what {device} of it can do: measure a cell there "
                    "with `labbench run`, or name the card as its datasheet does"
                )
            elif (machine, device) not in self.devices and not self._compared(device, ceilings):
                reasons[rows] = (
                    f"{nothing}, and neither measurements nor a datasheet tell what the devices can do that were measured, so that "
                    "this one cannot be compared with them: measure a cell there with `labbench run`"
                )
        return list(reasons)

    def _compared(self, device: str, ceilings: Mapping[Device, Ceilings]) -> bool:
        """Whether the ceilings of a measured device of the same kind are known."""
        kind = device.split(":")[0]
        return any(ceilings[one].known for one in self.devices if one[1].split(":")[0] == kind)

    def departures(self, frame: pd.DataFrame) -> list[str | None]:
        """Why a prediction for a row leaves the measured domain, or ``None`` where it does not."""
        found: dict[int, list[str]] = defaultdict(list)

        def note(rows: np.ndarray, values: np.ndarray, limit: float, text: str) -> None:
            for row, value in zip(rows[values > limit], values[values > limit], strict=True):
                found[row].append(text.format(value))

        shares = largest_shares(frame)
        totals = {name: frame[name].to_numpy(float, na_value=np.nan) for name in TOTALS}
        for (*where, precision, mode), everywhere in rows_by(
            frame, (*PLATFORM, "device", "runtime", "precision", "mode")
        ):
            rows = everywhere[np.isfinite(totals["flops"][everywhere])]
            there = self.place(*where)
            if there not in self.ranges:
                continue
            if (*there, precision, mode) not in self.configurations:
                note(rows, np.ones(len(rows)), 0, f"{precision} {mode} was never measured on {there[1]}")
            if there[0] == ANYWHERE and not there[1].endswith(f"/{where[-1]}"):
                note(rows, np.ones(len(rows)), 0, f"{where[-1]} was never measured, only as {there[1]}")
            for name, (low, high) in self.ranges[there].items():
                value, factor, what = totals[name][rows], self.config.domain_factor, NAMES[name]
                note(rows, value / high, factor, f"{{:.1f}} times the most {what} measured there")
                note(
                    rows, low / np.maximum(value, 1e-30), factor, f"{{:.1f}} times fewer {what} than any measured there"
                )
            for name, share in shares.items():
                if not self.shares[there].get(name, 0.0) > 0:
                    text = f"operators of class {name} ({{:.0%}} of its work) were never measured there"
                    note(rows, share[rows], self.config.domain_share, text)
        return ["; ".join(found[row]) if row in found else None for row in range(len(frame))]


def _plain(runtime: str) -> str:
    """A runtime without what it is told apart by beside its name: ``eager`` of ``eager-nhwc``."""
    return runtime.split("-")[0]


def rows_by(frame: pd.DataFrame, columns: Sequence[str]) -> Iterator[tuple[tuple[str, ...], np.ndarray]]:
    """Each combination of texts in some columns and the positions of the rows that have it."""
    for key, rows in frame[list(columns)].astype("str").groupby(list(columns), sort=False).indices.items():
        yield key, np.asarray(rows)


NOT_COUNTED = "its footprint is not known: labbench.footprint could not count this workload"
NAMES = {"flops": "FLOPs", "bytes": "bytes", "kernels": "kernels"}
