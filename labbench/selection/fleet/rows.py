"""Rows of a linear program, put together in groups."""

from __future__ import annotations

from typing import Any

import numpy as np


class Rows:
    """``low <= A x <= high`` with a sparse ``A`` of so many columns."""

    def __init__(self, width: int) -> None:
        self.width, self.height = width, 0
        self.parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self.low: list[np.ndarray] = []
        self.high: list[np.ndarray] = []

    def add(self, height: int, parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]], low: Any, high: Any) -> None:
        """Append so many rows: parts of (row, column, value), rows counted from 0."""
        self.parts += [(row + self.height, column, value) for row, column, value in parts]
        self.low.append(np.broadcast_to(np.asarray(low, float), (height,)))
        self.high.append(np.broadcast_to(np.asarray(high, float), (height,)))
        self.height += height

    def matrix(self) -> tuple[Any, np.ndarray, np.ndarray]:
        """``A``, ``low``, ``high``."""
        from scipy.sparse import csr_array

        row, column, value = (np.concatenate(items) for items in zip(*self.parts, strict=True))
        table = csr_array((value, (row, column)), shape=(self.height, self.width))
        return table, np.concatenate(self.low), np.concatenate(self.high)
