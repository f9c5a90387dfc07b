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
        cpu, found = one.machine["cpu"], one.machine["ceilings"]
        rates = {f"matrix product, {key}": f"{rate / 1e9:.0f} GFLOP/s" for key, rate in found["gemm_flops"].items()}
        columns[one.hostname] = {
            "processor": f"{cpu['name']}, {cpu['physical_cores']} cores",
            "features": ", ".join(cpu["flags"]),
            "memory": f"{one.machine['memory_bytes'] / 2**30:.1f} GiB",
            **rates,
            "memory copy": f"{found['bandwidth_bytes_s'] / 1e9:.0f} GB/s",
            "dispatch of an eager operator": f"{found['dispatch_s'] * 1e6:.1f} µs",
            **{
                name: one.software[name]
                for name in ("python", "torch", "transformers", "onnxruntime", "openvino")
                if name in one.software
            },
        }
    return pd.DataFrame(columns)
