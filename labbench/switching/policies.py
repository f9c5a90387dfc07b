"""Which of the backends a request goes to. The same objects decide in the simulation and live."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar

from labbench.config import unknown_name

if TYPE_CHECKING:
    from labbench.switching.dispatcher import Backend

HYSTERESIS = 0.1  # an advantage below a tenth is within the scatter of service times: not worth a switch


class Policy(ABC):
    """Decides for one run; may keep state, so each run gets a new one."""

    name: ClassVar[str]

    @abstractmethod
    def choose(self, backends: Sequence[Backend], now: float) -> Backend:
        """One of the backends, which are in order of preference, all of them healthy, and at least one."""


class Static(Policy):
    """The first that is healthy: what a selection without a dispatcher amounts to, with its fallback chain."""

    name = "static"

    def choose(self, backends: Sequence[Backend], now: float) -> Backend:
        """The first."""
        return backends[0]


class RoundRobin(Policy):
    """Each in turn."""

    name = "round-robin"

    def __init__(self) -> None:
        self._last = -1

    def choose(self, backends: Sequence[Backend], now: float) -> Backend:
        """The next after the one chosen last, in the order of preference, and the first again after the last."""
        chosen = next((one for one in backends if one.place > self._last), backends[0])
        self._last = chosen.place
        return chosen


class ShortestQueue(RoundRobin):
    """The one with the fewest requests, running or waiting; in turn among equals, as nginx's ``least_conn``."""

    name = "join-shortest-queue"

    def choose(self, backends: Sequence[Backend], now: float) -> Backend:
        """The shortest."""
        least = min(one.load for one in backends)
        return super().choose([one for one in backends if one.load == least], now)


class PowerOfTwo(Policy):
    """The shorter queue of two drawn at random: Mitzenmacher, *The power of two choices*, IEEE TPDS 12 (2001)."""

    name = "power-of-two"

    def __init__(self) -> None:
        self._random = random.Random(0)

    def choose(self, backends: Sequence[Backend], now: float) -> Backend:
        """The shorter of the two."""
        return min(self._random.sample(backends, min(2, len(backends))), key=lambda one: one.load)


class ExpectedFinish(Policy):
    """The one that is expected to be done first: (requests there + 1) times its smoothed service time.

    It stays with the one chosen last until another is better by ``hysteresis``, so that scatter of service times does not send
    requests to and fro.
    """

    name = "expected-finish"

    def __init__(self, hysteresis: float = HYSTERESIS) -> None:
        self.hysteresis = hysteresis
        self._last: str | None = None

    def choose(self, backends: Sequence[Backend], now: float) -> Backend:
        """The best, or the last one if that is nearly as good."""
        best = min(backends, key=lambda one: one.expected_finish_s(now))
        last = next((one for one in backends if one.name == self._last), best)
        if last.expected_finish_s(now) <= (1 + self.hysteresis) * best.expected_finish_s(now):
            best = last
        self._last = best.name
        return best


POLICIES: dict[str, Callable[[], Policy]] = {
    kind.name: kind for kind in (Static, RoundRobin, ShortestQueue, PowerOfTwo, ExpectedFinish)
}
COMPARED = (Static.name, RoundRobin.name, ShortestQueue.name, ExpectedFinish.name)  # of two, power-of-two takes both


def make_policy(name: str) -> Policy:
    """A new policy by name; raises ConfigError for an unknown one, naming the nearest known one."""
    if name not in POLICIES:
        raise unknown_name("policy", name, POLICIES)
    return POLICIES[name]()
