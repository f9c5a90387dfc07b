"""What would change the choices: prices, load, and predictions that are off."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from labbench.selection.choose import select
from labbench.selection.requirements import Requirements
from labbench.words import count, listed

if TYPE_CHECKING:
    import pandas as pd

    from labbench.prediction import Predictor
    from labbench.records import Environment
    from labbench.selection.decision import Decision

FACTORS = (0.5, 0.8, 1.25, 2.0)
LOAD, PREDICTION = "load", "predicted latency"


class Remembered:
    """A predictor that is asked the same cells again and again, and whose latencies may be ``factor`` times what it says."""

    def __init__(self, predictor: Predictor, told: dict[Any, pd.DataFrame] | None = None, factor: float = 1.0) -> None:
        self.predictor, self.told, self.factor = predictor, {} if told is None else told, factor

    def times(self, factor: float) -> Remembered:
        """The same, off by a factor."""
        return Remembered(self.predictor, self.told, factor)

    def predict(self, frame: pd.DataFrame, level: float | None = None, levels: Sequence[float] = ()) -> pd.DataFrame:
        """See :meth:`labbench.prediction.Predictor.predict`."""
        import pandas as pd

        key = (level, tuple(levels), int(pd.util.hash_pandas_object(frame[ASKED].astype(str), index=False).sum()))
        if key not in self.told:
            self.told[key] = self.predictor.predict(frame, level, levels)
        return self.told[key].assign(**{name: self.told[key][name] * self.factor for name in LATENCIES})


ASKED = ["machine_id", "platform", "model", "mode", "precision", "batch_size", "series"]
LATENCIES = ("latency_s", "latency_low_s", "latency_high_s")


def sensitivity(
    frame: pd.DataFrame,
    requirements: Requirements,
    predictor: Predictor | None = None,
    environments: Mapping[str, Environment] | None = None,
    factors: Sequence[float] = FACTORS,
) -> pd.DataFrame:
    """Choices if one thing were another: each price given, the throughput asked for, all predicted latencies.

    Parameters
    ----------
    frame, requirements, predictor, environments
        As of :func:`~labbench.selection.select`.
    factors : sequence of float
        By which each is multiplied, one at a time.

    Returns
    -------
    DataFrame
        A row for each of them, factor and workload: ``what``, ``factor``, ``workload``, ``choice`` (missing: nothing is allowed),
        ``before`` and ``changes``.
    """
    import pandas as pd

    asked = Remembered(predictor) if predictor is not None else None
    before = _choices(select(frame, requirements, asked, environments))  # type: ignore[arg-type]
    rows = [
        {"what": what, "factor": factor, "workload": name, "choice": choice, "before": before[name]}
        for what, factor, changed, off in _turned(requirements, asked, factors)
        for name, choice in _choices(select(frame, changed, off, environments)).items()  # type: ignore[arg-type]
    ]
    table = pd.DataFrame(rows, columns=["what", "factor", "workload", "choice", "before"])
    return table.assign(changes=table["choice"].fillna("") != table["before"].fillna(""))


def _turned(
    requirements: Requirements, asked: Remembered | None, factors: Sequence[float]
) -> Iterator[tuple[str, float, Requirements, Remembered | None]]:
    for factor in factors:
        for price in requirements.prices if _priced(requirements) else ():
            other = price.model_copy(update={"per_hour": price.per_hour * factor})
            prices = [other if one is price else one for one in requirements.prices]
            yield f"price of {price.device}", factor, requirements.model_copy(update={"prices": prices}), asked
        if requirements.min_throughput:
            load = {"min_throughput": requirements.min_throughput * factor}
            yield LOAD, factor, requirements.model_copy(update=load), asked
        if asked is not None:
            yield PREDICTION, factor, requirements, asked.times(factor)


def _priced(requirements: Requirements) -> bool:
    limits = (requirements.max_cost_per_hour, requirements.max_cost_per_million, requirements.max_training_cost)
    return "cost" in requirements.goals or any(limits)


def _choices(decision: Decision) -> dict[str, str | None]:
    return {choice.question: choice.best["option"] if choice.best else None for choice in decision.choices}


def sensitivity_sentence(table: pd.DataFrame) -> str:
    """How many choices hang on each thing, and what was not asked about."""
    if table.empty:
        return f"No choice hangs on a price, a load or a prediction: none was given. {_way(table)}"
    parts = []
    for what, rows in table.groupby("what", sort=False):
        changed = rows.loc[rows["changes"], "workload"].nunique()
        total = rows["workload"].nunique()
        low, high = rows["factor"].min(), rows["factor"].max()
        parts.append(f"{changed:,} of {count(total, 'choice')} if the {what} is {low:g} to {high:g} times as much")
    return f"What would change: {listed(parts)}. {_way(table)}".strip()


def _way(table: pd.DataFrame) -> str:
    asked = set(table["what"]) if len(table) else set()
    ways = [] if LOAD in asked else ["the load (give `min_throughput`)"]
    ways += [] if any(what.startswith("price") for what in asked) else ["prices (give them, and ask for cost)"]
    ways += [] if PREDICTION in asked else ["predictions (give a predictor)"]
    return f"Not asked about: {listed(ways)}." if ways else ""
