"""One predicted quantity: a fitted law, what it leaves over, and an interval::

training rows ── law cross-fitted by family ──> log(measured / law) ── trees, out of fold ──> weight, scores
             └── law on all rows ────────────────────────────────────── trees on all ───────> prediction

Where a configuration has no law of its own, :mod:`labbench.prediction.elsewhere` takes the place of the trees. What other batch
sizes of a cell tell (:mod:`labbench.prediction.batches`) comes before all that, then, where there are no forests, what other
configurations of its workload tell (:mod:`labbench.prediction.relatives`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from labbench.prediction.batches import Batches
from labbench.prediction.config import PredictionConfig, PredictionError
from labbench.prediction.conformal import Radius
from labbench.prediction.elsewhere import Cells, Elsewhere
from labbench.prediction.features import MEMORY, VERSIONED, kind_of
from labbench.prediction.law import Key, labels
from labbench.prediction.relatives import Relatives, still_shared
from labbench.prediction.residual import MANY_ROWS, Residual, folds_by_group
from labbench.words import count

if TYPE_CHECKING:
    import pandas as pd

    from labbench.prediction.features import Ceilings, Device


class Form(Protocol):
    """A law that can be fitted to rows of a prepared frame.

    :class:`~labbench.prediction.law.TermLaw`, or its :class:`~labbench.prediction.blend.Blend` with a law of operators.
    """

    def known(self, frame: pd.DataFrame) -> np.ndarray:
        """Which rows it can be asked about."""

    def design(self, frame: pd.DataFrame) -> Any:
        """What it sees of them; has ``take(rows)``."""

    def fit(self, design: Any, target: np.ndarray) -> Any:
        """A fitted copy."""

    def parts(self, design: Any, elsewhere: bool = False) -> np.ndarray:
        """What adds up to the prediction of each row, shape (n, p); as of other devices' configurations if ``elsewhere``."""

    def shares(self, parts: np.ndarray) -> np.ndarray:
        """What a residual learns from of them, shape (n, r)."""

    def few(self, frame: pd.DataFrame) -> np.ndarray:
        """Of training rows those of configurations with too few for a law of their own."""

    def carries(self, frame: pd.DataFrame) -> np.ndarray:
        """Of which rows the configuration has a law of its own, once fitted."""

    def features(self, frame: pd.DataFrame) -> Features:
        """What the residual is learnt from, of training rows."""

    def noisier(self, noise: float) -> Form:
        """The same that takes errors of such a scale, in the log, for noise."""


class Features(Protocol):
    """What a residual is learnt from beside the shares of the law's parts; the last ``len(names)`` columns tell configurations."""

    @property
    def names(self) -> tuple[tuple[str, str], ...]:
        """Columns of texts and a value each, in the order of those columns."""

    def table(self, frame: pd.DataFrame) -> np.ndarray:
        """Shape (n, q)."""


Folds = Sequence[tuple[np.ndarray, np.ndarray]]  # rows to learn from, and rows to be told

FAMILY = ("group", *VERSIONED)  # what a configuration has run of a family tells of the rest of it there, and only there
# cells on devices of one kind that agree in these err alike, as options of one question
QUESTION = ("architecture", "mode", "series", "seq_len", "image_size", "frames", "audio_s")
BATCHES, PLATFORMS = "its other batch sizes", "its other platforms"  # what may tell of a cell beside the law
CHUNK = 20_000  # rows predicted at a time, so that memory does not grow with the question
LOUD = 1.5  # times the noise that a law is fitted with: it is fitted again with the scatter that was found
MOST_NOISE = 0.5  # in the log
# By family, of many rows: the more a fold learns from, the nearer it is to what learns from all. By architecture: of models whose
# families are known enough is learnt without a fifth of them.
MANY_FOLDS, NEAR_FOLDS = 10, 5
MIN_FAMILIES = 3  # cross-fitting needs training families left when one is held out and one is scored


def typical(errors: np.ndarray, groups: np.ndarray) -> float:
    """Standard deviation that the median absolute error of the median group stands for (of normal errors 1.48 times as much)."""
    of_group = [np.median(np.abs(errors[groups == name])) for name in np.unique(groups)]
    return min(float(1.4826 * np.median(of_group)), MOST_NOISE)


@dataclass(frozen=True)
class CrossFit:
    """What laws that were fitted without a fold say.

    Attributes
    ----------
    parts : array, shape (n, p)
        Of each row by the law that has not seen its fold.
    said : array, shape (folds, n)
        Log of what each of the laws says of every row.
    laws : list of Form
        Fitted.
    """

    parts: np.ndarray
    said: np.ndarray
    laws: list[Form]

    @classmethod
    def of(cls, forms: Sequence[Form], design: Any, target: np.ndarray, folds: Folds) -> CrossFit:
        """Fitted once for each fold, from what stands in its place among ``forms``, which has not seen the fold either."""
        laws: list[Form] = []
        parts, said = np.empty(0), np.empty((len(folds), len(target)))
        for number, (train, test) in enumerate(folds):
            laws.append(forms[number].fit(design.take(train), target[train]))
            every = laws[number].parts(design)
            said[number] = np.log(every.sum(axis=1))
            parts = parts if number else np.empty_like(every)
            parts[test] = every[test]
        return cls(parts, said, laws)


@dataclass(frozen=True)
class Quantity:
    """A column of the frame, predicted.

    Attributes
    ----------
    name : str
        Column that holds the measured value.
    law : Form
        Fitted.
    far : Residual
        Corrects the law for families that a configuration has never run, and knows how wrong it is there.
    near : Residual or None
        The same for other models of families that it has run; None where the cells are too few to tell, and ``far`` serves all.
    families : frozenset of tuple
        What was learnt from: ``FAMILY``.
    features : Features
        What residuals are learnt from beside the shares of the law's parts.
    elsewhere : Elsewhere
        Answers for configurations that have no law of their own.
    siblings : Batches or None
        What cells of the same workload at other batch sizes tell; None where too few of them were measured.
    relatives : Relatives or None
        What cells of the same workload in other configurations tell; None where too few of them were measured, or forests tell it.
    """

    name: str
    law: Any
    far: Residual
    near: Residual | None
    families: frozenset[Key]
    features: Features
    elsewhere: Elsewhere
    siblings: Batches | None = None
    relatives: Relatives | None = None

    @classmethod
    def fit(cls, name: str, frame: pd.DataFrame, form: Form, config: PredictionConfig) -> Quantity:
        """Fit to the rows of a prepared frame that have the quantity and that the law can be asked about.

        Raises
        ------
        PredictionError
            If fewer than three families are left.
        """
        y = frame[name].to_numpy(float, na_value=np.nan)
        known = form.known(frame)
        usable = known & np.isfinite(y) & (y > 0)
        everything, measured = frame[usable].reset_index(drop=True), y[usable]
        few = form.few(everything)
        frame, y = everything[~few].reset_index(drop=True), measured[~few]
        groups = frame["group"].to_numpy(str)
        if len(set(groups)) < MIN_FAMILIES:
            unknown = int((~known).sum())
            raise PredictionError(
                f"{count(len(set(groups)), 'model family', 'model families')} with a footprint and a measured "
                f"{name.split('_')[0]}; prediction needs {MIN_FAMILIES}: measure more with `labbench run`"
                + (f"; {count(unknown, 'row')} had no footprint, which --graphs gives imported ones" if unknown else "")
            )
        design, features = form.design(frame), form.features(frame)
        table = features.table(frame)

        many = len(y) >= MANY_ROWS
        by_family = list(folds_by_group(groups, MANY_FOLDS if many else config.inner_folds, config.seed))
        families = CrossFit.of([form] * len(by_family), design, y, by_family)
        scatter = typical(np.log(y / families.parts.sum(axis=1)), groups)
        if scatter > LOUD * config.noise:
            form = form.noisier(scatter)
            families = CrossFit.of([one.noisier(scatter) for one in families.laws], design, y, by_family)
        law = form.fit(design, y)

        alike = [kind_of(frame).to_numpy(), *(name for name in QUESTION if name in frame)]
        asked = frame.groupby(alike, dropna=False, observed=True, sort=False).ngroup().to_numpy()

        everywhere = np.log(law.parts(design).sum(axis=1))

        def residual(apart: np.ndarray, cross: CrossFit, folds: Folds) -> Residual:
            columns, error = np.hstack([table, law.shares(cross.parts)]), np.log(y / cross.parts.sum(axis=1))
            return Residual.fit(columns, error, apart, folds, config, asked, cross.said - everywhere)

        far, near = residual(groups, families, by_family), None
        if many:
            names = frame["architecture"].to_numpy(str)
            by_name = list(folds_by_group(names, NEAR_FOLDS, config.seed))
            near = residual(names, CrossFit.of([form] * len(by_name), design, y, by_name), by_name)
        learnt = Cells.of(frame, table, law.parts(design, elsewhere=True), features)
        probes = everything[few].reset_index(drop=True)
        probed = Cells.of(probes, features.table(probes), law.parts(form.design(probes), elsewhere=True), features)
        elsewhere = Elsewhere.of(learnt, y, probed, measured[few], config.seed)
        siblings = Batches.fit(frame, np.log(y) - everywhere, y if name == MEMORY else None)
        relatives = None if many else Relatives.fit(frame, far.left_over, groups)
        seen = frozenset(labels(frame, FAMILY))
        return cls(name, law, far, near, seen, features, elsewhere, siblings, relatives)

    def radius(self, level: float) -> Radius:
        """Half-width, in the log, of the typical interval that covers a new family with probability ``level``."""
        return self.far.typical_radius(level)

    def predict(
        self,
        frame: pd.DataFrame,
        corrected: np.ndarray,
        level: float,
        ceilings: Mapping[Device, Ceilings] | None = None,
        levels: Sequence[float] = (),
    ) -> pd.DataFrame:
        """Point and interval for each row; a residual acts where ``corrected`` (in the domain), else the law alone.

        Parameters
        ----------
        frame : DataFrame
        corrected : array of bool
        level : float
        ceilings : mapping, optional
            Of all devices in the frame; default: of those that were fitted.
        levels : sequence of float, optional
            Of further intervals.

        Returns
        -------
        DataFrame
            ``point``, ``low``, ``high`` in the quantity's unit; ``law``: the fitted law alone; ``probes``: where the configuration
            carries no law, how many such cells were measured on its device, else missing; ``anchor``: which other cells of the
            workload told of it (:data:`BATCHES`, :data:`PLATFORMS`), or nothing; ``reach_<level>`` of each of the further
            intervals: its half-width in the log, infinite where too little was learnt from to support the level; ``shared``: how
            much of an error's variance all cells of one model and size on devices of one kind have in common.
        """
        import pandas as pd

        # Cells with the same operators lie in one chunk, as far as they can: they share what is worked out about them.
        order = np.lexsort((frame["batch_size"].to_numpy(float), frame["model"].to_numpy(str)))
        chunks = [order[start : start + CHUNK] for start in range(0, max(len(order), 1), CHUNK)]
        law = self.law if ceilings is None else replace(self.law, ceilings=ceilings)
        found = [self._predicted(law, frame.iloc[rows], corrected[rows], level, levels) for rows in chunks]
        return pd.concat(found).reindex(frame.index)

    def _predicted(
        self, form: Any, frame: pd.DataFrame, corrected: np.ndarray, level: float, levels: Sequence[float]
    ) -> pd.DataFrame:
        import pandas as pd

        design, table = form.design(frame), self.features.table(frame)
        known = np.array([family in self.families for family in labels(frame, FAMILY)], bool) & (self.near is not None)
        parts = form.parts(design)
        away = np.flatnonzero(~form.carries(frame) & self.elsewhere.answers(frame))
        if len(away):
            parts[away] = form.parts(design.take(away), elsewhere=True)
        law = parts.sum(axis=1)
        seen = np.hstack([table, form.shares(parts)])

        def radii(of: Residual | Batches | Relatives) -> list[float]:
            return [of.radius(level).value, *(of.radius(one).at(one) for one in levels)]

        shift, reach = np.zeros(len(frame)), np.zeros((len(frame), 1 + len(levels)))
        shared = np.zeros(len(frame))
        for residual, rows in ((self.near, known), (self.far, ~known)):
            if residual is not None and rows.any():
                shift[rows] = residual.correction(seen[rows])
                reach[rows] = np.outer(residual.spread(seen[rows]), radii(residual))
                shared[rows] = residual.shared
        shift, probes = np.where(corrected, shift, 0.0), np.full(len(frame), np.nan)
        anchor = np.full(len(frame), "", object)
        if self.relatives is not None and (kin := self.relatives.known(frame)).any():
            told, left = self.relatives.told(frame[kin])
            shift[kin] += told
            anchor[kin] = PLATFORMS
            reach[kin] = np.outer(left, radii(self.relatives))
            shared[kin] = still_shared(shared[kin], left)
        if self.siblings is not None and (same := self.siblings.known(frame)).any():
            shift[same], sd = self.siblings.told(frame[same], law[same])
            anchor[same] = BATCHES
            reach[same], shared[same] = np.outer(sd, radii(self.siblings)), 0.0
        if len(away):
            there = Cells.of(frame.iloc[away], table[away], parts[away], self.features)
            shift[away], reach[away], probes[away] = self.elsewhere.predict(there, (level, *levels))
            shared[away], anchor[away] = 0.0, ""
        point, spread = law * np.exp(shift), np.exp(reach[:, 0])
        columns = {"point": point, "low": point / spread, "high": point * spread, "law": law, "probes": probes}
        columns |= {"anchor": anchor, "shared": shared}
        columns |= {f"reach_{one:g}": reach[:, number] for number, one in enumerate(levels, 1)}
        return pd.DataFrame(columns, index=frame.index)
