"""Claim: collectives take as long as in a minimal loop of one's own (medians within 10 % at each size).

The loop below is what one would write by hand: barrier, clock, calls, clock, and the slowest rank counts. It and
``labbench.distributed.collectives`` run in the same ranks, in turns, size by size, on buffers of their own.

    torchrun --nproc-per-node 2 benchmarks/collectives_loop.py [--max-mib 64] [--rounds 15]

On a machine with other work the medians of two runs of the *same* loop differ too; that is the last column.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import torch
import torch.distributed as dist

from labbench.distributed.collectives import time_collectives
from labbench.distributed.collectives_model import OPERATIONS
from labbench.distributed.job import Pulse
from labbench.distributed.measured_collectives import SIZES, size_label
from labbench.distributed.rank import pin

GOAL = 0.10
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


def compare(pulse: Pulse, operation: str, size: int, rounds: int) -> tuple[float, float, float]:
    """Medians of labbench's, of the loop, and how far the loop's first and second halves are apart."""
    ours: list[float] = []
    theirs: list[list[float]] = []
    for _ in range(rounds):
        row = time_collectives(pulse, [operation], [size], SAMPLES)[0]
        ours += row["seconds"]
        theirs.append(by_hand(operation, row["size_bytes"], row["calls"]))
    loop = [one for part in theirs for one in part]
    halves = [statistics.median([one for part in theirs[first::2] for one in part]) for first in (0, 1)]
    return statistics.median(ours), statistics.median(loop), abs(halves[1] / halves[0] - 1)


def main() -> int:
    """On each rank; the first prints and judges."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--max-mib", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15, help="turns of each, at each size")
    parser.add_argument("--operation", nargs="+", default=list(OPERATIONS), choices=OPERATIONS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    pin(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("gloo")
    first, missed, cells = dist.get_rank() == 0, 0, 0
    with tempfile.TemporaryDirectory() as folder:
        pulse = Pulse(Path(folder), dist.get_rank())
        for operation in options.operation:
            for size in SIZES:
                if size > options.max_mib * 2**20:
                    continue
                ours, loop, itself = compare(pulse, operation, size, options.rounds)
                off = ours / loop - 1
                cells, missed = cells + 1, missed + (abs(off) > GOAL)
                if first:
                    mark = "  MISSED" if abs(off) > GOAL else ""
                    times = f"{ours * 1e6:10.0f} us {loop * 1e6:10.0f} us"
                    print(
                        f"{operation:15}{size_label(size):>8} {times} {off:+7.1%}  loop against itself {itself:5.1%}{mark}",
                        flush=True,
                    )
    if first:
        print(f"within {GOAL:.0%}: {cells - missed} of {cells}")
    dist.barrier()
    sys.stdout.flush()
    os._exit(int(missed > 0 and first))


if __name__ == "__main__":
    main()
