"""What ranks here are asked in one study: scaling, correctness, collectives, faults; what is stored is not measured again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labbench.distributed import measured, measured_collectives
from labbench.distributed.faults import trial
from labbench.distributed.rank_cells import cell, checked_cell, collective_cell, fault_cell
from labbench.distributed.rank_records import stored
from labbench.distributed.sizes import Shape, shape_of
from labbench.records import Record

if TYPE_CHECKING:
    from labbench.distributed.config import MeasuredConfig

Tell = Callable[[str], None]


def scale(
    modes: Sequence[str],
    ranks: Sequence[int],
    kinds: Sequence[str] = ("strong",),
    *,
    shape: dict[str, int] | None = None,
    steps: int = 21,
    **launching: Any,
) -> Iterator[list[Record]]:
    """Steps of one process, and of each strategy at each number of ranks, checked first.

    Parameters
    ----------
    modes : sequence of str
    ranks : sequence of int
        1 is one process and always measured.
    kinds : sequence of {'strong', 'weak'}
        The batch stays, or grows with the ranks.
    shape : dict, optional
        Sizes, with the batch of one process.
    steps : int
    **launching
        As of :func:`labbench.distributed.measured.strategies`.

    Yields
    ------
    list of Record
        As they come; :func:`labbench.distributed.scaling.scaling_table` reads them all.
    """
    sizes = shape or {}
    batch = Shape(**sizes).batch
    job = {name: value for name, value in launching.items() if name not in ("precision", "fault")}
    yield [measured.alone(steps, sizes, **job)]
    for many in sorted(set(ranks) - {1}):
        for kind in kinds:
            grown = sizes | {"batch": batch * (many if kind == "weak" else 1)}
            yield measured.strategies(modes, many, shape=grown, steps=steps, **launching)


def collect(config: MeasuredConfig, store: str | Path, tell: Tell = print) -> list[Record]:
    """Measure what a configuration asks for and the store does not hold yet, and keep it as it comes.

    Parameters
    ----------
    config : MeasuredConfig
    store : path
        Made if it is not there.
    tell : callable
        Takes a line about what is done next.

    Returns
    -------
    list of Record
        The newest of each cell that the configuration asks for.
    """
    from labbench.config import require_known
    from labbench.distributed.strategies import MODES
    from labbench.store import Store

    for names in (config.strategies, config.checked, config.fault_strategies):
        require_known("strategy", names, MODES)
    path = Path(store)
    held: dict[str, Record] = {}
    if path.exists():
        with Store(path) as opened:
            held = {record.cell_id: record for record in opened.records() if record.provenance == "measured"}
    wanted: list[Record] = []
    for title, cells, measure in _parts(config, config.checked or list(MODES)):
        known = [held[cell.id] for cell in cells if cell.id in held]
        if len(known) == len(cells):
            wanted += known
            continue
        tell(title)
        wanted += stored(measure(), str(path))
    return wanted


def _parts(config: MeasuredConfig, modes: Sequence[str]) -> Iterator[tuple[str, list[Any], Callable[[], list[Record]]]]:
    """Title, cells and how to measure them, of each launch."""
    sizes = shape_of(config.model, config.batch, config.tokens)
    for many in config.ranks:
        cells = [checked_cell(mode, many) for mode in modes]
        yield (
            f"{len(modes)} strategies on {many} ranks held against one process",
            cells,
            partial(measured.correctness, modes, many),
        )
    yield "one process", [cell("one", 1, sizes)], lambda: [measured.alone(config.steps, sizes)]
    for many in config.ranks:
        for way in config.scaling:
            grown = sizes | {"batch": config.batch * (many if way == "weak" else 1)}
            cells = [cell(mode, many, grown) for mode in config.strategies]
            yield (
                f"steps on {many} ranks, {way} scaling",
                cells,
                partial(measured.strategies, config.strategies, many, shape=grown, steps=config.steps),
            )
    limit = config.max_mib * measured_collectives.KIB**2
    for many in config.ranks:
        cells = [collective_cell(operation, many) for operation in config.operations]
        small = [size for size in measured_collectives.SIZES if size <= limit]
        yield (
            f"collectives on {many} ranks",
            cells,
            partial(measured_collectives.collectives, config.operations, many, small, samples=config.samples),
        )
    for mode in config.fault_strategies:
        for kind in config.faults:
            yield f"{kind} in {mode}", [fault_cell(kind, mode, 2)], partial(_fault, kind, mode)


def _fault(kind: Any, mode: str) -> list[Record]:
    return [trial(kind, mode)]
