"""What a law leaves over of a workload at other batch sizes than those that were measured of it.

``log(measured / law)`` of one workload in one configuration is taken for an Ornstein-Uhlenbeck process in the log of the batch
size (Rasmussen & Williams 2006, section 4.2.1): near what was measured it is that, between two batch sizes it runs from one to the
other, and far away it returns to nothing, where the law alone is right. Scaling stays the law's; known cells anchor it::

    cov(b, b') = sd^2 exp(-|log2 b - log2 b'| / length)

Memory lies on a line: what there is once, and what each sample adds. Where two batch sizes or more were measured it goes through
them, and how far off it may be is what the process says.
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
        Workload in its configuration to what there is once and what each sample adds.
    """

    sd: float
    length: float
    measured: dict[Key, tuple[np.ndarray, np.ndarray]] = field(repr=False)
    scores: np.ndarray = field(repr=False)
    groups: np.ndarray = field(repr=False)
    lines: dict[Key, tuple[float, float]] = field(default_factory=dict, repr=False)

    @classmethod
    def fit(cls, frame: pd.DataFrame, error: np.ndarray, memory: np.ndarray | None = None) -> Batches | None:
        """Of training rows, whose ``error`` is ``log(measured / law)``; None if too few have a sibling.

        ``memory``: what was measured, if that lies on lines.
        """
        octave = np.log2(frame["batch_size"].to_numpy(float))
        rows = {key: np.array(found) for key, found in rows_of(_same(frame)).items()}
        several = [found for found in rows.values() if len(np.unique(octave[found])) > 1]
        if sum(map(len, several)) < LEAST_ROWS:
            return None
        sd = float(np.sqrt(np.mean(np.concatenate([error[found] for found in several]) ** 2)))
        told = {length: [_left_out(octave[one], error[one], sd, length) for one in several] for length in LENGTHS}
        scores = {length: np.concatenate([found[0] for found in parts]) for length, parts in told.items()}
        likely = {length: sum(found[1] for found in parts) for length, parts in told.items()}
        length = max(likely, key=likely.__getitem__)
        names = np.concatenate([np.full(len(one), str(number)) for number, one in enumerate(several)])
        measured = {key: (octave[found], error[found]) for key, found in rows.items()}
        lines = {} if memory is None else _lines(rows, frame["batch_size"].to_numpy(float), memory)
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
            if key in self.lines:
                once, each = self.lines[key]
                mean[rows] = np.log((once + each * batch[rows]) / law[rows])
            sd[rows] = np.sqrt(np.maximum(self.sd**2 - (across * gain.T).sum(axis=1), 0.0) + NOISE_SD**2)
        return mean, sd


def _same(frame: pd.DataFrame) -> list[Key]:
    return labels(frame.reindex(columns=list(SAME)), SAME)


def _lines(rows: dict[Key, np.ndarray], batch: np.ndarray, value: np.ndarray) -> dict[Key, tuple[float, float]]:
    """The line with the least squared relative error through each workload that has several batch sizes; it does not fall."""
    from scipy.optimize import nnls

    lines = {}
    for key, found in rows.items():
        if len(np.unique(batch[found])) > 1:
            terms = np.column_stack([np.ones(len(found)), batch[found]]) / value[found, None]
            once, each = nnls(terms, np.ones(len(found)))[0]
            lines[key] = float(once), float(each)
    return lines


def _covariance(a: np.ndarray, b: np.ndarray, sd: float, length: float) -> np.ndarray:
    return np.asarray(sd**2 * np.exp(-np.abs(a[:, None] - b) / length))


def _left_out(octave: np.ndarray, error: np.ndarray, sd: float, length: float) -> tuple[np.ndarray, float]:
    """Standardized leave-one-out errors, and the log of their likelihood (Rasmussen & Williams 2006, section 5.4.2)."""
    inverse = np.linalg.inv(_covariance(octave, octave, sd, length) + NOISE_SD**2 * np.eye(len(octave)))
    variance = 1 / np.diag(inverse)
    score = inverse @ error * np.sqrt(variance)
    return score, float(-0.5 * (score**2 + np.log(variance)).sum())
