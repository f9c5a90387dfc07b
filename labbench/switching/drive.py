"""One loop for both worlds: what happens goes to the dispatcher, what it wants sent goes to the backends."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from typing import Literal, NamedTuple, Protocol

from labbench.switching.arrivals import Arrivals
from labbench.switching.dispatcher import Dispatcher
from labbench.switching.disturbances import Disturbance


class Happened(NamedTuple):
    """What a backend did; ``inside_s``: the seconds that a call took there, where that is known."""

    backend: str
    what: Literal["answered", "died", "started"]
    inside_s: float = math.nan


class World(Protocol):
    """Where backends run: in a simulation, or in processes of this machine."""

    def now(self) -> float:
        """Seconds since the run began."""

    def cpu_s(self) -> float:
        """Processor time that generating and dispatching took since then; NaN where nothing is really done."""

    def wait(self, until_s: float) -> list[Happened]:
        """What happened next, or nothing if nothing did until then."""

    def call(self, backend: str) -> None:
        """Let a backend run once; it is not busy."""

    def disturb(self, disturbance: Disturbance) -> None:
        """Make it happen."""


def drive(dispatcher: Dispatcher, world: World, arrivals: Arrivals, disturbances: Iterable[Disturbance] = ()) -> None:
    """Offer a trace to a dispatcher, until each request is refused, answered or expired.

    A request counts from the moment at which the trace has it, however late it is looked at.
    """
    coming, troubles = deque(arrivals.times_s.tolist()), deque(disturbances)
    while coming or not dispatcher.idle:
        next_request = coming[0] if coming else math.inf
        next_trouble = troubles[0].at_s if troubles else math.inf
        for event in world.wait(min(next_request, next_trouble, dispatcher.next_timer_s())):
            if event.what == "answered":
                dispatcher.answered(world.now(), event.backend, event.inside_s)
            elif event.what == "died":
                dispatcher.died(world.now(), event.backend)
            else:
                dispatcher.started(world.now(), event.backend)
        now = world.now()
        while troubles and troubles[0].at_s <= now:
            world.disturb(troubles.popleft())
        while coming and coming[0] <= now:
            dispatcher.arrive(now, coming.popleft())
        dispatcher.tick(now)
        for attempt in dispatcher.outgoing():
            world.call(attempt.backend)
