"""Pipelines and overlap as events: when each pass of each micro-batch runs, and when each message is through.

A schedule is, for each rank, the order of its passes. A pass begins when its rank is free and what it needs has arrived:

- *gpipe*: all forward passes, then all backward passes (Huang et al. 2019, arXiv:1811.06965);
- *1f1b*: forward passes until the pipe is full, then one of each in turn (Narayanan et al. 2019, 2021);
- *interleaved*: the same with several chunks of layers a rank, taken in groups of as many micro-batches as there are ranks
  (Narayanan et al. 2021, arXiv:2104.04473, section 2.2, in the order of Megatron-LM).

:func:`makespan` is what the events come to where all stages are alike but for a slower last one; tests hold both together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from labbench.config import ConfigError, unknown_name

Schedule = Literal["gpipe", "1f1b", "interleaved"]
SCHEDULES: tuple[Schedule, ...] = ("gpipe", "1f1b", "interleaved")
Pass = tuple[bool, int, int]  # forward?, micro-batch, chunk of the rank


def orders(schedule: Schedule, ranks: int, micro_batches: int, chunks: int = 1) -> list[list[Pass]]:
    """Of each rank, its passes in order.

    Raises
    ------
    ConfigError
        If the schedule is unknown, has but one chunk a rank and more are asked for, or interleaved micro-batches do not come in
        groups of as many as there are ranks.
    """
    if schedule not in SCHEDULES:
        raise unknown_name("schedule", schedule, SCHEDULES)
    if schedule != "interleaved" and chunks != 1:
        raise ConfigError(f"{schedule} has one chunk of layers a rank, not {chunks}: take 'interleaved'")
    if schedule == "interleaved" and micro_batches % ranks:
        raise ConfigError(
            f"{micro_batches} micro-batches over {ranks} ranks: interleaved, they come in groups of as many as there are ranks"
        )
    forwards, backwards = _passes(ranks, micro_batches, chunks)
    total = len(forwards)
    out = []
    for rank in range(ranks):
        if schedule == "gpipe":
            ahead = total
        elif schedule == "1f1b":
            ahead = min(ranks - rank - 1, total)
        else:
            ahead = min(2 * (ranks - rank - 1) + (chunks - 1) * ranks, total)
        turns = [one for pair in zip(forwards[ahead:], backwards, strict=False) for one in pair]
        out.append(forwards[:ahead] + turns + backwards[total - ahead :])
    return out


def _passes(ranks: int, micro_batches: int, chunks: int) -> tuple[list[Pass], list[Pass]]:
    """Forward and backward passes of a rank, each in the order they come."""
    groups = [range(first, min(first + ranks, micro_batches)) for first in range(0, micro_batches, ranks)]
    forwards = [(True, one, chunk) for group in groups for chunk in range(chunks) for one in group]
    backwards = [(False, one, chunk) for group in groups for chunk in reversed(range(chunks)) for one in group]
    return forwards, backwards


@dataclass(frozen=True)
class Pipeline:
    """What came of a schedule.

    Attributes
    ----------
    seconds : float
        From the first pass to the end of the last.
    ends_s : tuple of float
        When each rank is through with its last pass.
    busy_s : tuple of float
        How long each rank ran passes.
    kept : tuple of float
        Most that a rank kept at a time for backward passes to come, in the unit of ``weights``.
    """

    seconds: float
    ends_s: tuple[float, ...]
    busy_s: tuple[float, ...]
    kept: tuple[float, ...]


def run(
    schedule: Schedule,
    forward_s: Sequence[float],
    backward_s: Sequence[float],
    micro_batches: int,
    ranks: int,
    *,
    delay_s: float = 0.0,
    weights: Sequence[float] | None = None,
) -> Pipeline:
    """Run a schedule.

    Parameters
    ----------
    schedule : str
    forward_s, backward_s : sequence of float
        Seconds of a pass of each stage, in the order that data goes through them; stage ``i`` is on rank ``i % ranks``.
    micro_batches, ranks : int
    delay_s : float
        Between the end of a pass and the beginning of the next stage's; what keeps a rank from computing belongs to the passes.
    weights : sequence of float, optional
        What a stage keeps of a micro-batch from its forward to its backward pass; default: 1 each.

    Raises
    ------
    ConfigError
        As :func:`orders`, or if the stages do not share out evenly over the ranks.
    """
    stages = len(forward_s)
    if stages % ranks:
        raise ConfigError(f"{stages} stages on {ranks} ranks: each rank takes as many")
    weights = weights or [1.0] * stages
    queues = orders(schedule, ranks, micro_batches, stages // ranks)
    ends: dict[tuple[bool, int, int], float] = {}
    free, busy, kept, most = ([0.0] * ranks for _ in range(4))
    place = [0] * ranks
    last = stages - 1

    def needed(forward: bool, one: int, stage: int) -> tuple[bool, int, int] | None:
        if forward:
            return (True, one, stage - 1) if stage else None
        return (True, one, last) if stage == last else (False, one, stage + 1)

    waiting = list(range(ranks))
    while waiting:
        moved = False
        for rank in waiting:
            while place[rank] < len(queues[rank]):
                forward, one, chunk = queues[rank][place[rank]]
                stage = chunk * ranks + rank
                before = needed(forward, one, stage)
                if before is not None and before not in ends:
                    break
                arrives = 0.0 if before is None else ends[before] + (delay_s if before[2] != stage else 0.0)
                takes = forward_s[stage] if forward else backward_s[stage]
                free[rank] = ends[forward, one, stage] = max(free[rank], arrives) + takes
                busy[rank] += takes
                kept[rank] += weights[stage] if forward else 0.0
                most[rank] = max(most[rank], kept[rank])
                kept[rank] -= 0.0 if forward else weights[stage]
                place[rank] += 1
                moved = True
        waiting = [rank for rank in waiting if place[rank] < len(queues[rank])]
        if not moved and waiting:
            raise ConfigError(f"{schedule}: ranks {waiting} wait for one another: the order of passes cannot run")
    return Pipeline(max(free), tuple(free), tuple(busy), tuple(most))


def makespan(forward_s: Any, backward_s: Any, last_s: Any, micro_batches: Any, ranks: Any, chunks: Any = 1) -> Any:
    """Seconds of any of the schedules where all passes are alike, but those of the last stage may take ``last_s`` longer together.

    ``(P - 1) (f + b)`` to fill and drain, ``M`` times what the last rank does for a micro-batch: with ``V`` chunks of a V-th
    each, the bubble is ``(P - 1) / (V M)`` of the rest (Narayanan et al. 2021, section 2.2). Arrays go element by element.
    """
    both = forward_s + backward_s
    return (ranks - 1) * both + micro_batches * (chunks * both + last_s)


def in_flight(schedule: Schedule, ranks: Any, micro_batches: Any, chunks: Any = 1) -> Any:
    """Chunks that the first rank keeps at most."""
    if schedule == "gpipe":
        return micro_batches * np.ones_like(ranks)
    if schedule == "1f1b":
        return np.minimum(ranks, micro_batches)
    return np.minimum(ranks * (chunks + 1) - 1, micro_batches * chunks)


def overlap(ready_s: Sequence[Any], cost_s: Sequence[Any]) -> Any:
    """When the last of several messages is through a channel that takes one at a time: ``end = max(ready, end before) + cost``.

    Sequences over messages, of floats or of arrays of as many cases.
    """
    end: Any = 0.0
    for ready, cost in zip(ready_s, cost_s, strict=True):
        end = np.maximum(ready, end) + cost
    return end


def shared(ready_s: Sequence[float], cost_s: Sequence[Sequence[float]]) -> float:
    """When the last of several messages is through where some are under way at a time, in their order.

    Parameters
    ----------
    ready_s : sequence of float
        Ascending times at which messages are ready.
    cost_s : sequence of sequences of float
        What each message takes alone, what it takes while two are under way, and so on: as many as there may be at a time. With one
        this is :func:`overlap`.
    """
    under_way: dict[int, float] = {}  # message to the share of it that is left
    now, following = 0.0, 0
    while following < len(ready_s) or under_way:
        if following < len(ready_s) and len(under_way) < len(cost_s) and ready_s[following] <= now:
            under_way[following] = 1.0
            following += 1
            continue
        waits = following < len(ready_s) and len(under_way) < len(cost_s)
        arrives = ready_s[following] if waits else float("inf")
        costs = cost_s[max(len(under_way), 1) - 1]
        first = min(under_way, key=lambda one: under_way[one] * costs[one], default=None)
        ends = float("inf") if first is None else now + under_way[first] * costs[first]
        passed = min(ends, arrives) - now
        under_way = {one: left - (passed / costs[one] if costs[one] else 1.0) for one, left in under_way.items()}
        if first is not None and ends <= arrives:
            del under_way[first]
        now += passed
    return now


def beside(compute_s: Sequence[Any], message_s: Sequence[Any], taken: float) -> list[Any]:
    """Seconds of passes, each beside a message that takes a share ``taken`` of the device for as long as it lasts."""
    pairs = zip(compute_s, message_s, strict=True)
    return [compute + taken * np.minimum(message, compute / (1 - taken)) for compute, message in pairs]


def gathered(compute_s: Sequence[Any], gather_s: Sequence[Any]) -> Any:
    """Seconds of layers that must be gathered before they run, the next one while one runs (FSDP's prefetch).

    Each gather begins when the one before is through and the layer before begins to compute.
    """
    begin: Any = 0.0
    channel: Any = 0.0
    end: Any = 0.0
    for compute, gather in zip(compute_s, gather_s, strict=True):
        channel = np.maximum(channel, begin) + gather
        begin = np.maximum(channel, end)
        end = begin + compute
    return end


def gathered_and_scattered(compute_s: Sequence[Any], gather_s: Sequence[Any], scatter_s: Sequence[Any]) -> Any:
    """The same for a backward pass whose gradients are scattered after each layer, by the same channel.

    A layer's gather goes ahead of the scatter of the layer before it, as FSDP issues them.
    """
    begin: Any = 0.0
    channel: Any = 0.0
    end: Any = 0.0
    left: Any = None  # the scatter that waits, and when it is ready
    for compute, gather, scatter in zip(compute_s, gather_s, scatter_s, strict=True):
        channel = np.maximum(channel, begin) + gather
        begin = np.maximum(channel, end)
        if left is not None:
            channel = np.maximum(channel, left[0]) + left[1]
        end = begin + compute
        left = (end, scatter)
    return end if left is None else np.maximum(end, np.maximum(channel, left[0]) + left[1])
