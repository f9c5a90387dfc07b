"""What all browsers have in common: calls into the page with a deadline of their own, and how a page may be lost."""

from __future__ import annotations

import json
import queue
import secrets
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labbench.web.browsers.processes import Group

START_S = 60.0  # for a browser to start, on a machine whose cores are all busy
LOOK_S = 0.5  # how often a call that lasts is looked at: memory
SETTLE_S = 2.0  # a browser that ends is gone by then, on a busy machine too
QUICK_S = 10.0  # for the driver to tell whether the window is still there
NEVER_S = 10**6  # time-outs of the drivers: a deadline here comes first

# The page's side of a call: the function's value or the error that it threw, as text that every driver passes on alike. Firefox
# starts a call again in the page that it shows instead of one whose process has ended, so a page has a mark of its own.
# WebKitGTK says that a page is loaded before its modules have run: a call waits for the object that it goes to.
# A driver under load may come back before the page's scripts have run.
MARK = """async (page) => {
  if (document.readyState !== 'complete') await new Promise((done) => window.addEventListener('load', done));
  window.labbenchPage = page;
}"""
CALL = """async (path, text, page) => {
  if (window.labbenchPage !== page) return JSON.stringify({lost: true});
  try {
    const names = path.split('.');
    const late = performance.now() + 10000;
    while (!(names[0] in window) && performance.now() < late) await new Promise((next) => setTimeout(next, 10));
    const owner = names.slice(0, -1).reduce((object, name) => object[name], window);
    const value = await owner[names.at(-1)](JSON.parse(text));
    return JSON.stringify({value});
  } catch (error) {
    return JSON.stringify({error: error?.message === undefined ? String(error) : `${error.name}: ${error.message}`});
  }
}"""


class BrowserError(Exception):
    """A browser that cannot be started or driven; the message names the browser and the reason."""


class Unavailable(BrowserError):
    """A browser that is not installed; the message says how to get it."""


class PageError(BrowserError):
    """What the page itself threw, in its own words; the browser is as it was."""


class Ended(BrowserError):
    """The page is lost, and this browser is of no further use."""


class Crashed(Ended):
    """A process of the browser has ended."""


class Hung(Ended):
    """No answer before the deadline; the browser was killed."""


class Closed(Ended):
    """The window was closed."""


class TooMuchMemory(Ended):
    """The browser took more than its limit and was killed."""


class Browser(ABC):
    """A running browser with one window; a context manager that leaves nothing behind.

    Attributes
    ----------
    name, version : str
    group : Group
        Its processes.
    memory_limit_bytes : int or None
        A call during which all processes together hold more is ended; None: no limit.
    """

    name: str
    version: str
    content_kind: str  # kind of the process that runs the page
    window_gone: str  # what its driver says of a window that is no more
    memory_limit_bytes: int | None = None

    def __init__(self, group: Group) -> None:
        self.group = group
        self._lost: Ended | None = None
        self._page = ""
        self._page_processes: set[int] = set()

    # What a driver does; each may raise anything, which _explain() sorts out.

    @abstractmethod
    def _open(self, url: str) -> None:
        """Load a page; returns when its load event has fired."""

    @abstractmethod
    def _evaluate(self, function: str, arguments: list[str]) -> Any:
        """Await a JavaScript function of text arguments."""

    @abstractmethod
    def _replace_window(self) -> None:
        """Open another window and close the present one."""

    @abstractmethod
    def _press(self, css: str) -> None:
        """Click on an element, as a person would."""

    @abstractmethod
    def _picture(self, width: int, height: int, dark: bool) -> bytes:
        """The page as PNG."""

    @abstractmethod
    def _is_closed(self, told: str) -> bool:
        """Whether the window was closed, by what the driver said or says now."""

    def _ended_with_its_window(self, told: str) -> bool:
        """Whether the browser, which is no more, ended because its last window was closed."""
        return self.window_gone in told

    # What callers use.

    def go(self, url: str, deadline_s: float = START_S) -> None:
        """Load a page.

        Raises
        ------
        Ended
            If it does not load before the deadline, or the browser is lost.
        """
        self._page = secrets.token_hex(8)

        def load() -> None:
            self._open(url)
            self._evaluate(MARK, [self._page])

        self._within(load, deadline_s, "loading the page")
        self._page_processes = self._processes(self.content_kind)

    def call(self, function: str, argument: Any = None, deadline_s: float = START_S) -> Any:
        """Await ``window.<function>(argument)`` in the page; argument and value are what JSON can say.

        Raises
        ------
        PageError
            If the function throws or rejects, with its own words.
        Crashed, Closed, Hung, TooMuchMemory
            If the page is lost meanwhile: the browser is of no further use.
        """
        answer = self._within(
            lambda: self._evaluate(CALL, [function, json.dumps(argument), self._page]), deadline_s, f"{function}()"
        )
        found = json.loads(answer) if isinstance(answer, str) else {"lost": True}
        if "lost" in found:
            raise self._end(self._cause(f"{function}() found another page"))
        if "error" in found:
            raise PageError(found["error"])
        return found.get("value")

    def renew(self, deadline_s: float = START_S) -> None:
        """Another window instead of the present one. Its page gets a process of its own, with nothing left of the last page's
        memory, which loading a page anew in the same window does not give back. The old process ends in a moment; WebKitGTK
        keeps that of a page that is not cross-origin isolated.
        """
        self._within(self._replace_window, deadline_s, "opening another window")
        late = time.monotonic() + SETTLE_S
        while self._page_processes and self._page_processes <= self._processes(self.content_kind):
            if time.monotonic() > late:
                return  # a memory figure that is taken now may be too low, and then has no value rather than a wrong one
            time.sleep(LOOK_S / 10)

    def click(self, css: str, deadline_s: float = START_S) -> None:
        """Click on the first element that a CSS selector finds; counts as the user's gesture."""
        self._within(lambda: self._press(css), deadline_s, f"clicking on {css}")

    def screenshot(self, path: Path | str, width: int, height: int, dark: bool = False) -> None:
        """Save what a viewport of ``width`` × ``height`` CSS pixels shows as PNG; dark: prefers-color-scheme is dark."""
        Path(path).write_bytes(self._within(lambda: self._picture(width, height, dark), START_S, "taking a picture"))

    def memory(self) -> dict[str, int]:
        """Bytes by kind of process, pages shared by several counted in parts."""
        return self.group.memory()

    def close(self) -> None:
        """End all processes and remove the profile; may be called more than once."""
        self._lost = self._lost or Closed(f"{self.name} was closed")
        self.group.close()

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # How a page is lost.

    def _within(self, work: Callable[[], Any], deadline_s: float, what: str) -> Any:
        """What ``work`` returns, in a thread: no driver's own time-out ends a page that is stuck in a loop."""
        if self._lost:
            raise self._lost
        answers = _started(work)
        late = time.monotonic() + deadline_s
        while True:
            try:
                fine, answer = answers.get(timeout=max(min(LOOK_S, late - time.monotonic()), 0.0))
                break
            except queue.Empty:
                if time.monotonic() >= late:
                    raise self._end(
                        Hung(f"{what} gave no answer for {deadline_s:g} s; {self.name} was ended")
                    ) from None
                if (limit := self.memory_limit_bytes) and (held := self.group.resident()) > limit:
                    why = (
                        f"{self.name} held {held / 1e9:.2f} GB while {what} ran, over the limit of {limit / 1e9:.2f} GB"
                    )
                    raise self._end(TooMuchMemory(why)) from None
            except BaseException:  # Ctrl-C: the thread still waits for the driver, which must not be asked again
                self.close()
                raise
        if fine:
            return answer
        raise self._end(self._cause(f"{what}: {first_line(answer)}")) from answer

    def _processes(self, wanted: str) -> set[int]:
        """Ids of the living processes of a kind."""
        return {process.pid for process, kind in self.group.kinds() if kind == wanted}

    def _cause(self, told: str) -> Ended:
        """Why the driver failed: which process has ended, or whether the window is gone."""
        settled = time.monotonic() + SETTLE_S
        while time.monotonic() < settled:
            if not self._processes("browser"):
                if self._ended_with_its_window(told):
                    return Closed(f"the window was closed ({told})")
                return Crashed(f"the browser's process has ended ({told})")
            time.sleep(SETTLE_S / 20)
        answers = _started(lambda: self._is_closed(told))
        try:
            if answers.get(timeout=QUICK_S) == (True, True):
                return Closed(f"the window was closed ({told})")
        except queue.Empty:
            pass
        if self._page_processes - self._processes(self.content_kind):
            return Crashed(f"the page's process has ended ({told})")
        return Crashed(told)

    def _end(self, reason: Ended) -> Ended:
        """Take note that the page is lost, and end what is left of the browser."""
        self.close()
        self._lost = reason
        return reason


def _started(work: Callable[[], Any]) -> queue.SimpleQueue[tuple[bool, Any]]:
    """Start work in a thread; where its result will be: whether it went well, and what it returned or raised."""
    answers: queue.SimpleQueue[tuple[bool, Any]] = queue.SimpleQueue()

    def run() -> None:
        try:
            answers.put((True, work()))
        except BaseException as error:  # handed to the thread that waits
            answers.put((False, error))

    threading.Thread(target=run, daemon=True).start()
    return answers


def first_line(error: BaseException) -> str:
    """What a driver's error says, without the stack that some put below it."""
    text = str(getattr(error, "msg", None) or error).strip().removeprefix("Message:").strip()
    return text.splitlines()[0][:300] if text else type(error).__name__
