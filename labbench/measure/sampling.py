"""The stopping rule of a :class:`~labbench.measure.protocol.Protocol`, applied to one series of one process."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from labbench.measure import stats
from labbench.measure.protocol import Protocol
from labbench.records import Series

CHECK_GROWTH = 1.1  # the stopping rule is looked at again when a tenth more was sampled: it costs milliseconds


@dataclass
class Sampling:
    """Samples of one series so far, and whether the protocol wants more.

    Attributes
    ----------
    seconds : list of float
        Of one call, a sample each.
    rounds : list of int
        The round that took it.
    spent_s : float
        Time spent in samples.
    converged : bool
        Whether the interval of the median is as narrow as the protocol wants it.
    """

    protocol: Protocol
    seconds: list[float] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)
    spent_s: float = 0.0
    converged: bool = False
    _check_at_s: float = 0.0

    @property
    def full(self) -> bool:
        """Whether there are as many samples as may be kept."""
        return len(self.seconds) >= self.protocol.max_samples

    @property
    def room(self) -> int:
        """How many more samples may be taken; 0: none are wanted."""
        done = self.converged or self.full or self.spent_s >= self.protocol.max_time_s
        return 0 if done else self.protocol.max_samples - len(self.seconds)

    def add(self, index: int, values: list[float], calls_per_sample: int) -> None:
        """Keep a round's samples, and see whether the stopping rule holds now."""
        protocol = self.protocol
        self.seconds += values
        self.rounds += [index] * len(values)
        self.spent_s += sum(values) * calls_per_sample
        enough = len(self.seconds) >= protocol.min_samples and self.spent_s >= protocol.min_time_s
        last = self.spent_s >= protocol.max_time_s or self.full
        if enough and (last or self.spent_s >= self._check_at_s):
            self.converged = stats.median_half_width(self.seconds, self.rounds) <= protocol.target_ci
            self._check_at_s = CHECK_GROWTH * self.spent_s


def sampled_series(name: str, processes: Sequence[Sampling], **told: Any) -> Series:
    """The series that all processes of a cell give together; ``told`` goes to :func:`labbench.measure.stats.series`."""
    converged = all(one.converged for one in processes)
    return stats.series(
        name,
        [value for one in processes for value in one.seconds],
        [p for p, one in enumerate(processes) for _ in one.seconds],
        [index for one in processes for index in one.rounds],
        stop_reason="converged"
        if converged
        else "max_samples"
        if any(one.full for one in processes)
        else "time_budget",
        **told,
    )


def by_round(rounds: list[int], seconds: list[float]) -> dict[int, float]:
    """Median time of the samples of each round."""
    taken: dict[int, list[float]] = {}
    for index, value in zip(rounds, seconds, strict=True):
        taken.setdefault(index, []).append(value)
    return {index: statistics.median(values) for index, values in taken.items()}
