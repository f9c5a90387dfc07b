"""Steady state seen from outside: the page takes blocks of calls, here is decided when it is warm and when there are enough.

::

    page      |wwwww|wwwww|..|rrrr|      |rrrr|
    native                        |rrrr| |rrrr| ..   the order within a round alternates
               warm-up         round 0   round 1

The rules are those of every other cell (:mod:`labbench.measure`), but for two things. A block is long enough for a step of the
page's clock to be at most 1 % of it. And warm-up lasts half a second at least: JavaScript engines run WebAssembly at once, and
meanwhile compile it a second time, better.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from labbench.measure.sampling import Sampling, by_round
from labbench.measure.steady import MAX_BLOCK, NS, WARM_WINDOW, settled

if TYPE_CHECKING:
    from labbench.measure.noise import Evidence, NoiseProbe

CLOCK_SHARE = 0.01  # of a block: a step of the clock is at most this
MARGIN = 1.5  # and so much less when a block is set: calls were seen to become a tenth faster after that
WARM_MIN_S = 0.5

Take: TypeAlias = Callable[[int, float, int], list[float]]  # (calls in a block, seconds, room) -> seconds of one call


@dataclass
class Stream:
    """One thing whose calls are timed: how samples of it are taken, and those taken.

    Attributes
    ----------
    take : callable
        Takes samples; an untimed call goes first.
    step_s : float
        Step of the clock that it is timed with.
    warm_min_s : float
        Warm-up lasts so long at least.
    """

    take: Take
    step_s: float
    sampling: Sampling
    warm_min_s: float = WARM_MIN_S
    calls_per_sample: int = 1
    warmup_calls: int = 0
    warmed: bool = False

    def warm_up(self) -> None:
        """Call until two neighbouring windows of blocks agree, and set the block length."""
        protocol, times, began = self.sampling.protocol, [], time.monotonic()
        while True:
            window = self.take(self.calls_per_sample, protocol.warmup_max_s, WARM_WINDOW)
            self.warmup_calls += 1 + self.calls_per_sample * len(window)
            times += [max(value, self.step_s / self.calls_per_sample, NS) for value in window]  # the clock sees no less
            self.calls_per_sample = self._block(min(times))  # the fastest: a busy machine is quiet again later
            passed = time.monotonic() - began
            enough = passed >= self.warm_min_s and self.warmup_calls >= protocol.warmup_min_calls
            self.warmed = enough and settled(times)
            if self.warmed or passed >= max(protocol.warmup_max_s, self.warm_min_s):
                return

    def _block(self, call_s: float) -> int:
        return min(max(1, math.ceil(MARGIN * self.step_s / CLOCK_SHARE / call_s)), MAX_BLOCK)

    def round(self, index: int) -> None:
        """Take the samples of one round."""
        values = self.take(self.calls_per_sample, self.sampling.protocol.round_s, max(self.sampling.room, 1))
        self.sampling.add(index, values, self.calls_per_sample)


def sample(one: Stream, beside: Stream | None, probe: NoiseProbe) -> Evidence:
    """Warm up, then take rounds of both in turn until the first has enough; what else the machine did meanwhile."""
    both = [one, beside] if beside else [one]
    for each in both:
        each.warm_up()
    evidence, index = None, 0
    while one.sampling.room:
        probe.start()
        for each in both if index % 2 == 0 else reversed(both):
            each.round(index)
        found = probe.stop()
        evidence = found if evidence is None else evidence + found
        index += 1
    assert evidence is not None
    return evidence


def ratios(one: Sampling, beside: Sampling) -> dict[int, float]:
    """How many times as long a call of the first took, by round: both met the same machine."""
    first, second = by_round(one.rounds, one.seconds), by_round(beside.rounds, beside.seconds)
    return {index: first[index] / second[index] for index in first if index in second}
