"""Why an option is excluded, and how far it is from being allowed."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from labbench.selection.requirements import Requirements
from labbench.words import listed, number, over, percent, seconds, size

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd


@dataclass(frozen=True)
class Violation:
    """One requirement that an option does not meet.

    Attributes
    ----------
    requirement : str
        Field of :class:`Requirements`, or ``status``, ``prediction`` where the option itself is at fault.
    reason : str
        For people, with the distance.
    needed : float or None
        Value of the requirement at which the option would meet it; ``None`` where no value would do.
    excess : float or None
        Distance relative to the requirement: 0.15 is 15 % over (or short).
    """

    requirement: str
    reason: str
    needed: float | None = None
    excess: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def violations(option: pd.Series, requirements: Requirements) -> list[Violation]:
    """Everything that excludes an option; empty where it is allowed. Numbers are judged at their pessimistic end."""
    found = list(_not_allowed(option, requirements))
    if option["status"] != "ok":
        reason = option["reason"] if isinstance(option["reason"], str) else "no reason recorded"
        return [*found, Violation("status", f"{option['status'].replace('_', ' ')}: {reason}")]
    if option["predicted"] and (option["out_of_domain"] or math.isnan(option["latency_s"])):
        return [
            *found,
            Violation("prediction", f"not measured, and the prediction is no ground to choose: {option['reason']}"),
        ]
    return [*found, *_over_limits(option, requirements)]


def _not_allowed(option: pd.Series, requirements: Requirements) -> Iterator[Violation]:
    for column in ("device", "runtime", "precision"):
        allowed = getattr(requirements, f"{column}s")
        if allowed is not None and option[column] not in allowed:
            yield Violation(
                f"{column}s", f"{column} {option[column]} is not among those allowed ({listed(list(allowed))})"
            )


def _over_limits(option: pd.Series, requirements: Requirements) -> Iterator[Violation]:
    percentile = "median" if requirements.latency_percentile == 50 else f"p{requirements.latency_percentile}"
    end = f"upper {percent(requirements.confidence)} bound of the predicted " if option["predicted"] else ""
    unit = option["throughput_unit"]
    money = f" {requirements.currency}"
    checks = (
        ("max_latency_s", f"{end}{percentile} latency", option["latency_high_s"], seconds),
        (
            "min_throughput",
            f"{end and 'pessimistic '}throughput",
            option["throughput_low"],
            lambda v: f"{number(v)} {unit}/s",
        ),
        ("max_memory_bytes", f"{end}peak memory", option["memory_high_bytes"], size),
        ("max_cost_per_hour", "price per hour", option["cost_per_hour"], lambda v: number(v) + money),
        (
            "max_cost_per_million",
            f"cost of a million {unit}",
            option["cost_per_million_high"],
            lambda v: number(v) + money,
        ),
    )
    for name, what, value, show in checks:
        limit = getattr(requirements, name)
        if limit is None:
            continue
        if not math.isfinite(value):
            cause = f"no price is given for {option['device']}" if "cost" in name else "it was not measured"
            yield Violation(name, f"{what} is limited to {show(limit)}, but {cause}")
        elif name == "min_throughput" and value < limit:
            short = 1 - value / limit
            yield Violation(name, f"{what} {show(value)} < {show(limit)} needed, {percent(short)} short", value, short)
        elif name != "min_throughput" and value > limit:
            excess = value / limit - 1
            yield Violation(name, f"{what} {show(value)} > limit {show(limit)}, {over(excess)}", value, excess)
