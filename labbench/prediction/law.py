"""A physical law with few coefficients: a sum of terms, each the cost at a known ceiling, fitted in the log.

A law predicts ``sum_j exp(theta_j) x_j``: ``x_j`` is what a term would cost at its ceiling (FLOPs / peak rate,
bytes / bandwidth, kernels x dispatch time, ...), ``exp(theta_j)`` how much worse than the ceiling it comes. It is the
maximum a posteriori of

    log y_i = log sum_j exp(theta_j) x_ij + e_i,    theta_j ~ Normal(centre_j, width)

with a robust loss. Coefficients are positive by construction, and one that the data do not speak about stays at its
centre instead of becoming zero, which is what makes plain non-negative least squares fail on operators it never saw.
Laws are nested: everything -> machine -> platform -> configuration, each centred on the one above (partial pooling).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

    from labbench.prediction.features import Ceilings, Device, ResidualFeatures

    Terms = Callable[[pd.DataFrame, Mapping[Device, Ceilings]], np.ndarray]

Key = tuple[str, ...]
Keys = Sequence[tuple[Key, ...]]  # of each row, the names of its laws, coarse to fine

MAX_SHIFT = 1.5  # largest step of a log coefficient in one iteration: a factor of 4.5
DAMPING, LEAST_DAMPING = 0.1, 1e-6  # of the first step, and of any
ITERATIONS = 50
PLATFORM_LEVEL = 1  # of a :class:`TermLaw`'s levels: of a platform that has no law, another one's says nothing
TOLERANCE = 1e-4  # of a log coefficient: 0.01 %
SMALL = 1e-3  # of the deviance: what an iteration must gain to be followed by another, where coefficients are many
NEGLIGIBLE = 1e-3  # of the deviance: what a coefficient gains by then is a thousandth of its standard error squared


def fit_terms(
    terms: np.ndarray,
    target: np.ndarray,
    centre: np.ndarray,
    width: float,
    noise: float,
    start: np.ndarray | None = None,
) -> np.ndarray:
    """Log coefficients of one law.

    Parameters
    ----------
    terms : array, shape (n, p)
        Cost of each term at its ceiling; not negative, each row with a positive sum.
    target : array, shape (n,)
        What was measured, positive, in the same unit.
    centre : array, shape (p,)
        Prior mean of the log coefficients.
    width : float
        Prior standard deviation of the log coefficients.
    noise : float
        Scale of the errors in the log; the loss is quadratic within it and linear beyond (pseudo-Huber).
    start : array, shape (p,), optional
        Where the search begins, e.g. the solution for nearly the same rows; default: ``centre``.

    Returns
    -------
    array, shape (p,)
    """
    wanted = np.log(target)

    def evaluate(theta: np.ndarray) -> tuple[np.ndarray, Callable[[], np.ndarray]]:
        parts = terms * np.exp(theta)
        total = parts.sum(axis=1)
        return (wanted - np.log(total)) / noise, lambda: parts / total[:, None]

    return _most_probable(evaluate, centre, np.full(len(centre), width), noise, start)[0]


def fit_factors(
    factors: Any,
    cost: np.ndarray,
    row: np.ndarray,
    target: np.ndarray,
    centre: np.ndarray,
    width: np.ndarray,
    noise: float,
    start: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The same where each contribution has several factors: a target is the sum of ``cost * exp(factors @ theta)``.

    Parameters
    ----------
    factors : sparse array, shape (contributions, p)
        In compressed rows.
    cost, row : array, shape (contributions,)
        Of each contribution, and which target it belongs to.
    target : array, shape (n,)
    centre, width : array, shape (p,)
        Prior mean and standard deviation of the log coefficients.
    noise, start
        See :func:`fit_terms`.

    Returns
    -------
    array, shape (p,)
        Log coefficients.
    array, shape (p,)
        What the data know of each: the inverse of its variance were all others known.
    """
    from threadpoolctl import threadpool_limits

    wanted, shape = np.log(target), (len(target), len(centre))
    entry = np.repeat(np.arange(len(cost)), np.diff(factors.indptr))
    place = row[entry] * shape[1] + factors.indices

    def evaluate(theta: np.ndarray) -> tuple[np.ndarray, Callable[[], np.ndarray]]:
        parts = cost * np.exp(factors @ theta)
        total = np.bincount(row, parts, shape[0])

        def share() -> np.ndarray:
            sums = np.bincount(place, parts[entry] * factors.data, shape[0] * shape[1])
            return np.asarray(sums.reshape(shape) / total[:, None])

        return (wanted - np.log(total)) / noise, share

    # Systems of some hundred unknowns: threads that wait for one another on a busy machine take ten times as long.
    with threadpool_limits(limits=1, user_api="blas"):
        theta, error, slope = _most_probable(evaluate, centre, width, noise, start, SMALL)
    return theta, (slope**2 / np.sqrt(1 + error**2)[:, None]).sum(axis=0)


def _most_probable(
    evaluate: Callable[[np.ndarray], tuple[np.ndarray, Callable[[], np.ndarray]]],
    centre: np.ndarray,
    width: np.ndarray,
    noise: float,
    start: np.ndarray | None,
    small: float = 0.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Maximum a posteriori of errors (in units of the noise) and the share that each coefficient has in each prediction.

    Levenberg-Marquardt on the reweighted problem, damped by how well the last step was foretold (Nielsen 1999, IMM-REP-1999-05).
    Returns the log coefficients, errors and slopes there.
    """

    def deviance(theta: np.ndarray, error: np.ndarray) -> float:
        prior = (theta - centre) / width
        return float(2 * (np.sqrt(1 + error**2) - 1).sum() + prior @ prior)

    theta = (centre if start is None else start).astype(float)
    error, share = evaluate(theta)
    cost, slope, damping, growth = deviance(theta, error), share() / noise, DAMPING, 2.0
    fresh = True
    for _ in range(ITERATIONS):
        if fresh:
            weight = 1 / np.sqrt(1 + error**2)
            gradient = slope.T @ (weight * error) - (theta - centre) / width**2
            diagonal = weight @ slope**2 + 1 / width**2
        step = _solved(slope, weight, 1 / width**2 + damping * diagonal, gradient)
        step *= min(1.0, MAX_SHIFT / max(float(np.abs(step).max()), 1e-30))
        new_error, new_share = evaluate(theta + step)
        gain = cost - deviance(theta + step, new_error)
        fresh = gain >= 0
        if not fresh:
            damping, growth = damping * growth, growth * 2
            continue
        foretold = float(2 * gradient @ step - weight @ (slope @ step) ** 2 - ((step / width) ** 2).sum())
        damping = max(damping * max(1 / 3, 1 - (2 * gain / max(foretold, 1e-30) - 1) ** 3), LEAST_DAMPING)
        theta, error, cost, growth = theta + step, new_error, cost - gain, 2.0
        slope = new_share() / noise
        if np.abs(step).max() < TOLERANCE or gain < max(NEGLIGIBLE, small * cost):
            break
    return theta, error, slope


def _solved(slope: np.ndarray, weight: np.ndarray, ridge: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Solution of ``(slope' diag(weight) slope + diag(ridge)) x = right``, in as many unknowns as rows or columns are fewer.

    The matrix inversion lemma (Woodbury 1950) where there are fewer rows. NumPy halves an array times its own transpose.
    """
    rows, columns = slope.shape
    if rows < columns:
        scaled, first = slope / np.sqrt(ridge), right / ridge
        inner = scaled @ scaled.T
        inner[np.diag_indices(rows)] += 1 / weight
        return first - slope.T @ _of_positive(inner, slope @ first) / ridge
    scaled = slope * np.sqrt(weight)[:, None]
    whole = scaled.T @ scaled
    whole[np.diag_indices(columns)] += ridge
    return _of_positive(whole, right)


def _of_positive(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Solution of a system that is positive definite, but for rounding."""
    from scipy.linalg import LinAlgError, cho_factor, cho_solve

    try:
        return np.asarray(cho_solve(cho_factor(matrix, check_finite=False), right, check_finite=False))
    except LinAlgError:
        return np.asarray(np.linalg.lstsq(matrix, right)[0])


@dataclass(frozen=True)
class Law:
    """Nested laws of one quantity.

    Attributes
    ----------
    pooled_width, level_width, noise : float
        See :func:`fit_terms`; ``pooled_width`` is the outermost prior's, centred on the ceilings themselves.
    log_coefficients : dict
        Name of a law to its log coefficients; ``()`` is the outermost one.
    """

    pooled_width: float
    level_width: float
    noise: float
    log_coefficients: dict[Key, np.ndarray] = field(default_factory=dict)

    def fit(self, keys: Keys, terms: np.ndarray, target: np.ndarray) -> Law:
        """A copy with coefficients for every law that ``keys`` name (:func:`law_keys`, one entry a target).

        The search begins at the coefficients that this law has, if it has any.
        """
        begun = self.log_coefficients
        fitted: dict[Key, np.ndarray] = {
            (): self._solve(terms, target, np.zeros(terms.shape[1]), self.pooled_width, begun.get(()))
        }
        sizes: dict[Key, int] = {(): len(target)}
        for above, level in pairwise([[()] * len(keys), *zip(*keys, strict=True)]):
            for key, rows in rows_of(level).items():
                outer, sizes[key] = above[rows[0]], len(rows)
                alone = sizes[outer] == sizes[key]
                fitted[key] = (
                    fitted[outer]
                    if alone
                    else self._solve(terms[rows], target[rows], fitted[outer], self.level_width, begun.get(key))
                )
        return Law(self.pooled_width, self.level_width, self.noise, fitted)

    def _solve(
        self, terms: np.ndarray, target: np.ndarray, centre: np.ndarray, width: float, start: np.ndarray | None
    ) -> np.ndarray:
        return fit_terms(terms, target, centre, width, self.noise, start)

    def parts(self, keys: Keys, terms: np.ndarray) -> np.ndarray:
        """What each term contributes, shape (n, p): of the finest law that was fitted for the row."""
        theta = [
            next(self.log_coefficients[key] for key in (*reversed(row), ()) if key in self.log_coefficients)
            for row in keys
        ]
        return np.asarray(terms * np.exp(np.array(theta).reshape(terms.shape)))


@dataclass(frozen=True)
class TermDesign:
    """Names of the laws of some rows (:func:`law_keys`) and their terms, shape (n, p)."""

    keys: Keys
    terms: np.ndarray

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, rows: np.ndarray) -> TermDesign:
        """Some of the rows."""
        return TermDesign([self.keys[row] for row in rows], self.terms[rows])


@dataclass(frozen=True)
class TermLaw:
    """:class:`Law` of the rows of a store's frame, whose terms come from totals by operator class.

    Attributes
    ----------
    terms : callable
        Of a prepared frame and ceilings, shape (n, p).
    ceilings : mapping
    levels : sequence
        Columns that name the laws, coarse to fine.
    law : Law
    """

    terms: Terms
    ceilings: Mapping[Device, Ceilings]
    levels: Sequence[Sequence[str]]
    law: Law

    def design(self, frame: pd.DataFrame) -> TermDesign:
        """What a frame's rows look like to the law."""
        return TermDesign(law_keys(frame, self.levels), self.terms(frame, self.ceilings))

    def known(self, frame: pd.DataFrame) -> np.ndarray:
        """Which rows have all terms."""
        return np.asarray(np.isfinite(self.terms(frame, self.ceilings)).all(axis=1))

    def fit(self, design: TermDesign, target: np.ndarray) -> TermLaw:
        """A fitted copy; the search begins at the coefficients that it has, if any, and ends where any other start would."""
        return replace(self, law=self.law.fit(design.keys, design.terms, target))

    def noisier(self, noise: float) -> TermLaw:
        """The same that takes errors of such a scale, in the log, for noise."""
        return replace(self, law=replace(self.law, noise=noise))

    def carries(self, frame: pd.DataFrame) -> np.ndarray:
        """Of which rows the platform has a law of its own."""
        names = [keys[PLATFORM_LEVEL] for keys in law_keys(frame, self.levels)]
        return np.array([name in self.law.log_coefficients for name in names], bool)

    def few(self, frame: pd.DataFrame) -> np.ndarray:
        """None: these laws have few coefficients, and any cell says something of them."""
        return np.zeros(len(frame), bool)

    def parts(self, design: TermDesign, elsewhere: bool = False) -> np.ndarray:
        """See :meth:`Law.parts`; with ``elsewhere`` of the law of everything."""
        keys: Keys = [()] * len(design) if elsewhere else design.keys
        return self.law.parts(keys, design.terms)

    def shares(self, parts: np.ndarray) -> np.ndarray:
        """What a residual learns from of the law's parts."""
        return shares(parts)

    def features(self, frame: pd.DataFrame) -> ResidualFeatures:
        """What the residual is learnt from, of training rows."""
        from labbench.prediction.features import ResidualFeatures

        return ResidualFeatures.of(frame)


def shares(parts: np.ndarray) -> np.ndarray:
    """Share that each part has in a prediction, shape (n, p); zeros where there are none."""
    return np.asarray(parts / np.maximum(parts.sum(axis=1, keepdims=True), np.finfo(float).tiny))


def law_keys(frame: pd.DataFrame, levels: Sequence[Sequence[str]]) -> list[tuple[Key, ...]]:
    """Of each row the names of its laws: the values of each level's columns, coarse to fine.

    Each level must have the columns of the one before.
    """
    return list(zip(*(labels(frame, level) for level in levels), strict=True))


def labels(frame: pd.DataFrame, columns: Sequence[str]) -> list[Key]:
    """Values of some columns as texts, a tuple a row; nothing for what is missing, as NaN is not itself once it was stored."""
    return list(zip(*(frame[name].astype("str").fillna("").tolist() for name in columns), strict=True))


def rows_of(keys: Iterable[Key]) -> dict[Key, list[int]]:
    """Each key to the rows that have it."""
    rows: dict[Key, list[int]] = {}
    for row, key in enumerate(keys):
        rows.setdefault(key, []).append(row)
    return rows
