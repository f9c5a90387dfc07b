"""The answer: which replica of what on which device, and what it comes to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from labbench.selection.fleet.problem import Fleet, FleetOption

NOTHING = 1e-9  # relative: of rounding
TOLERANCE = 1e-6  # of the solver, relative


@dataclass(frozen=True)
class Placement:
    """One replica: an option on one device of its kind, and the requests a second that it takes."""

    option: FleetOption
    device: int
    per_second: float

    @property
    def load(self) -> float:
        """Fraction of the time that the device computes for it."""
        return self.per_second / self.option.per_second


@dataclass(frozen=True)
class Assignment:
    """A plan that keeps every requirement, and how far it may be from the best one.

    Attributes
    ----------
    fleet : Fleet
    placements : tuple of Placement
    bound : float
        No plan has a lower value of the objective.
    how : str
        ``exact`` or ``fast``: what made the plan.
    seconds : float
        That it took.
    """

    fleet: Fleet
    placements: tuple[Placement, ...]
    bound: float
    how: str
    seconds: float

    @cached_property
    def devices(self) -> dict[tuple[str, int], tuple[Placement, ...]]:
        """Replicas of each device in use, by kind and number of the device."""
        order = self.fleet.kind_index
        keys = sorted({(p.option.kind, p.device) for p in self.placements}, key=lambda key: (order[key[0]], key[1]))
        return {key: tuple(p for p in self.placements if (p.option.kind, p.device) == key) for key in keys}

    @cached_property
    def value(self) -> float:
        """Of the objective."""
        price = dict(zip(self.fleet.kind_index, self.fleet.prices, strict=True))
        total = sum(price[kind] for kind, _ in self.devices)
        if self.fleet.objective == "energy":
            total += sum((p.option.energy_j or 0.0) * p.per_second for p in self.placements)
        return float(total)

    @property
    def gap(self) -> float:
        """How much of the value a better plan could save at most; 0 where none is better."""
        gap = 1 - self.bound / self.value
        return gap if gap > TOLERANCE else 0.0

    @property
    def per_hour(self) -> float:
        """Price of the devices in use; NaN where none is given."""
        price = dict(zip(self.fleet.kind_index, self.fleet.per_hour, strict=True))
        return float(sum(price[kind] for kind, _ in self.devices))

    def used(self, placements: Iterable[Placement]) -> tuple[float, float, float]:
        """Of one device: the fraction of its time in which it computes, the share dealt out, bytes of memory."""
        items = list(placements)
        held = sum(_held(self.fleet, p) for p in items)
        return sum(p.load for p in items), held, sum(p.option.memory_bytes for p in items)

    def replicas(self, demand: str) -> tuple[Placement, ...]:
        """Of one demand."""
        return tuple(p for p in self.placements if p.option.demand == demand)

    def to_dict(self) -> dict[str, Any]:
        """As plain values that JSON can hold, SI units."""
        per_hour = self.per_hour
        return {
            "objective": self.fleet.objective,
            "value": self.value,
            "unit": self.fleet.unit,
            "bound": self.bound,
            "gap": self.gap,
            "how": self.how,
            "seconds": self.seconds,
            "per_hour": per_hour if np.isfinite(per_hour) else None,
            "currency": self.fleet.currency or None,
            "devices": [self._device(kind, device, items) for (kind, device), items in self.devices.items()],
        }

    def _device(self, kind: str, device: int, items: tuple[Placement, ...]) -> dict[str, Any]:
        busy, held, memory = self.used(items)
        replicas = [
            {
                "demand": p.option.demand,
                "option": p.option.name,
                "per_second": p.per_second,
                "busy": p.load,
                "memory_bytes": p.option.memory_bytes,
                "known": p.option.known,
            }
            for p in items
        ]
        return {
            "kind": kind,
            "device": device,
            "busy": busy,
            "held": held,
            "memory_bytes": memory,
            "replicas": replicas,
        }


def faults(fleet: Fleet, placements: Iterable[Placement]) -> Iterator[str]:
    """Every requirement that a plan breaks, told from the placements and the fleet's own numbers alone."""
    items = list(placements)
    for kind in fleet.kinds:
        devices = {p.device for p in items if p.option.kind == kind.name}
        if len(devices) > kind.count:
            yield f"{len(devices)} devices of {kind.name} are in use, there are {kind.count}"
        for device in sorted(devices):
            here = [p for p in items if (p.option.kind, p.device) == (kind.name, device)]
            memory = sum(p.option.memory_bytes for p in here)
            if memory > kind.memory_bytes * (1 + TOLERANCE):
                yield f"{kind.name} {device}: {memory:g} of {kind.memory_bytes:g} bytes"
            held = sum(_held(fleet, p) for p in here)
            if held > fleet.busy + 10 * TOLERANCE:
                yield f"{kind.name} {device}: {held:.6f} of it is dealt out, {fleet.busy} may be"
            if len({p.option.demand for p in here}) < len(here):
                yield f"{kind.name} {device}: two replicas of one demand"
    for demand in fleet.demands:
        mine = [p for p in items if p.option.demand == demand.name]
        if sum(p.per_second for p in mine) < demand.per_second * (1 - 10 * TOLERANCE):
            yield f"{demand.name}: {sum(p.per_second for p in mine):g} of {demand.per_second:g} requests a second"
        if len(mine) < demand.replicas:
            yield f"{demand.name}: {len(mine)} of {demand.replicas} replicas"
    for option in {id(p.option): p.option for p in items}.values():
        if (reason := fleet.why_not(option)) is not None:
            yield f"{option.demand} on {option.kind} ({option.name}): {reason}"
    if fleet.max_per_hour is not None:
        price = {kind.name: kind.per_hour or 0.0 for kind in fleet.kinds}
        cost = sum(price[kind] for kind, _ in {(p.option.kind, p.device) for p in items})
        if cost > fleet.max_per_hour * (1 + TOLERANCE):
            yield f"{cost:g} an hour, at most {fleet.max_per_hour:g} is allowed"


def placed(fleet: Fleet, loads: Mapping[tuple[int, int], Mapping[int, float]]) -> tuple[Placement, ...]:
    """Placements of loads, by kind and device, of rows of ``fleet.claims``.

    Where more is served than asked for, rates are scaled down; replicas that their demand's others can stand in for go; devices
    are numbered from 1 in each kind.
    """
    claims, loads = fleet.claims, _merged(fleet, dict(sorted(loads.items())))
    rows = np.array([row for device in loads.values() for row in device], int)
    load = np.array([value for device in loads.values() for value in device.values()])
    demand, rate = claims.demand[rows], load * claims.per_second[rows]
    asked = np.array([d.per_second for d in fleet.demands])
    served = np.bincount(demand, rate, len(asked))
    rate *= np.minimum(1, asked / np.maximum(served, 1e-300))[demand]
    numbers: dict[int, int] = {}
    out, at = [], 0
    for (kind, _), device in loads.items():
        numbers[kind] = numbers.get(kind, 0) + 1
        for row in device:
            out.append(Placement(fleet.options[claims.option[row]], numbers[kind], float(rate[at])))
            at += 1
    return tuple(out)


def _merged(
    fleet: Fleet, loads: Mapping[tuple[int, int], Mapping[int, float]]
) -> dict[tuple[int, int], dict[int, float]]:
    """Without replicas, the smallest first, whose load other replicas of their demand have room for; without empty devices."""
    claims, left = fleet.claims, {place: dict(device) for place, device in loads.items()}
    room = {
        place: 1 - sum(claims.floor[r] + x / claims.slope[r] for r, x in held.items()) for place, held in left.items()
    }
    where: dict[int, list[tuple[tuple[int, int], int]]] = {}
    for place, held in left.items():
        for row in held:
            where.setdefault(int(claims.demand[row]), []).append((place, row))
    for demand, mine in where.items():
        for place, row in sorted(mine, key=lambda pair: left[pair[0]][pair[1]] * claims.per_second[pair[1]]):
            others = [(p, r) for p, r in mine if (p, r) != (place, row)]
            free = [max(room[p], 0.0) * claims.slope[r] * claims.per_second[r] for p, r in others]
            rate = left[place][row] * claims.per_second[row]
            if len(others) < fleet.demands[demand].replicas or sum(free) < rate:
                continue
            for (p, r), most in sorted(zip(others, free, strict=True), key=lambda pair: -pair[1]):
                moved = min(rate, most)
                rate -= moved
                left[p][r] += moved / claims.per_second[r]
                room[p] -= moved / claims.per_second[r] / claims.slope[r]
            room[place] += claims.floor[row] + left[place].pop(row) / claims.slope[row]
            mine = others
    return {place: held for place, held in left.items() if held}


def _held(fleet: Fleet, placement: Placement) -> float:
    held = fleet.claim_of(placement.option)
    return held.floor + placement.load / held.slope
