"""How sure it is that an option keeps a limit, or is the best: what is known of a number, as quantiles.

::

    measured:   interval of the estimate ── normal in the log, each side by its own end ──┐
    predicted:  conformal intervals at many levels, as calibrated ── their ends ──────────┴──> Belief ──> chances

A prediction's intervals are of absolute errors in the log; their ends are taken for quantiles as if errors either way were alike.
Where too few families were measured to support a level, what lies beyond counts as missing every limit: no prediction learnt from
five families can be 95 % safe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

# Coverage of the central intervals that tell a distribution; between them it is taken for straight in the log.
LEVELS = (*(round(0.1 * step, 1) for step in range(10)), 0.95, 0.98, 0.99, 0.999)
MEASURED_LEVEL = 0.95  # of the intervals of records
DRAWS = 2000  # of all options of a question: a chance is then told to about 1 %
TINY = 1e-12  # relative: rounding


@dataclass(frozen=True)
class Belief:
    """What is believed of one quantity of some options; everything but the point is a distance from it in the log.

    Attributes
    ----------
    point : array, shape (n,)
        NaN where nothing is known.
    levels : array, shape (k,)
        Coverage of central intervals, ascending, the first 0.
    below, above : array, shape (n, k)
        How far their ends lie from the point; infinite where the level is not supported.
    shared : array, shape (n,), optional
        How much of each option's error is common to the options of one question, as a share of its variance; default: nothing.
    """

    point: np.ndarray
    levels: np.ndarray
    below: np.ndarray
    above: np.ndarray
    shared: np.ndarray | None = None

    @classmethod
    def of_interval(
        cls, point: np.ndarray, low: np.ndarray, high: np.ndarray, levels: tuple[float, ...], of: float = MEASURED_LEVEL
    ) -> Belief:
        """Normal in the log on either side of the point, with these ends of its interval; a missing end is the point itself."""
        ratio = np.array([_normal_reach(level) / _normal_reach(of) for level in levels])
        with np.errstate(divide="ignore", invalid="ignore"):
            below, above = np.log(point / low), np.log(high / point)
        ends = [np.where(np.isnan(one), 0.0, np.maximum(one, 0.0)) for one in (below, above)]
        return cls(point, np.array(levels), *(np.where(ratio > 0, one[:, None] * ratio, 0.0) for one in ends))

    @classmethod
    def of_reach(
        cls, point: np.ndarray, reach: np.ndarray, levels: tuple[float, ...], shared: np.ndarray | None = None
    ) -> Belief:
        """With intervals that reach as far either way; ``reach`` has shape (n, k)."""
        return cls(point, np.array(levels), reach, reach, shared)

    def __len__(self) -> int:
        return len(self.point)

    @property
    def in_common(self) -> np.ndarray:
        """``shared``, zero where nothing is known of it."""
        return np.zeros(len(self)) if self.shared is None else self.shared

    def take(self, rows: np.ndarray) -> Belief:
        """Some of them."""
        return Belief(self.point[rows], self.levels, self.below[rows], self.above[rows], self.in_common[rows])

    def followed_by(self, other: Belief) -> Belief:
        """These and then those."""
        both = ((getattr(self, name), getattr(other, name)) for name in ("point", "below", "above", "in_common"))
        point, below, above, shared = (np.concatenate(pair) for pair in both)
        return Belief(point, self.levels, below, above, shared)

    def times(self, factor: np.ndarray) -> Belief:
        """Of the quantity times an exact number."""
        return replace(self, point=self.point * factor)

    def blurred(self, sd: np.ndarray) -> Belief:
        """Of the quantity times a factor that is known to ``sd`` in the log, independent of it: reaches add as deviations do."""
        more = np.outer(sd, [_normal_reach(level) for level in self.levels])
        below, above = np.hypot(self.below, more), np.hypot(self.above, more)
        with np.errstate(invalid="ignore"):
            own = np.nan_to_num(
                self.below[:, 1] / np.maximum(below[:, 1], TINY)
            )  # of the deviation, what was there before
        return replace(self, below=below, above=above, shared=self.in_common * own**2)

    @property
    def told(self) -> np.ndarray:
        """Of which more is known than the point, shape (n,)."""
        return np.asarray((self.below.max(axis=1) > 0) | (self.above.max(axis=1) > 0))

    def quantile(self, probability: float) -> np.ndarray:
        """What the quantity stays below with that probability, shape (n,)."""
        level, (ends, sign) = abs(2 * probability - 1), (self.above, 1) if probability >= 0.5 else (self.below, -1)
        at = np.searchsorted(self.levels, level - TINY)
        if at < len(self.levels) and abs(self.levels[at] - level) <= TINY:  # the usual case, and then exact
            reach = ends[:, at]
        else:
            reach = np.array([_along(level, self.levels, row) for row in ends])
        return np.asarray(self.point * np.exp(sign * reach))

    def chance_below(self, limit: np.ndarray | float) -> np.ndarray:
        """Probability that the quantity is at most ``limit``, shape (n,); NaN where no more than a point is known."""
        limits = np.broadcast_to(np.asarray(limit, float), self.point.shape)
        with np.errstate(divide="ignore", invalid="ignore"):
            distance = np.log(limits / self.point)
        told = self.told
        return np.array([self._chance(row, value) if told[row] else np.nan for row, value in enumerate(distance)])

    def _chance(self, row: int, distance: float) -> float:
        if np.isnan(distance):
            return float("nan")
        up = distance >= -TINY
        ends = (self.above if up else self.below)[row]
        if ends[-1] <= 0:  # the point is the end of the interval on this side
            return 1.0 if up else 0.0
        supported = np.isfinite(ends)
        inside = np.interp(abs(distance) + TINY, ends[supported], self.levels[supported])
        return float(0.5 + 0.5 * inside if up else 0.5 - 0.5 * inside)

    def draw(self, uniform: np.ndarray) -> np.ndarray:
        """Values at uniform random numbers, shape (n, draws); what lies beyond the supported levels is put at their end."""
        out = np.empty(uniform.shape)
        for row, numbers in enumerate(2 * uniform - 1):
            ends = (self.below[row], self.above[row])
            supported = [np.isfinite(one) for one in ends]
            down, up = (
                np.interp(np.abs(numbers), self.levels[keep], one[keep])
                for one, keep in zip(ends, supported, strict=True)
            )
            out[row] = self.point[row] * np.exp(np.where(numbers < 0, -down, up))
        return out


@cache
def _normal_reach(level: float) -> float:
    """Half-width of the central interval of a standard normal distribution."""
    from scipy.special import ndtri

    return float(ndtri((1 + level) / 2))


def _along(level: float, levels: np.ndarray, ends: np.ndarray) -> float:
    """Distance at a level between those that are known; infinite beyond the last that is supported."""
    supported = np.isfinite(ends)
    if level > levels[supported][-1] + TINY:
        return float("inf")
    return float(np.interp(level, levels[supported], ends[supported]))


def levels_with(*probabilities: float | None) -> tuple[float, ...]:
    """:data:`LEVELS` and those whose ends are the quantiles of these probabilities."""
    asked = {abs(2 * one - 1) for one in probabilities if one is not None}
    known = {level for level in LEVELS if all(abs(level - one) > TINY for one in asked)}
    return tuple(sorted(known | asked))


def chances_of_best(
    beliefs: Mapping[str, Belief], weights: Mapping[str, float], kin: Sequence[object] | None = None, seed: int = 0
) -> np.ndarray:
    """Probability that each option has the least weighted sum of logs, shape (n,), by drawing all of them many times.

    NaN if of none of them more than a point is known. A point is taken for exact beside others that have an interval.
    Quantities of one option are drawn together, as if they erred together (its cost is its time times a price). What errors of
    options of one ``kin`` have in common (``Belief.shared``; default: all are kin) is drawn once for all of them, and favours none:
    a model that is slower than predicted on one GPU is so on the others (a Gaussian copula).
    """
    from scipy.special import ndtr

    first = next(iter(beliefs.values()))
    if not any(belief.told.any() for belief in beliefs.values()):
        return np.full(len(first), np.nan)
    random = np.random.default_rng(seed)
    names, kind = np.unique([str(one) for one in kin] if kin is not None else ["all"] * len(first), return_inverse=True)
    common, own = random.standard_normal((len(names), DRAWS))[kind], random.standard_normal((len(first), DRAWS))

    def drawn_of(belief: Belief) -> np.ndarray:
        shared = belief.in_common[:, None]
        return belief.draw(ndtr(np.sqrt(shared) * common + np.sqrt(1 - shared) * own))

    total = sum(weight * np.log(drawn_of(beliefs[name])) for name, weight in weights.items())
    drawn = np.asarray(total)
    drawn = np.where(np.isnan(drawn), np.inf, drawn)
    best = drawn == drawn.min(axis=0)
    return np.asarray((best / best.sum(axis=0)).mean(axis=1))


def likely(probability: float, least: str = "") -> str:
    """A chance in words, no finer than drawing and intervals tell it; ``least`` stands before a number that is a lower bound."""
    if probability > 0.99:
        return "more than 99 % probability"
    if probability < 0.01:
        return "less than 1 % probability"
    return f"{least}{100 * probability:.0f} % probability"
