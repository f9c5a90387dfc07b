"""A decision as a text to paste into a ticket."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from labbench.words import count, hours, listed, number, percent, rate, seconds, size

if TYPE_CHECKING:
    from labbench.selection.decision import Choice, Decision
    from labbench.selection.requirements import Requirements

MOST_EXCLUDED = 8  # of a workload; the nearest to being allowed come first
MOST_WORKLOADS = 100


def ticket(decision: Decision) -> str:
    """What was decided, why, how sure it is, what was excluded and by how much, what if it fails, and where it comes from."""
    lines = [f"What was asked: {asked(decision.requirements)}."]
    for choice in decision.choices[:MOST_WORKLOADS]:
        lines += ["", *_choice(choice, decision)]
    rest = len(decision.choices) - MOST_WORKLOADS
    lines += ["", f"and {count(rest, 'more workload')}: see --json, or --model for fewer"] if rest > 0 else []
    lines += [""] + [f"Note: {note}." for note in decision.notes]
    lines += [*_sure(decision), provenance(decision)]
    return "\n".join(line for line in lines if line is not None).replace("\n\n\n", "\n\n").strip()


def asked(requirements: Requirements) -> str:
    """The requirements in words."""
    one = requirements
    if one.weights:
        goal = "the best of " + listed([f"{name} (weight {number(weight)})" for name, weight in one.weights.items()])
    else:
        goal = "the highest throughput" if one.objective == "throughput" else f"the least {one.objective}"
        goal = goal.replace("least latency", "lowest latency").replace("least cost", "lowest cost")
    name = "median" if one.latency_percentile == 50 else f"p{one.latency_percentile}"
    shown: dict[str, tuple[str, Any]] = {
        "max_latency_s": (f"{name} latency at most {{}}", seconds),
        **{f"max_latency_p{p}_s": (f"p{p} latency at most {{}}", seconds) for p in (50, 90, 99)},
        "min_throughput": ("throughput at least {} items/s", number),
        "max_memory_bytes": ("peak memory at most {}", size),
        "max_output_error": ("output error at most {}", number),
        "max_joules_per_item": ("at most {} J an item", number),
        "max_cost_per_hour": (f"at most {{}} {one.currency} an hour", number),
        "max_cost_per_million": (f"at most {{}} {one.currency} a million items", number),
        "max_training_s": ("training within {}", hours),
        "max_training_cost": (f"training for at most {{}} {one.currency}", number),
        "samples": ("training on {} samples", number),
    }
    parts = [text.format(show(getattr(one, field))) for field, (text, show) in shown.items() if getattr(one, field)]
    parts += [f"{percent(one.memory_headroom)} of the memory free"] if one.memory_headroom else []
    lists = {"vendors": one.vendors, "devices": one.devices, "runtimes": one.runtimes, "precisions": one.precisions}
    parts += [f"{word} {' or '.join(map(str, allowed))}" for word, allowed in lists.items() if allowed is not None]
    with_ = f", with {listed(parts)}" if parts else ", without limits"
    sure = f"; each limit to be met with at least {percent(one.probability)} probability" if one.probability else ""
    return f"{goal}{with_}{sure}"


def _choice(choice: Choice, decision: Decision) -> list[str]:
    from labbench.selection.score import score_sentence

    lines = [choice.sentence]
    best = choice.best
    if best is not None:
        lines += [f"  how sure: {choice.certainty}"] if choice.certainty else []
        lines += _training(best, decision.requirements)
        lines.append(f"  suits: {score_sentence(best['option'], best['compatibility'])}")
        others = [option for option in choice.ranked[1:] if option["on_front"]]
        lines += [f"  also worth it: {option['option']}, {_trade(option, best)}" for option in others]
        lines.append(
            f"  if that fails: {' → '.join(choice.fallbacks)}" if choice.fallbacks else "  if that fails: nothing"
        )
    for option, found in choice.excluded[:MOST_EXCLUDED]:
        lines.append(f"  not {option['option']}: {'; '.join(violation.reason for violation in found)}")
    rest = len(choice.excluded) - MOST_EXCLUDED
    lines += [f"  and {count(rest, 'more is', 'more are')} excluded"] if rest > 0 else []
    lines += [f"  to become sure: {one}" for one in choice.open]
    return lines


def _training(option: dict[str, Any], requirements: Requirements) -> list[str]:
    """What it takes to train on the samples asked about."""
    if requirements.samples is None or option["mode"] != "training":
        return []
    cost = option["training_cost"]
    priced = f", {number(cost)} {requirements.currency}" if math.isfinite(cost) else ""
    return [f"  training on {number(requirements.samples)} samples: {hours(option['training_s'])}{priced}"]


def _trade(option: dict[str, Any], best: dict[str, Any]) -> str:
    """In what an option of the front is better than the choice."""
    named = {
        "latency_s": "latency",
        "item_s": "time of an item",
        "cost_per_million": "cost",
        "joules_per_item": "energy",
    }
    better = [f"{percent(1 - option[c] / best[c])} less {word}" for c, word in named.items() if option[c] < best[c]]
    at = rate(option["throughput"], option["throughput_unit"])
    return f"{listed(better)} ({seconds(option['latency_s'])} a call, {at})" if better else f"{at}, as good"


def _sure(decision: Decision) -> list[str]:
    """The one command that measures whatever the choices hang on."""
    if not any(choice.open for choice in decision.choices):
        return []
    store = f" --store {decision.origin.store}" if decision.origin and decision.origin.store else ""
    return [f"To become sure of all of it: labbench measure-next --question choice --budget 10m{store}"]


def provenance(decision: Decision) -> str:
    """Which store, how many records, how new, which predictor, when, by which version."""
    one = decision.origin
    made = [choice.best for choice in decision.choices if choice.best]
    sources = Counter("predicted" if option["predicted"] else str(option["provenance"]) for option in made)
    rest = listed([f"{count(times, 'choice')} {name}" for name, times in sources.most_common()]) or "nothing chosen"
    if one is None:
        return f"From: {rest}."
    newest = f", the newest of {one.newest:%Y-%m-%d}" if one.newest else ""
    store = f"{one.store} ({count(one.records or 0, 'record')} of {count(one.machines or 0, 'machine')}{newest})"
    predictor = f"; predictor: {one.predictor}" if one.predictor else "; nothing was predicted"
    return f"Decided on {one.decided_at:%Y-%m-%d %H:%M} UTC by labbench {one.labbench} from {store}: {rest}{predictor}."
