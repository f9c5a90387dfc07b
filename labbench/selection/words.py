"""Numbers as people write them; storage stays in SI units."""

from __future__ import annotations

import math


def seconds(value: float) -> str:
    """E.g. ``1.23 ms``."""
    return _scaled(value, "s", ((1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n")))


def size(value: float) -> str:
    """Bytes, e.g. ``432 MB`` (10⁶)."""
    return _scaled(value, "B", ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, "")))


def number(value: float) -> str:
    """Three significant digits, thousands separated, never in exponents below a billion."""
    if not math.isfinite(value):
        return "–"
    return f"{value:,.0f}" if 100 <= abs(value) < 1e9 else f"{value:.3g}"


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
