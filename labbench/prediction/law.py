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

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

Key = tuple[str, ...]

MAX_SHIFT = 3.0  # largest step of a log coefficient in one iteration: a factor of 20
ITERATIONS = 50
TOLERANCE = 1e-4  # of a log coefficient: 0.01 %


def fit_terms(terms: np.ndarray, target: np.ndarray, centre: np.ndarray, width: float, noise: float) -> np.ndarray:
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

    Returns
    -------
    array, shape (p,)

    Notes
    -----
    Levenberg-Marquardt on the reweighted problem (Nocedal & Wright, Numerical Optimization, section 10.3).
    """
    theta, damping = centre.astype(float).copy(), 1e-2
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
            theta, cost, error, share = theta + step, new_cost, new_error, new_share
            damping = max(damping / 5, 1e-9)
            if np.abs(step).max() < TOLERANCE:
                break
        else:
            damping *= 5
    return theta


@dataclass(frozen=True)
class Law:
    """Nested laws of one quantity.

    Attributes
    ----------
    levels : tuple of tuple of str
        Columns whose values name a law at each level, coarse to fine; each holds those of the one before.
    pooled_width, level_width, noise : float
        See :func:`fit_terms`; ``pooled_width`` is the outermost prior's, centred on the ceilings themselves.
    log_coefficients : dict
        Values of a level's columns to the log coefficients of its law.
    """

    levels: tuple[tuple[str, ...], ...]
    pooled_width: float
    level_width: float
    noise: float
    log_coefficients: dict[Key, np.ndarray] = field(default_factory=dict)

    def fit(self, keys: pd.DataFrame, terms: np.ndarray, target: np.ndarray) -> Law:
        """A copy with coefficients for every value of ``keys`` (one row a target, the levels' columns)."""
        fitted: dict[Key, np.ndarray] = {(): self._solve(terms, target, np.zeros(terms.shape[1]), self.pooled_width)}
        for parent, level in zip(((), *self.levels), self.levels, strict=False):
            labels = list(_keys(keys, level))
            above = list(_keys(keys, parent))
            for key in dict.fromkeys(labels):
                rows = np.array([label == key for label in labels])
                outer = above[int(rows.argmax())]
                alone = rows.sum() == sum(label == outer for label in above)
                fitted[key] = (
                    fitted[outer] if alone else self._solve(terms[rows], target[rows], fitted[outer], self.level_width)
                )
        return Law(self.levels, self.pooled_width, self.level_width, self.noise, fitted)

    def _solve(self, terms: np.ndarray, target: np.ndarray, centre: np.ndarray, width: float) -> np.ndarray:
        return fit_terms(terms, target, centre, width, self.noise)

    def parts(self, keys: pd.DataFrame, terms: np.ndarray) -> np.ndarray:
        """What each term contributes, shape (n, p): of the finest law that was fitted for the row."""
        finest: list[Sequence[Key]] = [[()] * len(keys), *(list(_keys(keys, level)) for level in self.levels)]
        theta = [
            next(self.log_coefficients[key] for key in reversed(row) if key in self.log_coefficients)
            for row in zip(*finest, strict=True)
        ]
        return np.asarray(terms * np.exp(np.array(theta).reshape(terms.shape)))

    def predict(self, keys: pd.DataFrame, terms: np.ndarray) -> np.ndarray:
        """Prediction for each row, in the target's unit."""
        return np.asarray(self.parts(keys, terms).sum(axis=1))


def _keys(keys: pd.DataFrame, columns: Sequence[str]) -> Iterator[Key]:
    if not columns:
        return iter([()] * len(keys))
    return zip(*(keys[name].astype(str) for name in columns), strict=True)
