"""What profiles tell a law of operators: beside the time of a call that of its parts, each a class of operators or several.

The time of a whole call says little about what each of its operators takes; its parts say more. Where a runtime joins classes, so
that its profiler cannot tell them apart, they are one part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from labbench.analysis.bottlenecks import CLASSES, of_classes
from labbench.operators import OTHER
from labbench.prediction.graphs import BACKWARD
from labbench.runtimes.profiling import FUSED

if TYPE_CHECKING:
    import pandas as pd

PROFILE = "profile_"  # what columns of a store's frame begin with that a profile fills
WALL = f"{PROFILE}wall_s"
LEAST = 0.02  # of a call: where a part is less, that it is little is all that counts
OF_KIND = {  # class of the kinds of operators that are finer
    **dict.fromkeys(("pointwise", "convolution", "patch", "depthwise", "grouped", "transposed"), "convolution"),
    **dict.fromkeys(("linear", "bmm"), "matmul"),
    **dict.fromkeys(("batch_norm", "layer_norm", "group_norm"), "normalization"),
    **dict.fromkeys(("transpose", "slice"), "copy"),
    "resample": "pooling",
}
ARITHMETIC = ("activation", "reduction", OTHER)
JOINED: Mapping[str, tuple[tuple[str, ...], ...]] = {  # by runtime: classes that its profiler does not tell apart
    "eager": (),
    "onnxruntime": (("matmul", "attention", "softmax"), ARITHMETIC, ("copy", "embedding")),
    "openvino": (("attention", "softmax", FUSED, *ARITHMETIC), ("copy", "embedding")),
}


def class_of(kind: str) -> int:
    """Place in :data:`labbench.analysis.bottlenecks.CLASSES` of the class of a kind of operators."""
    forward = kind.removesuffix(BACKWARD)
    name = OF_KIND.get(forward, forward)
    return CLASSES.index(name if name in CLASSES else OTHER)


@dataclass(frozen=True)
class Profiles:
    """Of some cells.

    Attributes
    ----------
    seconds : array, shape (cells, classes)
        Of each part, at the place of its first class; missing where there is no such part or no profile.
    part : array of int, shape (cells, classes)
        Place of the part that each class belongs to.
    """

    seconds: np.ndarray
    part: np.ndarray

    @classmethod
    def of(cls, frame: pd.DataFrame) -> Profiles:
        """Of a frame's rows, as far as they were profiled on a CPU.

        A profiled call is slower than others, so that its parts are taken for shares of the time that was measured.
        """
        seconds = np.full((len(frame), len(CLASSES)), np.nan)
        part = np.tile(np.arange(len(CLASSES)), (len(frame), 1))
        if not {WALL, "latency_s"} <= set(frame):
            return cls(seconds, part)
        wall = frame[WALL].to_numpy(float, na_value=np.nan)
        slower = np.maximum(wall / frame["latency_s"].to_numpy(float, na_value=np.nan), 1.0)
        taken = of_classes(frame, f"{PROFILE}s") / slower[:, None]
        runtime = frame["runtime"].astype("str").to_numpy(object)
        told = np.isfinite(wall) & (frame["device"].astype("str") == "cpu").to_numpy()
        for name, joined in JOINED.items():
            rows = np.flatnonzero(told & (runtime == name))
            first = {one: classes[0] for classes in joined for one in classes}
            places = [CLASSES.index(first.get(one, one)) for one in CLASSES]
            part[rows] = places
            seconds[rows] = taken[rows] @ np.eye(len(CLASSES))[places]
        return cls(seconds, part)

    @property
    def none(self) -> bool:
        """Whether no cell was profiled."""
        return not np.isfinite(self.seconds).any()

    def take(self, rows: np.ndarray) -> Profiles:
        """Of some of the cells."""
        return Profiles(self.seconds[rows], self.part[rows])

    def parts(self, cell: np.ndarray, label: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which part each contribution belongs to, and what each part took.

        Parameters
        ----------
        cell, label : array of int, shape (contributions,)
            Of each contribution, and its class; -1 where it has none.
        target : array, shape (cells,)
            Seconds of a call.

        Returns
        -------
        array of int, shape (contributions,)
            -1 where it belongs to none that was profiled.
        array, shape (parts,)
            Seconds.
        """
        place = np.where(label >= 0, self.part[cell, label], -1)
        known = (place >= 0) & np.isfinite(self.seconds[cell, place])
        each, number = np.unique(cell[known] * len(CLASSES) + place[known], return_inverse=True)
        of_cell, of_part = np.divmod(each, len(CLASSES))
        out = np.full(len(cell), -1)
        out[known] = number
        return out, np.maximum(self.seconds[of_cell, of_part], LEAST * target[of_cell])
