"""Filter, rank, and find ties, chances and fallbacks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from labbench.prediction.features import kind_of
from labbench.selection.chances import Belief, chances_of_best
from labbench.selection.decision import Choice, Decision
from labbench.selection.doubts import to_measure
from labbench.selection.fallback import fallbacks
from labbench.selection.limits import Check, Violation, checks, violations
from labbench.selection.options import MILLION, TAILS, Options, options, question
from labbench.selection.pareto import non_dominated
from labbench.selection.prices import price_notes
from labbench.selection.requirements import WEIGHTED, Requirements, SelectionError
from labbench.selection.score import compatibility
from labbench.words import count, percent

if TYPE_CHECKING:
    import pandas as pd

    from labbench.prediction import Predictor
    from labbench.records import Environment

# objective -> columns of its value and of the ends of its interval; less is better in all of them
OBJECTIVES = {
    "latency": ("latency_s", "latency_low_s", "latency_high_s"),
    "throughput": ("item_s", "item_low_s", "item_high_s"),
    "memory": ("memory_bytes", "memory_low_bytes", "memory_high_bytes"),
    "cost": ("cost_per_million", "cost_per_million_low", "cost_per_million_high"),
    "energy": ("joules_per_item", "joules_per_item", "joules_per_item"),
    WEIGHTED: ("score", "score_low", "score_high"),
}
FRONT = ("cost_per_million", "latency_s", "item_s", "joules_per_item")  # of cost, latency, throughput and energy
LIKELY = (
    0.1  # an option ten times less likely to be the best than another is no tie, even if the ends of intervals meet
)
TIE_BREAKERS = ("predicted", "memory_bytes", "prepare_s")


def select(
    frame: pd.DataFrame,
    requirements: Requirements | None = None,
    predictor: Predictor | None = None,
    environments: Mapping[str, Environment] | None = None,
) -> Decision:
    """Choose a platform and precision for every workload.

    Parameters
    ----------
    frame : DataFrame
        ``Store.latest()``.
    requirements : Requirements, optional
        Default: the lowest latency, no limits.
    predictor : Predictor, optional
        Fitted; without one only what was measured can be chosen. A prediction outside what was measured excludes its
        option; one inside is judged at the pessimistic end of its interval and loses ties to anything measured.
    environments : mapping, optional
        ``Store.environments()``: tell how much memory devices have. Without them only datasheets do.

    Raises
    ------
    SelectionError, ConfigError
        If the store cannot answer: names what is missing or the nearest known name.
    """
    requirements = requirements or Requirements()
    if requirements.gpus and predictor is None:
        raise SelectionError(
            f"nobody measured {requirements.gpus[0]}: it can only be predicted; give a fitted predictor "
            "(`labbench select --predict`)"
        )
    found = options(frame, requirements, predictor, environments)
    table, size = found.table, len(found.table)
    rows: list[dict[str, Any]] = table.to_dict("records")
    checked = checks(found, rows, requirements)
    excluded = [
        [*violations(row, items, requirements), *_no_objective(row, requirements)]
        for row, items in zip(rows, checked, strict=True)
    ]
    table["allowed"] = [not items for items in excluded]
    for end in ("", "_low", "_high"):
        table[f"score{end}"] = _score(table, requirements, end)
    allowed, compared = table["allowed"].to_numpy(bool), _compared(table, requirements)
    beliefs, front = _beliefs(found, requirements), table[list(FRONT)].to_numpy(float)
    rank, tied, on_front, best = np.zeros(size, int), np.zeros(size, bool), np.zeros(size, bool), np.full(size, np.nan)
    groups = [places for _, places in sorted(table.groupby("question").indices.items())]
    kinds, ranks = kind_of(table).to_numpy(str), []
    for places in groups:
        left = places[allowed[places]]
        if len(left):
            of_left = {name: one.take(left) for name, one in beliefs.items()}
            best[left] = chances_of_best(of_left, requirements.goals, kinds[left])
            on_front[left] = non_dominated(front[left])
        ranked, ties, reason = _rank(compared.loc[left].assign(chance=best[left]), requirements)
        rank[ranked], tied[ties] = np.arange(1, len(ranked) + 1), len(ties) > 1
        ranks.append((places, ranked, ties, reason))
    judged: dict[str, Any] = {
        "allowed": table["allowed"].tolist(),
        "workload": [_workload(row, requirements) for row in rows],
        "why_not": ["; ".join(item.reason for item in items) or None for items in excluded],
        "excess": [_excess(items) for items in excluded],
        "chance_of_limits": [_chance(items) for items in checked],
        "rank": rank.tolist(), "tied": tied.tolist(), "on_front": on_front.tolist(), "chance_best": best.tolist(),
    }  # fmt: skip
    table = table.assign(**judged)
    judged |= {
        "score": table["score"].tolist(),
        "checks": map(tuple, checked),
        "compatibility": compatibility(rows, frame),
    }
    for name, values in judged.items():
        for row, value in zip(rows, values, strict=True):
            row[name] = value
    choices = tuple(_choice(*one, rows, excluded, requirements) for one in ranks)
    known = {
        str(name) for column in ("machine_id", "device_name", "device") for name in table[column].dropna().unique()
    }
    order = table.assign(last=table["rank"] == 0).sort_values(["question", "last", "rank", "excess"], kind="stable")
    notes = tuple(price_notes(requirements.prices, known))
    return Decision(requirements, choices, order.drop(columns="last").reset_index(drop=True), notes)


def _compared(table: pd.DataFrame, requirements: Requirements) -> pd.DataFrame:
    """The columns by which options are ranked."""
    return table[list(dict.fromkeys((*OBJECTIVES[requirements.aim], *TIE_BREAKERS)))].copy()


def _no_objective(row: dict[str, Any], requirements: Requirements) -> list[Violation]:
    """An option that ran but of which nothing tells how good it is."""
    if row["status"] != "ok" or row["out_of_domain"]:
        return []
    reasons = {
        "cost": f"no price is given for {row['device']}",
        "energy": "its energy was not measured",
        "memory": "its memory was not measured",
    }
    lacking = [name for name in requirements.goals if np.isnan(float(row[OBJECTIVES[name][0]]))]
    return [
        Violation("objective", f"its {name} is not known: {reasons.get(name, 'no figure is stored')}")
        for name in lacking
    ]


def _score(table: pd.DataFrame, requirements: Requirements, end: str) -> np.ndarray:
    """Weighted sum of logs over the best value of the question, options that are excluded left aside; see ``weights``."""
    total = np.zeros(len(table))
    for name, weight in requirements.goals.items():
        column = OBJECTIVES[name][("", "_low", "_high").index(end)]
        best = table[OBJECTIVES[name][0]].where(table["allowed"]).groupby(table["question"]).transform("min")
        with np.errstate(divide="ignore", invalid="ignore"):
            total = total + weight * np.log(table[column].to_numpy(float) / best.to_numpy(float))
    return np.where(table["allowed"], total, np.nan)


def _beliefs(found: Options, requirements: Requirements) -> dict[str, Belief]:
    """Of what the objective consists of, for all rows."""
    table, beliefs = found.table, found.beliefs
    items, median = table["items_per_call"].to_numpy(float, na_value=np.nan), beliefs["median"]
    hourly, joules = (table[name].to_numpy(float) for name in ("cost_per_hour", "joules_per_item"))
    nothing = np.zeros_like(median.below)
    made = {
        "memory": lambda: beliefs["memory"],
        "latency": lambda: beliefs[TAILS[requirements.latency_percentile]],
        "energy": lambda: Belief(joules, median.levels, nothing, nothing),
        "throughput": lambda: median.times(1 / items),
        "cost": lambda: median.times(MILLION * hourly / 3600 / items),
    }
    return {name: made[name]() for name in requirements.goals}


def _chance(checked: list[Check]) -> float:
    """That all limits are met, at least: misses may not overlap (Boole's inequality).

    A limit on what has no interval is met or not; NaN if there is no other.
    """
    asked = [check for check in checked if check.limit > 0]  # head-room of 0 is not asked for
    if any(check.violation and np.isnan(check.chance) for check in asked):
        return 0.0
    told = [check.chance for check in asked if not np.isnan(check.chance)]
    return float(max(0.0, 1 - sum(1 - chance for chance in told))) if told else float("nan")


def headline(decision: Decision) -> str:
    """The decision in one or two sentences, computed from it."""
    made = [choice for choice in decision.choices if choice.best]
    first, total = decision.choices[0], len(decision.choices)
    if total == 1:
        return first.sentence
    if not made:
        return f"Nothing meets the requirements for any of {total:,} workloads, such as {first.question}. {first.relaxation}"
    ranking = Counter(choice.best["option"] for choice in made if choice.best).most_common()
    best, wins = ranking[0]
    what = {"latency": "fastest", "throughput": "fastest", "memory": "leanest", "cost": "cheapest"}
    what |= {"energy": "most frugal", WEIGHTED: "best weighted"}
    rest = ", ".join(f"{name} for {times:,}" for name, times in ranking[1:])
    text = f"{best} is the {what[decision.requirements.aim]} choice for {wins:,} of {total:,} workloads"
    text += f" ({rest})" if rest else ""
    unmet = total - len(made)
    text += f"; {unmet:,} cannot meet the requirements" if unmet else ""
    return " ".join(filter(None, [f"{text}.", _worth(decision, best), _doubt(decision)]))


def token_headline(frame: pd.DataFrame) -> str:
    """What would be chosen for the further tokens of generative models; empty where none was measured.

    The workload's own latency is that of the first token, and the platform that is best at it need not be at the others.
    """
    models = frame.loc[(frame["series"] == "decode") & (frame["status"] == "ok"), "model"].astype("str").unique()
    if not len(models):
        return ""
    decision = select(frame, Requirements(models=sorted(models), modes=["inference"], series="decode"))
    best = Counter(choice.best["option"] for choice in decision.choices if choice.best).most_common()
    (name, wins), rest = best[0], ", ".join(f"{name} for {times}" for name, times in best[1:])
    text = f"{name} is the fastest choice for {wins} of {count(len(decision.choices), 'workload')}"
    return f"In generating text, latency here is that of the first token; for every further one {text}" + (
        f" ({rest})." if rest else "."
    )


def study_headline(store: str | Path) -> str:
    """:func:`headline` of inference at the lowest latency, without limits; what the report's front page says."""
    from labbench.store import Store

    table = Store(store).latest()
    modes: Any = ["inference"] if "inference" in set(table["mode"].astype("str")) else None
    try:
        decision = select(table, Requirements(modes=modes))
    except SelectionError as error:
        return f"No decision: {error}."
    said = headline(decision)
    several = len(decision.choices) > 1 and any(choice.best for choice in decision.choices)
    return f"{'Without limits, ' if several else ''}{said} {token_headline(table)}".strip()


def _worth(decision: Decision, favourite: str) -> str:
    """What the most frequent choice costs where it is not the best, and what excluded options there are."""
    if decision.requirements.weights:
        return ""
    column = OBJECTIVES[decision.requirements.objective][0]
    losses = []
    for choice in decision.choices:
        values = {option["option"]: option[column] for option in choice.ranked}
        if favourite in values:
            losses.append(values[favourite] / min(values.values()) - 1)
    lacking = sum(
        favourite not in {option["option"] for option in choice.ranked} for choice in decision.choices if choice.best
    )
    if not lacking and not any(losses):
        return ""
    unit = {"memory": "memory", "cost": "cost", "energy": "energy"}.get(decision.requirements.objective, "latency")
    text = f"Using it for everything would cost {percent(float(np.mean(losses)))} of {unit} on average"
    worst = f" and {percent(float(np.max(losses)))} at worst" if max(losses) > 0 else ""
    return text + worst + (f", and {lacking} workload{'s' * (lacking > 1)} cannot use it." if lacking else ".")


def _doubt(decision: Decision) -> str:
    """How many choices rest on times that were measured on an unstable machine."""
    shaky = sum(choice.best["noise"] == "unstable" for choice in decision.choices if choice.best)
    if not shaky or decision.requirements.objective == "memory":
        return ""
    return f"{count(shaky, 'choice rests', 'choices rest')} on an unstable measurement."


def _rank(rows: pd.DataFrame, requirements: Requirements) -> tuple[list[Any], list[Any], str]:
    """Row labels in order of preference, those tied with the best, and what broke the tie.

    Memory breaks ties among measured options alone. Intervals of predictions overlap where their order is known well: options of
    one model err alike, and to choose among them by anything but the point gives away many times more (docs/selection_regret.md).
    """
    value, low, high = OBJECTIVES[requirements.aim]
    if rows.empty:
        return [], [], ""
    known = rows.sort_values(value, kind="stable")
    best = known.iloc[0]
    overlap = (known[low] <= best[high]) & (known[high] >= best[low])
    overlap &= known["chance"].isna() | (known["chance"] >= LIKELY * known["chance"].max())
    tied = known[overlap | (known.index == best.name)].assign(
        memory_bytes=lambda t: t["memory_bytes"].where(~t["predicted"].astype(bool)),
        unknown_memory=lambda t: t["memory_bytes"].isna(),
        unprepared=lambda t: t["prepare_s"].fillna(np.inf),
    )
    tied = tied.sort_values(["predicted", "unknown_memory", "memory_bytes", "unprepared", value], kind="stable")
    rest = known[~known.index.isin(tied.index)]
    return [*tied.index, *rest.index], list(tied.index), _tie_break(tied)


def _tie_break(tied: pd.DataFrame) -> str:
    """What the first of the tied has over the second."""
    if len(tied) < 2:
        return ""
    first, second = tied.iloc[0], tied.iloc[1]
    if first["predicted"] != second["predicted"]:
        return "it was measured"
    if first["memory_bytes"] < second["memory_bytes"]:
        return "it needs less memory"
    if first["unprepared"] < second["unprepared"]:
        return "it is prepared sooner"
    return "its point estimate is the best"


def _choice(
    labels: np.ndarray,
    ranked: list[int],
    ties: list[int],
    reason: str,
    described: list[dict[str, Any]],
    found: list[list[Violation]],
    requirements: Requirements,
) -> Choice:
    allowed = [described[label] | {"tie_break": reason} for label in ranked]
    excess = {label: float(described[label]["excess"]) for label in labels}
    out = sorted(
        (label for label in labels if found[label]),
        key=lambda label: (np.isnan(excess[label]), any(one.unknown for one in found[label]), excess[label]),
    )
    first = described[labels[0]]
    excluded = tuple((described[label], tuple(found[label])) for label in out)
    return Choice(
        question=str(first["workload"]),
        model=str(first["model"]),
        mode=str(first["mode"]),
        ranked=tuple(allowed),
        ties=tuple(described[label]["option"] for label in ties),
        fallbacks=_fallbacks(allowed),
        excluded=excluded,
        objective=requirements.aim,
        percentile=requirements.latency_percentile,
        currency=requirements.currency,
        open=to_measure(allowed, excluded, len(ties) > 1),
    )


def _fallbacks(ranked: list[dict[str, Any]]) -> tuple[str, ...]:
    """Options that do not fail together with the choice: on other machines, devices and runtimes, as far as there are."""
    return tuple(str(link.option["option"]) for link in fallbacks(ranked, ("machine_id", "device", "runtime")))


def _excess(found: list[Violation]) -> float:
    """The largest distance, of limits that something tells about; NaN where no limit would do."""
    told = [one for one in found if not one.unknown]
    if not told or any(one.excess is None for one in told):
        return float("nan")
    return max(float(one.excess or 0) for one in told)


def _workload(row: dict[str, Any], requirements: Requirements) -> str:
    import pandas as pd

    from labbench.cells import Workload

    fields = {name: row[name] for name in question(requirements) if not pd.isna(row[name])}
    work = Workload(**{name: _python(value) for name, value in fields.items()})
    shape = " ".join(work.shape_label.split()[1:]) if requirements.choose_batch else work.shape_label
    return f"{work.model} {work.mode} {shape}".strip()


def _python(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value
