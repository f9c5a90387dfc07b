"""How good choices by prediction were, told by measurements: what they gave away, and whether declared probabilities held."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

DECLARED = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


def regret(measured: np.ndarray, predicted: np.ndarray, question: np.ndarray) -> pd.DataFrame:
    """What is given away where the option with the least predicted value is taken, not the one with the least measured value.

    Parameters
    ----------
    measured, predicted : array, shape (n,)
        Of each option what is to be small, e.g. seconds or cost of an item. An option without a prediction is not taken;
        where no option of a question has one, all of them tie.
    question : array, shape (n,)
        What the options compete for, e.g. model and size of its input.

    Returns
    -------
    DataFrame
        One row a question: ``question``, ``options`` (how many there are) and ``regret``, ``1 - best / chosen`` of the measured
        values, a share in [0, 1). Of options that tie in prediction the mean: one of them is taken blindly.
    """
    import pandas as pd

    names, member, counts = np.unique(question, return_inverse=True, return_counts=True)
    least, hoped = np.full(len(names), np.inf), np.full(len(names), np.inf)
    promised = np.where(np.isnan(predicted), np.inf, predicted)
    np.minimum.at(least, member, measured)
    np.minimum.at(hoped, member, promised)
    taken = promised == hoped[member]
    lost = np.bincount(member[taken], 1 - (least[member] / measured)[taken]) / np.bincount(member[taken])
    return pd.DataFrame({"question": names, "options": counts, "regret": lost})


def reliability(probability: np.ndarray, met: np.ndarray, declared: Sequence[float] = DECLARED) -> pd.DataFrame:
    """Whether options that are declared safe are, and how many safe ones are refused.

    Parameters
    ----------
    probability : array, shape (n,)
        That an option meets a limit, by prediction.
    met : array of bool, shape (n,)
        Whether it does.
    declared : sequence of float
        Options at least so probable are declared safe.

    Returns
    -------
    DataFrame
        One row each of ``declared``: ``options`` (how many are declared safe), ``met`` (share of these that meet the limit;
        calibrated: at least ``declared``; missing where there is none), ``refused`` (share of those that meet the limit but
        are not declared safe: what caution costs).
    """
    import pandas as pd

    met, feasible = np.asarray(met, bool), max(int(np.sum(met)), 1)
    safe = [probability >= level for level in declared]
    return pd.DataFrame(
        {
            "declared": declared,
            "options": [int(some.sum()) for some in safe],
            "met": [met[some].mean() if some.any() else np.nan for some in safe],
            "refused": [(met & ~some).sum() / feasible for some in safe],
        }
    )
