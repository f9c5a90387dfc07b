"""The largest batch whose predicted peak memory fits a device: of cells that nobody measured, and without running anything.

Where many searches of largest batches are known, with batches that failed, :mod:`labbench.prediction.batch_limits` learns from
those; here measured peaks of memory are what was learnt from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from labbench.cells import Cell
from labbench.prediction.batch_limits import CONTEXT_BYTES, ladder
from labbench.prediction.cells import candidates
from labbench.prediction.config import PredictionError
from labbench.prediction.features import MEMORY

if TYPE_CHECKING:
    import pandas as pd

    from labbench.prediction import Predictor
    from labbench.records import Environment

COUNTED_AT = (8, 32)  # batch sizes whose tensors are counted; between and beyond them demand is a line
MOST = 2**16  # larger batches are not asked about
DESCRIBED = ("model", "mode", "seq_len", "image_size", "frames", "audio_s", "precision", "platform", "machine_id")


def memory_of(
    environments: Mapping[str, Environment], gpu: str | None = None, bytes_each: float | None = None
) -> dict[tuple[str, str], float]:
    """Bytes of memory of each machine's devices; or of a card by its datasheet, as ``(gpu, "cuda:0")``.

    Parameters
    ----------
    environments : mapping
        ``Store.environments()``.
    gpu : str, optional
        Name of a card.
    bytes_each : float, optional
        Take this for the memory of each.

    Raises
    ------
    PredictionError
        If no datasheet tells the memory of ``gpu``, or those that fit the name do not agree.
    """
    if gpu and bytes_each:
        return {(gpu, "cuda:0"): bytes_each}
    if gpu:
        from labbench.machine.datasheet import datasheets

        sizes = {sheet.memory_bytes for sheet in datasheets(gpu)}
        if len(sizes) != 1 or None in sizes:
            raise PredictionError(
                f"the datasheets do not agree on how much memory {gpu!r} has: name one card in full, or say it with --memory-gb"
            )
        return {(gpu, "cuda:0"): float(sizes.pop() or 0.0)}
    from labbench.machine import device_memory_bytes

    found: dict[tuple[str, str], float] = {}
    for one in environments.values():
        devices = ("cpu", *(part["device"] for part in one.machine.get("accelerators", [])))
        there = {name: bytes_each or device_memory_bytes(one.machine, name) for name in devices}
        found |= {(one.machine_id, name): float(size) for name, size in there.items() if size}
    return found


def largest_batches(
    predictor: Predictor,
    cells: Iterable[Cell],
    memory_bytes: Mapping[tuple[str, str], float],
    level: float | None = None,
) -> pd.DataFrame:
    """The largest batch of each cell on each device, whatever batch sizes the cells have.

    Parameters
    ----------
    predictor : Predictor
        Fitted to records that hold memory.
    cells : iterable of Cell
        Resolved cells (:func:`labbench.campaign.resolve`).
    memory_bytes : mapping of (str, str) to float
        Of machine (or name of a card) and device; see :func:`memory_of`. ``CONTEXT_BYTES`` of it are left to what a worker holds
        before it loads a model.
    level : float, optional
        Of the intervals; default: the predictor's.

    Returns
    -------
    DataFrame
        One row a workload, platform and device: ``memory_bytes``; ``batch_size``, the largest whose predicted peak fits;
        ``safe_batch_size``, the largest whose interval fits wholly; both 0 where not even one sample does and at most ``MOST``;
        missing where memory is not predicted, with the ``reason``; ``provenance`` is ``predicted``.

    Raises
    ------
    PredictionError
        If the predictor has learnt nothing of memory, or the memory of none of the devices is known.
    """
    import pandas as pd

    if MEMORY not in predictor.quantities:
        raise PredictionError("no memory was measured, so it is not known which batch fits: `labbench run` measures it")
    if not memory_bytes:
        raise PredictionError("it is not known how much memory a device has: say it with --memory-gb")
    cells = list({_without_batch(cell).id: cell for cell in cells}.values())
    names = sorted({machine for machine, _ in memory_bytes})
    counted = [_first_series(candidates([_at(cell, batch) for cell in cells], names)) for batch in COUNTED_AT]
    places = list(zip(counted[0]["machine_id"], counted[0]["device"], strict=True))
    there = np.array([place in memory_bytes for place in places])
    low, high = (one[there].reset_index(drop=True) for one in counted)
    rungs = ladder(MOST)
    asked = pd.concat([_line(low, high, int(batch)) for batch in rungs], ignore_index=True)
    if set(names).isdisjoint(machine for machine, _ in predictor.ceilings):
        asked["device_name"] = asked["machine_id"]
    found = predictor.predict(asked, level)
    shape = (len(rungs), len(low))
    room = np.array([memory_bytes[place] for place, known in zip(places, there, strict=True) if known]) - CONTEXT_BYTES
    stem, unit = MEMORY.rsplit("_", 1)
    point, upper = (found[name].to_numpy(float).reshape(shape) for name in (MEMORY, f"{stem}_high_{unit}"))
    out = low.reindex(columns=list(DESCRIBED)).dropna(axis=1, how="all")
    out["memory_bytes"] = room + CONTEXT_BYTES
    out["batch_size"], out["safe_batch_size"] = _fitting(rungs, point, room), _fitting(rungs, upper, room)
    out["provenance"] = "predicted"
    first = found.iloc[: len(low)]
    out["reason"] = first["reason"].where(np.isnan(point[0]), None).to_numpy() if len(low) else None
    return out


def _fitting(rungs: np.ndarray, needed: np.ndarray, room: np.ndarray) -> np.ndarray:
    """Largest batch that needs no more than there is room for: between rungs, memory is a line."""
    out = np.full(len(room), np.nan)
    for one, (column, most) in enumerate(zip(needed.T, room, strict=True)):
        if np.isfinite(column).all():
            grown = np.maximum.accumulate(column)
            out[one] = 0 if grown[0] > most else np.floor(np.interp(most, grown, rungs))
    return out


def _first_series(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["primary"].astype(bool)].reset_index(drop=True)


def _line(low: pd.DataFrame, high: pd.DataFrame, batch: int) -> pd.DataFrame:
    """Rows with the demand at a batch size, on the line through what was counted."""
    grows = [name for name in low.select_dtypes("number") if not low[name].equals(high[name])]
    counted = [name for name in grows if name != "batch_size"]
    share = (batch - COUNTED_AT[0]) / (COUNTED_AT[1] - COUNTED_AT[0])
    at = low[counted] + share * (high[counted] - low[counted])
    return low.assign(**{name: np.maximum(at[name], 0.0) for name in counted}, batch_size=batch)


def _at(cell: Cell, batch: int) -> Cell:
    return Cell(workload=cell.workload.model_copy(update={"batch_size": batch}), platform=cell.platform)


def _without_batch(cell: Cell) -> Cell:
    return _at(cell, 1)
