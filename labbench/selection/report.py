"""Tables and sentences of the selection notebook: computed from the decision, in human units."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from labbench.analysis.few import MOST_ROWS
from labbench.selection.doubts import SETTLED
from labbench.selection.figures import pareto_front
from labbench.selection.score import DEFINITIONS
from labbench.words import count, listed, number, rate, seconds, size

if TYPE_CHECKING:
    import pandas as pd

    from labbench.selection.decision import Choice, Decision
    from labbench.selection.requirements import Requirements


def requirements_table(requirements: Requirements) -> pd.DataFrame:
    """What is asked for: every requirement that was given, and what it means."""
    import pandas as pd

    given = requirements.model_dump(mode="json", exclude_unset=True)
    show: dict[str, Callable[[float], str]] = {name: seconds for name in given if name.startswith("max_latency")}
    show |= {"max_memory_bytes": size} | {name: number for name in given if name.startswith("max_cost")}
    rows = [
        {
            "requirement": name,
            "value": show[name](value) if name in show and value is not None else _text(value),
            "meaning": type(requirements).model_fields[name].description or "",
        }
        for name, value in given.items()
    ]
    return pd.DataFrame(rows)


def decision_table(decision: Decision) -> pd.DataFrame:
    """:meth:`Decision.table` in human units; columns that hold nothing are left out."""
    import pandas as pd

    table = decision.table()
    label = (
        "median" if decision.requirements.latency_percentile == 50 else f"p{decision.requirements.latency_percentile}"
    )
    unmet = table["choice"].isna()
    out = pd.DataFrame(
        {
            "workload": table["workload"],
            "choice": table["choice"].where(~unmet, "none"),
            f"{label} latency": _shown(table["latency_s"], seconds),
            "throughput": [
                "–" if none else rate(value, unit)
                for none, value, unit in zip(unmet, table["throughput"], table["unit"], strict=True)
            ],
            "peak memory": _shown(table["memory_bytes"], size),
            "cost per million": _shown(table["cost_per_million"], number),
            "provenance": [_known(choice) for choice in decision.choices],
            "best with": [_sure(choice, "chance_best") for choice in decision.choices],
            "within limits with": [_sure(choice, "chance_of_limits") for choice in decision.choices],
            "tied with": table["tied_with"],
            "fallbacks": table["fallbacks"],
        }
    )
    asked = decision.requirements
    if asked.objective != "throughput" and asked.min_throughput is None:
        out = out.drop(columns="throughput")
    certain = [name for name in ("best with", "within limits with") if out[name].isin([CERTAIN, "–"]).all()]
    out = out.drop(columns=certain)  # said once, by certainty_sentence
    return out[[name for name in out if not out[name].isin(["", "–"]).all()]]


CERTAIN = "> 99 %"


def _sure(choice: Choice, name: str) -> str:
    """A chance of the best option, no finer than it is known."""
    chance = choice.best[name] if choice.best else float("nan")
    return "–" if math.isnan(chance) else CERTAIN if chance > 0.99 else f"{100 * chance:.0f} %"


def certainty_sentence(decision: Decision) -> str:
    """How many choices are sure, and on how many cells the others hang."""
    made = [choice for choice in decision.choices if choice.best]
    if not made:
        return "Nothing was chosen, so nothing is sure."
    untold = sum(math.isnan(choice.best["chance_best"]) for choice in made if choice.best)
    if untold == len(made):
        return "How sure the choices are is not known: no interval is."
    sure = [choice for choice in made if choice.best and choice.best["chance_best"] >= SETTLED]
    are = "is" if len(sure) == 1 else "are"
    text = f"{len(sure)} of {count(len(made), 'choice')} {are} the best with at least 95 % probability"
    cells = sum(len(choice.open) for choice in decision.choices)
    return text + (
        f"; {count(cells, 'cell')} may change or settle one." if cells else "; no single cell would change one."
    )


def open_table(decision: Decision) -> pd.DataFrame:
    """What to measure to become sure: the cell, why, and the command; at most 100."""
    import pandas as pd

    rows = [
        {"workload": choice.question, "option": one.option, "why": one.why, "command": one.command or "–"}
        for choice in decision.choices
        for one in choice.open
    ]
    return pd.DataFrame(rows[:MOST_ROWS], columns=["workload", "option", "why", "command"])


def compatibility_table(decision: Decision) -> pd.DataFrame:
    """What each part of the compatibility means, and its lowest value among the choices."""
    import pandas as pd

    made = [(choice.question, choice.best["compatibility"]) for choice in decision.choices if choice.best]
    rows = []
    for name, meaning in DEFINITIONS.items():
        known = [(score.parts[name], question) for question, score in made if not math.isnan(score.parts[name])]
        lowest = min(known) if known else None
        told = (
            {"lowest of a choice": f"{lowest[0]:.2f}", "of": lowest[1]}
            if lowest
            else {"lowest of a choice": "–", "of": "–"}
        )
        rows.append({"part": name.replace("_", " "), "meaning": meaning, **told})
    return pd.DataFrame(rows)


def exclusion_table(decision: Decision) -> pd.DataFrame:
    """Excluded options, nearest to being allowed first within each workload."""
    import pandas as pd

    table = decision.exclusions()
    return pd.DataFrame({"workload": table["workload"], "option": table["option"], "why not": table["why_not"]})


def exclusion_sentence(decision: Decision) -> str:
    """How many options were excluded, by what, and what would have to give where nothing is left."""
    found = [violation for choice in decision.choices for _, items in choice.excluded for violation in items]
    excluded = sum(len(choice.excluded) for choice in decision.choices)
    if not excluded:
        return "No option was excluded: every cell ran and meets the requirements."
    counts = Counter(violation.requirement for violation in found)
    by = listed([f"{times:,} by {name}" for name, times in counts.most_common()])
    text = f"{excluded:,} of {len(decision.options):,} options {'is' if excluded == 1 else 'are'} excluded: {by}."
    unmet = [choice for choice in decision.choices if choice.best is None]
    if unmet:
        have = "has" if len(unmet) == 1 else "have"
        text += f" {count(len(unmet), 'workload')} {have} no option left, such as {unmet[0].question}. {unmet[0].relaxation}"
    return text


def front_sentence(decision: Decision) -> str:
    """For how many workloads latency and memory pull apart."""
    allowed = decision.options[decision.options["allowed"]]
    sizes = [
        len(pareto_front(rows, "latency_s", "memory_bytes"))
        for _, rows in allowed.groupby("workload", observed=True, sort=False)
    ]
    apart = sum(length > 1 for length in sizes)
    if not any(sizes):
        return "Of no option that is allowed are both latency and memory known."
    if not apart:
        return "For every workload one option is best in both latency and memory."
    rest = "" if apart == len(sizes) else "; for the others one option is best in both"
    return f"For {apart} of {count(len(sizes), 'workload')} less memory costs latency{rest}."


def decision_list(decision: Decision) -> str:
    """Every choice with its reasons and fallbacks, as a Markdown list; at most 100 workloads."""
    lines = []
    for choice in decision.choices[:MOST_ROWS]:
        lines.append(f"- {choice.sentence}")
        lines += [f"    - how sure: {choice.certainty}"] if choice.certainty else []
        lines += [f"    - if that fails: {' → '.join(choice.fallbacks)}"] if choice.fallbacks else []
        lines += [
            f"    - not {option['option']}: {'; '.join(violation.reason for violation in found)}"
            for option, found in choice.excluded
        ]
        lines += [f"    - to become sure: {one}" for one in choice.open]
    rest = len(decision.choices) - MOST_ROWS
    lines += [f"- and {count(rest, 'more workload')}"] if rest > 0 else []
    return "\n".join(lines)


def _known(choice: Choice) -> str:
    """Where the numbers of a choice come from, and whether they can be trusted."""
    if choice.best is None:
        return "–"
    source = "predicted" if choice.best["predicted"] else str(choice.best["provenance"])
    return f"{source}, unstable" if choice.best["noise"] == "unstable" else source


def _shown(values: pd.Series, show: Callable[[float], str]) -> list[str]:
    return ["–" if missing else show(value) for value, missing in zip(values, values.isna(), strict=True)]


def _text(value: object) -> str:
    return listed([str(item) for item in value]) if isinstance(value, list) else str(value)


def catalogue_table(table: pd.DataFrame) -> pd.DataFrame:
    """:func:`labbench.selection.catalogue.catalogue` in human units; columns that hold nothing are left out."""
    import pandas as pd

    out = pd.DataFrame(
        {
            "device": table["device"],
            "name": table["device_name"],
            "machine": table["machine_id"],
            "vendor": table["vendor"],
            "memory": _shown(table["memory_bytes"], size),
            "architecture": table["architecture"],
            "known": table["known"],
            "records": table["cells"],
            "per hour": [
                "–" if missing else f"{number(price)} {currency}"
                for price, currency, missing in zip(
                    table["per_hour"], table["currency"], table["per_hour"].isna(), strict=True
                )
            ],
            "price of": table["as_of"],
            "source": table["source"],
        }
    )
    return out[[name for name in out if not (out[name].isna() | out[name].isin(["", "–"])).all()]]
