"""Collectives, timed: a size is that of the whole buffer, a time that of the slowest rank, bandwidths as nccl-tests define them.

A sample is a block of calls back to back between two barriers, divided by their number. Sending and receiving is half of a
there-and-back.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from labbench.distributed.place import clock, device
from labbench.distributed.steps import slowest

if TYPE_CHECKING:
    from labbench.distributed.job import Pulse

BLOCK_S = 0.02  # a block is long enough that leaving a barrier unevenly does not matter
MOST_CALLS = 50
WORD = 4  # bytes of a float32

Call = Callable[[], Any]


def time_collectives(
    pulse: Pulse, operations: list[str], sizes: list[int], samples: int = 11, at_once: int = 1, block_s: float = BLOCK_S
) -> list[dict[str, Any]]:
    """Time each operation at each size.

    Parameters
    ----------
    pulse : Pulse
    operations : list of str
        Of :data:`labbench.distributed.collectives_model.OPERATIONS`.
    sizes : list of int
        Bytes; rounded up to as many words on each rank.
    samples : int
        Blocks.
    at_once : int
        All-reduces of a call, which are started together.
    block_s : float
        That a block should take at least; much longer than it takes a message to arrive, since ranks leave a barrier so far apart.

    Returns
    -------
    list of dict
        ``operation``, ``size_bytes`` (as sent, of one), ``at_once``, ``calls`` of a block, ``seconds`` of a call by block.
    """
    warnings.filterwarnings("ignore", module="torch.distributed")
    found = []
    for operation in operations:
        for size in sizes:
            pulse(f"{operation} {size} bytes")
            call, sent = prepared(operation, size) if at_once == 1 else together(size, at_once)
            calls = _calls(call, block_s)
            seconds = []
            for _ in range(samples):
                dist.barrier()
                began = clock()
                for _ in range(calls):
                    call()
                seconds.append((clock() - began) / calls)
            trips = 2 if operation == "p2p" else 1
            times = [one / trips for one in slowest(seconds)]
            found.append(
                {"operation": operation, "size_bytes": sent, "at_once": at_once, "calls": calls, "seconds": times}
            )
    return found


def _calls(call: Call, block_s: float) -> int:
    """Calls of a block, the same on all ranks; the first call, which makes connections, is not counted."""
    call()
    dist.barrier()
    began = clock()
    call()
    return max(1, min(MOST_CALLS, int(block_s / slowest([clock() - began])[0])))


def prepared(operation: str, size: int) -> tuple[Call, int]:
    """A call of the operation on buffers of its own, and the bytes of the whole buffer."""
    ranks, rank = dist.get_world_size(), dist.get_rank()
    each = -(-size // (WORD * ranks))
    whole, part, other = (torch.zeros(many, device=device()) for many in (each * ranks, each, each * ranks))

    def there_and_back() -> None:
        if rank == 0:
            dist.send(whole, 1)
            dist.recv(whole, 1)
        elif rank == 1:
            dist.recv(whole, 0)
            dist.send(whole, 0)

    calls: dict[str, Call] = {
        "all_reduce": lambda: dist.all_reduce(whole),
        "all_gather": lambda: dist.all_gather_into_tensor(whole, part),
        "reduce_scatter": lambda: dist.reduce_scatter_tensor(part, whole),
        "broadcast": lambda: dist.broadcast(whole, 0),
        "all_to_all": lambda: dist.all_to_all_single(other, whole),
        "p2p": there_and_back,
    }
    return calls[operation], each * ranks * WORD


def together(size: int, many: int) -> tuple[Call, int]:
    """A call of so many all-reduces that are started together, each on a buffer of its own."""
    words = -(-size // WORD)
    buffers = [torch.zeros(words, device=device()) for _ in range(many)]

    def call() -> None:
        for work in [dist.all_reduce(one, async_op=True) for one in buffers]:
            work.wait()

    return call, words * WORD
