"""One cell in a browser: open a session, judge its label, compare its numbers, time it, look at memory and the main thread.

::

    go ── open ── outputs ── warm-up, rounds (native in turn) ── memory ── blocking ── features ── close
          load    check      steady                              memory    blocking    features
          prepare
          first run          once for each process of the protocol, in a new window: memory of its own
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from labbench.measure.sampling import Sampling
from labbench.records import Memory, Record, Status
from labbench.web.browsers.base import Browser, BrowserError, Hung, PageError, TooMuchMemory
from labbench.web.result import Taken, browser_record, native_record
from labbench.web.steady import Stream, sample

if TYPE_CHECKING:
    from labbench.cells import Cell
    from labbench.measure.protocol import Protocol
    from labbench.web.export import Exported
    from labbench.web.native import Native

MEMORY_S = 0.5  # calls go on for so long while the memory of the processes is looked at
MEMORY_POLL_S = 0.05
BLOCKING_S = 0.3  # and as long with no calls
STAGES = {
    "api": "prepare",
    "runtime": "prepare",
    "download": "load",
    "session": "prepare",
    "first run": "first",
}  # as others


@dataclass(frozen=True)
class Subject:
    """What is measured, and with what.

    Attributes
    ----------
    cell : Cell
    exported : Exported
        Its model.
    argument : dict
        What the page has to know of the model (``Exported.argument``).
    audio : str or None
        URL of samples for the log-mel; None: it is not measured.
    native : callable or None
        Makes what is timed in turn with it, once that is known to run.
    cpu_name : str
    """

    cell: Cell
    exported: Exported
    argument: dict[str, Any]
    audio: str | None
    native: Callable[[], Native] | None
    cpu_name: str


class CellEnded(Exception):
    """The cell has a status other than ``ok``."""

    def __init__(self, status: Status, reason: str, stage: str | None = None) -> None:
        super().__init__(reason)
        self.status, self.reason, self.stage = status, reason, stage


def measure(
    subject: Subject,
    browser: Browser,
    url: str,
    protocol: Protocol,
    on_stage: Callable[[str], None] = lambda text: None,
) -> list[Record]:
    """The record of the cell, then that of native onnxruntime if it took turns; the browser may be lost afterwards."""
    return _Measurement(subject, browser, url, protocol, on_stage).run()


@dataclass
class _Measurement:
    subject: Subject
    browser: Browser
    url: str
    protocol: Protocol
    on_stage: Callable[[str], None]
    stage: str = "load"
    taken: Taken = field(default_factory=Taken)

    def run(self) -> list[Record]:
        began, started_at = time.monotonic(), datetime.now(UTC)
        status: Status
        try:
            for _ in range(self.protocol.processes):
                self._process()
            status, reason, stage = "ok", None, None
        except CellEnded as ended:
            status, reason, stage = ended.status, ended.reason, ended.stage or self.stage
        except BrowserError as error:
            status, reason, stage = status_of(error), str(error), self.stage
        common: dict[str, Any] = {
            "started_at": started_at,
            "duration_s": time.monotonic() - began,
            "protocol_id": self.protocol.id,
            "protocol": self.protocol.model_dump(mode="json"),
        }
        record = browser_record(self.subject, self.taken, status=status, reason=reason, stage=stage, **common)
        if status != "ok" or not self.subject.native:
            return [record]
        return [record, native_record(self.subject, self.taken, **common)]

    def _ask(self, name: str, argument: dict[str, Any], deadline_s: float | None = None) -> Any:
        return self.browser.call(f"labbench.{name}", argument, deadline_s or self.protocol.call_timeout_s)

    def _process(self) -> None:
        """A page loaded anew, from the session to its end."""
        self.on_stage("loading")
        self.stage = "load"
        self.browser.renew()
        self.browser.go(self.url)
        page = self._ask("environment", {})
        empty = self.browser.memory()
        self._open()
        self._check()
        self._steady(page["clock_step_s"])
        if not self.taken.memory.method:
            self._memory(empty)
            self._blocking()
            self.taken.metrics["clock_step_s"] = page["clock_step_s"]
        if self.subject.audio is not None:
            self._features(page["clock_step_s"])
        self._ask("close", {})

    def _open(self) -> None:
        from labbench.web.labels import judge

        self.stage = "prepare"
        self.on_stage("opening a session")
        platform = self.subject.cell.platform
        threads = platform.threads or 1
        argument = {**self.subject.argument, "provider": platform.runtime, "threads": threads}
        opened = self._ask("open", argument, self.protocol.prepare_timeout_s)
        self.taken.verdict = verdict = judge(opened, platform.runtime, threads)
        self.taken.opened.append(opened)
        if verdict.status != "ok":
            stage = STAGES.get(verdict.stage or "", verdict.stage)
            raise CellEnded(verdict.status, verdict.reason or "no reason was given", stage)

    def _check(self) -> None:
        from labbench.web.agreement import agreement, decoded

        self.stage = "check"
        exported = self.subject.exported
        found = agreement(decoded(self._ask("outputs", {})), exported.outputs, exported.model.classes)
        self.taken.agreement = found
        if not found.check.passed:
            raise CellEnded(
                "failed",
                f"its output differs from native onnxruntime's by {found.check.max_error:.2g} of the largest value; "
                f"the tolerance is {found.check.tolerance:.2g}",
            )

    def _take(self, function: str, **fixed: Any) -> Callable[[int, float, int], list[float]]:
        """Samples of a function of the page, as :class:`labbench.web.steady.Stream` takes them."""

        def take(calls: int, for_s: float, room: int) -> list[float]:
            told = {"calls": calls, "for_s": for_s, "room": room, **fixed}
            seconds: list[float] = self._ask(function, told, self.protocol.call_timeout_s + for_s)["seconds"]
            return seconds

        return take

    def _steady(self, step_s: float) -> None:
        from labbench.measure.noise import NoiseProbe

        self.stage = "steady"
        self.on_stage("sampling")
        native = self.subject.native() if self.subject.native else None
        one = Stream(self._take("samples"), step_s, Sampling(self.protocol))
        beside = Stream(native.samples, native.step_s, Sampling(self.protocol), warm_min_s=0) if native else None
        probe = NoiseProbe([process.pid for process in self.browser.group.tree()])
        found = sample(one, beside, probe)
        self.taken.evidence = found if self.taken.evidence is None else self.taken.evidence + found
        self.taken.streams.append((one, beside))

    def _memory(self, empty: dict[str, int]) -> None:
        """What the browser's processes hold at most while calls go on, above what they held with the page alone."""
        self.stage = "memory"
        self.on_stage("memory")
        done, seen = threading.Event(), [self.browser.memory()]

        def look() -> None:
            while not done.wait(MEMORY_POLL_S):
                seen.append(self.browser.memory())

        looking = threading.Thread(target=look, daemon=True)
        looking.start()
        try:
            self._take("samples")(1, MEMORY_S, self.protocol.max_samples)
        finally:
            done.set()
            looking.join()
        most = max(seen, key=lambda found: sum(found.values()))
        above = sum(most.values()) - sum(empty.values())
        self.taken.memory = Memory(
            peak_bytes=sum(most.values()),
            increase_bytes=above if above > 0 else None,
            reason=None if above > 0 else "the browser still held an earlier page when this one was loaded",
            method="Pss of the browser's processes, looked at from outside; the increase is above the page with no session",
        )
        content = self.browser.content_kind
        for kind in {content, "gpu-process"} & set(most):
            self.taken.metrics[f"memory_{kind.replace('-', '_')}_bytes"] = float(most[kind])
        if peak := self.browser.group.high_water().get(content):
            self.taken.metrics[f"memory_{content}_high_water_bytes"] = float(peak)

    def _blocking(self) -> None:
        """How long the page answers nothing while the model runs on its main thread."""
        self.stage = "blocking"
        told = self._ask("blocking", {"for_s": BLOCKING_S}, self.protocol.call_timeout_s + 2 * BLOCKING_S)
        for name in ("idle_gap_s", "longest_gap_s", "longest_task_s"):
            if told[name] is not None:
                self.taken.metrics[f"blocking_{name}"] = told[name]

    def _features(self, step_s: float) -> None:
        from labbench.measure.noise import NoiseProbe

        self.stage = "features"
        self.on_stage("features")
        settings = dict(self.subject.exported.model.features or {})
        take = self._take("features", audio=self.subject.audio, settings=settings, values=False)
        one = Stream(take, step_s, Sampling(self.protocol))
        sample(one, None, NoiseProbe())
        self.taken.features.append(one)


def status_of(error: BrowserError) -> Status:
    """What a browser's end or a page's words make of a cell."""
    from labbench.web.labels import out_of_memory

    if isinstance(error, Hung):
        return "timeout"
    if isinstance(error, TooMuchMemory) or (isinstance(error, PageError) and out_of_memory(str(error))):
        return "out_of_memory"
    return "failed"
