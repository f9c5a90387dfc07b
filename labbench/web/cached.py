"""Making something in a folder of the cache: one process at a time, whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

NEW = ".new-"


@contextmanager
def making(folder: Path) -> Iterator[Path]:
    """A temporary folder inside ``folder``, to rename things out of; no other process is in here meanwhile.

    What killed ones left is removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        for left in folder.glob(f"{NEW}*"):
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=NEW) as name:
            yield Path(name)
