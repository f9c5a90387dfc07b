"""What would have to give so that there is a plan: each requirement of a conflict alone, and all rates together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np

from labbench.selection.fleet.asked import DECIDE_S, Requirement, possible, requirements, restricted
from labbench.selection.fleet.exact import solve
from labbench.selection.fleet.problem import Fleet
from labbench.selection.fleet.program import Numbers
from labbench.words import number, outward, percent, seconds

DIGITS = 1e-3  # relative, of a limit that is told
FURTHEST = 1e3  # times a limit beyond which nobody wants to know
SECONDS = 30.0  # for all of them
MOST = 12  # requirements that are looked at one by one


@dataclass(frozen=True)
class Relaxation:
    """What one requirement would have to be so that there is a plan, all others kept; how far that is, relative."""

    requirement: Requirement
    text: str
    change: float


def concessions(fleet: Fleet, found: Sequence[Requirement]) -> tuple[Relaxation, ...]:
    """How far each requirement of a conflict would have to give, all others of the fleet kept; nearest first.

    Of more than twelve, rates are only looked at together.
    """
    return tuple(sorted(_concessions(fleet, found, perf_counter() + SECONDS), key=lambda r: r.change))


def _concessions(fleet: Fleet, found: Sequence[Requirement], end: float) -> Iterator[Relaxation]:
    few = len(found) <= MOST
    if sum(r.what == "rate" for r in found) > 1:

        def carried(level: float) -> bool | None:
            demands = tuple(d.model_copy(update={"per_second": d.per_second * level}) for d in fleet.demands)
            return possible(replace(fleet, demands=demands))

        if carried(DIGITS):
            part = _nearest(carried, 1.0, DIGITS, 10 * DIGITS)
            yield Relaxation(Requirement("rates"), f"{percent(outward(part, up=False))} of all rates", 1 - part)
    for requirement in found:
        if (few or requirement.what != "rate") and perf_counter() < end:
            one = _relaxed(fleet, requirement)
            if one is not None:
                yield one


def _relaxed(fleet: Fleet, requirement: Requirement) -> Relaxation | None:
    what, of = requirement.what, requirement.of
    without = restricted(fleet, frozenset(requirements(fleet)) - {requirement})
    if without is None or not possible(without):
        return None
    if what == "count":
        kind = without.kind_index[of]
        numbers = replace(Numbers.of(without), prices=np.eye(len(fleet.kinds))[kind])
        found = solve(numbers, DECIDE_S)
        if found.loads is None:
            return None
        needed, given = sum(k == kind for k, _ in found.loads), fleet.kinds[kind].count
        return Relaxation(requirement, f"{needed} instead of {given} of {of}", (needed - given) / max(given, 1))
    if what == "budget":
        found = solve(replace(Numbers.of(without), prices=fleet.per_hour, per_hour=None), DECIDE_S)
        if found.loads is None:
            return None
        cost, budget = sum(fleet.per_hour[k] for k, _ in found.loads), fleet.max_per_hour or np.nan
        text = f"a budget of {number(outward(cost, up=True))} {fleet.currency} instead of {number(budget)} an hour"
        return Relaxation(requirement, text, cost / budget - 1)
    demand = next((d for d in fleet.demands if d.name == of), None)
    if demand is None:
        busy = _nearest(lambda level: possible(replace(fleet, busy=min(level, 1.0))), fleet.busy, 1.0)
        return Relaxation(
            requirement,
            f"{percent(busy)} of a device dealt out instead of {percent(fleet.busy)}",
            busy / fleet.busy - 1,
        )

    def with_(**changes: Any) -> bool | None:
        changed = tuple(d.model_copy(update=changes) if d.name == of else d for d in fleet.demands)
        return possible(replace(fleet, demands=changed))

    if what == "replicas":
        most = next(n for n in range(demand.replicas - 1, 0, -1) if n == 1 or with_(replicas=n))
        return Relaxation(
            requirement, f"{most} instead of {demand.replicas} replicas of {of}", 1 - most / demand.replicas
        )
    if what == "rate":
        if not with_(per_second=demand.per_second * DIGITS):
            return None
        rate = _nearest(lambda level: with_(per_second=level), demand.per_second, demand.per_second * DIGITS)
        text = f"at most {number(outward(rate, up=False))}/s instead of {number(demand.per_second)}/s of {of}"
        return Relaxation(requirement, text, 1 - rate / demand.per_second)
    limit = demand.max_latency_s or np.nan
    if not with_(max_latency_s=limit * FURTHEST):
        return None
    latency = _nearest(lambda level: with_(max_latency_s=level), limit, limit * FURTHEST)
    text = f"p{demand.latency_percentile} ≤ {seconds(outward(latency, up=True))} instead of {seconds(limit)} for {of}"
    return Relaxation(requirement, text, latency / limit - 1)


def _nearest(enough: Callable[[float], bool | None], bad: float, good: float, digits: float = DIGITS) -> float:
    """The level nearest to ``bad`` that is enough, by bisection of its logarithm; ``good`` is."""
    while abs(good / bad - 1) > digits:
        middle = float(np.sqrt(bad * good))
        if enough(middle):
            good = middle
        else:
            bad = middle
    return good
