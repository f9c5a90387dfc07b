"""The matrix: browsers × providers × models × chunk lengths, into a store.

One browser serves several cells, each in a new window with a new process, until a cell does not end well: the next one gets a
new browser. Records are stored as they come, so Ctrl-C or a crash loses nothing, and the same call goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from labbench.campaign import Progress, Summary, without_valid_record
from labbench.cells import Cell
from labbench.records import Environment, Record
from labbench.store import Store
from labbench.web.browsers import Browser, BrowserError, Unavailable, open_browser
from labbench.web.config import WebConfig, native_cell, threads_of

if TYPE_CHECKING:
    from labbench.measure.protocol import Protocol
    from labbench.web.export import Exported
    from labbench.web.native import Native
    from labbench.web.server import Server

PAGE = "bench.html"
OK = ("ok", "unsupported")  # after these a browser is as good as new
MEMORY_SHARE = 0.8  # of what is available: the limit of a browser, unless the protocol gives one
AUDIO_SEED = 0


class WebCampaign:
    """Cells in browsers, to be measured into a store.

    Parameters
    ----------
    config : WebConfig
    store : path
        The database; made if it is not there.
    rerun : bool
        Measure again what is stored and valid.
    retry : bool
        Measure again what is stored with a status other than ``ok``.
    open_with : callable
        How a browser is started, by its name.

    Examples
    --------
    >>> print(WebCampaign(WebConfig(browsers=["firefox"], models=["kws-tiny"]), "data/web.h5").run())
    """

    def __init__(
        self,
        config: WebConfig,
        store: str | Path,
        *,
        rerun: bool = False,
        retry: bool = False,
        open_with: Callable[[str], Browser] = open_browser,
    ) -> None:
        self.config = config
        self.cells = config.cells()
        self.protocol: Protocol = config.make_protocol()
        self.store_path = Path(store)
        self.rerun, self.retry, self._open_with = rerun, retry, open_with
        self.id = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{self.protocol.id[:6]}"

    def run(self, *, progress: bool = True) -> Summary:
        """Measure what is not stored yet.

        Ctrl-C ends the cell in flight and returns the summary of what is stored, marked ``interrupted``.

        Raises
        ------
        ConfigError
            If onnxruntime-web cannot be had.
        StoreLocked
            If another campaign is writing to the same store.
        """
        from labbench.web.parts import served
        from labbench.web.server import Server, page_files

        summary = Summary(self.store_path)
        bar = Progress(len(self.cells), progress)
        files = {**page_files(), **served()}
        with Store(self.store_path, writable=True) as store, Server(files) as server:
            try:
                for name, cells in groupby(self.cells, key=lambda cell: cell.platform.device):
                    self._browser(name, list(cells), store, server, summary, bar)
            except KeyboardInterrupt:
                summary.interrupted = True
            finally:
                bar.close()
        return summary

    def _browser(
        self, name: str, cells: list[Cell], store: Store, server: Server, summary: Summary, bar: Progress
    ) -> None:
        """All cells of one browser."""
        browser, why = self._started(name)
        try:
            environment = environment_of(name, browser.version if browser else "absent")
            todo = cells if self.rerun else self._todo(cells, store, environment)
            known = set() if self.rerun else self._stored_native(cells, store, environment)
            summary.kept += len(cells) - len(todo)
            bar.skip(len(cells) - len(todo))
            for cell in todo:
                bar.label = cell.label
                if browser is None and not isinstance(why, Unavailable):
                    browser, why = self._started(name)
                records = [_not_started(cell, why)] if browser is None else self._measured(cell, browser, server, bar)
                for record in records:
                    if record.cell.id not in known:
                        store.append(record.taken_in(environment, campaign_id=self.id), environment)
                        summary.records.append(record)
                known |= {record.cell.id for record in records[1:]}  # native: once is enough
                bar.done(records[0])
                if browser and records[0].status not in OK:
                    browser.close()
                    browser = None
        finally:
            if browser:
                browser.close()

    def _started(self, name: str) -> tuple[Browser | None, BrowserError | None]:
        try:
            browser = self._open_with(name)
        except BrowserError as error:
            return None, error
        from labbench.machine import available_memory_bytes

        browser.memory_limit_bytes = self.protocol.memory_limit_bytes or int(MEMORY_SHARE * available_memory_bytes())
        return browser, None

    def _measured(self, cell: Cell, browser: Browser, server: Server, bar: Progress) -> list[Record]:
        from labbench.machine import cpu_name
        from labbench.web.bench import Subject, measure
        from labbench.web.export import export

        bar.stage("exporting the model")
        exported = export(cell.workload.model, cell.workload.audio_s, self.protocol.seed)
        first = (
            cell.platform.runtime == "wasm" and cell.platform.threads == 1
        )  # the log-mel knows no provider and no threads
        subject = Subject(
            cell=cell,
            exported=exported,
            argument=exported.argument(server),
            audio=_audio(exported, server) if first and exported.model.features else None,
            native=partial(_native, exported, threads_of(cell)) if self.config.native else None,
            cpu_name=cpu_name(),
        )
        return measure(subject, browser, server.url(PAGE), self.protocol, bar.stage)

    def _todo(self, cells: list[Cell], store: Store, environment: Environment) -> list[Cell]:
        from labbench.campaign import DECISIVE_PACKAGES
        from labbench.web.parts import PACKAGE

        def decisive(cell: Cell) -> set[str]:
            own = "onnxruntime" if cell.platform.device == "cpu" else cell.platform.device
            return {*DECISIVE_PACKAGES, PACKAGE, own}

        return without_valid_record(cells, store, environment, self.protocol, decisive, retry=self.retry)

    def _stored_native(self, cells: list[Cell], store: Store, environment: Environment) -> set[str]:
        native = list({one.id: one for one in map(native_cell, cells)}.values())
        return {cell.id for cell in native} - {cell.id for cell in self._todo(native, store, environment)}


def environment_of(browser: str, version: str) -> Environment:
    """This machine with its browser and onnxruntime-web."""
    from labbench import machine
    from labbench.web.parts import PACKAGE, VERSION

    environment = machine.environment()
    return environment.model_copy(update={"software": environment.software | {PACKAGE: VERSION, browser: version}})


def _not_started(cell: Cell, why: BrowserError | None) -> Record:
    """A browser that is not installed supports nothing here; one that does not start has failed."""
    absent = isinstance(why, Unavailable)
    return Record(cell=cell, status="unsupported" if absent else "failed", reason=str(why), stage="start")


def _native(exported: Exported, threads: int) -> Native:
    from labbench.web.native import Native

    return Native(exported, threads)


def _audio(exported: Exported, server: Server) -> str:
    """URL of a chunk of noise: as long as the model's, at its rate."""
    import numpy as np

    count = round(exported.audio_s * exported.model.rate)
    samples = np.random.default_rng(AUDIO_SEED).normal(0, 0.1, count).astype(np.float32)
    return server.add(f"audio/{exported.model.rate}-{count}.bin", samples.tobytes())
