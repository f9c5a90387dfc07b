"""The machine as a table for reports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from labbench.records import Environment


def machine_table(environments: Mapping[str, Environment]) -> pd.DataFrame:
    """One column an environment: processor, memory, ceilings, versions; human units."""
    import pandas as pd

    columns: dict[str, dict[str, str]] = {}
    for one in environments.values():
        cpu = one.machine["cpu"]
        columns[one.hostname] = {
            "processor": f"{cpu['name']}, {cpu['physical_cores']} cores",
            "instruction sets": ", ".join(cpu["flags"]) or "none that matter",
            "memory": f"{one.machine['memory_bytes'] / 2**30:.1f} GiB",
            **{key: text for device in one.machine["ceilings"] for key, text in _ceilings(one, device).items()},
            **{
                name: one.software[name]
                for name in ("python", "torch", "transformers", "onnxruntime", "openvino")
                if name in one.software
            },
        }
    return pd.DataFrame(columns)


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
