"""What a worker does for its one cell, command by command; see :class:`Session`."""

from __future__ import annotations

import gc
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

from labbench.cells import Cell
from labbench.measure.protocol import Protocol
from labbench.measure.steady import Steady

if TYPE_CHECKING:
    from labbench.measure.memory import Peak
    from labbench.records import Check
    from labbench.runtimes.base import Prepared, Runtime
    from labbench.runtimes.step import TrainingStep
    from labbench.zoo.base import Model, Program

MEMORY_CALLS = 3  # calls in the memory pass: allocators reach their high-water mark within the first two


@dataclass(frozen=True)
class Job:
    """Everything a worker needs to know, picklable and free of torch.

    Attributes
    ----------
    plugins : tuple of str
        What the worker loads before anything else.
    family, runtime : bytes or None
        The cell's own, pickled, if they were registered in the campaign's process and no plugin would do so here.
    """

    cell: Cell
    protocol: Protocol
    threads: int
    plugins: tuple[str, ...] = ()
    family: bytes | None = None
    runtime: bytes | None = None


class CellFailed(Exception):
    """The cell ran, but its result cannot be trusted; the message is the record's reason."""


class Session:
    """The life of a cell in its worker: ``load``, ``prepare``, ``first``, then ``round`` as often as asked, then ``memory``; or
    ``call`` as often as requests come.

    Each method is a command that the campaign's process sends; what it returns is sent back.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self._prepared: dict[str, Prepared] = {}
        self._steady: dict[str, Steady] = {}
        self._reference: dict[str, Any] = {}
        self._returns_heap = False
        self._parted = 0  # steps that were timed part by part

    def return_heap(self) -> None:
        """From now on freed memory goes back to the system, where that can be had, so that what is resident is what lives."""
        from labbench.measure import memory

        self._returns_heap = memory.return_heap()

    def load(self) -> dict[str, Any]:
        """Build the model and its inputs; returns ``load_s`` and what the series count."""
        import torch

        from labbench import runtimes, zoo
        from labbench.measure import memory

        cell = self.job.cell
        zoo.load_plugins(self.job.plugins)
        if self.job.family:
            zoo.register(pickle.loads(self.job.family))
        if self.job.runtime:
            runtimes.register(pickle.loads(self.job.runtime))
        torch.set_num_threads(self.job.threads)
        self._runtime: Runtime = runtimes.get(cell.platform.runtime)
        self._refuse_what_cannot_run()
        self._empty_bytes = memory.current_bytes(cell.platform.device)
        start = perf_counter()
        torch.manual_seed(self.job.protocol.seed)
        self._model: Model = zoo.build(cell.workload, seed=self.job.protocol.seed)
        load_s = perf_counter() - start
        return {
            "load_s": load_s,
            "empty_bytes": self._empty_bytes,
            "device_name": runtimes.device_name(cell.platform.device),
            "series": self._items(),
        }

    def _refuse_what_cannot_run(self) -> None:
        from labbench.runtimes.base import Unsupported

        work, platform = self.job.cell.workload, self.job.cell.platform
        reason = self._runtime.available(platform.device)
        if reason is None and work.mode not in self._runtime.modes:
            reason = f"runtime {platform.runtime!r} has no {work.mode} mode; it has {', '.join(self._runtime.modes)}"
        if reason is None and work.precision not in self._runtime.precisions:
            reason = (
                f"runtime {platform.runtime!r} has no {work.precision}; it has {', '.join(self._runtime.precisions)}"
            )
        if reason is None and platform.loader_workers is not None and work.mode != "training":
            reason = f"a data loader ({platform.loader_workers} workers) belongs to training"
        if reason is None and platform.memory_format is not None and not self._runtime.lays_out:
            reason = f"runtime {platform.runtime!r} chooses memory layouts itself, so {platform.memory_format} means nothing to it"
        if reason is not None:
            raise Unsupported(reason)

    def _items(self) -> list[tuple[str, float, str]]:
        """Name, items per call and unit of each series, primary first."""
        model, work = self._model, self.job.cell.workload
        if work.mode == "training":
            if (training := model.training) is None:
                return []  # prepare() refuses it
            return [("step", training.items_per_batch * (work.accumulation or 1), training.unit)]
        return [(program.name, program.items_per_call, program.unit) for program in model.programs]

    def prepare(self) -> dict[str, Any]:
        """Compile or convert; returns ``prepare_s`` and ``parameter_bytes``."""
        import torch

        cell, model = self.job.cell, self._model
        platform, precision = cell.platform, cell.workload.precision
        if cell.workload.mode == "training":
            start = perf_counter()
            self._prepared["step"] = self._runtime.prepare_step(model, platform, cell.workload)
            prepare_s = perf_counter() - start
        else:
            with torch.inference_mode():
                self._reference = {p.name: _tensors(p.module(*p.inputs)) for p in model.programs}
            start = perf_counter()
            for program in model.programs:
                prepared = self._runtime.prepare(program.module, program.inputs, platform, precision)
                self._prepared[program.name] = prepared
            prepare_s = perf_counter() - start
        del self._model, model
        gc.collect()
        self._steady = {name: Steady(prepared, self.job.protocol) for name, prepared in self._prepared.items()}
        sizes = [p.parameter_bytes for p in self._prepared.values() if p.parameter_bytes is not None]
        return {"prepare_s": prepare_s, "parameter_bytes": max(sizes, default=None)}

    def first(self) -> dict[str, Any]:
        """The first run of every series; the comparison of its output with eager fp32's, or proof that it trains.

        Raises
        ------
        CellFailed
            If an output is out of tolerance, a training loss is not finite, or a step changes nothing.
        """
        from labbench.measure import training

        step = self._step()
        before = step.checksums() if step else []
        results = {}
        with self._mode():
            start = perf_counter()
            for name, prepared in self._prepared.items():
                results[name] = prepared()
                prepared.synchronize()
            first_run_s = perf_counter() - start
        if step:
            metrics = training.proof(step, results["step"], before)
            return {"first_run_s": first_run_s, "check": None, "metrics": metrics}
        outputs = {name: self._prepared[name].outputs(result) for name, result in results.items()}
        return {"first_run_s": first_run_s, "check": self._check(outputs)}

    def _step(self) -> TrainingStep | None:
        """The training step, if this cell is one; runtimes of users may have other ones."""
        step = self._prepared.get("step")
        return step if hasattr(step, "anatomy") else None  # type: ignore[return-value]

    def _check(self, outputs: dict[str, Any]) -> Check | None:
        from labbench.runtimes.check import compare

        precision = self.job.cell.workload.precision
        checks = {name: compare(got, self._reference[name], precision) for name, got in outputs.items()}
        self._reference.clear()
        name, worst = max(checks.items(), key=lambda item: item[1].max_error)
        if not worst.passed:
            raise CellFailed(
                f"output of {self.job.cell.platform.runtime} ({name}) differs from eager fp32 by {worst.max_error:.2g} of its "
                f"largest value; the tolerance for {precision} is {worst.tolerance:.2g}"
            )
        return worst

    def round(self, room: dict[str, int]) -> dict[str, Any]:
        """One round of each series in ``room``, which says how many more samples may be kept.

        Returns ``samples``, how each series is sampled (``steady``), and the seconds of the ``parts`` of some training steps.
        """
        from labbench.measure import training

        step = self._step()
        with self._mode():
            samples = {name: self._steady[name].round(limit) for name, limit in room.items()}
            parts = []
            if step and self._parted < self.job.protocol.min_samples:
                parts = training.parts_round(step, self.job.protocol)
                self._parted += len(parts)
        keys = ("calls_per_sample", "warmup_calls", "warmed")
        steady = {name: {key: getattr(one, key) for key in keys} for name, one in self._steady.items()}
        return {"samples": samples, "steady": steady, "parts": parts}

    def call(self) -> float:
        """One run of the primary series, as a request to a server is; returns its seconds."""
        prepared = next(iter(self._prepared.values()))
        with self._mode():
            start = perf_counter()
            prepared()
            prepared.synchronize()
            return perf_counter() - start

    def _mode(self) -> Any:
        """Gradients off in inference, entered once a round so that its cost is outside the calls."""
        import torch

        return torch.enable_grad() if self.job.cell.workload.mode == "training" else torch.inference_mode()

    def memory(self) -> dict[str, Any]:
        """Peak memory of a few calls of every series, in a pass of its own, and without what the heap keeps in another."""
        from labbench.measure import memory

        peak, result = self._peak()
        increase = None if peak.bytes is None else max(peak.bytes - self._empty_bytes, 0)
        live = increase
        if self.job.cell.platform.device.startswith("cpu") and not self._returns_heap:
            bare = None
            if memory.return_heap():
                bare = in_new_thread(self._peak)[0].bytes  # a new thread's heap has no holes to fill
                memory.keep_heap()
            live = None if bare is None else max(bare - self._empty_bytes, 0)
        found = {"peak_bytes": peak.bytes, "increase_bytes": increase, "live_bytes": live}
        return found | {"method": peak.method, "reason": peak.reason} | self._end_of_training(result, increase, live)

    def _peak(self) -> tuple[Peak, Any]:
        """Peak of a few calls of every series, and the last result."""
        from labbench.measure import memory

        memory.release_garbage()
        with memory.peak(self.job.cell.platform.device) as peak, self._mode():
            for prepared in self._prepared.values():
                for _ in range(MEMORY_CALLS):
                    result = prepared()
                prepared.synchronize()
        return peak, result

    def _end_of_training(self, loss: Any, increase: int | None, live: int | None) -> dict[str, Any]:
        """What the memory of a training step went to, and its last loss."""
        from labbench.measure import training

        if (step := self._step()) is None:
            return {}
        last = float(loss)
        training.require_finite(last, "last")
        with self._mode():
            causes = step.memory_by_cause()
        if increase is not None:
            bare = increase if live is None else min(live, increase)
            causes["workspace"] = max(bare - sum(causes.values()), 0)
            causes["heap"] = increase - bare
        return {"by_cause": causes, "loss_last": last}

    def profile(self) -> dict[str, Any]:
        """Where the time of a call of each series goes; None where the runtime has no profiler, or it failed."""
        import traceback

        found = {}
        for name, prepared in self._prepared.items():
            try:
                with self._mode():
                    found[name] = self._runtime.profile(
                        prepared,
                        partial(self._program, name),
                        self.job.cell.platform,
                        self.job.cell.workload.precision,
                    )
            except Exception:  # evidence on request: the measurement stands without it
                traceback.print_exc()
                found[name] = None
        return found

    def _program(self, name: str) -> Program:
        """A program of the model, built once more."""
        from labbench import zoo

        model = zoo.build(self.job.cell.workload, seed=self.job.protocol.seed)
        return next(program for program in model.programs if program.name == name)

    def footprint(self) -> dict[str, Any]:
        """What one call of every series demands, counted without running it."""
        from labbench import footprint

        return footprint.of(self.job.cell.workload)


def in_new_thread(work: Callable[[], Any]) -> Any:
    """What ``work`` returns, done by a thread that nothing was allocated in before."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


def _tensors(output: Any) -> list[Any]:
    """A module's output as a list of tensors."""
    return [tensor.clone() for tensor in (output if isinstance(output, tuple | list) else (output,))]
