"""Kernels for a chain of notebooks, forked from a server that imported the usual libraries once.

    run() ── papermill ── nbclient ── KernelManager ── ForkProvisioner ──pipe── server (numpy, pandas, seaborn, …)
                                           │                                      ├─ fork ─ kernel of notebook 1
                                           └──────────────── ZeroMQ ──────────────┴─ fork ─ kernel of notebook 2

The server lives as long as the process that started it: it sees the end of its pipe, however that came about
(``kill -9`` included), kills the kernels it forked and ends. Plain papermill, JupyterLab and every other user of
Jupyter are unaffected: nothing is installed, and a kernel is forked only where :class:`ForkingKernelManager` is asked
for (or a kernelspec that names the provisioner ``labbench-fork``).

Limits: POSIX only. The server imports no torch and opens no accelerator, so that a kernel may. Environment variables
that a library reads when it is imported (``OMP_NUM_THREADS``) are those of the moment the server started.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import pkgutil
import signal
import subprocess
import sys
import threading
import time
import traceback
import warnings
from multiprocessing.connection import Connection, Pipe
from typing import Any, Literal, NoReturn

from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from traitlets import default

from labbench.process import die_with_parent

KernelKind = Literal["fork", "fresh"]

PRELOAD = (
    "numpy",
    "pandas",
    "matplotlib.pyplot",
    "matplotlib.backends.backend_svg",
    "seaborn",
    "h5py",
    "scipy.stats",
    "sklearn.ensemble",
    "sklearn.model_selection",
    "sklearn.pipeline",
    "pydantic",
    "ipykernel.kernelapp",
    "ipykernel.ipkernel",
    "ipykernel.debugger",
    "IPython.core.pylabtools",
    "labbench.store",
    "labbench.campaign",
    "labbench.runtimes",
    "labbench.zoo",
)
ROOMS = ("labbench.analysis", "labbench.prediction", "labbench.selection")  # every module of them; none imports torch
PROVISIONER = "labbench-fork"  # its entry point in pyproject.toml
START_TIMEOUT_S = 180.0  # for the imports on a cold, busy machine: ten times what two slow cores need
# Nobody watches the bars: campaigns draw none, of others only the last state is kept (interval in seconds).
BATCH_ENVIRONMENT = {"LABBENCH_BATCH": "1", "TQDM_MININTERVAL": "10"}
POLL_S = 0.02  # how often a blocking wait looks whether a forked kernel has ended


class ForkUnavailableError(RuntimeError):
    """Kernels cannot be forked here; the message says why."""


# --- in the server and the kernels it forks -------------------------------------------------------------------------


def _serve(handle: int) -> None:
    """Body of the server: import, then fork a kernel for each request until the pipe's other end is gone."""
    connection = Connection(handle)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asked
    os.environ["JPY_PARENT_PID"] = str(os.getpid())  # read by ipykernel when it is imported
    gc.disable()  # what is imported stays: collections would only search it again and again
    try:
        for name in (*PRELOAD, *ROOMS):
            module = importlib.import_module(name)
            for part in pkgutil.iter_modules(module.__path__) if name in ROOMS else ():
                importlib.import_module(f"{name}.{part.name}")
        _first_figure_and_table()
    except Exception as error:
        connection.send(f"{type(error).__name__}: {error}")
        return
    gc.collect()
    gc.freeze()  # what is imported stays out of the kernels' collections, and so shared between them
    gc.enable()
    connection.send(None)
    kernels: set[int] = set()
    try:
        while True:
            request, arguments = connection.recv()
            if request == "poll":
                connection.send(_reap(arguments[0], kernels))
                continue
            pid = os.fork()
            if pid == 0:
                connection.close()
                _leave(_kernel(*arguments))
            _own_group(pid)
            kernels.add(pid)
            connection.send(pid)
    except (EOFError, ConnectionError):
        for pid in kernels:
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _first_figure_and_table() -> None:
    """Do once what every kernel's first figure and table do: find fonts, load formatters."""
    import io

    import matplotlib.pyplot as plt
    import pandas as pd
    import seaborn as sns

    table = pd.DataFrame({"x": [1.0, 2.0], "y": [1.0, 2.0], "kind": ["a", "b"]})
    table.to_html()
    with plt.rc_context():
        figure, axes = plt.subplots()
        sns.barplot(table, x="x", y="y", hue="kind", ax=axes)
        figure.savefig(io.BytesIO(), format="svg", bbox_inches="tight")
        plt.close(figure)


def _reap(pid: int, kernels: set[int]) -> int | None:
    """Exit status of a kernel as :class:`subprocess.Popen` gives it; ``None`` while it runs."""
    ended, status = os.waitpid(pid, os.WNOHANG)
    if not ended:
        return None
    kernels.discard(pid)
    return os.waitstatus_to_exitcode(status)


def _own_group(pid: int) -> None:
    """Put a kernel in a process group of its own, so that an interrupt reaches it and what it started, only."""
    try:
        os.setpgid(pid, pid)
    except PermissionError:  # the kernel did it first and has executed another program since
        pass
    except ProcessLookupError:  # it has ended already; the next poll tells
        pass


def _kernel(argv: list[str], cwd: str | None, environment: dict[str, str]) -> int:
    """Be an IPython kernel until it is told to stop; returns the exit status, and never raises."""
    try:
        _start_kernel(argv, cwd, environment)
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:  # it must not get back into the server's loop
        traceback.print_exc()
        return 1
    return 0


def _start_kernel(argv: list[str], cwd: str | None, environment: dict[str, str]) -> None:
    """Undo what the server set for itself, then run ipykernel."""
    _own_group(0)
    die_with_parent()  # elsewhere than on Linux ipykernel's own watch does, within a second
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(environment)
    if cwd is not None:
        os.chdir(cwd)
    import matplotlib as mpl
    import matplotlib.pyplot as plt
    import numpy as np
    from ipykernel.kernelapp import IPKernelApp
    from IPython.core.pylabtools import activate_matplotlib
    from matplotlib_inline.backend_inline import configure_inline_support

    np.random.seed()  # else every kernel draws the same numbers from the global generator
    app = IPKernelApp.instance()
    sys.argv = ["ipykernel_launcher", *argv]
    app.initialize(argv)
    backend = os.environ["MPLBACKEND"]  # ipykernel's choice (inline) comes after matplotlib has looked for one
    mpl.use(backend)
    activate_matplotlib(backend)
    configure_inline_support(app.shell, backend)
    plt.uninstall_repl_displayhook()  # it draws each figure on a canvas that nobody sees, before inline renders it
    app.start()


def _leave(status: int) -> NoReturn:
    """End a forked process as multiprocessing does: registered functions run, but no library is taken apart."""
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads that are not daemons
    atexit._run_exitfuncs()
    for stream in (sys.__stdout__, sys.__stderr__):
        if stream is not None:
            stream.flush()
    os._exit(status)


def load_ipython_extension(shell: object) -> None:
    """Make ``tqdm.auto`` draw text: a saved notebook shows a widget's first state, "0%", for ever."""
    import tqdm

    sys.modules["tqdm.auto"] = tqdm


# --- in the process that runs notebooks -------------------------------------------------------------------------------


class _Server:
    """Handle of a running server; one request is under way at a time."""

    def __init__(self) -> None:
        if not hasattr(os, "fork"):
            raise ForkUnavailableError(f"{sys.platform} cannot fork processes")
        self._lock = threading.Lock()
        self._connection, theirs = Pipe()
        self.owner = os.getpid()
        environment = {**os.environ, **BATCH_ENVIRONMENT, "MPLBACKEND": "agg"}
        self._process = subprocess.Popen(
            # -P: a file in the working directory must not take a library's name
            [sys.executable, "-P", "-c", f"from labbench.kernels import _serve; _serve({theirs.fileno()})"],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
        theirs.close()
        self.pid = self._process.pid
        try:
            problem = self._connection.recv() if self._connection.poll(START_TIMEOUT_S) else "it did not start in time"
        except EOFError:
            problem = f"it ended with status {self._process.wait()}"
        except BaseException:
            self.close()
            raise
        if problem is not None:
            self.close()
            raise ForkUnavailableError(f"the server that preloads the libraries could not start ({problem})")

    @property
    def alive(self) -> bool:
        return self.owner == os.getpid() and not self._connection.closed and self._process.poll() is None

    def request(self, name: str, *arguments: Any) -> Any:
        """Ask the server; an answer cut short (Ctrl-C) ends it, because the next one could not be told from it."""
        with self._lock:
            try:
                self._connection.send((name, arguments))
                return self._connection.recv()
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """End the server and, through it, its kernels."""
        if self.owner != os.getpid():
            return
        self._connection.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


_server: _Server | None = None
_server_lock = threading.Lock()


def server() -> _Server:
    """The server of this process, started when first asked for.

    Raises
    ------
    ForkUnavailableError
        If kernels cannot be forked here.
    """
    global _server
    with _server_lock:
        if _server is None or not _server.alive:
            _server = _Server()
        return _server


@atexit.register
def stop() -> None:
    """End this process's server, if it has one; the next forked kernel starts another."""
    global _server
    if _server is not None:
        _server.close()
        _server = None


class ForkedKernel:
    """A forked kernel with the part of :class:`subprocess.Popen` that Jupyter uses."""

    stdin = stdout = stderr = None

    def __init__(self, argv: list[str], cwd: str | None, environment: dict[str, str]) -> None:
        self._server = server()
        self.pid: int = self._server.request("fork", argv, cwd, environment)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            try:
                self.returncode = self._server.request("poll", self.pid)
            except (OSError, EOFError):  # the server is gone, and its kernels with it
                self.returncode = -signal.SIGKILL
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        deadline = None if timeout is None else time.monotonic() + timeout
        while (status := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("forked kernel", timeout or 0.0)
            time.sleep(POLL_S)
        return status

    def send_signal(self, signum: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, signum)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


class ForkProvisioner(LocalProvisioner):
    """Forks the kernel from the preloaded server; starts an ordinary one, with a warning, where that cannot be."""

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        if "ipykernel_launcher" not in cmd:
            _warn(f"{' '.join(cmd[:3])} … is not an IPython kernel")
            return await super().launch_kernel(cmd, **kwargs)
        argv = cmd[cmd.index("ipykernel_launcher") + 1 :]
        cwd = kwargs.get("cwd")
        try:
            kernel = ForkedKernel(argv, None if cwd is None else str(cwd), dict(kwargs.get("env") or os.environ))
        except (ForkUnavailableError, OSError, EOFError) as error:
            _warn(str(error) or "the server that preloads the libraries ended")
            return await super().launch_kernel(cmd, **kwargs)
        self.process = kernel  # type: ignore[assignment]  # what LocalProvisioner asks of a Popen, it can
        self.pid = self.pgid = kernel.pid
        self.cwd = cwd or os.getcwd()
        return self.connection_info


def _warn(reason: str) -> None:
    warnings.warn(f"kernels are started afresh instead of forked, which is slower: {reason}", stacklevel=3)


class FreshKernelManager(AsyncKernelManager):
    """Starts kernels of this very Python, whatever kernelspecs a user has installed, for unattended runs."""

    provisioner_name = "local-provisioner"

    @default("transport_encryption")
    def _encrypt_where_possible(self) -> str:
        import zmq

        return "auto" if zmq.has("curve") else "disabled"

    @property
    def kernel_spec(self) -> KernelSpec:
        from ipykernel.kernelspec import get_kernel_dict

        if self._kernel_spec is None:
            fields = get_kernel_dict()
            fields["metadata"]["kernel_provisioner"] = {"provisioner_name": self.provisioner_name}
            self._kernel_spec = KernelSpec(resource_dir="", **fields)
        return self._kernel_spec

    async def _async_pre_start_kernel(self, **kwargs: Any) -> Any:
        kwargs["env"] = {**(kwargs.get("env") or os.environ), **BATCH_ENVIRONMENT}
        return await super()._async_pre_start_kernel(**kwargs)

    pre_start_kernel = _async_pre_start_kernel


class ForkingKernelManager(FreshKernelManager):
    """Starts kernels through :class:`ForkProvisioner`."""

    provisioner_name = PROVISIONER


def manager(kind: KernelKind) -> tuple[type[AsyncKernelManager], KernelKind]:
    """The kernel manager class for a kind of kernel, and the kind one really gets.

    Where ``"fork"`` is not possible a warning says why, and ordinary kernels are the answer.
    """
    if kind == "fresh":
        return FreshKernelManager, "fresh"
    try:
        server()
    except ForkUnavailableError as error:
        _warn(str(error))
        return FreshKernelManager, "fresh"
    return ForkingKernelManager, "fork"
