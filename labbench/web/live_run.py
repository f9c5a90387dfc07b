"""Runs live audio in browsers: one run after another, a record each; a browser that is lost costs one run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from labbench.records import Record
from labbench.web.bench import status_of
from labbench.web.browsers import Browser, BrowserError, Ended, Unavailable, open_browser
from labbench.web.live import LOADED, PAGE, START_S, Live, ask, record
from labbench.web.live_search import largest, shortest_hop
from labbench.web.load import busy
from labbench.web.server import Server, page_files

BUTTON = "#gesture"
SILENT = ("chromium",)  # starts its audio without a sound server


class LiveRuns:
    """Live runs, each in the browser that is open if it is the one; a context manager that closes it and the server.

    Parameters
    ----------
    audio_file : Path, optional
        WAV that Chromium's microphone plays.
    store : path, optional
        A database that gets each record as soon as it is there.
    keep : callable
        Gets it too.

    Examples
    --------
    >>> with LiveRuns() as runs:
    ...     print(runs.one(Live(browser="firefox", model="kws-small", seconds=5)))
    """

    def __init__(
        self,
        *,
        audio_file: Path | None = None,
        store: str | Path | None = None,
        keep: Callable[[Record], None] = lambda record: None,
    ) -> None:
        self._audio_file, self._path, self._keep = audio_file, store, keep

    def __enter__(self) -> LiveRuns:
        from labbench.store import Store
        from labbench.web.parts import served

        with ExitStack() as stack:
            self._server = stack.enter_context(Server({**page_files(), **served()}))
            self._browsers = stack.enter_context(Open(self._audio_file))
            self._store = stack.enter_context(Store(self._path, writable=True)) if self._path is not None else None
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def one(self, wish: Live) -> Record:
        """Run a wish; its record is stored and handed on."""
        record = run(wish, self._browsers, self._server)
        if self._store is not None:
            from labbench.web.run import environment_of

            environment = environment_of(wish.browser, self._browsers.version)
            record = record.taken_in(environment)
            self._store.append(record, environment)
        self._keep(record)
        return record

    def run(self, wishes: Iterable[Live]) -> list[Record]:
        """Run each; those of one browser that stand together share it."""
        return [self.one(wish) for wish in wishes]

    def searched(self, wishes: Iterable[Live]) -> list[str]:
        """The shortest hop of each wish's model and the largest model of each browser and load: in words."""
        from labbench.web.export import export

        def size(name: str) -> int:
            return export(name, next(one.wish.window for one in found if one.wish.model == name)).path.stat().st_size

        found = [shortest_hop(wish, self.one) for wish in wishes]
        said = [str(one) for one in found]
        for key in dict.fromkeys((one.wish.browser, one.wish.load) for one in found):
            best = largest((one for one in found if (one.wish.browser, one.wish.load) == key), size)
            if best is not None:
                said.append(
                    f"largest that keeps up in {key[0]}{LOADED[key[1]]}: {best.wish.model}, hop {1e3 * best.wish.hop_s:g} ms"
                )
        return said


class Open:
    """At most one open browser at a time, kept for the next wish of the same name; a context manager that closes it."""

    def __init__(self, audio_file: Path | None = None) -> None:
        self.audio_file = audio_file
        self.version = "absent"  # of the browser that was started last
        self._browser: Browser | None = None

    def get(self, name: str) -> Browser:
        """The browser of a name, started if it is not the one that runs."""
        if self._browser is None or self._browser.name != name:
            self.close()
            self.version = "absent"
            self._browser = open_browser(name, sound=name not in SILENT, audio_file=self.audio_file)
            self.version = self._browser.version
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
        browser.go(server.url(PAGE))
        browser.call("labbench.rate", argument["rate"])
        browser.click(BUTTON)
        with ExitStack() as stack:
            stack.enter_context(busy(loaded_cores(wish.load)))
            answer = browser.call("labbench.live", argument, wish.seconds + START_S)
    except BrowserError as error:
        if isinstance(error, Ended):
            browsers.close()
        answer = {
            "status": "unsupported" if isinstance(error, Unavailable) else status_of(error),
            "reason": str(error),
            "stage": "live",
        }
        more["duration_s"] = time.monotonic() - began
    return record(wish, answer, **more)


def loaded_cores(load: str) -> int:
    """How many cores a load keeps busy."""
    import os

    from labbench.machine.detect import allowed_cores

    return {"none": 0, "one": 1, "all": len(allowed_cores()) or os.cpu_count() or 1}[load]
