"""Times of training steps by ranks together: a step takes as long as it takes the slowest rank."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from labbench.distributed.correct import DTYPES
from labbench.distributed.decoder import batch, decoder
from labbench.distributed.sizes import Shape
from labbench.distributed.strategies import strategy

if TYPE_CHECKING:
    from labbench.distributed.job import Pulse

WARMUP = 3  # connections are made, buckets rebuilt (DDP does so after its first backward pass), graphs compiled


def time_steps(
    pulse: Pulse, modes: list[str], steps: int = 21, precision: str = "fp32", shape: dict[str, int] | None = None
) -> list[dict[str, Any]]:
    """Time steps of each mode.

    Returns
    -------
    list of dict
        For each mode ``step_s`` (slowest rank, each step), ``backward_s`` (forward and backward of it) and ``silent_s`` (the
        same without communication of gradients, in turns with the others; None where the strategy cannot do that).
    """
    sizes = Shape(**(shape or {}))
    return [_timed(pulse, name, steps, DTYPES[precision], sizes) for name in modes]


def _timed(pulse: Pulse, name: str, steps: int, dtype: torch.dtype, sizes: Shape) -> dict[str, Any]:
    spread = strategy(name).spread(decoder(sizes, dtype))
    data = batch(sizes)
    whole, passes, silent = [], [], []
    for index in range(-WARMUP, steps):
        pulse(f"{name}: step {index}")
        dist.barrier()
        began = perf_counter()
        spread.backward(data)
        middle = perf_counter()
        spread.update()
        ended = perf_counter()
        quiet = spread.silent()
        if quiet is not None:
            dist.barrier()
            started = perf_counter()
            with quiet:
                spread.backward(data)
            silent.append(perf_counter() - started)
            spread.optimizer.zero_grad(set_to_none=True)
        whole.append(ended - began)
        passes.append(middle - began)
    return {
        "mode": name,
        "step_s": slowest(whole[WARMUP:]),
        "backward_s": slowest(passes[WARMUP:]),
        "silent_s": slowest(silent[WARMUP:]) if silent else None,
    }


def slowest(seconds: list[float]) -> list[float]:
    """Each the largest of all ranks."""
    found = torch.tensor(seconds, dtype=torch.float64)
    dist.all_reduce(found, op=dist.ReduceOp.MAX)
    return [float(value) for value in found]
