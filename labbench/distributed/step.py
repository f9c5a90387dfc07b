"""What one rank does in a step, segment by segment: measured, or from a transformer's sizes.

A segment is what is sharded, bucketed and placed on a stage as a whole: a layer, or a bucket of a measured model. All sizes and
seconds are of one rank of its tensor-parallel group and of one micro-batch; they may be arrays over cases that are simulated at
once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from labbench.config import ConfigError
from labbench.distributed.collectives_model import Collectives
from labbench.distributed.compute import Compute
from labbench.distributed.schedules import SCHEDULES, Schedule
from labbench.distributed.transformer import HALF, RECOMPUTE, Recompute

Zero = Literal[0, 1, 2, 3]


ADAM = 30.0  # master weight and two moments read and written in fp32, gradient read, half-precision weight written


@dataclass(frozen=True)
class States:
    """Bytes of a parameter's states.

    Attributes
    ----------
    weight, gradient, optimizer : float
        Weights that compute, gradients as they are added up, and what the optimizer keeps.
    sent, gathered : float
        A gradient and a weight on the wire; weights go as they are, if not told otherwise.
    handled : float
        Read and written in memory for each micro-batch beside the products: gradients added up, cast, copied to be sent, weights
        copied when gathered.
    updated : float
        Read and written by the optimizer.
    """

    weight: float = 2.0
    gradient: float = 4.0
    optimizer: float = 12.0
    sent: float = 4.0
    gathered: float = 0.0
    handled: float = 0.0
    updated: float = ADAM

    def __post_init__(self) -> None:
        object.__setattr__(self, "gathered", self.gathered or self.weight)


MEGATRON = States()  # 18 bytes: gradients in fp32 (Korthikanti et al. 2022, figure 1); master weight and two moments
ZERO = States(
    gradient=2.0, sent=2.0
)  # 16 bytes (Rajbhandari et al. 2020, arXiv:1910.02054, section 3.1); FSDP sends as much
SINGLE = States(4.0, 4.0, 8.0, 4.0)  # single precision throughout, Adam
STATES = {"megatron": MEGATRON, "zero": ZERO, "single": SINGLE}


@dataclass(frozen=True)
class Strategy:
    """How a model is spread over ranks.

    Attributes
    ----------
    data, tensor, pipeline : int
        Ranks along each way; together they are the cluster.
    zero : int
        What data-parallel ranks share out: 0 nothing (DDP), 1 the optimizer's states, 2 gradients too, 3 weights too (FSDP).
    micro_batch : int
        Samples of a forward pass on a rank.
    schedule : str
        Of the pipeline.
    chunks : int
        Of layers on each rank (interleaved).
    recompute : str
        What is computed again in the backward pass: ``none``, ``selective``, ``alternate`` or ``full`` (see
        :mod:`labbench.distributed.transformer`).
    sequence_parallel : bool
        What is not split over tensor ranks is split along the sequence (Korthikanti et al. 2022).
    overlap : bool
        Gradients travel behind the last backward pass, and under ZeRO-2 and -3 whatever is exchanged behind computing. FSDP on a
        CPU waits for every message.
    pieces : int
        Messages that a layer's weights, or gradients, travel in under ZeRO-2 and -3: one (FSDP), or one a tensor.
    tensor_overlap : float
        Share of the backward pass's tensor-parallel messages that hides behind products.
    """

    data: int = 1
    tensor: int = 1
    pipeline: int = 1
    zero: Zero = 0
    micro_batch: int = 1
    schedule: Schedule = "1f1b"
    chunks: int = 1
    recompute: Recompute = "none"
    sequence_parallel: bool = False
    overlap: bool = True
    pieces: int = 1
    tensor_overlap: float = 0.0

    def __post_init__(self) -> None:
        for name in ("data", "tensor", "pipeline", "micro_batch", "chunks", "pieces"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: a strategy has at least 1")
        if self.zero not in (0, 1, 2, 3):
            raise ConfigError(f"zero is {self.zero}: known are 0 (DDP), 1, 2 and 3 (FSDP)")
        if self.recompute not in RECOMPUTE or self.schedule not in SCHEDULES:
            raise ConfigError(f"recompute is one of {', '.join(RECOMPUTE)}, schedule one of {', '.join(SCHEDULES)}")

    @property
    def ranks(self) -> int:
        """Devices in all."""
        return self.data * self.tensor * self.pipeline

    def __str__(self) -> str:
        parts = [f"data {self.data}", f"tensor {self.tensor}", f"pipeline {self.pipeline}"]
        if self.pipeline > 1:
            parts[2] += f" ({self.schedule}{f', {self.chunks} chunks' if self.chunks > 1 else ''})"
        parts += [f"ZeRO-{self.zero}", f"micro-batch {self.micro_batch}", f"recompute {self.recompute}"]
        return ", ".join(parts)

    def micro_batches(self, batch: int) -> int:
        """Of a step on each rank; raises ConfigError if the batch does not come out."""
        each = self.data * self.micro_batch
        if batch % each:
            raise ConfigError(
                f"a batch of {batch} is no multiple of {self.data} data-parallel ranks x {self.micro_batch} samples: change either"
            )
        return batch // each


@dataclass(frozen=True)
class Segment:
    """A part of a step on one rank.

    Attributes
    ----------
    forward_s, backward_s : float
        Computing of a micro-batch, recomputation within ``backward_s``.
    tensor_forward_s, tensor_backward_s : float
        Messages between tensor-parallel ranks that nothing hides.
    parameters : float
        On this rank.
    root : float
        How many of them ZeRO-2 and -3 exchange once a step, not for each micro-batch: the embedding's and the output layer's, as
        FSDP keeps those of its outermost module.
    update_s : float
        The optimizer's, of all of them.
    kept_bytes : float
        Of a micro-batch, from its forward to its backward pass.
    working_bytes : float
        Besides, while its backward pass runs.
    """

    forward_s: Any
    backward_s: Any
    parameters: Any
    root: Any = 0.0
    update_s: Any = 0.0
    tensor_forward_s: Any = 0.0
    tensor_backward_s: Any = 0.0
    kept_bytes: Any = 0.0
    working_bytes: Any = 0.0


@dataclass(frozen=True)
class Step:
    """Segments in the order of the forward pass.

    Attributes
    ----------
    segments : tuple of Segment
    boundary_bytes : float
        That one stage sends the next for a micro-batch.
    states : States
    sources : dict
        Figure to where it comes from.
    """

    segments: Sequence[Segment]
    boundary_bytes: Any = 0.0
    states: States = MEGATRON
    sources: dict[str, str] = field(default_factory=dict)


def bucketed(
    segments: Sequence[Segment], cap_bytes: float, first_bytes: float | None = None, sent: float = 4.0
) -> list[Segment]:
    """Segments put together as DistributedDataParallel puts gradients into buckets, from the last one on.

    A bucket is closed by the gradient that makes it as large as its cap (Li et al. 2020, section 4.2).

    Parameters
    ----------
    segments : sequence of Segment
        In the order of the forward pass.
    cap_bytes : float
    first_bytes : float, optional
        Another cap of the first bucket; PyTorch has one (1 MiB) where nobody asks for a size of buckets.
    sent : float
        Bytes of a gradient on the wire.
    """
    buckets: list[list[Segment]] = [[]]
    for one in reversed(segments):
        cap = first_bytes if first_bytes and len(buckets) == 1 else cap_bytes
        if buckets[-1] and sent * sum(other.parameters for other in buckets[-1]) >= cap:
            buckets.append([])
        buckets[-1].append(one)
    summed = [field.name for field in fields(Segment) if field.name != "working_bytes"]
    return [
        Segment(
            **{name: sum(getattr(one, name) for one in bucket) for name in summed},
            working_bytes=max(one.working_bytes for one in bucket),
        )
        for bucket in reversed(buckets)
    ]


def transformer_step(compute: Compute, strategy: Strategy, collectives: Collectives, states: States = MEGATRON) -> Step:
    """The step of a transformer under a strategy: its layers, the embedding with the first and the output layer with the last.

    Raises
    ------
    ConfigError
        If tensor-parallel ranks do not share heads evenly.
    """
    model, tensor, micro = compute.model, strategy.tensor, strategy.micro_batch
    if model.heads % tensor or (model.kv_heads % tensor and tensor % model.kv_heads):
        raise ConfigError(
            f"{model.name}: {tensor} tensor-parallel ranks do not share {model.heads} heads ({model.kv_heads} of keys) evenly"
        )
    layer = compute.layer(micro, tensor, strategy.recompute, strategy.sequence_parallel)
    head = compute.head(micro, tensor)
    message = HALF * micro * model.sequence * model.hidden
    group = collectives.cluster.group(tensor, 1)
    if strategy.sequence_parallel:
        pair = collectives.seconds("all_gather", message, group) + collectives.seconds("reduce_scatter", message, group)
    else:
        pair = collectives.seconds("all_reduce", message, group)
    forward, backward = float(2 * pair), float(2 * pair * (1 - strategy.tensor_overlap))
    if strategy.recompute == "full":
        backward += forward
    elif strategy.recompute == "alternate":
        backward += forward / 2
    working = (
        model.kept_bytes(micro, tensor, "none", strategy.sequence_parallel) if strategy.recompute != "none" else 0.0
    )
    kept = model.kept_bytes(micro, tensor, strategy.recompute, strategy.sequence_parallel)
    parameters, table = model.layer_parameters / tensor, model.embedding_parameters / tensor
    shared = model.tied and strategy.pipeline == 1  # of several stages, the last one keeps a copy

    def segment(first: bool, last: bool) -> Segment:
        logits = (
            3 * HALF * micro * model.sequence * model.vocabulary / tensor if last else 0.0
        )  # fp32 logits and half of their gradient
        root = (table if first else 0.0) + (table if last and not shared else 0.0)
        own = parameters + root
        return Segment(
            forward_s=layer.forward_s + (head.forward_s if last else 0.0),
            backward_s=layer.backward_s
            + layer.again_s
            + (head.backward_s if last else 0.0)
            + compute.moved_s(states.handled * own),
            parameters=own,
            root=root,
            update_s=compute.moved_s(states.updated * own),
            tensor_forward_s=forward,
            tensor_backward_s=backward,
            kept_bytes=kept + (logits if last else 0.0),
            working_bytes=working,
        )

    alone = [segment(True, True)]
    segments = [segment(True, False), *[segment(False, False)] * (model.layers - 2), segment(False, True)]
    sent = message / tensor  # each tensor-parallel rank sends its share (Narayanan et al. 2021, section 4.1)
    sources = {"computing": f"kernel laws, {compute.device.source} rate of products", "links": collectives.source}
    return Step(segments if model.layers > 1 else alone, sent, states, sources)
