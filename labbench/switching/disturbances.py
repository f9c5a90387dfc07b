"""What goes wrong during a run, and when: a backend is slowed, or killed."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from labbench.config import ConfigError, unknown_name


@dataclass(frozen=True)
class Disturbance:
    """One thing that happens to a backend.

    Attributes
    ----------
    at_s : float
        Seconds from the start of the run.
    backend : str
    factor : float or None
        How many times slower it gets (1: as fast as ever again); None: its process is killed, and started anew.
    """

    at_s: float
    backend: str
    factor: float | None = None

    def __str__(self) -> str:
        if self.factor is None:
            return f"{self.backend} killed"
        return f"{self.backend} {self.factor:g} times slower" if self.factor != 1 else f"{self.backend} back to speed"


def slow(text: str) -> list[Disturbance]:
    """``eager@10:3x``: three times slower from second 10; ``eager@10-20:3x``: until second 20.

    Raises
    ------
    ConfigError
        For another form.
    """
    backend, at, rest = text.partition("@")
    times, colon, factor = rest.partition(":")
    begin, _, end = times.partition("-")
    numbers = [_number(value) for value in (begin, end or "inf", factor.removesuffix("x"))]
    if not (backend and at and colon and all(value is not None for value in numbers)):
        raise ConfigError(f"cannot read {text!r}; write e.g. eager@10:3x, or eager@10-20:3x")
    start, stop, by = (float(value or 0) for value in numbers)
    if not (by > 1 and 0 <= start < stop):
        raise ConfigError(f"{text!r}: the factor must be above 1, and the end after the start")
    found = [Disturbance(start, backend, by)]
    return found if math.isinf(stop) else [*found, Disturbance(stop, backend, 1.0)]


def kill(text: str) -> list[Disturbance]:
    """``eager@15``: the process is killed at second 15, and started again; raises ConfigError for another form."""
    backend, _, at = text.partition("@")
    when = _number(at)
    if not backend or when is None or not 0 <= when < math.inf:
        raise ConfigError(f"cannot read {text!r}; write e.g. eager@15")
    return [Disturbance(when, backend)]


def in_order(disturbances: Iterable[Disturbance], backends: Iterable[str], seconds: float) -> tuple[Disturbance, ...]:
    """By time.

    Raises
    ------
    ConfigError
        For a backend that there is not, naming the nearest known one; for a moment after the last of the trace's ``seconds``.
    """
    found, known = sorted(disturbances, key=lambda one: one.at_s), list(backends)
    for one in found:
        if one.backend not in known:
            raise unknown_name("backend", one.backend, known)
        if one.at_s > seconds and one.factor != 1:
            raise ConfigError(f"{one} at {one.at_s:g} s: the trace ends after {seconds:.4g} s; let it happen before")
    return tuple(found)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return None if math.isnan(value) else value
