"""Made records for the benchmarks of the store: the same values for every side, and a numbered sequence to check against.

:func:`chunks` gives any number of records of a believable study as columns: 20 models in 600 cells on three machines, 30 columns,
20 raw samples each with lognormal noise. :func:`records` makes labbench's records of them, :func:`rows` plain tuples.
:func:`numbered` gives single small records of every sort whose content follows from their number alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import numpy as np

from labbench.cells import Cell
from labbench.records import Environment, Estimate, Memory, Noise, Phases, Record, Samples, Series

COLUMNS = (
    "record_id", "campaign_id", "model", "task", "mode", "batch_size", "precision", "seq_len", "device", "runtime",
    "threads", "device_name", "status", "provenance", "started_at", "duration_s", "machine_id", "environment_id",
    "protocol_id", "prepare_s", "peak_memory_bytes", "memory_increase_bytes", "noise", "series", "latency_s",
    "latency_ci_low_s", "latency_ci_high_s", "latency_p99_s", "throughput", "n_samples",
)  # fmt: skip
INTEGERS = ("batch_size", "seq_len", "threads", "peak_memory_bytes", "memory_increase_bytes", "n_samples")
FLOATS = (
    "duration_s", "prepare_s", "latency_s", "latency_ci_low_s", "latency_ci_high_s", "latency_p99_s", "throughput",
)  # fmt: skip
TEXTS = tuple(name for name in COLUMNS if name not in (*INTEGERS, *FLOATS, "started_at"))
N_SAMPLES = 20
CHUNK = 10_000
CELLS = 600
MACHINES = ("4f1c9a0be2d73586", "a90d3be47c15f862", "07e6c2d1b8f4a953")
DEVICES = {"cpu": ("AMD EPYC 9554", "Intel Xeon 8488C", "Apple M3 Max"), "cuda:0": ("NVIDIA H100",) * 3}
PROTOCOLS = ("1d0b6e52c7a94f38", "b6e2f9d40c8137a5", "93c5a7e1f02d846b")
START = datetime(2026, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


@cache
def cells() -> tuple[Cell, ...]:
    """Cells of a believable study: text models have three lengths, the others none."""
    tasks = ("fill-mask", "text-generation", "image-classification", "zero-shot", "automatic-speech-recognition")
    found = []
    for i in range(20):
        task = tasks[i % len(tasks)]
        axes = itertools.product(
            (32, 128, 512) if i % len(tasks) < 2 else (None,),
            (1, 2, 4, 8, 16, 32),
            ("fp32", "bf16", "int8"),
            ("inference", "training"),
            ("cpu", "cuda:0"),
            ("eager", "compile", "onnxruntime", "openvino"),
        )
        for seq_len, batch_size, precision, mode, device, runtime in axes:
            work = {"model": f"family{i:02d}-base", "task": task, "mode": mode, "seq_len": seq_len}
            found.append(
                {**work, "batch_size": batch_size, "precision": precision, "device": device, "runtime": runtime}
            )
    picked = np.random.default_rng(0).choice(len(found), CELLS, replace=False)
    return tuple(Cell.of(**found[i]) for i in picked)


@dataclass(frozen=True)
class Chunk:
    """Some records as columns.

    Attributes
    ----------
    columns : dict
        Name to a list of plain values (``None``: null); ``started_at`` is microseconds since 1970, UTC.
    cell : ndarray
        Index into :func:`cells`.
    seconds, process, round : ndarray
        Samples, one row a record.
    """

    columns: dict[str, list[Any]]
    cell: np.ndarray
    seconds: np.ndarray
    process: np.ndarray
    round: np.ndarray

    def __len__(self) -> int:
        return len(self.cell)


def chunks(n: int, first: int = 0, seed: int = 0) -> Iterator[Chunk]:
    """Records number ``first`` to ``first + n`` of a study, a chunk at a time."""
    for start in range(first, first + n, CHUNK):
        yield _chunk(start, min(CHUNK, first + n - start), np.random.default_rng([seed, start]))


def _chunk(start: int, n: int, rng: np.random.Generator) -> Chunk:
    known = [cell.flat() for cell in cells()]
    which = rng.integers(CELLS, size=n)
    number = np.arange(start, start + n)
    machine = rng.integers(3, size=n)
    flat = [known[i] for i in which]
    columns: dict[str, list[Any]] = {
        name: [fields[name] for fields in flat]
        for name in ("model", "task", "mode", "batch_size", "precision", "seq_len", "device", "runtime")
    }
    seconds, process, rounds = _samples(which, machine, rng)
    ordered = np.sort(seconds, axis=1)
    median = np.median(seconds, axis=1)
    ids = rng.bytes(16 * n).hex()
    memory = rng.integers(10_000, 2_000_000, size=n) * 4096  # whole pages
    verdicts = np.array(["quiet", "noisy", "unstable"], dtype=object)
    began = int((START - datetime(1970, 1, 1, tzinfo=UTC)) / MICROSECOND)
    columns |= {
        "record_id": [ids[32 * i : 32 * i + 32] for i in range(n)],
        "campaign_id": [f"campaign-{i // 500:06d}" for i in number],
        "threads": (2 ** rng.integers(0, 5, size=n)).tolist(),
        "device_name": [DEVICES[fields["device"]][i] for fields, i in zip(flat, machine, strict=True)],
        "status": ["ok"] * n,
        "provenance": ["measured"] * n,
        "started_at": (began + number * 37_000_000 + rng.integers(30_000_000, size=n)).tolist(),
        "duration_s": rng.lognormal(2.5, 0.5, size=n).tolist(),
        "machine_id": [MACHINES[i] for i in machine],
        "environment_id": [
            f"{MACHINES[m][:8]}{i // 5000:08x}" for m, i in zip(machine, number, strict=True)
        ],  # one a change of software
        "protocol_id": [PROTOCOLS[i] for i in rng.choice(3, p=(0.8, 0.15, 0.05), size=n)],
        "prepare_s": rng.lognormal(0, 1, size=n).tolist(),
        "peak_memory_bytes": memory.tolist(),
        "memory_increase_bytes": (memory // 4096 // 2 * 4096).tolist(),
        "noise": verdicts[rng.choice(3, p=(0.9, 0.08, 0.02), size=n)].tolist(),
        "series": ["step" if fields["mode"] == "training" else "forward" for fields in flat],
        "latency_s": median.tolist(),
        "latency_ci_low_s": ordered[:, 5].tolist(),  # of 20, the 6th and 15th smallest hold the median at 95 %
        "latency_ci_high_s": ordered[:, 14].tolist(),
        "latency_p99_s": np.quantile(seconds, 0.99, axis=1).tolist(),
        "throughput": (np.array(columns["batch_size"]) / median).tolist(),
        "n_samples": [N_SAMPLES] * n,
    }
    return Chunk({name: columns[name] for name in COLUMNS}, which, seconds, process, rounds)


def _samples(
    which: np.ndarray, machine: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Seconds, process and round: three processes one after another, one to three samples a round, a few outliers."""
    shape = (len(which), N_SAMPLES)
    base = np.random.default_rng(1).lognormal(-5, 1.5, size=CELLS)[which] * np.array([1.0, 1.3, 0.7])[machine]
    seconds = base[:, None] * rng.lognormal(0, 0.03, size=shape)
    seconds *= np.where(rng.random(shape) < 0.01, 1.5, 1.0)
    ends = np.sort(np.stack([rng.integers(5, 9, size=len(which)), rng.integers(12, 16, size=len(which))]), axis=0)
    place = np.arange(N_SAMPLES)
    process = (place >= ends[0][:, None]).astype(np.uint16) + (place >= ends[1][:, None])
    begins = np.stack([np.zeros(len(which), dtype=int), *ends], axis=1)
    within = place - np.take_along_axis(begins, process.astype(int), axis=1)
    rounds = within // rng.integers(1, 4, size=(len(which), 1))
    return seconds, process.astype(np.uint16), rounds.astype(np.uint32)


def records(chunk: Chunk, samples: bool = True) -> Iterator[Record]:
    """The chunk as labbench's records (without their raw samples, if so asked).

    They are copies of one validated record with other values put in, which skips validation: a test of one proves them equal to
    validated ones (:func:`check`).
    """
    known = cells()
    estimate = Estimate(value=1.0, ci_low=1.0, ci_high=1.0)
    plain, phases, memory, none = Estimate(value=1.0), Phases(prepare_s=1.0), Memory(), Samples()
    verdicts = {verdict: Noise(verdict=verdict) for verdict in ("quiet", "noisy", "unstable")}
    series = Series(
        name="forward",
        items_per_call=1.0,
        unit="samples",
        n_samples=1,
        median_s=estimate,
        p99_s=plain,
        throughput=1.0,
        samples=none,
    )
    record = Record(cell=known[0], status="ok", noise=verdicts["quiet"], phases=phases, memory=memory, series=[series])
    raw = zip(chunk.seconds.tolist(), chunk.process.tolist(), chunk.round.tolist(), strict=True)
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    for i, (row, taken) in enumerate(zip(zip(*chunk.columns.values(), strict=True), raw, strict=True)):
        value = dict(zip(COLUMNS, row, strict=True))
        low, high = value["latency_ci_low_s"], value["latency_ci_high_s"]
        measured = {
            "name": value["series"],
            "items_per_call": float(value["batch_size"]),
            "n_samples": value["n_samples"],
            "median_s": estimate.model_copy(update={"value": value["latency_s"], "ci_low": low, "ci_high": high}),
            "p99_s": plain.model_copy(update={"value": value["latency_p99_s"]}),
            "throughput": value["throughput"],
            "samples": none.model_copy(update=dict(zip(("seconds", "process", "round"), taken, strict=True)))
            if samples
            else none,
        }
        peak, increase = value["peak_memory_bytes"], value["memory_increase_bytes"]
        put = {name: value[name] for name in ("record_id", "campaign_id", "threads", "device_name", "duration_s")}
        put |= {name: value[name] for name in ("machine_id", "environment_id", "protocol_id")}
        put |= {
            "cell": known[chunk.cell[i]],
            "started_at": epoch + timedelta(microseconds=value["started_at"]),
            "phases": phases.model_copy(update={"prepare_s": value["prepare_s"]}),
            "memory": memory.model_copy(update={"peak_bytes": peak, "increase_bytes": increase}),
            "noise": verdicts[value["noise"]],
            "series": [series.model_copy(update=measured)],
        }
        yield record.model_copy(update=put)


def check() -> None:
    """Made records are equal to validated ones."""
    for record in records(next(chunks(3))):
        assert Record.model_validate(record.model_dump()) == record


def rows(chunk: Chunk) -> list[tuple[Any, ...]]:
    """The chunk as tuples: the values of :data:`COLUMNS`, then the bytes of seconds, process and round."""
    blobs = [[row.tobytes() for row in array] for array in (chunk.seconds, chunk.process, chunk.round)]
    return list(zip(*chunk.columns.values(), *blobs, strict=True))


# ------------------------------------------------------------------ a numbered sequence

ENVIRONMENT = Environment(machine_id="m1", hostname="host", machine={"cores": 2}, software={"torch": "2.13.0"})


def record_id(number: int) -> str:
    """Id of a numbered record; scattered, as real ones are."""
    return f"{(number * 0x9E3779B97F4A7C15) % 2**64:016x}{number:016x}"


def number_of(identity: str) -> int:
    """Undo :func:`record_id`."""
    return int(identity[16:], 16)


@cache
def numbered(number: int) -> Record:
    """A small record; every seventh failed and has no series, every fifth has two."""
    failed = number % 7 == 3
    seconds = [1e-3 * (1 + number + i / 7) for i in range(3 + number % 5)]
    series = [
        Series(
            name=name,
            calls_per_sample=1 + number % 3,
            items_per_call=1,
            unit="samples",
            n_samples=len(seconds),
            median_s=Estimate(value=seconds[1], ci_low=seconds[0], ci_high=seconds[2]),
            mean_s=seconds[1],
            throughput=1 / seconds[1],
            warmed=number % 2 == 0,
            samples=Samples(seconds=seconds, process=[0] * len(seconds), round=list(range(len(seconds)))),
        )
        for name in (("prefill", "decode") if number % 5 == 0 else ("forward",))
    ]
    return Record(
        record_id=record_id(number),
        campaign_id=f"campaign-{number // 100}",
        cell=Cell.of(model=f"model-{number % 20}", batch_size=1 + number % 4, seq_len=128),
        status="failed" if failed else "ok",
        reason=f"no reason\0 for {number}: é\n\\" if failed else None,
        started_at=START + number * timedelta(seconds=1, microseconds=1),
        environment_id=ENVIRONMENT.id,
        machine_id=ENVIRONMENT.machine_id,
        protocol={"max_time_s": 1.5 + number % 3},
        threads=2,
        metrics={"joules_total_j": number / 3} if number % 4 == 0 else {},
        series=[] if failed else series,
    )
