"""``notebooks/config/fleet_config.json``: demands, kinds of devices and prices; the options come from what a store has measured."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from labbench.cells import Frozen, Mode, Precision
from labbench.config import ConfigError, read
from labbench.selection.fleet.problem import Demand, Fleet, FleetObjective, FleetOption, Kind
from labbench.selection.options import options
from labbench.selection.prices import Price
from labbench.selection.requirements import Requirements, SelectionError

if TYPE_CHECKING:
    import pandas as pd

    from labbench.prediction import Predictor

QUARTILES = 1.349  # interquartile range of a normal distribution, in standard deviations
UNKNOWN_SCV = 1.0  # of a call whose spread was not measured: as if exponential, on the safe side
SHAPE = ("batch_size", "seq_len", "image_size", "frames", "audio_s")


class FleetDemand(Demand):
    """A demand, and the measured workload that it is."""

    model: str = Field(min_length=1, description="as in the store")
    mode: Mode = Field("inference", description="inference or training")
    series: str | None = Field(None, description="forward, prefill, decode, step; null: the workload's primary one")
    batch_size: int | None = Field(
        None, ge=1, description="a request is a call of so many items; null: a request is one item, of whatever batch"
    )
    seq_len: int | None = Field(None, ge=1, description="null: whatever was measured")
    image_size: int | None = Field(None, ge=1)
    frames: int | None = Field(None, ge=1)
    audio_s: float | None = Field(None, gt=0)
    runtimes: list[str] | None = Field(None, description="allowed; null: all")
    precisions: list[Precision] | None = Field(None, description="allowed; null: all")


class FleetKind(Frozen):
    """Devices that are the same, as the store knows them."""

    name: str = Field(min_length=1)
    device: str = Field(
        min_length=1, description="a device (cpu, cuda:0), or a device's name or a machine's id as in the store"
    )
    count: int = Field(ge=0)
    memory_bytes: float = Field(gt=0, description="that workloads may fill, of one")
    idle_w: float | None = Field(None, ge=0, description="watts of one that does nothing")
    domains: dict[str, str] = Field(default_factory=dict, description="what it fails with, e.g. zone, vendor, machine")


class FleetConfig(Frozen):
    """What is to be assigned to what."""

    demands: list[FleetDemand] = Field(min_length=1)
    kinds: list[FleetKind] = Field(min_length=1)
    prices: list[Price] = Field(default_factory=list, description="of kinds, by their name or device")
    objective: FleetObjective = Field("devices", description="cost an hour, number of devices, or energy")
    busy: float = Field(0.8, gt=0, le=1, description="share of each device that may be dealt out")
    max_per_hour: float | None = Field(None, gt=0, description="most that the devices in use may cost")


def read_fleet(path: str | Path) -> FleetConfig:
    """A fleet's configuration; raises :class:`ConfigError` naming every mistake."""
    return read(FleetConfig, path)


def fleet_of(config: FleetConfig, frame: pd.DataFrame, predictor: Predictor | None = None) -> Fleet:
    """The fleet, with an option for each measured (or predicted) way to serve a demand on a kind.

    Parameters
    ----------
    config : FleetConfig
    frame : DataFrame
        ``Store.latest()``.
    predictor : Predictor, optional
        Answers for cells without any record.

    Raises
    ------
    ConfigError, SelectionError
        For a name that the store does not know, two currencies, or a cost question without prices.
    """
    currencies = sorted({price.currency for price in config.prices})
    if len(currencies) > 1:
        raise ConfigError(f"prices are in {' and '.join(currencies)}; give all of them in one currency")
    priced = Requirements(prices=config.prices)
    prices = {kind.name: priced.price_of(kind.name, kind.device) for kind in config.kinds}
    lacking = [name for name, price in prices.items() if price is None]
    if lacking and (config.objective == "cost" or config.max_per_hour is not None):
        raise ConfigError(
            f'a question of cost needs the price of {lacking[0]}, and labbench invents none; give it in "prices": [{{"device": '
            f'"{lacking[0]}", "per_hour": ..., "currency": "...", "as_of": "YYYY-MM-DD", "source": "where it stands"}}], or ask '
            'for "objective": "devices"'
        )
    kinds = [
        Kind(
            name=kind.name,
            count=kind.count,
            memory_bytes=kind.memory_bytes,
            per_hour=price.per_hour if price else None,
            idle_w=kind.idle_w,
            domains=kind.domains,
        )
        for kind, price in zip(config.kinds, prices.values(), strict=True)
    ]
    found = [option for demand in config.demands for option in _options_of(demand, config, frame, predictor)]
    return Fleet(
        tuple(config.demands), tuple(kinds), tuple(found), config.objective, config.busy, config.max_per_hour,
        currencies[0] if currencies else "",
    )  # fmt: skip


def _options_of(
    demand: FleetDemand, config: FleetConfig, frame: pd.DataFrame, predictor: Predictor | None
) -> Iterator[FleetOption]:
    """Ways to serve one demand; a kind on which nothing was measured has one that says so."""
    asked = Requirements(
        models=[demand.model],
        modes=[demand.mode],
        series=demand.series,
        latency_percentile=demand.latency_percentile,
        runtimes=demand.runtimes,
    )
    table = options(frame, asked, predictor).table
    for name in SHAPE:
        value = getattr(demand, name)
        if value is not None:
            table = table[table[name] == value]
    if table.empty:
        shape = ", ".join(f"{name} {getattr(demand, name)}" for name in SHAPE if getattr(demand, name) is not None)
        raise SelectionError(
            f"no record of {demand.model} has {shape}; measure it with `labbench run --model {demand.model} ...`"
        )
    if demand.batch_size is None and table["question"].nunique() > table["batch_size"].nunique():
        raise SelectionError(
            f"records of {demand.model} differ in more than their batch; name the shape of {demand.name} ({', '.join(SHAPE[1:])})"
        )
    spread = _spread(frame)
    for kind in config.kinds:
        names = table[["machine_id", "device_name", "device"]].astype("str").eq(kind.device).any(axis=1)
        rows: list[dict[Any, Any]] = table[names].to_dict("records")
        for row in rows:
            yield _option(demand, kind, row, spread.get((row["cell_id"], row["series"], row["machine_id"])))
        if not rows:
            reason = f"nothing of {demand.model} was measured on {kind.device}; run it there, or merge its store"
            yield FleetOption(demand.name, kind.name, "no record", 1.0, 0.0, reason=reason)


def _option(
    demand: FleetDemand, kind: FleetKind, row: dict[Any, Any], spread: tuple[float, float] | None
) -> FleetOption:
    batch = int(row["batch_size"])
    name = " ".join([str(row["runtime"]), str(row["precision"]), f"b{batch}"])
    per_call = 1 if demand.batch_size is not None else batch
    service, tail, memory = (float(row[c]) for c in ("median_s", "latency_high_s", "memory_high_bytes"))
    iqr, joules = spread or (np.nan, np.nan)
    scv = (iqr / QUARTILES / service) ** 2 if np.isfinite(iqr) else UNKNOWN_SCV
    idle = 0.0 if kind.idle_w is None else kind.idle_w
    return FleetOption(
        demand.name,
        kind.name,
        name,
        service if np.isfinite(service) else 1.0,
        memory if np.isfinite(memory) else 0.0,
        requests=per_call,
        tail_s=tail if np.isfinite(tail) else None,
        scv=scv,
        energy_j=max(joules - idle * service, 0.0) / per_call if np.isfinite(joules) else None,
        reason=_why_not(demand, row, per_call),
        domains={"runtime": str(row["runtime"])},
        known="predicted" if row["predicted"] else str(row["provenance"]),
    )


def _why_not(demand: FleetDemand, row: dict[Any, Any], per_call: int) -> str | None:
    """What excludes an option whatever the fleet."""
    if row["status"] != "ok":
        return f"{str(row['status']).replace('_', ' ')}: {row['reason'] or 'no reason recorded'}"
    if row["predicted"] and row["out_of_domain"]:
        return f"not measured, and the prediction is no ground to choose: {row['reason']}"
    for column, allowed in (("runtime", demand.runtimes), ("precision", demand.precisions)):
        if allowed is not None and row[column] not in allowed:
            return f"{column} {row[column]} is not among those allowed ({', '.join(allowed)})"
    if not np.isfinite(row["median_s"]):
        return "its time is not known"
    if not np.isfinite(row["memory_high_bytes"]):
        return "its memory was not measured, so that nobody knows whether it fits"
    if per_call > 1 and demand.max_latency_s is not None:
        return f"a call of {per_call} waits until it is full, which a limit of latency does not allow for; give batch_size instead"
    return None


def _spread(frame: pd.DataFrame) -> dict[tuple[str, str, str], tuple[float, float]]:
    """Interquartile range and energy of a call, by cell, series and machine."""
    columns = ["cell_id", "series", "machine_id", "latency_iqr_s", "joules_per_call"]
    table = frame.reindex(columns=columns)
    keys = table[columns[:3]].astype("str").itertuples(index=False, name=None)
    return dict(zip(keys, table[columns[3:]].astype(float).itertuples(index=False, name=None), strict=True))
