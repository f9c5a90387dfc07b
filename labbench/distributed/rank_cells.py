"""Cells of what ranks do: a strategy stands where the runtime does elsewhere, a collective where the model does."""

from __future__ import annotations

from labbench.cells import Cell
from labbench.distributed.place import BACKENDS
from labbench.distributed.sizes import MODEL, Shape

CHECK = "correctness"  # the task of a comparison without times: it must not stand for a timed cell


def cell(mode: str, ranks: int, shape: dict[str, int], device: str = "cpu") -> Cell:
    """Of a strategy's steps."""
    sizes = Shape(**shape)
    return Cell.of(
        model=sizes.name,
        mode="training",
        batch_size=sizes.batch,
        seq_len=sizes.tokens,
        runtime=mode,
        device=device,
        world_size=ranks,
        threads=1,
    )


def checked_cell(mode: str, ranks: int, shape: dict[str, int] | None = None, device: str = "cpu") -> Cell:
    """Of a strategy that is held against one process and not timed."""
    timed = cell(mode, ranks, shape or {}, device)
    return timed.model_copy(update={"workload": timed.workload.model_copy(update={"task": CHECK})})


def collective_cell(operation: str, ranks: int, device: str = "cpu") -> Cell:
    """Of a collective, all its sizes."""
    return Cell.of(
        model=operation, task="collective", runtime=BACKENDS[device], device=device, world_size=ranks, threads=1
    )


def fault_cell(kind: str, mode: str, ranks: int) -> Cell:
    """Of a fault made to happen while a strategy trains."""
    return Cell.of(model=MODEL, task=f"fault-{kind}", mode="training", runtime=mode, world_size=ranks, threads=1)
