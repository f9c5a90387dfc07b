"""Tensor parallel: each rank has some heads and some columns of every layer; alone, or with sharded data parallel across it."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
    loss_parallel,
    parallelize_module,
)

from labbench.distributed.decoder import loss
from labbench.distributed.place import kind
from labbench.distributed.strategies.base import Batch, Spread, Strategy, adamw
from labbench.distributed.strategies.sharded import ShardedSpread

if TYPE_CHECKING:
    from labbench.distributed.decoder import Decoder


class TensorSpread(Spread):
    """A model of which each rank has a slice; every rank sees the whole batch."""

    def __init__(self, model: Decoder, loss_parallel: bool) -> None:
        self.modules = [model]
        self.loss_parallel = loss_parallel
        self.optimizer = adamw(self.modules)

    def backward(self, batch: Batch) -> torch.Tensor:
        """As in the base class."""
        ids, targets = batch
        with loss_parallel() if self.loss_parallel else nullcontext():
            value = loss(self.modules[0](ids), targets)
            value.backward()
        return value.detach()


@dataclass(frozen=True)
class Tensor(Strategy):
    """``parallelize_module``, columns then rows (Shoeybi et al. 2019).

    Attributes
    ----------
    sequence : bool
        Between the products each rank has some of the tokens (Korthikanti et al. 2022).
    loss : bool
        Scores stay where they are, sharded by vocabulary, and so is their loss computed.
    sharded : bool
        Half of the ranks share a layer; across the halves it is sharded and the batch divided (FSDP x TP).
    """

    sequence: bool = False
    loss: bool = False
    sharded: bool = False

    def spread(self, model: Decoder) -> Spread:
        """As in the base class."""
        self.check_world()
        ranks = dist.get_world_size()
        if not self.sharded:
            self._slice(model, init_device_mesh(kind(), (ranks,)))
            return TensorSpread(model, self.loss)
        mesh = init_device_mesh(kind(), (2, ranks // 2), mesh_dim_names=("data", "tensor"))
        self._slice(model, mesh["tensor"])
        for module in (*model.layers.values(), model):
            fully_shard(module, mesh=mesh["data"])
        return ShardedSpread(model, mesh["data"].get_local_rank(), 2)

    def _slice(self, model: Decoder, mesh: DeviceMesh) -> None:
        around = Shard(1) if self.sequence else Replicate()
        columns, rows = ColwiseParallel, RowwiseParallel
        plan: dict[str, Any] = {
            "attention.query": columns(),
            "attention.key": columns(),
            "attention.value": columns(),
            "attention.out": rows(output_layouts=around),
            "feed_forward.up": columns(),
            "feed_forward.down": rows(output_layouts=around),
        }
        outside: dict[str, Any] = {
            "output": columns(
                input_layouts=around,
                output_layouts=Shard(-1) if self.loss else Replicate(),
                use_local_output=not self.loss,
            )
        }
        if self.sequence:
            gather: dict[str, Any] = {"input_layouts": (around,), "desired_input_layouts": (Replicate(),)}
            plan |= {"attention_norm": SequenceParallel(), "forward_norm": SequenceParallel()}
            plan |= {"attention": PrepareModuleInput(**gather), "feed_forward": PrepareModuleInput(**gather)}
            outside |= {"embedding": rows(input_layouts=Replicate(), output_layouts=around)}
            outside |= {"norm": SequenceParallel()}
        for layer in model.layers.values():
            parallelize_module(layer, mesh, plan)
        parallelize_module(model, mesh, outside)
