"""Energy from hardware counters: RAPL for CPUs, NVML for NVIDIA GPUs; elsewhere the reason why there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

POWERCAP = Path("/sys/class/powercap")
MICRO = 1e-6
MILLI = 1e-3


class Meter:
    """Joules between :meth:`start` and :meth:`stop`; this one has no counter, only the ``reason``."""

    method: str | None = None

    def __init__(self, reason: str | None = None) -> None:
        self.reason = reason

    def start(self) -> None:
        """Begin."""

    def stop(self) -> float | None:
        """Joules since :meth:`start`, or None."""
        return None


class Rapl(Meter):
    """Package energy of all sockets, from the powercap tree; counters that wrapped once are put right."""

    method = "RAPL package counters"

    def __init__(self, zones: list[Path]) -> None:
        super().__init__()
        self._zones = zones
        self._before: list[int] = []

    def _read(self) -> list[int]:
        return [int((zone / "energy_uj").read_text()) for zone in self._zones]

    def start(self) -> None:
        """Read the counters."""
        self._before = self._read()

    def stop(self) -> float | None:
        """Joules of the whole package since :meth:`start`: other processes included."""
        total = 0
        for zone, before, after in zip(self._zones, self._before, self._read(), strict=True):
            wrap = int((zone / "max_energy_range_uj").read_text()) if after < before else 0
            total += after - before + wrap
        return total * MICRO


class Nvml(Meter):
    """Total energy counter of one GPU (Volta and later)."""

    method = "NVML total energy"

    def __init__(self, nvml: Any, handle: Any) -> None:
        super().__init__()
        self._nvml, self._handle = nvml, handle
        self._before = 0

    def start(self) -> None:
        """Read the counter (millijoules)."""
        self._before = self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)

    def stop(self) -> float | None:
        """Joules of the whole board since :meth:`start`."""
        after: int = self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)
        return (after - self._before) * MILLI


def meter(device: str, powercap: Path = POWERCAP) -> Meter:
    """The meter for a device: a hardware counter, or one that says why there is none."""
    kind, _, index = device.partition(":")
    if kind == "cpu":
        return _rapl(powercap)
    if kind == "cuda":
        return _nvml(int(index or 0))
    return Meter(f"no energy counter is read for {kind}")


def _rapl(powercap: Path) -> Meter:
    zones = [zone for zone in sorted(powercap.glob("intel-rapl:*")) if zone.name.count(":") == 1]
    if not zones:
        return Meter(f"no RAPL counter: {powercap} has no intel-rapl zone (virtual machines rarely pass it on)")
    for zone in zones:
        try:
            (zone / "energy_uj").read_text()
        except OSError as error:
            return Meter(
                f"RAPL is there but cannot be read: {zone}/energy_uj: {error.strerror}; allow it, or run as root"
            )
    return Rapl(zones)


def _nvml(index: int) -> Meter:
    try:
        import pynvml
    except ImportError:
        return Meter("NVML is not installed: pip install nvidia-ml-py")
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError as error:
        return Meter(f"NVML has no energy counter for GPU {index}: {error}")
    return Nvml(pynvml, handle)
