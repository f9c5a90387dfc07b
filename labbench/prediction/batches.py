"""What a law leaves over of a workload at other batch sizes than those that were measured of it.

``log(measured / law)`` of one workload in one configuration is taken for an Ornstein-Uhlenbeck process in the log of the batch
size (Rasmussen & Williams 2006, section 4.2.1): near what was measured it is that, between two batch sizes it runs from one to the
other, and far away it returns to nothing, where the law alone is right. Scaling stays the law's; known cells anchor it::

    cov(b, b') = sd^2 exp(-|log2 b - log2 b'| / length)

Memory lies on a line: what there is once, and what each sample adds. Where two batch sizes or more were measured, the line through
them and the process are averaged by how sure either is: a line through 1 and 8 says much about 64, one through 1 and 2 little.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from labbench.prediction.conformal import Radius, radius
from labbench.prediction.features import VERSIONED
from labbench.prediction.graphs import WORKLOAD_KEY
from labbench.prediction.law import Key, labels, rows_of

if TYPE_CHECKING:
    import pandas as pd

LENGTHS = (2.0, 4.0, 8.0, 16.0, 32.0)  # octaves
NOISE_SD = 0.02  # of a measurement, in the log
LEAST_ROWS = 12  # that have a sibling: fewer do not tell how alike siblings are
SAME = (*VERSIONED, *(name for name in WORKLOAD_KEY if name not in VERSIONED))


@dataclass(frozen=True)
class Line:
    """Value over batch size, of least squared relative error; it does not fall.

    Attributes
    ----------
    once, each : float
        What there is whatever the batch, and what each sample adds.
    unsure : array, shape (2, 2)
        Covariance of both.
    """

    once: float
    each: float
    unsure: np.ndarray

    @classmethod
    def through(cls, batch: np.ndarray, value: np.ndarray) -> Line:
        """Through values at two different batch sizes or more, measured to ``NOISE_SD``."""
        from scipy.optimize import nnls

        terms = np.column_stack([np.ones(len(batch)), batch]) / value[:, None]
        once, each = nnls(terms, np.ones(len(batch)))[0]
        return cls(float(once), float(each), NOISE_SD**2 * np.linalg.inv(terms.T @ terms))

    def at(self, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Value at each batch size, and its relative standard deviation."""
        terms = np.column_stack([np.ones(len(batch)), batch])
        value = terms @ (self.once, self.each)
        return value, np.sqrt(np.einsum("ni,ij,nj->n", terms, self.unsure, terms)) / value


@dataclass(frozen=True)
class Batches:
    """Fitted to the errors of a law.

    Attributes
    ----------
    sd, length : float
        Of the process: of the errors in the log, and octaves over which they are alike.
    measured : dict
        Workload in its configuration to the logs to the base 2 of the batch sizes measured and the errors there.
    scores : array, shape (rows,)
        Errors over their standard deviations, each told by its siblings alone.
    groups : array of str, shape (rows,)
        Workload of each score.
    lines : dict
        Workload in its configuration to the line through what was measured of it.
    """

    sd: float
    length: float
    measured: dict[Key, tuple[np.ndarray, np.ndarray]] = field(repr=False)
    scores: np.ndarray = field(repr=False)
    groups: np.ndarray = field(repr=False)
    lines: dict[Key, Line] = field(default_factory=dict, repr=False)

    @classmethod
    def fit(cls, frame: pd.DataFrame, error: np.ndarray, memory: np.ndarray | None = None) -> Batches | None:
        """Of training rows, whose ``error`` is ``log(measured / law)``; None if too few have a sibling.

        ``memory``: what was measured, if that lies on lines.
        """
        octave = np.log2(frame["batch_size"].to_numpy(float))
        rows = {key: np.array(found) for key, found in rows_of(_same(frame)).items()}
        several = {key: found for key, found in rows.items() if len(np.unique(octave[found])) > 1}
        if sum(map(len, several.values())) < LEAST_ROWS:
            return None
        sd = float(np.sqrt(np.mean(np.concatenate([error[found] for found in several.values()]) ** 2)))
        told = {
            length: [_left_out(octave[one], error[one], sd, length) for one in several.values()] for length in LENGTHS
        }
        scores = {length: np.concatenate([found[0] for found in parts]) for length, parts in told.items()}
        likely = {length: sum(found[1] for found in parts) for length, parts in told.items()}
        length = max(likely, key=likely.__getitem__)
        names = np.concatenate([np.full(len(one), str(number)) for number, one in enumerate(several.values())])
        measured = {key: (octave[found], error[found]) for key, found in rows.items()}
        lines = {}
        if memory is not None:
            batch = frame["batch_size"].to_numpy(float)
            lines = {key: Line.through(batch[found], memory[found]) for key, found in several.items()}
        return cls(sd, length, measured, np.abs(scores[length]), names, lines)

    def known(self, frame: pd.DataFrame) -> np.ndarray:
        """Of which rows the workload was measured in the configuration at some batch size."""
        return np.array([key in self.measured for key in _same(frame)], bool)

    def radius(self, level: float) -> Radius:
        """Half-width in units of the standard deviation."""
        return radius(self.scores, self.groups, level)

    def told(self, frame: pd.DataFrame, law: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Expected error of known rows, of which the law says ``law``, and its standard deviation, in the log."""
        batch = frame["batch_size"].to_numpy(float)
        octave = np.log2(batch)
        mean, sd = np.zeros(len(frame)), np.zeros(len(frame))
        for key, rows in rows_of(_same(frame)).items():
            at, error = self.measured[key]
            across = _covariance(octave[rows], at, self.sd, self.length)
            gain = np.linalg.solve(_covariance(at, at, self.sd, self.length) + NOISE_SD**2 * np.eye(len(at)), across.T)
            mean[rows] = gain.T @ error
            sd[rows] = np.sqrt(np.maximum(self.sd**2 - (across * gain.T).sum(axis=1), 0.0) + NOISE_SD**2)
            if key in self.lines:
                value, unsure = self.lines[key].at(batch[rows])
                weight = sd[rows] ** 2 / (sd[rows] ** 2 + unsure**2)
                mean[rows] += weight * (np.log(value / law[rows]) - mean[rows])
        return mean, sd


def _same(frame: pd.DataFrame) -> list[Key]:
    return labels(frame.reindex(columns=list(SAME)), SAME)


def _covariance(a: np.ndarray, b: np.ndarray, sd: float, length: float) -> np.ndarray:
    return np.asarray(sd**2 * np.exp(-np.abs(a[:, None] - b) / length))


def _left_out(octave: np.ndarray, error: np.ndarray, sd: float, length: float) -> tuple[np.ndarray, float]:
    """Standardized leave-one-out errors, and the log of their likelihood (Rasmussen & Williams 2006, section 5.4.2)."""
    inverse = np.linalg.inv(_covariance(octave, octave, sd, length) + NOISE_SD**2 * np.eye(len(octave)))
    variance = 1 / np.diag(inverse)
    score = inverse @ error * np.sqrt(variance)
    return score, float(-0.5 * (score**2 + np.log(variance)).sum())
