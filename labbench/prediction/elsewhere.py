"""A quantity where a configuration has no law of its own: what other devices tell of it, and a few cells measured there.

::

    law of configurations like it ── at this device's ceilings ──> prediction
    log(measured / that law) of other devices' cells ── Gaussian process ──> shift, interval
                                         cells measured there (probes) ──┘

:mod:`labbench.prediction.adaptation` has the process; here are the levels at which cells of a store are alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from labbench.prediction.adaptation import Adaptation, Traits, graph_features
from labbench.prediction.features import kind_of
from labbench.prediction.law import rows_of, shares

if TYPE_CHECKING:
    import pandas as pd

    from labbench.prediction.quantity import Features

LEARNT = 2000  # cells of a kind of device that the process learns from: seconds
DEPARTING = ("device", "settings")
# From here on, in the log, a device's ceilings are no guide (a factor of 4.5, three times the widest departure): its probes are.
FAR_OFF = 1.5
AT_A_TIME = 2000  # cells: what is held for them, and for others of their graphs, stays within some hundred megabytes
SETTINGS = ("runtime", "precision", "mode", "series")
SIZES = ("image_size", "seq_len", "frames", "audio_s")


@dataclass(frozen=True)
class Cells:
    """What the process is told of some cells.

    Attributes
    ----------
    graph : array of str, shape (n,)
        Architecture and size of input.
    statistics : array, shape (n, q)
        Of the graph.
    parts : array, shape (n, p)
        Of the law of configurations like theirs; their sum is what it says.
    levels : mapping of str to array of str, shape (n,)
        See :func:`levels`.
    """

    graph: np.ndarray
    statistics: np.ndarray
    parts: np.ndarray
    levels: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, frame: pd.DataFrame, table: np.ndarray, parts: np.ndarray, features: Features) -> Cells:
        """Of prepared rows; ``table`` is what the features make of them."""
        graph = _text(frame, "architecture", *SIZES).to_numpy(str)
        return cls(graph, table[:, : table.shape[1] - len(features.names)], parts, levels(frame))

    def __len__(self) -> int:
        return len(self.graph)

    @property
    def law(self) -> np.ndarray:
        """What the law says, shape (n,)."""
        return np.asarray(self.parts.sum(axis=1))

    def take(self, rows: np.ndarray) -> Cells:
        """Some of them."""
        of = {name: labels[rows] for name, labels in self.levels.items()}
        return Cells(self.graph[rows], self.statistics[rows], self.parts[rows], of)

    def traits(self, reference: np.ndarray | None = None) -> Traits:
        """As the process sees them; ``reference``: statistics that set the scale, default: theirs."""
        of_parts = shares(self.parts)
        return Traits(self.graph, graph_features(self.statistics, of_parts, reference), of_parts, self.levels)


def levels(frame: pd.DataFrame) -> dict[str, np.ndarray]:
    """Labels of a frame's cells, coarse to fine, by what their configurations may have in common."""
    kind, device = kind_of(frame), _text(frame, "machine_id", "device")
    settings = kind + " " + _text(frame, *SETTINGS)
    version = settings + " " + _text(frame, "framework") if "framework" in frame else settings
    configuration = _text(frame, "machine_id", "platform") + " " + version
    found = {"kind": kind, "device": device, "settings": settings, "version": version, "configuration": configuration}
    return {name: labels.to_numpy(str) for name, labels in found.items()}


@dataclass(frozen=True)
class Elsewhere:
    """What is left over of the law for configurations like those asked about, learnt for each kind of device apart.

    Attributes
    ----------
    learnt, probes : tuple of (Cells, array)
        Cells of configurations that carry a law, and of those that have too few, each with ``log(measured / law)``.
    shift : mapping of str to float
        Of devices whose probes say that their ceilings are no guide: what was taken off that.
    """

    learnt: tuple[Cells, np.ndarray]
    probes: tuple[Cells, np.ndarray]
    shift: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    _processes: dict[bytes, Adaptation] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, learnt: Cells, measured: np.ndarray, probes: Cells, probed: np.ndarray, seed: int = 0) -> Elsewhere:
        """From cells and what was measured of them; nothing is fitted before something is asked."""
        left_over, device = np.log(probed / probes.law), probes.levels["device"]
        medians = {str(name): float(np.median(left_over[device == name])) for name in np.unique(device)}
        shift = {name: value for name, value in medians.items() if abs(value) > FAR_OFF}
        probed = left_over - _shift(shift, device)
        return cls((learnt, np.log(measured / learnt.law)), (probes, probed), shift, seed)

    def answers(self, frame: pd.DataFrame) -> np.ndarray:
        """Of which rows the kind of device was measured."""
        return kind_of(frame).isin(np.unique(self.learnt[0].levels["kind"])).to_numpy()

    def traits(self, cells: Cells) -> Traits:
        """As the process sees them, on the scale of what it learnt from."""
        return cells.traits(self.learnt[0].statistics)

    def process(self, kind: str, settings: str) -> tuple[Adaptation, tuple[Traits, np.ndarray]]:
        """Of a kind of device without probes, fitted when it is first asked for, and the cells that it did not learn from.

        Of more than ``LEARNT`` cells it learns first from those with the settings that are asked about.
        """
        cells, rng = self.learnt[0], np.random.default_rng(self.seed)
        here, like = cells.levels["kind"] == kind, cells.levels["settings"] == settings
        first, then = np.flatnonzero(here & like), np.flatnonzero(here & ~like)
        of_kind = np.concatenate([some[_each_in_turn(cells.graph[some], rng)] for some in (first, then)])
        rows = np.sort(of_kind[:LEARNT])
        if rows.tobytes() not in self._processes:
            told, left_over = self._some(self.learnt, rows)
            self._processes[rows.tobytes()] = Adaptation.fit(told, left_over, DEPARTING, seed=self.seed)
        return self._processes[rows.tobytes()], self._some(self.learnt, of_kind[LEARNT:])

    def predict(self, cells: Cells, levels: Sequence[float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of each cell the expected ``log(measured / law)``, half-widths of its intervals, and how many probes its device had.

        Their shapes are (n,), (n, levels) and (n,).
        """
        device, kinds = cells.levels["device"], self.probes[0].levels["kind"]
        mean, reach = np.zeros(len(cells)), np.zeros((len(cells), len(levels)))
        named = zip(cells.levels["kind"].tolist(), cells.levels["settings"].tolist(), strict=True)
        for (kind, settings), rows_there in rows_of(named).items():
            model, others = self.process(kind, settings)
            model = model.learn(*self._some(self.probes, np.flatnonzero(kinds == kind)))
            there = np.array(rows_there)[np.argsort(cells.graph[rows_there], kind="stable")]
            for rows in np.split(there, range(AT_A_TIME, len(there), AT_A_TIME)):
                found = model.predict(self.traits(cells.take(rows)), others)
                mean[rows], reach[rows] = found.mean, np.column_stack([found.reach(level) for level in levels])
        names, counts = np.unique(self.probes[0].levels["device"], return_counts=True)
        probes = dict(zip(names.tolist(), counts.tolist(), strict=True))
        return mean + _shift(self.shift, device), reach, np.array([probes.get(name, 0) for name in device.tolist()])

    def _some(self, cells: tuple[Cells, np.ndarray], rows: np.ndarray) -> tuple[Traits, np.ndarray]:
        return self.traits(cells[0].take(rows)), cells[1][rows]


def _text(frame: pd.DataFrame, *names: str) -> pd.Series:
    columns = [frame[name].astype("str").fillna("") for name in names if name in frame]  # else what lacks one is alike
    return columns[0].str.cat(columns[1:], sep=" ") if len(columns) > 1 else columns[0]


def _shift(of: Mapping[str, float], device: np.ndarray) -> np.ndarray:
    return np.array([of.get(name, 0.0) for name in device.tolist()])


def _each_in_turn(names: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rows in random order, but first one of each name, then a second one of each, and so on."""
    rows = rng.permutation(len(names))
    seen: dict[str, int] = {}
    turn = np.zeros(len(rows), int)
    for place, name in enumerate(names[rows].tolist()):
        turn[place] = seen.get(name, 0)
        seen[name] = turn[place] + 1
    return np.asarray(rows[np.argsort(turn, kind="stable")])
