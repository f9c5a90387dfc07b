"""The command line as a shell sees it: in this process, or in one of its own, which takes seconds to import what it needs."""

import contextlib
import io
import subprocess
import sys

from labbench import cli


def labbench(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command in this process; status, output and errors."""
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = cli.main([str(one) for one in arguments])
        except SystemExit as end:  # argparse: help, or wrong use
            status = int(end.code or 0)
    out.flush()
    return subprocess.CompletedProcess(arguments, status, out.buffer.getvalue().decode(), err.getvalue())


def process(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The same in a process of its own."""
    return subprocess.run([sys.executable, "-m", "labbench.cli", *map(str, arguments)], capture_output=True, text=True)
