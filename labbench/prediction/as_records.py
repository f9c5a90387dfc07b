"""Predictions as records, so that they can be kept, exported and looked up; never where results are asked for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from labbench.records import Estimate, Memory, Record, Series

if TYPE_CHECKING:
    import pandas as pd

    from labbench.cells import Cell


def as_records(predicted: pd.DataFrame, cells: Iterable[Cell], source: str) -> list[Record]:
    """Records with provenance ``predicted``.

    An :class:`~labbench.records.Estimate` has the confidence interval of something that was measured, which a predictive
    interval is not. So that stands in ``metrics``: ``<series>_low_s``, ``<series>_high_s``, ``memory_increase_low_bytes``,
    ``memory_increase_high_bytes``, the coverage ``level`` that they stand for, and ``out_of_domain`` (1: a guess, the level
    does not hold). Rows without a prediction are left out.

    Parameters
    ----------
    predicted : DataFrame
        Of :meth:`labbench.prediction.Predictor.predict`, with a column ``cell_id``.
    cells : iterable of Cell
        The resolved cells that were asked about.
    source : str
        Which predictor made them.

    Returns
    -------
    list of Record
        One a cell and machine.
    """
    known = {cell.id: cell for cell in cells}
    answered = predicted[predicted["latency_s"].notna()]
    return [
        _record(known[str(cell_id)], str(machine), rows.to_dict("records"), source)
        for (cell_id, machine), rows in answered.groupby(["cell_id", "machine_id"], sort=False, observed=True)
    ]


def _record(cell: Cell, machine: str, rows: list[dict[str, Any]], source: str) -> Record:
    first = rows[0]
    metrics = {
        "level": min(row["level"] for row in rows),
        "out_of_domain": float(any(r["out_of_domain"] for r in rows)),
    }
    for row in rows:
        metrics |= {f"{row['series']}_{end}_s": row[f"latency_{end}_s"] for end in ("low", "high")}
    memory = first.get("memory_increase_bytes", np.nan)
    if np.isfinite(memory):
        metrics |= {f"memory_increase_{end}_bytes": first[f"memory_increase_{end}_bytes"] for end in ("low", "high")}
    reason = f"; {first['reason']}" if isinstance(first["reason"], str) else ""
    return Record(
        cell=cell,
        status="ok",
        provenance="predicted",
        source=f"{source}: {first['method']}{reason}",
        machine_id=machine,
        memory=Memory(increase_bytes=round(memory), method="predicted") if np.isfinite(memory) else Memory(),
        metrics={name: float(value) for name, value in metrics.items() if np.isfinite(value)},
        series=[_series(row) for row in rows],
    )


def _series(row: dict[str, Any]) -> Series:
    """A call does ``batch_size`` samples; other units (tokens, seconds of audio) are told only where the row has them."""
    items, unit = row.get("items_per_call", np.nan), row.get("throughput_unit")
    if not items > 0:
        items, unit = row["batch_size"], "samples"
    return Series(
        name=str(row["series"]),
        items_per_call=items,
        unit=str(unit),
        n_samples=0,
        median_s=Estimate(value=row["latency_s"]),
        throughput=items / row["latency_s"],
    )
