"""The best plan, by mixed-integer programming (HiGHS through SciPy).

Devices of a kind are the same, and a formulation that tells them apart has as many equal solutions as they have orders. So a kind
is one *block*: an integer number of devices ``y``, an integer number of replicas ``n`` of each option, and the load ``x`` that
these carry together::

    minimise    sum price y  (+ energy of the loads)
    each demand sum rate x >= requests a second,   sum n >= replicas asked for
    each block  sum memory n <= y,   sum floor n + x / slope <= y,   y <= count,   x <= most n
    each demand in each block        sum n <= y

*Relaxed* is which device a replica is on: memory and shares need only fit the devices of a kind together. (Dual feasible functions
of Fekete and Schepers, 2001, add what no packing can do, e.g. two replicas of more than half of a device's memory on one.) So its
optimum bounds every plan. Then the replicas of each kind are *packed* on single devices. Where that fails, the kind is split into
blocks of one device each, for which nothing is relaxed, and everything is solved again. When all kinds are packed the plan is
realisable and costs what the bound says: it is the best, gap 0. When time ends before that, the plan is the best that was found.

Where all values are multiples of a *step*, what is asked first is whether there is a plan that costs what the bound says, then one
that costs a step more, then up to three, seven steps: each soon answered, where one question for all that is better than the known
plan may take very long.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

import numpy as np

from labbench.selection.fleet.packing import packed
from labbench.selection.fleet.program import CLOSE, INFEASIBLE, Blocks, Loads, Numbers, program, step_of, up


@dataclass(frozen=True)
class Solved:
    """What came of the program: loads on devices (``None``: none was found), and the bound; infinite if there is no plan."""

    loads: Loads | None
    bound: float


def solve(
    numbers: Numbers, seconds: float, known: Loads | None = None, *, bound: float | None = None, gap: float = 0.0
) -> Solved:
    """The best plan, or the best that was found in so many seconds, and the bound.

    Parameters
    ----------
    known : loads, optional
        A plan: only better ones are looked for.
    bound : float, optional
        One that is known to hold.
    gap : float
        Relative to the value: how close is close enough.
    """
    claims, end, step = numbers.claims, perf_counter() + seconds, step_of(numbers)
    if not numbers.counts[claims.kind].any():
        return Solved(None, np.inf)
    if bound is None:
        first = program(numbers, Blocks.of(claims, numbers.counts, set()), seconds / 2, whole=False, gap=gap)
        if first.status == INFEASIBLE:
            return Solved(None, np.inf)
        bound = up(first.mip_dual_bound or 0.0, step)
    best, split, reach = known, set[int](), 0
    while (left := end - perf_counter()) > 0:
        value = np.inf if best is None else numbers.value(best)
        if value <= bound * (1 + max(gap, CLOSE)):
            break
        blocks = Blocks.of(claims, numbers.counts, split)
        cutoff = below = np.inf if best is None else value - max(step * (1 - CLOSE), CLOSE * value)
        if best is not None and step and not gap:
            cutoff = min(below, bound + (reach + 0.5) * step)
        found = program(numbers, blocks, left if cutoff == below else left / 2, cutoff=cutoff, gap=gap)
        if found.status == INFEASIBLE and cutoff == below:
            return Solved(best, value)
        bound = max(bound, up(cutoff if found.status == INFEASIBLE else found.mip_dual_bound or 0.0, step))
        if found.x is None:
            if cutoff == below:
                break
            reach = 2 * reach + 1
            continue
        loads, failed = packed(numbers, blocks, found.x, end)
        if not failed:
            best = loads
        elif failed <= split:
            break
        elif not split:
            reach = 1  # what cannot be packed often costs a step
        split |= failed
    return Solved(best, bound)
