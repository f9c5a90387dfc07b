"""Takes requests in, hands them to backends, and sees that each accepted one is answered: a state machine without a clock.

::

    arrive ── too many open? ──> refused
      │
      └──> policy ──> queue of a backend ──> running ──> answered
             ^             │                    │
             └── the backend failed: again, elsewhere ┘      no answer by the deadline: expired

Whoever drives it (:mod:`labbench.switching.drive`) says what happened and when, and carries out what it wants sent. So the same
code decides in a simulation and live.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field

from labbench.cells import Frozen
from labbench.switching.breaker import Breaker
from labbench.switching.policies import Policy

Outcome = Literal["answered", "expired", "refused"]


class Settings(Frozen):
    """How a dispatcher behaves, whatever its policy."""

    limit_s: float = Field(2.0, gt=0, description="an accepted request is to be answered within this time")
    capacity: int | None = Field(
        None, ge=1, description="open requests; one more is refused before it is accepted. null: as many as the slowest "
        "backend alone would answer in time, so that what is accepted is answered even if only that one is left",
    )  # fmt: skip
    patience: float = Field(10.0, gt=1, description="an attempt that takes so many times the usual has failed")
    least_patience_s: float = Field(0.25, gt=0, description="but never before this time")
    failures: int = Field(3, ge=1, description="failed attempts in a row that open a backend's circuit breaker")
    open_s: float = Field(0.5, gt=0, description="how long it stays open before one probe is let through")
    check_s: float = Field(
        1.0, gt=0, description="a backend without work for so long gets a probe: is it there, and how fast?"
    )
    smoothing: float = Field(0.2, gt=0, le=1, description="weight of the newest service time in the smoothed one")


FULL = 0.5  # of the limit is what a full queue takes the slowest backend: it may be slower than it was, and some come again


@dataclass(eq=False)
class Request:
    """One request, and what came of it. Times are seconds of the run's clock."""

    number: int
    arrived_s: float
    seen_s: float
    outcome: Outcome | None = None
    backend: str | None = None
    begun_s: float = math.nan
    finished_s: float = math.nan
    attempts: int = 0


@dataclass(eq=False)
class Attempt:
    """One call of a backend: for a request, or a probe (``request`` is None)."""

    backend: str
    begun_s: float
    request: Request | None = None
    ended_s: float = math.nan
    ended: Literal["answered", "abandoned", "died"] | None = None
    inside_s: float = math.nan


@dataclass(eq=False)
class Backend:
    """What the dispatcher knows of a backend, which does one call at a time.

    Attributes
    ----------
    place : int
        In the order of preference.
    smoothed_s : float
        Exponentially smoothed service time, seconds.
    alive : bool
        Whether its process is there.
    """

    name: str
    place: int
    smoothed_s: float
    breaker: Breaker
    alive: bool = True
    waiting: deque[Request] = field(default_factory=deque)
    running: Attempt | None = None
    last_answer_s: float = 0.0

    @property
    def load(self) -> int:
        """Requests waiting or running."""
        return len(self.waiting) + (self.running is not None)

    @property
    def stuck(self) -> bool:
        """Whether it still works on a call that was given up."""
        return self.running is not None and self.running.ended == "abandoned"

    @property
    def healthy(self) -> bool:
        """Whether a client's request may be sent to it."""
        return self.alive and self.breaker.closed and not self.stuck

    def queue(self, request: Request) -> None:
        """Let a request wait here: in order of arrival, so that one that comes from elsewhere goes before younger ones."""
        self.waiting.append(request)
        if len(self.waiting) > 1 and self.waiting[-2].number > request.number:
            self.waiting = deque(sorted(self.waiting, key=lambda one: one.number))

    def service_s(self, now: float) -> float:
        """The smoothed service time, or that of the call that runs if this has taken longer already."""
        return max(self.smoothed_s, now - self.running.begun_s) if self.running else self.smoothed_s

    def expected_finish_s(self, now: float) -> float:
        """Seconds until one more request would be done."""
        return (self.load + 1) * self.service_s(now)


class Dispatcher:
    """Decides for one run.

    Parameters
    ----------
    service_s : mapping
        Name of each backend, in order of preference, to the service time expected at first, in seconds.
    policy : Policy
    settings : Settings
    """

    def __init__(self, service_s: Mapping[str, float], policy: Policy, settings: Settings | None = None) -> None:
        self.policy, self.settings = policy, settings or Settings()
        self.backends = {
            name: Backend(name, place, usual_s, Breaker(self.settings.failures, self.settings.open_s))
            for place, (name, usual_s) in enumerate(service_s.items())
        }
        fitting = int(FULL * self.settings.limit_s / max(service_s.values()))
        self.capacity = self.settings.capacity or max(fitting, 1)
        self.requests: list[Request] = []
        self.attempts: list[Attempt] = []
        self.log: list[tuple[float, str, str]] = []  # when, backend, what
        self._open: dict[int, Request] = {}  # accepted and not finished, oldest first
        self._parked: deque[Request] = deque()  # accepted while no backend was healthy
        self._outgoing: list[Attempt] = []

    # ---------------------------------------------------------------- what happens

    def arrive(self, now: float, arrived_s: float) -> Request:
        """A request that came at ``arrived_s`` is looked at: accepted, or refused."""
        request = Request(len(self.requests), arrived_s, seen_s=now)
        self.requests.append(request)
        if len(self._open) >= self.capacity:
            request.outcome, request.finished_s = "refused", now
        else:
            self._open[request.number] = request
            self._place(request, now)
        return request

    def answered(self, now: float, name: str, inside_s: float = math.nan) -> None:
        """The call that a backend had is done; it took ``inside_s`` there, if that is known."""
        backend = self.backends[name]
        attempt, backend.running = backend.running, None
        if attempt is None:
            raise ValueError(f"{name} answered, but nothing was asked of it")
        backend.last_answer_s = attempt.ended_s = now
        if attempt.ended is None:  # else it was given up: an answer so late is no sign of health
            attempt.ended, attempt.inside_s = "answered", inside_s
            backend.smoothed_s += self.settings.smoothing * (now - attempt.begun_s - backend.smoothed_s)
            if backend.breaker.succeeded():
                self.log.append((now, name, "closed"))
        if attempt.request is not None:
            self._finish(attempt.request, "answered", now, attempt)
        self._next(backend, now)
        self._unpark(now)

    def died(self, now: float, name: str) -> None:
        """A backend's process has ended: what it had goes elsewhere."""
        backend = self.backends[name]
        attempt, backend.running, backend.alive = backend.running, None, False
        self.log.append((now, name, "died"))
        if backend.breaker.failed(now, fatal=True):
            self.log.append((now, name, "opened"))
        if attempt is not None:
            waited_for = attempt.ended is None
            attempt.ended_s, attempt.ended = now, "died"
            if attempt.request is not None and waited_for:
                self._place(attempt.request, now)
        self._move(backend, now)

    def started(self, now: float, name: str) -> None:
        """A new process of a backend is ready; a probe has to be answered before it gets requests."""
        backend = self.backends[name]
        backend.alive = True
        self.log.append((now, name, "started"))
        backend.breaker.half_open()
        self._send(backend, None, now)

    def tick(self, now: float) -> None:
        """Whatever is due by time alone: deadlines, attempts that take too long, breakers, health checks."""
        for request in list(self._due(now)):
            self._finish(request, "expired", now, None)
        for backend in self.backends.values():
            running = backend.running
            if running is not None and running.ended is None and now >= self._patience_ends_s(backend, running):
                self._give_up(backend, running, now)
            if backend.alive and backend.running is None:
                if now >= backend.breaker.retry_at_s:
                    backend.breaker.half_open()
                    self._send(backend, None, now)
                elif backend.breaker.closed and now >= backend.last_answer_s + self.settings.check_s:
                    self._send(backend, None, now)

    def next_timer_s(self) -> float:
        """When :meth:`tick` is to be called at the latest."""
        oldest = next(iter(self._open.values()), None)
        times = [] if oldest is None else [oldest.arrived_s + self.settings.limit_s]
        for backend in self.backends.values():
            if backend.running is not None and backend.running.ended is None:
                times.append(self._patience_ends_s(backend, backend.running))
            if backend.alive and backend.running is None:
                times.append(backend.breaker.retry_at_s)
                if backend.breaker.closed:
                    times.append(backend.last_answer_s + self.settings.check_s)
        return min(times, default=math.inf)

    @property
    def idle(self) -> bool:
        """Whether every accepted request is finished."""
        return not self._open

    def outgoing(self) -> list[Attempt]:
        """Calls to be made now; each is handed out once."""
        calls, self._outgoing = self._outgoing, []
        return calls

    # ---------------------------------------------------------------- steps

    def _place(self, request: Request, now: float) -> None:
        """Let the policy choose among the healthy; without any, keep the request until there is one."""
        if request.outcome is not None:
            return
        healthy = [one for one in self.backends.values() if one.healthy]
        if not healthy:
            self._parked.append(request)
            return
        backend = self.policy.choose(healthy, now)
        backend.queue(request)
        self._next(backend, now)

    def _next(self, backend: Backend, now: float) -> None:
        """Send the request that waits longest, if the backend is free."""
        while backend.healthy and backend.running is None and backend.waiting:
            request = backend.waiting.popleft()
            if request.outcome is None:
                self._send(backend, request, now)

    def _send(self, backend: Backend, request: Request | None, now: float) -> None:
        attempt = Attempt(backend.name, now, request)
        if request is not None:
            request.attempts += 1
        backend.running = attempt
        self.attempts.append(attempt)
        self._outgoing.append(attempt)

    def _finish(self, request: Request, outcome: Outcome, now: float, attempt: Attempt | None) -> None:
        """Settle a request, once: of two answers the first counts."""
        if self._open.pop(request.number, None) is None:
            return
        request.outcome, request.finished_s = outcome, now
        if attempt is not None:
            request.backend, request.begun_s = attempt.backend, attempt.begun_s

    def _give_up(self, backend: Backend, attempt: Attempt, now: float) -> None:
        """Wait no longer for an answer: the request is tried elsewhere, as are those behind it."""
        attempt.ended = "abandoned"
        if backend.breaker.failed(now):
            self.log.append((now, backend.name, "opened"))
        if attempt.request is not None:
            self._place(attempt.request, now)
        self._move(backend, now)

    def _move(self, backend: Backend, now: float) -> None:
        """Take what waits for a backend elsewhere."""
        waiting, backend.waiting = backend.waiting, deque()
        for request in waiting:
            self._place(request, now)

    def _unpark(self, now: float) -> None:
        if self._parked and any(one.healthy for one in self.backends.values()):
            parked, self._parked = self._parked, deque()
            for request in parked:
                self._place(request, now)

    def _patience_ends_s(self, backend: Backend, attempt: Attempt) -> float:
        return attempt.begun_s + max(self.settings.least_patience_s, self.settings.patience * backend.smoothed_s)

    def _due(self, now: float) -> Iterator[Request]:
        """Open requests whose time is up; all have the same limit, so the oldest come first."""
        for request in self._open.values():
            if now < request.arrived_s + self.settings.limit_s:
                return
            yield request
