"""Which rank ended a job, and why, from what each of them left behind.

The first to complain is often innocent: a rank that waits for a dead or hung one is told so within a millisecond, and raises. So,
in this order: a rank that a signal ended (unless the agent sent it); a rank whose own error is not about a peer; and where nobody
moves any more, the rank that got least far.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from labbench.cells import Frozen
from labbench.distributed.job import Beat
from labbench.records import Status


class Ending(Frozen):
    """How a job ended.

    Attributes
    ----------
    status : str
        As of a record.
    reason : str or None
        None if all is well.
    ranks : list of int
        To blame; several if they cannot be told apart, none if it was not a rank.
    """

    status: Status
    reason: str | None = None
    ranks: list[int] = Field(default_factory=list)


def of_failure(errors: Mapping[int, Mapping[str, Any]], codes: Mapping[int, int], silent: Sequence[int]) -> Ending:
    """Who failed first.

    Parameters
    ----------
    errors : mapping
        Of ranks that raised: ``status``, ``reason``, ``of_peer``, ``at_s``.
    codes : mapping
        Exit codes by rank that the agent saw before it ended the others; negative: a signal.
    silent : sequence of int
        Ranks that are gone without an error or a result.
    """
    killed = [rank for rank, code in codes.items() if code < 0 and code != -signal.SIGTERM and rank not in errors]
    if killed:
        names = ", ".join(f"rank {rank} was ended by {_signal(-codes[rank])}" for rank in killed)
        return Ending(status="failed", reason=names, ranks=killed)
    own = {rank: error for rank, error in errors.items() if not error["of_peer"]}
    if own:
        rank = min(own, key=lambda one: own[one]["at_s"])
        return Ending(status=own[rank]["status"], reason=f"rank {rank}: {own[rank]['reason']}", ranks=[rank])
    if silent:
        names = ", ".join(str(rank) for rank in silent)
        return Ending(status="failed", reason=f"rank {names} ended without a word", ranks=list(silent))
    if errors:
        rank = min(errors, key=lambda one: errors[one]["at_s"])
        reason = f"every error is about a peer, the first by rank {rank}: {errors[rank]['reason']}"
        return Ending(status="failed", reason=reason, ranks=[])
    return Ending(status="failed", reason="the ranks ended without results", ranks=[])


def of_hang(beats: Sequence[Beat], waited_s: float) -> Ending:
    """Who keeps the others waiting, when no rank has given a sign of life for ``waited_s`` seconds.

    Of ranks at the same place, one that waits for others has entered a collective that one that hangs has not.
    """
    least = min((beat.count, beat.calls) for beat in beats)
    behind = [beat for beat in beats if (beat.count, beat.calls) == least]
    if len(behind) == len(beats) > 1:
        where = ", ".join(f"rank {beat.rank} at {beat.where!r}" for beat in beats)
        return Ending(
            status="timeout",
            reason=f"no sign of life for {waited_s:g} s, all equally far ({where}): which one hangs cannot be told",
            ranks=[beat.rank for beat in beats],
        )
    names = ", ".join(f"rank {beat.rank} hangs at {beat.where!r}" for beat in behind)
    return Ending(
        status="timeout",
        reason=f"{names}: no sign of life for {waited_s:g} s, while the others wait for it",
        ranks=[beat.rank for beat in behind],
    )


def _signal(number: int) -> str:
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:
        return f"signal {number}"
