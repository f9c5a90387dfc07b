"""Two laws of the same cells, and their weighted geometric mean.

What one law misjudges the other often misjudges otherwise, and the mean of both errs less than either (Bates & Granger 1969). How
much each counts is found on families that neither has seen (stacking, Wolpert 1992), drawn towards equal weights, which few
families can hardly better (Timmermann 2006, section 7).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from labbench.prediction.law import TermLaw
from labbench.prediction.operator_law import OperatorLaw

if TYPE_CHECKING:
    import pandas as pd

    from labbench.prediction.features import Ceilings, Device
    from labbench.prediction.operator_law import OperatorFeatures

EQUAL = 0.5
PRIOR_FAMILIES = 10.0  # how many families' say equal weights have
MOST_ERROR = 0.7  # in the log (a factor of 2): no single failure tells the weight


@dataclass(frozen=True)
class BlendDesign:
    """What a frame's rows look like to both laws.

    Attributes
    ----------
    operators : Design
        Of the rows whose operators are known.
    totals : TermDesign
        Of all rows.
    told : array of bool, shape (n,)
        Which rows' operators are known.
    """

    operators: Any
    totals: Any
    told: np.ndarray

    def __len__(self) -> int:
        return len(self.told)

    def take(self, rows: np.ndarray) -> BlendDesign:
        """Some of the rows."""
        place = np.cumsum(self.told) - 1
        told = self.told[rows]
        return BlendDesign(self.operators.take(place[rows][told]), self.totals.take(rows), told)


@dataclass(frozen=True)
class Blend:
    """Operators priced one by one, and the totals of their classes.

    Where operators are not known totals answer alone, and where a configuration has no law of its own operators do.

    Attributes
    ----------
    operators : OperatorLaw
    totals : TermLaw
    ceilings : mapping
        Of each machine and device.
    weight : float
        Of the law of operators, in the log, in 0..1.
    """

    operators: OperatorLaw
    totals: TermLaw
    ceilings: Mapping[Device, Ceilings]
    weight: float = EQUAL

    def known(self, frame: pd.DataFrame) -> np.ndarray:
        """Which rows have all totals."""
        return self.totals.known(frame)

    def design(self, frame: pd.DataFrame) -> BlendDesign:
        """What a frame's rows look like to both."""
        operators, totals = (replace(law, ceilings=self.ceilings) for law in (self.operators, self.totals))
        told = operators.known(frame)
        return BlendDesign(operators.design(frame[told]), totals.design(frame), told)

    def fit(self, design: BlendDesign, target: np.ndarray) -> Blend:
        """A copy with both fitted."""
        return replace(
            self,
            operators=self.operators.fit(design.operators, target[design.told]),
            totals=self.totals.fit(design.totals, target),
        )

    def best_weight(
        self,
        design: BlendDesign,
        target: np.ndarray,
        groups: np.ndarray,
        unseen: Iterable[tuple[Blend, np.ndarray]],
    ) -> float:
        """Weight of the law of operators that rows tell which fitted copies have not seen: pairs of one and such rows.

        Least squares in the log, families counting the same, with :data:`PRIOR_FAMILIES` of which equal weights are best.
        """
        laws = np.zeros((2, len(target)))
        for one, rows in unseen:
            laws[:, rows] = [np.log(parts.sum(axis=1)) for parts in one.both(design.take(rows))]
        told = design.told
        apart, missed = (
            np.clip(one[told] - laws[1, told], -MOST_ERROR, MOST_ERROR) for one in (laws[0], np.log(target))
        )
        _, member, counts = np.unique(groups[told], return_inverse=True, return_counts=True)
        each = 1 / counts[member]
        known = float(each @ apart**2)
        if not known:
            return EQUAL
        held = PRIOR_FAMILIES / len(counts) * known
        return float(np.clip((each @ (apart * missed) + held * EQUAL) / (known + held), 0.0, 1.0))

    def both(self, design: BlendDesign, elsewhere: bool = False) -> list[np.ndarray]:
        """Parts of each law; of operators that are not known, ones."""
        told = self.operators.parts(design.operators, elsewhere)
        operators = np.ones((len(design), told.shape[1]))
        operators[design.told] = told
        return [operators, self.totals.parts(design.totals, elsewhere)]

    def noisier(self, noise: float) -> Blend:
        """The same that takes errors of such a scale, in the log, for noise."""
        return replace(self, operators=self.operators.noisier(noise), totals=self.totals.noisier(noise))

    def carries(self, frame: pd.DataFrame) -> np.ndarray:
        """Of which rows the configuration has a law of operators, or, where they are not known, the platform one of totals."""
        return np.where(self.operators.known(frame), self.operators.carries(frame), self.totals.carries(frame))

    def few(self, frame: pd.DataFrame) -> np.ndarray:
        """See :meth:`OperatorLaw.few`; none of those whose operators are not known."""
        told = self.operators.known(frame)
        out = np.zeros(len(frame), bool)
        out[told] = self.operators.few(frame[told])
        return out

    def parts(self, design: BlendDesign, elsewhere: bool = False) -> np.ndarray:
        """What adds up to the mean of each row: parts of both laws in proportion to their weights, shape (n, p + q)."""
        both = self.both(design, elsewhere)
        sums = [parts.sum(axis=1, keepdims=True) for parts in both]
        weight = np.where(design.told, 1.0 if elsewhere else self.weight, 0.0)[:, None]
        mean = np.exp(weight * np.log(sums[0]) + (1 - weight) * np.log(sums[1]))
        return np.hstack([weight * mean * both[0] / sums[0], (1 - weight) * mean * both[1] / sums[1]])

    def features(self, frame: pd.DataFrame) -> BlendFeatures:
        """What the residual is learnt from, of training rows."""
        return BlendFeatures(self.operators.features(frame))


@dataclass(frozen=True)
class BlendFeatures:
    """:class:`OperatorFeatures`, with zeros for the operators that are not known."""

    operators: OperatorFeatures

    @property
    def names(self) -> tuple[tuple[str, str], ...]:
        """Columns of texts and a value each."""
        return self.operators.names

    def table(self, frame: pd.DataFrame) -> np.ndarray:
        """Statistics of operators, and indicators, shape (n, q)."""
        told = self.operators.graphs.number(frame) >= 0
        known = self.operators.table(frame[told])
        names = self.operators.indicators(frame)
        statistics = np.zeros((len(frame), known.shape[1] - names.shape[1]))
        statistics[told] = known[:, : statistics.shape[1]]
        return np.hstack([statistics, names])
