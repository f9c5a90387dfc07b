"""Runs live audio in browsers: one run after another, a record each; a browser that is lost costs one run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from labbench.records import Record
from labbench.web.browsers import Browser, BrowserError, Ended, Hung, TooMuchMemory, Unavailable, open_browser
from labbench.web.live import PAGE, START_S, Live, ask, record
from labbench.web.load import busy
from labbench.web.server import Server, page_files

BUTTON = "#gesture"


def measure(
    wishes: Iterable[Live],
    *,
    audio_file: Path | None = None,
    keep: Callable[[Record], None] = lambda record: None,
) -> list[Record]:
    """Run each wish in a browser; wishes of one browser that stand together share it.

    Parameters
    ----------
    wishes : iterable of Live
    audio_file : Path, optional
        WAV that Chromium's microphone plays.
    keep : callable
        Gets each record as soon as it is there.
    """
    found = []
    from labbench.web.parts import served

    with Server({**page_files(), **served()}) as server, Open(audio_file) as browsers:
        for wish in wishes:
            found.append(run(wish, browsers, server))
            keep(found[-1])
    return found


class Open:
    """At most one open browser at a time, kept for the next wish of the same name; a context manager that closes it."""

    def __init__(self, audio_file: Path | None = None) -> None:
        self.audio_file = audio_file
        self._browser: Browser | None = None

    def get(self, name: str) -> Browser:
        """The browser of a name, started if it is not the one that runs."""
        if self._browser is None or self._browser.name != name:
            self.close()
            self._browser = open_browser(name, sound=True, audio_file=self.audio_file)
        return self._browser

    def close(self) -> None:
        """End what runs."""
        if self._browser is not None:
            self._browser.close()
            self._browser = None

    def __enter__(self) -> Open:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def run(wish: Live, browsers: Open, server: Server) -> Record:
    """One run; whatever happens to the browser is a record."""
    from labbench.web.export import export

    began = time.monotonic()
    more: dict[str, Any] = {}
    try:
        exported = export(wish.model, wish.window)
        argument = ask(wish, exported, server)
        browser = browsers.get(wish.browser)
        more["device_name"] = f"{browser.name} {browser.version}"
        browser.go("about:blank")  # WebKitGTK takes a second visit of the same address for a jump within the page
        browser.go(server.url(PAGE))
        browser.call("labbench.rate", argument["rate"])
        browser.click(BUTTON)
        with ExitStack() as stack:
            stack.enter_context(busy(loaded_cores(wish.load)))
            answer = browser.call("labbench.live", argument, wish.seconds + START_S)
    except BrowserError as error:
        if isinstance(error, Ended):
            browsers.close()
        answer = {"status": status(error), "reason": str(error), "stage": "live"}
        more["duration_s"] = time.monotonic() - began
    return record(wish, answer, **more)


def status(error: BrowserError) -> str:
    """What a lost browser makes of a record."""
    kinds = {Unavailable: "unsupported", Hung: "timeout", TooMuchMemory: "out_of_memory"}
    return next((name for kind, name in kinds.items() if isinstance(error, kind)), "failed")


def loaded_cores(load: str) -> int:
    """How many cores a load keeps busy."""
    import os

    from labbench.machine.detect import allowed_cores

    return {"none": 0, "one": 1, "all": len(allowed_cores()) or os.cpu_count() or 1}[load]


def by_browser(wishes: Sequence[Live]) -> list[Live]:
    """The same wishes, those of one browser together, so that it is started once."""
    return sorted(wishes, key=lambda wish: wish.browser)
