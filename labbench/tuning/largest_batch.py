"""The largest batch that fits into memory, from few probes: each one a worker with a limit, which may die without harm.

Memory is taken as ``c + a · T(b)``: ``T(b)`` is the counted peak of tensors at batch size ``b`` (:mod:`labbench.live`, which needs
no memory), and ``c`` and ``a`` are what the runtime adds, learnt from the probes. The first probe takes about half of the limit,
the second one what is then predicted to be the largest if ``a`` is 1. If that one dies, which tells only that ``a`` is larger, the
third one leaves room for it. Two that fitted tell ``a``; the rest close in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from labbench.measure.protocol import Protocol, preset

if TYPE_CHECKING:
    import pandas as pd

    from labbench.cells import Cell

MOST_PROBES = 5
TOLERANCE = 0.05  # of the largest batch: close enough
FIRST_SHARE = 0.5  # of the limit that the first probe is to take: far enough from both ends to learn from
SAFE_SHARE = 0.985  # of the limit that is aimed at: memory differs by about a per cent from process to process
CAUTION = 1.3  # how much more memory than known so far each byte of tensors may take
LARGEST = 2**20  # samples; a model whose batches are free is not searched further


@dataclass(frozen=True)
class Probe:
    """A batch size that was tried.

    Attributes
    ----------
    bytes : int or None
        Peak above the empty process; None if it did not get that far.
    fits : bool
    reason : str or None
        Why it did not.
    """

    batch_size: int
    bytes: int | None
    fits: bool
    reason: str | None = None


@dataclass(frozen=True)
class LargestBatch:
    """What was found.

    Attributes
    ----------
    batch_size : int
        The largest one that a probe has shown to fit; 0 if not even one sample did.
    fails_at : int or None
        The smallest one that a probe has shown not to fit.
    predicted : int
        The largest that is predicted to fit, from all probes.
    probes : tuple of Probe
        In the order they were made.
    """

    cell: Cell
    limit_bytes: int
    batch_size: int
    fails_at: int | None
    predicted: int
    probes: tuple[Probe, ...] = field(repr=False)

    def __str__(self) -> str:
        limit = f"{self.limit_bytes / 1e6:,.0f} MB"
        if not self.batch_size:
            return f"{self.cell.label}: not even one sample fits into {limit} ({self.probes[-1].reason})"
        end = f"{self.fails_at} does not" if self.fails_at else f"{self.predicted} is predicted to be the largest"
        return f"{self.cell.label}: a batch of {self.batch_size} fits into {limit}, {end} ({len(self.probes)} probes)"


def largest_batch(
    cell: Cell,
    limit_bytes: int,
    *,
    most_probes: int = MOST_PROBES,
    tolerance: float = TOLERANCE,
    protocol: Protocol | None = None,
    probe: Callable[[Cell, int, Protocol], Probe] | None = None,
    counted: Callable[[Cell], float] | None = None,
) -> LargestBatch:
    """The largest batch size of a cell whose peak memory above an empty process stays within a limit.

    Parameters
    ----------
    cell : Cell
        Its own batch size does not matter.
    limit_bytes : int
        For parameters, gradients, optimizer state, activations and what the runtime takes.
    most_probes : int
        Workers at most.
    tolerance : float
        How far below the predicted largest batch is close enough, as a fraction.
    probe, counted : callable, optional
        What tries a batch size, and what counts the peak of its tensors; for tests.

    Raises
    ------
    ConfigError
        For a limit that no process can keep.
    """
    from labbench.config import ConfigError

    if limit_bytes <= 0:
        raise ConfigError(f"a memory limit of {limit_bytes} bytes: give more than none")
    protocol = protocol or preset("quick")
    probe = probe or try_batch
    tensors = _Counted(cell, counted or counted_bytes)
    probes: list[Probe] = []
    batch = tensors.largest_within(FIRST_SHARE * limit_bytes) or 1
    while len(probes) < most_probes:
        probes.append(probe(with_batch(cell, batch), limit_bytes, protocol))
        predicted = _predicted(probes, tensors, limit_bytes, limit_bytes)
        best = max((one.batch_size for one in probes if one.fits), default=0)
        worst = min((one.batch_size for one in probes if not one.fits), default=None)
        if worst is not None and worst - best <= max(1, tolerance * best):
            break
        if worst is None and predicted <= best * (1 + tolerance / 2):
            break
        following = predicted
        if predicted > best * (1 + tolerance):  # a share of the limit may be a large one of the batch
            safe = _predicted(probes, tensors, SAFE_SHARE * limit_bytes, limit_bytes)
            following = max(safe, int(predicted * (1 - tolerance / 2)))
        if worst is not None and not best < following < worst:  # what was seen contradicts it: halfway between
            following = (best + worst) // 2
        if any(one.batch_size == following for one in probes):
            break
        batch = max(following, 1)
    return LargestBatch(cell, limit_bytes, best, worst, predicted, tuple(probes))


def with_batch(cell: Cell, batch_size: int) -> Cell:
    """The cell with another batch size."""
    return cell.model_copy(update={"workload": cell.workload.model_copy(update={"batch_size": batch_size})})


def batch_within(cell: Cell, limit_bytes: float) -> int:
    """The largest batch size whose tensors, counted, take at most ``limit_bytes``; 0 if not even one sample's do."""
    return _Counted(cell, counted_bytes).largest_within(limit_bytes)


def _predicted(probes: list[Probe], tensors: _Counted, aim: float, limit: float) -> int:
    """The largest batch predicted to take at most ``aim`` bytes, by what the probes have shown of ``c`` and ``a``."""
    known = [(tensors(one.batch_size), float(one.bytes)) for one in probes if one.bytes is not None]
    dead = [tensors(one.batch_size) for one in probes if one.bytes is None]
    if not known:  # nothing fitted yet: the tensors alone take more than was thought
        smallest = min(one.batch_size for one in probes)
        return tensors.largest_within(min(dead) / 2) or int(smallest > 1)
    x, y = (np.array(values, dtype=float) for values in zip(*known, strict=True))
    if len(set(x)) > 1:
        slope = min(max(float(np.polyfit(x, y, 1)[0]), 0.5), 2.0)
    else:
        least = max(((limit - y[0]) / (other - x[0]) for other in dead if other > x[0]), default=0.0)
        slope = CAUTION * least if least > 0.95 else 1.0
    nearest = int(np.argmin(np.abs(y - aim)))
    return tensors.largest_within(x[nearest] + (aim - y[nearest]) / slope)


class _Counted:
    """The counted peak of tensors by batch size; remembers."""

    def __init__(self, cell: Cell, count: Callable[[Cell], float]) -> None:
        self._cell, self._count = cell, count
        self._known: dict[int, float] = {}

    def __call__(self, batch_size: int) -> float:
        if batch_size not in self._known:
            self._known[batch_size] = self._count(with_batch(self._cell, batch_size))
        return self._known[batch_size]

    def largest_within(self, limit: float) -> int:
        """The largest batch whose tensors take at most ``limit`` bytes; 0 if not one sample's do. They grow nearly linearly."""
        low, high = 0, LARGEST
        guess = 1
        while high - low > 1:
            if self(guess) <= limit:
                low = guess
            else:
                high = guess
            guess = min(max(self._secant(limit), low + 1), high - 1)
            if guess in self._known and high - low > 1:
                guess = (low + high) // 2 if high < LARGEST else 2 * max(low, 1)
            if low and high - low <= max(1, low // 500):  # finer than memory can be predicted
                break
        return low

    def _secant(self, limit: float) -> int:
        """Where the line through the two known points nearest to the limit meets it."""
        nearest = sorted(self._known, key=lambda size: abs(self._known[size] - limit))[:2]
        if len(nearest) < 2:
            return 2 * nearest[0]
        a, b = nearest
        slope = (self._known[b] - self._known[a]) / (b - a)
        return LARGEST if slope <= 0 else int(a + (limit - self._known[a]) / slope)


def counted_bytes(cell: Cell) -> float:
    """Most bytes of tensors that live at one time in a call of the cell."""
    from labbench import footprint

    on_cpu = cell.platform.device.startswith("cpu")
    found = [one.peak_cpu_bytes if on_cpu else one.peak_bytes for one in footprint.of(cell.workload).values()]
    return max(value for value in found if value is not None)


def try_batch(cell: Cell, limit_bytes: int, protocol: Protocol) -> Probe:
    """Run a few calls of the cell in a worker that is ended when it takes more than the limit."""
    from labbench.measure.probe import peak_memory

    status, reason, used = peak_memory(cell, limit_bytes, protocol)
    size = cell.workload.batch_size
    if status == "ok" and used is not None:
        return Probe(size, used, used <= limit_bytes, None if used <= limit_bytes else "over the limit")
    return Probe(size, None, False, reason)


def probe_table(found: list[LargestBatch]) -> pd.DataFrame:
    """Every probe of every search: ``model``, ``probe``, ``batch_size``, ``bytes``, ``fits``, ``reason``, ``limit_bytes``."""
    import pandas as pd

    rows = [
        {
            "model": one.cell.workload.model,
            "probe": i + 1,
            "batch_size": probe.batch_size,
            "bytes": probe.bytes,
            "fits": probe.fits,
            "reason": probe.reason,
            "limit_bytes": one.limit_bytes,
        }
        for one in found
        for i, probe in enumerate(one.probes)
    ]
    return pd.DataFrame(rows)
