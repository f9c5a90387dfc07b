"""optimum-benchmark's results (format of 0.5 and 0.6): ``benchmark.json``, or ``benchmark_report.json`` and its configuration.

A report has a section a phase, each with latency (raw values in seconds), throughput, memory and energy or null. They become

=================================  ==============================================================================
``forward``, ``prefill``, ``call``  a series of that name
``decode``                         series ``decode`` of single tokens: values divided by the tokens of a decode
``generate``                       a series: prefill and decode together
``train``                          series ``step``
``load_model``, ``load``           ``phases.load_s``
``first_forward``, ``first_call``  ``phases.first_run_s``; not ``first_generate``, which a generation precedes
=================================  ==============================================================================

What is not taken over, since version 0.6.0's own source shows it to be something else: ``per_token`` (its list of events is never
emptied, so each iteration counts all earlier ones again, and the prefills between them), the throughput of ``train`` (all
samples of the training, divided by the time of one step) and of ``generate`` (counts tokens, says samples). Throughputs are
computed as labbench's own are: items per call over the median. One MB is 10⁶ bytes there.

Samples of several processes come one process after the other. Energy is codecarbon's, per call, from the efficiency that
the report gives: earlier versions wrote the energy of all calls together.
"""

from __future__ import annotations

import statistics
from typing import Any

from pydantic import ValidationError

from labbench.cells import Cell
from labbench.importers.base import NO_ENERGY, NO_MEMORY, BadRow, File, Import, explained, positive, whole
from labbench.importers.optimum_config import OPTIONS, described, part_of
from labbench.importers.samples import sampled
from labbench.records import Energy, Memory, Phases, Series

__all__ = ["OPTIONS", "is_companion", "read", "recognises"]

MEASUREMENTS = {"memory", "latency", "throughput", "energy", "efficiency"}
SERIES = {
    "forward": "forward",
    "prefill": "prefill",
    "decode": "decode",
    "generate": "generate",
    "call": "call",
    "train": "step",
}
COUNTS_SAMPLES = ("forward", "prefill")  # whose throughput is samples per second, so that it tells the batch
LOAD, FIRST = ("load_model", "load"), ("first_forward", "first_call")
TOLERANCE = 0.05  # by which a report's throughput may differ from batch / mean latency
CONFIG_NAME = "benchmark_config.json"
REPORT_NAMES = ("benchmark.json", "benchmark_report.json")
BYTES_PER_MB = 1e6
JOULES_PER_KWH = 3.6e6
ENERGY_METHOD = "codecarbon, which may model processor and memory"


def recognises(file: File) -> bool:
    """By content; a run's configuration too, to say that it is no result."""
    return file.is_json and (_report(file.data) is not None or _is_config(file.data))


def is_companion(file: File) -> bool:
    """Whether it is a configuration with its results beside it, which are what is to be read."""
    return file.path.name == CONFIG_NAME and any((file.path.parent / name).exists() for name in REPORT_NAMES)


def _report(data: Any) -> dict[str, Any] | None:
    """The sections of a report, or of the report in a ``benchmark.json``; None if it is neither."""
    sections = data.get("report", data) if isinstance(data, dict) else None
    if not isinstance(sections, dict) or not sections:
        return None
    looks_right = all(isinstance(part, dict) and MEASUREMENTS.issuperset(part) for part in sections.values())
    return sections if looks_right and any(sections.values()) else None


def _is_config(data: Any) -> bool:
    return isinstance(data, dict) and {"backend", "scenario", "launcher"}.issubset(data)


def read(file: File, into: Import, **options: Any) -> None:
    """Add a report as one record.

    Parameters
    ----------
    **options
        Any of ``OPTIONS``: what the files do not tell. A report without its configuration tells neither model nor platform.

    Raises
    ------
    Unreadable
        If it is no report, or what was measured is not known.
    """
    sections = _report(file.data)
    if sections is None:
        if _is_config(file.data):
            raise file.unreadable("a configuration without results; import the benchmark_report.json of its run")
        raise file.unreadable("no report of optimum-benchmark: no sections of latency, throughput, memory or energy")
    config = _config(file)
    scenario = part_of(config, "scenario").get("name", "inference")
    if scenario not in ("inference", "training"):
        raise file.unreadable(f"of scenario {scenario!r}; only inference and training can be imported")
    mode = "training" if "train" in sections else "inference"
    try:
        cell, origin = described(file, config, options, mode, _batch_of(sections))
        series = _series(file, into, sections, config, cell)
        memory, energy = _memory(sections, cell), _energy(sections, cell)
        record = origin.record(
            cell,
            series,
            phases=Phases(load_s=_one_off(sections, LOAD), first_run_s=_one_off(sections, FIRST)),
            memory=memory,
            energy=energy,
            processes=cell.platform.world_size,
            threads=cell.platform.threads,
        )
    except (BadRow, ValidationError) as error:
        into.skip(file.name, None, explained(error))
        return
    into.add(record, origin.environment, file.name)


def _config(file: File) -> dict[str, Any]:
    """The run's configuration: in the file, or beside it; empty if there is none."""
    if isinstance(inside := file.data.get("config"), dict):
        return inside
    path = file.path.with_name(CONFIG_NAME)
    beside = File(path, file.name.removesuffix(file.path.name) + CONFIG_NAME)
    if not path.exists():
        return {}
    if not _is_config(beside.data):
        raise beside.unreadable("no configuration of optimum-benchmark: no backend, scenario and launcher")
    config: dict[str, Any] = beside.data
    return config


def _seconds(sections: dict[str, Any], name: str) -> list[float]:
    """Raw times of a section, empty if it has none; raises :class:`BadRow` for times that make no sense."""
    latency = part_of(sections, name).get("latency")
    if latency is None:
        return []
    if not isinstance(latency, dict) or not isinstance(latency.get("values"), list) or not latency["values"]:
        raise BadRow(f"{name}: latency without values")
    if latency.get("unit", "s") != "s":
        raise BadRow(f"{name}: latency in {latency['unit']!r}, not in seconds")
    values = [positive(value, f"{name}: latency {index}") for index, value in enumerate(latency["values"])]
    if latency.get("count", len(values)) != len(values):
        raise BadRow(f"{name}: {len(values)} latencies, but a count of {latency['count']}")
    return values


def _throughput(sections: dict[str, Any], name: str) -> float | None:
    found = part_of(part_of(sections, name), "throughput")
    return positive(found.get("value"), f"{name}: throughput") if found else None


def _volume(sections: dict[str, Any], name: str) -> int | None:
    """Items that one call of a section processed, from its throughput; None if it has none."""
    seconds, throughput = _seconds(sections, name), _throughput(sections, name)
    if not seconds or throughput is None:
        return None
    volume = throughput * statistics.fmean(seconds)
    return round(volume) if abs(volume - round(volume)) < 1e-3 * volume else None


def _batch_of(sections: dict[str, Any]) -> int | None:
    volumes = (_volume(sections, name) for name in COUNTS_SAMPLES)
    return next((volume for volume in volumes if volume), None)


def _series(file: File, into: Import, sections: dict[str, Any], config: dict[str, Any], cell: Cell) -> list[Series]:
    """Every series that the report tells, primary first."""
    work, world = cell.workload, cell.platform.world_size
    found = []
    for section, name in SERIES.items():
        seconds = _seconds(sections, section)
        if not seconds:
            continue
        process = [index * world // len(seconds) for index in range(len(seconds))] if len(seconds) >= world else None
        items, unit, calls = float(work.batch_size), "samples", 1
        if section in COUNTS_SAMPLES:
            _agree(sections, section, seconds, work.batch_size)
        if section == "prefill" and work.seq_len:
            items, unit = items * work.seq_len, "tokens"
        if section == "call":
            items = float(_volume(sections, "call") or work.batch_size)
        if section == "decode":
            beams = whole(_generation(config).get("num_beams") or 1, "num_beams")
            tokens = _tokens(sections, config, work.batch_size * beams)
            if tokens is None:
                into.skip(
                    file.name, None, "decode: neither throughput nor max_new_tokens tells how many tokens it took"
                )
                continue
            items, unit, calls = items * beams, "tokens", tokens
            seconds = [value / tokens for value in seconds]
        found.append(sampled(name, seconds, items=items, unit=unit, process=process, calls_per_sample=calls))
    if not found:
        raise BadRow("no latency of forward, prefill, decode, generate, call or train; was it tracked?")
    return found


def _agree(sections: dict[str, Any], name: str, seconds: list[float], batch: int) -> None:
    """Raises :class:`BadRow` if a section's throughput is not its batch over its mean latency."""
    throughput, expected = _throughput(sections, name), batch / statistics.fmean(seconds)
    if throughput is not None and abs(throughput - expected) > TOLERANCE * expected:
        raise BadRow(
            f"{name}: throughput is {throughput:g}, but batch size / mean latency is {expected:g}: they contradict each other"
        )


def _generation(config: dict[str, Any]) -> dict[str, Any]:
    return part_of(part_of(config, "scenario"), "generate_kwargs")


def _tokens(sections: dict[str, Any], config: dict[str, Any], per_step: int) -> int | None:
    """Steps of one decode: new tokens but the first, which the prefill gives."""
    if told := _generation(config).get("max_new_tokens"):
        return whole(told, "max_new_tokens") - 1 or None
    volume = _volume(sections, "decode")
    return volume // per_step if volume and volume % per_step == 0 else None


def _one_off(sections: dict[str, Any], names: tuple[str, ...]) -> float | None:
    """Median of a phase that is passed once a process; None if it is not told."""
    return next((statistics.median(values) for name in names if (values := _seconds(sections, name))), None)


def _memory(sections: dict[str, Any], cell: Cell) -> Memory:
    """The highest peak of the phases after loading: what torch allocated, else of the process on the device or in memory."""
    tracked = [memory for name in SERIES if (memory := part_of(part_of(sections, name), "memory"))]
    if not tracked:
        return NO_MEMORY
    if any(memory.get("unit") != "MB" for memory in tracked):
        raise BadRow(f"memory in {tracked[0].get('unit')!r}, not in MB")
    kind = cell.platform.device.partition(":")[0]
    # Of AMD's GPUs, 0.6.0 adds up the process's figures over time, and takes the size of the memory for what is used.
    methods = {"cpu": ("max_ram",), "rocm": ("max_allocated",)}.get(kind, ("max_allocated", "max_process_vram"))
    for method in methods:
        peaks = [positive(memory[method], method) for memory in tracked if memory.get(method)]
        if peaks:
            return Memory(peak_bytes=round(max(peaks) * BYTES_PER_MB), method=f"{method} of optimum-benchmark")
    return Memory(reason=f"the report has no {' or '.join(methods)}")


def _energy(sections: dict[str, Any], cell: Cell) -> Energy:
    """Joules of one call of the primary series."""
    name = next((name for name in ("forward", "prefill", "call", "overall") if sections.get(name)), "")
    efficiency = part_of(part_of(sections, name), "efficiency")
    if not efficiency:
        return NO_ENERGY
    if cell.platform.world_size > 1:
        return Energy(reason="optimum-benchmark averages the energy of several processes in ways that differ")
    if not efficiency.get("value"):
        return Energy(reason="the report's energy is zero: the calls were too short to be metered")
    items = _volume(sections, "call") if name == "call" else None
    per_kwh = positive(efficiency["value"], f"{name}: efficiency")
    return Energy(joules_per_call=(items or cell.workload.batch_size) / per_kwh * JOULES_PER_KWH, method=ENERGY_METHOD)
