"""Claim: collectives take as long as in a minimal loop of one's own (medians within 10 % at each size).

The loop below is what one would write by hand: barrier, clock, calls, clock, and the slowest rank counts. It and
``labbench.distributed.collectives`` run in the same ranks, in turns, size by size, on buffers of their own. Each turn tells their
ratio; its median is judged, and turns are taken until the interval of that lies within the goal or outside, or time is over.

    torchrun --nproc-per-node 2 benchmarks/collectives_loop.py [--max-mib 64] [--seconds 60]

On a machine with other work two turns of the *same* loop differ, too; *loop after loop* is by how much in the median.

glibc learns from what is freed whether it maps large buffers anew. Two pieces of code in one process find it in different moods,
and a call that needs a buffer of its own (reduce-scatter) was up to a fifth faster in one than in the other; it is told to keep
what it has.
"""

from __future__ import annotations

import argparse
import ctypes
import math
import os
import statistics
import sys
import tempfile
from collections import Counter
from itertools import pairwise
from pathlib import Path
from time import perf_counter

import torch
import torch.distributed as dist

from labbench.distributed.collectives import time_collectives
from labbench.distributed.collectives_model import OPERATIONS
from labbench.distributed.job import Pulse
from labbench.distributed.measured_collectives import SIZES, size_label
from labbench.distributed.rank import pin
from labbench.measure.stats import quantiles

GOAL = 0.10
LEAST = 24  # turns
WITHIN, MISSED = "within", "missed"
SAMPLES = 3  # of a turn: short turns, so that both meet the same neighbours on a shared machine


def by_hand(operation: str, size: int, calls: int) -> list[float]:
    """Seconds of a call, one for each block of so many, of the slowest rank."""
    ranks, rank = dist.get_world_size(), dist.get_rank()
    words = size // 4
    whole, part, other = torch.zeros(words), torch.zeros(words // ranks), torch.zeros(words)
    peer = 1 - rank

    def ping_pong() -> None:
        if rank == 0:
            dist.send(whole, peer)
            dist.recv(whole, peer)
        elif rank == 1:
            dist.recv(whole, peer)
            dist.send(whole, peer)

    call = {
        "all_reduce": lambda: dist.all_reduce(whole),
        "all_gather": lambda: dist.all_gather_into_tensor(whole, part),
        "reduce_scatter": lambda: dist.reduce_scatter_tensor(part, whole),
        "broadcast": lambda: dist.broadcast(whole, 0),
        "all_to_all": lambda: dist.all_to_all_single(other, whole),
        "p2p": ping_pong,
    }[operation]
    call()
    times = torch.zeros(SAMPLES, dtype=torch.float64)
    for sample in range(SAMPLES):
        dist.barrier()
        began = perf_counter()
        for _ in range(calls):
            call()
        times[sample] = (perf_counter() - began) / calls / (2 if operation == "p2p" else 1)
    dist.all_reduce(times, op=dist.ReduceOp.MAX)
    return [float(one) for one in times]


def compare(pulse: Pulse, operation: str, size: int, seconds: float) -> tuple[float, float, list[float], list[float]]:
    """Medians of labbench's and of the loop; of each turn of both their ratio; and of two turns of the loop theirs.

    Turns go on until the verdict is clear or time is over; who begins a turn alternates.
    """
    ours: list[float] = []
    theirs: list[float] = []
    end = perf_counter() + seconds
    calls = 1
    while True:
        for who in (1, 0) if len(ours) % 2 else (0, 1):
            if who == 0:
                row = time_collectives(pulse, [operation], [size], SAMPLES)[0]
                ours.append(statistics.median(row["seconds"]))
                calls = row["calls"]
            else:
                theirs.append(statistics.median(by_hand(operation, size, calls)))
        ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
        over = verdict(ratios) in (WITHIN, MISSED) or perf_counter() > end
        done = torch.tensor([float(len(ours) >= LEAST and over)])
        dist.broadcast(done, 0)  # all ranks stop at the same turn
        if done.item():
            itself = [after / before for before, after in pairwise(theirs)]
            return statistics.median(ours), statistics.median(theirs), ratios, itself


def verdict(ratios: list[float]) -> str:
    """Whether the median of the ratio is within the goal, as far as its interval tells."""
    low, high = interval(ratios)
    if max(abs(low - 1), abs(high - 1)) <= GOAL:
        return WITHIN
    if low - 1 > GOAL or high - 1 < -GOAL:
        return MISSED
    return f"{WITHIN if abs(statistics.median(ratios) - 1) <= GOAL else MISSED}, perhaps"


def interval(ratios: list[float]) -> tuple[float, float]:
    """Of 95 %, of the median."""
    found = quantiles(ratios, [0] * len(ratios), list(range(len(ratios))), (0.5,))[0]
    return (0.0, math.inf) if found.ci_low is None or found.ci_high is None else (found.ci_low, found.ci_high)


def keep_memory() -> None:
    """Tell glibc neither to map large buffers anew nor to give freed ones back."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    for option in (-3, -1):  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
        if mallopt:
            mallopt(option, 2**30)


def main() -> int:
    """On each rank; the first prints and judges."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--max-mib", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60, help="at most for each operation and size")
    parser.add_argument("--operation", nargs="+", default=list(OPERATIONS), choices=OPERATIONS)
    options = parser.parse_args()
    keep_memory()
    torch.set_num_threads(1)
    pin(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("gloo")
    first, found = dist.get_rank() == 0, []
    with tempfile.TemporaryDirectory() as folder:
        pulse = Pulse(Path(folder), dist.get_rank())
        for operation in options.operation:
            for size in [one for one in SIZES if one <= options.max_mib * 2**20]:
                ours, loop, ratios, itself = compare(pulse, operation, size, options.seconds)
                found.append(verdict(ratios))
                if first:
                    low, high = interval(ratios)
                    print(
                        f"{operation:15}{size_label(size):>8} {ours * 1e6:8.0f} us {loop * 1e6:8.0f} us "
                        f"{statistics.median(ratios) - 1:+7.1%} ({low - 1:+.1%} to {high - 1:+.1%}), {len(ratios):3} turns; "
                        f"loop after loop {statistics.median(abs(one - 1) for one in itself):5.1%}  {found[-1]}",
                        flush=True,
                    )
    if first:
        print(", ".join(f"{count} {word}" for word, count in Counter(found).items()), f"of {len(found)}")
    dist.barrier()
    sys.stdout.flush()
    os._exit(int(MISSED in found and first))


if __name__ == "__main__":
    main()
