"""Context parallel: each rank has some of the tokens, and attention passes keys and values around."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from labbench.distributed.decoder import loss
from labbench.distributed.place import kind
from labbench.distributed.strategies.base import Batch, Spread, Strategy, adamw, mean_over_ranks

if TYPE_CHECKING:
    from labbench.distributed.decoder import Decoder


class ContextSpread(Spread):
    """The whole model on every rank, and some of the tokens of each sample; gradients are averaged after the backward pass."""

    def __init__(self, model: Decoder, mesh: DeviceMesh) -> None:
        self.modules, self.mesh = [model], mesh
        self.optimizer = adamw(self.modules)

    def backward(self, batch: Batch) -> torch.Tensor:
        """As in the base class."""
        from torch.distributed.tensor.experimental import context_parallel

        ids, targets = (part.clone() for part in batch)
        with context_parallel(self.mesh, buffers=[ids, targets], buffer_seq_dims=[1, 1]):
            value = loss(self.modules[0](ids), targets)
            value.backward()
        for parameter in self.modules[0].parameters():
            if parameter.grad is not None:
                dist.all_reduce(parameter.grad)
                parameter.grad.div_(dist.get_world_size())
        return value

    def loss(self, value: torch.Tensor) -> torch.Tensor:
        """As in the base class."""
        return mean_over_ranks(value)


@dataclass(frozen=True)
class Context(Strategy):
    """``context_parallel`` (ring attention), which has kernels for accelerators only in some versions."""

    refusals: tuple[type[Exception], ...] = (NotImplementedError,)

    def spread(self, model: Decoder) -> Spread:
        """As in the base class."""
        return ContextSpread(model, init_device_mesh(kind(), (dist.get_world_size(),)))
