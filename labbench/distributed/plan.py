"""The best way to spread a model over a cluster: every combination simulated at once, and why the best is the best.

All products of data, tensor and pipeline ranks that fill the cluster, times what ZeRO shares out, micro-batches, schedules,
chunks and recomputation. Cases of the same ranks are simulated together as arrays by the code that simulates one
(:mod:`labbench.distributed.simulate`); only the pipeline's events are replaced by what they come to
(:func:`~labbench.distributed.schedules.makespan`). Tests hold the answer against a search with events, one case at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from labbench.config import ConfigError
from labbench.distributed import schedules
from labbench.distributed.cluster import USABLE_MEMORY
from labbench.distributed.collectives_model import Collectives
from labbench.distributed.compute import Compute
from labbench.distributed.simulate import (
    PROVENANCE,
    Simulated,
    Stage,
    assembled,
    boundary_s,
    closing,
    cut,
    memory,
    simulate,
    stage,
)
from labbench.distributed.step import MEGATRON, Segment, States, Step, Strategy, Zero, transformer_step
from labbench.distributed.transformer import RECOMPUTE, Recompute

if TYPE_CHECKING:
    import pandas as pd

ZEROS: tuple[Zero, ...] = (0, 1, 2, 3)
STRATEGY = [one.name for one in fields(Strategy)]
MEMORY = ["weights", "gradients", "optimizer", "activations", "working"]


@dataclass(frozen=True)
class Plan:
    """All strategies that were simulated.

    Attributes
    ----------
    table : DataFrame
        A row a strategy, the fastest that fits first, then the others that fit, then those that do not: the fields of ``Strategy``,
        ``micro_batches``, ``step_s``, its parts (``compute_s``, ...), memory (``weights_bytes``, ...), ``memory_bytes``, ``fits``,
        ``tokens_s`` and ``mfu`` (FLOPs of the model over the datasheet's rate).
    compute : Compute
    collectives : Collectives
    batch : int
        Samples of a step.
    limit_bytes : float
        What a rank may take.
    states : States
    provenance : str
        Always ``simulated``.
    """

    table: pd.DataFrame
    compute: Compute
    collectives: Collectives
    batch: int
    limit_bytes: float
    states: States = MEGATRON
    provenance: str = PROVENANCE

    @property
    def fitting(self) -> pd.DataFrame:
        """Those that fit, the fastest first."""
        return self.table[self.table["fits"]]

    def strategy(self, row: int = 0) -> Strategy:
        """Of a row of the table."""
        return strategy_of(self.table.iloc[row])

    def simulated(self, row: int = 0) -> Simulated:
        """A row's strategy simulated pass by pass."""
        one = self.strategy(row)
        step = transformer_step(self.compute, one, self.collectives, self.states)
        return simulate(step, one, self.collectives, one.micro_batches(self.batch))


def strategy_of(row: Any) -> Strategy:
    """The strategy that a row of a plan's table tells."""
    values = {name: row[name] for name in STRATEGY}
    return Strategy(**{name: value.item() if hasattr(value, "item") else value for name, value in values.items()})


def plan(
    compute: Compute,
    collectives: Collectives,
    batch: int,
    states: States = MEGATRON,
    *,
    zeros: Sequence[Zero] = ZEROS,
    recompute: Sequence[Recompute] = RECOMPUTE,
    memory_bytes: float | None = None,
) -> Plan:
    """Simulate every strategy that fills the cluster.

    Parameters
    ----------
    compute : Compute
        The model on the cluster's device.
    collectives : Collectives
    batch : int
        Samples of a step.
    states : States
    zeros, recompute : sequence
        What to try; where attention is one kernel, ``selective`` is ``none`` and left out.
    memory_bytes : float, optional
        What a rank may take; default: the usable share of the device's.

    Raises
    ------
    ConfigError
        If no strategy fills the cluster with this batch.
    """
    import pandas as pd

    parts = list(_families(compute, collectives, batch, states, zeros, recompute))
    if not parts:
        raise ConfigError(
            f"no strategy spreads a batch of {batch} over {collectives.cluster.ranks} ranks for {compute.model.name} "
            f"({compute.model.layers} layers, {compute.model.heads} heads): take a batch with more divisors, or other ranks"
        )
    table = pd.DataFrame({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
    limit = memory_bytes or USABLE_MEMORY * compute.device.memory_bytes
    tokens = batch * compute.model.sequence
    peak = collectives.cluster.ranks * compute.device.peak_flops
    table = table.assign(
        fits=table["memory_bytes"] <= limit,
        tokens_s=tokens / table["step_s"],
        mfu=compute.model.flops(tokens) / table["step_s"] / peak,
    )
    order = np.lexsort((table["memory_bytes"], table["step_s"], ~table["fits"]))
    return Plan(table.iloc[order].reset_index(drop=True), compute, collectives, batch, float(limit), states)


def strategies(compute: Compute, ranks: int, ranks_in_node: int, batch: int) -> Iterator[tuple[Strategy, list[int]]]:
    """Ways to fill the ranks, each with the micro-batches that come out; what ZeRO shares and recomputation are left open."""
    model = compute.model
    for tensor in _divisors(ranks_in_node):
        shared = model.kv_heads % tensor == 0 or tensor % model.kv_heads == 0
        if model.heads % tensor or not shared or ranks % tensor:
            continue
        for pipeline in _divisors(ranks // tensor):
            data = ranks // tensor // pipeline
            if model.layers % pipeline or batch % data:
                continue
            ways: list[tuple[schedules.Schedule, int]] = [("1f1b", 1)]
            if pipeline > 1:
                ways.append(("gpipe", 1))
                ways += [("interleaved", chunks) for chunks in _divisors(model.layers // pipeline)[1:]]
            for schedule, chunks in ways:
                micro = [
                    one
                    for one in _divisors(batch // data)
                    if schedule != "interleaved" or (batch // data // one) % pipeline == 0
                ]
                if micro:
                    yield Strategy(data, tensor, pipeline, 0, 1, schedule, chunks, sequence_parallel=tensor > 1), micro


def _divisors(number: int) -> list[int]:
    return [one for one in range(1, number + 1) if number % one == 0]


def _families(
    compute: Compute,
    collectives: Collectives,
    batch: int,
    states: States,
    zeros: Sequence[Zero],
    recompute: Sequence[Recompute],
) -> Iterator[dict[str, np.ndarray]]:
    """Of each way to fill the ranks and each stage of ZeRO, columns of all micro-batches and recomputations."""
    cluster = collectives.cluster
    steps: dict[tuple[Any, ...], Step] = {}
    for way, micro in strategies(compute, cluster.ranks, cluster.ranks_in_node, batch):
        cases = list(product(micro, [one for one in recompute if not (one == "selective" and compute.model.flash)]))
        key = (way.tensor, way.pipeline > 1, *micro)
        if key not in steps:
            steps[key] = _together(compute, collectives, way, cases, states)
        for zero in zeros if way.data > 1 else zeros[:1]:
            strategy = _changed(way, zero=zero)
            count = batch // way.data // np.array([case[0] for case in cases])
            yield _columns(_simulated(steps[key], strategy, collectives, count), strategy, cases, count)


def _together(
    compute: Compute, collectives: Collectives, way: Strategy, cases: list[tuple[int, Recompute]], states: States
) -> Step:
    """The steps of several cases as one, its figures arrays over the cases."""
    found = [
        transformer_step(compute, _changed(way, micro_batch=micro, recompute=again), collectives, states)
        for micro, again in cases
    ]
    layers = compute.model.layers

    def stacked(index: int) -> Segment:
        own = [step.segments[index] for step in found]
        return Segment(**{one.name: np.array([getattr(part, one.name) for part in own]) for one in fields(Segment)})

    middle = [stacked(1)] * (layers - 2) if layers > 2 else []
    segments = [stacked(0), *middle, stacked(layers - 1)] if layers > 1 else [stacked(0)]
    return Step(segments, np.array([step.boundary_bytes for step in found]), states, found[0].sources)


def _simulated(step: Step, strategy: Strategy, collectives: Collectives, count: np.ndarray) -> Simulated:
    """As :func:`~labbench.distributed.simulate.simulate`, for layers that are alike but for the first and the last."""
    ranks, chunks = strategy.pipeline, strategy.chunks
    parts = cut(step.segments, ranks * chunks)
    send_s = boundary_s(step, strategy, collectives)
    first = _stage(parts[0], step, strategy, collectives)
    last = _stage(parts[-1], step, strategy, collectives)
    forward, backward = first.forward_s + send_s, first.backward_s + send_s
    slower = last.forward_s + last.backward_s - first.forward_s - first.backward_s
    seconds = schedules.makespan(forward, backward, slower, count, ranks, chunks)
    ends, memories = [], []
    for rank in (0, ranks - 1):
        own = [segment for part in parts[rank::ranks] for segment in part]
        end = seconds - rank * backward
        ends.append((end, *closing(own, step.states, strategy, collectives)))
        kept = _kept(parts, strategy, count, rank)
        memories.append(memory(own, step.states, strategy, kept))
    later = sum(ends[1]) > sum(ends[0])
    fuller = memories[1].total > memories[0].total
    passes, *rest = (np.where(later, one, other) for one, other in zip(ends[1], ends[0], strict=True))
    fullest = type(memories[0])(
        **{name: np.where(fuller, getattr(memories[1], name), getattr(memories[0], name)) for name in MEMORY}
    )
    busiest = [first] * (chunks - 1) + [last]
    return assembled(
        busiest, send_s, (passes, rest[0], rest[1], rest[2]), fullest, count, collectives.cluster, step.sources
    )


def _stage(part: Sequence[Segment], step: Step, strategy: Strategy, collectives: Collectives) -> Stage:
    return stage(part, step.states, strategy, collectives)


def _kept(parts: list[Sequence[Segment]], strategy: Strategy, count: np.ndarray, rank: int) -> Any:
    """Bytes that the first or the last rank keeps at most."""
    each, last = (sum(one.kept_bytes for one in parts[index]) for index in (0, -1))
    if strategy.pipeline == 1:
        return each
    if rank == 0:
        return schedules.in_flight(strategy.schedule, strategy.pipeline, count, strategy.chunks) * each
    return last * count if strategy.schedule == "gpipe" else (strategy.chunks - 1) * strategy.pipeline * each + last


def _columns(
    found: Simulated, strategy: Strategy, cases: list[tuple[int, Recompute]], count: np.ndarray
) -> dict[str, np.ndarray]:
    told: dict[str, Any] = {name: getattr(strategy, name) for name in STRATEGY}
    told |= {"micro_batch": [case[0] for case in cases], "recompute": [case[1] for case in cases]}
    told |= {"micro_batches": count, "step_s": found.step_s, "exposed_s": found.exposed_s}
    told |= {f"{name}_s": value for name, value in found.parts_s.items()}
    told |= {f"{name}_bytes": getattr(found.memory, name) for name in MEMORY}
    told["memory_bytes"] = found.memory.total
    return {name: np.broadcast_to(np.asarray(value), len(cases)) for name, value in told.items()}


def _changed(strategy: Strategy, **values: Any) -> Strategy:
    return Strategy(**{**{name: getattr(strategy, name) for name in STRATEGY}, **values})
