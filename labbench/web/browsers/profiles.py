"""Temporary folders of browsers: each names its owner, and those of dead owners are swept away."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from pathlib import Path
from typing import Any

PREFIX = "labbench-web-"
MARK = "LABBENCH_BROWSER_FOLDER"  # environment variable of everything that runs for a folder

END_S = 10.0  # for all that runs for a folder to end


def make() -> Path:
    """A new folder for this process's browser: profile, temporary files, logs."""
    import psutil

    began = int(psutil.Process().create_time())
    return Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-{began}-"))


def sweep() -> list[Path]:
    """Remove folders whose owner is gone, and end what still runs for them; returns those folders.

    The keeper does both when labbench ends, so this finds something only where the keeper itself was killed.
    """
    from labbench.web.browsers.keeper import remove

    stale = [folder for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*") if _abandoned(folder)]
    if stale:
        _end_marked({str(folder) for folder in stale})
    for folder in stale:
        remove(folder)
    return stale


def _abandoned(folder: Path) -> bool:
    """Whether the folder is this user's and its owner lives no more; a process id may have been given to another process."""
    import psutil

    try:
        pid, began = (int(part) for part in folder.name.removeprefix(PREFIX).split("-")[:2])
        if hasattr(os, "getuid") and folder.stat().st_uid != os.getuid():
            return False
        return abs(psutil.Process(pid).create_time() - began) > 2
    except psutil.NoSuchProcess:
        return True
    except (ValueError, OSError, psutil.Error):
        return False


def _end_marked(folders: set[str]) -> None:
    """Kill what runs for a folder until nothing does: what is killed may just have started something."""
    import psutil

    late = time.monotonic() + END_S
    while time.monotonic() < late:
        found = [process for process in psutil.process_iter() if _runs_for(process, folders)]
        if not found:
            return
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(found, timeout=1)


def _runs_for(process: Any, folders: set[str]) -> bool:
    """Whether its environment or its command names a folder; processes of Chromium write their titles over the former."""
    import psutil

    try:
        if process.environ().get(MARK) in folders:
            return True
        return any(folder in word for word in process.cmdline() for folder in folders)
    except (psutil.Error, OSError):
        return False
