"""From raw samples to the estimates of a record; intervals respect that samples of one round resemble one another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from labbench.records import Estimate, Samples, Series

LEVEL = 0.95
BOOTSTRAPS = 500  # resamples: the ends of a 95 % interval then move by a few per cent of its width between seeds
FEWEST_BLOCKS = 10  # where there are as many rounds: an interval from fewer is itself uncertain
FEW_ROUNDS = 3  # below this, rounds cannot be resampled and samples are instead


def series(
    name: str,
    seconds: list[float],
    process: list[int],
    rounds: list[int],
    *,
    items: float,
    unit: str,
    calls_per_sample: int,
    **told: Any,
) -> Series:
    """A series of samples with their estimates; ``told`` are further fields of it."""
    median, p90, p99 = quantiles(seconds, process, rounds, (0.5, 0.9, 0.99))
    q1, q3 = np.quantile(seconds, (0.25, 0.75))
    return Series(
        name=name,
        calls_per_sample=calls_per_sample,
        items_per_call=items,
        unit=unit,
        n_samples=len(seconds),
        median_s=median,
        p90_s=p90,
        p99_s=p99,
        mean_s=float(np.mean(seconds)),
        iqr_s=float(q3 - q1),
        throughput=items / median.value,
        samples=Samples(seconds=seconds, process=process, round=rounds),
        **told,
    )


def median_half_width(samples: Sequence[float], rounds: Sequence[int]) -> float:
    """Relative half-width of the median's 95 % interval, the larger of two views.

    Samples: distribution-free order statistics (binomial). Rounds: t-interval over the medians of blocks of neighbouring
    rounds, which sees drift and autocorrelation that the first view does not. Infinite when there are too few samples or rounds.
    """
    from scipy.stats import t

    values = np.asarray(samples, dtype=float)
    blocks = _blocks(np.asarray(rounds))
    if len(values) < 6 or len(blocks) < FEW_ROUNDS:  # 6: the smallest n with a 95 % order-statistic interval
        return math.inf
    medians = np.array([np.median(values[block]) for block in blocks])
    low, high = _order_statistics(np.sort(values))
    middle = float(np.median(values))
    spread = t.ppf((1 + LEVEL) / 2, len(medians) - 1) * medians.std(ddof=1) / math.sqrt(len(medians))
    return float(max((high - low) / 2, spread) / middle)


def _order_statistics(ordered: np.ndarray) -> tuple[float, float]:
    """Ends of the distribution-free interval of the median (e.g. Hahn & Meeker 1991, section 5.2)."""
    from scipy.stats import binom

    n = len(ordered)
    rank = int(binom.ppf((1 - LEVEL) / 2, n, 0.5))
    return float(ordered[max(rank - 1, 0)]), float(ordered[min(n - rank, n - 1)])


def quantiles(
    samples: Sequence[float], process: Sequence[int], rounds: Sequence[int], levels: Sequence[float], seed: int = 0
) -> list[Estimate]:
    """Quantiles with 95 % percentile-bootstrap intervals; blocks of neighbouring rounds are resampled within each process.

    Parameters
    ----------
    samples : sequence of float
        Seconds per call.
    process, rounds : sequence of int
        Where each sample was taken.
    levels : sequence of float
        In 0..1, e.g. ``(0.5, 0.9, 0.99)``.
    """
    values, owner, index = np.asarray(samples, dtype=float), np.asarray(process), np.asarray(rounds)
    point = np.quantile(values, levels)
    groups = []
    for p in np.unique(owner):
        where = np.flatnonzero(owner == p)
        blocks = _blocks(index[where])
        groups.append([where[block] for block in blocks] if len(blocks) >= FEW_ROUNDS else where[:, None])
    rng = np.random.default_rng(seed)
    draws = np.empty((BOOTSTRAPS, len(levels)))
    for i in range(BOOTSTRAPS):
        picked = np.concatenate([group[j] for group in groups for j in rng.integers(len(group), size=len(group))])
        draws[i] = np.quantile(values[picked], levels)
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return [
        Estimate(value=float(p), ci_low=float(min(a, p)), ci_high=float(max(b, p)))
        for p, a, b in zip(point, low, high, strict=True)
    ]


def _blocks(rounds: np.ndarray) -> list[np.ndarray]:
    """Positions of the samples of each block of neighbouring rounds of one process.

    Neighbouring rounds resemble one another; blocks of n^(1/3) rounds hardly do, and there are still many of them (Künsch 1989).
    """
    order = np.argsort(rounds, kind="stable")
    starts = np.flatnonzero(np.diff(rounds[order], prepend=rounds.min(initial=0) - 1))
    length = max(min(round(len(starts) ** (1 / 3)), len(starts) // FEWEST_BLOCKS), 1)
    return np.split(order, starts[length::length]) if len(starts) else []
