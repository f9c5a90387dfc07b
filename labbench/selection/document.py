"""A decision as plain data that programs read: the models of ``docs/decision.schema.json``."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from pydantic import AwareDatetime, Field

from labbench.cells import Frozen
from labbench.selection.requirements import Requirements

if TYPE_CHECKING:
    import pandas as pd

    from labbench.selection.decision import Choice, Decision


class Origin(Frozen):
    """Where and when a decision was made, and from what."""

    decided_at: AwareDatetime
    labbench: str = Field(description="version")
    store: str | None = Field(None, description="path of the database")
    records: int | None = Field(None, description="newest records of cells that it stands on")
    machines: int | None = None
    newest: AwareDatetime | None = Field(None, description="when the newest of them was begun")
    predictor: str | None = Field(None, description="what predicted; null: nothing did")

    @classmethod
    def of(cls, frame: pd.DataFrame, store: str | None = None, predictor: str | None = None) -> Origin:
        """Of a decision made now from the rows of a store."""
        from labbench import __version__

        newest = frame["started_at"].max()
        return cls(
            decided_at=datetime.now(UTC), labbench=__version__, store=store, predictor=predictor,
            records=int(frame["record_id"].nunique()), machines=int(frame["machine_id"].nunique()),
            newest=None if newest is None or newest != newest else newest.to_pydatetime(),
        )  # fmt: skip


class LimitCheck(Frozen):
    """One limit held against one option."""

    requirement: str = Field(description="field of the requirements")
    value: float | None = Field(description="what is judged, in the unit of the requirement; null: not known")
    limit: float
    distance: float | None = Field(
        description="relative to the limit, below 0 where it is met; of memory_headroom in shares of the device's memory"
    )
    chance: float | None = Field(description="probability that it is met, by what is known; null: not known")
    met: bool


class Parts(Frozen):
    """How well an option suits, each part in 0..1; null: not known."""

    support: float | None = Field(description="share of the cells tried on this platform at this precision that ran")
    memory_fit: float | None = Field(description="share of the device's memory that is left free at the peak")
    evidence: float | None = Field(description="latency over the pessimistic end of its interval")
    stability: float | None = Field(description="median over the 99th percentile of the latency")
    weakest: str | None
    sentence: str


class OptionDocument(Frozen):
    """A platform, precision and, if it was asked for, batch size. SI units."""

    option: str = Field(description="label")
    machine_id: str | None
    device: str
    device_name: str | None
    vendor: str | None
    runtime: str
    platform: str
    world_size: int | None
    precision: str
    batch_size: int
    series: str | None
    status: str
    provenance: str
    predicted: bool
    noise: str | None
    latency_s: float | None = Field(description="at the percentile asked for")
    latency_low_s: float | None
    latency_high_s: float | None
    median_s: float | None
    latency_p90_s: float | None
    latency_p99_s: float | None
    throughput: float | None = Field(description="items a second at the median latency")
    throughput_unit: str | None
    memory_bytes: float | None = Field(description="peak above an empty worker")
    memory_high_bytes: float | None
    device_memory_bytes: float | None
    joules_per_item: float | None
    output_error: float | None
    prepare_s: float | None
    cost_per_hour: float | None
    price_age_days: float | None
    cost_per_million: float | None
    training_s: float | None = Field(description="time to train on `samples` of the requirements")
    training_cost: float | None
    chance_of_limits: float | None = Field(description="that all limits are met, at least")
    chance_best: float | None = Field(description="that nothing else allowed is better by the objective")
    on_front: bool = Field(description="nothing allowed beats it in cost, latency, throughput and energy together")
    checks: list[LimitCheck]
    compatibility: Parts


class ViolationDocument(Frozen):
    """Why an option is excluded."""

    requirement: str
    reason: str
    needed: float | None = Field(description="value of the requirement at which the option is just allowed")
    excess: float | None = Field(description="distance relative to the requirement")
    unknown: bool = Field(
        description="nothing tells whether it is met: only without the requirement is the option allowed"
    )


class ExcludedDocument(OptionDocument):
    """An option that is not allowed."""

    violations: list[ViolationDocument]


class OpenDocument(Frozen):
    """A cell whose measurement may change a choice."""

    option: str
    why: str
    chance: float | None
    command: str | None


class ChoiceDocument(Frozen):
    """The decision for one workload."""

    question: str
    model: str
    mode: str
    choice: str | None = Field(description="label of the option chosen; null: nothing is allowed")
    sentence: str
    ranked: list[OptionDocument] = Field(description="allowed, best first")
    ties: list[str] = Field(description="options that cannot be told from the best")
    fallbacks: list[str]
    conflict: list[str] = Field(
        description="where nothing is allowed: the fewest requirements that cannot be met together"
    )
    open: list[OpenDocument] = Field(description="what to measure to become sure")
    excluded: list[ExcludedDocument] = Field(description="nearest to being allowed first")


class DecisionDocument(Frozen):
    """What ``labbench select --json`` prints."""

    version: Literal[1] = 1
    origin: Origin | None
    requirements: Requirements
    notes: list[str] = Field(description="what to beware of")
    choices: list[ChoiceDocument]


def json_schema() -> dict[str, Any]:
    """JSON Schema of a decision."""
    schema = DecisionDocument.model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "labbench decision"}


def document(decision: Decision) -> DecisionDocument:
    """A decision as its document."""
    return DecisionDocument(
        origin=decision.origin,
        requirements=decision.requirements.model_copy(update={"prices_file": None}),  # its prices are in it
        notes=list(decision.notes),
        choices=[_choice(choice) for choice in decision.choices],
    )


def _choice(choice: Choice) -> ChoiceDocument:
    return ChoiceDocument(
        question=choice.question,
        model=choice.model,
        mode=choice.mode,
        choice=choice.best["option"] if choice.best else None,
        sentence=choice.sentence,
        ranked=[OptionDocument(**_option(option)) for option in choice.ranked],
        ties=list(choice.ties),
        fallbacks=list(choice.fallbacks),
        conflict=list(choice.conflict),
        open=[OpenDocument(**_plain(vars(one))) for one in choice.open],
        excluded=[
            ExcludedDocument(
                **_option(option), violations=[ViolationDocument(**_plain(one.to_dict())) for one in found]
            )
            for option, found in choice.excluded
        ],
    )


def _option(option: dict[str, Any]) -> dict[str, Any]:
    fields = [name for name in OptionDocument.model_fields if name not in ("checks", "compatibility")]
    checks = [
        {
            **{name: getattr(one, name) for name in LimitCheck.model_fields if name != "met"},
            "met": one.violation is None,
        }
        for one in option["checks"]
    ]
    score = option["compatibility"]
    parts = score.parts | {"weakest": score.weakest, "sentence": score.sentence}
    told = {"checks": [LimitCheck(**_plain(one)) for one in checks], "compatibility": Parts(**_plain(parts))}
    return _plain({name: option[name] for name in fields}) | told


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {name: _value(value) for name, value in values.items()}


def _value(value: Any) -> Any:
    """A number as JSON has it: none that is not finite."""
    import pandas as pd

    if value is None or value is pd.NA:
        return None
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
