"""The process that keeps a browser: parent of everything the browser starts, and its end when labbench ends, however that is.

::

    labbench ──stdin──> keeper ──> Xvfb, driver ──> browser ──> renderer, GPU process, ...

labbench writes a line of JSON to the keeper's stdin for every program to be started: ``{"command": [...], "environment": {...},
"log": "FILE"}``; the keeper answers with its process id, or why there is none. When stdin closes (labbench closes the browser,
or was killed), the keeper ends all of its descendants, removes the folder that it was given, and ends. Orphans among them
become its children (Linux), so none is lost.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

LOOK_S = 0.5  # how often the keeper sees whether its parent lives: a pipe inherited by another process stays open
GRACE_S = 2.0  # from SIGTERM to SIGKILL: Xvfb removes its socket and lock in that time
POLL_S = 0.01
REMOVALS = 50  # tries to remove the folder, while what was just killed still holds files


def main(folder: str) -> None:
    """Keep until stdin closes."""
    from labbench.process import adopt_orphans

    adopt_orphans()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # Ctrl-C is labbench's, which then closes stdin
        signal.signal(number, signal.SIG_IGN)
    try:
        _obey(os.getppid())
    finally:
        end(os.getpid())
        remove(Path(folder))


def _obey(owner: int) -> None:
    """Start what is asked for, until stdin closes or the owner is gone."""
    waiting = b""
    while os.getppid() == owner:
        _reap()
        if not select.select([0], [], [], LOOK_S)[0]:
            continue
        if not (got := os.read(0, 65536)):
            return
        *lines, waiting = (waiting + got).split(b"\n")
        for line in lines:
            print(json.dumps(_start(json.loads(line))), flush=True)


def _start(order: dict) -> dict:
    from labbench.process import die_with_parent

    def prepare() -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        die_with_parent()

    try:
        with open(order["log"], "ab") as log:
            child = subprocess.Popen(
                order["command"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=order["environment"],
                preexec_fn=prepare,  # this process has one thread
            )
    except OSError as error:
        return {"error": f"{order['command'][0]}: {error.strerror}"}
    child.returncode = 0  # _reap() waits for it, not Popen
    return {"pid": child.pid}


def _reap() -> bool:
    """Wait for children that have ended; whether there are others."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def end(keeper: int) -> None:
    """End all descendants: asked first, then killed."""
    kill_at = time.monotonic() + GRACE_S
    asked: set[int] = set()
    while _reap():
        alive = _descendants(keeper)
        late = time.monotonic() > kill_at
        for pid in alive if late else alive - asked:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
        asked |= alive
        time.sleep(POLL_S)


def _descendants(keeper: int) -> set[int]:
    import psutil

    from labbench.process import runs

    try:
        found = psutil.Process(keeper).children(recursive=True)
        return {child.pid for child in found if runs(child)}
    except psutil.NoSuchProcess:
        return set()


def remove(folder: Path) -> None:
    """Remove a folder that somebody may just be writing to."""
    for _ in range(REMOVALS):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(POLL_S)


if __name__ == "__main__":
    main(sys.argv[1])
