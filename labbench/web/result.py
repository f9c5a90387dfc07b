"""What a measurement in a browser becomes: the record of its cell, and that of native onnxruntime, which took turns with it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from labbench.measure.sampling import sampled_series
from labbench.records import Check, Memory, Noise, Phases, Record, Series
from labbench.web.config import native_cell, threads_of
from labbench.web.steady import Stream, ratios

if TYPE_CHECKING:
    from labbench.measure.noise import Evidence
    from labbench.records import Estimate
    from labbench.web.agreement import Agreement
    from labbench.web.bench import Subject
    from labbench.web.labels import Verdict


@dataclass
class Taken:
    """What was taken of a cell so far.

    Attributes
    ----------
    opened : list of dict
        The page's answers to ``open``, one a process.
    verdict : Verdict or None
        Whether the label is true, by the last of them.
    agreement : Agreement or None
        Its outputs against native onnxruntime's.
    streams : list of (Stream, Stream or None)
        Calls of the model, and of native in turn with them, one a process.
    features : list of Stream
        The log-mel, where it was timed.
    evidence : Evidence or None
        What else the machine did meanwhile.
    memory : Memory
    metrics : dict
        Further ones.
    """

    opened: list[dict[str, Any]] = field(default_factory=list)
    verdict: Verdict | None = None
    agreement: Agreement | None = None
    streams: list[tuple[Stream, Stream | None]] = field(default_factory=list)
    features: list[Stream] = field(default_factory=list)
    evidence: Evidence | None = None
    memory: Memory = field(default_factory=Memory)
    metrics: dict[str, float] = field(default_factory=dict)


def browser_record(subject: Subject, taken: Taken, **fields: Any) -> Record:
    """The record of the cell; ``fields``: status, reason, stage, protocol and when it was."""
    return Record(
        cell=subject.cell,
        threads=subject.cell.platform.threads,
        device_name=_device_name(subject, taken.verdict),
        phases=phases(taken.opened),
        check=taken.agreement.check if taken.agreement else None,
        **(_figures(subject, taken) if fields["status"] == "ok" else {}),
        **fields,
    )


def native_record(subject: Subject, taken: Taken, **fields: Any) -> Record:
    """The record of the same work without a browser; ``fields``: protocol and when it was."""
    from labbench.web.export import TOLERANCE

    exported = subject.exported
    streams = [beside for _, beside in taken.streams if beside]
    series = _forward(subject, streams)
    return Record(
        cell=native_cell(subject.cell),
        status="ok",
        threads=threads_of(subject.cell),
        device_name=subject.cpu_name,
        processes=len(streams),
        memory=Memory(reason="it ran in the process that drove the browser"),
        noise=_noise(taken.evidence, series),
        check=Check(passed=exported.torch_error <= TOLERANCE, max_error=exported.torch_error, tolerance=TOLERANCE),
        metrics=_real_time_factor(subject, series),
        series=[series],
        **fields,
    )


def phases(opened: Sequence[Mapping[str, Any]]) -> Phases:
    """One-off costs, by the page's answers to ``open``: medians over processes."""

    def median(name: str) -> float | None:
        values = [one["phases"][name] for one in opened if name in one["phases"]]
        return statistics.median(values) if values else None

    return Phases(load_s=median("download_s"), prepare_s=median("session_s"), first_run_s=median("first_run_s"))


def _device_name(subject: Subject, verdict: Verdict | None) -> str | None:
    """The adapter, where there is one; the processor for wasm, which runs on nothing else."""
    if verdict and verdict.device_name:
        return verdict.device_name
    return subject.cpu_name if subject.cell.platform.runtime == "wasm" else None


def _figures(subject: Subject, taken: Taken) -> dict[str, Any]:
    from labbench.web.labels import SOFTWARE

    forward = _forward(subject, [one for one, _ in taken.streams])
    series = [forward]
    if taken.features:
        series.append(_series("features", taken.features, subject.exported.audio_s, "audio_s"))
    opened = taken.opened[-1]
    metrics = {
        **taken.metrics,
        "runtime_load_s": statistics.median(one["phases"]["runtime_s"] for one in taken.opened),
        "model_bytes": float(opened["model_bytes"]),
        "clock_share": taken.metrics["clock_step_s"] / ((forward.calls_per_sample or 1) * forward.latency_s),
        "workers": float(opened["threads"]["workers"]),
        **{f"{name}_per_run": float(value) for name, value in opened["counts"].items() if name != "workers"},
        **(taken.agreement.metrics() if taken.agreement else {}),
        **_slowdown(taken.streams),
        **_real_time_factor(subject, forward),
    }
    if taken.verdict and taken.verdict.device_name:
        metrics["software_adapter"] = float(SOFTWARE in taken.verdict.device_name)
    return {
        "processes": len(taken.streams),
        "memory": taken.memory,
        "noise": _noise(taken.evidence, forward),
        "metrics": metrics,
        "series": series,
    }


def _slowdown(streams: Sequence[tuple[Stream, Stream | None]]) -> dict[str, float]:
    """How many times as long as native a call takes, of the rounds in which both took turns."""
    from labbench.measure import stats

    found = [
        (value, process, index)
        for process, (one, beside) in enumerate(streams)
        if beside
        for index, value in ratios(one.sampling, beside.sampling).items()
    ]
    if not found:
        return {}
    values, processes, rounds = zip(*found, strict=True)
    ratio: Estimate = stats.quantiles(values, processes, rounds, (0.5,))[0]
    native = statistics.median(value for _, beside in streams if beside for value in beside.sampling.seconds)
    told = {"native_s": native, "slowdown": ratio.value}
    return {**told, "slowdown_ci_low": ratio.ci_low or 0.0, "slowdown_ci_high": ratio.ci_high or 0.0}


def _real_time_factor(subject: Subject, forward: Series) -> dict[str, float]:
    """Seconds of computing for a second of audio, of a model that hears audio."""
    exported = subject.exported
    return {"real_time_factor": forward.latency_s / exported.audio_s} if exported.model.unit == "audio_s" else {}


def _noise(evidence: Evidence | None, forward: Series) -> Noise | None:
    from labbench.measure.noise import verdict

    return None if evidence is None else verdict(evidence, (forward.iqr_s or 0.0) / forward.latency_s)


def _forward(subject: Subject, streams: Sequence[Stream]) -> Series:
    return _series("forward", streams, subject.exported.items_per_call, subject.exported.model.unit)


def _series(name: str, streams: Sequence[Stream], items: float, unit: str) -> Series:
    return sampled_series(
        name,
        [one.sampling for one in streams],
        items=items,
        unit=unit,
        calls_per_sample=max(one.calls_per_sample for one in streams),
        warmup_calls=sum(one.warmup_calls for one in streams),
        warmed=all(one.warmed for one in streams),
    )
