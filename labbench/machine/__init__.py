"""The host: what it is (:func:`detect`), what it can do (:func:`ceilings.measured`), what is missing (:func:`doctor`)."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from labbench.machine.detect import available_memory_bytes, cpu_name, detect, machine_id, physical_cores, software

if TYPE_CHECKING:
    from labbench.machine.doctor import Report
    from labbench.records import Environment

__all__ = [
    "available_memory_bytes", "cpu_name", "detect", "doctor", "environment", "machine_id", "physical_cores", "software",
]  # fmt: skip


def environment() -> Environment:
    """Machine and software, for records; measures the ceilings on first use (about 15 s), then takes them from the cache."""
    from labbench.machine.ceilings import measured
    from labbench.records import Environment

    fingerprint = detect()
    identity = machine_id(fingerprint)
    return Environment(
        machine_id=identity,
        hostname=socket.gethostname(),
        machine={**fingerprint, "ceilings": measured()},
        software=software(),
    )


def doctor(*, measure: bool = False) -> Report:
    """What this machine is, what it can run, what is missing and how to get it."""
    from labbench.machine.doctor import examine

    return examine(measure=measure)
