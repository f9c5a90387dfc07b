"""Steps of a model of equal layers, timed by ranks together: computing is a wait of known length, or products of matrices.

Waiting keeps no core busy, so that more ranks than cores behave as if each had its own; whoever shows such times says that
computing was emulated. What a step takes is the time from the end of one to the end of the next, as they follow one another
without a barrier. The same layers without communication tell what computing takes, layer by layer.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.functional import gelu
from torch.nn.parallel import DistributedDataParallel

from labbench.distributed.collectives import time_collectives
from labbench.distributed.sizes import ALONE, Layers

if TYPE_CHECKING:
    from labbench.distributed.job import Pulse

LEARNING_RATE = 1e-3
BLOCK_S = 0.1  # of collectives: hosts may be some milliseconds apart


class Waiting(torch.autograd.Function):
    """Passes that only take time; the gradient of the weights is as large as a real one."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, forward_s: float, backward_s: float) -> torch.Tensor:
        """Wait."""
        ctx.backward_s, ctx.like = backward_s, weight.shape
        time.sleep(forward_s)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        """Wait."""
        time.sleep(ctx.backward_s)
        return gradients[0], torch.full(ctx.like, 1e-6), None, None


class Layer(nn.Module):
    """One square matrix of weights."""

    def __init__(self, sizes: Layers) -> None:
        super().__init__()
        self.sizes = sizes
        self.weight = nn.Parameter(torch.randn(sizes.width, sizes.width) / sizes.width**0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(rows, width)`` to the same."""
        if self.sizes.rows:
            return gelu(x @ self.weight)
        out: Any = Waiting.apply(x, self.weight, self.sizes.forward_s, self.sizes.backward_s)
        return out


@dataclass
class Trained:
    """A model as its strategy has it, and its optimizer."""

    model: Any
    optimizer: torch.optim.Optimizer
    x: torch.Tensor

    def step(self) -> None:
        """Forward, backward, update."""
        self.model(self.x).sum().backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def spread(sizes: Layers, mode: str, alone: dist.ProcessGroup | None = None) -> Trained:
    """Layers under a strategy: ``alone``, ``ddp-<MiB>`` with buckets of so much, ``fsdp``.

    With a group ``alone`` of this rank only, the strategy does all that it does but sends nothing.
    """
    torch.manual_seed(0)
    model: Any = nn.Sequential(*(Layer(sizes) for _ in range(sizes.layers)))
    if mode.startswith("ddp-"):
        size = float(mode.removeprefix("ddp-"))
        model = DistributedDataParallel(model, bucket_cap_mb=size, process_group=alone)
    elif mode == "fsdp":
        mesh = DeviceMesh.from_group(alone, "cpu") if alone else init_device_mesh("cpu", (dist.get_world_size(),))
        for layer in model:
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
    elif mode != ALONE:
        raise ValueError(f"no mode {mode!r}: alone, ddp-<MiB> or fsdp")
    x = torch.randn(sizes.rows or 1, sizes.width, requires_grad=True)
    return Trained(model, torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, foreach=False), x)


def time_layers(
    pulse: Pulse,
    layers: dict[str, Any],
    modes: list[str],
    blocks: int = 2,
    steps: int = 3,
    collectives: dict[str, list[int]] | None = None,
    samples: int = 5,
    single: Sequence[str] = (),
) -> dict[str, Any]:
    """Time collectives, computing by layer, and steps of each mode, the modes in turns.

    Parameters
    ----------
    pulse : Pulse
    layers : dict
        Fields of :class:`~labbench.distributed.sizes.Layers`.
    modes : list of str
        See :func:`spread`.
    blocks, steps : int
        Times that every mode's turn comes, and steps timed in it after a first one that is not.
    collectives : dict, optional
        Operation to sizes in bytes, timed first; ``all_reduce x2``: two at once.
    samples : int
        Of each size.
    single : sequence of str
        Modes that are timed without the other ranks, too: as ``<mode> alone``.

    Returns
    -------
    dict
        ``collectives`` as of :func:`~labbench.distributed.collectives.time_collectives`; ``forward_s`` and ``backward_s`` of this
        rank (steps × layers, in the order of the forward pass), ``update_s``; ``step_s`` by mode.
    """
    sizes = Layers(**layers)
    found: dict[str, Any] = {"collectives": []}
    for operation, many in (collectives or {}).items():
        name, _, count = operation.partition(" x")
        found["collectives"] += time_collectives(pulse, [name], many, samples, int(count or 1), BLOCK_S)
    trained = {mode: spread(sizes, mode) for mode in modes}
    if single:
        own, _ = dist.new_subgroups(group_size=1)
        trained |= {f"{mode} {ALONE}": spread(sizes, mode, own) for mode in single}
    alone = Watched(spread(sizes, ALONE))
    intervals: dict[str, list[float]] = {mode: [] for mode in trained}
    for block in range(blocks):
        dist.barrier()
        for _ in range(steps + 1):
            pulse(f"block {block}: alone")
            alone.step()
        for mode, one in trained.items():
            dist.barrier()
            ends = []
            for step in range(steps + 1):
                pulse(f"block {block}: {mode}, step {step}")
                one.step()
                ends.append(time.perf_counter())
            intervals[mode] += [after - before for before, after in pairwise(ends)]
    return found | alone.times(steps) | {"step_s": intervals}


class Watched:
    """A model without communication that notes when each layer's passes end."""

    def __init__(self, trained: Trained) -> None:
        self.trained = trained
        self.marks: list[float] = []
        self.forward: list[list[float]] = []
        self.backward: list[list[float]] = []
        self.update: list[float] = []
        for layer in trained.model:
            layer.register_forward_hook(self._mark)
            layer.weight.register_post_accumulate_grad_hook(self._mark)

    def _mark(self, *_: Any) -> None:
        self.marks.append(time.perf_counter())

    def step(self) -> None:
        """A step, by its parts."""
        self.marks = [time.perf_counter()]
        loss = self.trained.model(self.trained.x).sum()
        forward = self.marks
        self.marks = [time.perf_counter()]
        loss.backward()
        backward = self.marks
        began = time.perf_counter()
        self.trained.optimizer.step()
        self.trained.optimizer.zero_grad(set_to_none=True)
        self.update.append(time.perf_counter() - began)
        self.forward.append([after - before for before, after in pairwise(forward)])
        self.backward.append([after - before for before, after in pairwise(backward)][::-1])

    def times(self, steps: int) -> dict[str, Any]:
        """All but the first step of each block of ``steps + 1``."""
        kept = [index for index in range(len(self.update)) if index % (steps + 1)]
        return {
            "forward_s": [self.forward[index] for index in kept],
            "backward_s": [self.backward[index] for index in kept],
            "update_s": [self.update[index] for index in kept],
        }
