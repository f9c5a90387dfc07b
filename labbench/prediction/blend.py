"""Two laws of the same cells, and the mean of both.

What one law misjudges the other often misjudges otherwise, and the mean of both errs less than either (Bates & Granger 1969). Both
count the same: weights that were learnt are hardly ever better (Timmermann 2006, section 7). How far the laws disagree tells
the trees that come after which one to believe.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from labbench.prediction.law import TermLaw, shares
from labbench.prediction.operator_law import OperatorLaw

if TYPE_CHECKING:
    import pandas as pd

    from labbench.prediction.features import Ceilings, Device
    from labbench.prediction.operator_law import OperatorFeatures


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
    """

    operators: OperatorLaw
    totals: TermLaw
    ceilings: Mapping[Device, Ceilings]

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
        """Halves of both laws' parts, shape (n, p + q); on devices ``elsewhere`` operators alone, where they are known."""
        told = self.operators.parts(design.operators, elsewhere)
        operators = np.zeros((len(design), told.shape[1]))
        operators[design.told] = told
        weight = np.where(design.told, 1.0 if elsewhere else 0.5, 0.0)[:, None]
        return np.hstack([weight * operators, (1 - weight) * self.totals.parts(design.totals, elsewhere)])

    def shares(self, parts: np.ndarray) -> np.ndarray:
        """Of each law's parts, and in the log how far the laws disagree: shape (n, p + q + 1)."""
        operators, totals = np.hsplit(parts, [self.operators.columns])
        sums = [np.maximum(of.sum(axis=1), np.finfo(float).tiny) for of in (operators, totals)]
        both = operators.any(axis=1) & totals.any(axis=1)
        apart = np.where(both, np.log(sums[0] / sums[1]), 0.0)
        return np.column_stack([shares(operators), shares(totals), apart])

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
