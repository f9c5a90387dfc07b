"""The processes behind live backends: started with their model, kept on a core, slowed without pretence."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Collection, Mapping, Sequence
from time import sleep
from typing import TYPE_CHECKING

from labbench.measure.group import job_of
from labbench.measure.protocol import Protocol
from labbench.measure.worker import Worker, can_fork

if TYPE_CHECKING:
    from labbench.cells import Cell

THREADS = 1  # of a backend whose cell names none: backends share the machine
DUTY_S = (
    0.006  # of a slowed worker's cycle of running and standing still: some milliseconds, as under a quota of CPU time
)


def start(cell: Cell, cores: Collection[int] | None, plugins: Sequence[str] = ()) -> Worker:
    """A worker that is ready for calls: blocks until its model is loaded, prepared, and its first output was checked.

    Raises
    ------
    WorkerEnded
        If that fails.
    """
    worker = begin(cell, plugins)
    if cores is not None:
        os.sched_setaffinity(worker.pid, cores)
    for command in ("load", "prepare", "first"):
        worker.call(command, timeout_s=worker.job.protocol.prepare_timeout_s)
    return worker


def begin(cell: Cell, plugins: Sequence[str] = ()) -> Worker:
    """A worker that has loaded nothing yet; the first one of a process waits until the server it is forked from has."""
    job = job_of(cell, Protocol(), THREADS, tuple(plugins))
    worker = Worker(job, "fork" if can_fork() else "fresh", memory_limit_bytes=sys.maxsize)
    worker.set_deadline(job.protocol.prepare_timeout_s)
    worker.wait()
    return worker


def cores_of(names: Sequence[str]) -> dict[str, Collection[int] | None]:
    """A core for each backend, the last ones first (interrupts prefer the first); all cores for each if there are too few.

    None where a system cannot keep processes on cores.
    """
    if not hasattr(os, "sched_setaffinity"):
        return dict.fromkeys(names)
    allowed = sorted(os.sched_getaffinity(0), reverse=True)
    if len(allowed) < len(names):
        return dict.fromkeys(names, allowed)
    return {name: [core] for name, core in zip(names, allowed, strict=False)}


class Brake:
    """Makes a worker ``factor`` times slower: it is stopped for that part of every cycle (SIGSTOP, SIGCONT).

    Parameters
    ----------
    workers : mapping
        Name to worker, as it is at each moment: a worker's successor is slowed too.
    name : str
    factor : float
        Above 1.
    """

    def __init__(self, workers: Mapping[str, Worker], name: str, factor: float) -> None:
        self._workers, self._name, self._running_s = workers, name, DUTY_S / factor
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._hold, daemon=True)
        self._thread.start()

    def _hold(self) -> None:
        while not self._released.wait(self._running_s):
            worker = self._workers.get(self._name)
            if worker is not None:
                worker.pause()
                sleep(DUTY_S - self._running_s)
                worker.resume()

    def release(self) -> None:
        """Let the worker run freely again."""
        self._released.set()
        self._thread.join()
