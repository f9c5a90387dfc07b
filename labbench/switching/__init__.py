"""Load-aware switching: which of several deployed backends each request goes to, and what happens when one fails.

One dispatcher, in two worlds: a simulation whose service times are drawn from measured ones, and processes of this machine.
"""

from __future__ import annotations

from labbench.switching.arrivals import PATTERNS, Arrivals, bursts, diurnal, make_arrivals, poisson, read_arrivals
from labbench.switching.dispatcher import Dispatcher, Settings
from labbench.switching.disturbances import Disturbance, kill, slow
from labbench.switching.options import USUAL_LOAD, Option, SwitchingError, capacity, named, stored_cells, stored_options
from labbench.switching.policies import COMPARED, POLICIES, Policy, make_policy
from labbench.switching.run import Run, calibrate, compared, hindsight, read_run, serve, simulate

__all__ = [
    "COMPARED",
    "PATTERNS",
    "POLICIES",
    "USUAL_LOAD",
    "Arrivals",
    "Dispatcher",
    "Disturbance",
    "Option",
    "Policy",
    "Run",
    "Settings",
    "SwitchingError",
    "bursts",
    "calibrate",
    "capacity",
    "compared",
    "diurnal",
    "hindsight",
    "kill",
    "make_arrivals",
    "make_policy",
    "named",
    "poisson",
    "read_arrivals",
    "read_run",
    "serve",
    "simulate",
    "slow",
    "stored_cells",
    "stored_options",
]
