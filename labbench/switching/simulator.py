"""A discrete-event simulation of backends: service times drawn from measured ones, and a clock that jumps."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Sequence

import numpy as np

from labbench.switching.disturbances import Disturbance
from labbench.switching.drive import Happened
from labbench.switching.options import SOON_S, Option

NEAREST = 15  # calls around a moment: enough for their scatter, few enough for the speed that the machine had then


class SimulatedWorld:
    """Backends that exist only as samples of their service times.

    A slowed backend takes ``factor`` times as long, the rest of a call that runs included. A killed one comes back after its
    cold start. A call that follows another one at once takes ``Option.queued_factor`` times as long as others. Each backend draws
    from its own stream, so that two policies meet the same service times in the same order.

    Parameters
    ----------
    options : sequence of Option
    seed : int
    """

    def __init__(self, options: Sequence[Option], seed: int = 0) -> None:
        self._options = {option.name: option for option in options}
        self._random = {option.name: np.random.default_rng([seed, place]) for place, option in enumerate(options)}
        self._factor = dict.fromkeys(self._options, 1.0)
        self._queued = {option.name: option.queued_factor for option in options}
        self._ended_s = dict.fromkeys(self._options, -math.inf)
        self._alive = set(self._options)
        self._ends_s: dict[str, tuple[float, int]] = {}  # of the call that each runs: when, and the event's number
        self._events: list[tuple[float, int, Happened]] = []
        self._numbers = itertools.count()
        self._now = 0.0

    def now(self) -> float:
        """Simulated seconds."""
        return self._now

    def cpu_s(self) -> float:
        """Not a number: nobody was served."""
        return math.nan

    def wait(self, until_s: float) -> list[Happened]:
        """Jump to the next event."""
        while self._events and self._events[0][0] <= until_s:
            when, number, event = heapq.heappop(self._events)
            if event.what == "answered":
                if self._ends_s.get(event.backend) != (when, number):
                    continue  # the call was put off, or died with its backend
                del self._ends_s[event.backend]
                self._ended_s[event.backend] = when
            elif event.what == "started":
                self._alive.add(event.backend)
            self._now = when
            return [event]
        if math.isinf(until_s):
            raise RuntimeError("nothing is left to happen in the simulation, yet requests are open")
        self._now = max(self._now, until_s)
        return []

    def call(self, backend: str) -> None:
        """Draw a service time; a call of a backend that has just been killed comes to nothing."""
        if backend not in self._alive:
            return
        option = self._options[backend]
        first, count = 0, len(option.samples_s)
        if option.at_s is not None and count > NEAREST:
            first = int(np.clip(np.searchsorted(option.at_s, self._now) - NEAREST // 2, 0, count - NEAREST))
            count = NEAREST
        drawn = first + self._random[backend].integers(count)
        seconds = option.samples_s[drawn] * self._factor[backend]
        if option.queued is not None and option.queued[drawn]:
            seconds /= self._queued[backend]
        if self._now - self._ended_s[backend] < SOON_S:
            seconds *= self._queued[backend]
        self._answer(backend, self._now + float(seconds))

    def disturb(self, disturbance: Disturbance) -> None:
        """Slow a backend, or kill it."""
        name = disturbance.backend
        if disturbance.factor is None:
            if name not in self._alive:
                return
            self._alive.remove(name)
            self._ends_s.pop(name, None)
            self._push(self._now, Happened(name, "died"))
            self._push(self._now + self._options[name].cold_start_s, Happened(name, "started"))
            return
        change, self._factor[name] = disturbance.factor / self._factor[name], disturbance.factor
        if name in self._ends_s:
            self._answer(name, self._now + change * (self._ends_s[name][0] - self._now))

    def _answer(self, backend: str, when: float) -> None:
        self._ends_s[backend] = (when, self._push(when, Happened(backend, "answered")))

    def _push(self, when: float, event: Happened) -> int:
        number = next(self._numbers)
        heapq.heappush(self._events, (when, number, event))
        return number
