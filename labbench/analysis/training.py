"""What a training step consists of: parts of its time, causes of its memory, variants beside the plain way, inference beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from labbench.analysis import roofline
from labbench.analysis.labels import WORK
from labbench.records import CAUSES, PARTS
from labbench.words import count

if TYPE_CHECKING:
    import pandas as pd

    from labbench.records import Environment

INPUT = tuple(name for name in WORK if name not in ("mode", "series", "kv_cache", "variant"))
WHERE = ("machine_id", "provenance")
RUNTIME_BYTES = (
    40e6  # code and tables that a first step brings into a CPU's process: 39 or 40 MB for BERT and GPT-2, of any batch
)


def steps(frame: pd.DataFrame, environments: Mapping[str, Environment]) -> pd.DataFrame:
    """Training steps that ran, with their parts and what they reach.

    Parameters
    ----------
    frame : DataFrame
        Tidy rows (:meth:`labbench.store.Store.latest`).
    environments : mapping
        Environment id to machine, for its ceilings.

    Returns
    -------
    DataFrame
        The rows of status ok in mode training, and: ``<part>_s`` of each part (NaN where it was not told); ``parts_s``, their
        sum; ``told``, that sum over the step's latency; ``backward_forward``, the backward pass over the forward pass and loss;
        ``mfu``, model FLOP/s over the rate of matrix products measured on the machine (Chowdhery et al., "PaLM", 2022,
        appendix B; recomputed activations do not count); ``mfu_datasheet``, over that of the device's datasheet; ``<cause>_bytes``
        of each cause of memory (NaN where it was not measured); ``estimate_bytes``, counted: the most bytes of tensors that live
        at one time, on a CPU with the copies that convolutions make plus :data:`RUNTIME_BYTES`.
    """
    import pandas as pd

    rows = frame[(frame["status"] == "ok") & (frame["mode"] == "training") & frame["primary"]]
    rows = rows[rows["latency_s"].notna()].reset_index(drop=True)
    found = {f"{part}_s": _column(rows, f"part_s_{part}") for part in PARTS}
    parts = pd.DataFrame(found, index=rows.index)
    parts["parts_s"] = parts.sum(axis=1, min_count=1)
    parts["told"] = parts["parts_s"] / rows["latency_s"]
    parts["backward_forward"] = parts["backward_s"] / parts[["forward_s", "loss_s"]].sum(axis=1, min_count=1)
    for cause in CAUSES:
        parts[f"{cause}_bytes"] = _column(rows, f"memory_{cause}_bytes")
    on_cpu = rows["device"].astype("str").str.startswith("cpu")
    tensors, on_cpus = (rows[name].astype(float) for name in ("tensor_peak_bytes", "tensor_peak_cpu_bytes"))
    parts["estimate_bytes"] = np.where(on_cpu, on_cpus + RUNTIME_BYTES, tensors)
    return rows.join(parts).join(_utilization(rows, environments))


def _column(rows: pd.DataFrame, name: str) -> np.ndarray:
    """A column that is there only if some record has a value."""
    values: np.ndarray = rows[name].to_numpy(float) if name in rows else np.full(len(rows), np.nan)
    return values


def _utilization(rows: pd.DataFrame, environments: Mapping[str, Environment]) -> pd.DataFrame:
    """Share of the measured and of the published rate that the model's FLOPs reach."""
    import pandas as pd

    placed = roofline.place(rows, environments).set_index("record_id")
    measured = (placed["achieved_flops"] / placed["peak_flops"]).reindex(rows["record_id"]).to_numpy()
    published = rows["flops"].to_numpy(float) / rows["latency_s"].to_numpy(float) / _published(rows)
    return pd.DataFrame({"mfu": measured, "mfu_datasheet": published}, index=rows.index)


def _published(rows: pd.DataFrame) -> np.ndarray:
    """FLOP/s of each row's precision on its accelerator, by its datasheet; NaN for CPUs and what no sheet tells."""
    from labbench.machine.datasheet import datasheet

    rates = np.full(len(rows), np.nan)
    accelerated = ~rows["device"].astype("str").str.startswith("cpu").to_numpy(bool)
    for i in np.flatnonzero(accelerated):
        sheet = datasheet(str(rows["device_name"].iat[i]))
        if sheet is not None:
            rates[i] = sheet.flops.get(str(rows["precision"].iat[i]), np.nan)
    return rates


def variants(steps: pd.DataFrame) -> pd.DataFrame:
    """Each variant, precision and runtime of a model's training beside the plain way: fp32, no variant, the usual platform.

    Parameters
    ----------
    steps : DataFrame
        From :func:`steps`.

    Returns
    -------
    DataFrame
        The steps, and ``kind`` (what departs from the plain way, ``plain`` if nothing does), ``time_ratio``,
        ``memory_ratio`` and ``energy_ratio`` of an item to that of the plain step of the same model, input, batch, threads and
        machine (NaN where there is none).
    """
    keys = [*INPUT, *WHERE]
    rows = steps.assign(kind=_kind(steps), item_s=steps["latency_s"] / steps["items_per_call"].astype(float))
    rows["item_j"] = rows["joules_per_call"].astype(float) / rows["items_per_call"].astype(float)
    plain = rows[rows["kind"] == "plain"].drop_duplicates(keys)
    both = rows[keys].merge(plain[[*keys, "item_s", "item_j", "memory_increase_bytes"]], on=keys, how="left")
    for name, column in (
        ("time_ratio", "item_s"),
        ("memory_ratio", "memory_increase_bytes"),
        ("energy_ratio", "item_j"),
    ):
        rows[name] = rows[column].to_numpy(float, na_value=np.nan) / both[column].to_numpy(float, na_value=np.nan)
    return rows.drop(columns=["item_s", "item_j"]).reset_index(drop=True)


def _kind(steps: pd.DataFrame) -> list[str]:
    """What departs from fp32 in eager mode with all parameters trained by AdamW."""
    import pandas as pd

    usual = steps["platform"].astype("str").value_counts()
    base = "cpu/eager" if "cpu/eager" in usual.index else (usual.index[0] if len(usual) else "")
    kinds = []
    for row in steps.itertuples():
        where = str(row.platform)
        loader = row.loader_workers is not pd.NA and row.loader_workers == row.loader_workers
        where = where.replace(f"·{row.loader_workers}w", "") if loader else where
        parts = [where] if where != base else []
        parts += [f"loader with {count(int(row.loader_workers), 'worker')}"] if loader else []
        parts += [str(row.precision)] if row.precision != "fp32" else []
        parts += [str(row.variant)] if isinstance(row.variant, str) else []
        kinds.append(", ".join(parts) or "plain")
    return kinds


def beside_inference(frame: pd.DataFrame) -> pd.DataFrame:
    """A training step beside an inference call of the same model, platform, input, batch size and precision.

    Returns
    -------
    DataFrame
        The inference's rows (a forward pass, or reading the prompt), and ``inference_s``, ``step_s``, ``time_ratio``,
        ``memory_ratio``, ``energy_ratio`` (step over inference).
    """
    rows = frame[(frame["status"] == "ok") & frame["primary"] & frame["latency_s"].notna()]
    rows = rows[rows["variant"].isna() & rows["kv_cache"].isna()]
    keys = [*INPUT, *WHERE, "precision", "platform"]
    results = ["latency_s", "memory_increase_bytes", "joules_per_call"]
    call, step = (rows[rows["mode"] == mode].drop_duplicates(keys) for mode in ("inference", "training"))
    both = call.merge(step[[*keys, *results]], on=keys, suffixes=("", "_step"))
    time, memory, energy = (both[f"{name}_step"].astype(float) / both[name].astype(float) for name in results)
    return both.assign(
        inference_s=both["latency_s"],
        step_s=both["latency_s_step"],
        time_ratio=time,
        memory_ratio=memory,
        energy_ratio=energy,
    )


def memory(steps: pd.DataFrame) -> pd.DataFrame:
    """Counted beside measured memory of training steps.

    Returns
    -------
    DataFrame
        ``model``, ``platform``, ``precision``, ``batch_size``, ``resident_bytes`` (peak above an empty process), ``live_bytes``
        (without what the heap keeps), ``estimate_bytes``, and the estimate's ``error`` and ``error_resident`` (relative to the
        live and to the resident peak).
    """
    known = steps["memory_live_bytes"].notna() & steps["estimate_bytes"].notna()
    rows = steps[known].reset_index(drop=True)
    live, resident = rows["memory_live_bytes"].astype(float), rows["memory_increase_bytes"].astype(float)
    estimate = rows["estimate_bytes"]
    return rows[["model", "platform", "precision", "batch_size"]].assign(
        resident_bytes=resident,
        live_bytes=live,
        estimate_bytes=estimate,
        error=estimate / live - 1,
        error_resident=estimate / resident - 1,
    )
