"""One predicted quantity: a fitted law, a learnt residual that must earn its weight, and an interval::

training rows ── law cross-fitted by family ──> log(measured / law) ── boosting, out of fold ──> weight, scores
             └── law on all rows ────────────────────────────────────── boosting on all ───────> prediction
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from labbench.prediction.config import PredictionConfig, PredictionError
from labbench.prediction.conformal import Radius, radius
from labbench.prediction.features import LEVELS, Ceilings, Device, classes, residual_features
from labbench.prediction.law import Law

if TYPE_CHECKING:
    import pandas as pd

Terms = Callable[["pd.DataFrame", Mapping[Device, Ceilings]], np.ndarray]

MIN_FAMILIES = 3  # cross-fitting needs training families left when one is held out and one is scored
ROWS_WORTH_THREADS = 10_000  # 100 rows: two threads on two busy cores took 7 times as long as one
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
    known : list of str
        Operator classes that the residual's features are made of.
    """

    name: str
    terms: Terms
    ceilings: Mapping[Device, Ceilings]
    law: Law
    residual: Any
    weight: float
    scores: np.ndarray
    families: np.ndarray
    known: list[str]

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
                f"{name} was measured, with a footprint, for {len(set(families))} model families; "
                f"prediction needs {MIN_FAMILIES}: measure more with `labbench run`"
            )
        law = Law(LEVELS, config.pooled_width, config.level_width, config.noise)
        known = classes(frame)

        folds = list(folds_by_group(families, config.inner_folds, config.seed))
        error = np.empty(len(y))
        features: Any = [None] * len(folds)
        for index, (train, test) in enumerate(folds):
            held_out = law.fit(frame.iloc[train], x[train], y[train])
            parts = held_out.parts(frame.iloc[test], x[test])
            error[test] = np.log(y[test] / parts.sum(axis=1))
            features[index] = residual_features(frame.iloc[test], parts, known)
        learnt = np.zeros(len(y))
        residual, weight = None, 0.0
        if config.residual == "boosting":
            table = _joined(features, folds)
            with _threads_for(len(y)):
                for train, test in folds:
                    learnt[test] = _correction(_boosting(config).fit(table.iloc[train], error[train]), table.iloc[test])
                weight = float(np.clip(learnt @ error / max(float(learnt @ learnt), 1e-12), 0.0, 1.0))
                weight = weight if _helps(error, error - weight * learnt, families) else 0.0
                if weight > 0:
                    residual = _boosting(config).fit(table, error)
        scores = np.abs(error - weight * learnt)
        return cls(name, terms, ceilings, law.fit(frame, x, y), residual, weight, scores, families, known)

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

        parts = self.law.parts(frame, self.terms(frame, self.ceilings))
        law = parts.sum(axis=1)
        point = law.copy()
        if self.residual is not None and len(frame):
            with _threads_for(len(frame)):
                shift = self.weight * _correction(self.residual, residual_features(frame, parts, self.known))
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


def _joined(parts: list[pd.DataFrame], folds: list[tuple[np.ndarray, np.ndarray]]) -> pd.DataFrame:
    """Features of all folds in the order of the rows, texts as categories that every part shares."""
    import pandas as pd

    order = np.argsort(np.concatenate([test for _, test in folds]), kind="stable")
    table = pd.concat(parts, ignore_index=True).iloc[order].reset_index(drop=True)
    texts = [name for name in table if not pd.api.types.is_numeric_dtype(table[name])]
    return table.astype(dict.fromkeys(texts, "category"))


def _helps(before: np.ndarray, after: np.ndarray, groups: np.ndarray) -> bool:
    """Whether errors shrink by more than the standard error of the gain, groups weighing the same (one-SE rule).

    The rule is that of Breiman et al. 1984, section 3.4.3: the simpler model unless the other is clearly better.
    """
    gains = np.array(
        [np.abs(before[groups == g]).mean() - np.abs(after[groups == g]).mean() for g in np.unique(groups)]
    )
    return bool(gains.mean() > gains.std(ddof=1) / np.sqrt(len(gains)))


def _threads_for(rows: int) -> AbstractContextManager[Any]:
    """One thread for a small fit: splitting it costs more than it saves, many times more on a busy machine."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1) if rows < ROWS_WORTH_THREADS else nullcontext()


def _boosting(config: PredictionConfig) -> Any:
    from sklearn.ensemble import HistGradientBoostingRegressor

    return HistGradientBoostingRegressor(
        max_iter=config.boosting_iterations,
        learning_rate=config.boosting_rate,
        min_samples_leaf=config.boosting_leaf,
        categorical_features="from_dtype",
        early_stopping=False,
        random_state=config.seed,
    )


def _correction(model: Any, features: pd.DataFrame) -> np.ndarray:
    import pandas as pd

    texts = [name for name in features if not pd.api.types.is_numeric_dtype(features[name])]
    table = features.astype(dict.fromkeys(texts, "category"))
    return np.clip(np.asarray(model.predict(table)), -MAX_CORRECTION, MAX_CORRECTION)
