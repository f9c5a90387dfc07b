"""What is to run and on what: demands, kinds of devices, and the options between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from pydantic import Field

from labbench.cells import Frozen
from labbench.config import ConfigError, require_known
from labbench.selection.fleet.queueing import Claim, claim
from labbench.words import percent, seconds, size

FleetObjective = Literal["cost", "devices", "energy"]


class Demand(Frozen):
    """A workload that must be served."""

    name: str = Field(min_length=1)
    per_second: float = Field(gt=0, description="requests a second, arriving at random")
    max_latency_s: float | None = Field(None, gt=0, description="the longest a request may take, waiting included")
    latency_percentile: Literal[50, 90, 99] = Field(99, description="for how many of the requests that holds")
    replicas: int = Field(1, ge=1, description="on at least so many devices")


class Kind(Frozen):
    """Devices that are the same."""

    name: str = Field(min_length=1)
    count: int = Field(ge=0, description="how many there are")
    memory_bytes: float = Field(gt=0, description="that workloads may fill, of one device")
    per_hour: float | None = Field(None, gt=0, description="price of one, in the fleet's currency")
    idle_w: float | None = Field(None, ge=0, description="watts of one that does nothing")
    domains: dict[str, str] = Field(default_factory=dict, description="what it fails with, e.g. zone, vendor, machine")


@dataclass(frozen=True)
class FleetOption:
    """A way to serve a demand on a kind of device: what a replica does that has a device alone.

    Attributes
    ----------
    demand, kind : str
    name : str
        What tells it from others of the same two, e.g. ``onnxruntime fp16 b8``.
    service_s : float
        Mean time of a call.
    memory_bytes : float
        Peak of a replica.
    requests : int
        Answered by one call.
    tail_s : float or None
        Time of a call at the demand's percentile; ``None``: the mean.
    scv : float
        Squared coefficient of variation of a call's time.
    energy_j : float or None
        Joules a request takes above the idle device.
    reason : str or None
        Why it is not allowed.
    domains : mapping
        What it fails with besides what its kind does, e.g. ``{"runtime": "onnxruntime"}``.
    known : str
        ``measured``, ``predicted``, ...
    """

    demand: str
    kind: str
    name: str
    service_s: float
    memory_bytes: float
    requests: int = 1
    tail_s: float | None = None
    scv: float = 0.0
    energy_j: float | None = None
    reason: str | None = None
    domains: Mapping[str, str] = field(default_factory=dict)
    known: str = "measured"

    @property
    def per_second(self) -> float:
        """Requests a second that a whole device answers."""
        return self.requests / self.service_s


@dataclass(frozen=True)
class Claims:
    """The options that can be used, as arrays of equal length.

    Attributes
    ----------
    option : ndarray of int
        Place in ``Fleet.options``.
    demand, kind : ndarray of int
    per_second : ndarray
        Requests a second of a whole device.
    memory : ndarray
        Of a replica, as a fraction of the device's.
    floor, slope : ndarray
        See :class:`Claim`; shares are fractions of what may be dealt out, so that 1 is a full device.
    most : ndarray
        Largest load of a replica that has all of its device.
    weight : ndarray
        What a load of 1 adds to the objective.
    """

    option: np.ndarray
    demand: np.ndarray
    kind: np.ndarray
    per_second: np.ndarray
    memory: np.ndarray
    floor: np.ndarray
    slope: np.ndarray
    most: np.ndarray
    weight: np.ndarray

    def take(self, rows: np.ndarray) -> Claims:
        """Some of them."""
        return Claims(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Fleet:
    """The question: which devices, with which replicas of which demands, at the least cost.

    Attributes
    ----------
    objective : str
        ``cost`` an hour of the devices in use, their number (``devices``), or ``energy`` (watts).
    busy : float
        Share of each device that may be dealt out; the rest is for what nobody foresaw.
    max_per_hour : float or None
        Most that the devices in use may cost.

    Raises
    ------
    ConfigError
        For names that are used twice or not known, and for an objective whose numbers are not given.
    """

    demands: tuple[Demand, ...]
    kinds: tuple[Kind, ...]
    options: tuple[FleetOption, ...]
    objective: FleetObjective = "cost"
    busy: float = 0.8
    max_per_hour: float | None = None
    currency: str = ""

    def __post_init__(self) -> None:
        for what, items in (("demand", self.demands), ("kind", self.kinds)):
            if not items:
                raise ConfigError(f"a fleet needs at least one {what}")
            name, times = Counter(item.name for item in items).most_common(1)[0]
            if times > 1:
                raise ConfigError(f"{times} {what}s are called {name!r}; give each a name of its own")
        require_known("demand of an option", [o.demand for o in self.options], [d.name for d in self.demands])
        require_known("kind of an option", [o.kind for o in self.options], [k.name for k in self.kinds])
        if not 0 < self.busy <= 1:
            raise ConfigError(
                f"busy is the share of a device that may be dealt out, above 0 and at most 1, not {self.busy}"
            )
        if self.objective == "cost" or self.max_per_hour is not None:
            self._need("per_hour", 'a question of cost; labbench invents no price: give them, or ask for "devices"')
        if self.objective == "energy":
            self._need("idle_w", "a question of energy")
            unknown = [o for o in self.options if o.reason is None and o.energy_j is None]
            if unknown:
                o = unknown[0]
                raise ConfigError(
                    f"the energy of {o.demand} on {o.kind} ({o.name}) was not measured; measure it, or ask for another objective"
                )

    def _need(self, field_name: str, why: str) -> None:
        lacking = [kind.name for kind in self.kinds if getattr(kind, field_name) is None]
        if lacking:
            raise ConfigError(f"{field_name} of {lacking[0]} is not given, and is needed for {why}")

    @property
    def unit(self) -> str:
        """Of the objective."""
        return {"cost": f"{self.currency} an hour".strip(), "devices": "devices", "energy": "W"}[self.objective]

    @cached_property
    def prices(self) -> np.ndarray:
        """What one device of each kind adds to the objective."""
        names = {"cost": "per_hour", "energy": "idle_w"}
        return np.array(
            [1.0 if self.objective == "devices" else getattr(k, names[self.objective]) for k in self.kinds], float
        )

    @cached_property
    def per_hour(self) -> np.ndarray:
        """Price of one device of each kind, NaN where none is given."""
        return np.array([np.nan if kind.per_hour is None else kind.per_hour for kind in self.kinds])

    @cached_property
    def kind_index(self) -> dict[str, int]:
        """Place of each kind."""
        return {kind.name: place for place, kind in enumerate(self.kinds)}

    @cached_property
    def demand_index(self) -> dict[str, int]:
        """Place of each demand."""
        return {demand.name: place for place, demand in enumerate(self.demands)}

    def claim_of(self, option: FleetOption) -> Claim:
        """What a replica must hold."""
        asked = self.demands[self.demand_index[option.demand]]
        return claim(
            option.service_s,
            asked.max_latency_s,
            percentile=asked.latency_percentile,
            tail_s=option.tail_s,
            scv=option.scv,
            most=self.busy,
        )

    def why_not(self, option: FleetOption) -> str | None:
        """Why an option cannot be used here; ``None`` if it can."""
        if option.reason is not None:
            return option.reason
        kind, asked = self.kinds[self.kind_index[option.kind]], self.demands[self.demand_index[option.demand]]
        if option.memory_bytes > kind.memory_bytes:
            return f"needs {size(option.memory_bytes)} of memory, {kind.name} has {size(kind.memory_bytes)}"
        floor = self.claim_of(option).floor
        if floor >= self.busy and asked.max_latency_s is not None:
            needed = asked.max_latency_s * floor / self.busy
            return (
                f"with {percent(self.busy)} of {kind.name} to itself p{asked.latency_percentile} comes to {seconds(needed)} "
                f"at the least load, limit {seconds(asked.max_latency_s)}"
            )
        return None

    @cached_property
    def claims(self) -> Claims:
        """The options that can be used; one that another is no worse than in every respect is left out."""
        rows = []
        for place, option in enumerate(self.options):
            if self.why_not(option) is None:
                k, held = self.kind_index[option.kind], self.claim_of(option)
                floor, slope = held.floor / self.busy, held.slope * self.busy
                weight = (option.energy_j or 0.0) * option.per_second if self.objective == "energy" else 0.0
                memory = option.memory_bytes / self.kinds[k].memory_bytes
                most = (1 - floor) * slope
                rows.append(
                    (place, self.demand_index[option.demand], k, option.per_second, memory, floor, slope, most, weight)
                )
        columns = np.array(rows, float).reshape(-1, 9).T
        return _undominated(Claims(*columns[:3].astype(int), *columns[3:]))


def _undominated(claims: Claims) -> Claims:
    """Without options that another of the same demand and kind beats or equals in memory, share, rate and weight."""
    places: dict[tuple[int, int], list[int]] = {}
    carried = claims.per_second * claims.slope  # requests a second for each further share
    merit = np.stack(
        [claims.memory, claims.floor, -carried, claims.weight / claims.per_second, -claims.most * claims.per_second]
    )
    for row, pair in enumerate(zip(claims.demand.tolist(), claims.kind.tolist(), strict=True)):
        kept = places.setdefault(pair, [])
        if not any((merit[:, other] <= merit[:, row]).all() for other in kept):
            kept[:] = [other for other in kept if not (merit[:, row] <= merit[:, other]).all()] + [row]
    return claims.take(np.array(sorted(row for kept in places.values() for row in kept), int))
