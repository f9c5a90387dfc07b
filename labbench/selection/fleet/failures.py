"""What a plan still carries when something fails, and how much more it could carry when nothing does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from labbench.selection.fallback import Fallback, fallbacks
from labbench.selection.fleet.plan import Assignment, Placement
from labbench.selection.fleet.problem import Fleet, FleetOption
from labbench.selection.fleet.rows import Rows

ALL = 1 - 1e-6  # of a rate: less is not all of it
MOST_DEVICES = 200  # of which each one's failure is looked at


@dataclass(frozen=True)
class Failure:
    """What is left when devices fail together and their requests go to the replicas that remain.

    Attributes
    ----------
    what : str
        ``device``, ``kind``, or a failure domain such as ``zone``.
    name : str
    served : dict
        Fraction of the rate that remains of each demand that is short; empty: the rest carries everything.
    """

    what: str
    name: str
    served: dict[str, float]


def failures(plan: Assignment) -> tuple[Failure, ...]:
    """Of each device in use, each kind, and each domain that kinds and options name (beyond 200 devices: not of single devices).

    Replicas stay where they are and keep their limits of latency and share: only requests move.
    """
    return tuple(Failure(what, name, _served(plan, left)) for what, name, left in _scenarios(plan))


def _scenarios(plan: Assignment) -> Iterator[tuple[str, str, list[Placement]]]:
    every = plan.placements
    if len(plan.devices) <= MOST_DEVICES:
        for kind, device in plan.devices:
            yield "device", f"{kind} {device}", [p for p in every if (p.option.kind, p.device) != (kind, device)]
    for name in dict.fromkeys(p.option.kind for p in every):
        yield "kind", name, [p for p in every if p.option.kind != name]
    labels = [labels_of(plan.fleet, p.option) for p in every]
    for domain, value in dict.fromkeys(pair for found in labels for pair in found.items()):
        left = [p for p, found in zip(every, labels, strict=True) if found.get(domain) != value]
        yield domain, value, left


def labels_of(fleet: Fleet, option: FleetOption) -> dict[str, str]:
    """Failure domains that a replica of an option is in."""
    return {**fleet.kinds[fleet.kind_index[option.kind]].domains, **option.domains}


def _served(plan: Assignment, left: Sequence[Placement]) -> dict[str, float]:
    names = [demand.name for demand in plan.fleet.demands]
    if not left:
        return dict.fromkeys(names, 0.0)
    x = _reroute(plan.fleet, left, spread=False)
    served = np.zeros(len(names))
    np.add.at(served, [plan.fleet.demand_index[p.option.demand] for p in left], x[: len(left)])
    return {name: float(value) for name, value in zip(names, served, strict=True) if value < ALL}


def headroom(plan: Assignment) -> float:
    """How much all rates may rise together before the replicas of the plan are full: 0.2 is a fifth more."""
    return float(_reroute(plan.fleet, plan.placements, spread=True)[-1]) - 1


def _reroute(fleet: Fleet, left: Sequence[Placement], *, spread: bool) -> Any:
    """What each replica takes of its demand's rate so that most is served; with ``spread`` the largest common multiple, last."""
    from scipy.optimize import linprog

    n, demands = len(left), len(fleet.demands)
    demand = np.array([fleet.demand_index[p.option.demand] for p in left])
    places = {key: i for i, key in enumerate(dict.fromkeys((p.option.kind, p.device) for p in left))}
    device = np.array([places[p.option.kind, p.device] for p in left])
    claims = [fleet.claim_of(p.option) for p in left]
    rate = np.array([fleet.demands[d].per_second for d in demand])
    share = np.array([r / p.option.per_second / c.slope for r, p, c in zip(rate, left, claims, strict=True)])
    floor = np.bincount(device, [c.floor for c in claims], len(places))
    rows, at = Rows(n + 1), np.arange(n)
    rows.add(len(places), [(device, at, share)], -np.inf, fleet.busy - floor)
    scale = (np.arange(demands), np.full(demands, n), np.full(demands, 1.0 if spread else 0.0))
    sign = -1.0 if spread else 1.0
    rows.add(demands, [(demand, at, np.full(n, sign)), scale], -np.inf, 0.0 if spread else 1.0)
    table, _, high = rows.matrix()
    cost = np.append(np.zeros(n), -1.0) if spread else np.append(-np.ones(n), 0.0)
    result = linprog(cost, A_ub=table, b_ub=np.maximum(high, 0.0), method="highs")
    return result.x


def chains(plan: Assignment) -> dict[str, tuple[Fallback, ...]]:
    """What each demand could go to when its options in use fail: kinds and runtimes that do not fail together, where possible.

    The first of a chain is the option that takes most of its requests; then the cheapest to run, by price of the share it holds.
    """
    fleet = plan.fleet
    used: dict[int, float] = {}
    for p in plan.placements:
        used[id(p.option)] = used.get(id(p.option), 0.0) + p.per_second
    found: dict[str, list[FleetOption]] = {demand.name: [] for demand in fleet.demands}
    for option in fleet.options:
        if fleet.why_not(option) is None:
            found[option.demand].append(option)
    domains = list(
        dict.fromkeys(
            ["kind", *(d for k in fleet.kinds for d in k.domains), *(d for o in fleet.options for d in o.domains)]
        )
    )

    def rank(option: FleetOption) -> tuple[float, float]:
        price = float(fleet.prices[fleet.kind_index[option.kind]])
        return -used.get(id(option), 0.0), price / (option.per_second * fleet.claim_of(option).slope)

    return {
        name: fallbacks(
            [{**labels_of(fleet, o), "kind": o.kind, "option": o} for o in sorted(options, key=rank)], domains
        )
        for name, options in found.items()
    }
