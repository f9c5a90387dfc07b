"""What an hour of a device costs: given by the user, never invented."""

from __future__ import annotations

import csv
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, field_validator

from labbench.cells import Frozen
from labbench.config import ConfigError, nearest, parse
from labbench.words import count, listed

if TYPE_CHECKING:
    from collections.abc import Iterable

OLD_DAYS = 90  # cloud and second-hand prices of accelerators move by more than ties between options within a quarter


class Price(Frozen):
    """What an hour of a device costs. Given by the user: labbench knows no prices and invents none."""

    device: str = Field(
        min_length=1, description="a device (cpu, cuda:0), or a device's name or a machine's id as in the store"
    )
    per_hour: float = Field(gt=0, description="in `currency`, of one device")
    currency: str = Field(min_length=1)
    as_of: date = Field(description="day the price was looked up")
    source: str = Field(min_length=1, description="where it stands: an address, an invoice, an estimate and its basis")

    @field_validator("as_of")
    @classmethod
    def _past(cls, day: date) -> date:
        if day > date.today():
            raise ConfigError(f"as_of: {day} has not come yet; give the day the price was looked up")
        return day

    def age_days(self, today: date | None = None) -> int:
        """Days since it was looked up."""
        return ((today or date.today()) - self.as_of).days


COLUMNS = tuple(Price.model_fields)


def read_prices(path: str | Path) -> list[Price]:
    """Prices of a CSV file with the columns device, per_hour, currency, as_of (YYYY-MM-DD) and source, in any order.

    Raises
    ------
    ConfigError
        If it cannot be read; for an unknown or missing column, and for a line that makes no sense, with its number.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(f"cannot read prices {path}: {reason}") from None
    lines = csv.DictReader(text.splitlines())
    names = [name.strip() for name in lines.fieldnames or []]
    lines.fieldnames = names
    for name in names:
        if name not in COLUMNS:
            raise ConfigError(f"{path}:1: unknown column {name!r}; {nearest(name, COLUMNS)}")
    absent = [name for name in COLUMNS if name not in names]
    if absent:
        raise ConfigError(f"{path}:1: no column {listed(absent)}; a price needs {', '.join(COLUMNS)}")
    return [parse(Price, _stripped(line, f"{path}:{lines.line_num}"), f"{path}:{lines.line_num}") for line in lines]


def _stripped(line: dict[str, str | None], place: str) -> dict[str, str]:
    if None in line or None in line.values():
        raise ConfigError(f"{place}: {len(COLUMNS)} values are needed; quote one that holds a comma")
    return {name: (value or "").strip() for name, value in line.items()}


def price_notes(prices: Iterable[Price], known: Iterable[str], today: date | None = None) -> list[str]:
    """What to beware of: prices that are old, and prices for what is not among the options."""
    prices, known = list(prices), set(known)
    old = [price for price in prices if price.age_days(today) > OLD_DAYS]
    notes = []
    if old:
        oldest = max(old, key=lambda price: price.age_days(today))
        which = count(len(old), "price is", "prices are")
        notes.append(
            f"{which} older than {OLD_DAYS} days, the oldest ({oldest.device}, of {oldest.as_of}) {oldest.age_days(today)} days: "
            "look them up again"
        )
    strange = dict.fromkeys(price.device for price in prices if price.device not in known)
    return notes + [f"the price of {name!r} fits no device here; {nearest(name, known)}" for name in strange]
