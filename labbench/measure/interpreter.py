"""Workers of another Python: this labbench's code on the packages of the environment that the interpreter belongs to.

::

    campaign ── control ──> server: PYTHON -c BOOTSTRAP, imports torch and the runtimes once
                              │ fork for each worker, and tell how it ended
    campaign <── connection ──┴─> worker, as any other (:mod:`labbench.measure.worker`)

``multiprocessing``'s own fork server gives its workers the campaign's import path, and with it the campaign's packages. Here
nothing of that path goes over: neither ``PYTHONPATH`` nor the working folder, where the code under test often lies. The server ends
when the campaign does, however that ends, for then its control connection is closed; the workers end with the server.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

import labbench

# Finds this labbench by its file, for beside it there may be the campaign's packages; then calls a function of this module.
BOOTSTRAP = """
import sys
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("labbench", sys.argv[1])
sys.modules["labbench"] = module_from_spec(spec)
spec.loader.exec_module(sys.modules["labbench"])
from labbench.measure import interpreter
getattr(interpreter, sys.argv[2])(sys.argv[3])
"""
NEEDED = ("labbench.measure.session", "labbench.measure.worker", "tqdm", "psutil", "torch", "transformers")
CHECK_TIMEOUT_S = 120.0  # importing torch from a slow disk takes half a minute
ANSWER = "labbench: "  # begins the line with the answer: packages may print when they are imported
FOREIGN = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP")  # would bring the campaign's packages


class Interpreter:
    """Another Python, in whose environment cells can be measured.

    Parameters
    ----------
    python : str or path
        Its executable, e.g. ``~/envs/release/bin/python``.

    Raises
    ------
    ConfigError
        If workers cannot be forked on this system.
    """

    def __init__(self, python: str | Path) -> None:
        from labbench.config import ConfigError

        self.python = str(Path(python).expanduser())
        self._server: _Server | None = None
        if not hasattr(os, "fork"):
            raise ConfigError(f"no reference {self.python}: a reference needs a system that can fork (Linux, macOS)")

    def software(self, plugins: Iterable[str] = (), own: Iterable[tuple[str, str]] = ()) -> dict[str, str]:
        """Versions of its packages, and of users' models and runtimes there, asked from the interpreter.

        Parameters
        ----------
        plugins : iterable of str
            What registers them (:func:`labbench.zoo.load_plugins`).
        own : iterable of tuple
            Kind (``model``, ``runtime``) and name of each.

        Raises
        ------
        ConfigError
            If there is no such interpreter, or its environment lacks what labbench needs, naming what.
        """
        from labbench.config import ConfigError

        asked = json.dumps({"plugins": list(plugins), "own": list(own)})
        try:
            run = subprocess.run(
                self._command("_tell", asked), env=_environment(), stdin=subprocess.DEVNULL, capture_output=True,
                text=True, timeout=CHECK_TIMEOUT_S,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            reason = getattr(error, "strerror", None) or f"no answer within {CHECK_TIMEOUT_S:g} s"
            raise ConfigError(
                f"no reference {self.python}: {reason}; give the Python of an environment where labbench is installed"
            ) from None
        answers = [line for line in run.stdout.splitlines() if line.startswith(ANSWER)]
        if run.returncode or not answers:
            said = (run.stderr.strip().splitlines() or [f"it exited with code {run.returncode}"])[-1]
            raise ConfigError(
                f"the reference {self.python} cannot run labbench: {said}; install labbench in its environment"
            )
        found: dict[str, str] = json.loads(answers[-1].removeprefix(ANSWER))
        return found

    def start(self, connection: Connection, stderr_path: str, *, preload: bool, timeout_s: float) -> Process:
        """A worker that will find its job in ``connection``, which is the worker's from now on.

        Parameters
        ----------
        preload : bool
            Fork it from the server that all share, or from one that has imported nothing.
        timeout_s : float
            For the server to begin.
        """
        server = self._server
        if server is None or not preload or server.ended:
            server = _Server(self._command, preload)
        if preload:
            self._server = server
        return server.fork(connection, stderr_path, timeout_s, alone=not preload)

    def close(self) -> None:
        """End the server, and with it all workers."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def _command(self, function: str, argument: str) -> list[str]:
        assert labbench.__file__ is not None
        return [self.python, "-c", BOOTSTRAP, labbench.__file__, function, argument]


class _Server:
    """Handle of a process that forks workers."""

    def __init__(self, command: Any, preload: bool) -> None:
        import multiprocessing

        self.control, theirs = multiprocessing.Pipe()
        told = json.dumps({"control": theirs.fileno(), "preload": preload})
        self._popen = subprocess.Popen(
            command("_serve", told), env=_environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, pass_fds=[theirs.fileno()], start_new_session=True,  # Ctrl-C is not for it
        )  # fmt: skip
        theirs.close()

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def ended(self) -> bool:
        return self._popen.poll() is not None

    def fork(self, connection: Connection, stderr_path: str, timeout_s: float, *, alone: bool) -> Process:
        """A worker; if there is no server to fork it, a process that has ended already."""
        from multiprocessing.reduction import send_handle

        pid = None
        with contextlib.suppress(EOFError, OSError):
            self.control.send(("fork", stderr_path))
            send_handle(self.control, connection.fileno(), self.pid)
            pid = self.control.recv() if self.control.poll(timeout_s) else None
        connection.close()
        if pid is None:
            self.close()
        return Process(self, pid, alone)

    def state(self, pid: int, options: int) -> int | None:
        """Exit code of a worker; None while it runs. The workers of a server that is gone were killed."""
        try:
            self.control.send(("state", (pid, options)))
            code: int | None = self.control.recv()
        except (EOFError, OSError):
            return -signal.SIGKILL
        return code

    def close(self) -> None:
        self.control.close()
        self._popen.kill()
        self._popen.wait()


class Process:
    """A worker that a server forked: what its handle needs of ``multiprocessing.Process``."""

    def __init__(self, server: _Server, pid: int | None, alone: bool) -> None:
        self._server, self._alone = server, alone
        self.pid = server.pid if pid is None else pid
        self.exitcode: int | None = 1 if pid is None else None

    def is_alive(self) -> bool:
        """Whether it runs."""
        self._look(os.WNOHANG)
        return self.exitcode is None

    def join(self) -> None:
        """Wait for its end."""
        self._look(0)

    def kill(self) -> None:
        """Send SIGKILL."""
        if self.exitcode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def _look(self, options: int) -> None:
        if self.exitcode is None:
            self.exitcode = self._server.state(self.pid, options)
        if self.exitcode is not None and self._alone:
            self._server.close()


def _environment() -> dict[str, str]:
    """Variables for the interpreter, without those that would bring the campaign's packages."""
    kept = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    return kept | {"PYTHONSAFEPATH": "1"}  # the working folder is no place for packages either


# --- in the other interpreter -----------------------------------------------------------------------------------------


def _tell(asked: str) -> None:
    """Print what :meth:`Interpreter.software` asks for."""
    from labbench import runtimes, zoo
    from labbench.config import ConfigError
    from labbench.machine.detect import software

    for name in NEEDED:
        importlib.import_module(name)
    given = json.loads(asked)
    found = software() | {"labbench": labbench.__version__}
    try:
        zoo.load_plugins(given["plugins"])
        for kind, name in given["own"]:
            with contextlib.suppress(ConfigError):  # known in the campaign's process only
                if version := {"model": zoo, "runtime": runtimes}[kind].version(name):
                    found[f"{kind} {name}"] = version
    except ConfigError as error:
        sys.exit(str(error))
    print("\n" + ANSWER + json.dumps(found), flush=True)


def _serve(told: str) -> None:
    """Body of the server: fork a worker, or say how one ended, until the campaign has gone."""
    from labbench.measure import worker

    given = json.loads(told)
    control = Connection(given["control"])
    for name in worker.PRELOAD if given["preload"] else ():
        with contextlib.suppress(Exception):  # an older package lacks something: the workers that need it will tell
            importlib.import_module(name)
    while True:
        try:
            command, argument = control.recv()
            if command == "fork":
                control.send(_fork(control, argument))
            else:
                pid, status = os.waitpid(*argument)
                control.send(os.waitstatus_to_exitcode(status) if pid else None)
        except (EOFError, OSError):
            return


def _fork(control: Connection, stderr_path: str) -> int:
    """Process id of a new worker."""
    from multiprocessing.reduction import recv_handle

    descriptor = recv_handle(control)
    pid = os.fork()
    if not pid:
        control.close()
        _work(Connection(descriptor), stderr_path)
    os.close(descriptor)
    return pid


def _work(connection: Connection, stderr_path: str) -> NoReturn:
    """A worker, from fork to exit."""
    from labbench.measure import worker

    code = 1
    try:
        worker.redirect(stderr_path)
        worker.obey(connection, connection.recv())
        code = 0
    except BaseException:  # whatever it is, this process must not go on as a server
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)
