"""Pipeline parallel: each rank has some of the layers, and micro-batches pass through them by a schedule."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch.distributed.pipelining import PipelineStage, schedules

from labbench.config import unknown_name
from labbench.distributed.decoder import loss, stages_of
from labbench.distributed.place import clock, device
from labbench.distributed.strategies.base import Batch, Spread, Strategy, adamw

if TYPE_CHECKING:
    from labbench.distributed.decoder import Decoder

SCHEDULES = {  # schedule of torch.distributed.pipelining, stages on each rank
    "gpipe": ("ScheduleGPipe", 1),
    "1f1b": ("Schedule1F1B", 1),
    "interleaved-1f1b": ("ScheduleInterleaved1F1B", 2),
    "looped-bfs": ("ScheduleLoopedBFS", 2),
    "interleaved-zero-bubble": ("ScheduleInterleavedZeroBubble", 2),
}


class PipelineSpread(Spread):
    """Stages of this rank and the schedule that runs them; the last rank has the last stage and its loss."""

    def __init__(self, modules: list[Any], stages: list[Any], schedule: Any) -> None:
        self.modules, self.schedule = modules, schedule
        self.optimizer = adamw(self.modules)
        self.computing = 0.0
        for stage in stages:  # between its passes a rank sends, receives and waits
            for name in ("forward_one_chunk", "backward_one_chunk", "backward_weight_one_chunk"):
                setattr(stage, name, self._timed(getattr(stage, name)))

    def _timed(self, run: Any) -> Any:
        def timed(*arguments: Any, **options: Any) -> Any:
            began = clock()
            try:
                return run(*arguments, **options)
            finally:
                self.computing += clock() - began

        return timed

    def computing_s(self) -> float:
        """As in the base class."""
        seconds, self.computing = self.computing, 0.0
        return seconds

    def backward(self, batch: Batch) -> torch.Tensor:
        """As in the base class; the schedule divides gradients by the number of micro-batches."""
        ids, targets = batch
        last = dist.get_world_size() - 1
        losses: list[torch.Tensor] = []
        inputs = (ids,) if dist.get_rank() == 0 else ()
        if dist.get_rank() == last:
            self.schedule.step(*inputs, target=targets, losses=losses)
        else:
            self.schedule.step(*inputs)
        return torch.stack(losses).mean().detach() if losses else torch.zeros((), dtype=self.dtype, device=device())

    def loss(self, value: torch.Tensor) -> torch.Tensor:
        """As in the base class; the last rank has it."""
        dist.broadcast(value, src=dist.get_world_size() - 1)
        return value

    @property
    def dtype(self) -> torch.dtype:
        """Of the parameters."""
        return next(iter(self.modules[0].parameters())).dtype


@dataclass(frozen=True)
class Pipeline(Strategy):
    """Stages dealt over the ranks in turn.

    Attributes
    ----------
    schedule : str
        One of ``SCHEDULES``.
    micro_batches : int
    """

    schedule: str = "gpipe"
    micro_batches: int = 4

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise unknown_name("schedule", self.schedule, SCHEDULES)

    def spread(self, model: Decoder) -> Spread:
        """As in the base class."""
        ranks, rank = dist.get_world_size(), dist.get_rank()
        name, each = SCHEDULES[self.schedule]
        own = stages_of(ranks, each)[rank]
        modules = [copy.deepcopy(model).stage(index, ranks * each) for index in own]
        stages = [
            PipelineStage(module, index, ranks * each, device()) for module, index in zip(modules, own, strict=True)
        ]
        kind = getattr(schedules, name)
        schedule = kind(stages if each > 1 else stages[0], n_microbatches=self.micro_batches, loss_fn=loss)
        return PipelineSpread(modules, stages, schedule)

    def bubble(self, ranks: int) -> float | None:
        """``(P - 1) / (M V + P - 1)`` of P ranks, M micro-batches and V stages a rank (Narayanan et al. 2021, section 2.2).

        A schedule without bubbles (zero bubble) has none of it; what it has left depends on how a backward pass divides.
        """
        if "ZeroBubble" in SCHEDULES[self.schedule][0]:
            return None
        return (ranks - 1) / (self.micro_batches * SCHEDULES[self.schedule][1] + ranks - 1)
