"""Native onnxruntime in this process, on the same graph, inputs and threads as a browser: what a browser is held against."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from labbench.measure.steady import nothing, time_block, timer_cost_s

if TYPE_CHECKING:
    from labbench.web.export import Exported


class Native:
    """A session that answers as the measuring page does; it sits still between its rounds.

    Parameters
    ----------
    model : Exported
    threads : int
    """

    def __init__(self, model: Exported, threads: int) -> None:
        from labbench.cells import Platform
        from labbench.runtimes.ort import make_session

        self._session = make_session(model.path, Platform(threads=threads))
        self._feed = model.inputs
        self.step_s = timer_cost_s(nothing)

    def samples(self, calls: int, for_s: float, room: int) -> list[float]:
        """Mean seconds of one call of each block; an untimed call goes first.

        Parameters
        ----------
        calls : int
            In a block.
        for_s : float
            Blocks are taken until so many seconds have passed; at least one.
        room : int
            Blocks at most.
        """
        self._call()
        seconds: list[float] = []
        end = time.perf_counter() + for_s
        while len(seconds) < room and (not seconds or time.perf_counter() < end):
            seconds.append(time_block(self._call, nothing, calls))
        return seconds

    def _call(self) -> None:
        """Returns when its outputs are there: nothing is left to wait for."""
        self._session.run(None, self._feed)
