"""Numbers as people write them; storage stays in SI units."""

from __future__ import annotations

import math


def seconds(value: float) -> str:
    """E.g. ``1.23 ms``."""
    return _scaled(value, "s", ((1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n")))


def size(value: float) -> str:
    """Bytes, e.g. ``432 MB`` (10⁶)."""
    return _scaled(value, "B", ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, "")))


def hours(value: float) -> str:
    """Seconds as hours, e.g. ``4.57 h``."""
    return f"{number(value / 3600)} h"


def number(value: float) -> str:
    """Three significant digits, thousands separated, never in exponents below a billion."""
    if not math.isfinite(value):
        return "–"
    return f"{value:,.0f}" if 100 <= abs(value) < 1e9 else f"{value:.3g}"


def rate(value: float, unit: str) -> str:
    """E.g. ``1,228 samples/s``; seconds of audio in a second are told as a multiple of real time."""
    return f"{number(value)} × real time" if unit == "audio_s" else f"{number(value)} {unit}/s"


def digits(value: float) -> str:
    """Exactly three significant digits, so that a column lines up: ``5.70``, ``15.0``, ``1,230``."""
    if not math.isfinite(value):
        return "–"
    rounded = float(f"{value:.2e}")
    return f"{rounded:,.0f}" if abs(rounded) >= 100 else f"{rounded:#.3g}" if abs(rounded) >= 1e-4 else f"{rounded:g}"


def about(value: float) -> str:
    """Two significant digits, for what is known no better: ``1,800``."""
    if not math.isfinite(value):
        return "–"
    rounded = float(f"{value:.1e}")
    return f"{rounded:,.0f}" if abs(rounded) >= 10 else f"{rounded:.2g}"


def count(amount: int, noun: str, plural: str | None = None) -> str:
    """``1 model``, ``3 models``, ``no model``."""
    return f"{f'{amount:,}' if amount else 'no'} {noun if amount in (0, 1) else plural or noun + 's'}"


def outward(value: float, *, up: bool) -> float:
    """``value`` at three significant digits, never on the wrong side: a limit relaxed to it does let the option in."""
    if value == 0 or not math.isfinite(value):
        return value
    spoken = float(f"{value:.2e}")
    if spoken < value if up else spoken > value:
        step = 10.0 ** (math.floor(math.log10(abs(value))) - 2)
        spoken = float(f"{spoken + (step if up else -step):.2e}")
    return spoken


def over(excess: float) -> str:
    """How far above a limit: ``15 % over``, or ``3.2 times the limit``."""
    return f"{percent(excess)} over" if excess < 1 else f"{1 + excess:.3g} times the limit"


def percent(fraction: float) -> str:
    """E.g. ``15 %``; one digit below ten per cent."""
    return f"{fraction:.0%}".replace("%", " %") if abs(fraction) >= 0.1 else f"{fraction:.1%}".replace("%", " %")


def listed(items: list[str]) -> str:
    """``a, b and c``."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""


def _scaled(value: float, unit: str, scales: tuple[tuple[float, str], ...]) -> str:
    if not math.isfinite(value):
        return "–"
    scale, prefix = next((pair for pair in scales if abs(value) >= pair[0]), scales[-1])
    return f"{number(value / scale)} {prefix}{unit}"
