"""What this host is: processor, caches, memory, limits, accelerators, software. Nothing is run or measured here."""

from __future__ import annotations

import os
import platform
import re
import socket
import sys
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from labbench.cells import content_id

# Instruction sets that decide how fast a model's precision runs on a CPU.
FLAGS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "amx_bf16",
    "amx_int8",
    "asimd",
    "sve",
    "i8mm",
    "bf16",
)
PACKAGES = (
    "labbench", "torch", "transformers", "numpy", "onnxruntime", "onnx", "onnxscript", "openvino", "pandas", "h5py",
    "scikit-learn",
)  # fmt: skip
CGROUP_UNLIMITED = 2**60  # bytes; cgroup v1 writes "no limit" as a number of this size


def _read(path: str) -> str | None:
    """A small system file's text, or None where there is none or it cannot be read."""
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None


@cache
def _cpuinfo() -> dict[str, str]:
    """Fields of the first processor in /proc/cpuinfo."""
    first = (_read("/proc/cpuinfo") or "").split("\n\n")[0]
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def cpu_name() -> str:
    """The processor's name as it gives it."""
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


def allowed_cores() -> list[int]:
    """Logical cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def cpu_quota() -> float | None:
    """Cores that the container may use, from cgroup v2 or v1; None without a limit."""
    if text := _read("/sys/fs/cgroup/cpu.max"):
        quota, period = text.split()
        return None if quota == "max" else int(quota) / int(period)
    quota, period = (
        _read("/sys/fs/cgroup/cpu/cpu.cfs_quota_us") or "-1",
        _read("/sys/fs/cgroup/cpu/cpu.cfs_period_us") or "1",
    )
    return int(quota) / int(period) if int(quota) > 0 else None


def physical_cores() -> int:
    """Cores to use by default: physical ones, within this process's affinity and the container's quota."""
    allowed = allowed_cores()
    siblings = {
        _read(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list") or str(core) for core in allowed
    }
    quota = cpu_quota()
    return max(1, min(len(siblings), int(quota) if quota else len(siblings)))


def _cgroup_memory() -> tuple[int | None, int]:
    """The container's memory limit (None without) and what it uses, in bytes."""
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        if (text := _read(limit)) and text != "max" and int(text) < CGROUP_UNLIMITED:
            return int(text), int(_read(used) or 0)
    return None, 0


def available_memory_bytes() -> int:
    """Memory that could be used now without swapping, within the container's limit."""
    import psutil

    free: int = psutil.virtual_memory().available
    limit, used = _cgroup_memory()
    return free if limit is None else min(free, limit - used)


def device_memory_bytes(machine: Mapping[str, Any], device: str) -> int | None:
    """Memory that a device of a detected machine has for a process, a CPU's within its container's limit; None if nothing tells."""
    if device == "cpu":
        return machine.get("memory_limit_bytes") or machine.get("memory_bytes")
    parts = [part for part in machine.get("accelerators", []) if part.get("device") == device]
    return parts[0].get("memory_bytes") if parts else None


def _caches() -> dict[str, int]:
    """Bytes of each cache level as one core sees it."""
    found = {}
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = (_read(f"{folder}/{name}") for name in ("level", "type", "size"))
        if level and kind != "Instruction" and size and (match := re.fullmatch(r"(\d+)([KMG])", size)):
            found[f"l{level}_bytes"] = int(match[1]) * {"K": 2**10, "M": 2**20, "G": 2**30}[match[2]]
    return found


# PCI vendors of accelerators that torch may know; a virtual display is none.
PCI_VENDORS = {"0x10de": "NVIDIA", "0x1002": "AMD", "0x8086": "Intel"}
PCI_CLASSES = ("0x03", "0x12")  # display controllers, processing accelerators (PCI Code and ID Assignment, 1.15)


def pci_accelerators(root: Path = Path("/sys/bus/pci/devices")) -> list[str]:
    """Accelerators on the PCI bus as ``vendor device-id``, without asking a driver or torch (Linux; else none)."""
    found = []
    for folder in sorted(root.glob("*")):
        kind, vendor, device = (_read(f"{folder}/{name}") or "" for name in ("class", "vendor", "device"))
        if kind.startswith(PCI_CLASSES) and vendor in PCI_VENDORS:
            found.append(f"{PCI_VENDORS[vendor]} {device}")
    return found


def accelerators() -> list[dict[str, Any]]:
    """Accelerators that torch sees; imports torch but opens no device context beyond the query."""
    import torch

    if not torch.accelerator.is_available():
        return []
    kind = torch.accelerator.current_accelerator()
    assert kind is not None
    module = getattr(torch, kind.type)
    found = []
    for index in range(torch.accelerator.device_count()):
        entry: dict[str, Any] = {"device": f"{'rocm' if torch.version.hip else kind.type}:{index}"}
        if hasattr(module, "get_device_properties"):
            properties = module.get_device_properties(index)
            entry["name"] = properties.name
            entry["memory_bytes"] = properties.total_memory
        found.append(entry)
    return found


def detect(*, with_accelerators: bool = False) -> dict[str, Any]:
    """Fingerprint of the host as plain data; accelerators only on request, since that imports torch."""
    import psutil

    cpu = _cpuinfo()
    flags = set((cpu.get("flags") or cpu.get("Features") or "").split())
    limit, _ = _cgroup_memory()
    found: dict[str, Any] = {
        "system": platform.system(),
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "cpu": {
            "name": cpu_name(),
            "vendor": cpu.get("vendor_id"),
            "physical_cores": psutil.cpu_count(logical=False) or physical_cores(),
            "logical_cores": psutil.cpu_count(),
            "allowed_cores": len(allowed_cores()),
            "quota_cores": cpu_quota(),
            "flags": [flag for flag in FLAGS if flag in flags],
            "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            "max_frequency_hz": _khz(_read("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq")),
            **_caches(),
        },
        "memory_bytes": psutil.virtual_memory().total,
        "memory_limit_bytes": limit,
        "swap_bytes": psutil.swap_memory().total,
        "virtualized": "hypervisor" in flags,
        "pci_accelerators": pci_accelerators(),
    }
    if with_accelerators:
        found["accelerators"] = accelerators()
    return found


def _khz(text: str | None) -> float | None:
    return float(text) * 1e3 if text else None


def machine_id(fingerprint: dict[str, Any]) -> str:
    """Id of the hardware and its name: processor, cores, memory in GiB, accelerators, hostname.

    Versions and free memory do not enter, so that an upgrade keeps the id. The hostname does, so that two boxes of one
    kind stay apart; set ``LABBENCH_HOST`` where hostnames are random (containers) to say which machine this is.
    """
    cpu = fingerprint["cpu"]
    return content_id(
        {
            "host": os.environ.get("LABBENCH_HOST") or socket.gethostname(),
            "cpu": cpu["name"],
            "cores": [cpu["physical_cores"], cpu["logical_cores"]],
            "memory_gib": round(fingerprint["memory_bytes"] / 2**30),
            "accelerators": fingerprint["pci_accelerators"],
        }
    )


def software() -> dict[str, str]:
    """Versions of Python, the system and the packages that matter, without importing any."""
    versions = {"python": platform.python_version(), "system": f"{platform.system()} {platform.release()}"}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions | ({"libc": " ".join(platform.libc_ver())} if sys.platform == "linux" else {})
