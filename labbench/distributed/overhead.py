"""What ranks saw of their steps, as figures of the whole: a step takes as long as it takes the slowest rank.

A rank that comes early waits within the message, so that a message's own seconds are the fewest that any rank saw.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

Ranks = Sequence[dict[str, Any]]  # what each rank returned of one mode, see labbench.distributed.steps


def step_s(ranks: Ranks) -> list[float]:
    """Seconds of each step."""
    return _slowest(ranks, "step_s")


def metrics(ranks: Ranks) -> dict[str, float]:
    """Figures of a record.

    ``compute_s`` (forward and backward without communication, where the strategy can be silenced or knows what it computes),
    ``exposed_communication_s`` (difference), ``update_s``, ``straggler`` (computing of the slowest rank over the median's),
    ``idle``, and by rank; of messages by hook and by trace; bytes of the fullest rank and by rank. Negative differences are what
    noise leaves of nothing, and stay as they are.
    """
    first = ranks[0]
    backward = np.array(_slowest(ranks, "backward_s"))
    found = {"update_s": statistics.median(step_s(ranks)) - float(np.median(backward))}
    if first["silent_s"]:
        silent = np.array(_slowest(ranks, "silent_s"))
        found |= {
            "compute_s": float(np.median(silent)),
            "exposed_communication_s": float(np.median(backward) - np.median(silent)),
            "straggler": _straggler(ranks, "silent_s"),
        }
    if first["busy_s"]:
        busy = np.array([one["busy_s"] for one in ranks])
        idle = np.median(1 - busy / backward, axis=1)
        found |= {"compute_s": float(np.median(busy.max(axis=0))), "straggler": _straggler(ranks, "busy_s")}
        found |= {"idle": float(idle.mean())} | {f"idle rank {rank}": float(one) for rank, one in enumerate(idle)}
    if first["bubble"] is not None:
        found["bubble_by_formula"] = first["bubble"]
    if first.get("forward_s"):
        found["compute_s"] = float(np.median(backward))
        found |= {f"forward_s {index}": statistics.median(part) for index, part in enumerate(first["forward_s"])}
    return found | _hook(ranks) | _trace(ranks) | _memory(ranks)


def _slowest(ranks: Ranks, name: str) -> list[float]:
    return [max(seconds) for seconds in zip(*(one[name] for one in ranks), strict=True)]


def _straggler(ranks: Ranks, name: str) -> float:
    seconds = np.array([one[name] for one in ranks])
    return float(np.median(seconds.max(axis=0) / np.median(seconds, axis=0)))


def _hook(ranks: Ranks) -> dict[str, float]:
    """By the hook: all messages, what of them is exposed, and what the same passes take longer than silent ones.

    The difference is what is exposed and what computing is slowed by messages: on a CPU these take its cores.
    """
    hooks = [one["hook"] for one in ranks]
    if not all(hooks):
        return {}
    seen = {name: np.array([hook[name] for hook in hooks]) for name in hooks[0]}
    difference = seen["pass_s"].max(axis=0) - seen["silent_s"].max(axis=0)
    return {
        "hook_communication_s": float(np.median(seen["total_s"].min(axis=0))),
        "hook_exposed_s": float(np.median(seen["exposed_s"].min(axis=0))),
        "hook_difference_s": float(np.median(difference)),
        "hook_slowed_s": float(np.median(seen["gradients_s"].max(axis=0) - seen["silent_s"].max(axis=0))),
    }


def _trace(ranks: Ranks) -> dict[str, float]:
    traces = [one["trace"] for one in ranks]
    if not all(traces):
        return {}
    seen = {name: np.array([trace[name] for trace in traces]) for name in traces[0]}
    return {
        "trace_communication_s": float(np.median(seen["total_s"].min(axis=0))),
        "trace_exposed_s": float(np.median(seen["exposed_s"].min(axis=0))),
        "trace_pass_s": float(np.median(seen["pass_s"].max(axis=0))),
    }


def _memory(ranks: Ranks) -> dict[str, float]:
    found = {}
    for name in ranks[0]["memory"]:
        each = [one["memory"][name] for one in ranks if name in one["memory"]]
        found[f"{name}_bytes"] = float(max(each))
        found |= {f"{name}_bytes rank {rank}": float(value) for rank, value in enumerate(each)}
    return found
