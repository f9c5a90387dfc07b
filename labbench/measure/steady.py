r"""Steady state, inside the worker: calibrate the block, warm up, take rounds of samples.

::

    calls   ....   |bbbb|bbbb|bbbb|         |bbbb|bbbb|...
            warm-up \____ round 0 ____/      \__ round 1 ...
                     each |bbbb| is one sample: a block of back-to-back calls, timed as one

The block is as long as it takes for the timer's own cost to be at most ``timer_overhead`` of it. Between the rounds other
cells have their turn, so every round begins with an untimed call that brings caches back.
"""

from __future__ import annotations

import contextlib
import gc
import math
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import perf_counter_ns
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from labbench.measure.protocol import Protocol
    from labbench.runtimes.base import Prepared

NS = 1e-9
WARM_WINDOW = 5  # calls compared with the WARM_WINDOW calls before them
WARM_CHANGE = 0.05  # warm when the median of a window is within 5 % of the one before it
YOUNG = 1  # generations collected before a round: what the last one left; all would take as long as a short round
MAX_BLOCK = 1_000_000  # calls; a callable that costs nothing measurable is still timed in finite blocks


def time_block(call: Callable[[], object], synchronize: Callable[[], None], calls: int) -> float:
    """Mean seconds of one call in a block of ``calls``, with the device idle at both ends."""
    synchronize()
    start = perf_counter_ns()
    for _ in range(calls):
        call()
    synchronize()
    return (perf_counter_ns() - start) * NS / calls


def timer_cost_s(synchronize: Callable[[], None], repeats: int = 500) -> float:
    """Seconds that timing a block costs with nothing in it, the wait for an idle device included: median, at least 1 ns."""
    costs = [time_block(nothing, synchronize, 1) for _ in range(repeats)]
    return max(statistics.median(costs), NS)


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    """No garbage is collected while a round runs; what the last one left is collected before."""
    gc.collect(YOUNG)
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def nothing() -> None:
    """A call that does nothing."""


@dataclass
class Steady:
    """The steady state of one series.

    Attributes
    ----------
    calls_per_sample : int
        Block length, set by :meth:`warm_up`.
    warmup_calls : int
        Untimed calls before the first sample.
    warmed : bool
        Whether the warm-up rule was met before its budget ended.
    """

    prepared: Prepared
    protocol: Protocol
    calls_per_sample: int = 0
    warmup_calls: int = 0
    warmed: bool = False

    def warm_up(self) -> None:
        """Call until two neighbouring windows of calls agree, then set the block length."""
        times: list[float] = []
        deadline = perf_counter_ns() + self.protocol.warmup_max_s / NS
        while not self.warmed and (perf_counter_ns() < deadline or len(times) < self.protocol.warmup_min_calls):
            times.append(time_block(self.prepared, self.prepared.synchronize, 1))
            self.warmed = len(times) >= self.protocol.warmup_min_calls and settled(times)
        self.warmup_calls += len(times)
        shortest_block = timer_cost_s(self.prepared.synchronize) / self.protocol.timer_overhead
        call_s = statistics.median(times[-WARM_WINDOW:])
        self.calls_per_sample = min(max(1, math.ceil(shortest_block / max(call_s, NS))), MAX_BLOCK)

    def round(self, room: int) -> list[float]:
        """Samples of one round, in seconds per call; at least one, at most ``room``."""
        with no_collection():
            if not self.calls_per_sample:
                self.warm_up()
            else:
                self.prepared()
            samples: list[float] = []
            deadline = perf_counter_ns() + self.protocol.round_s / NS
            while len(samples) < room and (not samples or perf_counter_ns() < deadline):
                samples.append(time_block(self.prepared, self.prepared.synchronize, self.calls_per_sample))
            return samples


def settled(times: list[float]) -> bool:
    """Whether the last window of calls is no faster than the one before it, within WARM_CHANGE."""
    if len(times) < 2 * WARM_WINDOW:
        return False
    before = statistics.median(times[-2 * WARM_WINDOW : -WARM_WINDOW])
    return abs(statistics.median(times[-WARM_WINDOW:]) / before - 1) <= WARM_CHANGE
