"""Print pages of a published site as PDF with the Chromium or Chrome that is installed: what a person's "print" gives."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from labbench.notebooks import NotebookError

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
VARIABLE = "LABBENCH_CHROMIUM"
TIMEOUT_S = 120  # a page takes seconds; a browser that hangs must not hold up a study
FLAGS = (
    "--headless=new",
    "--disable-gpu",
    "--disable-dev-shm-usage",  # containers have little of it
    "--no-first-run",
    "--no-pdf-header-footer",
)


def browser() -> str:
    """Path of Chromium or Chrome: ``$LABBENCH_CHROMIUM``, or the first one on the path.

    Raises
    ------
    NotebookError
        If there is none, naming the ways out.
    """
    named = os.environ.get(VARIABLE)
    for name in [named] if named else BROWSERS:
        if path := shutil.which(name):
            return path
    looked = f"{VARIABLE}={named} is not a program" if named else f"none of {', '.join(BROWSERS)} is installed"
    raise NotebookError(
        f"no browser to print PDF with: {looked}; install Chromium (apt-get install chromium), set {VARIABLE} to its "
        "path, or open the page in any browser and print it to a file"
    )


def print_site(site: str | Path) -> list[Path]:
    """Print every page of a site, the index first; as :func:`pdf`."""
    index = Path(site) / "index.html"
    pages = [page for page in sorted(index.parent.glob("*.html")) if page.name != index.name]
    return [pdf(page) for page in (index, *pages)]


def pdf(page: str | Path, output: str | Path | None = None) -> Path:
    """Print a published page; its figures, tables and print style come out as in a browser.

    Parameters
    ----------
    page : path
        An HTML file that :func:`labbench.publish.publish` wrote.
    output : path, optional
        Default: beside the page, with the ending ``.pdf``.

    Returns
    -------
    pathlib.Path
        The PDF.

    Raises
    ------
    NotebookError
        If there is no page, no browser, or the browser fails.
    """
    page = Path(page).resolve()
    output = Path(output).resolve() if output else page.with_suffix(".pdf")
    if not page.is_file():
        raise NotebookError(f"no page {page} to print; publish the notebooks first")
    program = browser()
    sandbox = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []  # Chromium refuses root without
    with tempfile.TemporaryDirectory(prefix="labbench-pdf-", ignore_cleanup_errors=True) as folder:
        printed = Path(folder) / "page.pdf"
        command = [program, *FLAGS, *sandbox, f"--user-data-dir={folder}/profile", f"--print-to-pdf={printed}"]
        try:
            done = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise NotebookError(f"{program} did not print {page.name} within {TIMEOUT_S} s") from None
        if done.returncode or not printed.exists():
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise NotebookError(f"{program} could not print {page.name} (exit status {done.returncode}): {last}")
        shutil.move(printed, output)
    return output
