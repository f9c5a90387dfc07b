"""Replicas of a block on its single devices."""

from __future__ import annotations

from time import perf_counter

import numpy as np

from labbench.selection.fleet.plan import NOTHING
from labbench.selection.fleet.problem import Claims
from labbench.selection.fleet.program import Blocks, Loads, Numbers, program
from labbench.selection.fleet.rows import Rows

PART = 0.25  # of the time left, for one question about a packing; most are answered at once
TRIES = 60  # orders to put replicas in, the largest first and others near that
LEAN = 0.03  # relative: how little memory and share is little enough
NOISE = 0.3  # relative, of sizes, from one order to the next


def packed(numbers: Numbers, blocks: Blocks, x: np.ndarray, end: float) -> tuple[Loads, set[int]]:
    """Loads on single devices, and the kinds whose replicas could not be packed.

    At first as they are; then with as little memory and as small shares on those kinds as all these devices allow, as long as
    others fail for that.
    """
    loads, failed = _packed(numbers, blocks, x, end, search=False)
    scarce: set[int] = set()
    while failed - scarce and (left := end - perf_counter()) > 0:
        scarce |= failed
        devices = np.round(x[: len(blocks.kind)])
        leaner = program(numbers, blocks, PART * left, devices=devices, scarce=scarce, gap=LEAN)
        if leaner.x is None:
            break
        loads, failed = _packed(numbers, blocks, leaner.x, end, search=True)
    return loads, failed


def _packed(numbers: Numbers, blocks: Blocks, x: np.ndarray, end: float, *, search: bool) -> tuple[Loads, set[int]]:
    nb, n = len(blocks.kind), len(blocks.row)
    claims = numbers.claims
    used, replicas, load = np.round(x[:nb]).astype(int), np.round(x[nb : nb + n]).astype(int), x[nb + n :].copy()
    demand = claims.demand[blocks.row]
    served = np.bincount(demand, load * claims.per_second[blocks.row], len(numbers.asked))
    load *= np.minimum(1, numbers.asked / np.maximum(served, 1e-300))[demand]
    needed = np.ceil(load / claims.most[blocks.row] - NOTHING).astype(int)
    replicas = np.where(numbers.replicas[demand] == 1, np.minimum(replicas, needed), replicas)
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
    """Replicas with their loads on so many devices of one kind; ``None`` if none was found.

    Those come first that hold a share without any load, too: any other can be split over what they leave of several devices,
    which takes no more than its memory on each.
    """
    if devices == 1:
        alone = len(set(claims.demand[rows].tolist())) == len(rows)
        return [dict(zip(rows.tolist(), load.tolist(), strict=True))] if alone else None
    random = np.random.default_rng(0)
    base = np.maximum(claims.memory[rows], claims.floor[rows] + load / claims.slope[rows] / np.maximum(replicas, 1))
    for turn in range(TRIES):
        size = base * np.exp(NOISE * random.standard_normal(len(rows))) if turn else base
        order = np.lexsort((-size, claims.floor[rows] == 0))
        if (found := _greedy(claims, rows, replicas, load, devices, order)) is not None:
            return found
    return _searched(claims, rows, replicas, load, devices, end)


def _greedy(
    claims: Claims, rows: np.ndarray, replicas: np.ndarray, load: np.ndarray, devices: int, order: np.ndarray
) -> list[dict[int, float]] | None:
    """One after another, each to the device that it fills most; a load that does not fit goes on to the next."""
    memory, share, held = (
        np.ones(devices),
        np.ones(devices),
        np.zeros((int(claims.demand[rows].max()) + 1, devices), bool),
    )
    out: list[dict[int, float]] = [{} for _ in range(devices)]
    for place in order:
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

    seconds = PART * (end - perf_counter())
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
