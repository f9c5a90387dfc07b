"""Why an option is excluded, and how far each one is from each limit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np

from labbench.selection.chances import likely
from labbench.selection.options import MILLION, TAILS, Options
from labbench.selection.requirements import Requirements
from labbench.words import hours, listed, number, over, percent, seconds, size

Tell: TypeAlias = Callable[[Any], str]  # of an option's row, in words
Show: TypeAlias = Callable[[Any, float], str]


@dataclass(frozen=True)
class Violation:
    """One requirement that an option does not meet.

    Attributes
    ----------
    requirement : str
        Field of :class:`Requirements`, or ``status``, ``prediction``, ``capability``, ``objective`` where the option itself is at
        fault.
    reason : str
        For people, with the distance.
    needed : float or None
        Value of the requirement at which the option would just meet it; ``None`` where no value would do.
    excess : float or None
        Distance relative to the requirement: 0.15 is 15 % over (or short).
    unknown : bool
        Nothing tells whether it is met, or not surely enough: only without the requirement is the option allowed.
    """

    requirement: str
    reason: str
    needed: float | None = None
    excess: float | None = None
    unknown: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Check:
    """One limit held against one option.

    Attributes
    ----------
    requirement : str
        Field of :class:`Requirements`.
    value : float
        What is judged: the pessimistic end of what is known, in the requirement's unit; NaN where nothing is known.
    limit : float
    distance : float
        Relative to the limit, below 0 where it is met: -0.2 is 20 % inside, 0.15 is 15 % over (or short). Of the head-room, in
        shares of the device's memory.
    chance : float
        Probability that the limit is met, by what is known; NaN where nothing is.
    violation : Violation or None
        Where it is not met.
    """

    requirement: str
    value: float
    limit: float
    distance: float
    chance: float
    violation: Violation | None


@dataclass(frozen=True)
class Limited:
    """A number that a requirement limits, of all options."""

    requirement: str
    what: Tell
    show: Show
    judged: np.ndarray
    chance: np.ndarray
    unknown: Tell
    least: bool = False
    absolute: bool = False  # the distance is a difference of shares
    uncertain: bool = True  # it has a distribution


def checks(options: Options, rows: list[dict[str, Any]], requirements: Requirements) -> list[list[Check]]:
    """Every limit that applies, held against every option that ran or is predicted; empty lists for the others.

    ``rows`` are those of the options' table.
    """
    found: list[list[Check]] = [[] for _ in rows]
    for limited in _limited(options, requirements):
        for place, row in enumerate(rows):
            if row["status"] == "ok":
                check = _check(limited, place, row, requirements)
                found[place] += [check] if check else []
    return found


def violations(option: Mapping[str, Any], checked: list[Check], requirements: Requirements) -> list[Violation]:
    """Everything that excludes an option; empty where it is allowed."""
    found = list(_not_allowed(option, requirements))
    if option["status"] != "ok":
        reason = option["reason"] if isinstance(option["reason"], str) else "no reason recorded"
        return [*found, Violation("status", f"{option['status'].replace('_', ' ')}: {reason}")]
    if option["predicted"] and (option["out_of_domain"] or math.isnan(option["latency_s"])):
        return [
            *found,
            Violation("prediction", f"not measured, and the prediction is no ground to choose: {option['reason']}"),
        ]
    return [*found, *(check.violation for check in checked if check.violation)]


def _not_allowed(option: Mapping[str, Any], requirements: Requirements) -> Iterator[Violation]:
    for column in ("device", "runtime", "precision", "vendor"):
        allowed = getattr(requirements, f"{column}s")
        names = {option[column], option["device_name"]} if column == "device" else {option[column]}
        if allowed is not None and not names & set(allowed):
            told = option[column] if isinstance(option[column], str) else "that nothing tells"
            yield Violation(
                f"{column}s", f"{column} {told} is not among those allowed ({listed([str(one) for one in allowed])})"
            )
    if isinstance(option["lacks"], str):
        yield Violation("capability", option["lacks"])


def _limited(options: Options, requirements: Requirements) -> Iterator[Limited]:
    """What is limited, and where the options stand."""
    table, known = options.table, requirements.model_dump(exclude_none=True)

    def floats(name: str) -> np.ndarray:
        return table[name].to_numpy(float, na_value=np.nan)

    def end(stem: str, high: str) -> np.ndarray:
        if requirements.probability is None:
            return floats(high)
        return options.beliefs[stem].quantile(requirements.probability)

    asked = requirements.latency_percentile
    latencies = {"max_latency_s": asked, **{f"max_latency_p{one}_s": one for one in TAILS}}
    for field, percentile in latencies.items():
        if field in known:
            stem = TAILS[percentile]
            what = _always(f"{'median' if percentile == 50 else f'p{percentile}'} latency")
            chance = options.beliefs[stem].chance_below(known[field])
            yield Limited(field, what, _shown(seconds), end(stem, f"{stem}_high_s"), chance, _not_measured)
    items, hourly, median = floats("items_per_call"), floats("cost_per_hour"), end("median", "median_high_s")
    if "min_throughput" in known:
        chance = options.beliefs["median"].chance_below(items / known["min_throughput"])
        yield Limited("min_throughput", _always("throughput"), _rate, items / median, chance, _not_measured, least=True)
    memory = end("memory", "memory_high_bytes")
    if "max_memory_bytes" in known:
        chance = options.beliefs["memory"].chance_below(known["max_memory_bytes"])
        yield Limited("max_memory_bytes", _always("peak memory"), _shown(size), memory, chance, _not_measured)
    yield _headroom(options, requirements, memory if requirements.memory_headroom else floats("memory_high_bytes"))
    money = _shown(lambda value: f"{number(value)} {requirements.currency}")
    exact: dict[str, tuple[str, str, Show, Tell]] = {
        "max_output_error": ("output error", "output_error", _shown(number), _always(NOT_COMPARED)),
        "max_joules_per_item": ("energy of an item", "joules_per_item", _shown(_joules), _always(NO_ENERGY)),
        "max_cost_per_hour": ("price per hour", "cost_per_hour", money, _no_price),
    }
    for field, (word, column, show, unknown) in exact.items():
        if field in known:
            judged = floats(column)
            met = np.where(np.isnan(judged), np.nan, judged <= known[field])
            yield Limited(field, _always(word), show, judged, met, unknown, uncertain=False)
    calls, a_second = floats("training_s") / floats("median_s"), hourly / 3600
    timed: dict[str, tuple[np.ndarray, Tell, Show, Tell]] = {  # numbers that are the median times a factor
        "max_cost_per_million": (MILLION * a_second / items, _cost_of_items, money, _no_price),
        "max_training_s": (calls, _always("time to train"), _shown(hours), _no_training),
        "max_training_cost": (calls * a_second, _always("cost of training"), money, _no_training_cost),
    }
    for field, (factor, what, show, unknown) in timed.items():
        if field in known:
            chance = options.beliefs["median"].times(factor).chance_below(known[field])
            yield Limited(field, what, show, median * factor, chance, unknown)


def _headroom(options: Options, requirements: Requirements, judged: np.ndarray) -> Limited:
    """Memory that is left free, as a share of the device's; always checked where both are known, since what does not fit fails."""
    device = options.table["device_memory_bytes"].to_numpy(float)
    free = 1 - judged / device
    asked = requirements.memory_headroom
    if asked == 0:
        free = np.where(np.isnan(free), np.inf, free)  # nobody asked
    chance = options.beliefs["memory"].chance_below((1 - asked) * device)
    return Limited(
        "memory_headroom", _always("head-room"), _shown(percent), free, chance, _no_memory, least=True, absolute=True
    )


def _check(limited: Limited, place: int, row: dict[str, Any], requirements: Requirements) -> Check | None:
    name, value, limit = (
        limited.requirement,
        float(limited.judged[place]),
        float(getattr(requirements, limited.requirement)),
    )
    chance = float(limited.chance[place])
    if limited.absolute:
        if value == math.inf:
            return None
        distance = limit - value
    else:
        distance = 1 - value / limit if limited.least else value / limit - 1
    beyond = value < limit if limited.least else value > limit
    violation = None
    if math.isnan(value):
        violation = Violation(name, f"{_demand(limited, row, limit)}, but {limited.unknown(row)}", unknown=True)
    elif beyond:
        violation = _beyond(limited, row, value, limit, distance, chance, requirements)
    return Check(name, value, limit, distance, chance, violation)


def _demand(limited: Limited, row: dict[str, Any], limit: float) -> str:
    shown = limited.show(row, limit)
    return (
        f"{limited.what(row)} must be at least {shown}"
        if limited.least
        else f"{limited.what(row)} is limited to {shown}"
    )


def _beyond(
    limited: Limited,
    row: dict[str, Any],
    value: float,
    limit: float,
    distance: float,
    chance: float,
    requirements: Requirements,
) -> Violation:
    name, before, sure, after = limited.requirement, "", "", ""
    probability = requirements.probability if limit > 0 else None  # nobody asked for head-room
    if limited.uncertain and probability is not None and math.isfinite(chance):
        before, sure = "predicted " if row["predicted"] else "", f" at {percent(probability)} certainty"
        after = f"; it meets this with {likely(chance)}"
        if not math.isfinite(value) or value == 0:
            why = f"too few families were measured for a prediction that is {percent(probability)} sure"
            return Violation(name, f"{_demand(limited, row, limit)}, but {why}{after}", unknown=True)
    elif limited.uncertain and row["predicted"]:
        before = f"upper {percent(requirements.confidence)} bound of the predicted "
        before = "pessimistic " if limited.least else before
    if limited.absolute:
        peak, has = f"{before}peak memory{_parts(row)}", f"{size(row['device_memory_bytes'])} of {row['device']}"
        if value < 0:
            return Violation(name, f"{peak} does not fit into {has}{sure}{after}")
        text = f"{peak} leaves {percent(value)} of {has} free{sure}, {percent(limit)} asked for{after}"
        return Violation(name, text, value, distance)
    if limited.least:
        text = f"{limited.show(row, value)}{sure} < {limited.show(row, limit)} needed, {percent(distance)} short"
    else:
        text = f"{limited.show(row, value)}{sure} > limit {limited.show(row, limit)}, {over(distance)}"
    needed = math.ceil(value) if name == "max_memory_bytes" else value
    return Violation(name, f"{before}{limited.what(row)} {text}{after}", needed, distance)


def _parts(row: dict[str, Any]) -> str:
    """What the peak consists of, where it was counted: weights, other tensors (activations, KV cache), the rest."""
    from labbench.selection.score import memory_parts

    parts = memory_parts(row)
    told = [f"{name} {size(value)}" for name, value in parts.items() if value > 0]
    return f" {size(row['memory_bytes'])}" + (f" ({listed(told)})" if told else "")


NOT_COMPARED = "its output was not compared with eager fp32's"
NO_ENERGY = "its energy was not measured"


def _always(text: str) -> Tell:
    return lambda _: text


def _shown(show: Callable[[float], str]) -> Show:
    return lambda _, value: show(value)


def _rate(row: dict[str, Any], value: float) -> str:
    return f"{number(value)} {row['throughput_unit']}/s"


def _joules(value: float) -> str:
    return f"{number(value)} J"


def _cost_of_items(row: dict[str, Any]) -> str:
    return f"cost of a million {row['throughput_unit']}"


def _not_measured(row: dict[str, Any]) -> str:
    return "it is not predicted" if row["predicted"] else "it was not measured"


def _no_memory(row: dict[str, Any]) -> str:
    known = math.isfinite(row["device_memory_bytes"])
    return _not_measured(row) if known else f"nothing tells how much memory {row['device']} has"


def _no_price(row: dict[str, Any]) -> str:
    return f"no price is given for {row['device']}"


def _no_training(row: dict[str, Any]) -> str:
    return "this is no training step"


def _no_training_cost(row: dict[str, Any]) -> str:
    return _no_price(row) if row["mode"] == "training" else _no_training(row)
