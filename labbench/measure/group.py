"""Measure a group of cells together, so that whatever the machine does meanwhile does it to all of them alike.

::

    process 0   A: start load prepare .      first . round 0 . . round 1 . . .  memory
                B: start load prepare .      . first . round 0 . . round 1 . .  . memory
                C: start load . prepare .    ...
                   several may prepare at    one at a time; the others are stopped (SIGSTOP)
                   once, if the protocol
                   says so
    process 1   the same again with fresh workers, and so on; then one record a cell

The order within a round alternates, so that no cell always follows the same neighbour. Rounds are short: on a shared machine the
speed changes many times a second, and only what is measured within hundredths of a second of one another meets the same speed.

With a *reference*, another Python whose environment stays what it is, each cell is followed by itself in that environment:
A A' B B' …, and backwards.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import perf_counter
from typing import TYPE_CHECKING, Any

from labbench.cells import Cell
from labbench.measure import stats
from labbench.measure.protocol import Protocol
from labbench.measure.sampling import Sampling, by_round, sampled_series
from labbench.measure.session import Job
from labbench.measure.worker import Outcome, Worker, WorkerEnded, can_fork, wait_any
from labbench.records import Energy, Estimate, Footprint, Memory, Noise, Phases, Record, Series

if TYPE_CHECKING:
    from labbench.measure.interpreter import Interpreter
    from labbench.measure.noise import Evidence

MEMORY_SHARE = 0.8  # of what is available: the limit of a worker, unless the protocol gives one
PREPARATION = ("start", "load", "prepare")


@dataclass
class Trial:
    """One process of one cell: its worker, and what it has told so far; ``reference``: in the reference environment."""

    job: Job
    worker: Worker
    reference: bool = False
    facts: dict[str, Any] = field(default_factory=dict)
    sampling: dict[str, Sampling] = field(default_factory=dict)
    parts: list[dict[str, float]] = field(default_factory=list)
    part_rounds: list[int] = field(default_factory=list)
    evidence: Evidence | None = None
    joules: float | None = None
    busy_s: float = 0.0
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    outcome: Outcome | None = None

    @property
    def label(self) -> str:
        """What it runs, for a progress display."""
        return self.job.cell.platform.label + (" (reference)" if self.reference else "")

    def room(self) -> dict[str, int]:
        """Series that still need samples, and how many more each may keep."""
        return {name: one.room for name, one in self.sampling.items() if one.room}

    def add_round(self, index: int, samples: dict[str, list[float]]) -> None:
        """Keep a round's samples, and see whether the stopping rule holds now."""
        for name, values in samples.items():
            self.sampling[name].add(index, values, self.facts["steady"][name]["calls_per_sample"])


def measure(
    cells: list[Cell],
    protocol: Protocol,
    *,
    threads: int,
    plugins: tuple[str, ...] = (),
    footprints: dict[str, dict[str, Footprint]] | None = None,
    reference: Interpreter | None = None,
    on_stage: Callable[[str], None] = lambda text: None,
) -> Iterator[Record]:
    """Measure cells with interleaved rounds; yields one record for each, in the order they end.

    With a reference, a cell's record comes after that of its reference, which it names if that one is ok. A cell that failed
    has none.

    Parameters
    ----------
    cells : list of Cell
        Resolved cells; their workers live at the same time.
    threads : int
        CPU threads for platforms that name none.
    plugins : tuple of str
        Modules or files that register the user's own models (see :mod:`labbench.zoo`). What is registered in this process
        only goes to the workers with their jobs.
    footprints : dict, optional
        Footprints already counted, by workload; filled in as further ones are counted.
    reference : Interpreter, optional
        Another Python, in whose environment each cell is measured too, in turn with the cell.
    on_stage : callable
        Told what is going on, for a progress display.
    """
    sides = (None, reference) if reference else (None,)
    found = {cell.id: _Found(job_of(cell, protocol, threads, plugins), sides) for cell in cells}
    for _ in range(protocol.processes):
        pending = [(one.job, side) for one in found.values() for side in one.pending()]
        for trial in _Pass(pending, protocol, footprints if footprints is not None else {}, on_stage).run():
            yield from found[trial.job.cell.id].add(trial)


class _Found:
    """What a cell has given so far, here and in the reference environment."""

    def __init__(self, job: Job, sides: tuple[Interpreter | None, ...]) -> None:
        self.job = job
        self.sides = sides
        self.trials: dict[bool, list[Trial]] = {side is not None: [] for side in sides}

    def failed(self, reference: bool) -> bool:
        """Whether one of its processes did not end well."""
        return any(trial.outcome for trial in self.trials[reference])

    def pending(self) -> list[Interpreter | None]:
        """Where the next process is to run: nowhere once the cell has failed."""
        return [side for side in self.sides if not self.failed(False) and not self.failed(side is not None)]

    def add(self, trial: Trial) -> list[Record]:
        """Take a trial that ended; the records, if it was the last one that they waited for."""
        self.trials[trial.reference].append(trial)
        done = {
            side: self.failed(side) or len(self.trials[side]) == self.job.protocol.processes for side in self.trials
        }
        if self.failed(False):
            return [] if trial.reference else [assemble(self.trials[False])]
        if not all(done.values()):
            return []
        record = assemble(self.trials[False])
        if True not in self.trials:
            return [record]
        reference = assemble(self.trials[True])
        reference = reference.model_copy(update={"reference_id": reference.record_id})
        beside = reference.record_id if reference.status == "ok" else None
        return [reference, record.model_copy(update={"reference_id": beside})]


def job_of(cell: Cell, protocol: Protocol, threads: int, plugins: tuple[str, ...]) -> Job:
    """What a worker needs to know for a cell."""
    from labbench import runtimes, zoo

    family, runtime = zoo.pack(cell.workload.model), runtimes.pack(cell.platform.runtime)
    return Job(cell, protocol, cell.platform.threads or threads, plugins, family, runtime)


class _Pass:
    """One process of every cell of the group."""

    def __init__(
        self,
        jobs: list[tuple[Job, Interpreter | None]],
        protocol: Protocol,
        footprints: dict[str, dict[str, Footprint]],
        on_stage: Callable[[str], None],
    ) -> None:
        from labbench.machine import available_memory_bytes

        self.jobs = jobs
        self.protocol = protocol
        self.footprints = footprints
        self.on_stage = on_stage
        self.start = ("fork" if can_fork() else "fresh") if protocol.start == "auto" else protocol.start
        self.memory_limit = protocol.memory_limit_bytes or int(MEMORY_SHARE * available_memory_bytes())
        self.workers: list[Worker] = []

    def run(self) -> Iterator[Trial]:
        """Trials as they end; no worker outlives this generator, however it is left."""
        try:
            trials = self._prepare()
            yield from (trial for trial in trials if trial.outcome)
            alive = _going_on(trials)
            for trial in alive:
                trial.worker.pause()
            for trial in alive:
                self._turn(trial, self._first)
            yield from (trial for trial in alive if trial.outcome)
            yield from self._rounds(_going_on(alive))
        finally:
            for worker in self.workers:
                worker.close()

    def _prepare(self) -> list[Trial]:
        """Start, load and prepare every worker, at most ``prepare_concurrency`` at a time."""
        waiting, trials = list(self.jobs), []
        active: list[Trial] = []
        while waiting or active:
            while waiting and len(active) < self.protocol.prepare_concurrency:
                job, interpreter = waiting.pop(0)
                worker = Worker(job, self.start, self.memory_limit, interpreter)
                worker.set_deadline(self.protocol.prepare_timeout_s)
                self.workers.append(worker)
                active.append(Trial(job, worker, reference=interpreter is not None))
                trials.append(active[-1])
            self.on_stage("preparing " + ", ".join(trial.label for trial in active))
            ready = wait_any([trial.worker for trial in active])
            for trial in list(active):
                trial.facts["prepare_concurrency"] = max(trial.facts.get("prepare_concurrency", 1), len(active))
                began = perf_counter()
                self._advance(trial, trial.worker in ready)
                trial.busy_s += perf_counter() - began
                if trial.outcome or trial.facts.get("prepare_s") is not None:
                    active.remove(trial)
        return trials

    def _advance(self, trial: Trial, ready: bool) -> None:
        """Take a preparing worker's answer, if there is one, and give it its next command."""
        worker = trial.worker
        try:
            if not ready:
                worker.watch()
                return
            trial.facts.update(worker.answer() or {})
            step = PREPARATION.index(worker.stage) + 1
            if step < len(PREPARATION):
                worker.ask(PREPARATION[step], timeout_s=self.protocol.prepare_timeout_s)
        except WorkerEnded as ended:
            trial.outcome = ended.outcome

    def _turn(self, trial: Trial, action: Callable[[Trial], None]) -> None:
        """Let one worker run alone."""
        began = perf_counter()
        trial.worker.resume()
        try:
            action(trial)
            trial.worker.pause()
        except WorkerEnded as ended:
            trial.outcome = ended.outcome
        trial.busy_s += perf_counter() - began

    def _call(self, trial: Trial, command: str, *arguments: Any, extra_s: float = 0.0) -> Any:
        return trial.worker.call(command, *arguments, timeout_s=self.protocol.call_timeout_s + extra_s)

    def _first(self, trial: Trial) -> None:
        self.on_stage(f"first run of {trial.label}")
        trial.facts.update(self._call(trial, "first"))
        trial.sampling = {name: Sampling(self.protocol) for name, _, _ in trial.facts["series"]}

    def _rounds(self, trials: list[Trial]) -> Iterator[Trial]:
        """Interleaved rounds until every trial has met its stopping rule."""
        index = 0
        while trials:
            self._sweep(trials if index % 2 == 0 else list(reversed(trials)), index)
            for trial in trials:
                if not trial.outcome and not trial.room():
                    self._turn(trial, self._finish)
                if trial.outcome or "memory" in trial.facts:
                    trial.worker.close()
                    yield trial
            trials = [trial for trial in _going_on(trials) if "memory" not in trial.facts]
            index += 1

    def _sweep(self, trials: list[Trial], index: int) -> None:
        """One round of each trial, with a look at what else the machine did meanwhile."""
        from labbench.measure.noise import NoiseProbe

        probe = NoiseProbe([trial.worker.pid for trial in trials])
        probe.start()
        for trial in trials:
            self.on_stage(f"round {index} of {trial.label}")
            self._turn(trial, lambda trial: self._round(trial, index))
        evidence = probe.stop()
        for trial in trials:
            trial.evidence = evidence if trial.evidence is None else trial.evidence + evidence

    def _round(self, trial: Trial, index: int) -> None:
        """One round of one trial, and the energy that it took."""
        from labbench.measure.energy import meter

        room = trial.room()
        energy = meter(trial.job.cell.platform.device)
        energy.start()
        found = self._call(
            trial, "round", room, extra_s=len(room) * (self.protocol.round_s + self.protocol.warmup_max_s)
        )
        joules = energy.stop()
        if joules is not None:
            trial.joules = (trial.joules or 0.0) + joules
        trial.facts["energy"], trial.facts["steady"] = energy, found["steady"]
        trial.parts += found["parts"]
        trial.part_rounds += [index] * len(found["parts"])
        trial.add_round(index, found["samples"])

    def _finish(self, trial: Trial) -> None:
        self.on_stage(f"memory of {trial.label}")
        memory = self._call(trial, "memory")
        workload = ("reference " if trial.reference else "") + trial.job.cell.workload.model_dump_json()
        if workload not in self.footprints:
            self.footprints[workload] = self._call(trial, "footprint")
        trial.facts["footprints"] = self.footprints[workload]
        trial.facts["memory"] = memory
        if self.protocol.profile:
            self.on_stage(f"profile of {trial.label}")
            trial.facts["profiles"] = self._call(trial, "profile", extra_s=self.protocol.prepare_timeout_s)


def _going_on(trials: list[Trial]) -> list[Trial]:
    """Those that have not ended; a reference goes no further than its cell, of which no record would name it."""
    failed = {trial.job.cell.id for trial in trials if trial.outcome and not trial.reference}
    for trial in trials:
        if trial.reference and trial.job.cell.id in failed:
            trial.worker.close()
    return [trial for trial in trials if not trial.outcome and trial.job.cell.id not in failed]


def assemble(trials: list[Trial]) -> Record:
    """One record from all processes of a cell."""
    job, last = trials[-1].job, trials[-1]
    common: dict[str, Any] = {
        "cell": job.cell,
        "started_at": trials[0].started_at,
        "duration_s": sum(trial.busy_s for trial in trials),
        "protocol_id": job.protocol.id,
        "protocol": job.protocol.model_dump(mode="json"),
        "threads": job.threads,
        "device_name": last.facts.get("device_name"),
        "phases": _phases(trials),
    }
    if last.outcome:
        ended = last.outcome
        return Record(
            status=ended.status, reason=ended.reason, stage=ended.stage, stderr_tail=ended.stderr_tail, **common
        )
    series = [_series(trials, name, items, unit) for name, items, unit in last.facts["series"]]
    return Record(
        status="ok",
        processes=len(trials),
        memory=_memory(trials),
        energy=_energy(trials),
        noise=_noise(trials, series),
        check=last.facts["check"],
        metrics=_metrics(trials),
        series=series,
        **common,
    )


def _median_of(trials: list[Trial], key: str) -> float | None:
    values = [trial.facts[key] for trial in trials if trial.facts.get(key) is not None]
    return statistics.median(values) if values else None


def _phases(trials: list[Trial]) -> Phases:
    starts = [trial.worker.start_s for trial in trials if trial.worker.start_s is not None]
    return Phases(
        start_s=statistics.median(starts) if starts else None,
        load_s=_median_of(trials, "load_s"),
        prepare_s=_median_of(trials, "prepare_s"),
        first_run_s=_median_of(trials, "first_run_s"),
        prepare_concurrency=max(trial.facts.get("prepare_concurrency", 1) for trial in trials),
    )


def _metrics(trials: list[Trial]) -> dict[str, float]:
    """Those of the first process, with the last loss of training."""
    first = trials[0].facts
    last = {"loss_last": first["memory"]["loss_last"]} if "loss_last" in first["memory"] else {}
    return {**first.get("metrics", {}), **last}


def _memory(trials: list[Trial]) -> Memory:
    passes = [{key: value for key, value in trial.facts["memory"].items() if key != "loss_last"} for trial in trials]
    peak = max(passes, key=lambda one: one["peak_bytes"] or 0)
    size = _median_of(trials, "parameter_bytes")
    return Memory(parameter_bytes=None if size is None else int(size), **peak)


def _energy(trials: list[Trial]) -> Energy:
    meter = trials[-1].facts["energy"]
    calls = sum(
        len(trial.sampling[name].seconds) * trial.facts["steady"][name]["calls_per_sample"]
        + trial.facts["steady"][name]["warmup_calls"]
        for trial in trials
        for name in trial.sampling
    ) + sum(len(trial.parts) for trial in trials)
    joules = [trial.joules for trial in trials]
    if any(value is None for value in joules):
        return Energy(reason=meter.reason)
    return Energy(joules_per_call=sum(value or 0.0 for value in joules) / calls, method=meter.method)


def _noise(trials: list[Trial], series: list[Series]) -> Noise:
    from labbench.measure.noise import verdict

    evidence = trials[0].evidence
    for trial in trials[1:]:
        if evidence is not None and trial.evidence is not None:
            evidence = evidence + trial.evidence
    assert evidence is not None
    return verdict(evidence, max((one.iqr_s or 0.0) / one.latency_s for one in series))


def _series(trials: list[Trial], name: str, items: float, unit: str) -> Series:
    steady = [trial.facts["steady"][name] for trial in trials]
    found = sampled_series(
        name,
        [trial.sampling[name] for trial in trials],
        items=items,
        unit=unit,
        calls_per_sample=max(one["calls_per_sample"] for one in steady),
        warmup_calls=sum(one["warmup_calls"] for one in steady),
        warmed=all(one["warmed"] for one in steady),
        footprint=trials[-1].facts["footprints"].get(name),
        profile=trials[-1].facts.get("profiles", {}).get(name),
    )
    assert found.median_s is not None
    return found.model_copy(update={"parts": _parts(trials, found.median_s)}) if name == "step" else found


def _parts(trials: list[Trial], whole: Estimate) -> dict[str, Estimate] | None:
    """Time of each part of a training step; None where the runtime does not tell.

    A part is taken as a share of the whole step in the same round, so that both met the same machine; the median share, times the
    median step.
    """
    shares: list[dict[str, float]] = []
    rounds: list[int] = []
    process: list[int] = []
    for p, trial in enumerate(trials):
        steps = by_round(trial.sampling["step"].rounds, trial.sampling["step"].seconds)
        for index, parts in zip(trial.part_rounds, trial.parts, strict=True):
            shares.append({name: seconds / steps[index] for name, seconds in parts.items()})
            rounds.append(index)
            process.append(p)
    if not shares:
        return None
    found = {}
    for name in shares[0]:
        share = stats.quantiles([one[name] for one in shares], process, rounds, (0.5,))[0]
        ends = {end: getattr(share, end) * whole.value for end in ("value", "ci_low", "ci_high")}
        found[name] = Estimate(**ends)
    return found
