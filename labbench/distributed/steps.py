"""Times of training steps, as each rank sees them; that a step takes as long as it takes the slowest is said by who reads them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from labbench.distributed.correct import DTYPES
from labbench.distributed.decoder import batch, decoder
from labbench.distributed.overlap import by_hook, by_trace
from labbench.distributed.place import clock, device, kind
from labbench.distributed.sizes import ONE, Shape
from labbench.distributed.strategies import Spread, strategy
from labbench.measure.memory import current_bytes, peak, release_garbage, return_heap

if TYPE_CHECKING:
    from labbench.distributed.job import Pulse

WARMUP = 3  # connections are made, buckets rebuilt (DDP does so after its first backward pass), graphs compiled


def time_steps(
    pulse: Pulse,
    modes: list[str],
    steps: int = 21,
    precision: str = "fp32",
    shape: dict[str, int] | None = None,
    overlap: bool = True,
) -> list[dict[str, Any]]:
    """Time steps of each mode; with ``overlap`` their messages too, by hook and trace.

    Returns
    -------
    list of dict
        For each mode, of this rank and each step: ``step_s``, ``backward_s`` (forward and backward of it), ``silent_s`` (the same
        without communication of gradients, in turns with the others; None where the strategy cannot do that) and ``busy_s``
        (computing within ``backward_s``; None where that is not known). ``memory``: bytes by what they are, and the peak above
        what the process had before. ``hook``, ``trace``: see :mod:`labbench.distributed.overlap`. ``forward_s`` of layers and
        output for a single process.
    """
    return_heap()
    sizes = Shape(**(shape or {}))
    _load(sizes, DTYPES[precision])
    return [_timed(pulse, name, steps, DTYPES[precision], sizes, overlap) for name in modes]


def _load(sizes: Shape, dtype: torch.dtype) -> None:
    """A step of a single process and a message: what libraries make once is no strategy's memory."""
    spread = strategy(ONE).spread(decoder(sizes, dtype))
    spread.backward(batch(sizes))
    spread.update()
    dist.all_reduce(torch.zeros(1, device=device()))


def _timed(pulse: Pulse, name: str, steps: int, dtype: torch.dtype, sizes: Shape, overlap: bool) -> dict[str, Any]:
    mode, data = strategy(name), batch(sizes)

    def make() -> Spread:
        return mode.spread(decoder(sizes, dtype))

    release_garbage()
    before = current_bytes(kind())
    with peak(kind()) as highest:
        spread = make()
        for index in range(WARMUP):
            pulse(f"{name}: warm-up {index}")
            spread.backward(data)
            held = held_bytes(spread)
            spread.update()
    if highest.bytes is not None:
        held["peak"] = highest.bytes - before
    found: dict[str, Any] = {"mode": name, "memory": held, "hook": None, "trace": None}
    found["bubble"] = mode.bubble(dist.get_world_size())
    if name == ONE:
        with _forwards(spread.modules[0]) as found["forward_s"]:
            found |= _steps(spread, data, name, steps, pulse)
        return found
    found |= _steps(spread, data, name, steps, pulse)
    if (
        overlap and found["busy_s"] is None and kind() == "cpu"
    ):  # of a pipeline, a trace cannot tell a message from waiting for it
        found["trace"] = by_trace(spread, data, pulse)
        found["hook"] = by_hook(make, data, pulse)
    return found


def _steps(spread: Spread, data: Any, name: str, steps: int, pulse: Pulse) -> dict[str, Any]:
    whole, passes, silent, busy = [], [], [], []
    for index in range(-1, steps):
        pulse(f"{name}: step {index}")
        dist.barrier()
        spread.computing_s()
        began = clock()
        spread.backward(data)
        middle = clock()
        spread.update()
        ended = clock()
        computing = spread.computing_s()
        if computing is not None:
            busy.append(computing)
        quiet = spread.silent()
        if quiet is not None:
            dist.barrier()
            started = clock()
            with quiet:
                spread.backward(data)
            silent.append(clock() - started)
            spread.optimizer.zero_grad(set_to_none=True)
        whole.append(ended - began)
        passes.append(middle - began)
    return {
        "step_s": whole[1:],
        "backward_s": passes[1:],
        "silent_s": silent[1:] if silent else None,
        "busy_s": busy[1:] if busy else None,
    }


def held_bytes(spread: Spread) -> dict[str, int]:
    """Bytes of this rank's parameters, gradients and optimizer's states, counted tensor by tensor; shards as they are."""
    from torch.distributed.tensor import DTensor

    def size(value: Any) -> int:
        own = value.to_local() if isinstance(value, DTensor) else value
        return int(own.numel() * own.element_size())

    parameters = [value for module in spread.modules for value in module.parameters()]
    inner = getattr(spread.optimizer, "optim", spread.optimizer)  # ZeRO-1's own is within
    states = [value for state in inner.state.values() for value in state.values() if isinstance(value, torch.Tensor)]
    return {
        "parameters": sum(map(size, parameters)),
        "gradients": sum(size(value.grad) for value in parameters if value.grad is not None),
        "optimizer": sum(map(size, states)),
    }


@contextmanager
def _forwards(model: Any) -> Iterator[list[list[float]]]:
    """Seconds of the forward pass of each layer and of the output, a list each, while the block runs."""
    parts = [*model.layers.values(), model.output]
    found: list[list[float]] = [[] for _ in parts]
    handles = []
    for part, seconds in zip(parts, found, strict=True):
        began: list[float] = []
        handles.append(part.register_forward_pre_hook(lambda *_, began=began: began.append(clock())))
        handles.append(
            part.register_forward_hook(lambda *_, began=began, seconds=seconds: seconds.append(clock() - began.pop()))
        )
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def slowest(seconds: list[float]) -> list[float]:
    """Each the largest of all ranks."""
    found = torch.tensor(seconds, dtype=torch.float64, device=device())
    dist.all_reduce(found, op=dist.ReduceOp.MAX)
    return [float(value) for value in found]
