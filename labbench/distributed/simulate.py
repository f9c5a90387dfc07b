"""Step time, exposed communication, bubble and memory of a strategy on a cluster, from one rank's step.

::

    forward, backward of each stage and micro-batch, by a schedule (labbench.distributed.schedules)
    ├─ compute                    what the busiest rank computes
    ├─ tensor                     messages between tensor-parallel ranks, and between stages
    ├─ gather                     weights and gradients of ZeRO-2 and -3 that compute does not hide, and by how much they slow it
    ├─ bubble                     what the slowest rank waits for the others
    └─ after the last backward pass: gradients that did not get through behind it, the update, weights gathered again
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from labbench.config import ConfigError
from labbench.distributed import schedules
from labbench.distributed.cluster import USABLE_MEMORY, Cluster, Group
from labbench.distributed.collectives_model import Collectives, Operation
from labbench.distributed.reliability import expected_slowest
from labbench.distributed.step import Segment, States, Step, Strategy

PROVENANCE = "simulated"
GATHERED = 2  # segments whose weights are whole at a time: the one that computes and the next


@dataclass(frozen=True)
class Memory:
    """Bytes of the fullest rank, by what they are."""

    weights: Any
    gradients: Any
    optimizer: Any
    activations: Any
    working: Any

    @property
    def total(self) -> Any:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.working


@dataclass(frozen=True)
class Simulated:
    """A simulated step.

    Attributes
    ----------
    step_s : float
    parts_s : dict
        ``compute``, ``tensor``, ``gather``, ``stages``, ``bubble``, ``gradients``, ``update``, ``weights``, ``slowest``; they add
        up to ``step_s``.
    memory : Memory
    limit_bytes : float
        What a rank may take.
    sources : dict
    provenance : str
        Always ``simulated``.
    """

    step_s: Any
    parts_s: dict[str, Any]
    memory: Memory
    limit_bytes: float
    sources: dict[str, str] = field(default_factory=dict)
    provenance: str = PROVENANCE

    @property
    def exposed_s(self) -> Any:
        """Communication that nothing hides."""
        return sum(self.parts_s[name] for name in ("tensor", "gather", "stages", "gradients", "weights"))

    @property
    def fits(self) -> Any:
        """Whether the fullest rank's memory holds it."""
        return self.memory.total <= self.limit_bytes

    def as_dict(self) -> dict[str, Any]:
        """For JSON; SI units."""
        memory = {name: float(value) for name, value in asdict(self.memory).items()}
        return {
            "provenance": self.provenance,
            "step_s": float(self.step_s),
            "parts_s": {name: float(value) for name, value in self.parts_s.items()},
            "memory_bytes": {**memory, "total": float(self.memory.total)},
            "memory_limit_bytes": self.limit_bytes,
            "sources": self.sources,
        }


@dataclass(frozen=True)
class Stage:
    """What one rank's chunk of layers takes for a micro-batch, and what its gradients cost."""

    forward_s: Any
    backward_s: Any
    computing_s: Any
    tensor_s: Any
    gather_s: Any


def simulate(
    step: Step, strategy: Strategy, collectives: Collectives, micro_batches: int, slow: float = 1.0
) -> Simulated:
    """One step, pass by pass.

    Parameters
    ----------
    step : Step
        Of one rank.
    strategy : Strategy
    collectives : Collectives
        Of the cluster.
    micro_batches : int
    slow : float
        By how much the slowest rank computes more slowly than the others (a straggler).

    Raises
    ------
    ConfigError
        If the strategy does not fill the cluster, or the segments do not make its stages.
    """
    cluster = collectives.cluster
    if strategy.ranks != cluster.ranks:
        raise ConfigError(f"{strategy} takes {strategy.ranks} ranks, the cluster has {cluster.ranks}: make them equal")
    ranks = strategy.pipeline
    parts = cut(step.segments, ranks * strategy.chunks)
    send_s = boundary_s(step, strategy, collectives)
    stages = [stage(part, step.states, strategy, collectives) for part in parts]
    pipe = _passes(stages, parts, send_s, strategy, micro_batches)
    owned = [[segment for part in parts[rank::ranks] for segment in part] for rank in range(ranks)]
    ends = [(pipe.ends_s[rank], *closing(owned[rank], step.states, strategy, collectives)) for rank in range(ranks)]
    memories = [memory(owned[rank], step.states, strategy, pipe.kept[rank]) for rank in range(ranks)]
    busiest = max(range(ranks), key=lambda rank: pipe.busy_s[rank])
    return assembled(
        stages[busiest::ranks],
        send_s,
        max(ends, key=sum),
        max(memories, key=lambda one: one.total),
        micro_batches,
        cluster,
        step.sources,
        slow,
        cluster.pass_scatter if strategy.zero >= 2 and not strategy.overlap else cluster.scatter,
    )


def _passes(
    stages: Sequence[Stage], parts: Sequence[Sequence[Segment]], send_s: Any, strategy: Strategy, micro_batches: int
) -> schedules.Pipeline:
    """When the passes run; on one rank, a forward and a backward pass of each micro-batch in turn."""
    kept = [float(sum(one.kept_bytes for one in part)) for part in parts]
    if strategy.pipeline == 1:
        seconds = micro_batches * (sum(one.forward_s for one in stages) + sum(one.backward_s for one in stages))
        return schedules.Pipeline(seconds, (seconds,), (seconds,), (sum(kept),))
    return schedules.run(
        strategy.schedule,
        [one.forward_s + send_s for one in stages],
        [one.backward_s + send_s for one in stages],
        micro_batches,
        strategy.pipeline,
        weights=kept,
    )


def cut(segments: Sequence[Segment], stages: int) -> list[Sequence[Segment]]:
    """Segments in stages of as many, the first ones one longer where they do not come out.

    Raises
    ------
    ConfigError
        If some stage gets none.
    """
    if stages > len(segments):
        raise ConfigError(f"{len(segments)} segments make no {stages} stages: take fewer pipeline ranks or chunks")
    sizes = [len(segments) // stages + (index < len(segments) % stages) for index in range(stages)]
    starts = np.cumsum([0, *sizes])
    return [segments[begin:end] for begin, end in pairwise(starts)]


def boundary_s(step: Step, strategy: Strategy, collectives: Collectives) -> Any:
    """What each pass of a pipeline spends on a message to or from a neighbour."""
    if strategy.pipeline == 1:
        return 0.0
    beside = strategy.tensor * strategy.data
    nodes = 1 if beside * strategy.pipeline <= collectives.cluster.ranks_in_node else 2
    return collectives.seconds("p2p", step.boundary_bytes, Group(2, beside, 1 if nodes == 2 else 2, nodes))


def stage(part: Sequence[Segment], states: States, strategy: Strategy, collectives: Collectives) -> Stage:
    """Passes of a stage, with whatever ZeRO-2 and -3 send behind them for each micro-batch."""
    forward = [one.forward_s + one.tensor_forward_s for one in part]
    backward = [one.backward_s + one.tensor_backward_s for one in part][::-1]
    computing = sum(one.forward_s + one.backward_s for one in part)
    tensor = sum(one.tensor_forward_s + one.tensor_backward_s for one in part)
    if strategy.zero < 2 or strategy.data == 1:
        return Stage(sum(forward), sum(backward), computing, tensor, 0.0 * computing)
    group = data_group(strategy, collectives.cluster)
    taken = collectives.cluster.device.taken_by_messages
    shared = [one.parameters - one.root for one in part]
    pieces = strategy.pieces

    def exchanged(operation: Operation, each: float) -> list[Any]:
        return [pieces * collectives.seconds(operation, each * many / pieces, group) for many in shared]

    scatter = exchanged("reduce_scatter", states.sent)[::-1]
    if not strategy.overlap:
        gather = exchanged("all_gather", states.gathered) if strategy.zero == 3 else [0.0]
        front, back = sum(forward) + sum(gather), sum(backward) + sum(gather) + sum(scatter)
    elif strategy.zero == 2:
        slowed = schedules.beside(backward, [0.0, *scatter[:-1]], taken)
        ready = np.cumsum(np.array(slowed), axis=0)
        back = np.maximum(schedules.overlap(list(ready), scatter), ready[-1])
        front = sum(forward)
    else:
        gather = exchanged("all_gather", states.gathered)
        front = schedules.gathered(schedules.beside(forward, [*gather[1:], 0.0], taken), gather)
        gather = gather[::-1]
        both = [before + after for before, after in zip([0.0, *scatter[:-1]], [*gather[1:], 0.0], strict=True)]
        back = schedules.gathered_and_scattered(schedules.beside(backward, both, taken), gather, scatter)
    return Stage(front, back, computing, tensor, front + back - sum(forward) - sum(backward))


def data_group(strategy: Strategy, cluster: Cluster) -> Group:
    """Data-parallel ranks: a tensor-parallel group apart, a stage's side by side."""
    return cluster.group(strategy.data, strategy.tensor)


def closing(
    own: Sequence[Segment], states: States, strategy: Strategy, collectives: Collectives
) -> tuple[Any, Any, Any]:
    """Seconds after a rank's last backward pass: gradients, update, weights."""
    shared = strategy.data if strategy.zero else 1
    update = sum(one.update_s for one in own) / shared
    if strategy.data == 1:
        return 0.0, update, 0.0
    group = data_group(strategy, collectives.cluster)
    operation: Operation = "reduce_scatter" if strategy.zero else "all_reduce"
    sizes = [states.sent * (one.root if strategy.zero >= 2 else one.parameters) for one in own[::-1]]
    sent = [index for index, size in enumerate(sizes) if np.max(size) > 0]
    gradients: Any = 0.0
    if strategy.overlap and sent:
        backward = [one.backward_s + one.tensor_backward_s for one in own[::-1]]
        cost = [collectives.seconds(operation, size, group) if np.max(size) > 0 else 0.0 for size in sizes]
        slowed = schedules.beside(backward, [0.0, *cost[:-1]], collectives.cluster.device.taken_by_messages)
        ready = np.cumsum(np.array(slowed), axis=0)
        when, what = [ready[index] for index in sent], [sizes[index] for index in sent]
        through = _through(when, what, operation, group, collectives)
        gradients = np.maximum(through, ready[-1]) - np.cumsum(np.array(backward), axis=0)[-1]
    elif sent:
        gradients = collectives.seconds(operation, sum(sizes), group)
    weights: Any = 0.0
    whole = sum(one.root if strategy.zero == 3 else one.parameters for one in own)
    if strategy.zero and np.max(whole) > 0:
        weights = collectives.seconds("all_gather", states.gathered * whole, group)
    return gradients, update, weights


def _through(ready: list[Any], sizes: list[Any], operation: Operation, group: Group, collectives: Collectives) -> Any:
    """When the last of the gradients' messages is through."""
    cost = [collectives.seconds(operation, size, group) for size in sizes]
    counts = range(2, collectives.channels + 1)
    if not counts:
        return schedules.overlap(ready, cost)
    together = [[float(collectives.seconds(operation, size, group, many)) for size in sizes] for many in counts]
    return schedules.shared([float(one) for one in ready], [[float(one) for one in cost], *together])


def memory(own: Sequence[Segment], states: States, strategy: Strategy, kept_bytes: Any) -> Memory:
    """Bytes of a rank (Rajbhandari et al. 2020, section 3 and figure 1)."""
    parameters, root, zero = sum(one.parameters for one in own), sum(one.root for one in own), strategy.zero
    spread = root + (parameters - root) / strategy.data
    largest = _largest([one.parameters - one.root for one in own])
    whole = GATHERED * largest * states.gathered + largest * states.sent if zero == 3 and strategy.data > 1 else 0.0
    return Memory(
        weights=states.weight * (spread if zero == 3 else parameters),
        gradients=states.gradient * (spread if zero >= 2 else parameters),
        optimizer=states.optimizer * parameters / (strategy.data if zero else 1),
        activations=kept_bytes,
        working=whole + _largest([one.working_bytes for one in own]),
    )


def _largest(values: Sequence[Any]) -> Any:
    return np.maximum.reduce([np.asarray(value, float) for value in values])


def assembled(
    busiest: Sequence[Stage],
    send_s: Any,
    end: tuple[Any, Any, Any, Any],
    fullest: Memory,
    micro_batches: Any,
    cluster: Cluster,
    sources: dict[str, str],
    slow: float = 1.0,
    scatter: float | None = None,
) -> Simulated:
    """Parts that add up, and the whole: the slowest of all ranks sets the pace of computing (``scatter``: the cluster's)."""
    passes, gradients, update, weights = end
    compute = micro_batches * sum(one.computing_s for one in busiest)
    tensor = micro_batches * sum(one.tensor_s for one in busiest)
    gather = micro_batches * sum(one.gather_s for one in busiest)
    stages = micro_batches * 2 * len(busiest) * send_s
    waits = slow * expected_slowest(cluster.scatter if scatter is None else scatter, cluster.ranks) - 1
    parts = {
        "compute": compute,
        "tensor": tensor,
        "gather": gather,
        "stages": stages,
        "bubble": passes - compute - tensor - gather - stages,
        "gradients": gradients,
        "update": update,
        "weights": weights,
        "slowest": waits * (compute + update),
    }
    limit = USABLE_MEMORY * cluster.device.memory_bytes
    sources = {**sources, "memory": "counted"}
    return Simulated(sum(parts.values()), parts, fullest, limit, sources)
