"""timm's benchmark results: one CSV a run of its ``benchmark.py``, one row a model.

The file's name says what the rows do not: ``benchmark-infer-amp-nchw-pt240-cu124-rtx3090.csv`` is mode, precision, memory
layout, PyTorch and CUDA version (or ``cpu``), device, and ``-dynamo`` for ``torch.compile``. Layout, and ``_bf16`` of the precision
``amp_bf16``, change the speed and so go into the runtime: ``eager-nhwc``.

``step_time`` is the mean milliseconds of a batch, over steps timed one by one; ``samples_per_sec`` comes from the wall time of
all steps together, rounded to two decimals, and is kept as the throughput. A model's pretrained tag (what follows the first
dot) does not change its speed and is dropped. The batch is the one that fitted: timm lowers it when memory runs out.
"""

from __future__ import annotations

import re
from typing import Any

from pydantic import ValidationError

from labbench.cells import Cell, Platform, Workload
from labbench.importers.base import (
    BadRow,
    File,
    Import,
    Origin,
    environment,
    explained,
    milliseconds,
    number,
    positive,
    whole,
)
from labbench.records import Series

LICENCE = "Apache-2.0"
NAME = re.compile(
    r"benchmark-(?P<mode>infer|train)-(?P<precision>[a-z0-9_]+)-(?P<layout>nchw|nhwc)-pt(?P<torch>\d{3,4})"
    r"-(?:(?P<cpu>cpu)|cu(?P<cuda>\d{3}))-(?P<device>[^-]+)(?P<dynamo>-dynamo)?\.csv"
)
EXAMPLE = "benchmark-infer-amp-nchw-pt240-cu124-rtx3090.csv"
# precision in the name -> precision of the workload, suffix of the runtime
PRECISIONS = {
    "amp": ("amp", ""),
    "amp_bf16": ("amp", "-bf16"),
    "fp32": ("fp32", ""),
    "bf16": ("bf16", ""),
    "fp16": ("fp16", ""),
}
MODES = {"infer": ("inference", "forward"), "train": ("training", "step")}
COLUMNS = ("model", "samples_per_sec", "step_time", "batch_size", "img_size")
TELLING = ("model", "samples_per_sec", "step_time", "batch_size")  # columns that no other format has together
METRICS = {
    "gmacs": ("macs_per_sample", 1e9),
    "macts": ("activations_per_sample", 1e6),
    "param_count": ("parameters", 1e6),
}

TOLERANCE = (
    0.05  # by which throughput and step time may disagree: they are timed differently, by 3 % at most in practice
)
ROUNDING = 0.005  # timm rounds samples per second to two decimals: half of a step, of 0.05/s a tenth


def recognises(file: File) -> bool:
    """By name, or by columns."""
    if not file.path.name.endswith(".csv"):
        return False
    columns = {_plain(name) for name in file.header}
    return NAME.fullmatch(file.path.name) is not None or columns.issuperset(TELLING)


def read(file: File, into: Import) -> None:
    """Add the rows of a file; those that make no sense are noted.

    Raises
    ------
    Unreadable
        If the name does not tell the configuration, or a column is missing.
    """
    parts = NAME.fullmatch(file.path.name)
    mode = parts["mode"] if parts else None
    rows = file.table(COLUMNS, into, rename=lambda column: _plain(column, mode))
    first = next(rows, None)  # so that a file of other columns is refused for those, whatever its name
    if parts is None or mode is None:
        raise file.unreadable(
            f"the name does not tell precision, layout, versions and device; rename it like {EXAMPLE}"
        )
    if parts["precision"] not in PRECISIONS:
        raise file.unreadable(f"unknown precision {parts['precision']!r} in the name; known: {', '.join(PRECISIONS)}")
    if first is None:
        return
    platform, origin = _platform(parts), _origin(file, parts)
    workload = {
        "task": "image-classification",
        "mode": MODES[mode][0],
        "precision": PRECISIONS[parts["precision"]][0],
    }
    for line, row in (first, *rows):
        try:
            cell, series, metrics = _row(row, workload, platform, MODES[mode][1])
            record = origin.record(cell, [series], metrics=metrics)
        except (BadRow, ValidationError) as error:
            into.skip(file.name, line, explained(error))
            continue
        into.add(record, origin.environment, file.name, line)


def _plain(column: str, mode: str | None = None) -> str:
    """A column without the prefix of its mode (of either, if None); a file may hold both modes."""
    prefixes = MODES if mode is None else (mode,)
    return next((column.removeprefix(f"{p}_") for p in prefixes if column.startswith(f"{p}_")), column)


def _platform(parts: re.Match[str]) -> Platform:
    runtime = "compile" if parts["dynamo"] else "eager"
    layout = "-nhwc" if parts["layout"] == "nhwc" else ""
    return Platform(
        device="cpu" if parts["cpu"] else "cuda:0", runtime=runtime + PRECISIONS[parts["precision"]][1] + layout
    )


def _origin(file: File, parts: re.Match[str]) -> Origin:
    software = {"torch": _torch_version(parts["torch"])}
    if parts["cuda"]:
        software["cuda"] = f"{parts['cuda'][:2]}.{parts['cuda'][2:]}"
    device_name = _device_name(parts["device"])
    return Origin(
        source=f"timm results: {file.path.name}",
        licence=LICENCE,
        environment=environment(
            "timm", device="cpu" if parts["cpu"] else "cuda:0", device_name=device_name, software=software
        ),
        device_name=device_name,
        protocol={
            "tool": "timm benchmark.py",
            "layout": parts["layout"],
            "precision": parts["precision"],
            "statistic": "mean over steps",
        },
    )


def _torch_version(digits: str) -> str:
    """``240`` is 2.4.0; of version 1 the file names have no patch level: ``113`` is 1.13; four digits are 2.10.1."""
    if digits[0] == "1":
        return f"1.{digits[1:3]}" + (f".{digits[3]}" if len(digits) > 3 else "")
    return f"{digits[0]}.{digits[1:-1]}.{digits[-1]}"


def _device_name(token: str) -> str:
    """``rtx3090`` and ``3090`` are RTX 3090, ``i9_10940x`` is Core i9-10940X; other tokens stay as they are."""
    if match := re.fullmatch(r"(?:rtx(\d{4})|([2-5]0[5-9]0))(ti)?", token):
        return f"RTX {match[1] or match[2]}" + (" Ti" if match[3] else "")
    if match := re.fullmatch(r"(i[3579])_(\w+)", token):
        return f"Core {match[1]}-{match[2].upper()}"
    return token


def _row(
    row: dict[str, str], workload: dict[str, Any], platform: Platform, series: str
) -> tuple[Cell, Series, dict[str, float]]:
    """Cell, series and metrics of a row; raises :class:`BadRow` with the reason if it makes no sense."""
    model = row["model"].strip().split(".", 1)[0]
    if not model:
        raise BadRow("model is missing")
    batch = whole(row["batch_size"], "batch_size")
    seconds = milliseconds(row["step_time"], "step_time")
    throughput = positive(row["samples_per_sec"], "samples_per_sec")
    image = whole(row["img_size"], "img_size")
    expected = batch / seconds
    if abs(expected - throughput) > TOLERANCE * throughput + ROUNDING:
        raise BadRow(
            f"samples_per_sec is {throughput:g}, but batch_size / step_time is {expected:.6g}: they contradict each other"
        )
    metrics = {metric: _amount(row[name], name, unit) for name, (metric, unit) in METRICS.items() if row.get(name)}
    cell = Cell(workload=Workload(model=model, batch_size=batch, image_size=image, **workload), platform=platform)
    return (
        cell,
        Series(
            name=series,
            items_per_call=batch,
            unit="samples",
            n_samples=0,
            mean_s=seconds,
            throughput=throughput,
        ),
        metrics,
    )


def _amount(value: str, name: str, unit: float) -> float:
    """A finite number of ``unit``, at least zero: small models have 0.00 Gmacs."""
    amount = number(number(value, name) * unit, name)
    if amount < 0:
        raise BadRow(f"{name} is {value}, below zero")
    return amount
