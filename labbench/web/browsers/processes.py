"""The processes of one browser as a :class:`Group`: started, looked at and ended together."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from labbench.process import runs
from labbench.web.browsers import profiles
from labbench.web.browsers.base import BrowserError

FoundT = TypeVar("FoundT")
POLL_S = 0.02
END_S = 20.0  # the keeper needs its two seconds of grace and the removal of the folder, on a busy machine too


class Group:
    """Processes that end together, with a folder that goes with them.

    Attributes
    ----------
    folder : Path
        Temporary; all programs have it as ``HOME``, ``TMPDIR`` and ``XDG_RUNTIME_DIR``, so that nothing is left elsewhere.
    environment : dict
        What every program started from now on gets.
    """

    def __init__(self) -> None:
        self.folder = profiles.make()
        kept = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "USER", "LOGNAME")
        self.environment = {name: os.environ[name] for name in kept if name in os.environ}
        self.environment |= dict.fromkeys(("HOME", "TMPDIR", "XDG_RUNTIME_DIR", profiles.MARK), str(self.folder))
        self._keeper = subprocess.Popen(
            [sys.executable, "-m", "labbench.web.browsers.keeper", str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C reaches labbench only
        )

    def start(self, command: Sequence[str | Path], **environment: str) -> Path:
        """Start a program; returns the file that its output goes to.

        Raises
        ------
        BrowserError
            If it cannot be started.
        """
        log = self.folder / f"{Path(command[0]).name}.log"
        order = {
            "command": [str(word) for word in command],
            "environment": self.environment | environment,
            "log": str(log),
        }
        assert self._keeper.stdin is not None
        assert self._keeper.stdout is not None
        try:
            self._keeper.stdin.write(json.dumps(order).encode() + b"\n")
            self._keeper.stdin.flush()
            answer: dict[str, Any] = json.loads(self._keeper.stdout.readline() or "{}")
        except OSError:
            answer = {}
        if "pid" not in answer:
            raise BrowserError(answer.get("error", "the process that keeps the browser has ended"))
        return log

    def wait(self, what: str, look: Callable[[], FoundT | None], timeout_s: float) -> FoundT:
        """What ``look`` finds as soon as it finds something.

        Raises
        ------
        BrowserError
            If that takes too long, or no process is left; tells the last lines that they wrote.
        """
        late = time.monotonic() + timeout_s
        while (found := look()) is None:
            if time.monotonic() > late:
                raise BrowserError(f"{what} did not come within {timeout_s:g} s{self.told()}")
            if not self.tree():
                raise BrowserError(f"{what} did not come: every process has ended{self.told()}")
            time.sleep(POLL_S)
        return found

    def told(self, lines: int = 3) -> str:
        """The last lines that the programs wrote, for an error message; empty if there are none."""
        texts = [log.read_text(errors="replace").split("\n") for log in sorted(self.folder.glob("*.log"))]
        last = [line.strip() for text in texts for line in [line for line in text if line.strip()][-lines:]]
        return f" ({' | '.join(last)})" if last else ""

    def tree(self) -> list[Any]:
        """The living processes, as of :mod:`psutil`."""
        import psutil

        try:
            found = psutil.Process(self._keeper.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        alive = []
        for process in found:
            with contextlib.suppress(psutil.Error):
                if runs(process):
                    alive.append(process)
        return alive

    def kinds(self) -> list[tuple[Any, str]]:
        """The living processes, and what each does (:func:`kind`)."""
        import psutil

        found = []
        for process in self.tree():
            with contextlib.suppress(psutil.Error):
                found.append((process, kind(process.name(), process.cmdline())))
        return found

    def memory(self) -> dict[str, int]:
        """Bytes by kind of process: resident, pages shared by several counted in parts (Pss), or whole where that is not told."""
        return self._summed(_proportional)

    def high_water(self) -> dict[str, int]:
        """Bytes by kind of process: the most that has been resident since each began, summed (``VmHWM``; Linux)."""
        return self._summed(_high_water)

    def _summed(self, look: Callable[[Any], int]) -> dict[str, int]:
        import psutil

        found: dict[str, int] = {}
        for process, name in self.kinds():
            with contextlib.suppress(psutil.Error, OSError):
                found[name] = found.get(name, 0) + look(process)
        return found

    def resident(self) -> int:
        """Bytes that are resident in all processes, shared pages counted in each; quick to read."""
        import psutil

        total = 0
        for process in self.tree():
            with contextlib.suppress(psutil.Error):
                total += process.memory_info().rss
        return total

    def close(self) -> None:
        """End all processes and remove the folder; returns when that is done."""
        assert self._keeper.stdin is not None
        assert self._keeper.stdout is not None
        with contextlib.suppress(OSError):
            self._keeper.stdin.close()
        try:
            self._keeper.wait(END_S)
        except subprocess.TimeoutExpired:  # not seen so far; the next start sweeps what this leaves
            self._keeper.kill()
            self._keeper.wait()
        self._keeper.stdout.close()


def kind(name: str, command: Sequence[str]) -> str:
    """What a process of a browser does: ``browser``, ``renderer``, ``gpu-process``, ``driver``, ... as the browser calls it."""
    for word in command[1:]:
        if word.startswith("--type="):
            return word.removeprefix("--type=")  # Chromium
    if "-contentproc" in command:
        return command[-1]  # Firefox: tab, rdd, socket, utility, ...
    if name.startswith("WebKit") and name.endswith("Process"):
        return name.removeprefix("WebKit").removesuffix("Process").lower()  # web, network, gpu
    if name in ("Xvfb", "pulseaudio"):
        return name.lower()
    if "crashpad" in name:
        return "crash-handler"
    return "driver" if "driver" in name.lower() else "browser"


def _proportional(process: Any) -> int:
    try:
        text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        return next(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:"))
    except (OSError, StopIteration):
        memory = process.memory_info()
        return int(memory.rss - getattr(memory, "shared", 0))


def _high_water(process: Any) -> int:
    text = Path(f"/proc/{process.pid}/status").read_text()
    return next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("VmHWM:")), 0)
