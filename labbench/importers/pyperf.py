"""pyperf's JSON: benchmarks of Python code, each measured by several processes (format 1.0, and 6 of perf 0.9.6).

A suite holds benchmarks, a benchmark runs, a run is one process with its values: seconds per loop iteration, each the mean of
``loops`` times ``inner_loops`` iterations. Metadata stands at the level at which it is common. A run without values calibrated and
is no sample. Dates are local times without a zone, as pyperf writes them, and are taken for UTC. The workload's precision
means nothing here and has its default.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from labbench.cells import Cell
from labbench.importers.base import (
    NO_MEMORY,
    BadRow,
    File,
    Import,
    Origin,
    environment,
    explained,
    number,
    positive,
    whole,
)
from labbench.importers.samples import sampled
from labbench.records import UNKNOWN_HOST, Memory

VERSIONS = ("1.0", 6)
SAME_IN_ALL = ("hostname", "cpu_model_name", "python_version", "python_implementation", "unit")  # as pyperf demands
MEMORY = ("command_max_rss", "mem_max_rss")  # bytes; of a benchmarked command, else of the worker


def recognises(file: File) -> bool:
    """By content."""
    data = file.data if file.is_json else None
    if not isinstance(data, dict) or "version" not in data or not isinstance(data.get("benchmarks"), list):
        return False
    return all(isinstance(benchmark, dict) and "runs" in benchmark for benchmark in data["benchmarks"])


def read(file: File, into: Import) -> None:
    """Add every benchmark of a suite as a record; one that is no time, or makes no sense, is noted.

    Raises
    ------
    Unreadable
        If the file is no suite, or of a version that is not known.
    """
    suite = file.data
    if not recognises(file):
        raise file.unreadable("no pyperf suite: no version and list of benchmarks with runs")
    if suite["version"] not in VERSIONS:
        raise file.unreadable(
            f"format version {suite['version']!r} of pyperf is not known; write it anew with `pyperf convert`"
        )
    if not suite["benchmarks"]:
        raise file.unreadable("a pyperf suite without benchmarks")
    for index, benchmark in enumerate(suite["benchmarks"]):
        place = f"benchmark {index}"
        try:
            common = _metadata(suite) | _metadata(benchmark)
            runs = [(run, common | _metadata(run)) for run in _list(benchmark, "runs")]
            if not runs:
                raise BadRow("no runs")
            place = f"benchmark {runs[0][1].get('name', index)!r}"
            _add(file, into, runs)
        except (BadRow, ValidationError) as error:
            into.skip(file.name, None, f"{place}: {explained(error)}")


def _add(file: File, into: Import, runs: list[tuple[dict[str, Any], dict[str, Any]]]) -> None:
    """Add a benchmark, given its runs, each with all metadata that holds for it."""
    every = [metadata for _, metadata in runs]
    first = every[0]
    for key in SAME_IN_ALL:
        if any(metadata.get(key) != first.get(key) for metadata in every):
            raise BadRow(f"its runs differ in {key}")
    if (unit := first.get("unit", "second")) != "second":
        raise BadRow(f"its values are in {unit}, not seconds")
    if not (name := first.get("name")):
        raise BadRow("name is missing")
    timed = [(index, run, metadata) for index, (run, metadata) in enumerate(runs) if _list(run, "values")]
    if not timed:
        raise BadRow("no run has values: it was only calibrated")
    seconds = [
        positive(value, f"run {index}: value {k}")
        for index, run, _ in timed
        for k, value in enumerate(_list(run, "values"))
    ]
    process = [rank for rank, (_, run, _) in enumerate(timed) for _ in run["values"]]
    calls = {_calls(metadata) for _, _, metadata in timed}
    series = sampled(
        "forward",
        seconds,
        items=1,
        unit="calls",
        process=process,
        calls_per_sample=calls.pop() if len(calls) == 1 else None,
        warmup_calls=sum(_warmup_calls(run, metadata) for _, run, metadata in timed),
    )
    origin = _origin(file, first)
    cell = Cell.of(
        model=str(name), task="python", device="cpu", runtime=str(first.get("python_implementation", "cpython"))
    )
    durations = [metadata.get("duration") for metadata in every]
    record = origin.record(
        cell,
        [series],
        started_at=_started_at(every),
        duration_s=None if None in durations else sum(number(one, "duration") for one in durations),
        processes=len(timed),
        memory=_memory([metadata for _, _, metadata in timed]),
    )
    into.add(record, origin.environment, file.name)


def _metadata(holder: Any) -> dict[str, Any]:
    found = holder.get("metadata") if isinstance(holder, dict) else None
    if found is not None and not isinstance(found, dict):
        raise BadRow("metadata is no object")
    return found or {}


def _list(holder: Any, name: str) -> list[Any]:
    found = holder.get(name, []) if isinstance(holder, dict) else None
    if not isinstance(found, list):
        raise BadRow(f"{name} is no list")
    return found


def _calls(metadata: dict[str, Any]) -> int | None:
    """Iterations in a value; None where the number of loops is not told."""
    if "loops" not in metadata:
        return None
    return whole(metadata["loops"], "loops") * whole(metadata.get("inner_loops", 1), "inner_loops")


def _warmup_calls(run: dict[str, Any], metadata: dict[str, Any]) -> int:
    inner = whole(metadata.get("inner_loops", 1), "inner_loops")
    return sum(
        whole(pair[0], "warmup loops") * inner for pair in _list(run, "warmups") if isinstance(pair, list) and pair
    )


def _started_at(every: Sequence[dict[str, Any]]) -> datetime | None:
    """The earliest run's date, calibration included; None if none of them tells it."""
    try:
        dates = [datetime.fromisoformat(str(metadata["date"])) for metadata in every if metadata.get("date")]
    except ValueError as error:
        raise BadRow(f"date: {error}") from None
    return min((date if date.tzinfo else date.replace(tzinfo=UTC) for date in dates), default=None)


def _memory(every: Sequence[dict[str, Any]]) -> Memory:
    for key in MEMORY:
        if peaks := [whole(metadata[key], key) for metadata in every if metadata.get(key)]:
            return Memory(peak_bytes=max(peaks), method=f"{key} of pyperf, while timing")
    return NO_MEMORY


def _origin(file: File, metadata: dict[str, Any]) -> Origin:
    device_name = metadata.get("cpu_model_name") or metadata.get("cpu_machine")
    version = str(metadata.get("python_version", ""))
    software = {}
    if match := re.search(
        r"(?:^|Python )(\d[^ )]*)", version
    ):  # "3.12.1 (64-bit)", "PyPy 7.3.13 (Python 3.9.18) (64-bit)"
        software["python"] = match[1]
    if match := re.match(r"PyPy (\S+)", version):
        software["pypy"] = match[1]
    if "platform" in metadata:
        software["system"] = str(metadata["platform"])
    machine = {"system": str(metadata["platform"]).split("-")[0]} if "platform" in metadata else {}
    return Origin(
        source=f"pyperf results: {file.path.name}",
        licence=None,
        environment=environment(
            "pyperf",
            device="cpu",
            device_name=device_name,
            software=software,
            hostname=str(metadata.get("hostname") or UNKNOWN_HOST),
            **machine,
        ),
        device_name=device_name,
        protocol={"tool": "pyperf", "version": str(metadata.get("perf_version", "unknown"))},
    )
