"""What is asked of a plan, one thing at a time, and whether there is a plan for some of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from labbench.selection.fleet.exact import solve
from labbench.selection.fleet.problem import Fleet
from labbench.selection.fleet.program import Numbers
from labbench.selection.fleet.relaxation import none_at_all
from labbench.words import number, percent, seconds

DECIDE_S = 5.0  # for one question whether there is a plan


@dataclass(frozen=True)
class Requirement:
    """One thing asked of a plan.

    Attributes
    ----------
    what : str
        ``rate``, ``latency`` or ``replicas`` of a demand, ``count`` of a kind, ``budget`` or ``busy``.
    of : str
        The demand or kind, or empty.
    """

    what: str
    of: str = ""


def requirements(fleet: Fleet) -> Iterator[Requirement]:
    """All that is asked of a plan."""
    for demand in fleet.demands:
        yield Requirement("rate", demand.name)
        if demand.max_latency_s is not None:
            yield Requirement("latency", demand.name)
        if demand.replicas > 1:
            yield Requirement("replicas", demand.name)
    for kind in fleet.kinds:
        yield Requirement("count", kind.name)
    if fleet.max_per_hour is not None:
        yield Requirement("budget")
    if fleet.busy < 1:
        yield Requirement("busy")


def describe(fleet: Fleet, requirement: Requirement) -> str:
    """For people."""
    demands, kinds = {d.name: d for d in fleet.demands}, {k.name: k for k in fleet.kinds}
    what, of = requirement.what, requirement.of
    if what == "rate":
        return f"the rate of {of} ({number(demands[of].per_second)}/s)"
    if what == "latency":
        return f"the latency of {of} (p{demands[of].latency_percentile} ≤ {seconds(demands[of].max_latency_s or 0)})"
    if what == "replicas":
        return f"the replicas of {of} (at least {demands[of].replicas})"
    if what == "count":
        return f"the number of {of} ({kinds[of].count})"
    if what == "budget":
        return f"the budget ({number(fleet.max_per_hour or 0)} {fleet.currency} an hour)"
    return f"the share of a device that may be dealt out ({percent(fleet.busy)})"


def restricted(fleet: Fleet, kept: frozenset[Requirement]) -> Fleet | None:
    """The fleet with only some of its requirements; without its rate a demand is not there. ``None``: no demand is left."""
    demands = tuple(
        demand.model_copy(
            update={
                "max_latency_s": demand.max_latency_s if Requirement("latency", demand.name) in kept else None,
                "replicas": demand.replicas if Requirement("replicas", demand.name) in kept else 1,
            }
        )
        for demand in fleet.demands
        if Requirement("rate", demand.name) in kept
    )
    if not demands:
        return None
    names = {demand.name for demand in demands}
    free = replace(
        fleet,
        demands=demands,
        options=tuple(o for o in fleet.options if o.demand in names),
        busy=fleet.busy if Requirement("busy") in kept else 1.0,
        max_per_hour=fleet.max_per_hour if Requirement("budget") in kept else None,
    )
    counts = _enough(free)
    return replace(
        free,
        kinds=tuple(
            kind
            if Requirement("count", kind.name) in kept
            else kind.model_copy(update={"count": int(max(kind.count, count))})
            for kind, count in zip(fleet.kinds, counts, strict=True)
        ),
    )


def possible(fleet: Fleet | None) -> bool | None:
    """Whether a fleet has a plan; ``None`` if that was not decided in time."""
    if fleet is None:
        return True
    if not conceivable(fleet):
        return False
    found = solve(Numbers.of(fleet), DECIDE_S, gap=1.0)
    return True if found.loads is not None else False if np.isinf(found.bound) else None


def conceivable(fleet: Fleet | None) -> bool:
    """Whether a fleet has a plan if nothing need be whole: soon told, and if not, there is none."""
    if fleet is None:
        return True
    return len(set(fleet.claims.demand.tolist())) == len(fleet.demands) and not none_at_all(fleet)


def _enough(fleet: Fleet) -> np.ndarray:
    """Devices of each kind with which it could serve all demands, each alone on its devices."""
    c, asked = fleet.claims, np.array([d.per_second for d in fleet.demands])
    replicas = np.array([d.replicas for d in fleet.demands])
    alone = np.maximum(np.ceil(asked[c.demand] / c.per_second / c.most), replicas[c.demand])
    return np.bincount(c.kind, alone, len(fleet.kinds))
