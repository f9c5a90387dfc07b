"""Where series of runs change their level: noise of a history, segmentation by ``ruptures``, and the test of each change.

    history   log latency of the runs of one cell, in order of time
    wild      a run further than 3 σ from the median of itself and its neighbours: an outlier, which says nothing of a level
    noise     σ of a run, moderated by all histories; r, the correlation of neighbouring runs (drift), of all histories
    segments  least squares with a penalty for each change (PELT on a linear kernel; Killick, Fearnhead & Eckley,
              "Optimal detection of changepoints with a linear computational cost", JASA 107, 2012)
    test      each change: the two segments beside it, Student's t with the moderated variance, p times the number of
              places where the change could have been

With drift n runs say less than n independent ones, while the ends of two neighbouring segments resemble each other: the
variance of means and of their differences is that of an autoregressive process with correlation r.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from labbench.analysis.levels import spread_of
from labbench.analysis.ratio import CAMPAIGN_DF, CAMPAIGN_SD, OUTSIDE, THRESHOLD, Spread

MIN_RUNS = 2  # on each side of a change: a single run may be an outlier
WILD = 3.0  # standard deviations
# Both chosen on simulated noise (white and AR(1), spread 1 to 1.5 %), not on the bank that benchmarks/change_points.py reads.
CHANGE_ALPHA = 0.02  # false ones among the changes told; with misplaced ones, at most 5 % should be wrong
PENALTY = 3.0  # times log n, for each change
MAD_EFFICIENCY = 0.37  # of a standard deviation from the median of absolute values (Rousseeuw & Croux, JASA 88, 1993)
MOST_DRIFT = 0.8  # correlation that is believed at most: beyond, no change could ever be told from drift
DRIFT, DRIFT_PAIRS = (
    0.3,
    20,
)  # correlation that is assumed before anything is known, and how many pairs of runs outweigh it
WINDOW, OVERLAP = 1000, 100  # runs that are segmented at once: the search takes time as their square


@dataclass(frozen=True)
class Noise:
    """What all histories together say of the noise of runs.

    Attributes
    ----------
    spread : Spread
        Between runs of one history, beyond what a run says of its own error.
    drift : float
        Correlation of neighbouring runs, 0 to ``MOST_DRIFT``.
    """

    spread: Spread
    drift: float

    def inflation(self, runs: np.ndarray) -> np.ndarray:
        """What the variance of a mean of so many runs is multiplied by, because neighbours resemble one another (AR(1))."""
        r = self.drift
        found: np.ndarray = (1 + r) / (1 - r) - 2 * r * (1 - r**runs) / (runs * (1 - r) ** 2)
        return found

    def factor(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """What a run's variance is multiplied by to get that of the difference between the means of neighbouring segments."""
        r = self.drift
        shared = r * (1 - r**before) * (1 - r**after) / (before * after * (1 - r) ** 2)
        found: np.ndarray = self.inflation(before) / before + self.inflation(after) / after - 2 * shared
        return found

    def freedom(self, runs: np.ndarray) -> np.ndarray:
        """Degrees of freedom of so many runs around their mean: n - 1 without drift, fewer with it."""
        found: np.ndarray = np.maximum(runs - self.inflation(runs), 0)
        return found

    def p_values(self, step: np.ndarray, error: np.ndarray, df: np.ndarray) -> np.ndarray:
        """Of steps in log latency with that standard error, two-sided; ``df`` were observed in the history."""
        from scipy.special import stdtr

        found: np.ndarray = 2 * stdtr(self.spread.df + df, -np.abs(step) / error)
        return found

    def reach(self, error: np.ndarray, df: np.ndarray, alpha: float = OUTSIDE) -> np.ndarray:
        """From a step to either end of its interval."""
        from scipy.special import stdtrit

        found: np.ndarray = stdtrit(self.spread.df + df, 1 - alpha / 2) * error
        return found


@dataclass(frozen=True)
class Histories:
    """Log latencies of many histories, one after the other.

    Attributes
    ----------
    x : array of float
        Log seconds, in order of history and time.
    own : array of float
        Variance of each by its own processes.
    begin : array of int
        Where each history begins, and the end of the last.
    sd : float
        Between runs, beyond their own variance: assumed where it cannot be estimated.
    """

    x: np.ndarray
    own: np.ndarray
    begin: np.ndarray
    sd: float = CAMPAIGN_SD

    def __len__(self) -> int:
        return len(self.begin) - 1

    @property
    def number(self) -> np.ndarray:
        """Of each run, its history."""
        return np.repeat(np.arange(len(self)), np.diff(self.begin))


class Changes(NamedTuple):
    """Changes of level that were looked for, and what came of the tests; arrays have one entry a change.

    Attributes
    ----------
    begin, at, end : array of int
        Its two segments are ``begin:at`` and ``at:end``, in rows of all histories.
    step : array of float
        Log of the ratio of the levels, after / before.
    error : array of float
        Standard error of the step.
    df : array of float
        Degrees of freedom that the history itself gave.
    p_value : array of float
        For the number of places where the change could have been; 1 if it is within the practical threshold.
    """

    begin: np.ndarray
    at: np.ndarray
    end: np.ndarray
    step: np.ndarray
    error: np.ndarray
    df: np.ndarray
    p_value: np.ndarray

    def picked(self, which: np.ndarray) -> Changes:
        """Some of them."""
        return Changes(*(values[which] for values in self))


def noise_of(histories: Histories, starts: np.ndarray | None = None) -> tuple[Noise, np.ndarray]:
    """The noise of all histories, and the standard deviation σ of a run of each, from differences of neighbours.

    Parameters
    ----------
    starts : array of int, optional
        Rows from which the level is known to be another one; differences across are left out.
    """
    segment = np.zeros(len(histories.x), dtype=int)
    segment[histories.begin[:-1]] = 1
    segment[[] if starts is None else starts] = 1
    segment = np.cumsum(segment)
    variance, count = _by_differences(histories, segment)
    drift = _drift(histories, segment, variance)
    own = np.bincount(histories.number, histories.own, len(histories)) / np.maximum(np.diff(histories.begin), 1)
    df = np.ceil(count * MAD_EFFICIENCY)
    variance = variance / (1 - drift)
    spread = spread_of(variance, df, own, Spread(histories.sd, CAMPAIGN_DF))
    noise = Noise(spread, drift)
    return noise, np.sqrt(noise.spread.moderated(variance, df, own))


def _steps(histories: Histories, segment: np.ndarray, lag: int) -> tuple[np.ndarray, np.ndarray]:
    """Absolute differences of runs so many apart on one level, and the history of each."""
    same = segment[lag:] == segment[:-lag]
    return np.abs(histories.x[lag:] - histories.x[:-lag])[same], histories.number[lag:][same]


def _by_differences(histories: Histories, segment: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """σ² (1 - r) of each history from the median difference of neighbours, and how many differences there are."""
    step, number = _steps(histories, segment, 1)
    count = np.bincount(number, minlength=len(histories))
    ordered, begin = step[np.lexsort((step, number))], np.cumsum(count) - count
    variance = np.zeros(len(histories))
    some = count > 0
    low, high = begin[some] + (count[some] - 1) // 2, begin[some] + count[some] // 2
    variance[some] = (1.4826 * (ordered[low] + ordered[high]) / 2) ** 2 / 2
    return variance, count


def _drift(histories: Histories, segment: np.ndarray, variance: np.ndarray) -> float:
    """Correlation r of neighbours: differences two apart have 1 + r times the variance of those one apart (AR(1))."""
    squares = []
    for lag in (1, 2):
        step, number = _steps(histories, segment, lag)
        known = variance[number] > 0
        scaled = step[known] / np.sqrt(2 * variance[number[known]])
        squares.append(np.minimum(scaled, WILD) ** 2)
    pairs = len(squares[1])
    found = float(squares[1].mean() / squares[0].mean()) - 1 if pairs and squares[0].any() else 0.0
    return float(np.clip((found * pairs + DRIFT * DRIFT_PAIRS) / (pairs + DRIFT_PAIRS), 0, MOST_DRIFT))


def largest_step(histories: Histories) -> np.ndarray:
    """Of each history long enough, the row where one change of level would explain most."""
    x, number = histories.x, histories.number
    total = np.concatenate([[0.0], np.cumsum(x)])
    begin, end = histories.begin[:-1][number], histories.begin[1:][number]
    before, after = np.arange(len(x)) - begin, end - np.arange(len(x))  # runs on each side of a change at this row
    fits = (before >= MIN_RUNS) & (after >= MIN_RUNS)
    here = total[:-1]
    step = (total[end] - here) / after - (here - total[begin]) / np.maximum(before, 1)
    gain = np.where(fits, step**2 * before * after / (before + after), -1.0)
    order = np.lexsort((gain, number))
    last = order[np.cumsum(np.bincount(number, minlength=len(histories))) - 1]
    best: np.ndarray = np.sort(last[fits[last]])
    return best


def wild(histories: Histories, sd: np.ndarray) -> np.ndarray:
    """Which runs are further than 3 σ from the median of themselves and the runs beside them (at an end, of the last three)."""
    x, first, number = histories.x, histories.begin[:-1], histories.number
    runs = np.diff(histories.begin)[number]
    three = runs >= 3
    place = np.clip(np.arange(len(x)) - first[number], 1, np.maximum(runs - 2, 1)) + first[number]
    beside = np.where(three, place + np.array([[-1], [0], [1]]), np.arange(len(x)))
    off = np.abs(x - np.median(x[beside], axis=0))
    return three & (off > WILD * sd[number])


def changes(histories: Histories, noise: Noise, sd: np.ndarray) -> tuple[Changes, int]:
    """Every change that the segmentation proposes, tested, and how many histories are without one.

    Those that are worst supported are taken away, each time testing the others anew with longer segments; the ones taken away
    are returned too, with the p-value they had.
    """
    found: list[Changes] = []
    without = 0
    for i, (start, stop) in enumerate(zip(histories.begin[:-1].tolist(), histories.begin[1:].tolist(), strict=True)):
        if stop - start < 2 * MIN_RUNS:
            continue
        part, own = histories.x[start:stop], histories.own[start:stop]
        places = _segment(part / sd[i], PENALTY * math.log(len(part)) * float(noise.inflation(np.array(len(part)))))
        without += not len(places)
        found += _tested(part, own, places, noise, start)
    if not found:
        return Changes(*np.empty((3, 0), int), *np.empty((4, 0))), without
    return Changes(*map(np.concatenate, zip(*found, strict=True))), without


def _segment(y: np.ndarray, penalty: float) -> np.ndarray:
    """First run of each segment but the first; ``y`` has unit variance within segments."""
    import ruptures

    found: list[int] = []
    for start in range(0, max(len(y) - OVERLAP, 1), WINDOW - OVERLAP):
        part = y[start : start + WINDOW, None]
        if len(part) >= 2 * MIN_RUNS:
            search = ruptures.KernelCPD(kernel="linear", min_size=MIN_RUNS).fit(part)
            found += [start + int(place) for place in search.predict(pen=penalty)[:-1]]
    places = np.unique(found).astype(int)
    return places[np.diff(places, prepend=-MIN_RUNS) >= MIN_RUNS]


def _tested(x: np.ndarray, own: np.ndarray, places: np.ndarray, noise: Noise, start: int) -> Iterator[Changes]:
    """The changes of a history that begins at row ``start``; those neither significant nor large go, worst of neighbours first."""
    while len(places):
        bounds = np.concatenate([[0], places, [len(x)]])
        step, squares, within, runs = _sides(x, own, bounds)
        df = noise.freedom(runs[:-1]) + noise.freedom(runs[1:])
        variance = np.divide(squares, df, out=np.zeros(len(df)), where=df > 0)
        error = np.sqrt(noise.spread.moderated(variance, df, within) * noise.factor(runs[:-1], runs[1:]))
        choices = np.maximum(runs[:-1] + runs[1:] - 2 * MIN_RUNS + 1, 1)
        p_value = np.minimum(noise.p_values(step, error, df) * choices, 1)
        p_value[np.abs(step) <= math.log1p(THRESHOLD)] = 1
        found = Changes(start + bounds[:-2], start + bounds[1:-1], start + bounds[2:], step, error, df, p_value)
        rank = np.empty(len(places) + 2, int)
        rank[[0, -1]] = -1
        rank[1:-1][np.lexsort((-np.abs(step), p_value))] = np.arange(len(places))
        gone = (p_value > CHANGE_ALPHA) & (rank[1:-1] > rank[:-2]) & (rank[1:-1] > rank[2:])
        yield found.picked(gone if gone.any() else ~gone)
        if not gone.any():
            return
        places = places[~gone]


def _sides(x: np.ndarray, own: np.ndarray, bounds: np.ndarray) -> tuple[np.ndarray, ...]:
    """Of each change: step, squares around the means of its two segments, own variance; runs of each segment."""
    runs = np.diff(bounds)
    mean = np.add.reduceat(x, bounds[:-1]) / runs
    squares = np.add.reduceat((x - np.repeat(mean, runs)) ** 2, bounds[:-1])
    owns = np.add.reduceat(own, bounds[:-1])
    within = (owns[:-1] + owns[1:]) / (runs[:-1] + runs[1:])
    return np.diff(mean), squares[:-1] + squares[1:], within, runs
