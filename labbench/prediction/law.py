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

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

Key = tuple[str, ...]
Keys = Sequence[tuple[Key, ...]]  # of each row, the names of its laws, coarse to fine

MAX_SHIFT = 3.0  # largest step of a log coefficient in one iteration: a factor of 20
ITERATIONS = 50
TOLERANCE = 1e-4  # of a log coefficient: 0.01 %
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

    Notes
    -----
    Levenberg-Marquardt on the reweighted problem (Nocedal & Wright, Numerical Optimization, section 10.3).
    """
    theta, damping = (centre if start is None else start).astype(float), 1e-2
    wanted = np.log(target)

    def evaluate(theta: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        parts = terms * np.exp(theta)
        total = parts.sum(axis=1)
        error = (wanted - np.log(total)) / noise
        prior = (theta - centre) / width
        return float(2 * (np.sqrt(1 + error**2) - 1).sum() + prior @ prior), error, parts / total[:, None]

    cost, error, share = evaluate(theta)
    for _ in range(ITERATIONS):
        weight = 1 / np.sqrt(1 + error**2)
        slope = share / noise
        gradient = slope.T @ (weight * error) - (theta - centre) / width**2
        curvature = (slope * weight[:, None]).T @ slope + np.eye(len(theta)) / width**2
        step = np.linalg.solve(curvature + damping * np.diag(np.diag(curvature)), gradient)
        step = np.clip(step, -MAX_SHIFT, MAX_SHIFT)
        new_cost, new_error, new_share = evaluate(theta + step)
        if new_cost <= cost:
            gain = cost - new_cost
            theta, cost, error, share = theta + step, new_cost, new_error, new_share
            damping = max(damping / 5, 1e-9)
            if np.abs(step).max() < TOLERANCE or gain < NEGLIGIBLE:
                break
        else:
            damping *= 5
    return theta


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


def law_keys(frame: pd.DataFrame, levels: Sequence[Sequence[str]]) -> list[tuple[Key, ...]]:
    """Of each row the names of its laws: the values of each level's columns, coarse to fine.

    Each level must have the columns of the one before.
    """
    return list(zip(*(labels(frame, level) for level in levels), strict=True))


def labels(frame: pd.DataFrame, columns: Sequence[str]) -> list[Key]:
    """Values of some columns as texts, a tuple a row."""
    return list(zip(*(frame[name].astype("str").tolist() for name in columns), strict=True))


def rows_of(keys: Iterable[Key]) -> dict[Key, list[int]]:
    """Each key to the rows that have it."""
    rows: dict[Key, list[int]] = {}
    for row, key in enumerate(keys):
        rows.setdefault(key, []).append(row)
    return rows
