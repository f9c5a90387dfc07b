"""What came of a cell: a :class:`Record`, the single source of the stored schema.

Every number that leaves a measurement lives in one of these models; the store derives its columns from them and
``labbench schema`` prints them (:func:`json_schema`). Units are SI and stand in the names. NaN, infinity and values that
make no sense are refused: what was not measured is ``None``, and where that needs an explanation there is a field for the reason.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, get_args

from pydantic import AfterValidator, AwareDatetime, Field, JsonValue, TypeAdapter, model_validator

from labbench.cells import Cell, Frozen, content_id

SCHEMA_VERSION = 4
FIRST_LASTING_SCHEMA = 2  # later ones only added fields that may be missing: records from here on are valid as they are

if TYPE_CHECKING:
    Json: TypeAlias = Any
else:
    Json = JsonValue  # what JSON can say, and so comes back as it was

Status = Literal["ok", "failed", "unsupported", "out_of_memory", "timeout", "retraction"]
Provenance = Literal["measured", "imported", "simulated", "predicted"]
PROVENANCES: tuple[str, ...] = get_args(Provenance)
NoiseVerdict = Literal["quiet", "noisy", "unstable"]


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError(f"in UTC, {error}") from None


Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]
# Parts of a training step, in the order they run, and what its memory goes to.
PARTS = ("zero_grad", "data", "forward", "loss", "backward", "clip", "optimizer")
CAUSES = ("parameters", "gradients", "optimizer", "activations", "workspace", "heap")
UNKNOWN_HOST = "unknown"  # hostname of an environment whose source does not tell it
RECORD_ID = r"^[0-9a-f]{32}$"  # what uuid4().hex gives; fixed length, so the store needs no dictionary of them


class Estimate(Frozen):
    """A point estimate with its confidence interval (``None`` where the source gives none)."""

    value: float = Field(ge=0, description="point estimate")
    ci_low: float | None = Field(None, ge=0, description="lower end of the 95 % interval")
    ci_high: float | None = Field(None, ge=0, description="upper end of the 95 % interval")

    @model_validator(mode="after")
    def _ordered(self) -> Estimate:
        if (self.ci_low is not None and self.ci_low > self.value) or (
            self.ci_high is not None and self.ci_high < self.value
        ):
            raise ValueError(f"the interval {self.ci_low} to {self.ci_high} does not hold its value {self.value}")
        return self


class Samples(Frozen):
    """Raw steady-state times of one series. Arrays have one entry per sample, in the order taken.

    A sample is the mean time of one call in a block of ``calls_per_sample`` back-to-back calls.
    """

    seconds: list[Annotated[float, Field(ge=0)]] = Field([], description="seconds per call")
    process: list[Annotated[int, Field(ge=0, lt=2**16)]] = Field(
        [], description="index of the worker process that took the sample"
    )
    round: list[Annotated[int, Field(ge=0, lt=2**32)]] = Field(
        [], description="index of the interleaved round, counted within the process"
    )

    @model_validator(mode="after")
    def _equal_lengths(self) -> Samples:
        if not len(self.seconds) == len(self.process) == len(self.round):
            lengths = f"{len(self.seconds)} seconds, {len(self.process)} process, {len(self.round)} round"
            raise ValueError(f"samples of unequal length: {lengths}")
        return self


class OperatorClass(Frozen):
    """Demand of one class of operators (matmul, convolution, attention, ...)."""

    flops: float = Field(0.0, ge=0)
    bytes: float = Field(0.0, ge=0, description="bytes read and written if nothing were cached or fused")
    kernels: int = Field(0, ge=0)


class Footprint(Frozen):
    """What one call demands, counted without running it (see :mod:`labbench.footprint`)."""

    flops: float = Field(ge=0, description="floating-point operations")
    bytes: float = Field(ge=0, description="bytes read and written if nothing were cached or fused")
    parameters: int = Field(ge=0, description="number of parameters")
    parameter_bytes: int = Field(ge=0, description="bytes of all parameters")
    activation_bytes: float = Field(ge=0, description="bytes of all intermediate results")
    peak_bytes: float | None = Field(
        None, ge=0, description="most bytes of tensors, weights too, that live at one time"
    )
    peak_by_cause: dict[str, float] | None = Field(None, description="what they are at that time")
    peak_cpu_bytes: float | None = Field(
        None, ge=0, description="the same with the copies that convolutions of a CPU make"
    )
    kernels: int = Field(ge=0, description="number of operators launched")
    by_class: dict[str, OperatorClass] = Field(description="flops, bytes and kernels by class of operator")


class Profile(Frozen):
    """Where the time of one call goes, by a profiler, in a pass of its own (a profiled call is slower than a timed one)."""

    seconds: dict[str, Annotated[float, Field(ge=0)]] = Field(description="time in operators of each class, one call")
    kernels: dict[str, Annotated[float, Field(ge=0)]] = Field(description="operators of each class that ran, one call")
    wall_s: float = Field(gt=0, description="time of one call while it was profiled")
    method: str = Field(description="which profiler")


class Series(Frozen):
    """Steady-state timing of one callable: ``forward``, ``prefill``, ``decode`` (one token) or ``step`` (training).

    What labbench measures has every field and its raw samples. An imported series has what its source gives: often a mean
    and nothing else, and then ``samples`` is empty.
    """

    name: str = Field(description="forward, prefill, decode or step")
    calls_per_sample: int | None = Field(None, ge=1, description="calls in a block, calibrated against timer overhead")
    items_per_call: float = Field(gt=0, description="items of `unit` one call processes")
    unit: str = Field(description="what throughput counts: samples, tokens, audio_s (seconds of audio)")
    n_samples: int = Field(ge=0, description="number of raw samples; 0 where the source gives none")
    median_s: Estimate | None = Field(None, description="median latency of one call, seconds")
    p90_s: Estimate | None = Field(None, description="90th percentile of the latency, seconds")
    p99_s: Estimate | None = Field(None, description="99th percentile of the latency, seconds")
    mean_s: float | None = Field(None, ge=0, description="mean latency of one call, seconds")
    iqr_s: float | None = Field(None, ge=0, description="interquartile range, seconds")
    throughput: float = Field(
        ge=0, description="items per second at the median latency (the mean, if there is no median)"
    )
    warmup_calls: int | None = Field(None, ge=0, description="untimed calls before the first sample, all processes")
    warmed: bool | None = Field(None, description="whether the warm-up rule was met in every process")
    stop_reason: Literal["converged", "time_budget", "max_samples"] | None = Field(
        None, description="which rule ended the sampling"
    )
    footprint: Footprint | None = Field(None, description="what one call demands")
    profile: Profile | None = Field(None, description="where the time goes, if a profile was asked for")
    parts: dict[str, Estimate] | None = Field(
        None, description="seconds of each part of a training step: its median share of the step, times the median step"
    )
    samples: Samples = Samples()

    @model_validator(mode="after")
    def _has_a_latency(self) -> Series:
        if self.median_s is None and self.mean_s is None:
            raise ValueError(f"series {self.name!r} has neither a median nor a mean")
        if self.samples.seconds and len(self.samples.seconds) != self.n_samples:
            raise ValueError(f"series {self.name!r} has {len(self.samples.seconds)} samples, but says {self.n_samples}")
        return self

    @property
    def latency_s(self) -> float:
        """Latency of one call, seconds: the median, or the mean where the source gives no median."""
        value = self.median_s.value if self.median_s is not None else self.mean_s
        assert value is not None
        return value


class Phases(Frozen):
    """One-off costs before steady state, medians over processes, in seconds."""

    start_s: float | None = Field(None, ge=0, description="worker start: from request to ready, nothing loaded yet")
    load_s: float | None = Field(None, ge=0, description="building the model and its inputs")
    prepare_s: float | None = Field(None, ge=0, description="compiling or converting for the runtime")
    first_run_s: float | None = Field(None, ge=0, description="first complete run after preparation")
    prepare_concurrency: int | None = Field(None, ge=0, description="workers that prepared at the same time")


class Memory(Frozen):
    """Peak memory of a pass of its own (never during timing)."""

    peak_bytes: int | None = Field(
        None, ge=0, description="peak resident (CPU, shared pages included) or allocated memory"
    )
    increase_bytes: int | None = Field(
        None, ge=0, description="peak above the empty worker: what model and runtime add"
    )
    live_bytes: int | None = Field(
        None, ge=0, description="the same if freed blocks go back to the system: without holes that the heap keeps"
    )
    parameter_bytes: int | None = Field(None, ge=0, description="size of the weights as the runtime holds them")
    by_cause: dict[str, int] | None = Field(
        None,
        description="what the increase consists of in training; heap: what is not live; workspace: live and not explained",
    )
    method: str | None = Field(None, description="how peak_bytes was read")
    reason: str | None = Field(None, description="why there is no figure")


class Energy(Frozen):
    """Energy from hardware counters over the steady state, or the reason why there is none."""

    joules_per_call: float | None = Field(None, ge=0, description="energy of one call")
    method: str | None = Field(None, description="how the energy was read")
    reason: str | None = Field(None, description="why there is no figure")


class Noise(Frozen):
    """Evidence on how quiet the machine was while the samples were taken."""

    verdict: NoiseVerdict = Field(description="quiet, noisy or unstable")
    reasons: list[str] = Field(default_factory=list, description="what made the verdict worse than quiet")
    iqr_relative: float | None = Field(None, ge=0, description="IQR / median of the noisiest series")
    steal_fraction: float | None = Field(None, ge=0, description="share of CPU time taken by the hypervisor")
    other_load: float | None = Field(None, ge=0, description="mean number of cores that other processes kept busy")
    frequency_hz: float | None = Field(None, ge=0, description="median CPU frequency, where the system tells")


class Check(Frozen):
    """Comparison of the runtime's output with eager fp32 on the same weights and inputs."""

    passed: bool = Field(description="whether the error is within the tolerance")
    max_error: float = Field(ge=0, description="largest |difference|, divided by the largest |reference|")
    tolerance: float = Field(ge=0, description="largest error allowed")
    reference: str = Field("eager fp32", description="what the output was compared with")


class Environment(Frozen):
    """Machine and software a record was taken on; stored once and referred to by id."""

    machine_id: str
    hostname: str
    machine: dict[str, Json] = Field(description="fingerprint: parts, limits and, by device, measured ceilings")
    software: dict[str, str] = Field(description="package or component -> version")

    @property
    def id(self) -> str:
        """Content-derived id, 16 hex digits."""
        return content_id(self.model_dump(mode="json"))

    def ceilings(self, device: str) -> dict[str, Any] | None:
        """Measured ceilings of a device (see :func:`labbench.machine.ceilings.measured`), or None."""
        found: dict[str, Any] | None = self.machine.get("ceilings", {}).get(device)
        return found


class Baseline(Frozen):
    """Records that somebody pinned under a name, to compare later ones with. A later pin of the same name supersedes it."""

    name: str = Field(min_length=1, description="what people call it, e.g. 'v1.0'")
    record_ids: list[str] = Field(description="the records it consists of")
    pinned_at: Moment = Field(default_factory=lambda: datetime.now(UTC), description="when it was pinned")
    note: str | None = Field(None, description="what it is for")


class Advice(Frozen):
    """A promise that a record was taken to test: from a baseline cell to this one, something gets better by so much."""

    change: str = Field(
        description="what the advice changes: runtime, precision, batch, threads, memory_format, kv_cache"
    )
    baseline_cell_id: str = Field(description="the cell it starts from, measured again in the same campaign")
    series: str = Field(description="the series whose time per item was to fall")
    gain: Estimate = Field(description="promised time per item before / after")
    evidence: list[str] = Field(description="ids of the records that the promise was estimated from")


class Record(Frozen):
    """What came of a cell. One record is one cell in one campaign: all its processes, rounds and samples.

    A record is never changed. One that turns out to be mistaken is retracted by a later one, with status ``retraction``,
    that names it and says why.
    """

    schema_version: int = Field(SCHEMA_VERSION, description="version of the schema that this record obeys")
    record_id: str = Field(
        default_factory=lambda: uuid.uuid4().hex, pattern=RECORD_ID, description="unique, 32 hex digits"
    )
    campaign_id: str | None = Field(None, description="the campaign that made it")
    reference_id: str | None = Field(
        None,
        pattern=RECORD_ID,
        description="the record of the same cell in the reference environment, whose rounds took turns with this one's; "
        "its own id: this is a reference",
    )
    cell: Cell = Field(description="what was measured, where")
    status: Status = Field(description="what came of the cell")
    reason: str | None = Field(None, description="why the status is not ok: the thing, the cause, the way out")
    retracts: str | None = Field(None, pattern=RECORD_ID, description="id of the record that this one takes back")
    stage: str | None = Field(None, description="where it ended: load, check, prepare, warm-up, steady, memory")
    stderr_tail: str | None = Field(None, description="last lines the worker wrote to stderr, if it did not end well")
    provenance: Provenance = Field("measured", description="measured, imported, simulated or predicted")
    source: str | None = Field(None, description="origin of an imported record, or method of a predicted one")
    licence: str | None = Field(None, description="terms under which the source of an imported record is published")
    started_at: Moment | None = Field(
        default_factory=lambda: datetime.now(UTC), description="when the work on the cell began; null: unknown"
    )
    duration_s: float | None = Field(None, ge=0, description="wall time spent on the cell, waits excluded")
    environment_id: str | None = Field(None, description="machine and software it was taken on, in /environments")
    machine_id: str | None = Field(None, description="the machine it was taken on")
    protocol_id: str | None = Field(None, description="how it was measured; the same for the same protocol")
    protocol: dict[str, Json] | None = Field(None, description="the protocol, in full")
    threads: int | None = Field(None, ge=0, description="CPU threads really used")
    device_name: str | None = Field(None, description="what the device calls itself")
    processes: int = Field(0, ge=0, description="worker processes that completed")
    phases: Phases = Field(Phases(), description="one-off cost")
    memory: Memory = Field(Memory(), description="memory")
    energy: Energy = Field(Energy(), description="energy")
    noise: Noise | None = Field(None, description="noise")
    check: Check | None = Field(None, description="check of the output")
    advice: Advice | None = Field(None, description="the advice that this record was taken to test")
    metrics: dict[str, float] = Field(default_factory=dict, description="further metrics, unit in the name")
    series: list[Series] = Field(default_factory=list, description="first entry is the primary one")

    @model_validator(mode="after")
    def _consistent(self) -> Record:
        if (self.status == "retraction") != (self.retracts is not None):
            raise ValueError("status 'retraction' and the field `retracts` go together")
        if self.status == "retraction" and not self.reason:
            raise ValueError("a retraction must say why: give a reason")
        if self.provenance == "imported" and not self.source:
            raise ValueError("an imported record must name its source")
        return self

    def to_dict(self) -> dict[str, Any]:
        """JSON form, nulls left out; ``Record.model_validate`` undoes it."""
        return {"started_at": None, **self.model_dump(mode="json", exclude_none=True)}

    def taken_in(self, environment: Environment, **fields: Any) -> Record:
        """The record, signed with the machine and software that it was taken on; ``fields``: further ones to set."""
        where = {"environment_id": environment.id, "machine_id": environment.machine_id}
        return self.model_copy(update=where | fields)

    @property
    def cell_id(self) -> str:
        """Id of the cell."""
        return self.cell.id

    @property
    def is_reference(self) -> bool:
        """Whether it was taken in a reference environment, for another record to be held against."""
        return self.reference_id == self.record_id

    @property
    def primary(self) -> Series | None:
        """The series a one-number comparison uses; ``None`` unless the status is ok."""
        return self.series[0] if self.series else None

    def __str__(self) -> str:
        if self.status != "ok" or self.primary is None:
            return f"{self.cell.label}: {self.status} ({self.reason})"
        times = ", ".join(f"{s.name} {s.latency_s * 1e3:.3g} ms" for s in self.series)
        noise = f", {self.noise.verdict}" if self.noise else ""
        return f"{self.cell.label}: {times}{noise}"


class EnvironmentLine(Frozen):
    """An environment among exported JSON lines."""

    environment: Environment


class BaselineLine(Frozen):
    """A pinned baseline among exported JSON lines."""

    baseline: Baseline


def upgrade(record: dict[str, Any]) -> dict[str, Any]:
    """A record's JSON form, of any earlier schema, in one that is valid today.

    Raises
    ------
    ValueError
        If it is of a newer schema.
    """
    version = record.get("schema_version", SCHEMA_VERSION)
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise ValueError(f"schema_version {version!r}; this labbench reads up to {SCHEMA_VERSION}: install a newer one")
    return {**record, "schema_version": max(version, FIRST_LASTING_SCHEMA)}  # no field got another name or meaning


def json_schema() -> dict[str, Any]:
    """JSON Schema of what ``labbench export --format jsonl`` writes: each line is a record, an environment or a baseline."""
    schema = TypeAdapter(Record | EnvironmentLine | BaselineLine).json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "labbench records", **schema}
