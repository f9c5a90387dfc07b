"""When requests arrive: patterns made with a seed, or a trace recorded elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from labbench.config import ConfigError, unknown_name

BURST_FACTOR = 4.0  # rate within a burst over the rate between bursts
BURST_S, QUIET_S = 1.0, 4.0  # mean lengths of the two states
DEPTH = 0.8  # of the daily wave: the rate swings between 0.2 and 1.8 times its mean


@dataclass(frozen=True)
class Arrivals:
    """A trace of arrivals.

    Attributes
    ----------
    pattern : str
        ``poisson``, ``bursts``, ``diurnal``, or the name of the file it was read from.
    seconds : float
        Length of the trace.
    times_s : array of float, shape (requests,)
        Ascending, from the start of the trace.
    seed : int or None
        What it was made with; None for a recorded trace.
    """

    pattern: str
    seconds: float
    times_s: np.ndarray
    seed: int | None = None

    def __len__(self) -> int:
        return len(self.times_s)

    @property
    def rate(self) -> float:
        """Mean rate, requests per second."""
        return len(self) / self.seconds

    def to_dict(self) -> dict[str, Any]:
        """As plain values: enough to offer the same load again."""
        return {
            "pattern": self.pattern, "seconds": self.seconds, "seed": self.seed, "times_s": self.times_s.tolist(),
        }  # fmt: skip

    def __str__(self) -> str:
        made = "recorded" if self.seed is None else f"seed {self.seed}"
        return f"{len(self):,} requests in {self.seconds:g} s, {self.rate:.3g}/s ({self.pattern}, {made})"


def poisson(rate: float, seconds: float, seed: int = 0) -> Arrivals:
    """Independent arrivals at a constant rate."""
    return _thinned("poisson", rate, seconds, seed, lambda _, times: np.full(len(times), rate), rate)


def bursts(
    rate: float,
    seconds: float,
    seed: int = 0,
    *,
    factor: float = BURST_FACTOR,
    burst_s: float = BURST_S,
    quiet_s: float = QUIET_S,
) -> Arrivals:
    """Two rates that take turns for exponentially long: a Markov-modulated Poisson process.

    Fischer and Meier-Hellstern, *The Markov-modulated Poisson process (MMPP) cookbook*, Performance Evaluation 18 (1993).

    Parameters
    ----------
    rate : float
        Mean rate, requests per second, over both states.
    factor : float
        Rate within bursts over the rate between them, above 1.
    burst_s, quiet_s : float
        Mean seconds of a burst, and between two.
    """
    if not factor > 1:
        raise ConfigError(f"a burst's rate is {factor:g} times the quiet one; give a factor above 1")
    quiet = rate * (burst_s + quiet_s) / (factor * burst_s + quiet_s)

    def rates(random: np.random.Generator, times: np.ndarray) -> np.ndarray:
        """A quiet state, a burst, and so on, until the trace ends."""
        ends, calm = [0.0], True
        while ends[-1] < seconds:
            ends.append(ends[-1] + random.exponential(quiet_s if calm else burst_s))
            calm = not calm
        state = np.searchsorted(ends, times, side="right") - 1
        return np.where(state % 2, factor * quiet, quiet)

    return _thinned("bursts", rate, seconds, seed, rates, factor * quiet)


def diurnal(
    rate: float, seconds: float, seed: int = 0, *, depth: float = DEPTH, period_s: float | None = None
) -> Arrivals:
    """A rate that rises and falls like a day's: ``rate * (1 + depth * sin(2 pi t / period_s))``.

    Parameters
    ----------
    rate : float
        Mean rate, requests per second.
    depth : float
        Between 0 (constant) and 1 (the night is empty).
    period_s : float, optional
        Length of a day; default: the whole trace is one.
    """
    if not 0 <= depth <= 1:
        raise ConfigError(f"the depth of a daily wave lies between 0 and 1, not at {depth:g}")

    def rates(_: np.random.Generator, times: np.ndarray) -> np.ndarray:
        return rate * (1 + depth * np.sin(2 * np.pi * times / (period_s or seconds)))

    return _thinned("diurnal", rate, seconds, seed, rates, rate * (1 + depth))


PATTERNS: dict[str, Callable[..., Arrivals]] = {"poisson": poisson, "bursts": bursts, "diurnal": diurnal}


def make_arrivals(pattern: str, rate: float, seconds: float, seed: int = 0) -> Arrivals:
    """A pattern by name, or a recorded trace if the name is that of a CSV file (then nothing else counts).

    Raises
    ------
    ConfigError
        For an unknown pattern, naming the nearest known one; for a rate or length that is not above 0; for a file
        that is no trace.
    """
    if pattern.endswith(".csv"):
        return read_arrivals(pattern)
    if pattern not in PATTERNS:
        raise unknown_name("pattern of arrivals", pattern, [*PATTERNS, "FILE.csv"])
    return PATTERNS[pattern](rate, seconds, seed)


def read_arrivals(path: str | Path) -> Arrivals:
    """A recorded trace: a CSV file with a column ``seconds``, or only one column, of times that need not start at 0."""
    import pandas as pd

    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read arrivals from {path}: {error}") from None
    if "seconds" not in table and len(table.columns) != 1:
        raise ConfigError(f"{path} has the columns {', '.join(table.columns)}; name the one with the times 'seconds'")
    column = table["seconds"] if "seconds" in table else table.iloc[:, 0]
    times = np.sort(pd.to_numeric(column, errors="coerce").to_numpy(float))
    if len(times) < 2 or not np.isfinite(times).all() or times[0] == times[-1]:
        raise ConfigError(f"{path}: column {column.name!r} must hold at least two different times in seconds")
    times = times - times[0]
    return Arrivals(Path(path).name, float(times[-1]), times)


def _thinned(
    pattern: str,
    rate: float,
    seconds: float,
    seed: int,
    rates: Callable[[np.random.Generator, np.ndarray], np.ndarray],
    highest: float,
) -> Arrivals:
    """Arrivals whose rate changes, as those of the highest rate of which some are left out.

    Lewis and Shedler, *Simulation of nonhomogeneous Poisson processes by thinning*, Naval Research Logistics 26 (1979).
    """
    for name, value in (("rate", rate), ("length", seconds)):
        if not (np.isfinite(value) and value > 0):
            raise ConfigError(f"the {name} of arrivals must be above 0, not {value:g}")
    random = np.random.default_rng(seed)
    times = np.sort(random.uniform(0, seconds, random.poisson(highest * seconds)))
    kept = times[random.uniform(0, highest, len(times)) < rates(random, times)]
    return Arrivals(pattern, float(seconds), kept, seed)
