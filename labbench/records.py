"""What came of a cell: a :class:`Record`, the single source of the stored schema.

Every number that leaves a measurement lives in one of these models; the store derives its columns from them and
``labbench.records.json_schema`` publishes them. Units are SI and stand in the names. NaN and infinity are refused:
what was not measured is ``None``, and where that needs an explanation there is a field for the reason.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import AwareDatetime, Field

from labbench.cells import Cell, Frozen, content_id

SCHEMA_VERSION = 1

Status = Literal["ok", "failed", "unsupported", "out_of_memory", "timeout"]
Provenance = Literal["measured", "imported", "simulated", "predicted"]
NoiseVerdict = Literal["quiet", "noisy", "unstable"]


class Estimate(Frozen):
    """A point estimate with its confidence interval."""

    value: float
    ci_low: float
    ci_high: float


class Samples(Frozen):
    """Raw steady-state times of one series. Arrays have one entry per sample, in the order taken.

    A sample is the mean time of one call in a block of ``calls_per_sample`` back-to-back calls.
    """

    seconds: list[float] = Field(description="seconds per call")
    process: list[int] = Field(description="index of the worker process that took the sample")
    round: list[int] = Field(description="index of the interleaved round, counted within the process")


class OperatorClass(Frozen):
    """Demand of one class of operators (matmul, convolution, attention, ...)."""

    flops: float = 0.0
    bytes: float = Field(0.0, description="bytes read and written if nothing were cached or fused")
    kernels: int = 0


class Footprint(Frozen):
    """What one call demands, counted without running it (see :mod:`labbench.footprint`)."""

    flops: float
    bytes: float
    parameters: int
    parameter_bytes: int
    activation_bytes: float = Field(description="bytes of all intermediate results")
    kernels: int
    by_class: dict[str, OperatorClass]


class Series(Frozen):
    """Steady-state timing of one callable: ``forward``, ``prefill``, ``decode`` (one token) or ``step`` (training)."""

    name: str
    calls_per_sample: int = Field(ge=1, description="calls in a block, calibrated against the timer's overhead")
    items_per_call: float = Field(gt=0, description="items of `unit` one call processes")
    unit: str = Field(description="what throughput counts: samples, tokens, audio_s (seconds of audio)")
    n_samples: int = Field(ge=0)
    median_s: Estimate = Field(description="latency of one call, seconds, with a 95 % interval")
    p90_s: Estimate
    p99_s: Estimate
    mean_s: float
    iqr_s: float = Field(description="interquartile range, seconds")
    throughput: float = Field(description="items per second at the median latency")
    warmup_calls: int = Field(ge=0, description="untimed calls before the first sample, all processes")
    warmed: bool = Field(description="whether the warm-up rule was met in every process")
    stop_reason: Literal["converged", "time_budget", "max_samples"]
    footprint: Footprint | None = Field(None, description="what one call demands")
    samples: Samples


class Phases(Frozen):
    """One-off costs before steady state, medians over processes, in seconds."""

    start_s: float | None = Field(None, description="worker start: from request to ready, nothing loaded yet")
    load_s: float | None = Field(None, description="building the model and its inputs")
    prepare_s: float | None = Field(None, description="compiling or converting for the runtime")
    first_run_s: float | None = Field(None, description="first complete run after preparation")
    prepare_concurrency: int | None = Field(None, description="workers that prepared at the same time")


class Memory(Frozen):
    """Peak memory of a pass of its own (never during timing)."""

    peak_bytes: int | None = Field(None, description="peak resident (CPU, shared pages included) or allocated memory")
    increase_bytes: int | None = Field(None, description="peak above the empty worker: what model and runtime add")
    parameter_bytes: int | None = Field(None, description="size of the weights as the runtime holds them")
    method: str | None = Field(None, description="how peak_bytes was read")
    reason: str | None = Field(None, description="why there is no figure")


class Energy(Frozen):
    """Energy from hardware counters over the steady state, or the reason why there is none."""

    joules_per_call: float | None = None
    method: str | None = None
    reason: str | None = None


class Noise(Frozen):
    """Evidence on how quiet the machine was while the samples were taken."""

    verdict: NoiseVerdict
    reasons: list[str] = Field(default_factory=list, description="what made the verdict worse than quiet")
    iqr_relative: float | None = Field(None, description="IQR / median of the noisiest series")
    steal_fraction: float | None = Field(None, description="share of CPU time taken by the hypervisor")
    other_load: float | None = Field(None, description="mean number of cores that other processes kept busy")
    frequency_hz: float | None = Field(None, description="median CPU frequency, where the system tells")


class Check(Frozen):
    """Comparison of the runtime's output with eager fp32 on the same weights and inputs."""

    passed: bool
    max_error: float = Field(description="largest |difference|, divided by the largest |reference|")
    tolerance: float
    reference: str = "eager fp32"


class Environment(Frozen):
    """Machine and software a record was taken on; stored once and referred to by id."""

    machine_id: str
    hostname: str
    machine: dict[str, Any] = Field(description="fingerprint: parts, limits and, by device, measured ceilings")
    software: dict[str, str] = Field(description="package or component -> version")

    @property
    def id(self) -> str:
        """Content-derived id, 16 hex digits."""
        return content_id(self.model_dump(mode="json"))

    def ceilings(self, device: str) -> dict[str, Any] | None:
        """Measured ceilings of a device (see :func:`labbench.machine.ceilings.measured`), or None."""
        found: dict[str, Any] | None = self.machine.get("ceilings", {}).get(device)
        return found


class Record(Frozen):
    """What came of a cell. One record is one cell in one campaign: all its processes, rounds and samples."""

    schema_version: int = SCHEMA_VERSION
    record_id: str = Field(default_factory=lambda: uuid.uuid4().hex)
    campaign_id: str | None = None
    cell: Cell
    status: Status
    reason: str | None = Field(None, description="why the status is not ok: the thing, the cause, the way out")
    stage: str | None = Field(None, description="where it ended: load, check, prepare, warm-up, steady, memory")
    stderr_tail: str | None = Field(None, description="last lines the worker wrote to stderr, if it did not end well")
    provenance: Provenance = "measured"
    source: str | None = Field(None, description="origin of an imported record, or method of a predicted one")
    started_at: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))
    duration_s: float | None = Field(None, description="wall time spent on the cell, waits excluded")
    environment_id: str | None = None
    machine_id: str | None = None
    protocol_id: str | None = None
    protocol: dict[str, Any] | None = Field(None, description="the protocol, in full")
    threads: int | None = Field(None, description="CPU threads really used")
    device_name: str | None = Field(None, description="what the device calls itself")
    processes: int = Field(0, description="worker processes that completed")
    phases: Phases = Phases()
    memory: Memory = Memory()
    energy: Energy = Energy()
    noise: Noise | None = None
    check: Check | None = None
    metrics: dict[str, float] = Field(default_factory=dict, description="further metrics, unit in the name")
    series: list[Series] = Field(default_factory=list, description="first entry is the primary one")

    @property
    def cell_id(self) -> str:
        """Id of the cell."""
        return self.cell.id

    @property
    def primary(self) -> Series | None:
        """The series a one-number comparison uses; ``None`` unless the status is ok."""
        return self.series[0] if self.series else None

    def __str__(self) -> str:
        if self.status != "ok" or self.primary is None:
            return f"{self.cell.label}: {self.status} ({self.reason})"
        times = ", ".join(f"{s.name} {s.median_s.value * 1e3:.3g} ms" for s in self.series)
        noise = f", {self.noise.verdict}" if self.noise else ""
        return f"{self.cell.label}: {times}{noise}"


def json_schema() -> dict[str, Any]:
    """JSON Schema of a record."""
    return Record.model_json_schema()
