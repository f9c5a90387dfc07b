"""The largest model and the shortest hop that keep up, with nothing else running and with cores kept busy.

::

    model ── a look with long hops ──> how long it computes ──> a first hop ── full runs, a rung up or down ──> shortest
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from labbench.records import Record
from labbench.web.live import LOADED, Live

RUNGS_S = (0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0)  # hops that are tried
LOOK_S = 5.0  # of audio, at the longest hop, to see how long a hop computes
ROOM = 0.8  # of a hop is what a first guess lets the model compute

Run = Callable[[Live], Record]


@dataclass
class Search:
    """What was found of one model.

    Attributes
    ----------
    wish : Live
        What was asked for; its hop is the shortest that keeps up.
    hop_s : float or None
        The shortest hop that keeps up; None: none does.
    runs : list of Record
        Full runs, in the order taken.
    reason : str or None
        Why there is none.
    """

    wish: Live
    hop_s: float | None = None
    runs: list[Record] = field(default_factory=list)
    reason: str | None = None

    def __str__(self) -> str:
        what = f"{self.wish.model} on {self.wish.browser}/{self.wish.provider}{LOADED[self.wish.load]}"
        if self.hop_s is None:
            return f"{what}: no hop keeps up ({self.reason})"
        return f"{what}: keeps up with hops of {1e3 * self.hop_s:g} ms"


def keeps_up(record: Record) -> bool:
    """Whether a run is ok and dropped nothing."""
    return record.status == "ok" and record.metrics["keeps_up"] == 1


def shortest_hop(wish: Live, run: Run, rungs: Sequence[float] = RUNGS_S) -> Search:
    """Find the shortest hop of a ladder with which a model keeps up.

    Parameters
    ----------
    wish : Live
        Its seconds are those of a full run; its hop does not matter.
    run : callable
        Makes a record of a wish.
    rungs : sequence of float
        Hops, seconds, ascending.
    """
    found = Search(wish)
    look = run(wish.model_copy(update={"hop_s": rungs[-1], "seconds": max(LOOK_S, FEWEST * rungs[-1])}))
    if look.status != "ok":
        found.reason = look.reason
        return found
    computes_s = look.metrics["inference_mean_s"]
    at = next((i for i, hop in enumerate(rungs) if computes_s <= ROOM * hop), len(rungs) - 1)
    while True:
        record = run(wish.model_copy(update={"hop_s": rungs[at]}))
        found.runs.append(record)
        if keeps_up(record):
            found.hop_s, found.wish = rungs[at], wish.model_copy(update={"hop_s": rungs[at]})
            if at == 0 or (len(found.runs) > 1 and not keeps_up(found.runs[-2])):
                return found
            at -= 1
        elif found.hop_s is not None:
            return found
        elif at == len(rungs) - 1:
            dropped = record.metrics.get("dropped_s", 0.0)
            found.reason = (
                record.reason or f"{dropped:.3g} s of {wish.seconds:g} s were dropped with hops of {rungs[at]:g} s"
            )
            return found
        else:
            at += 1


FEWEST = 8  # hops of the first look: a record wants six whole ones


def largest(searches: Iterable[Search], size: Callable[[str], int]) -> Search | None:
    """The search whose model is the largest by ``size`` of those that keep up with some hop; None: none does."""
    fine = [one for one in searches if one.hop_s is not None]
    return max(fine, key=lambda one: size(one.wish.model), default=None)
