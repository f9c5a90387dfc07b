"""Temporary folders of browsers: each names its owner, and those of dead owners are swept away."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

PREFIX = "labbench-web-"
MARK = "LABBENCH_BROWSER_FOLDER"  # environment variable of everything that runs for a folder


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
    import psutil

    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) in folders:
                process.kill()
