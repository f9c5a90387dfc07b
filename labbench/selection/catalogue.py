"""Devices to choose from: measured here, imported, or known by datasheet alone, with what the user pays for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from labbench.config import ConfigError

if TYPE_CHECKING:
    import pandas as pd

    from labbench.records import Environment
    from labbench.selection.requirements import Requirements

# Words in a device's name that tell its maker; brands, since drivers often leave the maker out.
MAKERS = {
    "NVIDIA": ("nvidia", "geforce", "quadro", "tesla", "rtx", "gtx"),
    "AMD": ("amd", "radeon", "instinct", "epyc", "ryzen", "threadripper"),
    "Intel": ("intel", "intel(r)", "genuineintel", "xeon", "core", "arc"),
    "Apple": ("apple",),
    "ARM": ("arm", "neoverse", "graviton", "ampere"),
}
# NVIDIA's compute capability 8.0 (Ampere) brought bfloat16; CUDA C++ Programming Guide, "Arithmetic Instructions".
WITHOUT_BF16 = ("Kepler", "Maxwell", "Pascal", "Volta", "Turing")
WITHOUT_FAST_FP16 = ("Kepler", "Maxwell")  # no half-precision arithmetic before Pascal; the same guide


@dataclass(frozen=True)
class Facts:
    """What is known of a device without running anything on it.

    Attributes
    ----------
    vendor : str or None
        Its maker.
    memory_bytes : float
        What was detected there, else what its datasheet says (of several that fit the least); NaN where nothing tells.
    architecture : str
        E.g. ``Ampere``; empty where nothing tells.
    """

    vendor: str | None
    memory_bytes: float
    architecture: str = ""

    def lacks(self, precision: str) -> str | None:
        """Why it cannot run a precision as such, or None."""
        if precision == "bf16" and self.architecture in WITHOUT_BF16:
            return f"{self.architecture} has no bf16 arithmetic, which came with Ampere"
        if precision in ("fp16", "amp") and self.architecture in WITHOUT_FAST_FP16:
            return f"{self.architecture} has no half-precision arithmetic, which came with Pascal"
        return None


def vendor_of(device_name: str) -> str | None:
    """Maker of a device by its name; of a bare model number by its datasheet; None where neither tells."""
    words = device_name.lower().replace("-", " ").split()
    named = next((maker for maker, brands in MAKERS.items() if any(word in brands for word in words)), None)
    return named or _maker_by_sheet(device_name)


@cache
def _maker_by_sheet(device_name: str) -> str | None:
    from labbench.machine.datasheet import datasheets

    makers = {sheet.maker for sheet in datasheets(device_name)}
    return makers.pop() if len(makers) == 1 else None


def facts_of(machine_id: str, device: str, device_name: str | None, environments: Mapping[str, Environment]) -> Facts:
    """Of a device of a machine: what was detected there first, then what its datasheet says."""
    from labbench.machine import device_memory_bytes
    from labbench.machine.datasheet import datasheets

    machine: dict[str, Any] = next((one.machine for one in environments.values() if one.machine_id == machine_id), {})
    memory = float(device_memory_bytes(machine, device) or np.nan)
    if device == "cpu":
        name = str((machine.get("cpu") or {}).get("name") or device_name or "")
        return Facts(vendor_of(name), memory)
    parts = [one for one in machine.get("accelerators", []) if one.get("device") == device]
    name = str(device_name or (parts[0].get("name") if parts else None) or "")
    sheets = datasheets(name) if name else ()
    architectures = {sheet.architecture for sheet in sheets}
    architecture = architectures.pop() if len(architectures) == 1 else ""
    if np.isnan(memory):
        memory = min((sheet.memory_bytes for sheet in sheets if sheet.memory_bytes), default=memory)
    return Facts(vendor_of(name) if name else None, memory, architecture)


def card_rows(frame: pd.DataFrame, asked: pd.DataFrame, gpus: Iterable[str]) -> pd.DataFrame:
    """Rows to predict for cards that nobody measured: each workload asked about in each way a card like them ran one.

    Parameters
    ----------
    frame : DataFrame
        ``Store.latest()``: which runtimes and precisions ran on cards.
    asked : DataFrame
        Its rows that the question is about.
    gpus : iterable of str
        Names that a datasheet fits.

    Raises
    ------
    ConfigError
        If no datasheet fits a name, or no workload is known well enough.
    """
    import pandas as pd

    from labbench.prediction.cells import MEASURED_AS, SERIES_COLUMNS
    from labbench.prediction.features import PER_CLASS, WORKLOAD, Ceilings

    gpus = list(gpus)
    for name in gpus:
        if Ceilings.named(name) is None:
            raise ConfigError(
                f"no datasheet of one card, or of cards that are alike, fits {name!r}; name it in full, e.g. 'H100 PCIe 80 GB'"
            )
    ran = frame[(frame["status"] == "ok") & frame["latency_s"].notna()]
    cards = ran[ran["device"].astype("str").str.startswith("cuda") & (ran["world_size"] == 1)]
    ways = cards[["runtime", "precision", "mode"]].drop_duplicates()
    if ways.empty:  # refused by the predictor, with the reason
        ways = ran[["precision", "mode"]].drop_duplicates().assign(runtime="eager")
    demands = ran[ran["flops"].notna()]
    by_class = [name for name in demands if str(name).startswith(PER_CLASS)]
    columns = ["primary", *SERIES_COLUMNS, *MEASURED_AS, *by_class]
    demands = demands.drop_duplicates([*WORKLOAD, "series"])[[*WORKLOAD, *columns]]
    wanted = asked["model"].astype("str").unique(), asked["mode"].astype("str").unique()
    demands = demands[demands["model"].astype("str").isin(wanted[0]) & demands["mode"].astype("str").isin(wanted[1])]
    keys = ["precision", "mode"]
    pairs = demands.astype(dict.fromkeys(keys, "str")).merge(ways.astype(dict.fromkeys(keys, "str")), on=keys)
    if pairs.empty:
        raise ConfigError(
            f"nothing can be predicted for {gpus[0]}: no model asked about was measured with a footprint at a precision that ran; "
            "measure one here with `labbench run`"
        )
    pairs = pairs.assign(device="cuda:0", world_size=1, platform="cuda:0/" + pairs["runtime"].astype("str"))
    return pd.concat([pairs.assign(machine_id=name, device_name=name) for name in gpus], ignore_index=True)


def catalogue(frame: pd.DataFrame, environments: Mapping[str, Environment], requirements: Requirements) -> pd.DataFrame:
    """One row a device: what it is, how it is known, and its price where the user gave one.

    Returns
    -------
    DataFrame
        ``machine_id``, ``device``, ``device_name``, ``vendor``, ``memory_bytes``, ``architecture``, ``known``
        (``measured``, ``imported``, ``simulated`` or ``datasheet``), ``cells`` (records), ``per_hour``, ``currency``, ``as_of``,
        ``age_days``, ``source`` of the price.
    """
    import pandas as pd

    there = frame[frame["provenance"].isin(("measured", "imported", "simulated"))]
    places = []
    for (machine, device), rows in there.groupby(["machine_id", "device"], observed=True):
        names = rows["device_name"].dropna().astype("str").unique()
        known = " and ".join(sorted(rows["provenance"].astype("str").unique()))
        places.append((str(machine), str(device), names[0] if len(names) else None, known, len(rows)))
    places += [(name, "cuda:0", name, "datasheet", 0) for name in requirements.gpus]
    rows = []
    for machine, device, name, known, cells in places:
        facts = facts_of(machine, device, name, environments)
        price = requirements.price_of(machine, str(name), device)
        rows.append(
            {
                "machine_id": machine, "device": device, "device_name": name, "vendor": facts.vendor,
                "memory_bytes": facts.memory_bytes, "architecture": facts.architecture, "known": known, "cells": cells,
                "per_hour": price.per_hour if price else np.nan, "currency": price.currency if price else None,
                "as_of": price.as_of if price else None, "age_days": price.age_days() if price else None,
                "source": price.source if price else None,
            }
        )  # fmt: skip
    return pd.DataFrame(rows)
