"""The measurement core: protocol, isolated workers, steady state, memory, energy and noise.

:func:`labbench.measure.group.measure` turns cells into records; :func:`measure` is the same for a few cells by hand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from labbench.cells import Cell
    from labbench.measure.protocol import Protocol
    from labbench.records import Record


def measure(*cells: Cell, protocol: Protocol | None = None) -> list[Record]:
    """Measure a few cells side by side, with interleaved rounds; nothing is stored.

    Examples
    --------
    >>> from labbench.cells import Cell
    >>> from labbench.measure import measure
    >>> measure(Cell.of(model="bert-tiny"), Cell.of(model="bert-tiny", runtime="onnxruntime"))
    """
    from labbench import zoo
    from labbench.machine import physical_cores
    from labbench.measure import group
    from labbench.measure.protocol import preset

    resolved = [cell.model_copy(update={"workload": zoo.resolve(cell.workload)}) for cell in cells]
    records = group.measure(
        resolved, protocol or preset("standard"), threads=physical_cores(), plugins=tuple(zoo.plugins())
    )
    found = {record.cell_id: record for record in records}
    return [found[cell.id] for cell in resolved]
