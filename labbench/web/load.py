"""Cores kept busy, to see how a browser does when it is not alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

SPIN = "from labbench.process import die_with_parent; die_with_parent(); print(flush=True)\nwhile True: pass"


@contextmanager
def busy(cores: int) -> Iterator[None]:
    """Keep so many cores busy, each by a process of its own, until the context ends (or labbench, however that is)."""
    spinning: list[subprocess.Popen[bytes]] = []
    try:
        spinning.extend(subprocess.Popen([sys.executable, "-c", SPIN], stdout=subprocess.PIPE) for _ in range(cores))
        for process in spinning:
            assert process.stdout is not None
            process.stdout.readline()  # it has begun
        yield
    finally:
        for process in spinning:
            process.kill()
            process.communicate()
