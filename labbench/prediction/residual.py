"""What a fitted law leaves over, learnt by trees as far as they prove themselves on groups they have not seen.

::

    law's error, cross-fitted ── trees, out of fold ──> weight ──> error left over ── trees, out of fold ──> how large it will be
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from labbench.prediction.config import PredictionConfig
from labbench.prediction.conformal import Radius, radius

MAX_CORRECTION = 0.7  # of the residual in the log (a factor of 2): trees know nothing beyond what they saw
MANY_ROWS = 2000  # from here on forests, and intervals as wide as each cell's own error is expected to be
TREES, LEAST_ROWS, SOME_FEATURES = 150, 2, 0.25  # of the forest that corrects; each split looks at some of the features
SCALE_TREES, SCALE_LEAST_ROWS = 100, 20  # of the forest that foretells the size of an error
MIN_QUESTIONS = 5  # of which common errors are told
MOST_SHARED = 0.98  # no errors are quite the same
SURE = 2  # standard errors: trees that passed with one made memory on small stores worse by up to a tenth
LEAST_SCALE = 0.01  # in the log: an error of 1 % is about what repeated measurements differ by


@dataclass(frozen=True)
class Residual:
    """Learnt corrections of a law and the size of the errors that stay.

    Attributes
    ----------
    model : regressor or None
        Predicts ``log(measured / law)``; None where it did not help out of fold.
    weight : float
        In 0..1: least-squares weight of the model, found on out-of-fold predictions (stacking, Wolpert 1992);
        0 where the rows are few and the gain may be chance.
    scale : regressor or None
        Predicts the absolute error; None where the rows are too few to tell one cell's from another's.
    scores, groups : array, shape (rows,)
        Absolute out-of-fold errors in the log over their scale, and the group of each: what intervals are made of.
    typical : float
        Median scale.
    left_over : array, shape (rows,)
        Out-of-fold errors in the log.
    shared : float
        In 0..1: how much of an error's variance is common to all cells of one question, e.g. one model's on several platforms.
    """

    model: Any
    weight: float
    scale: Any
    scores: np.ndarray
    groups: np.ndarray
    left_over: np.ndarray = field(default_factory=lambda: np.empty(0), repr=False)
    typical: float = 1.0
    shared: float = 0.0

    @classmethod
    def fit(
        cls,
        features: np.ndarray,
        error: np.ndarray,
        groups: np.ndarray,
        folds: Sequence[tuple[np.ndarray, np.ndarray]],
        config: PredictionConfig,
        asked: np.ndarray | None = None,
        pull: np.ndarray | None = None,
    ) -> Residual:
        """Learn from the cross-fitted errors of a law.

        The law that a row's error is of has seen the other folds, and what it learnt of a fold held out is in the errors that trees
        would learn from: the other way round, so that trees seem worse than they are. ``pull`` takes it out again, as far as the
        influences of two folds on a law add up (the infinitesimal jackknife, Jaeckel 1972).

        Parameters
        ----------
        features : array, shape (n, q)
        error : array, shape (n,)
            ``log(measured / law)``, of a law that has not seen the row's group.
        groups : array of str, shape (n,)
            What a new cell shares with none of the rows, e.g. its family.
        folds : sequence of (train, test)
            Rows; no group on both sides. Of the errors, too.
        config : PredictionConfig
        asked : array, shape (n,), optional
            The question that a row is an option of; default: nothing is known of common errors.
        pull : array, shape (folds, n), optional
            By how much the law says more, in the log, of each row if it has not seen the fold; default: it says the same.
        """
        many = len(error) >= MANY_ROWS
        model, weight = None, 0.0
        learnt = np.zeros(len(error))
        if config.residual != "none":
            learn = _forest if many else _boosted
            for number, (train, test) in enumerate(folds):
                unseen = error[train] if pull is None else error[train] - pull[number, train]
                learnt[test] = _correction(learn(features[train], bounded(unseen), config), features[test])
            weight = float(np.clip(learnt @ error / max(float(learnt @ learnt), 1e-12), 0.0, 1.0))
            if not many and not helps(error, error - weight * learnt, groups):  # few groups agree by chance
                weight = 0.0
            if weight > 0:
                model = learn(features, bounded(error), config)
        signed = error - weight * learnt
        left = np.abs(signed)
        if not many:
            return cls(model, weight, None, left, groups, signed, shared=in_common(signed, asked))
        sizes = np.empty(len(error))
        for train, test in folds:
            sizes[test] = _scale(_sized(features[train], left[train], config), features[test])
        typical = float(np.median(sizes))
        shared = in_common(signed / sizes, asked)
        return cls(model, weight, _sized(features, left, config), left / sizes, groups, signed, typical, shared)

    @property
    def learner(self) -> str | None:
        """What corrects, in words; None where nothing does."""
        if self.model is None:
            return None
        return "gradient boosting" if self.scale is None else "forests"

    def correction(self, features: np.ndarray) -> np.ndarray:
        """To be added to the log of the law's prediction, shape (n,)."""
        if self.model is None or not len(features):
            return np.zeros(len(features))
        return self.weight * _correction(self.model, features)

    def spread(self, features: np.ndarray) -> np.ndarray:
        """By how much the radius of each row's interval is to be multiplied, shape (n,)."""
        if self.scale is None or not len(features):
            return np.ones(len(features))
        return _scale(self.scale, features)

    def radius(self, level: float) -> Radius:
        """Half-width, in the log and in units of the spread, of the interval that covers a new group with probability ``level``."""
        return radius(self.scores, self.groups, level)

    def typical_radius(self, level: float) -> Radius:
        """The same in the log for a row of median spread."""
        found = self.radius(level)
        return replace(found, value=found.value * self.typical)


def folds_by_group(groups: np.ndarray, count: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Train and test rows; no group is on both sides. At most ``count`` folds, at most one a group."""
    names = np.unique(groups)
    fold_of = dict(zip(np.random.default_rng(seed).permutation(names), np.arange(len(names)) % count, strict=True))
    fold = np.array([fold_of[group] for group in groups])
    for number in np.unique(fold):
        yield np.flatnonzero(fold != number), np.flatnonzero(fold == number)


def helps(before: np.ndarray, after: np.ndarray, groups: np.ndarray) -> bool:
    """Whether errors shrink by more than ``SURE`` standard errors of the gain, groups weighing the same.

    As in the rule of Breiman et al. 1984, section 3.4.3: the simpler model unless the other is clearly better.
    """
    names, member, counts = np.unique(groups, return_inverse=True, return_counts=True)
    gains = np.bincount(member, np.abs(before) - np.abs(after)) / counts
    return bool(gains.mean() > SURE * gains.std(ddof=1) / np.sqrt(len(names)))


def in_common(errors: np.ndarray, asked: np.ndarray | None) -> float:
    """Share of the variance of errors that rows of one question have in common, in 0..1; 0 where too few tell.

    The intraclass correlation of one-way analysis of variance, ICC(1) (Fisher 1925; Donner 1986, Int. Stat. Rev. 54, eq. 2.1),
    of errors that are bounded at their outermost percents, so that no single failure tells it.
    """
    if asked is None:
        return 0.0
    _, member, counts = np.unique(asked, return_inverse=True, return_counts=True)
    several = counts[member] > 1
    questions, rows = int((counts > 1).sum()), int(several.sum())
    if questions < MIN_QUESTIONS:
        return 0.0
    _, member, counts = np.unique(asked[several], return_inverse=True, return_counts=True)
    bounded = np.clip(errors[several], *np.quantile(errors[several], (0.01, 0.99)))
    means = np.bincount(member, bounded) / counts
    between = float(counts @ (means - bounded.mean()) ** 2) / (questions - 1)
    within = float(((bounded - means[member]) ** 2).sum()) / (rows - questions)
    typical = (rows - float(counts @ counts) / rows) / (questions - 1)
    total = between + (typical - 1) * within
    return float(np.clip((between - within) / total, 0.0, MOST_SHARED)) if total > 0 else 0.0


def _boosted(features: np.ndarray, error: np.ndarray, config: PredictionConfig) -> Any:
    """Exact splits: for the few thousand rows at most of a store faster than histograms, and on one thread."""
    from sklearn.ensemble import GradientBoostingRegressor

    model = GradientBoostingRegressor(
        n_estimators=config.boosting_iterations,
        learning_rate=config.boosting_rate,
        min_samples_leaf=config.boosting_leaf,
        max_features=config.boosting_features,
        random_state=config.seed,
    )
    return _fitted(model, features, error)


def _forest(features: np.ndarray, error: np.ndarray, config: PredictionConfig) -> Any:
    return grown(features, error, config.seed)


def _sized(features: np.ndarray, error: np.ndarray, config: PredictionConfig) -> Any:
    return grown(features, np.minimum(error, MAX_CORRECTION), config.seed, SCALE_TREES, SCALE_LEAST_ROWS)


def grown(
    features: np.ndarray,
    target: np.ndarray,
    seed: int,
    trees: int = TREES,
    leaf: int = LEAST_ROWS,
    some: float = SOME_FEATURES,
) -> Any:
    """A forest of extremely randomized trees, fitted; ``some``: share of the features that each split looks at."""
    from sklearn.ensemble import ExtraTreesRegressor

    model = ExtraTreesRegressor(trees, min_samples_leaf=leaf, max_features=some, random_state=seed, n_jobs=-1)
    return _fitted(model, features.astype(np.float32), target)


def foretold(model: Any, features: np.ndarray) -> np.ndarray:
    """What a fitted model says of rows, shape (n,)."""
    with _own_filters():
        return np.asarray(model.predict(features))


def _fitted(model: Any, features: np.ndarray, target: np.ndarray) -> Any:
    from sklearn import config_context

    with _own_filters(), config_context(assume_finite=True, skip_parameter_validation=True):
        return model.fit(features, target)  # without checks in a quarter of the time, tree by tree


def _scale(model: Any, features: np.ndarray) -> np.ndarray:
    return np.maximum(foretold(model, features.astype(np.float32)), LEAST_SCALE)


def bounded(error: np.ndarray) -> np.ndarray:
    """Errors in the log, a wilder one than ``MAX_CORRECTION`` as that."""
    return np.clip(error, -MAX_CORRECTION, MAX_CORRECTION)


def _correction(model: Any, features: np.ndarray) -> np.ndarray:
    return bounded(foretold(model, features))


@contextmanager
def _own_filters() -> Iterator[None]:
    """The process's filters of warnings are afterwards what they were, and nothing is shown in between.

    Each thread of a forest empties them and fills them again (scikit-learn 1.9, ``sklearn.utils.parallel``). Where threads meet
    they stay empty, and then each tree warns that they are.
    """
    with warnings.catch_warnings(record=True):
        yield
