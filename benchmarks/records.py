"""What a benchmark found, as records in a store that notebooks 07 and 08 draw from."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from labbench import machine
from labbench.cells import Cell
from labbench.records import Record
from labbench.store import Store

STORE = Path("data/benchmarks.h5")


def keep(store: Path, source: str, found: Iterable[tuple[Cell, dict[str, float]]]) -> None:
    """Add a record for each cell with what a benchmark (``source``) found of it; metrics have their unit in the name."""
    environment = machine.environment(["cpu"])
    with Store(store, writable=True) as opened:
        for cell, metrics in found:
            record = Record(
                cell=cell,
                status="ok",
                source=source,
                campaign_id=source,
                environment_id=environment.id,
                machine_id=environment.machine_id,
                metrics=metrics,
            )
            opened.append(record, environment)
    print(f"kept in {store}")
