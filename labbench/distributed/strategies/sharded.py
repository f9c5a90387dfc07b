"""Sharded data parallel: each rank keeps a share of parameters, gradients and optimizer (FSDP2)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, OffloadPolicy, fully_shard

from labbench.distributed.decoder import loss
from labbench.distributed.place import device, kind
from labbench.distributed.strategies.base import Batch, Spread, Strategy, adamw, mean_over_ranks, share

if TYPE_CHECKING:
    from labbench.distributed.decoder import Decoder


class ShardedSpread(Spread):
    """A sharded model; ``index`` of ``shares`` says which share of the batch is this rank's."""

    def __init__(self, model: Any, index: int, shares: int, accumulation: int = 1) -> None:
        self.modules = [model]
        self.model, self.index, self.shares, self.accumulation = model, index, shares, accumulation
        self.optimizer = adamw(self.modules)

    def backward(self, batch: Batch) -> torch.Tensor:
        """As in the base class."""
        own = share(batch, self.index, self.shares)
        total = torch.zeros((), dtype=torch.float64, device=device())
        for index in range(self.accumulation):
            ids, targets = share(own, index, self.accumulation)
            if self.accumulation > 1:
                self.model.set_requires_gradient_sync(index == self.accumulation - 1)
            value = loss(self.model(ids), targets) / self.accumulation
            value.backward()
            total += value.detach()
        return total

    def loss(self, value: torch.Tensor) -> torch.Tensor:
        """As in the base class."""
        return mean_over_ranks(value)

    def silent(self) -> AbstractContextManager[Any]:
        """As in the base class; parameters are gathered all the same."""

        @contextmanager
        def unsynchronised() -> Iterator[None]:
            self.model.set_requires_gradient_sync(False)
            yield
            self.model.set_requires_gradient_sync(True)

        return unsynchronised()


@dataclass(frozen=True)
class Sharded(Strategy):
    """FSDP2's ``fully_shard``, a layer at a time.

    Attributes
    ----------
    reshard : bool
        Parameters are given back after the forward pass and gathered again in the backward pass (ZeRO-3; else as ZeRO-2).
    accumulation : int
        Backward passes of one step; only the last of them communicates gradients.
    compute : dtype, optional
        Of parameters as they are gathered and used; gradients are reduced in the model's own.
    hybrid : bool
        Sharded within halves of the ranks, replicated between them.
    offload : bool
        Shards live in the host's memory.
    """

    reshard: bool = True
    accumulation: int = 1
    compute: torch.dtype | None = None
    hybrid: bool = False
    offload: bool = False

    def spread(self, model: Decoder) -> Spread:
        """As in the base class."""
        self.check_world()
        ranks = dist.get_world_size()
        mesh = (
            init_device_mesh(kind(), (2, ranks // 2), mesh_dim_names=("replicate", "shard"))
            if self.hybrid
            else init_device_mesh(kind(), (ranks,))
        )
        own = next(model.parameters()).dtype
        offload = CPUOffloadPolicy(pin_memory=False) if self.offload else OffloadPolicy()
        for module in (*model.layers.values(), model):
            precision = MixedPrecisionPolicy(
                param_dtype=self.compute,
                reduce_dtype=own if self.compute else None,
                output_dtype=own
                if self.compute and module is model
                else None,  # the loss is computed in the model's own
            )
            fully_shard(
                module, mesh=mesh, reshard_after_forward=self.reshard, mp_policy=precision, offload_policy=offload
            )
        return ShardedSpread(model, dist.get_rank(), ranks, self.accumulation)
