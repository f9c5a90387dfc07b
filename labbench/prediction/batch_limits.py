"""The largest batch that fits into a device's memory, learnt from batches that ran and from larger ones that did not.

At batch size ``b`` a call needs

    context + fixed + b * each * exp(r)

bytes: ``fixed`` and ``each`` (a sample) are the tensors that live at the same time, counted (:mod:`labbench.live`), and ``r`` is
what a runtime, its allocator and its kernels' workspaces make of them. A batch that ran and the next larger one that did not
bracket ``r``; a batch that nobody tried to exceed bounds it from above. A forest learns ``r`` from the operators and from how they
are executed, with each bracket filled in by its expectation (Buckley & James 1979, "Linear regression with censored data"), and
the scatter about it, Student's t, is the most likely one of brackets that the forest had not seen. The device enters by its memory
alone, so that one that was never seen can be asked about.

Memory is not the only limit: kernels that count elements in 32 bits refuse tensors of 2**31 of them. Where a runtime's batches stop
just there and never beyond, that limit is kept, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from labbench.prediction.config import PredictionConfig, PredictionError
from labbench.prediction.graphs import TRAFFIC, fuses
from labbench.prediction.predictor import framework_age
from labbench.prediction.residual import folds_by_group, foretold, grown

if TYPE_CHECKING:
    import pandas as pd

    from labbench.prediction.graphs import Graphs

COUNTED = (
    "peak_bytes",
    "peak_bytes_fixed",
    "peak_copies_bytes",
)  # columns of a table of operators; see :func:`demands`
CONTEXT_BYTES = 0.6e9  # of a GPU, for CUDA's context and libraries; what it is wrong by goes into ``r``
REFERENCE_BATCH = 64  # at which workloads are told alike
INDEXED = "depthwise"  # the kind of operator whose kernels were seen to count in 32 bits
MOST_ELEMENTS = 2**31
LEAST_STOPS = 3  # batches that stop just below the limit before it counts as one
PAIR_BYTES = (
    10  # of a query and a key where attention is not fused: scores in half precision, their cast, the softmax in single
)
FREEDOM = 4.0  # degrees of freedom of the scatter: some models are off by far more than the others
SCATTERS = np.geomspace(0.03, 0.6, 40)  # in the log, that are tried
FIRST = 0.2  # where ``r`` of a batch that nobody tried to exceed begins, and the scatter
ROUNDS = 2
MOST_RATIO = 6.0  # in the log: no feature tells more of how small a part is
SOME_FEATURES = 0.4  # that each split of the forest looks at
LEAST_MODELS = 10


def ladder(most: int) -> np.ndarray:
    """Batch sizes up to ``most`` that are tried as a rule: the powers of two and halfway between them."""
    powers = 2 ** np.arange(int(np.log2(most)) + 1)
    rungs = np.union1d(powers, powers[1:] * 3 // 2)
    return np.asarray(rungs[rungs <= most])


def demands(frame: pd.DataFrame, graphs: Graphs) -> pd.DataFrame:
    """What each row of a store's frame needs, from its operators and its counted tensors: nothing of its own batch size matters.

    Parameters
    ----------
    frame : DataFrame
        With ``runtime`` and ``framework`` (:func:`labbench.prediction.predictor.with_framework`) and what names its operators.
    graphs : Graphs
        Whose table has ``COUNTED``, in bytes of a sample and, with ``_fixed``, besides: ``peak_bytes``, the most bytes of tensors
        that live at one time, weights among them; ``peak_copies_bytes``, the same with copies that convolutions make.

    Returns
    -------
    DataFrame
        ``each`` and ``fixed`` in bytes, ``indexed``: elements of a sample's largest tensor of a depthwise convolution; the other
        columns tell workloads alike.

    Raises
    ------
    PredictionError
        If the tensors were not counted, or the operators of a row are not known.
    """
    import pandas as pd

    counted = graphs.whole(frame, COUNTED)
    operators = graphs.at(frame.assign(batch_size=REFERENCE_BATCH))
    row, count = operators["row"].to_numpy(), operators["count"].to_numpy(float)
    size = {name: operators[name].to_numpy(float) for name in ("m", "n", "groups", "flops", *TRAFFIC)}
    moved = sum((size[name] for name in TRAFFIC), np.zeros(len(row))) * count
    kind = operators["kind"].to_numpy(str)

    def largest(values: np.ndarray, chosen: np.ndarray | None = None) -> np.ndarray:
        out = np.zeros(len(frame))
        rows = slice(None) if chosen is None else chosen
        np.maximum.at(out, row[rows], values[rows])
        return out

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(row, values, len(frame))

    each, fixed, copies = (counted[name].to_numpy(float) for name in COUNTED)
    each = np.maximum(each, 1.0)
    outputs = size["m"] * size["n"] * size["groups"]
    elements = outputs * np.maximum(size["read_bytes"] / np.maximum(size["written_bytes"], 1.0), 1.0)
    traffic, flops, kernels = total(moved), total(size["flops"] * count), total(count)
    whole = each * REFERENCE_BATCH

    def beside(values: np.ndarray) -> np.ndarray:
        return np.maximum(np.log(np.maximum(values, 1.0) / whole), -MOST_RATIO)

    described = {
        "each": each,
        "fixed": fixed,
        "indexed": largest(elements, kind == INDEXED) / REFERENCE_BATCH,
        "copies": np.log(np.maximum(copies, each) / each),
        "largest output": beside(largest(size["written_bytes"])),
        "pairs": beside(largest(PAIR_BYTES * outputs, kind == "attention")),
        "elements indexed": beside(largest(elements, kind == INDEXED)),
        "fixed share": np.log((fixed + 1e6) / each),
        "log each": np.log(each),
        "passes": np.log(traffic / whole + 1e-3),
        "intensity": np.log((flops + 1.0) / (traffic + 1.0)),
        "kernels": np.log(kernels + 1.0),
        "age": np.array([framework_age(name) for name in frame["framework"].astype("str")]),
        "fuses": fuses(frame).astype(float),
        "channels last": frame["runtime"].astype("str").str.endswith("-nhwc").to_numpy(float),
    }
    shares = {f"share {name}": total(moved * (kind == name)) / np.maximum(traffic, 1.0) for name in np.unique(kind)}
    return pd.DataFrame(described | shares, index=frame.index)


@dataclass(frozen=True)
class BatchLimits:
    """Fitted: workloads and memory in, the distribution of the largest batch out.

    Attributes
    ----------
    graphs : Graphs
    features : tuple of str
        Columns of :func:`demands` that the forest sees.
    forest : regressor
        Of ``r``.
    scatter : float
        Scale of ``r`` about the forest's, in the log.
    stops : frozenset of (str, str)
        Runtime and framework whose depthwise convolutions refuse 2**31 elements.
    """

    graphs: Graphs = field(repr=False)
    features: tuple[str, ...] = field(repr=False)
    forest: Any = field(repr=False)
    scatter: float
    stops: frozenset[tuple[str, str]]

    @classmethod
    def fit(
        cls, frame: pd.DataFrame, memory_bytes: np.ndarray, graphs: Graphs, config: PredictionConfig | None = None
    ) -> BatchLimits:
        """Learn from batches that ran.

        Parameters
        ----------
        frame : DataFrame
            One row for each search of a largest batch: what :func:`demands` asks for, ``group`` (what a new workload shares with
            none of them, e.g. its family), ``batch_size``, the largest that ran, and ``fails_at``, the smallest that did not, NaN
            where none was tried.
        memory_bytes : array, shape (n,)
            Of each row's device.
        graphs : Graphs
        config : PredictionConfig, optional

        Raises
        ------
        PredictionError
            If there is too little to learn from, or operators are not known.
        """
        config = config or PredictionConfig()
        failed = frame[frame["fails_at"].notna()]
        if failed["model"].nunique() < LEAST_MODELS:
            raise PredictionError(
                f"the largest batch is known of {failed['model'].nunique()} models, {LEAST_MODELS} are needed: "
                "a batch that ran tells little unless a larger one failed"
            )
        needs = demands(frame, graphs)
        ran, fails_at = frame["batch_size"].to_numpy(float), frame["fails_at"].to_numpy(float, na_value=np.nan)
        most = MOST_ELEMENTS / np.maximum(needs["indexed"].to_numpy(), 1e-9)
        stops = _stops(frame, ran, fails_at, most)
        fails_at = np.where(_stopped(frame, stops) & (fails_at > most), np.nan, fails_at)
        room = _room(needs, memory_bytes)
        low, high = np.where(np.isnan(fails_at), -np.inf, room - np.log(fails_at)), room - np.log(ran)
        features = tuple(name for name in needs if name not in ("each", "fixed", "indexed"))
        seen = needs[list(features)].to_numpy(np.float32)
        folds = list(folds_by_group(frame["group"].to_numpy(str), config.inner_folds, config.seed))
        filled = np.where(np.isnan(fails_at), np.minimum(FIRST, high), (np.maximum(low, -1e9) + high) / 2)
        unseen, scatter = np.zeros(len(frame)), FIRST
        for _ in range(ROUNDS):
            for train, test in folds:
                forest = grown(seen[train], filled[train], config.seed, some=SOME_FEATURES)
                unseen[test] = foretold(forest, seen[test])
            scatter = _most_likely_scatter(unseen, low, high)
            filled = _expected(unseen, scatter, low, high)
        return cls(graphs, features, grown(seen, filled, config.seed, some=SOME_FEATURES), scatter, stops)

    def predict(self, frame: pd.DataFrame, memory_bytes: np.ndarray | float, level: float = 0.9) -> pd.DataFrame:
        """The largest batch of each row.

        Parameters
        ----------
        frame : DataFrame
            See :func:`demands`.
        memory_bytes : array, shape (n,), or float
            Of the device.
        level : float
            Of the interval, and of the bound.

        Returns
        -------
        DataFrame
            ``batch_size``: as probably too small as too large; ``low``, ``high``: hold it with probability ``level``; ``safe``:
            fits with probability ``level``; 0 where not even one sample does; ``limited_by``: ``memory`` or ``32-bit indexing``.
        """
        import pandas as pd
        from scipy.stats import t

        spread = t(FREEDOM)
        room, r, most = self._distribution(frame, memory_bytes)

        def batch(quantile: float) -> np.ndarray:
            return np.asarray(np.floor(np.exp(np.minimum(room - r + spread.ppf(quantile) * self.scatter, most))), int)

        return pd.DataFrame(
            {
                "batch_size": batch(0.5),
                "low": batch((1 - level) / 2),
                "high": batch((1 + level) / 2),
                "safe": batch(1 - level),
                "limited_by": np.where(room - r > most, "32-bit indexing", "memory"),
            },
            index=frame.index,
        )

    def rungs(
        self, frame: pd.DataFrame, memory_bytes: np.ndarray | float, tried: Sequence[int] | np.ndarray
    ) -> np.ndarray:
        """Probability that each of the batch sizes tried, in ascending order, is the largest of them that fits, shape (n, rungs).

        What is left to one is the probability that none does.
        """
        from scipy.stats import t

        room, r, most = self._distribution(frame, memory_bytes)
        tried = np.log(np.asarray(tried, float))
        fits = t(FREEDOM).cdf(((room - r)[:, None] - tried) / self.scatter) * (tried <= most[:, None])
        return np.asarray(fits - np.hstack([fits[:, 1:], np.zeros((len(fits), 1))]))

    def _distribution(
        self, frame: pd.DataFrame, memory_bytes: np.ndarray | float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """In the log: the batch were ``r`` zero, ``r``, and the batch at which indices end."""
        needs = demands(frame, self.graphs)
        seen = needs.reindex(columns=list(self.features), fill_value=0.0).to_numpy(np.float32)
        most = np.log(MOST_ELEMENTS / np.maximum(needs["indexed"].to_numpy(), 1e-9))
        r = foretold(self.forest, seen) if len(seen) else np.zeros(0)
        return _room(needs, memory_bytes), r, np.where(_stopped(frame, self.stops), most, np.inf)


def _room(needs: pd.DataFrame, memory_bytes: np.ndarray | float) -> np.ndarray:
    """Log of how many samples would fit if tensors took what they were counted to take."""
    left = memory_bytes - CONTEXT_BYTES - needs["fixed"].to_numpy()
    return np.asarray(np.log(np.maximum(left, 1.0) / needs["each"].to_numpy()))


def _places(frame: pd.DataFrame) -> list[tuple[str, str]]:
    return list(zip(frame["runtime"].astype("str"), frame["framework"].astype("str"), strict=True))


def _stops(frame: pd.DataFrame, ran: np.ndarray, fails_at: np.ndarray, most: np.ndarray) -> frozenset[tuple[str, str]]:
    """Runtimes and frameworks that end at the limit of indices: several batches stopped just there, none went beyond."""
    import pandas as pd

    told = pd.DataFrame({"place": _places(frame), "beyond": ran > most, "stopped": (ran <= most) & (fails_at > most)})
    counts = told.groupby("place")[["beyond", "stopped"]].sum()
    return frozenset(counts.index[(counts["beyond"] == 0) & (counts["stopped"] >= LEAST_STOPS)])


def _stopped(frame: pd.DataFrame, stops: frozenset[tuple[str, str]]) -> np.ndarray:
    return np.array([place in stops for place in _places(frame)], bool)


def _most_likely_scatter(centre: np.ndarray, low: np.ndarray, high: np.ndarray) -> float:
    from scipy.stats import t

    spread = t(FREEDOM)
    likelihood = [
        np.log(np.maximum(spread.cdf((high - centre) / one) - spread.cdf((low - centre) / one), 1e-12)).sum()
        for one in SCATTERS
    ]
    return float(SCATTERS[int(np.argmax(likelihood))])


def _expected(centre: np.ndarray, scatter: float, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Expectation of a normal variable that is known to lie between ``low`` and ``high``."""
    from scipy.stats import norm

    a, b = (low - centre) / scatter, (high - centre) / scatter
    inside = norm.cdf(b) - norm.cdf(a)
    mean = centre + scatter * (norm.pdf(a) - norm.pdf(b)) / np.maximum(inside, 1e-12)
    return np.clip(mean, low, high)
