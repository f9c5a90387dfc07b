"""What one operator takes on a GPU by its datasheet: few coefficients, each with a meaning, to hold on devices never seen.

A kernel computes and moves data at the same time, the slower of the two counts, and whatever is slower than the datasheet is a
dimensionless share of it:

- Matrix products run in tiles of the output. Each tile costs its full size (*tile quantization*), and the multiprocessors take
  them in rounds of which the last may be half empty (*wave quantization*; NVIDIA, "Matrix Multiplication Background User's
  Guide"). Smaller tiles load more for each multiply-add and run at a lower rate.
- The rate of a full device is a share of its peak, which depends on whether the schedulers have turns left for loads beside the
  multiply-adds (:attr:`labbench.machine.datasheet.Datasheet.issue`).
- A board whose sheet promises far more per watt than its process usually gives
  (:attr:`~labbench.machine.datasheet.Datasheet.strain`) slows down under a product that lasts: at constant energy per operation,
  its power holds the rate at a share of the peak that is inverse to the strain.
- Everything else is bytes over bandwidth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from labbench.machine.datasheet import MATRIX, Datasheet
from labbench.operators import SECTOR_BYTES
from labbench.prediction.config import PredictionError

if TYPE_CHECKING:
    import pandas as pd

Shapes = Mapping[str, np.ndarray]  # columns of operators, and of their device's sheet

LAUNCH_S = 3e-6  # between two kernels of a stream; profiles show 2 to 5 µs
SHOWN = 0.5  # of a launch: fits give 0.41 to 0.47 (elementwise, softmax), 0.8 (layer norm)
HIDING = 4.0  # sharpness of the maximum of a kernel and the half of its launch that it hides
OVERLAP = 2.0  # of computing and moving: they overlap, but for first and last tiles and where both wait for a cache
FLOAT_BYTES = 4
TILES = ((128, 128), (128, 64), (64, 128), (64, 64), (64, 32), (32, 64), (32, 32))  # of cuBLAS's and CUTLASS's kernels
FULL = 128  # side of a tile that runs at the full rate
HALF_ROUND = 0.5  # two tiles share a multiprocessor: half a round is the least step
WINOGRAD = 2.25  # multiplications that F(2x2, 3x3) saves (Lavin & Gray 2016, arXiv:1509.09308), for 3 x 3 at stride 1
UNSTRAINED = 4 / 3  # strain up to which a board is taken to hold its clock: three quarters of the sheets lie below
SUSTAINED_S = 5e-3  # where the search begins: a power controller looks every few milliseconds
NOISE = 0.1  # of a kernel about the law, in the log: within it the loss is quadratic, beyond it linear


@dataclass(frozen=True)
class ProductLaw:
    """Matrix products and convolutions.

    Attributes
    ----------
    theta : array, shape (6,)
        Logs of: share of the peak at one and at two issued instructions a cycle, depth of product that a tile's start and end cost,
        rate of a 64 x 64 tile over a 128 x 128 one, of a 32 x 32 over a 64 x 64 one, share of the bandwidth.
    strain, sustained_s : float
        Strain at which a board slows down under one kernel again and again, and the time it takes to. In a program, operators that
        draw less lie between the products, and power is averaged: it stands a strain of ``UNSTRAINED`` at least.
    """

    theta: np.ndarray
    strain: float = UNSTRAINED
    sustained_s: float = SUSTAINED_S

    # Where the search begins, and how far from there (in the log) the prior lets it go where data say little.
    START = np.log([0.75, 0.9, 30.0, 0.9, 0.8, 0.75])
    WIDTH = np.array([0.3, 0.3, 1.0, 0.3, 0.3, 0.1])

    @classmethod
    def fit(cls, shapes: Shapes, seconds: np.ndarray, alone_s: np.ndarray) -> ProductLaw:
        """Fit to kernels timed alone, whose launches take ``alone_s``: first the boards that hold their clock, then the others.

        Some must hold it: what a board that does not could reach is not seen.
        """
        cool = shapes["strain"] <= UNSTRAINED

        def residual(theta: np.ndarray) -> np.ndarray:
            law = cls(theta)
            error = np.log(alone(law.seconds(_rows(shapes, cool)), alone_s[cool]) / seconds[cool])
            return np.concatenate([error / NOISE, (theta - cls.START) / cls.WIDTH])

        law = cls(_solve(residual, cls.START))
        if cool.all():
            return law

        def throttled(pair: np.ndarray) -> np.ndarray:
            hot = cls(law.theta, *np.exp(pair))
            return np.log(alone(hot.seconds(_rows(shapes, ~cool), warm=False), alone_s[~cool]) / seconds[~cool]) / NOISE

        strain, sustained_s = np.exp(_solve(throttled, np.log([UNSTRAINED, SUSTAINED_S])))
        return cls(law.theta, float(strain), float(sustained_s))

    def seconds(self, shapes: Shapes, warm: bool = True) -> np.ndarray:
        """Time of each; ``warm``: in a program that has run for a while, not alone and from rest."""
        low, high, depth, rate64, rate32, bandwidth = self.theta
        share = np.exp(low + (high - low) * (shapes["issue"] - 1))
        computing = np.full(len(shapes["m"]), np.inf)
        for rows, columns in TILES:
            smaller = np.log2(FULL * FULL / (rows * columns)) / 2  # sides halved
            rate = np.exp(min(smaller, 1.0) * rate64 + max(smaller - 1.0, 0.0) * rate32)
            tiles = np.ceil(shapes["m"] / rows) * np.ceil(shapes["n"] / columns) * shapes["groups"]
            rounds = np.ceil(tiles / shapes["units"] / HALF_ROUND) * HALF_ROUND
            work = np.maximum(rounds, 1.0) * shapes["units"] * rows * columns * 2 * (shapes["k"] + np.exp(depth))
            computing = np.minimum(computing, work / (shapes["peak"] * share * rate))
        computing = computing * shapes["passes"]
        moving = shapes["bytes"] / (shapes["bandwidth"] * np.exp(bandwidth))
        stands = max(self.strain, UNSTRAINED) if warm else self.strain
        slowed = np.where(shapes["strain"] > UNSTRAINED, np.maximum(shapes["strain"] / stands, 1.0), 1.0)
        sustained = LAUNCH_S + _maximum(computing * slowed, moving, OVERLAP)
        if warm:
            return sustained
        return np.asarray(
            LAUNCH_S + _maximum(computing * slowed ** (sustained / (sustained + self.sustained_s)), moving, OVERLAP)
        )


@dataclass(frozen=True)
class TransferLaw:
    """Operators that move data.

    Attributes
    ----------
    share : float
        Log of the share of the bandwidth that they reach.
    stacked : float
        How much more it is, in the log, on stacked memory (HBM), which has bits of its own for error correction: boards with other
        memory keep the codes among the data.
    """

    share: float
    stacked: float = 0.0

    START, WIDTH = np.array([np.log(0.8), 0.0]), np.array([0.3, 0.1])

    @classmethod
    def fit(cls, shapes: Shapes, seconds: np.ndarray, alone_s: np.ndarray) -> TransferLaw:
        """Fit to kernels timed alone."""

        def residual(theta: np.ndarray) -> np.ndarray:
            error = np.log(alone(cls(*theta).seconds(shapes), alone_s) / seconds)
            return np.concatenate([error / NOISE, (theta - cls.START) / cls.WIDTH])

        return cls(*map(float, _solve(residual, cls.START)))

    def seconds(self, shapes: Shapes, warm: bool = True) -> np.ndarray:
        """Time of each."""
        del warm
        share = np.exp(np.minimum(self.share + self.stacked * shapes["stacked"], 0.0))
        return np.asarray(LAUNCH_S + (shapes["bytes"] + shapes["wasted"]) / (shapes["bandwidth"] * share))


def alone(seconds: np.ndarray, alone_s: np.ndarray | float) -> np.ndarray:
    """What a stopwatch about one call shows: half of a launch comes before the kernel, behind the other half a short one hides."""
    return np.asarray(SHOWN * alone_s + _maximum(seconds, (1 - SHOWN) * alone_s, HIDING))


def roofline_s(shapes: Shapes) -> np.ndarray:
    """Least time by the sheet (Williams et al. 2009): no kernel computes or moves faster."""
    computing = shapes["flops"] / shapes["peak"] / shapes["saving"]
    return np.asarray(np.maximum(computing, shapes["bytes"] / shapes["bandwidth"]))


def shapes_on(operators: pd.DataFrame, sheet: Datasheet, precision: str = "fp32") -> dict[str, np.ndarray]:
    """Columns that the laws read: of each operator, and of the device.

    Raises
    ------
    PredictionError
        If the sheet lacks a figure; it names all that are missing.
    """
    products = operators["m"].to_numpy() > 0
    peak = sheet.flops.get(precision)
    needed = {
        f"peak {precision} FLOP/s": peak,
        "memory bandwidth": sheet.bandwidth_bytes_s,
        "number of multiprocessors": sheet.multiprocessors,
    }
    missing = [name for name, value in needed.items() if not value]
    if missing or not (peak and sheet.bandwidth_bytes_s and sheet.multiprocessors):
        raise PredictionError(
            f"{sheet.name or 'the device'}: the datasheet lacks {', '.join(missing)}; give it in a Datasheet"
        )
    matrix = sheet.flops.get(MATRIX, peak) if precision == "fp32" else peak
    size = {name: np.where(products, operators[name].to_numpy(float), 1.0) for name in ("m", "n", "k", "groups")}
    flops = operators["flops"].to_numpy(float)
    window, stride = operators["window"].to_numpy(), operators["stride"].to_numpy()
    winograd = operators["label"].eq("convolution").to_numpy() & (window == 9) & (stride == 1)
    count = len(operators)
    return {
        **size,
        "flops": flops,
        "bytes": traffic(operators),
        "wasted": _wasted(operators, sheet),
        "passes": np.where(products, flops / (2 * size["m"] * size["n"] * size["k"] * size["groups"]), 1.0),
        "saving": np.where(winograd, WINOGRAD, 1.0),
        "window": window.astype(float),
        "stride": stride.astype(float),
        "peak": np.where(products, matrix, peak),
        "bandwidth": np.full(count, sheet.bandwidth_bytes_s),
        "units": np.full(count, float(sheet.multiprocessors)),
        "issue": np.full(count, sheet.issue),
        "strain": np.full(count, sheet.strain or 1.0),
        "stacked": np.full(count, float("HBM" in sheet.memory)),
    }


def traffic(operators: pd.DataFrame) -> np.ndarray:
    """Bytes that an operator moves: all it reads and writes, but a fill reads nothing and a look-up only what it finds."""
    name, written = operators["name"], operators["written_bytes"].to_numpy(float)
    read = (operators["read_bytes"] + operators["weight_bytes"]).to_numpy(float)
    fills = name.str.match(r"(?:zeros|ones|full|fill|new_|arange)").to_numpy()
    finds = (name.isin(("embedding", "index", "index_select", "gather")) & ~operators["backward"]).to_numpy()
    puts = name.str.startswith(
        ("index_put", "scatter")
    ).to_numpy()  # in place: what it reads beside its target, and writes that
    read = np.where(fills, 0.0, np.where(finds, written, np.where(puts, np.maximum(read - written, 0.0), read)))
    return read + np.where(puts, read, written)


def _wasted(operators: pd.DataFrame, sheet: Datasheet) -> np.ndarray:
    """Bytes that come along unused with elements which lie across the order of reading, farther apart than the cache holds."""
    beyond = operators["apart_span"].to_numpy(float) > (sheet.l2_bytes or np.inf)
    return np.where(beyond, operators["apart_bytes"].to_numpy(float) * (SECTOR_BYTES / FLOAT_BYTES - 1), 0.0)


def _maximum(one: np.ndarray, other: np.ndarray | float, sharpness: float) -> np.ndarray:
    """A smooth maximum: the norm of both."""
    return np.asarray((one**sharpness + other**sharpness) ** (1 / sharpness))


def _rows(shapes: Shapes, rows: np.ndarray) -> dict[str, np.ndarray]:
    return {name: column[rows] for name, column in shapes.items()}


def _solve(residual: Callable[[np.ndarray], np.ndarray], start: np.ndarray) -> np.ndarray:
    """Robust least squares; steps cross the jumps of quantization, so derivatives are taken over a thousandth."""
    from scipy.optimize import least_squares

    return np.asarray(least_squares(residual, start, loss="soft_l1", diff_step=1e-3).x)
