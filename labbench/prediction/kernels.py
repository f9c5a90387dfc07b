"""Seconds of single operators on devices that nobody measured, learnt from kernels timed on others.

::

    kernels timed on some GPUs ──> laws of few coefficients (labbench.prediction.kernel_laws)
                              └──> boosting of what the laws miss by shape alone, each device's own offset taken out
    operators, a datasheet ──> seconds, within a factor found by leaving each training device out

The device enters through its datasheet only, in dimensionless ratios: rounds of tiles over multiprocessors, arithmetic intensity
over the machine's balance, strain. The form follows NeuSight (Lee et al., ASPLOS 2025), which learns the utilization of tiles;
here most of it is a law, because five devices are few to learn from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from labbench.machine.datasheet import Datasheet
from labbench.prediction.config import PredictionError
from labbench.prediction.conformal import Radius, radius
from labbench.prediction.kernel_laws import (
    LAUNCH_S,
    UNSTRAINED,
    ProductLaw,
    Shapes,
    TransferLaw,
    alone,
    roofline_s,
    shapes_on,
)

if TYPE_CHECKING:
    import pandas as pd

LEVEL = 0.9
PRECISION = "fp32"
LEAST_FLOPS = 1e8  # of products that are learnt from: smaller ones are launches
LONGEST_SUM = 16_384  # of a product that is learnt from: over longer ones Pascal's boards fall to a third of their rate
LEAST_LAUNCHES = (
    2.0  # that a kernel which moves data must last to be learnt from: shorter ones hide behind their launch
)
ROWS = 3000  # kernels of a kind and device that are learnt from
LAUNCH_QUANTILE = 0.02  # of a kind's latencies on a device: the shortest are launches
LARGE_FLOPS = 3e9  # a device's own offset is that of products which fill it
MOST_MISSED = 0.7  # of the boosted log ratio: what is off by more is not about shape
BASKET, BASKETS = 30, 40  # kernels whose sum stands for a model's, and how many such sums judge an interval
SEED = 0
FAMILIES = dict.fromkeys(
    ("linear", "bmm", "attention", "pointwise", "patch"), "product"
)  # other products are convolutions
RATIOS: dict[str, Callable[[Datasheet], float]] = {
    "FLOP/s over bytes/s": lambda sheet: sheet.flops[PRECISION] / (sheet.bandwidth_bytes_s or 1.0),
    "strain": lambda sheet: max(sheet.strain or 1.0, UNSTRAINED),  # below that it makes no difference
    "multiprocessors": lambda sheet: float(sheet.multiprocessors or 1),
}
FAR = 1.5  # times beyond the range of a ratio
MOVED = "elementwise"  # the kind that stands for all which move data and were never timed


@dataclass(frozen=True)
class KernelModel:
    """Prices operators by datasheet.

    Attributes
    ----------
    laws : dict
        Of ``product``, ``convolution`` and the kinds that move data.
    shape : dict
        Of ``product`` and ``convolution``: boosting that corrects the law by shape.
    alone_s : dict
        Of each kind: the launch that a stopwatch about one kernel shows, geometric mean of the devices.
    errors : DataFrame
        Of each training device left out: ``device``, ``kind``, ``law``, ``predicted_s``, ``measured_s``.
    one, many : dict
        Of each law: half-width, in the log, of the interval of a single kernel and of a sum of kernels
        (:class:`~labbench.prediction.conformal.Radius`); empty with fewer than three devices.
    devices : tuple of str
        What was learnt from.
    ranges : dict
        Least and largest of each of their ``RATIOS``.
    """

    laws: dict[str, ProductLaw | TransferLaw] = field(default_factory=dict)
    shape: dict[str, Any] = field(default_factory=dict, repr=False)
    alone_s: dict[str, float] = field(default_factory=dict)
    errors: pd.DataFrame | None = field(default=None, repr=False)
    one: dict[str, Radius] = field(default_factory=dict)
    many: dict[str, Radius] = field(default_factory=dict)
    devices: tuple[str, ...] = ()
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)

    @classmethod
    def fit(
        cls, kernels: pd.DataFrame, sheets: Mapping[str, Datasheet], level: float = LEVEL, judge: bool = True
    ) -> KernelModel:
        """Learn from kernels timed alone in single precision.

        Parameters
        ----------
        kernels : DataFrame
            Columns of :func:`labbench.operators.table` (``count`` aside), ``device`` and ``seconds``.
        sheets : mapping
            Datasheet of each device.
        level : float
            Nominal coverage of the intervals.
        judge : bool
            Whether to leave each device out once, which intervals need.

        Raises
        ------
        PredictionError
            If a device has no sheet, its sheet lacks a figure, no kernel is an elementwise operator, or none is a matrix product
            of a device whose strain is at most ``UNSTRAINED``.
        """
        unknown = sorted(set(kernels["device"]) - set(sheets))
        if unknown:
            raise PredictionError(f"no datasheet of {', '.join(unknown)}: pass one in `sheets`")
        kernels = _learnt_from(kernels)
        model = cls._fit(kernels, sheets)
        names = model.devices
        if not judge or len(names) < 3:
            return model
        parts = []
        for name in names:
            held = kernels[kernels["device"] == name]
            others = cls._fit(kernels[kernels["device"] != name], sheets)
            seconds = others.seconds(held, sheets[name], timed_alone=True)
            told = {"law": _law_names(held), "predicted_s": seconds, "measured_s": held["seconds"]}
            parts.append(held[["device", "kind"]].assign(**told))
        return model._judged(parts, level)

    @classmethod
    def _fit(cls, kernels: pd.DataFrame, sheets: Mapping[str, Datasheet]) -> KernelModel:
        laws: dict[str, ProductLaw | TransferLaw] = {}
        shape: dict[str, Any] = {}
        for name, rows in kernels.groupby(_law_names(kernels), sort=True):
            law = ProductLaw if name in ("product", "convolution") else TransferLaw
            if law is TransferLaw:
                rows = rows[rows["seconds"] > LEAST_LAUNCHES * rows["launch_s"]]
            shapes, seconds = _stacked(rows, sheets), rows["seconds"].to_numpy(float)
            if law is ProductLaw and not (shapes["strain"] <= UNSTRAINED).any():
                continue
            launch_s = rows["launch_s"].to_numpy(float)
            large = _large(shapes) if law is ProductLaw else np.ones(len(rows), bool)
            laws[name] = law.fit(
                {key: column[large] for key, column in shapes.items()}, seconds[large], launch_s[large]
            )
            if law is ProductLaw:
                missed = np.log(seconds / alone(laws[name].seconds(shapes, warm=False), launch_s))
                shape[name] = _boosted(shapes, missed, (rows["device"] + rows["kind"]).to_numpy())
        for needed, what in (
            ("product", "matrix product of a device that holds its clock"),
            (MOVED, "elementwise operator"),
        ):
            if needed not in laws:
                raise PredictionError(f"no {what} among the kernels to learn from: time some")
        launches = np.log(kernels.groupby(["kind", "device"])["launch_s"].first()).groupby("kind").mean()
        names = tuple(sorted(set(kernels["device"])))
        known = {ratio: [of(sheets[name]) for name in names] for ratio, of in RATIOS.items()}
        ranges = {ratio: (min(values), max(values)) for ratio, values in known.items()}
        return cls(laws, shape, np.exp(launches).to_dict(), devices=names, ranges=ranges)

    def _judged(self, parts: list[pd.DataFrame], level: float) -> KernelModel:
        """With errors and intervals; a model's time is a sum, so sums of kernels drawn at random are judged too."""
        import pandas as pd

        errors = pd.concat(parts, ignore_index=True)
        draw = np.random.default_rng(SEED)
        one, many = {}, {}
        for name, rows in errors.groupby("law"):
            sums = []
            for _, own in rows.groupby("device"):
                drawn = draw.integers(len(own), size=(BASKETS, BASKET))
                predicted, measured = own["predicted_s"].to_numpy(), own["measured_s"].to_numpy()
                sums.append(np.abs(np.log(predicted[drawn].sum(axis=1) / measured[drawn].sum(axis=1))))
            single = np.abs(np.log(rows["predicted_s"] / rows["measured_s"])).to_numpy()
            one[name] = radius(single, rows["device"].to_numpy(), level)
            many[name] = radius(np.concatenate(sums), np.repeat(np.arange(len(sums)), BASKETS), level)
        return replace(self, errors=errors, one=one, many=many)

    def seconds(self, operators: pd.DataFrame, sheet: Datasheet, timed_alone: bool = False) -> np.ndarray:
        """Seconds of each operator (once, whatever its ``count``), never less than the roofline.

        Parameters
        ----------
        operators : DataFrame
            Columns of :func:`labbench.operators.table`.
        sheet : Datasheet
        timed_alone : bool
            As a stopwatch about a single call from rest shows it, launch and all; default: within a program that runs.

        Raises
        ------
        PredictionError
            If the model is not fitted or the sheet lacks a figure.
        """
        if not self.laws:
            raise PredictionError("the kernel model is not fitted: call KernelModel.fit(kernels, sheets) first")
        shapes = shapes_on(operators, sheet, PRECISION)
        names = _law_names(operators).to_numpy()
        out = np.empty(len(operators))
        for name in np.unique(names):
            rows = names == name
            these = {key: column[rows] for key, column in shapes.items()}
            law = self.laws.get(name) or self.laws["product" if name == "convolution" else MOVED]
            value = law.seconds(these, warm=not timed_alone)
            if name in self.shape:
                value = LAUNCH_S + (value - LAUNCH_S) * np.exp(_correction(self.shape[name], these))
            value = np.maximum(value, roofline_s(these))
            out[rows] = value
        return (
            alone(out, operators["kind"].map(self.alone_s).fillna(self.alone_s[MOVED]).to_numpy())
            if timed_alone
            else out
        )

    def predict(self, operators: pd.DataFrame, sheet: Datasheet) -> pd.DataFrame:
        """``seconds`` of each operator with ``low`` and ``high``: the interval of a single kernel."""
        seconds = self.seconds(operators, sheet)
        spread = self._spread(operators, self.one)
        return operators.assign(seconds=seconds, low=seconds / spread, high=seconds * spread)

    def total(self, operators: pd.DataFrame, sheet: Datasheet) -> tuple[float, float, float]:
        """Seconds of all operators one after another, ``count`` times each, and the interval of such a sum.

        Launches are taken to hide behind the kernels before them, as they do while the device is busy. Errors of different laws
        are taken to go the same way.
        """
        seconds = self.seconds(operators, sheet) * operators["count"].to_numpy(float)
        spread = self._spread(operators, self.many)
        return float(seconds.sum()), float((seconds / spread).sum()), float((seconds * spread).sum())

    def departures(self, sheet: Datasheet) -> list[str]:
        """In what a device lies far outside those that were learnt from: there its intervals are not calibrated."""
        out = []
        for ratio, (low, high) in self.ranges.items():
            value = RATIOS[ratio](sheet)
            if not low / FAR <= value <= high * FAR:
                out.append(f"{ratio} {value:.3g}, learnt from {low:.3g} to {high:.3g}")
        return out

    def _spread(self, operators: pd.DataFrame, radii: Mapping[str, Radius]) -> np.ndarray:
        """Factor of each operator's interval; of what was never timed, the widest."""
        if not radii:
            return np.full(len(operators), np.inf)
        values = {name: radius.value for name, radius in radii.items()}
        return np.exp(_law_names(operators).map(values).fillna(max(values.values())).to_numpy(float))


def _law_names(operators: pd.DataFrame) -> pd.Series:
    """Which law prices an operator: by kind, and whether it is a product."""
    products = operators["m"] > 0
    return operators["kind"].map(FAMILIES).where(products).fillna("convolution").where(products, operators["kind"])


def _learnt_from(kernels: pd.DataFrame) -> pd.DataFrame:
    """Products of a size that models have, and the rest, at most ``ROWS`` kernels of each kind and device, drawn at random.

    ``launch_s`` is added: what the shortest of its kind and device take.
    """
    launches = kernels.groupby(["device", "kind"])["seconds"].transform("quantile", LAUNCH_QUANTILE)
    kernels = kernels.assign(launch_s=launches)
    sized = (kernels["flops"] >= LEAST_FLOPS) & (kernels["k"] <= LONGEST_SUM)
    kernels = kernels[(kernels["m"] == 0) | sized]
    drawn = kernels.sample(frac=1.0, random_state=SEED)
    return drawn.groupby(["device", "kind"], sort=False).head(ROWS).sort_index().reset_index(drop=True)


def _stacked(rows: pd.DataFrame, sheets: Mapping[str, Datasheet]) -> dict[str, np.ndarray]:
    """Shapes of kernels of several devices, in the order of the rows."""
    order, parts = [], []
    for name, these in rows.reset_index(drop=True).groupby("device"):
        order.append(these.index.to_numpy())
        parts.append(shapes_on(these, sheets[name], PRECISION))
    back = np.argsort(np.concatenate(order))
    return {key: np.concatenate([part[key] for part in parts])[back] for key in parts[0]}


def _features(shapes: Shapes) -> np.ndarray:
    """Of a product: sizes, how well they fill tiles and rounds, intensity over balance, alignment of rows."""
    sizes = [shapes[name] for name in ("m", "n", "k", "groups")]
    m, n, k, groups = sizes
    columns = [*np.log2(sizes)]
    for side in (128, 64):
        rounds = np.ceil(m / side) * np.ceil(n / side) * groups / shapes["units"]
        columns += [np.log2(rounds), rounds / np.ceil(rounds)]
    columns += [x / side / np.ceil(x / side) for x, side in ((m, 128), (n, 128), (n, 64))]
    columns += [np.log2(shapes["flops"] / shapes["bytes"] * shapes["bandwidth"] / shapes["peak"])]
    columns += [_alignment(x) for x in (k, n, m)]
    columns += [shapes["window"], shapes["stride"]]
    return np.column_stack(columns)


def _alignment(size: np.ndarray) -> np.ndarray:
    """How often two divides a size, at most five times: loads come in 16 bytes, sectors have 32, lines 128."""
    whole = np.maximum(size, 1).astype(np.int64)
    return np.minimum(np.log2((whole & -whole).astype(float)), 5.0)


def _large(shapes: Shapes) -> np.ndarray:
    return np.asarray(shapes["flops"] > LARGE_FLOPS)


def _boosted(shapes: Shapes, missed: np.ndarray, group: np.ndarray) -> Any:
    """Boosting of what the law misses, after each device's and kind's own median of large products is taken out."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    missed = missed.copy()
    large = _large(shapes)
    for name in np.unique(group):
        rows = group == name
        own = missed[rows & large] if (rows & large).any() else missed[rows]
        missed[rows] -= np.median(own)
    model = HistGradientBoostingRegressor(
        max_iter=200,
        learning_rate=0.05,
        max_leaf_nodes=15,
        min_samples_leaf=40,
        l2_regularization=1.0,
        random_state=SEED,
    )
    return model.fit(_features(shapes), np.clip(missed, -MOST_MISSED, MOST_MISSED))


def _correction(model: Any, shapes: Shapes) -> np.ndarray:
    return np.clip(model.predict(_features(shapes)), -MOST_MISSED, MOST_MISSED)
