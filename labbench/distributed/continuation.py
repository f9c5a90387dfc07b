"""Measured scaling, continued: the simulator is fed with one process's step and the collectives of ranks that had a core each.

Whatever comes out is ``simulated``: what more ranks of this kind would do if each had a core of its own and messages cost what they
cost here, scaled as rings.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from labbench.config import ConfigError
from labbench.distributed.cluster import Accelerator, Cluster, Link
from labbench.distributed.collectives_model import OPERATIONS, Collectives, Measured
from labbench.distributed.simulate import simulate
from labbench.distributed.sizes import ONE, Shape, shape_of
from labbench.distributed.step import SINGLE, Segment, Step, Strategy, bucketed

if TYPE_CHECKING:
    import pandas as pd

    from labbench.records import Record

WORD = 4.0  # bytes of a float32
MIB = 2.0**20
BUCKET_MIB = {
    "ddp": (25.0, 1.0),
    "ddp-small-buckets": (0.01, None),
}  # cap, and that of the first; PyTorch's own for `ddp`
MICRO_BATCHES = 4  # as labbench.distributed.strategies.pipeline has them
SIMULATED = (*BUCKET_MIB, "zero1", "fsdp", "tensor", "pipeline-gpipe", "pipeline-1f1b")


def segments_of(one: Record) -> list[Segment]:
    """A segment a layer, from the record of a single process: forward passes as timed, the rest in proportion.

    The embedding is with the first, norm and output with the last. Seconds are of the whole batch.
    """
    sizes, told = _shape(one), one.metrics
    forward = [told[f"forward_s {index}"] for index in range(sizes.layers + 1)]
    again = told["compute_s"] / sum(forward) - 1  # seconds backward, embedding and loss for each second forward
    width, table = sizes.width, sizes.vocabulary * sizes.width
    layer = 12 * width**2 + 2 * width
    parameters = [float(layer)] * sizes.layers
    parameters[0] += table
    parameters[-1] += table + width
    seconds = [*forward[:-2], forward[-2] + forward[-1]]
    whole = sum(parameters)
    return [
        Segment(
            forward_s=took,
            backward_s=took * again,
            parameters=many,
            root=many - layer,
            update_s=told["update_s"] * many / whole,
        )
        for took, many in zip(seconds, parameters, strict=True)
    ]


def collectives_of(records: Sequence[Record], ranks: int) -> Collectives:
    """What messages between ranks of one machine cost, by the collectives that ranks with a core each were timed with.

    Raises
    ------
    ConfigError
        If none of them had.
    """
    timed = [
        Measured(
            record.cell.workload.model,  # type: ignore[arg-type]
            record.cell.platform.world_size,
            np.array([one.items_per_call for one in record.series]),
            np.array([one.latency_s for one in record.series]),
            across=False,
        )
        for record in records
        if record.cell.workload.task == "collective" and len(record.series) > 1 and not record.metrics["oversubscribed"]
    ]
    missing = [name for name in OPERATIONS if name not in {one.operation for one in timed}]
    if missing:
        raise ConfigError(
            f"{', '.join(missing)} was not timed by ranks with a core each: `labbench distributed collectives --ranks 2`"
        )
    nothing = Link(0.0, float("inf"))  # never asked: everything was measured
    core = Accelerator("a core of this machine", 1.0, 1.0, 1.0, float("inf"), 1, 1.0, "measured")
    return Collectives(Cluster(core, 1, ranks, nothing, nothing), measured=tuple(timed))


def continued(
    records: Sequence[Record], modes: Sequence[str], ranks: Sequence[int], kind: str = "strong"
) -> pd.DataFrame:
    """Simulated steps of each strategy at each number of ranks; those left out that the model or its batch cannot be shared by.

    Parameters
    ----------
    records : sequence of Record
        With ``one`` and collectives.
    modes : sequence of str
        Those that are no ``SIMULATED`` are left out.
    ranks : sequence of int
    kind : {'strong', 'weak'}

    Returns
    -------
    DataFrame
        ``strategy``, ``ranks``, ``batch``, ``step_s``, ``compute_s``, ``communication_s``, ``waiting_s``, ``update_s``,
        ``speedup``, ``efficiency``, ``provenance`` (simulated).
    """
    import pandas as pd

    one = next((record for record in reversed(records) if record.cell.platform.runtime == ONE and record.primary), None)
    if one is None or one.primary is None:
        raise ConfigError("one process was not timed: `labbench distributed scale`")
    first, segments = _shape(one), segments_of(one)
    rows = []
    for mode in modes:
        for many in ranks:
            sizes = first if kind == "strong" else replace(first, batch=first.batch * many)
            if mode not in SIMULATED or not _shared(mode, many, sizes):
                continue
            prices = collectives_of(records, many)
            step, strategy, micro = _spread(mode, many, sizes, segments, sizes.batch / first.batch, prices)
            found = simulate(step, strategy, prices, micro)
            parts = {name: float(value) for name, value in found.parts_s.items()}
            step_s = float(found.step_s)
            speedup = one.primary.latency_s / step_s * sizes.batch / first.batch
            rows.append(
                {
                    "strategy": mode,
                    "ranks": many,
                    "batch": sizes.batch,
                    "step_s": step_s,
                    "compute_s": parts["compute"],
                    "communication_s": float(found.exposed_s),
                    "waiting_s": parts["bubble"] + parts["slowest"],
                    "update_s": parts["update"],
                    "speedup": speedup,
                    "efficiency": speedup / many,
                    "provenance": found.provenance,
                }
            )
    return pd.DataFrame(rows)


def continuation_sentence(measured: pd.DataFrame, simulated: pd.DataFrame) -> str:
    """How far the simulated steps are from measured ones where both are there and ranks had a core each."""
    from labbench import words

    if simulated.empty or measured.empty:
        return "Nothing here can be simulated and was measured too."
    both = simulated.merge(
        measured[~measured["oversubscribed"]], on=["strategy", "ranks", "batch"], suffixes=("_simulated", "")
    )
    if both.empty:
        return "No ranks with a core each were both measured and simulated: nothing tells how far to trust the dashed lines."
    off = both["step_s_simulated"] / both["step_s"] - 1
    each = [f"{name} {100 * value:+.0f} %" for name, value in zip(both["strategy"], off, strict=True)]
    return (
        f"Where both are there, a simulated step differs from a measured one by {words.percent(float(off.abs().mean()))} in the "
        f"mean: {words.listed(each)}."
    )


def _shape(one: Record) -> Shape:
    work = one.cell.workload
    return Shape(**shape_of(work.model, work.batch_size, work.seq_len))


def _shared(mode: str, ranks: int, sizes: Shape) -> bool:
    """Whether so many ranks can share it."""
    if mode == "tensor":
        return sizes.heads % ranks == 0 and sizes.vocabulary % ranks == 0
    if mode.startswith("pipeline"):
        return ranks <= sizes.layers
    return sizes.batch % ranks == 0


def _spread(
    mode: str, ranks: int, sizes: Shape, segments: Sequence[Segment], grown: float, prices: Collectives
) -> tuple[Step, Strategy, int]:
    """Step of one rank and micro-batch, the strategy, micro-batches; ``grown``: the batch over that which segments are of."""
    boundary = (
        WORD * sizes.batch * sizes.tokens * sizes.width
    )  # bytes of what passes from layer to layer, of the whole batch
    if mode == "tensor":
        group = prices.cluster.group(ranks, 1)
        pair = 2 * float(prices.seconds("all_reduce", boundary, group))
        scores = float(prices.seconds("all_gather", boundary / sizes.width * sizes.vocabulary, group))
        own = [
            replace(
                _scaled(one, grown / ranks, 1 / ranks),
                tensor_forward_s=pair + (scores if index == len(segments) - 1 else 0.0),
                tensor_backward_s=pair + (pair / 2 if index == len(segments) - 1 else 0.0),
            )
            for index, one in enumerate(segments)
        ]
        return Step(own, states=SINGLE), Strategy(tensor=ranks), 1
    if mode.startswith("pipeline"):
        own = [_scaled(one, grown / MICRO_BATCHES) for one in segments]
        schedule: Any = re.sub("^pipeline-", "", mode)
        strategy = Strategy(pipeline=ranks, schedule=schedule)
        return Step(own, boundary / MICRO_BATCHES, SINGLE), strategy, MICRO_BATCHES
    own = [_scaled(one, grown / ranks) for one in segments]
    if mode == "fsdp":  # on a CPU nothing of it hides behind computing
        return Step(own, states=SINGLE), Strategy(data=ranks, zero=3, overlap=False), 1
    cap, start = BUCKET_MIB.get(mode, BUCKET_MIB["ddp"])
    buckets = bucketed(own, cap * MIB, start * MIB if start else None)
    return Step(buckets, states=SINGLE), Strategy(data=ranks, zero=1 if mode == "zero1" else 0), 1


def _scaled(one: Segment, times: float, parameters: float = 1.0) -> Segment:
    return replace(
        one,
        forward_s=one.forward_s * times,
        backward_s=one.backward_s * times,
        parameters=one.parameters * parameters,
        root=one.root * parameters,
        update_s=one.update_s * parameters,
    )
