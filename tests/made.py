"""Made records for tests of what comes after the store: a law of known coefficients stands in for hardware."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from labbench.cells import Cell
from labbench.records import (
    Environment,
    Estimate,
    Footprint,
    Memory,
    Noise,
    OperatorClass,
    Phases,
    Record,
    Samples,
    Series,
)
from labbench.store import hdf5
from labbench.store.columns import canonical_json
from labbench.store.frame import frame
from labbench.store.table import Coded, Contents

SAMPLES = 3  # of a series
PEAK, BANDWIDTH, DISPATCH_S = 1e11, 1e10, 5e-6
CEILINGS = {"gemm_flops": {"fp32": PEAK}, "bandwidth_bytes_s": BANDWIDTH, "dispatch_s": DISPATCH_S}
ENVIRONMENT = Environment(machine_id="m1", hostname="host", machine={"ceilings": {"cpu": CEILINGS}}, software={})
ENVIRONMENTS = {ENVIRONMENT.id: ENVIRONMENT}
# runtime -> coefficients of compute, traffic, dense operators, other operators, and seconds a call
LAWS = {
    "eager": (1.2, 1.0, 4.0, 1.0, 2e-5),
    "onnxruntime": (0.9, 0.6, 1.0, 0.1, 1e-5),
    "compile": (1.0, 0.8, 2.0, 0.1, 3e-5),
}
FAMILIES = ("bert", "t5", "gpt2", "llama", "vit", "resnet", "clip", "clap", "whisper", "detr", "xclip", "mamba")


def footprint(index: int, batch_size: int = 1, extra: dict[str, OperatorClass] | None = None) -> Footprint:
    """Sizes that differ from family to family by a fixed, irregular pattern."""
    size = batch_size * 1e7 * (1 + (index * 7) % 11)
    by_class = {
        "matmul": OperatorClass(flops=size, bytes=size / (5 + index % 4), kernels=10 + 3 * index),
        "elementwise": OperatorClass(flops=size / 50, bytes=size / (3 + index % 5), kernels=30 + (index * 5) % 17),
        **(extra or {}),
    }
    return Footprint(
        flops=sum(part.flops for part in by_class.values()),
        bytes=sum(part.bytes for part in by_class.values()),
        parameters=10**6 * (1 + index % 5),
        parameter_bytes=4 * 10**6 * (1 + index % 5),
        activation_bytes=size / 4,
        kernels=sum(part.kernels for part in by_class.values()),
        by_class=by_class,
    )


def law_seconds(demand: Footprint, runtime: str) -> float:
    """What the made hardware takes."""
    compute, traffic, dense, other, call_s = LAWS[runtime]
    kernels = demand.by_class["matmul"].kernels
    return (
        compute * demand.flops / PEAK
        + traffic * demand.bytes / BANDWIDTH
        + (dense * kernels + other * (demand.kernels - kernels)) * DISPATCH_S
        + call_s
    )


def record(
    model: str = "bert-tiny",
    runtime: str = "eager",
    seconds: float | None = 1e-3,
    *,
    memory: float | None = 4e8,
    demand: Footprint | None = None,
    relative_ci: float = 0.01,
    status: str = "ok",
    reason: str | None = None,
    noise: str = "quiet",
    provenance: str = "measured",
    prepare_s: float | None = 1.0,
    machine_id: str = "m1",
    **cell: Any,
) -> Record:
    """A record with one series (none if the status is not ok); p90 and p99 are 1.1 and 1.3 times the median."""
    series = []
    if status == "ok":
        assert seconds is not None

        def estimate(factor: float) -> Estimate:
            value = seconds * factor
            return Estimate(value=value, ci_low=value * (1 - relative_ci), ci_high=value * (1 + relative_ci))

        series = [
            Series(
                name="forward",
                calls_per_sample=1,
                items_per_call=cell.get("batch_size", 1),
                unit="samples",
                n_samples=SAMPLES,
                median_s=estimate(1.0),
                p90_s=estimate(1.1),
                p99_s=estimate(1.3),
                mean_s=seconds,
                iqr_s=0.0,
                throughput=cell.get("batch_size", 1) / seconds,
                warmup_calls=3,
                warmed=True,
                stop_reason="converged",
                footprint=demand,
                samples=Samples(seconds=[seconds] * SAMPLES, process=[0] * SAMPLES, round=list(range(SAMPLES))),
            )
        ]
    return Record(
        cell=Cell.of(model=model, runtime=runtime, **cell),
        status=status,  # type: ignore[arg-type]
        reason=reason,
        provenance=provenance,  # type: ignore[arg-type]
        environment_id=ENVIRONMENT.id,
        machine_id=machine_id,
        threads=2,
        device_name="made",
        phases=Phases(prepare_s=prepare_s),
        memory=Memory(increase_bytes=None if memory is None else int(memory)),
        noise=Noise(verdict=noise),  # type: ignore[arg-type]
        series=series,
    )


def made_frame(*records: Record) -> pd.DataFrame:
    """The tidy frame of records, without a file."""
    return frame(Contents.of(list(records), {}))


def study(
    families: tuple[str, ...] = FAMILIES,
    runtimes: tuple[str, ...] = tuple(LAWS),
    scatter: float = 0.0,
    apart: float = 0.0,
) -> list[Record]:
    """Every family on every runtime; ``scatter`` multiplies each family's latency by a fixed, alternating factor.

    ``apart`` does the same with a factor that differs from runtime to runtime.
    """
    random = np.random.default_rng(0)
    records = []
    for index, family in enumerate(families):
        demand = footprint(index)
        factor = 1 + scatter * (1 if index % 2 else -1)
        memory = 3e7 + demand.parameter_bytes + 0.5 * demand.activation_bytes
        records += [
            record(
                f"{family}-tiny",
                runtime,
                law_seconds(demand, runtime) * factor * (1 + apart * random.uniform(-1, 1)),
                demand=demand,
                memory=memory,
            )
            for runtime in runtimes
        ]
    return records


def very_many(path: Path, models: int, batches: int, runtimes: tuple[str, ...] = tuple(LAWS)) -> int:
    """A store of models times runtimes times batch sizes, written column by column; how many records it has."""
    several = [record(f"m{i}", name, 1e-3 * (1 + i % 50)) for i in range(models) for name in runtimes]
    few = Contents.of(several, {ENVIRONMENT.id: canonical_json(ENVIRONMENT.model_dump(mode="json"))})
    contents = few.take(np.tile(np.arange(len(several)), batches))
    count, batch = len(contents), np.repeat(np.arange(1, batches + 1), len(several))
    ids = [f"{i:032x}" for i in range(count)]
    values = contents.records.values
    values["record_id"] = np.array([name.encode() for name in ids])
    values["cell_id"] = Coded(np.arange(count, dtype=np.int32), np.array(ids, dtype=object))
    values["cell.workload.batch_size"] = batch
    contents.raw["seconds"] *= np.repeat(np.random.default_rng(0).lognormal(0, 0.02, count), SAMPLES)
    hdf5.write(path, contents)
    return count
