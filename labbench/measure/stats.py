"""From raw samples to the estimates of a record; intervals respect that samples of one round resemble one another."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from labbench.records import Estimate

LEVEL = 0.95
BOOTSTRAPS = 500  # resamples: the ends of a 95 % interval then move by a few per cent of its width between seeds
FEW_ROUNDS = 3  # below this, rounds cannot be resampled and samples are instead


def median_half_width(samples: Sequence[float], rounds: Sequence[int]) -> float:
    """Relative half-width of the median's 95 % interval, the larger of two views.

    Samples: distribution-free order statistics (binomial). Rounds: t-interval over the medians of rounds, which sees drift
    and autocorrelation that the first view does not. Infinite when there are too few samples or rounds.
    """
    from scipy.stats import t

    values = np.asarray(samples, dtype=float)
    medians = np.array([np.median(values[np.asarray(rounds) == k]) for k in sorted(set(rounds))])
    if len(values) < 6 or len(medians) < FEW_ROUNDS:  # 6: the smallest n with a 95 % order-statistic interval
        return math.inf
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
    """Quantiles with 95 % percentile-bootstrap intervals; whole rounds are resampled within each process.

    Parameters
    ----------
    samples : sequence of float
        Seconds per call.
    process, rounds : sequence of int
        Where each sample was taken.
    levels : sequence of float
        In 0..1, e.g. ``(0.5, 0.9, 0.99)``.
    """
    values = np.asarray(samples, dtype=float)
    point = np.quantile(values, levels)
    blocks = _blocks(np.asarray(process), np.asarray(rounds))
    rng = np.random.default_rng(seed)
    draws = np.empty((BOOTSTRAPS, len(levels)))
    for i in range(BOOTSTRAPS):
        picked = np.concatenate([group[j] for group in blocks for j in rng.integers(len(group), size=len(group))])
        draws[i] = np.quantile(values[picked], levels)
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return [
        Estimate(value=float(p), ci_low=float(min(a, p)), ci_high=float(max(b, p)))
        for p, a, b in zip(point, low, high, strict=True)
    ]


def _blocks(process: np.ndarray, rounds: np.ndarray) -> list[list[np.ndarray]]:
    """Per process, the positions of each round's samples; single samples where there are too few rounds."""
    groups = []
    for p in np.unique(process):
        where = np.flatnonzero(process == p)
        parts = [where[rounds[where] == k] for k in np.unique(rounds[where])]
        groups.append(parts if len(parts) >= FEW_ROUNDS else [np.array([i]) for i in where])
    return groups
