"""A circuit breaker: stops sending work to a backend that fails, and tries it again later with one probe.

::

    closed ── failures in a row, or its process ended ──> open ── wait_s ──> half-open ── probe answered ──> closed
                                                            ^                    │
                                                            └── probe failed ────┘  (waits twice as long, up to a limit)

Nygard, *Release It!*, 2nd edition (2018), chapter 5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["closed", "open", "half-open"]

LONGEST_WAIT = 16  # times the first wait: a backend that stays down is still asked now and then


@dataclass
class Breaker:
    """The breaker of one backend. Times are those of the run's clock, in seconds.

    Attributes
    ----------
    failures : int
        So many in a row open it.
    wait_s : float
        How long it stays open the first time.
    """

    failures: int = 3
    wait_s: float = 1.0
    state: State = "closed"
    in_a_row: int = 0
    retry_at_s: float = float("inf")
    waits: int = 1

    @property
    def closed(self) -> bool:
        """Whether clients' requests may go through."""
        return self.state == "closed"

    def succeeded(self) -> bool:
        """An answer came; true if this closed the breaker."""
        reopened = not self.closed
        self.state, self.in_a_row, self.waits, self.retry_at_s = "closed", 0, 1, float("inf")
        return reopened

    def failed(self, now: float, *, fatal: bool = False) -> bool:
        """A call failed, or (``fatal``) the process ended; true if this opened the breaker from closed."""
        self.in_a_row += 1
        was_closed = self.closed
        if was_closed and not fatal and self.in_a_row < self.failures:
            return False
        if self.state == "half-open":
            self.waits = min(2 * self.waits, LONGEST_WAIT)
        self.state, self.retry_at_s = "open", now + self.waits * self.wait_s
        return was_closed

    def half_open(self) -> None:
        """Let one probe through: the wait is over, or a new process is there."""
        self.state, self.retry_at_s = "half-open", float("inf")
