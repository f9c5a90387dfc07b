"""How much of a device a workload must hold so that its calls return in time, although they arrive at random.

A replica holds a guaranteed *share* of its device: a slice, pinned cores, or a fair scheduler with a grain much finer than a
call. With a share ``f`` a call takes ``1 / f`` as long as alone, whatever the neighbours do, and the replica is a queue of its
own: Poisson arrivals, one call at a time, first come first served (M/G/1).

* A call that must wait waits ``e / (1 - busy)`` in the mean, with ``e = service (1 + scv) / 2`` the rest of the call before it
  (Pollaczek-Khinchine; Kleinrock, *Queueing Systems* I, 1975, section 5.6).
* That wait is taken as exponential: exact for exponential calls, the heavy-traffic limit for any other (Kingman, 1961). At most a
  fraction ``1 - p`` waits longer than ``ln(1 / (1 - p))`` such means; that some calls need not wait at all is left out, on the
  safe side.
* What is limited is that wait plus the percentile of the call itself, on the safe side again.

So a limit ``L`` needs ``tail / f + ln(1 / (1 - p)) (e / f) / (1 - busy) <= L``. Solved for the load it is concave in the share;
its chord between no load and the whole device is below it everywhere, and makes it linear: a *floor* that each replica holds
whatever comes, and a *slope* of load for each further share.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Claim:
    """The share of a device that a replica must hold: ``floor + load / slope``.

    Attributes
    ----------
    floor : float
        Share for no load at all; above the share that may be dealt out the limit cannot be met.
    slope : float
        Load (fraction of the time that the whole device would compute) for each further share, above 0 and at most 1.
    """

    floor: float
    slope: float

    def load(self, share: float) -> float:
        """The most load that a share carries."""
        return max(share - self.floor, 0.0) * self.slope


FREE = Claim(0.0, 1.0)  # no limit: a queue below saturation


def claim(
    service_s: float, limit_s: float | None, *, percentile: int = 99, tail_s: float | None = None, scv: float = 0.0,
    most: float = 1.0,
) -> Claim:  # fmt: skip
    """What a replica must hold to answer within a limit.

    Parameters
    ----------
    service_s : float
        Mean time of a call that has the device alone.
    limit_s : float or None
        The most that a request may take, waiting included, at ``percentile``; ``None`` for no limit.
    tail_s : float, optional
        That percentile of a call that has the device alone (default: the mean).
    scv : float
        Squared coefficient of variation of a call: 0 where all take as long, 1 where exponential.
    most : float
        Share of a device that may be dealt out.
    """
    if limit_s is None:
        return FREE
    tail_s = service_s if tail_s is None else tail_s
    wait_s = math.log(100 / (100 - percentile)) * service_s * (1 + scv) / 2
    floor = (tail_s + wait_s) / limit_s
    if floor >= most:
        return Claim(floor, 1.0)
    carried = most - most * wait_s / (most * limit_s - tail_s)
    return Claim(floor, carried / (most - floor))
