"""The integer program of :mod:`.exact`, and the numbers and blocks that it is made of."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from labbench.selection.fleet.plan import NOTHING
from labbench.selection.fleet.problem import Claims, Fleet
from labbench.selection.fleet.rows import Rows

Loads = dict[tuple[int, int], dict[int, float]]  # (kind, device) -> row of the claims -> load
FUNCTIONS = (1, 2, 3)  # of Fekete and Schepers' u(k): what fits k times at most
OTHERS = 0.1  # what shares and memory of other kinds count where those of scarce ones count 1
CLOSE = 1e-6  # relative: of what the solver calls equal
INFEASIBLE = 2  # scipy's status


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
    devices: np.ndarray | None = None, scarce: Collection[int] = (),
) -> Any:  # fmt: skip
    """Solve it: scipy's result, whose ``x`` is devices of each block, replicas and loads of each of its claims.

    Without ``whole`` only the devices are integers, not the replicas. With so many ``devices`` of each block the least of shares
    and memory is looked for, above all of the kinds that are ``scarce``, instead of the least cost.
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
        weight = np.where(np.isin(c.kind, list(scarce)), 1.0, OTHERS)
        cost = np.concatenate([np.zeros(nb), weight * (c.memory + c.floor), weight / c.slope])
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
