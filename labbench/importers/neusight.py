"""NeuSight's end-to-end table: whole language models measured on GPUs of several generations.

A row of ``end_to_end.csv`` is device, model, mode (``inf``, ``train``), sequence length, batch, variant and three latencies in
milliseconds. Neither the table nor its paper (Lee et al., ASPLOS 2025) says in a way a program could check which statistic they
are; they are stored as means. The table names no precision either: NeuSight compares with single-precision datasheet figures, so
``fp32`` is assumed. The batch is that of all GPUs together: ``dp4`` of batch 4 takes as long as one GPU with batch 1.
"""

from __future__ import annotations

import re

from pydantic import ValidationError

from labbench.cells import Cell, Platform, Workload
from labbench.importers.base import BadRow, File, Import, Origin, environment, explained, milliseconds, number, whole
from labbench.records import Series

LICENCE = "MIT"
COLUMNS = ("device", "model", "mode", "seq", "batch", "variant", "e2e_latency", "fw_latency", "bwall_latency")
MODES = {"inf": ("inference", "forward"), "train": ("training", "step")}
VENDORS = {"NVIDIA": "cuda:0", "Tesla": "cuda:0", "AMD": "rocm:0"}  # how a device's name starts -> device
PARALLEL = re.compile(r"(?:dp|tp|pp)(\d+)(?:_\d+)?")  # data, tensor or pipeline parallel on so many GPUs
METRICS = {"fw_latency": "forward_s", "bwall_latency": "backward_s"}


def recognises(file: File) -> bool:
    """By its columns."""
    return file.path.name.endswith(".csv") and {"device", "model", "mode", "e2e_latency"}.issubset(file.header)


def read(file: File, into: Import) -> None:
    """Add the rows of a table; those that make no sense are noted.

    Raises
    ------
    Unreadable
        If a column is missing.
    """
    origins: dict[str, Origin] = {}
    for line, row in file.table(COLUMNS, into):
        try:
            device = row["device"].strip()
            cell, series, metrics = _row(row, device)
            if device not in origins:
                origins[device] = _origin(file, device, cell.platform.device)
            record = origins[device].record(cell, [series], metrics=metrics)
        except (BadRow, ValidationError) as error:
            into.skip(file.name, line, explained(error))
            continue
        into.add(record, origins[device].environment, file.name, line)


def _origin(file: File, token: str, device: str) -> Origin:
    device_name = token.replace("_", " ")
    return Origin(
        source=f"NeuSight results: {file.path.name}",
        licence=LICENCE,
        environment=environment("NeuSight", device=device, device_name=device_name, software={}),
        device_name=device_name,
        protocol={"tool": "NeuSight scripts/asplos", "statistic": "mean, precision assumed"},
    )


def _row(row: dict[str, str], device: str) -> tuple[Cell, Series, dict[str, float]]:
    """Cell, series and metrics of a row; raises :class:`BadRow` with the reason if it makes no sense."""
    model, mode = row["model"].strip(), row["mode"].strip()
    if not model:
        raise BadRow("model is missing")
    if mode not in MODES:
        raise BadRow(f"unknown mode {mode!r}; known: {', '.join(MODES)}")
    batch = whole(row["batch"], "batch")
    seconds = milliseconds(row["e2e_latency"], "e2e_latency")
    metrics = {}
    for name, metric in METRICS.items():
        # zero: not timed apart, as in parallel runs; forward alone is the latency itself
        if row[name] and (part := number(row[name], name)) and mode == "train":
            metrics[metric] = milliseconds(part, name)
    workload = Workload(model=model, mode=MODES[mode][0], batch_size=batch, seq_len=whole(row["seq"], "seq"))
    series = Series(
        name=MODES[mode][1],
        items_per_call=batch,
        unit="samples",
        n_samples=0,
        mean_s=seconds,
        throughput=batch / seconds,
    )
    return Cell(workload=workload, platform=_platform(device, row["variant"].strip())), series, metrics


def _platform(device: str, variant: str) -> Platform:
    """The platform of a row; raises :class:`BadRow` for a device or variant that is not known."""
    kind = next((kind for start, kind in VENDORS.items() if device.startswith(start)), None)
    if kind is None:
        raise BadRow(f"cannot tell whose device {device!r} is; known are names that start with {', '.join(VENDORS)}")
    if variant in ("", "fusion"):
        return Platform(device=kind, runtime="compile" if variant else "eager")
    parallel = PARALLEL.fullmatch(variant)
    if parallel is None or int(parallel[1]) < 1:
        raise BadRow(f"unknown variant {variant!r}; known: none, fusion, dpN, tpN, ppN_M")
    return Platform(device=kind, runtime=f"eager-{variant}", world_size=int(parallel[1]))
