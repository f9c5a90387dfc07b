"""One writer at a time, and who it is."""

from __future__ import annotations

import json
import os
import socket
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from labbench.store.errors import StoreError, StoreLocked


class WriterLock:
    """The lock on a database; the operating system lets go of it when its process dies, however it dies.

    Parameters
    ----------
    path : path
        The database.
    wait_s : float
        Seconds to wait for another writer to finish; infinity waits for ever.

    Raises
    ------
    StoreLocked
        If another process still has it then; names the process, its host and since when.
    StoreError
        If the folder cannot be written to, or its file system has no locks.
    """

    def __init__(self, path: Path, wait_s: float = 0.0) -> None:
        from filelock import FileLock, Timeout

        self.path = path
        self._lock = FileLock(_beside(path, ".lock"))
        try:
            self._lock.acquire(timeout=-1 if wait_s == float("inf") else wait_s, poll_interval=0.02)
        except Timeout:
            after = f" (waited {wait_s:g} s)" if wait_s else ""
            raise StoreLocked(
                f"{path} is being written by {holder(path)}{after}; wait for it (Store(..., wait=SECONDS)) or stop it"
            ) from None
        except RuntimeError as error:  # of filelock, where waiting would last for ever
            if isinstance(error, NotImplementedError):
                raise StoreError(
                    f"{path} is on a file system without locks; write to a local disk, then copy"
                ) from None
            raise StoreLocked(
                f"{path} is being written by {holder(path)}, this process itself; close it first"
            ) from None
        except OSError as error:
            raise StoreError(f"cannot write to {path}: {error.strerror or error} ({path.parent})") from None
        text = {
            "process": os.getpid(),
            "command": " ".join(Path(sys.argv[0]).name.split() + sys.argv[1:])[:80],
            "host": socket.gethostname(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        try:
            _beside(path, ".writer").write_text(json.dumps(text))
        except OSError as error:
            self._lock.release()
            raise StoreError(f"cannot write to {path}: {error.strerror} ({path.parent})") from None

    def release(self) -> None:
        """Let the next writer in."""
        _beside(self.path, ".writer").unlink(missing_ok=True)
        self._lock.release()


def holder(path: Path) -> str:
    """Who is writing, as far as is known."""
    try:
        found: dict[str, Any] = json.loads(_beside(path, ".writer").read_text())
        text = f"process {found['process']} on {found['host']} since {found['since']} ({found['command']})"
        if found["host"] == socket.gethostname() and not _is_alive(found["process"]):
            text += ", which has ended, but a process that it started still has the lock: stop that"
        return text
    except (OSError, ValueError, KeyError):
        return "another process"


def _is_alive(process: int) -> bool:
    import psutil

    return psutil.pid_exists(process)


def is_held(path: Path) -> bool:
    """Whether somebody is writing now (False too where that cannot be found out)."""
    import fcntl

    try:
        descriptor = os.open(_beside(path, ".lock"), os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
