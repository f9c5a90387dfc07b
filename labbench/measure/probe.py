"""How much memory a cell takes, and nothing else: a worker that makes a few calls under a limit, and may die of it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from labbench.measure.group import job_of
from labbench.measure.worker import Worker, WorkerEnded, can_fork

if TYPE_CHECKING:
    from labbench.cells import Cell
    from labbench.measure.protocol import Protocol
    from labbench.records import Status


def peak_memory(cell: Cell, limit_bytes: int, protocol: Protocol) -> tuple[Status, str | None, int | None]:
    """Status, reason, and the peak of memory above the empty worker in bytes; freed memory goes back to the system at once.

    Parameters
    ----------
    cell : Cell
        Resolved.
    limit_bytes : int
        Above the empty worker; one that takes more is ended, with status ``out_of_memory``.
    """
    from labbench import zoo
    from labbench.machine import physical_cores

    job = job_of(cell, protocol, physical_cores(), tuple(zoo.plugins()))
    worker = Worker(job, "fork" if can_fork() else "fresh", sys.maxsize)
    try:
        worker.set_deadline(protocol.prepare_timeout_s)
        worker.wait()
        worker.call("return_heap", timeout_s=protocol.call_timeout_s)
        loaded = worker.call("load", timeout_s=protocol.prepare_timeout_s)
        worker.memory_limit_bytes = loaded["empty_bytes"] + limit_bytes
        worker.call("prepare", timeout_s=protocol.prepare_timeout_s)
        worker.call("first", timeout_s=protocol.call_timeout_s)
        found = worker.call("memory", timeout_s=protocol.call_timeout_s)
    except WorkerEnded as ended:
        return ended.outcome.status, ended.outcome.reason, None
    finally:
        worker.close()
    return "ok", found["reason"], found["increase_bytes"]
