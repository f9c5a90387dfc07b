"""What can go wrong with a database; every message says which, why, and the way out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labbench.records import Record


class StoreError(Exception):
    """A database that cannot be read or written."""


class StoreLocked(StoreError):
    """Somebody else is writing to the database."""


class Refused(StoreError):
    """A record that cannot be kept because of what it is: another one has its id, or it holds what cannot be stored."""


class StoreWarning(UserWarning):
    """Something in a database deserves a look; nothing that was acknowledged is lost."""


def damaged(path: Path, what: str, error: object = None) -> StoreError:
    """The error for content that does not match its checksum or cannot be understood."""
    because = f" ({error})" if error else ""
    return StoreError(
        f"{path}: {what} is damaged{because}; `labbench check {path} --repair salvaged.h5` saves what is intact"
    )


def conflict(one: Record, other: Record) -> str:
    """What to say of two different records under one id: the fields in which they differ, with both values."""
    differing = dict(_differences(one.to_dict(), other.to_dict()))
    fields = "; ".join(f"{name}: {short(a)} and {short(b)}" for name, (a, b) in differing.items())
    return (
        f"two different records have the id {one.record_id}\n  {one}\n  {other}\n  they differ in {fields}\n"
        "keep one of them: export both, remove the wrong line, import the rest"
    )


def _differences(one: Any, other: Any, place: str = "") -> list[tuple[str, tuple[Any, Any]]]:
    if isinstance(one, dict) and isinstance(other, dict):
        keys = {**one, **other}
        parts = [_differences(one.get(k), other.get(k), f"{place}.{k}".lstrip(".")) for k in keys]
        return [found for part in parts for found in part]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        parts = [_differences(a, b, f"{place}[{i}]") for i, (a, b) in enumerate(zip(one, other, strict=True))]
        return [found for part in parts for found in part]
    return [] if one == other else [(place, (one, other))]


def short(value: Any) -> str:
    """A value for a message: its start, if it is long."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
