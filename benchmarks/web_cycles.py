"""Start and stop each browser many times: no process, port or folder is left.

    python benchmarks/web_cycles.py --cycles 100

Counted before and after: processes of browsers that this process started, ports that they or this process listen on, folders of
browsers, and lock files of displays whose X server is gone.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
import time
from pathlib import Path

import psutil

from labbench.web.browsers import NAMES, missing, open_browser
from labbench.web.browsers.profiles import MARK, PREFIX


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=100, metavar="N")
    parser.add_argument("--browser", nargs="+", choices=NAMES, default=[name for name in NAMES if not missing(name)])
    options = parser.parse_args()
    for name in options.browser:
        before, began = left(), time.monotonic()
        for _ in range(options.cycles):
            with open_browser(name) as browser:
                browser.go("about:blank")
                browser.call("String", 1)
        seconds = time.monotonic() - began
        after = left()
        print(f"{name} {browser.version}: {options.cycles} cycles, {seconds / options.cycles:.1f} s each")
        for what in before:
            new = sorted(after[what] - before[what])
            print(f"  {what:<10} {len(before[what])} before, {len(after[what])} after{f': new {new}' if new else ''}")


def left() -> dict[str, set]:
    """What there is of browsers that this process started."""
    own = {child.pid for child in psutil.Process().children(recursive=True)}
    mine = f"{PREFIX}{os.getpid()}-"
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if mine in process.environ().get(MARK, "") or any(mine in word for word in process.cmdline()):
                own.add(process.pid)
    listening = [one for one in psutil.net_connections("tcp") if one.status == psutil.CONN_LISTEN]
    temporary = Path(tempfile.gettempdir())
    return {
        "processes": own,
        "ports": {one.laddr.port for one in listening if one.pid in {*own, os.getpid()}},
        "folders": {path.name for path in temporary.glob(f"{mine}*")},
        "locks": {path.name for path in temporary.glob(".X*-lock") if not served(path)},
    }


def served(lock: Path) -> bool:
    """Whether the X server that made a lock file runs; others may start and end displays meanwhile."""
    with contextlib.suppress(OSError, ValueError):
        return psutil.pid_exists(int(lock.read_text()))
    return False


if __name__ == "__main__":
    main()
