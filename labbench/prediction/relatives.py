"""What a law leaves over of a workload in other configurations than those that were measured of it.

What takes one runtime longer than the law says often takes another one longer, too. How much so of each pair of configurations is
told by the workloads that both have run: the errors of a workload are taken for a normal vector, and what was measured of it tells
the rest (simple kriging; Rasmussen & Williams 2006, equation 2.25)::

    cov((c, b), (c', b')) = cov(c, c') exp(-|log2 b - log2 b'| / OCTAVES)

A pair that few families have run is taken for less alike than it seems: its covariance counts ``n / (n + DOUBT)``. Where one
configuration seems to err against another it is taken for chance. Errors are out of fold: the law and the trees that they are of
have not seen the workload's family.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from labbench.prediction.batches import NOISE_SD
from labbench.prediction.conformal import Radius, radius
from labbench.prediction.features import VERSIONED
from labbench.prediction.law import Key, labels, rows_of
from labbench.prediction.residual import bounded

if TYPE_CHECKING:
    import pandas as pd

K = TypeVar("K", bound=Hashable)
OCTAVES = 10.0  # over which errors of one configuration are alike: from batch 1 to 8 theirs are correlated by about 0.7
DOUBT = 10.0  # families
MIN_FAMILIES = 6  # that two configurations or more have run: fewer do not tell how alike these are
WORKLOAD = ("model", "series", "image_size", "seq_len", "frames", "audio_s")


@dataclass(frozen=True)
class Errors:
    """Of measured cells of one workload.

    Attributes
    ----------
    place : array of int, shape (n,)
        Configuration of each.
    octave : array, shape (n,)
        Log to the base 2 of the batch size.
    error : array, shape (n,)
        In the log.
    """

    place: np.ndarray
    octave: np.ndarray
    error: np.ndarray

    def take(self, rows: np.ndarray) -> Errors:
        """Some of them."""
        return Errors(self.place[rows], self.octave[rows], self.error[rows])


@dataclass(frozen=True)
class Relatives:
    """Fitted to the errors of a law.

    Attributes
    ----------
    places : dict
        Configuration to its place in the covariance.
    covariance : array, shape (places, places)
        Of errors at one batch size.
    measured : dict
        Workload to its errors.
    scores : array, shape (rows,)
        Errors over the doubt that is left, each told by other configurations of the workload alone, by a covariance that has not
        seen its family.
    groups : array of str, shape (rows,)
        Family of each score.
    """

    places: dict[Key, int]
    covariance: np.ndarray = field(repr=False)
    measured: dict[Key, Errors] = field(repr=False)
    scores: np.ndarray = field(repr=False)
    groups: np.ndarray = field(repr=False)

    @classmethod
    def fit(cls, frame: pd.DataFrame, error: np.ndarray, groups: np.ndarray) -> Relatives | None:
        """Of training rows with their errors, out of fold, and families; None if too few of these were run in two configurations.

        Parameters
        ----------
        frame : DataFrame
            Prepared rows.
        error : array, shape (n,)
            ``log(measured / predicted)``.
        groups : array of str, shape (n,)
        """
        configurations, workloads, batch = (
            labels(frame, VERSIONED),
            _workloads(frame),
            frame["batch_size"].to_numpy(float),
        )
        places, place = _numbered(configurations)
        _, cells = _numbered(zip(workloads, batch.tolist(), strict=True))
        every = Errors(place, np.log2(batch), bounded(error))
        rows = {key: np.array(found) for key, found in rows_of(workloads).items()}
        several = {key: found for key, found in rows.items() if len(np.unique(every.place[found])) > 1}
        families = {str(groups[found[0]]) for found in several.values()}
        if len(families) < MIN_FAMILIES:
            return None
        scores, told_of = [], []
        for family in sorted(families):
            unseen = np.flatnonzero(groups != family)
            covariance = _covariance(every.take(unseen), cells[unseen], groups[unseen], len(places))
            for found in (found for found in several.values() if groups[found[0]] == family):
                for row in found:
                    others = every.take(found[every.place[found] != every.place[row]])
                    mean, left = _told(covariance, others, every.take(np.array([row])))
                    scores.append(float(abs(error[row] - mean[0]) / left[0]))
                    told_of.append(family)
        return cls(
            places,
            _covariance(every, cells, groups, len(places)),
            {key: every.take(found) for key, found in rows.items()},
            np.array(scores),
            np.array(told_of),
        )

    def known(self, frame: pd.DataFrame) -> np.ndarray:
        """Of which rows the workload was measured somewhere, and the configuration has run others."""
        asked = zip(_workloads(frame), labels(frame, VERSIONED), strict=True)
        return np.array([key in self.measured and name in self.places for key, name in asked], bool)

    def radius(self, level: float) -> Radius:
        """Half-width, in the log, where no doubt is taken off; it covers a new family with probability ``level``."""
        return radius(self.scores, self.groups, level)

    def told(self, frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """Of known rows the expected error, in the log, and what is left of the doubt, as a share of the standard deviation."""
        place = np.array([self.places[name] for name in labels(frame, VERSIONED)], int)
        asked = Errors(place, np.log2(frame["batch_size"].to_numpy(float)), np.zeros(len(frame)))
        mean, left = np.zeros(len(frame)), np.ones(len(frame))
        for key, found in rows_of(_workloads(frame)).items():
            rows = np.array(found)
            mean[rows], left[rows] = _told(self.covariance, self.measured[key], asked.take(rows))
        return mean, left


def still_shared(shared: np.ndarray, left: np.ndarray) -> np.ndarray:
    """What errors of one workload have in common, as a share of their variance, once its other errors have told what they can.

    What they told of an error is of what it had in common with them.
    """
    return np.asarray(np.maximum(1 - (1 - shared) / left**2, 0.0))


def _workloads(frame: pd.DataFrame) -> list[Key]:
    """Model and size of input of each row, whatever is done with it: a cell's first series (forward pass, step) or another."""
    names = frame.reindex(columns=list(WORKLOAD))
    if "primary" in frame:
        names["series"] = names["series"].astype(object).mask(frame["primary"].to_numpy(bool), "")
    return labels(names, WORKLOAD)


def _numbered(keys: Iterable[K]) -> tuple[dict[K, int], np.ndarray]:
    """Each different key to a number, and the number of each."""
    number: dict[K, int] = {}
    return number, np.array([number.setdefault(key, len(number)) for key in keys], int)


def _covariance(errors: Errors, cells: np.ndarray, groups: np.ndarray, places: int) -> np.ndarray:
    """Of each pair of places, from ``cells`` (workloads at a batch size) that both have run, the nearest positive definite one."""
    table = np.zeros((cells.max(initial=-1) + 1, places))
    ran = np.zeros_like(table)
    table[cells, errors.place], ran[cells, errors.place] = errors.error, 1.0
    families = np.unique(groups, return_inverse=True)[1]
    seen = np.zeros((families.max(initial=-1) + 1, places))
    seen[families, errors.place] = 1.0
    both = seen.T @ seen
    weight = np.where(np.eye(places, dtype=bool), 1.0, both / (both + DOUBT))
    raw = weight * np.maximum(table.T @ table, 0.0) / np.maximum(ran.T @ ran, 1.0)
    values, vectors = np.linalg.eigh(raw)
    return np.asarray((vectors * np.maximum(values, NOISE_SD**2)) @ vectors.T)


def _told(covariance: np.ndarray, known: Errors, asked: Errors) -> tuple[np.ndarray, np.ndarray]:
    """Mean of the errors asked about, and the share of their standard deviations that is left."""

    def between(a: Errors, b: Errors) -> np.ndarray:
        apart = np.abs(a.octave[:, None] - b.octave)
        return np.asarray(covariance[np.ix_(a.place, b.place)] * np.exp(-apart / OCTAVES))

    across = between(known, asked)
    gain = np.linalg.solve(between(known, known) + NOISE_SD**2 * np.eye(len(known.place)), across)
    prior = covariance[asked.place, asked.place]
    return gain.T @ known.error, np.sqrt(np.maximum(1 - (across * gain).sum(axis=0) / prior, 0.0) + NOISE_SD**2 / prior)
