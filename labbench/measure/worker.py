"""Isolated workers: one process a cell, forked from a preloaded server where that is safe, watched from outside.

A worker may crash, hang, allocate until it is killed or be killed: its :class:`Worker` handle then reports an
:class:`Outcome` with the status, the reason and the tail of its stderr, and nothing else is harmed.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import multiprocessing
import os
import signal
import sys
import tempfile
import types
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_connections
from pathlib import Path
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any

from labbench.measure.memory import keep_heap, rss_of
from labbench.measure.session import CellFailed, Job, Session
from labbench.process import die_with_parent, is_out_of_memory
from labbench.records import Status

if TYPE_CHECKING:
    from labbench.measure.interpreter import Interpreter

WATCH_S = 0.05  # how often memory is looked at: a worker allocates about 100 MB in that time
STDERR_TAIL = 2000  # characters of stderr kept with a record
PRELOAD = ("labbench.measure.preload",)  # imports torch, transformers and the runtimes into the server
SPARE_FRACTION = 0.03  # of the machine's memory: below this the largest worker is ended before the system chooses one


@dataclass(frozen=True)
class Outcome:
    """Why a worker ended before its cell was measured."""

    status: Status
    reason: str
    stage: str
    stderr_tail: str | None = None


class WorkerEnded(Exception):
    """Raised by :meth:`Worker.wait`; carries the outcome."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.reason)
        self.outcome = outcome


# --- in the worker -------------------------------------------------------------------------------------------------


def _main(connection: Connection, job: Job, stderr_path: str) -> None:
    """Body of the worker process."""
    redirect(stderr_path)
    obey(connection, job)


def obey(connection: Connection, job: Job) -> None:
    """Carry out commands until the connection closes."""
    _lead_own_group()
    _die_with_campaign()
    _prefer_for_oom_kill()
    _own_no_semaphore()
    os.environ["OMP_NUM_THREADS"] = str(job.threads)
    pin(job.threads)
    if job.protocol.keep_heap:
        keep_heap()
    gc.freeze()  # a collection would look at a million inherited objects (0.2 s) and copy their pages
    session = Session(job)
    connection.send(("ok", None))
    while True:
        try:
            command, arguments = connection.recv()
        except EOFError:
            return
        connection.send(_obey(session, command, arguments))


def _obey(session: Session, command: str, arguments: tuple[Any, ...]) -> tuple[str, Any]:
    """Run one command; a Python error becomes a status with its reason."""
    import traceback

    from labbench.runtimes.base import Unsupported

    try:
        return "ok", getattr(session, command)(*arguments)
    except Unsupported as error:
        return "unsupported", str(error)
    except CellFailed as error:
        return "failed", str(error)
    except MemoryError as error:
        return "out_of_memory", f"the worker ran out of memory: {error or 'MemoryError'}"
    except Exception as error:  # a cell may fail in any way its model or runtime chooses; the record says how
        traceback.print_exc()
        text = str(error).strip() or type(error).__name__
        if is_out_of_memory(error):
            return "out_of_memory", text
        return "failed", f"{type(error).__name__}: {text.splitlines()[0][:500]}"


def pin(threads: int) -> None:
    """Keep this process on the last ``threads`` of its allowed cores (interrupts prefer the first ones)."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])


def redirect(stderr_path: str) -> None:
    """Send stdout and stderr, also of C code, to a file; a crash writes its stack there."""
    target = os.open(stderr_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(target, 1)
    os.dup2(target, 2)
    os.close(target)
    sys.stdout = sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    faulthandler.enable(sys.stderr)


def _lead_own_group() -> None:
    """Make this worker and whatever it starts (compilers) one process group, which can be ended as a whole."""
    if hasattr(os, "setsid"):
        os.setsid()


def _die_with_campaign() -> None:
    """See that this process ends with the campaign, however that ends, even while it is stopped (Linux).

    The fork server ends when nobody holds the other end of its pipe any more. Every worker inherits that end; it is closed here,
    so that only the campaign holds it. The kernel then kills the workers of a server that is gone.
    """
    if sys.platform != "linux":
        return
    from multiprocessing import forkserver

    alive = getattr(forkserver._forkserver, "_forkserver_alive_fd", None)
    if alive is not None:
        os.close(alive)
        forkserver._forkserver._forkserver_alive_fd = None  # type: ignore[attr-defined]
    die_with_parent()


def _prefer_for_oom_kill() -> None:
    """If memory runs out, let the system end this worker rather than the campaign."""
    with contextlib.suppress(OSError):  # not Linux, or not allowed: the campaign's own watch remains
        Path("/proc/self/oom_score_adj").write_text("1000")


def _own_no_semaphore() -> None:
    """Give progress bars of libraries a plain lock: their usual one is a semaphore that a killed worker leaves behind."""
    import threading

    from tqdm import tqdm

    tqdm.set_lock(threading.RLock())


# --- in the campaign -----------------------------------------------------------------------------------------------


def can_fork() -> bool:
    """Whether forking workers from a preloaded server is safe: Linux, where the server never opens an accelerator."""
    return sys.platform == "linux"


@contextlib.contextmanager
def _anonymous_main() -> Iterator[None]:
    """Hide ``__main__`` while a process starts, so that a user's script or notebook is not run again in it."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


class Worker:
    """Handle of one worker process.

    Parameters
    ----------
    job : Job
    start : {'fork', 'fresh'}
        From the preloaded server (hundredths of a second), or a new interpreter (seconds).
    memory_limit_bytes : int
        Resident memory at which the worker is ended with status ``out_of_memory``.
    interpreter : Interpreter, optional
        Another Python, in whose environment it is to run.
    """

    def __init__(self, job: Job, start: str, memory_limit_bytes: int, interpreter: Interpreter | None = None) -> None:
        self.job = job
        self.memory_limit_bytes = memory_limit_bytes
        self.stage = "start"
        self._deadline = float("inf")
        self._limit_s = float("inf")
        self._oom_kills = _oom_kill_count()
        descriptor, self._stderr_path = tempfile.mkstemp(prefix="labbench-worker-", suffix=".log")
        os.close(descriptor)
        self._started = perf_counter()
        self.connection, theirs = multiprocessing.Pipe()
        self._process: Any
        if interpreter is None:
            self._process = self._start_here(theirs, start)
        else:
            self._process = interpreter.start(
                theirs, self._stderr_path, preload=start == "fork", timeout_s=job.protocol.prepare_timeout_s
            )
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # dead: wait() reports it
                self.connection.send(job)
        self.start_s: float | None = None

    def _start_here(self, theirs: Connection, start: str) -> Any:
        context: Any = multiprocessing.get_context("forkserver" if start == "fork" else "spawn")
        if start == "fork":
            context.set_forkserver_preload(list(PRELOAD))
        process = context.Process(
            target=_main, args=(theirs, self.job, self._stderr_path), name=f"labbench {self.job.cell.id}"
        )
        with _anonymous_main():
            process.start()
        theirs.close()
        return process

    @property
    def pid(self) -> int:
        """Process id."""
        pid: int = self._process.pid
        return pid

    def ask(self, command: str, *arguments: Any, timeout_s: float) -> None:
        """Send a command; :meth:`wait` (or :func:`wait_any`) gets the answer."""
        self.stage = command
        self.set_deadline(timeout_s)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # dead: wait() reports it
            self.connection.send((command, arguments))

    def set_deadline(self, timeout_s: float) -> None:
        """Give the worker ``timeout_s`` seconds from now to answer."""
        self._limit_s = timeout_s
        self._deadline = monotonic() + timeout_s

    def wait(self) -> Any:
        """The answer to the last command.

        Raises
        ------
        WorkerEnded
            If the worker failed, died, ran out of time or of memory. It is gone by then.
        """
        while not self.connection.poll(WATCH_S):
            self.watch()
        return self.answer()

    def call(self, command: str, *arguments: Any, timeout_s: float) -> Any:
        """:meth:`ask`, then :meth:`wait`."""
        self.ask(command, *arguments, timeout_s=timeout_s)
        return self.wait()

    def watch(self) -> None:
        """End the worker if it is over its time or memory."""
        if monotonic() > self._deadline:
            self._end(
                "timeout", f"no answer within {self._limit_s:g} s in stage {self.stage!r}; raise the protocol's timeout"
            )
        used = rss_of(self.pid) or 0
        if used > self.memory_limit_bytes:
            self._end(
                "out_of_memory",
                f"used {used / 2**30:.2f} GiB, over its limit of {self.memory_limit_bytes / 2**30:.2f} GiB",
            )

    def answer(self) -> Any:
        """Receive the answer that is waiting; raises :class:`WorkerEnded` as :meth:`wait` does."""
        try:
            status, value = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            self._end(*self._post_mortem())
        if status != "ok":
            self._end(status, value)
        if self.start_s is None:
            self.start_s = perf_counter() - self._started
        return value

    def _post_mortem(self) -> tuple[Status, str]:
        """Status and reason of a worker that died by itself."""
        code = self._process.exitcode
        if code is None or code >= 0:
            return "failed", f"the worker exited with code {code} in stage {self.stage!r}"
        name = signal.Signals(-code).name
        if name == "SIGKILL" and _oom_kill_count() > self._oom_kills:
            return "out_of_memory", "the system killed the worker because memory ran out"
        return "failed", f"the worker was ended by {name} in stage {self.stage!r}"

    def _end(self, status: Status, reason: str) -> None:
        stage = self.stage
        self.close()
        raise WorkerEnded(Outcome(status, reason, stage, self._stderr_tail))

    def pause(self) -> None:
        """Stop the process where it stands, so that it cannot disturb others' rounds (POSIX)."""
        self._signal("SIGSTOP")

    def resume(self) -> None:
        """Let it go on."""
        self._signal("SIGCONT")

    def _signal(self, name: str) -> None:
        if hasattr(signal, name):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, getattr(signal, name))

    def close(self) -> None:
        """End the worker, whatever it is doing, and read what it wrote to stderr."""
        if self.connection.closed:
            return
        self.connection.close()
        if self._process.is_alive():
            with contextlib.suppress(ProcessLookupError, PermissionError):  # not yet a group leader, or just gone
                os.killpg(self.pid, signal.SIGKILL)
            self._process.kill()
        self._process.join()
        path = Path(self._stderr_path)
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        text = "\n".join(line for line in lines if not line.startswith("Extension modules:"))  # a crash lists them all
        self._stderr_tail = text[-STDERR_TAIL:].strip() or None
        path.unlink(missing_ok=True)


def wait_any(workers: list[Worker]) -> list[Worker]:
    """Those of ``workers`` that have an answer (or have died), after watching over all of them.

    A worker that is over its limits is left to its own :meth:`Worker.watch`, called here, which raises.
    """
    ready: set[Any] = set()
    while not ready:
        ready = set(wait_connections([worker.connection for worker in workers], timeout=WATCH_S))
        if not ready:
            return []
    return [worker for worker in workers if worker.connection in ready]


def _oom_kill_count() -> int:
    """How many processes the system has killed for memory since boot (Linux; 0 elsewhere)."""
    try:
        fields = dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())
    except OSError:
        return 0
    return int(fields.get("oom_kill", 0))
