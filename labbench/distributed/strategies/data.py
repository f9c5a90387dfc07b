"""Data parallel: every rank has the whole model and a share of the batch (DistributedDataParallel; ZeRO-1 shards the optimizer)."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from labbench.config import unknown_name
from labbench.distributed.decoder import loss
from labbench.distributed.place import device
from labbench.distributed.strategies.base import (
    EPSILON,
    LEARNING_RATE,
    Batch,
    Spread,
    Strategy,
    adamw,
    mean_over_ranks,
    share,
)

if TYPE_CHECKING:
    from labbench.distributed.decoder import Decoder

HOOKS = ("allreduce_hook", "fp16_compress_hook", "bf16_compress_hook")


class DataSpread(Spread):
    """A replica and its share of the batch; gradients are averaged by buckets during the last backward pass of a step.

    ``hooked``: buckets are sent by a hook.
    """

    def __init__(self, replica: DistributedDataParallel, run: Any, accumulation: int, hooked: bool = False) -> None:
        self.modules = [replica]
        self.replica, self.run, self.accumulation, self.hooked = replica, run, accumulation, hooked

    def backward(self, batch: Batch) -> torch.Tensor:
        """As in the base class."""
        own = share(batch, dist.get_rank(), dist.get_world_size())
        total = torch.zeros((), dtype=next(self.replica.parameters()).dtype, device=device())
        for index in range(self.accumulation):
            ids, targets = share(own, index, self.accumulation)
            last = index == self.accumulation - 1
            with nullcontext() if last else self.replica.no_sync():
                value = loss(self.run(ids), targets) / self.accumulation
                value.backward()
            total += value.detach()
        return total

    def loss(self, value: torch.Tensor) -> torch.Tensor:
        """As in the base class."""
        return mean_over_ranks(value)

    def silent(self) -> AbstractContextManager[Any]:
        """As in the base class."""
        context: AbstractContextManager[Any] = self.replica.no_sync()
        return context


@dataclass(frozen=True)
class Data(Strategy):
    """DistributedDataParallel.

    Attributes
    ----------
    bucket_mb : float
        MiB of gradients that are averaged at once.
    accumulation : int
        Backward passes of one step; only the last of them communicates.
    hook : str, optional
        How buckets are sent, one of ``HOOKS``.
    static_graph : bool
        The graph is the same in every step.
    backend : str, optional
        Compile the replica with this backend of ``torch.compile``.
    zero : bool
        The optimizer's state is sharded (ZeroRedundancyOptimizer, ZeRO-1).
    """

    bucket_mb: float = 25.0
    accumulation: int = 1
    hook: str | None = None
    static_graph: bool = False
    backend: str | None = None
    zero: bool = False

    def __post_init__(self) -> None:
        if self.hook is not None and self.hook not in HOOKS:
            raise unknown_name("communication hook", self.hook, HOOKS)

    def spread(self, model: Decoder) -> Spread:
        """As in the base class."""
        replica = DistributedDataParallel(model, bucket_cap_mb=self.bucket_mb, static_graph=self.static_graph)
        if self.hook is not None:
            from torch.distributed.algorithms.ddp_comm_hooks import default_hooks

            replica.register_comm_hook(None, getattr(default_hooks, self.hook))
        run = torch.compile(replica, backend=self.backend) if self.backend else replica
        spread = DataSpread(replica, run, self.accumulation, self.hook is not None)
        if self.zero:
            from torch.distributed.optim import ZeroRedundancyOptimizer

            spread.optimizer = ZeroRedundancyOptimizer(
                replica.parameters(), optimizer_class=torch.optim.AdamW, lr=LEARNING_RATE, eps=EPSILON, foreach=False
            )
        else:
            spread.optimizer = adamw(spread.modules)
        return spread
