"""Latency and memory of cells that nobody measured, with intervals, and refusals where there is no ground to answer.

A fitted roofline (:mod:`labbench.prediction.law`), or where operators are known a price for each
(:mod:`labbench.prediction.operator_law`), carries the prediction, trees correct it as far as they proved themselves out of fold
(:mod:`labbench.prediction.residual`), and conformal intervals count families, not rows (:mod:`labbench.prediction.conformal`).
:func:`evaluate` says how well all this does beside plain baselines, on what it has not seen
(:mod:`~labbench.prediction.splits`), behind a guard against leaks (:mod:`~labbench.prediction.leaks`). A fitted predictor is kept
with a model card (:mod:`~labbench.prediction.card`) and held against what is measured later
(:mod:`~labbench.prediction.drift`).
"""

from __future__ import annotations

from labbench.prediction.cells import candidates, missing, predict_cells, with_threads
from labbench.prediction.config import PredictionConfig, PredictionError
from labbench.prediction.evaluate import choice_regret, cross_validate, evaluate, score
from labbench.prediction.graphs import Graphs
from labbench.prediction.largest_batch import largest_batches, memory_of
from labbench.prediction.predictor import Predictor
from labbench.prediction.tracing import ZooGraphs

__all__ = [
    "Graphs",
    "PredictionConfig",
    "PredictionError",
    "Predictor",
    "ZooGraphs",
    "candidates",
    "choice_regret",
    "cross_validate",
    "evaluate",
    "largest_batches",
    "memory_of",
    "missing",
    "predict_cells",
    "score",
    "with_threads",
]
