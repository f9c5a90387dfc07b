"""The host: what it is (:func:`detect`), what it can do (:func:`ceilings.measured`), what is missing (:func:`doctor.examine`)."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING

from labbench.machine.detect import (
    available_memory_bytes,
    cpu_name,
    detect,
    device_memory_bytes,
    machine_id,
    physical_cores,
    software,
)

if TYPE_CHECKING:
    from labbench.records import Environment

__all__ = [
    "available_memory_bytes", "cpu_name", "detect", "device_memory_bytes", "environment", "machine_id", "physical_cores",
    "software",
]  # fmt: skip


def environment(devices: Iterable[str] = ("cpu",)) -> Environment:
    """Machine and software, for records.

    Parameters
    ----------
    devices : iterable of str
        Those that cells run on. The ceilings of each that is there are measured on first use (about 15 s), then taken
        from the cache. Anything but the CPU imports torch.
    """
    from labbench.machine.ceilings import measured
    from labbench.records import Environment

    others = [device for device in dict.fromkeys(devices) if device != "cpu"]
    fingerprint = detect(with_accelerators=bool(others))
    return Environment(
        machine_id=machine_id(fingerprint),
        hostname=socket.gethostname(),
        machine={
            **fingerprint,
            "ceilings": {device: measured(device) for device in ["cpu", *filter(_is_there, others)]},
        },
        software=software(),
    )


def _is_there(device: str) -> bool:
    from labbench.runtimes.devices import absent

    return absent(device) is None
