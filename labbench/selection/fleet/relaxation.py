"""What no plan can beat: the program of :mod:`.exact` with replicas, and for large fleets devices, that need not be whole."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from labbench.selection.fleet.plan import NOTHING
from labbench.selection.fleet.problem import Claims, Fleet
from labbench.selection.fleet.program import INFEASIBLE, Blocks, Numbers, program, step_of, up
from labbench.selection.fleet.rows import Rows

SMALL = 1000  # options up to which whole devices take no more than seconds
SECONDS = 3.0  # for them
FIRST = 5  # columns of a demand that the linear program begins with


@dataclass(frozen=True)
class Relaxed:
    """Its value, where it puts what, and the worth of a device's whole share and whole memory.

    Attributes
    ----------
    value : float
        No plan has a lower one; infinite: there is no plan.
    share, memory : ndarray
        Of each kind.
    load : ndarray
        Of each row of the claims.
    devices : ndarray
        Of each kind, where these are whole; empty otherwise.
    """

    value: float
    share: np.ndarray
    memory: np.ndarray
    load: np.ndarray
    devices: np.ndarray


def relaxed(fleet: Fleet) -> Relaxed:
    """The linear program, with the columns that matter: more are added until none would better it.

    A replica carries no load (``p``) or the most that is of use (``q``); any other is in between. Up to a thousand options devices
    are whole in the value and the loads, which tells more; worths are always those of the linear program.
    """
    claims = fleet.claims
    n, asked = len(claims.option), np.array([d.per_second for d in fleet.demands])
    most = np.minimum(claims.most, asked[claims.demand] / claims.per_second)
    rate = most * claims.per_second / asked[claims.demand]
    full = claims.floor + most / claims.slope
    alone = fleet.prices[claims.kind] * np.maximum(full, claims.memory) / rate
    order = np.lexsort((alone, claims.demand))
    place = np.arange(n) - np.searchsorted(claims.demand[order], claims.demand[order])
    chosen = np.zeros(n, bool)
    chosen[order[place < FIRST]] = True
    while True:
        rows = np.flatnonzero(chosen)
        result = _linear(fleet, claims.take(rows), rate[rows], full[rows], most[rows])
        if result.status != 0:
            if chosen.all():
                value = np.inf if result.status == INFEASIBLE else 0.0
                return Relaxed(value, np.zeros(len(fleet.kinds)), np.zeros(len(fleet.kinds)), np.zeros(n), np.zeros(0))
            chosen[:] = True
            continue
        served, replicas, memory, share = np.split(
            -result.ineqlin.marginals[: 2 * len(asked) + 2 * len(fleet.kinds)],
            np.cumsum([len(asked), len(asked), len(fleet.kinds)]),
        )
        empty = claims.floor * share[claims.kind] + claims.memory * memory[claims.kind] - replicas[claims.demand]
        loaded = (
            empty + (full - claims.floor) * share[claims.kind] + claims.weight * most - rate * served[claims.demand]
        )
        better = (np.minimum(empty, loaded) < -1e-7 * max(result.fun, NOTHING)) & ~chosen
        if not better.any():
            load = np.zeros(n)
            load[rows] = most[rows] * result.x[-len(rows) :]
            return _with_whole_devices(fleet, Relaxed(float(result.fun), share, memory, load, np.zeros(0)))
        chosen |= better


def none_at_all(fleet: Fleet) -> bool:
    """Whether the linear program has no solution: then there is no plan."""
    c = fleet.claims
    asked = np.array([d.per_second for d in fleet.demands])[c.demand]
    most = np.minimum(c.most, asked / c.per_second)
    result = _linear(fleet, c, most * c.per_second / asked, c.floor + most / c.slope, most)
    return bool(result.status == INFEASIBLE)


def _with_whole_devices(fleet: Fleet, linear: Relaxed) -> Relaxed:
    numbers = Numbers.of(fleet)
    if len(fleet.claims.option) > SMALL:
        return linear
    blocks = Blocks.of(fleet.claims, numbers.counts, set())
    result = program(numbers, blocks, SECONDS, whole=False)
    if result.status == INFEASIBLE:
        return replace(linear, value=np.inf)
    if result.x is None:
        return linear
    load = np.zeros(len(linear.load))
    nb = len(blocks.kind)
    load[blocks.row] = result.x[nb + len(blocks.row) :]
    devices = np.zeros(len(fleet.kinds))
    devices[blocks.kind] = result.x[:nb]
    return replace(
        linear, value=max(linear.value, up(result.mip_dual_bound, step_of(numbers))), load=load, devices=devices
    )


def _linear(fleet: Fleet, c: Claims, rate: np.ndarray, full: np.ndarray, most: np.ndarray) -> Any:
    from scipy.optimize import linprog

    k, n, d = len(fleet.kinds), len(c.option), len(fleet.demands)
    y, p, q = np.arange(k), k + np.arange(n), k + n + np.arange(n)
    rows = Rows(k + 2 * n)
    own = (y, y, -np.ones(k))
    rows.add(d, [(c.demand, q, -rate)], -np.inf, -1.0)
    replicas = np.array([demand.replicas for demand in fleet.demands], float)
    rows.add(d, [(c.demand, p, -np.ones(n)), (c.demand, q, -np.ones(n))], -np.inf, -replicas)
    rows.add(k, [(c.kind, p, c.memory), (c.kind, q, c.memory), own], -np.inf, 0.0)
    rows.add(k, [(c.kind, p, c.floor), (c.kind, q, full), own], -np.inf, 0.0)
    if fleet.max_per_hour is not None:
        rows.add(1, [(np.zeros(k, int), y, fleet.per_hour / fleet.max_per_hour)], -np.inf, 1.0)
    table, _, high = rows.matrix()
    bounds = np.zeros((k + 2 * n, 2))
    bounds[:, 1] = np.inf
    bounds[:k, 1] = [kind.count for kind in fleet.kinds]
    cost = np.concatenate([fleet.prices, np.zeros(n), c.weight * most])
    return linprog(cost, A_ub=table, b_ub=high, bounds=bounds, method="highs")
