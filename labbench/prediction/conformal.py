"""Intervals from out-of-fold errors, valid for a new *family*, not for another row of a family that was seen."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Radius:
    """Half-width of an interval in the log.

    Attributes
    ----------
    value : float
        The interval is ``[point / exp(value), point * exp(value)]``.
    level : float
        Coverage it stands for: the nominal one, or the most that so few families can support.
    families : int
    """

    value: float
    level: float
    families: int

    def at(self, level: float) -> float:
        """Half-width that covers with probability ``level``; infinite where the groups cannot support it."""
        return self.value if self.level >= level - 1e-12 else math.inf


def radius(scores: np.ndarray, groups: np.ndarray, level: float) -> Radius:
    """Quantile of out-of-fold errors in which each group counts once.

    Hierarchical conformal prediction (Lee, Barber & Willett 2023, arXiv:2306.06342): score ``i`` of group ``g`` weighs
    ``1 / ((G + 1) n_g)`` and infinity weighs ``1 / (G + 1)``, so that a new, exchangeable group is covered at ``level``
    on average. The scores here are cross-validated rather than held out once, which costs the guarantee its exactness
    (CV+; Barber et al. 2021, arXiv:1905.02928, proves 1 - 2 alpha). With fewer than ``level / (1 - level)`` groups no
    finite interval has the level: the largest score then stands for ``G / (G + 1)``.

    Parameters
    ----------
    scores : array, shape (n,)
        Absolute errors in the log.
    groups : array, shape (n,)
        Family of each.
    level : float
        Nominal coverage, e.g. 0.9.
    """
    names, member, counts = np.unique(groups, return_inverse=True, return_counts=True)
    count = len(names)
    attainable = min(level, count / (count + 1))
    weight = 1 / ((count + 1) * counts[member])
    order = np.argsort(scores)
    reached = np.cumsum(weight[order]) >= attainable - 1e-12
    value = float(scores[order][int(reached.argmax())]) if reached.any() else math.inf
    return Radius(value, attainable, count)
