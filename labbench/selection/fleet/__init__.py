"""Many workloads on a finite fleet: what runs where, how busy, at what cost, what if a device fails, and what contradicts what."""

from __future__ import annotations

from labbench.selection.fleet.assign import assign
from labbench.selection.fleet.conflicts import Conflict, Infeasible
from labbench.selection.fleet.plan import Assignment, Placement, faults
from labbench.selection.fleet.problem import Demand, Fleet, FleetOption, Kind

__all__ = [
    "Assignment",
    "Conflict",
    "Demand",
    "Fleet",
    "FleetOption",
    "Infeasible",
    "Kind",
    "Placement",
    "assign",
    "faults",
]
