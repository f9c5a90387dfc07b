"""``notebooks/config/hardware_selection_config.json``: what a choice must satisfy."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from labbench.cells import Frozen, Mode, Precision
from labbench.config import ConfigError, parse, read

Objective = Literal["latency", "throughput", "memory", "cost"]


class SelectionError(ValueError):
    """Nothing can be selected; the message names the reason and the nearest way out."""


class Price(Frozen):
    """What an hour of a device costs. Given by the user: labbench knows no prices and invents none."""

    device: str = Field(description="a device (cpu, cuda:0), or a device's name or a machine's id as in the store")
    per_hour: float = Field(gt=0, description="in `currency`")
    currency: str = Field(min_length=1)
    as_of: date = Field(description="day the price was looked up")
    source: str = Field(min_length=1, description="where it stands: an address, an invoice, an estimate and its basis")


class Requirements(Frozen):
    """What a decision must respect. A limit that is ``None`` does not apply.

    Limits are checked at the pessimistic end of what is known: the upper end of the 95 % interval of a measured
    latency, the upper end of the ``confidence`` interval of a predicted one.
    """

    models: list[str] | None = Field(None, description="only these; null: every model in the store")
    modes: list[Mode] | None = Field(None, description="inference, training; null: both")
    series: str | None = Field(None, description="forward, prefill, decode, step; null: each workload's primary one")
    objective: Objective = Field("latency", description="what the choice is best at among the options allowed")
    latency_percentile: Literal[50, 90, 99] = Field(50, description="which latency is limited and compared")
    max_latency_s: float | None = Field(None, gt=0, description="the longest a call may take")
    min_throughput: float | None = Field(None, gt=0, description="items a second, in the unit of the series")
    max_memory_bytes: int | None = Field(None, gt=0, description="peak memory above an empty worker")
    max_cost_per_hour: float | None = Field(None, gt=0, description="in the currency of the prices")
    max_cost_per_million: float | None = Field(None, gt=0, description="for a million items, back to back")
    devices: list[str] | None = Field(None, description="allowed devices; null: all")
    runtimes: list[str] | None = Field(None, description="allowed runtimes; null: all")
    precisions: list[Precision] | None = Field(None, description="allowed precisions; null: all")
    prices: list[Price] = Field(default_factory=list)
    confidence: float = Field(
        0.9, gt=0, lt=1, description="level of the interval by which predicted options are judged"
    )

    @model_validator(mode="after")
    def _priced(self) -> Requirements:
        asks = [name for name in ("max_cost_per_hour", "max_cost_per_million") if getattr(self, name) is not None]
        asks += ["objective 'cost'"] if self.objective == "cost" else []
        if asks and not self.prices:
            raise ConfigError(
                f'{asks[0]} needs prices, and labbench invents none; give them as "prices": [{{"device": "cpu", '
                '"per_hour": ..., "currency": "...", "as_of": "YYYY-MM-DD", "source": "where it stands"}]'
            )
        currencies = sorted({price.currency for price in self.prices})
        if len(currencies) > 1:
            raise ConfigError(f"prices are in {' and '.join(currencies)}; give all of them in one currency")
        return self

    @property
    def currency(self) -> str:
        """Currency of the prices, or an empty text where there are none."""
        return self.prices[0].currency if self.prices else ""

    def price_of(self, *names: str) -> Price | None:
        """The first price given for any of these names, tried in order."""
        given = {price.device: price for price in reversed(self.prices)}
        return next((given[name] for name in names if name in given), None)


def read_requirements(path: str | Path | None = None, **changes: Any) -> Requirements:
    """Requirements from a JSON file (default: none), with single fields changed.

    Raises
    ------
    ConfigError
        For an unknown key or value (naming the nearest known one), or a cost question without prices.
    """
    if path is None:
        return parse(Requirements, changes, "requirements")
    if not changes:
        return read(Requirements, path)
    given = json.loads(read(Requirements, path).model_dump_json(exclude_unset=True))
    return parse(Requirements, {**given, **changes}, str(path))
