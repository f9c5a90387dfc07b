"""The machine as a table for reports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from labbench.records import UNKNOWN_HOST

if TYPE_CHECKING:
    import pandas as pd

    from labbench.records import Environment


def machine_table(environments: Mapping[str, Environment]) -> pd.DataFrame:
    """One column an environment: processor, memory, ceilings, versions; human units.

    An imported environment has what its source tells, and no ceilings; a machine whose host is not known goes by its device.
    """
    import pandas as pd

    columns: dict[str, dict[str, str]] = {}
    for one in environments.values():
        columns[_label(one)] = {
            **_processor(one),
            **{f"accelerator {part['device']}": str(part.get("name")) for part in one.machine.get("accelerators", [])},
            **({"memory": f"{one.machine['memory_bytes'] / 2**30:.1f} GiB"} if "memory_bytes" in one.machine else {}),
            **{key: text for device in one.machine.get("ceilings", {}) for key, text in _ceilings(one, device).items()},
            **{
                name: one.software[name]
                for name in ("python", "torch", "transformers", "onnxruntime", "openvino")
                if name in one.software
            },
        }
    return pd.DataFrame(columns)


def _label(environment: Environment) -> str:
    if environment.hostname != UNKNOWN_HOST:
        return environment.hostname
    parts = environment.machine.get("accelerators") or [environment.machine.get("cpu", {})]
    name = ", ".join(str(part["name"]) for part in parts if part.get("name")) or "unknown device"
    versions = ", ".join(
        f"{key} {environment.software[key]}" for key in ("torch", "cuda") if key in environment.software
    )
    return f"{name} ({versions})" if versions else name


def _processor(environment: Environment) -> dict[str, str]:
    cpu = environment.machine.get("cpu")
    if cpu is None:
        return {}
    cores = f", {cpu['physical_cores']} cores" if "physical_cores" in cpu else ""
    flags = {"instruction sets": ", ".join(cpu["flags"]) or "none that matter"} if "flags" in cpu else {}
    return {"processor": f"{cpu.get('name') or 'unknown'}{cores}", **flags}


def _ceilings(environment: Environment, device: str) -> dict[str, str]:
    """Ceilings of a device, for people; the CPU's need no name."""
    found = environment.ceilings(device)
    assert found is not None
    of = "" if device == "cpu" else f" of {device}"
    rates = {f"matrix product{of}, {key}": f"{rate / 1e9:.0f} GFLOP/s" for key, rate in found["gemm_flops"].items()}
    return rates | {
        f"memory copy{of}": f"{found['bandwidth_bytes_s'] / 1e9:.0f} GB/s",
        f"dispatch of an eager operator{of}": f"{found['dispatch_s'] * 1e6:.1f} µs",
        f"ceilings{of} measured": "undisturbed" if found["quiet"] else f"disturbed: {'; '.join(found['disturbed_by'])}",
    }
