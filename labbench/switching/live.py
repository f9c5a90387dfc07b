"""Backends as processes of this machine: each a worker with its model and runtime, on a core of its own where there are enough.

::

    this process: load generator + dispatcher (one thread, one loop)
        │ pipe                     │ pipe
    worker: eager, 1 thread    worker: onnxruntime, 1 thread      slowed by SIGSTOP and SIGCONT, killed by SIGKILL

Nothing is pretended: a slowed worker stands still for a part of every few milliseconds, as under a quota of processor time; a
killed one is gone, and its successor starts, loads and prepares the model in the background while the others serve.
"""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
import threading
from collections.abc import Mapping, Sequence
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any

from labbench.config import ConfigError
from labbench.measure.worker import Worker, WorkerEnded
from labbench.switching import processes
from labbench.switching.disturbances import Disturbance
from labbench.switching.drive import Happened
from labbench.switching.options import SwitchingError

if TYPE_CHECKING:
    from labbench.cells import Cell


class LiveWorld:
    """Backends that run: a context manager that starts them, and ends them.

    Parameters
    ----------
    backends : mapping
        Name of each to its cell, resolved (:func:`labbench.campaign.resolve`).
    plugins : sequence of str
        What registers the user's own models in the workers.

    Attributes
    ----------
    cold_start_s : dict
        Name to the seconds of each of its starts, from nothing to the first checked output.

    Raises
    ------
    ConfigError
        On a system without the signals that slow a process.
    SwitchingError
        If a backend cannot be started.
    """

    def __init__(self, backends: Mapping[str, Cell], plugins: Sequence[str] = ()) -> None:
        if not hasattr(signal, "SIGSTOP"):
            raise ConfigError("live switching needs signals that stop a process (Linux, macOS); simulate instead")
        self._cells, self._plugins = dict(backends), tuple(plugins)
        self._cores = processes.cores_of(list(self._cells))
        self.cold_start_s: dict[str, list[float]] = {name: [] for name in self._cells}
        self._workers: dict[str, Worker] = {}
        self._busy: set[str] = set()
        self._starting: dict[str, threading.Thread] = {}
        self._started: dict[str, Worker | WorkerEnded] = {}  # what came of a start, before the loop has seen it
        self._brakes: dict[str, processes.Brake] = {}
        self._woken, self._wake = multiprocessing.Pipe(duplex=False)
        self._began = self._cpu_began = 0.0

    def __enter__(self) -> LiveWorld:
        try:
            processes.begin(
                next(iter(self._cells.values())), self._plugins
            ).close()  # the server's start is no backend's
            for name in self._cells:  # one after the other, so that each cold start is its own
                self._start(name)
                self._settle()
            self.begin()
        except WorkerEnded as error:
            raise SwitchingError(f"no worker can be started here: {error}") from None
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---------------------------------------------------------------- the world of a run

    def begin(self) -> None:
        """Start the clock of a run, with all backends there, idle and at full speed."""
        for name in list(self._brakes):
            self._brakes.pop(name).release()
        for name in self._cells:
            if name not in self._workers and name not in self._starting:
                self._start(name)
        self._settle()
        self._began, self._cpu_began = perf_counter(), process_time()

    def now(self) -> float:
        """Seconds since :meth:`begin`."""
        return perf_counter() - self._began

    def cpu_s(self) -> float:
        """Processor time of this process since :meth:`begin`: generator, dispatcher, brakes, looking after starts."""
        return process_time() - self._cpu_began

    def wait(self, until_s: float) -> list[Happened]:
        """Wait for an answer, the end of a worker, or a new one to be ready."""
        pipes: dict[Any, str] = {worker.connection: name for name, worker in self._workers.items()}
        timeout = None if until_s == float("inf") else max(until_s - self.now(), 0.0)
        # select() and not poll(), which rounds the time up to milliseconds
        ready, _, _ = select.select([self._woken, *pipes], [], [], timeout)
        happened = [self._has_started() if pipe is self._woken else self._has_answered(pipes[pipe]) for pipe in ready]
        return [event for event in happened if event is not None]

    def call(self, backend: str) -> None:
        """Send a call to a worker; that one has just died is noticed by :meth:`wait`."""
        if backend in self._workers:
            self._busy.add(backend)
            self._workers[backend].ask("call", timeout_s=float("inf"))

    def disturb(self, disturbance: Disturbance) -> None:
        """Brake a worker, let it loose, or kill it."""
        name = disturbance.backend
        if disturbance.factor is None:
            if name in self._workers:
                os.kill(self._workers[name].pid, signal.SIGKILL)
            return
        if name in self._brakes:
            self._brakes.pop(name).release()
        if disturbance.factor > 1:
            self._brakes[name] = processes.Brake(self._workers, name, disturbance.factor)

    def close(self) -> None:
        """End all workers."""
        for brake in self._brakes.values():
            brake.release()
        for thread in self._starting.values():
            thread.join()
        for worker in (*self._workers.values(), *self._started.values()):
            if isinstance(worker, Worker):
                worker.close()
        self._workers.clear()
        self._started.clear()

    # ---------------------------------------------------------------- workers

    def _start(self, name: str) -> None:
        """Start a worker in the background; the loop is woken when that is done."""

        def bring_up() -> None:
            begun = perf_counter()
            try:
                self._started[name] = processes.start(self._cells[name], self._cores[name], self._plugins)
                self.cold_start_s[name].append(perf_counter() - begun)
            except WorkerEnded as error:
                self._started[name] = error
            self._wake.send(name)

        self._starting[name] = threading.Thread(target=bring_up, daemon=True)
        self._starting[name].start()

    def _has_started(self) -> Happened | None:
        """Take over a worker that is ready; one that cannot be started stays away until the next run."""
        name = self._woken.recv()
        self._starting.pop(name).join()
        found = self._started.pop(name)
        if isinstance(found, WorkerEnded):
            self._started[name] = found
            return None
        self._workers[name] = found
        return Happened(name, "started")

    def _has_answered(self, name: str) -> Happened:
        """An answer, or the end of a worker, for which a successor is started."""
        self._busy.discard(name)
        try:
            return Happened(name, "answered", self._workers[name].answer())
        except WorkerEnded:
            del self._workers[name]
            self._start(name)
            return Happened(name, "died")

    def _settle(self) -> None:
        """Wait until nothing starts or runs any more."""
        while self._starting or self._busy:
            self.wait(float("inf"))
        for name, error in self._started.items():
            if isinstance(error, WorkerEnded):
                raise SwitchingError(f"backend {name} cannot be started: {error}")
