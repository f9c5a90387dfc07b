"""What every way of spreading training over ranks can do: :class:`Strategy` makes it, :class:`Spread` runs it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import nn

from labbench.runtimes.base import Unsupported

if TYPE_CHECKING:
    from labbench.distributed.decoder import Decoder

LEARNING_RATE = 1e-3
EPSILON = (
    1e-4  # far above what rounding leaves of a gradient of zero, which AdamW would else turn into a step of its own
)

Batch = tuple[torch.Tensor, torch.Tensor]


class Spread(ABC):
    """A model spread over the ranks, ready to train.

    Attributes
    ----------
    modules : list of Module
        What of the model is on this rank; several stages of an interleaved pipeline.
    """

    modules: list[nn.Module]
    optimizer: torch.optim.Optimizer

    @abstractmethod
    def backward(self, batch: Batch) -> torch.Tensor:
        """Forward and backward of a whole step; the loss as this rank has it (:meth:`loss` makes it everyone's)."""

    def loss(self, value: torch.Tensor) -> torch.Tensor:
        """The mean loss of the whole batch, on every rank, from what :meth:`backward` returned; all ranks take part."""
        return whole(value)

    def gradients(self) -> dict[str, torch.Tensor]:
        """Gradients by name of the parameter, whole tensors; those of this rank's stages in a pipeline."""
        return {
            name: whole(value.grad) for name, value in self.named() if value.requires_grad and value.grad is not None
        }

    def parameters(self) -> dict[str, torch.Tensor]:
        """Parameters by name, whole tensors."""
        return {name: whole(value.detach()) for name, value in self.named()}

    def named(self) -> list[tuple[str, nn.Parameter]]:
        """Parameters of this rank under the names that they have in one process."""
        wrappers = ("_orig_mod.", "module.")
        found = []
        for module in self.modules:
            for name, value in module.named_parameters():
                for wrapper in wrappers:
                    name = name.removeprefix(wrapper)
                found.append((name, value))
        return found

    def update(self) -> None:
        """Let the optimizer change the parameters."""
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def silent(self) -> AbstractContextManager[Any] | None:
        """In this context the backward pass communicates nothing; None where the strategy cannot be silenced."""
        return None

    def computing_s(self) -> float | None:
        """Seconds that this rank computed since it was last asked; None where that cannot be told from waiting."""
        return None


@dataclass(frozen=True)
class Strategy(ABC):
    """A way of spreading training over ranks.

    Attributes
    ----------
    rounding : dtype, optional
        The coarsest format that gradients pass through, where that is not the model's own.
    refusals : tuple of exception types
        What libraries raise where the platform cannot do this; anything else is a failure.
    multiple : int
        The number of ranks must be a multiple of it.
    """

    rounding: torch.dtype | None = None
    refusals: tuple[type[Exception], ...] = (NotImplementedError,)
    multiple: int = 1

    @abstractmethod
    def spread(self, model: Decoder) -> Spread:
        """Spread a model, which every rank has whole, over all ranks.

        Raises
        ------
        Unsupported
            If that cannot be done with so many ranks or on this platform.
        """

    def bubble(self, ranks: int) -> float | None:
        """Share of a step that a rank waits for others by the strategy's own formula; None where it has none."""
        return None

    def check_world(self) -> None:
        """Raises Unsupported if the number of ranks will not do."""
        if dist.get_world_size() % self.multiple:
            raise Unsupported(
                f"{dist.get_world_size()} ranks cannot be laid out in two dimensions; give a multiple of {self.multiple}"
            )


def whole(value: torch.Tensor) -> torch.Tensor:
    """A copy of a tensor, put together if it is sharded (one that every rank has whole would come as it is, not as a copy)."""
    from torch.distributed.tensor import DTensor

    return (value.full_tensor() if isinstance(value, DTensor) else value).detach().clone()


def share(batch: Batch, index: int, shares: int) -> Batch:
    """One of equal shares of a batch."""
    ids, targets = (part.chunk(shares)[index] for part in batch)
    return ids, targets


def mean_over_ranks(value: torch.Tensor, group: dist.ProcessGroup | None = None) -> torch.Tensor:
    """The mean of a number over ranks, on every rank."""
    total = whole(value).clone()
    dist.all_reduce(total, group=group)
    return total / dist.get_world_size(group)


def adamw(modules: list[nn.Module]) -> torch.optim.Optimizer:
    """The optimizer that every strategy uses."""
    parameters = [value for module in modules for value in module.parameters()]
    return torch.optim.AdamW(parameters, lr=LEARNING_RATE, eps=EPSILON, foreach=False)
