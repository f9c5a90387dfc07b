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
"""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

from labbench.selection.fleet.plan import NOTHING
from labbench.selection.fleet.problem import Claims, Fleet
from labbench.selection.fleet.rows import Rows

Loads = dict[tuple[int, int], dict[int, float]]  # (kind, device) -> row of the claims -> load
FUNCTIONS = (1, 2, 3)  # of Fekete and Schepers' u(k): what fits k times at most
PACKING_S = 10.0  # for one kind; most are packed at once
CLOSE = 1e-6  # relative: of what the solver calls equal
INFEASIBLE = 2  # scipy's status


@dataclass(frozen=True)
class Solved:
    """What came of the program: loads on devices (``None``: none was found), and the bound; infinite if there is no plan."""

    loads: Loads | None
    bound: float


@dataclass(frozen=True)
class Blocks:
    """Blocks of devices: their kind, how many devices each, and the claims of each block, one after another."""

    kind: np.ndarray
    count: np.ndarray
    block: np.ndarray
    row: np.ndarray

    @classmethod
    def of(cls, claims: Claims, counts: np.ndarray, split: set[int]) -> Blocks:
        """Of all kinds; one device a block for those that are split."""
        pairs = [(k, 1) for k in split for _ in range(counts[k])] + [
            (k, count) for k, count in enumerate(counts.tolist()) if k not in split and count
        ]
        kind, count = np.array(pairs, int).reshape(-1, 2).T
        rows = [np.flatnonzero(claims.kind == k) for k in kind]
        block = np.repeat(np.arange(len(kind)), [len(part) for part in rows])
        return cls(kind, count, block, np.concatenate([*rows, np.array([], int)]))


@dataclass(frozen=True)
class Numbers:
    """A question as arrays: prices and counts of kinds, requests a second and replicas of demands, and the claims between them.

    ``per_hour`` is the price of each kind as a fraction of the budget, where there is one.
    """

    prices: np.ndarray
    counts: np.ndarray
    asked: np.ndarray
    replicas: np.ndarray
    claims: Claims
    per_hour: np.ndarray | None = None

    def value(self, loads: Loads) -> float:
        """Of the objective."""
        weight = self.claims.weight
        loaded = sum(weight[row] * load for device in loads.values() for row, load in device.items())
        return float(sum(self.prices[kind] for kind, _ in loads) + loaded)

    @classmethod
    def of(cls, fleet: Fleet) -> Numbers:
        """Of a whole fleet."""
        return cls(
            fleet.prices,
            np.array([kind.count for kind in fleet.kinds]),
            np.array([demand.per_second for demand in fleet.demands]),
            np.array([demand.replicas for demand in fleet.demands]),
            fleet.claims,
            None if fleet.max_per_hour is None else fleet.per_hour / fleet.max_per_hour,
        )


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
    best, split = known, set[int]()
    while (left := end - perf_counter()) > 0:
        value = np.inf if best is None else numbers.value(best)
        if value <= bound * (1 + max(gap, CLOSE)):
            break
        blocks = Blocks.of(claims, numbers.counts, split)
        found = program(numbers, blocks, left, cutoff=value - max(step * (1 - CLOSE), CLOSE * value), gap=gap)
        if found.status == INFEASIBLE:
            return Solved(best, value)
        bound = max(bound, up(found.mip_dual_bound or 0.0, step))
        if found.x is None:
            break
        loads, failed = packed(numbers, blocks, found.x, end)
        if not failed:
            best = loads
        elif failed <= split:
            break
        split |= failed
    return Solved(best, bound)


def step_of(numbers: Numbers) -> float:
    """The largest number that all prices are multiples of (to a hundredth of a cent); 0 where loads have a price, too."""
    whole = np.round(numbers.prices * 1e4)
    if numbers.claims.weight.any() or np.abs(whole - numbers.prices * 1e4).max() > NOTHING * whole.max():
        return 0.0
    return float(np.gcd.reduce(whole.astype(np.int64))) / 1e4


def up(bound: float, step: float) -> float:
    """What is a multiple of the step and not below a bound."""
    return float(np.ceil(bound / step - CLOSE) * step) if step else bound


def program(
    numbers: Numbers, blocks: Blocks, seconds: float, *, whole: bool = True, cutoff: float = np.inf, gap: float = 0.0,
    devices: np.ndarray | None = None,
) -> Any:  # fmt: skip
    """Solve it: scipy's result, whose ``x`` is devices of each block, replicas and loads of each of its claims.

    Without ``whole`` only the devices are integers, not the replicas. With so many ``devices`` of each block the least of shares
    and memory is looked for, instead of the least cost.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp

    nb, n, c = len(blocks.kind), len(blocks.row), numbers.claims.take(blocks.row)
    load = numbers.asked[c.demand] / c.per_second  # of the whole demand
    most = np.minimum(c.most, load)
    enough = np.maximum(np.ceil(load / c.most - NOTHING), numbers.replicas[c.demand])
    y, at_n, at_x, every = np.arange(nb), nb + np.arange(n), nb + n + np.arange(n), np.arange(n)
    rows, demands, own = Rows(nb + 2 * n), len(numbers.asked), (y, y, -np.ones(nb))
    rows.add(demands, [(c.demand, at_x, 1 / load)], 1.0, np.inf)
    rows.add(demands, [(c.demand, at_n, np.ones(n))], numbers.replicas.astype(float), np.inf)
    rows.add(nb, [(blocks.block, at_n, c.memory), own], -np.inf, 0.0)
    rows.add(nb, [(blocks.block, at_n, c.floor), (blocks.block, at_x, 1 / c.slope), own], -np.inf, 0.0)
    for k in FUNCTIONS if whole else ():
        for fixed in (c.memory, c.floor):
            rows.add(nb, [(blocks.block, at_n, _dual_feasible(fixed, k)), own], -np.inf, 0.0)
    several = np.flatnonzero((enough > 1) | (blocks.count[blocks.block] == 1))
    pairs, at = np.unique(c.demand[several] * nb + blocks.block[several], return_inverse=True)
    each = (np.arange(len(pairs)), pairs % nb, -np.ones(len(pairs)))
    rows.add(
        len(pairs), [(at, at_n[several], np.ones(len(at))), each], -np.inf, 0.0
    )  # replicas are on devices of their own
    rows.add(n, [(every, at_x, np.ones(n)), (every, at_n, -most)], -np.inf, 0.0)
    same = np.flatnonzero((blocks.kind[1:] == blocks.kind[:-1]) & (blocks.count[1:] == 1))
    at = np.arange(len(same))
    rows.add(len(same), [(at, same + 1, np.ones(len(same))), (at, same, -np.ones(len(same)))], -np.inf, 0.0)
    zero = np.zeros(nb, int)
    if numbers.per_hour is not None:
        rows.add(1, [(zero, y, numbers.per_hour[blocks.kind])], -np.inf, 1.0)
    prices = numbers.prices[blocks.kind]
    if np.isfinite(cutoff):
        rows.add(1, [(zero, y, prices), (np.zeros(n, int), at_x, c.weight)], -np.inf, cutoff)
    cost = np.concatenate([prices, np.zeros(n), c.weight])
    upper = np.concatenate([blocks.count, blocks.count[blocks.block], np.full(n, np.inf)])
    lower = np.zeros_like(upper)
    if devices is not None:
        lower[:nb] = upper[:nb] = devices
        cost = np.concatenate([np.zeros(nb), c.memory + c.floor, 1 / c.slope])
    return milp(
        cost,
        integrality=np.repeat([1, int(whole), 0], [nb, n, n]),
        bounds=Bounds(lower, upper),
        constraints=LinearConstraint(*rows.matrix()),
        options={"time_limit": seconds, "mip_rel_gap": gap},
    )


def _dual_feasible(size: np.ndarray, k: int) -> np.ndarray:
    """``u(k)``: sizes that fit into 1 sum to at most 1 after it, too (Fekete and Schepers 2001, theorem 2)."""
    times = (k + 1) * size
    whole = np.abs(times - np.round(times)) < NOTHING
    return np.where(whole, size, np.floor(times) / k)


def packed(numbers: Numbers, blocks: Blocks, x: np.ndarray, end: float) -> tuple[Loads, set[int]]:
    """Loads on single devices, and the kinds whose replicas could not be packed.

    At first as they are; then with as little memory and as small shares as these devices allow.
    """
    loads, failed = _packed(numbers, blocks, x, end, search=False)
    if failed and (left := end - perf_counter()) > 0:
        devices = np.round(x[: len(blocks.kind)])
        leaner = program(numbers, blocks, min(PACKING_S, left), devices=devices, gap=0.01)
        if leaner.x is not None:
            loads, failed = _packed(numbers, blocks, leaner.x, end, search=True)
    return loads, failed


def _packed(numbers: Numbers, blocks: Blocks, x: np.ndarray, end: float, *, search: bool) -> tuple[Loads, set[int]]:
    nb, n = len(blocks.kind), len(blocks.row)
    claims = numbers.claims
    used, replicas, load = np.round(x[:nb]).astype(int), np.round(x[nb : nb + n]).astype(int), x[nb + n :].copy()
    demand = claims.demand[blocks.row]
    served = np.bincount(demand, load * claims.per_second[blocks.row], len(numbers.asked))
    load *= np.minimum(1, numbers.asked / np.maximum(served, 1e-300))[demand]
    loads: Loads = {}
    failed: set[int] = set()
    for b, kind in enumerate(blocks.kind.tolist()):
        mine = np.flatnonzero((blocks.block == b) & (replicas > 0))
        if not len(mine):
            continue
        devices = _pack(claims, blocks.row[mine], replicas[mine], load[mine], int(used[b]), end if search else 0.0)
        if devices is None:
            failed.add(kind)
            continue
        start = len(loads)
        loads |= {(kind, start + place): device for place, device in enumerate(devices) if device}
    return loads, failed


def _pack(
    claims: Claims, rows: np.ndarray, replicas: np.ndarray, load: np.ndarray, devices: int, end: float
) -> list[dict[int, float]] | None:
    """Replicas with their loads on so many devices of one kind; ``None`` if none was found."""
    if devices == 1:
        alone = len(set(claims.demand[rows].tolist())) == len(rows)
        return [dict(zip(rows.tolist(), load.tolist(), strict=True))] if alone else None
    return _greedy(claims, rows, replicas, load, devices) or _searched(claims, rows, replicas, load, devices, end)


def _greedy(
    claims: Claims, rows: np.ndarray, replicas: np.ndarray, load: np.ndarray, devices: int
) -> list[dict[int, float]] | None:
    """The largest first, each to the device whose memory it fills most; a load that does not fit goes on to the next."""
    memory, share, held = (
        np.ones(devices),
        np.ones(devices),
        np.zeros((int(claims.demand[rows].max()) + 1, devices), bool),
    )
    out: list[dict[int, float]] = [{} for _ in range(devices)]
    size = np.maximum(claims.memory[rows], claims.floor[rows] + load / claims.slope[rows] / np.maximum(replicas, 1))
    for place in np.argsort(-size, kind="stable"):
        row, rest, placed = int(rows[place]), float(load[place]), 0
        floor, slope, need = claims.floor[row], claims.slope[row], claims.memory[row]
        while rest > NOTHING or placed < replicas[place]:
            fits = ~held[claims.demand[row]] & (memory >= need - NOTHING) & (share >= floor - NOTHING)
            room = np.where(fits, np.maximum(share - floor, 0) * slope, -1.0)
            whole = room >= rest - NOTHING
            later = max(replicas[place] - placed, 1)
            if not fits.any():
                return None
            if whole.any() and later == 1:
                device = int(np.argmin(np.where(whole, memory + share, np.inf)))
            else:
                device = int(np.argmax(np.where(fits, room, -1.0)))
            given = min(
                rest, float(room[device]), rest if later == 1 else max(rest / later, rest - room.max() * (later - 1))
            )
            out[device][row] = given
            held[claims.demand[row], device] = True
            rest, placed = rest - given, placed + 1
            memory[device] -= need
            share[device] -= floor + given / slope
    return out


def _searched(
    claims: Claims, rows: np.ndarray, replicas: np.ndarray, load: np.ndarray, devices: int, end: float
) -> list[dict[int, float]] | None:
    """As the program of one kind whose devices are told apart, with each option's load and replicas as given."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    seconds = min(PACKING_S, end - perf_counter())
    if seconds <= 0:
        return None
    m, n = len(rows), len(rows) * devices
    option, device = np.tile(np.arange(m), devices), np.repeat(np.arange(devices), m)
    c = claims.take(rows[option])
    table, at_a, at_x = Rows(2 * n), np.arange(n), n + np.arange(n)
    table.add(m, [(option, at_x, np.ones(n))], load - NOTHING, np.inf)
    table.add(m, [(option, at_a, np.ones(n))], replicas.astype(float), np.inf)
    table.add(devices, [(device, at_a, c.memory)], -np.inf, 1.0)
    table.add(devices, [(device, at_a, c.floor), (device, at_x, 1 / c.slope)], -np.inf, 1.0)
    table.add(n, [(np.arange(n), at_x, np.ones(n)), (np.arange(n), at_a, -c.most)], -np.inf, 0.0)
    pairs, at = np.unique(c.demand * devices + device, return_inverse=True)
    table.add(len(pairs), [(at, at_a, np.ones(n))], -np.inf, 1.0)
    result = milp(
        np.zeros(2 * n),
        integrality=np.repeat([1, 0], n),
        bounds=Bounds(0, np.repeat([1, np.inf], n)),
        constraints=LinearConstraint(*table.matrix()),
        options={"time_limit": seconds},
    )
    if result.x is None:
        return None
    chosen = np.round(result.x[:n]) > 0
    return [
        {int(rows[o]): float(result.x[n + d * m + o]) for o in range(m) if chosen[d * m + o]} for d in range(devices)
    ]
