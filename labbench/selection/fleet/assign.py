"""Assign workloads to a fleet: the best plan or a good one, or why there is none."""

from __future__ import annotations

from time import perf_counter
from typing import Literal

from labbench.selection.fleet.conflicts import Infeasible, explain
from labbench.selection.fleet.exact import Solved
from labbench.selection.fleet.exact import solve as solve_exactly
from labbench.selection.fleet.fast import solve as solve_fast
from labbench.selection.fleet.plan import Assignment, placed
from labbench.selection.fleet.problem import Fleet
from labbench.selection.fleet.program import Numbers
from labbench.selection.fleet.relaxation import SMALL

EXACT_S, FAST_S = 60.0, 10.0


def assign(
    fleet: Fleet, how: Literal["auto", "exact", "fast"] = "auto", *, seconds: float | None = None, seed: int = 0
) -> Assignment:
    """Put every demand on devices of the fleet at the least cost.

    Parameters
    ----------
    how : str
        ``exact``: the best plan (:mod:`.exact`), begun from a good one; ``fast``: a good one (:mod:`.fast`); ``auto``: exact up to
        a thousand options. Either tells how far from the best it may be (``Assignment.gap``).
    seconds : float, optional
        After which it returns the best that it has found: 60 for the exact way if not told, 10 for the fast one.

    Raises
    ------
    Infeasible
        If there is no plan: names the requirements that contradict each other, and what would have to give.
    """
    start = perf_counter()
    exact = how == "exact" or (how == "auto" and len(fleet.claims.option) <= SMALL)
    if seconds is None:
        seconds = EXACT_S if exact else FAST_S
    found = Solved(None, 0.0) if _stranded(fleet) else solve_fast(fleet, seconds, seed=seed, polish=not exact)
    if exact and not _stranded(fleet):
        left = max(seconds - (perf_counter() - start), 1.0)
        found = solve_exactly(Numbers.of(fleet), left, found.loads, bound=found.bound)
    if found.loads is None:
        raise Infeasible(explain(fleet))
    return Assignment(
        fleet, placed(fleet, found.loads), found.bound, "exact" if exact else "fast", perf_counter() - start
    )


def _stranded(fleet: Fleet) -> bool:
    """Whether some demand has no option at all."""
    return len(set(fleet.claims.demand.tolist())) < len(fleet.demands)
