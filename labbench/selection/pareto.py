"""Options that nothing beats in every respect."""

from __future__ import annotations

import numpy as np


def non_dominated(values: np.ndarray) -> np.ndarray:
    """Which rows no other row equals or beats in every column and beats in one; less is better.

    Parameters
    ----------
    values : array, shape (n, m)
        What is missing (NaN) counts as the worst; a column in which everything is missing does not count.

    Returns
    -------
    array of bool, shape (n,)
    """
    known = np.where(np.isnan(values), np.inf, values)[:, ~np.isnan(values).all(axis=0)]
    kept = np.ones(len(known), bool)
    for row, one in enumerate(known):
        kept[row] = not np.any((known <= one).all(axis=1) & (known < one).any(axis=1))
    return kept
