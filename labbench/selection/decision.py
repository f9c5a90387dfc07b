"""The answer: for each question a ranked choice, its ties and fallbacks, and why every other option was excluded."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from labbench.selection.chances import likely
from labbench.selection.conflicts import conflict_sentence, smallest_conflict
from labbench.selection.doubts import Open
from labbench.selection.limits import Violation
from labbench.selection.requirements import WEIGHTED, Requirements
from labbench.words import hours, listed, number, outward, rate, seconds, size

if TYPE_CHECKING:
    import pandas as pd

    from labbench.selection.document import Origin


@dataclass(frozen=True)
class Choice:
    """The decision for one question (one workload).

    Attributes
    ----------
    question : str
        What is to run, e.g. ``bert-tiny inference b1 s128``.
    model, mode : str
    ranked : tuple of dict
        Options allowed, best first: the first is the choice.
    ties : tuple of str
        Options that cannot be told from the best by the objective (overlapping intervals), the choice included.
    fallbacks : tuple of str
        Next best options on another runtime or device, in order: what to use when the choice fails.
    excluded : tuple of (dict, tuple of Violation)
        The others, nearest to being allowed first, with all that excludes them.
    objective : str
    open : tuple of Open
        Cells whose measurement may change the choice, the likeliest first.
    """

    question: str
    model: str
    mode: str
    ranked: tuple[dict[str, Any], ...]
    ties: tuple[str, ...]
    fallbacks: tuple[str, ...]
    excluded: tuple[tuple[dict[str, Any], tuple[Violation, ...]], ...]
    objective: str
    percentile: int
    currency: str
    open: tuple[Open, ...] = ()

    @property
    def best(self) -> dict[str, Any] | None:
        """The option chosen, or ``None``."""
        return self.ranked[0] if self.ranked else None

    @property
    def sentence(self) -> str:
        """What to do and why, in one or two sentences."""
        best = self.best
        if best is None:
            conflict = conflict_sentence(self.conflict)
            told = f"{self.question}: {conflict}." if conflict else f"{self.question}."
            return f"Nothing meets the requirements for {told} {self.relaxation}"
        text = f"Run {self.question} on {best['option']}: {self._facts(best)}"
        others = [option for option in self.ranked[1:] if option["option"] not in self.ties]
        if len(self.ties) > 1:
            rest = listed([name for name in self.ties if name != best["option"]])
            text += f"; tied with {rest} in {self.objective} (intervals overlap), chosen because {best['tie_break']}"
        elif others:
            text += f"; {self._lead(best, others[0])}"
        elif self.excluded:
            text += "; every other option is excluded"
        return text + "."

    @property
    def conflict(self) -> tuple[str, ...]:
        """Where nothing is allowed: the fewest requirements that cannot be met together."""
        if self.best is not None:
            return ()
        sets = [{one.requirement: one for one in found} for _, found in self.excluded]
        return smallest_conflict(
            frozenset(found)
            for found in sets
            if all(one.needed is not None or one.unknown or one.requirement in LISTS for one in found.values())
        )

    @property
    def certainty(self) -> str:
        """How sure the choice is, in a sentence; empty where nothing is chosen."""
        best = self.best
        if best is None:
            return ""
        parts = []
        if len(self.ranked) == 1:
            parts.append("nothing else is allowed")
        elif not math.isnan(best["chance_best"]):
            parts.append(f"best among the allowed with {likely(best['chance_best'])}")
        if not math.isnan(best["chance_of_limits"]):
            parts.append(f"within every limit with {likely(best['chance_of_limits'], 'at least ')}")
        return ", ".join(parts) or "no interval is known, so no probability: numbers are taken as they are"

    @property
    def relaxation(self) -> str:
        """Which requirement to relax, and by how much, so that the nearest option is allowed."""
        for option, found in self.excluded:
            if all(violation.needed is not None or violation.unknown for violation in found):
                limits = listed([f"{v.requirement} to {_as_given(v)}" for v in found if not v.unknown])
                unknown = listed([v.requirement for v in found if v.unknown])
                steps = [f"relax {limits}"] * bool(limits) + [f"leave out {unknown}"] * bool(unknown)
                return f"The nearest is {option['option']}: {' and '.join(steps)}."
        named = sorted({v.requirement for _, found in self.excluded for v in found if v.requirement.endswith("s")})
        lists = [name for name in named if name in LISTS]
        if lists:
            return f"No limit helps; allow more {listed(lists)}, or measure more."
        return "No limit helps: no option ran here; see the reasons, or measure other platforms."

    def _facts(self, option: dict[str, Any]) -> str:
        label = "mean" if option["latency_statistic"] == "mean" else "median"
        if self.percentile != 50:
            few = not option["predicted"] and option["n_samples"] < FEW / (1 - self.percentile / 100)
            label = f"p{self.percentile}" + (f" of only {option['n_samples']} samples" if few else "")
        source = "predicted, not measured" if option["predicted"] else option["provenance"]
        source += ", on an unstable machine" if option["noise"] == "unstable" else ""
        facts = [f"{seconds(option['latency_s'])} a call ({label}, {source})"]
        facts.append(rate(option["throughput"], option["throughput_unit"]))
        if math.isfinite(option["memory_bytes"]):
            facts.append(f"peak memory {size(option['memory_bytes'])}")
        if math.isfinite(option["cost_per_million"]):
            facts.append(
                f"{number(option['cost_per_million'])} {self.currency} per million {option['throughput_unit']}"
            )
        return ", ".join(facts)

    def _lead(self, best: dict[str, Any], other: dict[str, Any]) -> str:
        if self.objective == WEIGHTED:
            apart = math.exp(other["score"] - best["score"])
            return f"{apart:.2f} times better, weighted, than the next, {other['option']}"
        column, word = {
            "latency": ("latency_s", "faster than"),
            "throughput": ("item_s", "the throughput of"),
            "memory": ("memory_bytes", "less memory than"),
            "cost": ("cost_per_million", "cheaper than"),
            "energy": ("joules_per_item", "less energy than"),
        }[self.objective]
        ratio = other[column] / best[column]
        return f"{ratio:.2f} times {word} the next, {other['option']}"


@dataclass(frozen=True)
class Decision:
    """What should run where, with reasons.

    Attributes
    ----------
    requirements : Requirements
    choices : tuple of Choice
        One a workload.
    origin : Origin, optional
        When it was made, and from which store and predictor.
    notes : tuple of str
        What to beware of, e.g. old prices.
    options : DataFrame
        Every option with its values, ``rank`` (1 is best; 0 where excluded), ``allowed``, ``tied``, ``why_not`` and
        ``excess`` (relative distance from being allowed, NaN where no limit would do).
    """

    requirements: Requirements
    choices: tuple[Choice, ...]
    options: pd.DataFrame = field(repr=False)
    notes: tuple[str, ...] = ()
    origin: Origin | None = None

    def table(self) -> pd.DataFrame:
        """One row a question: the choice, its numbers, ties and fallbacks."""
        import pandas as pd

        rows = []
        for choice in self.choices:
            best = choice.best or {}
            rows.append(
                {
                    "workload": choice.question,
                    "choice": best.get("option"),
                    "latency_s": best.get("latency_s"),
                    "throughput": best.get("throughput"),
                    "unit": best.get("throughput_unit"),
                    "memory_bytes": best.get("memory_bytes"),
                    "cost_per_million": best.get("cost_per_million"),
                    "known": None if not best else "predicted" if best["predicted"] else best["provenance"],
                    "chance_best": best.get("chance_best"),
                    "chance_of_limits": best.get("chance_of_limits"),
                    "tied_with": listed([name for name in choice.ties if name != best.get("option")]),
                    "fallbacks": " → ".join(choice.fallbacks),
                    "excluded": len(choice.excluded),
                }
            )
        return pd.DataFrame(rows)

    def exclusions(self) -> pd.DataFrame:
        """One row an excluded option: why, and its distance from being allowed (a fraction; NaN: no limit helps)."""
        table = self.options[~self.options["allowed"]]
        return table[["workload", "option", "why_not", "excess"]].reset_index(drop=True)

    def to_dict(self) -> dict[str, Any]:
        """As plain values that JSON can hold: SI units, ``None`` for what is not known; see ``docs/decision.schema.json``."""
        from labbench.selection.document import document

        return document(self).model_dump(mode="json")

    def __str__(self) -> str:
        lines = []
        for choice in self.choices:
            lines.append(choice.sentence)
            if choice.certainty:
                lines.append(f"    how sure: {choice.certainty}")
            if choice.fallbacks:
                lines.append(f"    if that fails: {' → '.join(choice.fallbacks)}")
            lines += [
                f"    not {option['option']}: {'; '.join(violation.reason for violation in found)}"
                for option, found in choice.excluded
            ]
            lines += [f"    to become sure: {one}" for one in choice.open]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        from html import escape

        items = "".join(f"<li>{escape(choice.sentence)}</li>" for choice in self.choices[:SHOWN])
        more = len(self.choices) - SHOWN
        tail = f"<p>and {more} more: see <code>table()</code></p>" if more > 0 else ""
        return f"<ul>{items}</ul>{tail}"


FEW = 10  # samples expected beyond a percentile: with fewer, it is little more than the largest one seen
SHOWN = 12  # choices in the short view of a notebook
LISTS = ("devices", "precisions", "runtimes", "vendors")
LEAST = ("min_throughput", "memory_headroom")  # requirements that are relaxed downwards


def _as_given(violation: Violation) -> str:
    assert violation.needed is not None
    name = violation.requirement
    show = {"max_memory_bytes": size, "max_training_s": hours}.get(name, number)
    show = seconds if name.startswith("max_latency") else show
    return show(outward(violation.needed, up=name not in LEAST))
