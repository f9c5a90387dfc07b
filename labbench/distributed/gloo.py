"""What gloo's rings cost, segment by segment: what :class:`~labbench.distributed.collectives_model.Collectives` calls ``gloo``.

A ring is cut into segments of at most 1 MB, at least two for each rank, and two of them are under way at a time (gloo/allreduce.cc,
gloo/allgather.cc): a rank makes room for the next one, and sends it on, when the last but one is through. A segment leaves once its
receiver has said that there is room, so that with small segments what counts is the delay, with large ones the rate.

**Between two ranks** that word waits in the same connection behind the segment that is just being sent the other way. An all-gather
sends before it says that there is room: the rank that comes later, which has the other's word already, keeps it waiting for a whole
segment. With more ranks data and words go on different connections. So a fit of two ranks as ``alpha + beta x size`` says little
about four.

All-reduce is two such rings, all-gather one with two segments for each rank; the process group's reduce-scatter is an all-reduce.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from labbench.distributed.cluster import Link

if TYPE_CHECKING:
    from collections.abc import Sequence

    from labbench.distributed.collectives_model import Measured

SEGMENT_BYTES = 1024 * 1024  # kMaxSegmentSize
UNDER_WAY = 2
RINGS = {"all_reduce": 2, "reduce_scatter": 2, "all_gather": 1}


def cut(operation: str, size: float, ranks: int) -> tuple[int, float]:
    """Segments of a rank, and bytes of each."""
    each = UNDER_WAY
    if operation != "all_gather":
        each = max(UNDER_WAY, -(-int(-(-size // SEGMENT_BYTES)) // ranks))
    return each, size / ranks / each


def seconds(operation: str, size: Any, ranks: int, link: Link, at_once: int = 1) -> Any:
    """Seconds of ``at_once`` collectives of ``size`` bytes each (a float or an array) on that link."""
    if np.ndim(size):
        return np.array([seconds(operation, one, ranks, link, at_once) for one in np.asarray(size)])
    each, piece = cut(operation, float(size), ranks)
    takes, saved = piece / link.bytes_s, link.burst_bytes / link.bytes_s
    count, window = at_once * (ranks - 1) * each, at_once * UNDER_WAY
    line = now = 0.0  # the line has sent all that it has taken; the ring began
    for _ in range(RINGS[operation]):
        through: list[float] = []
        for index in range(count):
            room = now if index < window else through[index - window]
            told = room + link.alpha_s
            if ranks == 2 and index >= window:
                told = max(told, through[-1])
            elif ranks == 2 and operation == "all_gather":
                told += takes
            line = max(line, told - saved) + takes  # what a shaper saved up while nothing was sent goes at once
            through.append(max(line, told) + link.alpha_s)
        now = through[-1]
    return now


def fit(measured: Sequence[Measured], burst_bytes: float = 0.0) -> tuple[Link, float]:
    """The one link with which all that was measured comes out best, and the mean absolute error of that in the log.

    Operations differ in their rings, not in the link. ``burst_bytes`` is known, not fitted.
    """
    from scipy.optimize import least_squares

    wanted = np.log(np.concatenate([one.seconds for one in measured]))

    def link(theta: np.ndarray) -> Link:
        return Link(float(np.exp(theta[0])), float(np.exp(theta[1])), "measured", burst_bytes)

    def error(theta: np.ndarray) -> np.ndarray:
        own = link(theta)
        told = [seconds(one.operation, one.size_bytes, one.ranks, own, one.at_once) for one in measured]
        return np.asarray(np.log(np.concatenate(told)) - wanted)

    def rate(one: Measured) -> float:
        share = RINGS[one.operation] * (one.ranks - 1) / one.ranks * one.at_once
        return float(share * one.size_bytes[-1] / one.seconds[-1])

    fastest, shortest = max(rate(one) for one in measured), min(float(one.seconds[0]) for one in measured)
    starts = [np.log([share * shortest, fastest]) for share in (0.01, 0.1, 0.3)]
    found = min((least_squares(error, start, diff_step=1e-4) for start in starts), key=lambda one: one.cost)
    return link(found.x), float(np.abs(error(found.x)).mean())
