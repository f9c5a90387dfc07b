"""Communication of a backward pass, inside the ranks: by a hook at every bucket, and by the profiler's trace.

A channel sends one message after another, so a message takes ``end_i - max(ready_i, end_(i-1))`` (Li et al. 2020,
arXiv:2006.15704, section 3.2), and what is *exposed* is what of it no computing hides.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from time import perf_counter, sleep
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist

from labbench.distributed.strategies.data import DataSpread

if TYPE_CHECKING:
    from collections.abc import Callable

    from labbench.distributed.strategies.base import Batch, Spread

PASS = "labbench pass"
SENT = ("gloo:", "nccl:", "xccl:")  # what backends call their messages in a trace
ROUNDS = 7
DISPATCH_S = 2e-4  # between operators that follow one another so soon, Python and autograd are at work
SETTLE_S = 0.1  # for threads of messages to write their ends: a trace that ended before that has crashed
TRACED = 3  # a trace of more passes takes seconds to read

Interval = tuple[float, float]


class Buckets:
    """When each bucket of a pass was ready to be sent, and when it had arrived."""

    def __init__(self) -> None:
        self.ready: list[float] = []
        self.end: list[float] = []

    def hook(self, bucket: Any) -> Any:
        """Average a bucket over all ranks, as DDP does itself, and write down when."""
        index = len(self.ready)
        self.ready.append(perf_counter())
        self.end.append(float("nan"))
        values = bucket.buffer().div_(dist.get_world_size())

        def arrived(future: Any) -> Any:
            self.end[index] = perf_counter()
            return future.value()[0]

        return dist.all_reduce(values, async_op=True).get_future().then(arrived)

    def taken(self) -> tuple[float, float, float]:
        """Seconds of all messages, those after the last gradient was computed, and when that was; forgets the pass."""
        spent, last = in_turn(self.ready, self.end), max(self.ready)
        exposed = max(self.end) - last
        self.ready, self.end = [], []
        return spent, exposed, last


def in_turn(ready: Sequence[float], end: Sequence[float]) -> float:
    """Seconds that messages take on a channel which sends them one after another."""
    before = np.concatenate([[-np.inf], np.maximum.accumulate(np.asarray(end, float))[:-1]])
    return float(np.sum(np.maximum(np.asarray(end, float) - np.maximum(np.asarray(ready, float), before), 0)))


def by_hook(make: Callable[[], Spread], data: Batch, pulse: Callable[[str], None]) -> dict[str, list[float]] | None:
    """Seconds of communication and of its exposed part in passes of a replica with a hook of ours, beside silent passes.

    Parameters
    ----------
    make : callable
        Spreads the model.
    data : pair of tensors
    pulse : callable

    Returns
    -------
    dict or None
        ``total_s``, ``exposed_s``, ``pass_s``, ``gradients_s`` (until the last gradient was computed) and ``silent_s`` of each
        pass, in turns; None unless it is data parallel and has no hook of its own.
    """
    spread = make()
    if not isinstance(spread, DataSpread) or spread.run is not spread.replica or spread.hooked:
        return None
    buckets = Buckets()
    spread.replica.register_comm_hook(None, lambda state, bucket: buckets.hook(bucket))
    names = ("total_s", "exposed_s", "pass_s", "gradients_s", "silent_s")
    found: dict[str, list[float]] = {name: [] for name in names}
    told: dict[str, float] = {}
    for index in range(-2, ROUNDS):
        pulse(f"hook: pass {index}")
        for silent in (False, True):
            dist.barrier()
            began = perf_counter()
            with spread.silent() if silent else nullcontext():
                spread.backward(data)
            taken = perf_counter() - began
            spread.optimizer.zero_grad(set_to_none=True)
            if silent:
                told["silent_s"] = taken
            else:
                total, exposed, last = buckets.taken()
                told = {"total_s": total, "exposed_s": exposed, "pass_s": taken, "gradients_s": last - began}
        if index >= 0:
            for name in names:
                found[name].append(told[name])
    return found


def by_trace(spread: Spread, data: Batch, pulse: Callable[[str], None]) -> dict[str, list[float]] | None:
    """Of a few passes, from a trace of the profiler; None where it shows no message.

    Returns
    -------
    dict or None
        Of each pass ``total_s`` and ``exposed_s`` of communication, and ``pass_s`` of the whole.
    """
    pulse("trace")
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        for _ in range(TRACED):
            dist.barrier()
            with torch.profiler.record_function(PASS):
                spread.backward(data)
            spread.optimizer.zero_grad(set_to_none=True)
        sleep(SETTLE_S)
    events = [(one.name, one.time_range.start * 1e-6, one.time_range.end * 1e-6) for one in profiler.events()]
    return of_events(events)


def of_events(events: Sequence[tuple[str, float, float]]) -> dict[str, list[float]] | None:
    """The same from names, beginnings and ends of events; operators (``aten::``) that follow one another are what computes."""
    sent = [(begin, end) for name, begin, end in events if name.startswith(SENT) and "barrier" not in name]
    computing = union([(begin, end) for name, begin, end in events if name.startswith("aten::")], DISPATCH_S)
    found: dict[str, list[float]] = {"total_s": [], "exposed_s": [], "pass_s": []}
    for name, begin, end in events:
        if name != PASS:
            continue
        own = sorted((one for one in sent if begin <= one[0] < end), key=lambda one: one[1])
        busy = union(own)
        found["total_s"].append(in_turn([one[0] for one in own], [one[1] for one in own]) if own else 0.0)
        found["exposed_s"].append(sum(one[1] - one[0] - overlap(one, computing) for one in busy))
        found["pass_s"].append(end - begin)
    return found if any(found["total_s"]) else None


def union(intervals: Sequence[Interval], gap_s: float = 0.0) -> list[Interval]:
    """Intervals that do not touch, which cover the same, and gaps of up to ``gap_s`` between them."""
    found: list[Interval] = []
    for begin, end in sorted(intervals):
        if found and begin <= found[-1][1] + gap_s:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((begin, end))
    return found


def overlap(one: Interval, others: Sequence[Interval]) -> float:
    """How much of an interval others cover; they do not touch."""
    return sum(max(0.0, min(one[1], end) - max(one[0], begin)) for begin, end in others)
