"""Results of ``labbench web serve``'s page, which a person measured in their own browser (page/ui/results.js, version 1).

The device is another machine, of which only the browser tells, and anybody may have edited the file. So every field is checked for
kind and size, figures are computed again from the raw times, and the records are ``imported``, whoever served the page.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, Field, ValidationError, model_validator

from labbench.cells import Cell, Frozen
from labbench.importers.base import BadRow, File, Import, environment, explained, identified
from labbench.records import Check, Environment, Record

FORMAT = "labbench-web"
VERSION = 1
MOST_TIMES = 100_000  # a page ends a live run after ten minutes: 30,000 hops of 20 ms
MOST_RESULTS = 1000
# What a browser is called: the first that the user agent names; Chrome names Safari too, and Edge names both.
BROWSERS = (
    ("firefox", r"Firefox/(\S+)"),
    ("edge", r"Edg(?:A|iOS)?/(\S+)"),
    ("chromium", r"Chrom(?:e|ium)/(\S+)"),
    ("safari", r"Version/(\S+).* Safari/"),
    ("webkit", r"AppleWebKit/(\S+)"),
)

Text = Annotated[str, Field(max_length=2000)]
Name = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[\w .:/+-]+$")]
Seconds = Annotated[float, Field(ge=0, le=1e6)]
Moments = Annotated[list[Annotated[float, Field(ge=-1e6, le=1e6)]], Field(max_length=MOST_TIMES)]
Count = Annotated[int, Field(ge=0, le=2**40)]


class Adapter(Frozen):
    """A GPU, as WebGPU tells of it."""

    name: Text
    software: bool
    vendor: Text = ""
    architecture: Text = ""
    device: Text = ""
    description: Text = ""
    fallback: bool | None = None


class Gpu(Frozen):
    """The adapter, or why there is none."""

    adapter: Adapter | None = None
    error: Text | None = None


class Device(Frozen):
    """What the browser tells of itself and the device."""

    user_agent: Text
    brands: Annotated[list[Text], Field(default=[], max_length=20)]
    platform: Text = ""
    model: Text | None = None
    architecture: Text | None = None
    mobile: bool | None = None
    cores: Annotated[int, Field(ge=1, le=4096)] | None = None
    memory_gib: Annotated[float, Field(gt=0, le=1e6)] | None = None
    isolated: bool
    shared_memory: bool
    clock_step_s: Seconds
    gpu: Gpu = Gpu()

    @property
    def browser(self) -> tuple[str, str]:
        """Name and version."""
        for name, pattern in BROWSERS:
            if found := re.search(pattern, self.user_agent):
                return name, found[1]
        return "browser", "unknown"

    def __str__(self) -> str:
        return " ".join(part for part in (self.model, self.platform) if part) or self.user_agent


class Part(Frozen):
    """Part of what the session told; what it holds beyond the fields here is not read."""

    model_config = Frozen.model_config | {"extra": "ignore"}


class Worked(Part):
    """What reached the GPU and WebNN."""

    dispatches: Count
    webnn: Count


class Threads(Part):
    """Threads of wasm, read back."""

    used: Annotated[int, Field(ge=1, le=4096)]
    workers: Count


class Trouble(Part):
    """Why there is no session."""

    stage: Name
    name: Text = ""
    message: Text


class Opened(Part):
    """What opening the session told (page/bench.js)."""

    provider: Name
    phases: Annotated[dict[Name, Seconds], Field(default={})]
    adapter: Adapter | None = None
    counts: Worked | None = None
    threads: Threads | None = None
    error: Trouble | None = None

    @model_validator(mode="after")
    def _whole(self) -> Opened:
        if self.error is None and (self.counts is None or self.threads is None):
            raise ValueError("a session without counts or threads")
        return self


class Ready(Frozen):
    """The session of a live run, warm."""

    opened: Opened
    warmed: bool
    warmup_calls: Count
    call_s: Seconds | None = None


class Hops(Frozen):
    """Moments and durations of each hop, seconds."""

    from_s: Moments
    complete_s: Moments
    picked_s: Moments
    done_s: Moments
    received_s: Moments
    features_s: Moments
    model_s: Moments

    @model_validator(mode="after")
    def _equal(self) -> Hops:
        if len({len(values) for values in self.model_dump().values()}) != 1:
            raise ValueError("its columns are of unequal length")
        if any(value < 0 for value in (*self.features_s, *self.model_s)):
            raise ValueError("a duration is below zero")
        return self


class Counts(Frozen):
    """What a live run counted."""

    hops: Count
    dropped: Count
    most_behind: Count
    longest_gap_s: Seconds
    written: Count
    starved: Count
    waiting: Count


class LiveAnswer(Frozen):
    """A live run (page/live/live.js)."""

    status: Literal["ok"]
    source: Name
    clock: Literal["fine", "coarse"]
    rate: int = Field(ge=1000, le=400_000)
    window: int = Field(ge=1, le=2**31)
    hop: int = Field(ge=1, le=2**31)
    slack_s: Seconds
    slowdown: float | None = None
    seconds: Seconds
    ready: Ready
    hops: Hops
    counts: Counts
    audio: Annotated[dict[Name, float | None], Field(default={})]
    track: dict[Name, Any] | None = None


class Warm(Frozen):
    """How a benchmark was warmed up."""

    warmed: bool
    warmup_calls: Count
    call_s: Seconds


class Compared(Frozen):
    """Outputs against native onnxruntime's; null: not even comparable."""

    max_error: Annotated[float, Field(ge=0)] | None


class BenchmarkAnswer(Frozen):
    """A benchmark (page/ui/benchmark.js)."""

    status: Literal["ok"]
    opened: Opened
    warm: Warm
    calls: int = Field(ge=1, le=10**9)
    seconds: Annotated[list[Annotated[float, Field(gt=0, le=1e6)]], Field(min_length=1, max_length=MOST_TIMES)]
    check: Compared


class Ended(Part):
    """A run that gave no figures."""

    status: Literal["unsupported", "failed", "out_of_memory"]
    reason: Text
    stage: Text | None = None
    opened: Opened | None = None


class Result(Frozen):
    """One run: what was asked for, and what came of it."""

    kind: Literal["live", "benchmark"]
    started_at: AwareDatetime
    model: Name
    window_s: float = Field(gt=0, le=3600)
    provider: Literal["wasm", "webgpu", "webgpu-jsep", "webnn-cpu", "webnn-gpu", "webnn-npu"]
    threads: int = Field(ge=1, le=4096)
    hop_s: float | None = Field(None, gt=0, le=3600)
    source: Literal["microphone", "file", "signal"] | None = None
    seconds: Seconds | None = None
    answer: dict[str, Any]


class Document(Frozen):
    """All that a page measured until it was saved."""

    format: Literal["labbench-web"]
    version: Literal[1]
    labbench: Text
    onnxruntime_web: Text
    device: Device
    made_at: AwareDatetime
    results: Annotated[list[dict[str, Any]], Field(max_length=MOST_RESULTS)]


def recognises(file: File) -> bool:
    """By content."""
    return file.is_json and isinstance(file.data, dict) and file.data.get("format") == FORMAT


def read(file: File, into: Import) -> None:
    """Add every run as a record; one that makes no sense is noted.

    Raises
    ------
    Unreadable
        If the file is none of the page's, or of a version that is not known.
    """
    if not recognises(file):
        raise file.unreadable('not a result of `labbench web serve`: it has no "format": "labbench-web"')
    if file.data.get("version") != VERSION:
        raise file.unreadable(
            f"version {file.data.get('version')!r} of the page's results; this labbench reads {VERSION}: install a newer one"
        )
    try:
        document = Document.model_validate(file.data)
    except ValidationError as error:
        raise file.unreadable(explained(error)) from None
    told = _environment(document)
    for index, data in enumerate(document.results):
        try:
            into.add(_record(Result.model_validate(data), document, told), told, file.name)
        except (BadRow, ValidationError, ValueError) as error:
            into.skip(file.name, None, f"result {index}: {explained(error)}")


def _environment(document: Document) -> Environment:
    name, version = document.device.browser
    software = {name: version, "onnxruntime-web": document.onnxruntime_web, "labbench": document.labbench}
    device = document.device.model_dump(mode="json", exclude_none=True)
    return environment("labbench web", device="cpu", device_name=str(document.device), software=software, web=device)


def _record(result: Result, document: Document, told: Environment) -> Record:
    name, version = document.device.browser
    shared = {
        "provenance": "imported",
        "source": f"labbench's page in {name} {version}, by hand: {document.device}",
        "started_at": result.started_at,
        "environment_id": told.id,
        "machine_id": told.machine_id,
    }
    build = _live if result.kind == "live" else _benchmark
    return identified(build(result, name, shared))


def _live(result: Result, browser: str, shared: dict[str, Any]) -> Record:
    from labbench.web.live import Live, record

    if result.hop_s is None or result.source is None:
        raise BadRow("a live run without hop_s or source")
    answer = _answer(LiveAnswer, result.answer)
    if answer["status"] == "ok" and abs(answer["hop"] / answer["rate"] - result.hop_s) > 0.01 * result.hop_s:
        raise BadRow(f"hop_s is {result.hop_s:g}, but the run had hops of {answer['hop'] / answer['rate']:g} s")
    wish = Live(
        browser=browser,
        model=result.model,
        provider=result.provider,
        threads=result.threads,
        hop_s=result.hop_s,
        window_s=result.window_s,
        source=result.source,
        seconds=answer.get("seconds") or result.seconds or 1,
    )
    return record(wish, answer, **shared)


def _benchmark(result: Result, browser: str, shared: dict[str, Any]) -> Record:
    from labbench.importers.samples import sampled
    from labbench.runtimes.check import TOLERANCE
    from labbench.web import families, labels
    from labbench.web.result import phases

    model = families.find(result.model)
    cell = Cell.of(
        model=model.name, task=model.task, audio_s=result.window_s,
        device=browser, runtime=result.provider, threads=result.threads if result.provider == "wasm" else None,
    )  # fmt: skip
    answer = _answer(BenchmarkAnswer, result.answer)
    opened, common = answer["opened"], {"cell": cell, **shared}
    if opened:
        verdict = labels.judge(opened, result.provider, result.threads)
        common["device_name"] = verdict.device_name
        if verdict.status != "ok":
            return Record(status=verdict.status, reason=verdict.reason, stage=verdict.stage, **common)
    if answer["status"] != "ok":
        return Record(status=answer["status"], reason=answer["reason"], stage=answer["stage"], **common)
    tolerance, off = TOLERANCE["fp32"], answer["check"]["max_error"]
    check = (
        None
        if off is None
        else Check(passed=off <= tolerance, max_error=off, tolerance=tolerance, reference="native onnxruntime, CPU")
    )
    if check is None or not check.passed:
        why = "its output is not that of native onnxruntime" + (
            f": off by {off:.2g} of the largest value" if check else ", not even in shape"
        )
        return Record(status="failed", reason=why, stage="check", check=check, **common)
    series = sampled(
        "forward", answer["seconds"], items=result.window_s, unit="audio_s",
        calls_per_sample=answer["calls"], warmup_calls=answer["warm"]["warmup_calls"],
    ).model_copy(update={"warmed": answer["warm"]["warmed"], "stop_reason": "time_budget"})  # fmt: skip
    return Record(
        status="ok",
        check=check,
        threads=opened["threads"]["used"],
        phases=phases([opened]),
        metrics={"real_time_factor": series.latency_s / result.window_s},
        series=[series],
        **common,
    )


def _answer(kind: type[Frozen], data: dict[str, Any]) -> dict[str, Any]:
    """The answer, checked."""
    found: Frozen = (kind if data.get("status") == "ok" else Ended).model_validate(data)
    return found.model_dump()
