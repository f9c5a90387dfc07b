"""One predicted quantity: a fitted law, a learnt residual that must earn its weight, and an interval::

training rows ── law cross-fitted by family ──> log(measured / law) ── boosting, out of fold ──> weight, scores
             └── law on all rows ────────────────────────────────────── boosting on all ───────> prediction
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from labbench.prediction.config import PredictionConfig, PredictionError
from labbench.prediction.conformal import Radius, radius
from labbench.prediction.features import LEVELS, Ceilings, Device, ResidualFeatures, with_shares
from labbench.prediction.law import Law, law_keys
from labbench.words import count

if TYPE_CHECKING:
    import pandas as pd

Terms = Callable[["pd.DataFrame", Mapping[Device, Ceilings]], np.ndarray]

MIN_FAMILIES = 3  # cross-fitting needs training families left when one is held out and one is scored
MAX_CORRECTION = 0.7  # of the residual in the log (a factor of 2): trees know nothing beyond what they saw


@dataclass(frozen=True)
class Quantity:
    """A column of the frame, predicted.

    Attributes
    ----------
    name : str
        Column that holds the measured value.
    law : Law
    residual : regressor or None
        Predicts ``log(measured / law)``; ``None`` where it did not help out of fold.
    weight : float
        In 0..1: least-squares weight of the residual, found on out-of-fold predictions (stacking, Wolpert 1992);
        0 where the gain is within its standard error.
    scores, families : array, shape (rows,)
        Absolute out-of-fold errors in the log, and the family of each: what intervals are made of.
    features : ResidualFeatures
        What the residual is learnt from.
    """

    name: str
    terms: Terms
    ceilings: Mapping[Device, Ceilings]
    law: Law
    residual: Any
    weight: float
    scores: np.ndarray
    families: np.ndarray
    features: ResidualFeatures

    @classmethod
    def fit(
        cls, name: str, frame: pd.DataFrame, terms: Terms, ceilings: Mapping[Device, Ceilings], config: PredictionConfig
    ) -> Quantity:
        """Fit to the rows of a prepared frame that have the quantity and a footprint.

        Raises
        ------
        PredictionError
            If fewer than three families are left.
        """
        x = terms(frame, ceilings)
        y = frame[name].to_numpy(float, na_value=np.nan)
        usable = np.isfinite(x).all(axis=1) & np.isfinite(y) & (y > 0)
        frame, x, y = frame[usable].reset_index(drop=True), x[usable], y[usable]
        families = frame["group"].to_numpy(str)
        if len(set(families)) < MIN_FAMILIES:
            raise PredictionError(
                f"{count(len(set(families)), 'model family', 'model families')} with a footprint and a measured "
                f"{name.split('_')[0]}; prediction needs {MIN_FAMILIES}: measure more with `labbench run`"
            )
        keys, features = law_keys(frame, LEVELS), ResidualFeatures.of(frame)
        table = features.table(frame)
        law = Law(config.pooled_width, config.level_width, config.noise).fit(keys, x, y)

        folds = list(folds_by_group(families, config.inner_folds, config.seed))
        parts = np.empty_like(x)
        for train, test in folds:
            # Begins at the law of all rows and ends, within its tolerance, where any other start would end.
            parts[test] = law.fit([keys[row] for row in train], x[train], y[train]).parts(
                [keys[row] for row in test], x[test]
            )
        error = np.log(y / parts.sum(axis=1))
        learnt = np.zeros(len(y))
        residual, weight = None, 0.0
        if config.residual == "boosting":
            seen = with_shares(table, parts)
            for train, test in folds:
                learnt[test] = _correction(_boosted(seen[train], error[train], config), seen[test])
            weight = float(np.clip(learnt @ error / max(float(learnt @ learnt), 1e-12), 0.0, 1.0))
            weight = weight if _helps(error, error - weight * learnt, families) else 0.0
            if weight > 0:
                residual = _boosted(seen, error, config)
        scores = np.abs(error - weight * learnt)
        return cls(name, terms, ceilings, law, residual, weight, scores, families, features)

    def radius(self, level: float) -> Radius:
        """Half-width, in the log, of the interval that covers a new family with probability ``level``."""
        return radius(self.scores, self.families, level)

    def predict(self, frame: pd.DataFrame, corrected: np.ndarray, level: float) -> pd.DataFrame:
        """Point and interval for each row; the residual acts where ``corrected`` (in the domain), else the law alone.

        Returns
        -------
        DataFrame
            ``point``, ``low``, ``high`` in the quantity's unit, and ``law``: the fitted law alone.
        """
        import pandas as pd

        parts = self.law.parts(law_keys(frame, LEVELS), self.terms(frame, self.ceilings))
        law = parts.sum(axis=1)
        point = law.copy()
        if self.residual is not None and len(frame):
            shift = self.weight * _correction(self.residual, with_shares(self.features.table(frame), parts))
            point = law * np.exp(np.where(corrected, shift, 0.0))
        spread = np.exp(self.radius(level).value)
        return pd.DataFrame(
            {"point": point, "low": point / spread, "high": point * spread, "law": law}, index=frame.index
        )


def folds_by_group(groups: np.ndarray, count: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Train and test rows; no group is on both sides. At most ``count`` folds, at most one a group."""
    names = np.unique(groups)
    fold_of = dict(zip(np.random.default_rng(seed).permutation(names), np.arange(len(names)) % count, strict=True))
    fold = np.array([fold_of[group] for group in groups])
    for number in np.unique(fold):
        yield np.flatnonzero(fold != number), np.flatnonzero(fold == number)


def _helps(before: np.ndarray, after: np.ndarray, groups: np.ndarray) -> bool:
    """Whether errors shrink by more than the standard error of the gain, groups weighing the same (one-SE rule).

    The rule is that of Breiman et al. 1984, section 3.4.3: the simpler model unless the other is clearly better.
    """
    gains = np.array(
        [np.abs(before[groups == g]).mean() - np.abs(after[groups == g]).mean() for g in np.unique(groups)]
    )
    return bool(gains.mean() > gains.std(ddof=1) / np.sqrt(len(gains)))


def _boosted(features: np.ndarray, error: np.ndarray, config: PredictionConfig) -> Any:
    """Exact splits: for the few thousand rows at most of a store faster than histograms, and on one thread."""
    from sklearn import config_context
    from sklearn.ensemble import GradientBoostingRegressor

    model = GradientBoostingRegressor(
        n_estimators=config.boosting_iterations,
        learning_rate=config.boosting_rate,
        min_samples_leaf=config.boosting_leaf,
        max_features=config.boosting_features,
        random_state=config.seed,
    )
    with config_context(assume_finite=True, skip_parameter_validation=True):  # a quarter of the time, tree by tree
        return model.fit(features, error)


def _correction(model: Any, features: np.ndarray) -> np.ndarray:
    return np.clip(model.predict(features), -MAX_CORRECTION, MAX_CORRECTION)
