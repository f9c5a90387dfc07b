"""``notebooks/config/hardware_selection_config.json``: what a choice must satisfy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, RootModel, model_validator

from labbench.cells import Frozen, Mode, Precision
from labbench.config import ConfigError, parse, read
from labbench.selection.prices import Price, read_prices

Objective = Literal["latency", "throughput", "memory", "cost", "energy"]
WEIGHTED = "weighted score"
COSTS = ("max_cost_per_hour", "max_cost_per_million", "max_training_cost")
POSITIVE = (  # limits of which 0 would allow nothing
    *("max_latency_s", "max_latency_p50_s", "max_latency_p90_s", "max_latency_p99_s", "max_memory_bytes"),
    *("max_joules_per_item", "max_training_s", *COSTS),
)


class SelectionError(ValueError):
    """Nothing can be selected; the message names the reason and the nearest way out."""


class Requirements(Frozen):
    """What a decision must respect. A limit that is ``None`` does not apply.

    Limits are checked at the pessimistic end of what is known: the upper end of the 95 % interval of a measured latency, the
    upper end of the ``confidence`` interval of a predicted one. With ``probability`` they are chance constraints instead: both
    are judged at that quantile of what is believed of them (:mod:`labbench.selection.chances`).
    """

    models: list[str] | None = Field(None, description="only these; null: every model in the store")
    modes: list[Mode] | None = Field(None, description="inference, training; null: both")
    series: str | None = Field(None, description="forward, prefill, decode, step; null: each workload's primary one")
    objective: Objective = Field("latency", description="what the choice is best at among the options allowed")
    weights: dict[Objective, Annotated[float, Field(gt=0)]] | None = Field(
        None,
        description="instead of one objective: the choice has the least sum of weight × log(value / best value) over these, so "
        "that with equal weights 1 % of one is worth 1 % of another",
    )
    choose_batch: bool = Field(False, description="true: the batch size belongs to the answer, not to the question")
    probability: float | None = Field(
        None,
        ge=0.5,
        lt=1,
        description="with which a limit must be met by what is known, e.g. 0.95; null: see confidence",
    )
    latency_percentile: Literal[50, 90, 99] = Field(50, description="which latency is limited and compared")
    max_latency_s: float | None = Field(None, gt=0, description="the longest a call may take, at that percentile")
    max_latency_p50_s: float | None = Field(None, gt=0, description="the longest the median call may take")
    max_latency_p90_s: float | None = Field(None, gt=0, description="the longest nine calls of ten may take")
    max_latency_p99_s: float | None = Field(None, gt=0, description="the longest 99 calls of a hundred may take")
    min_throughput: float | None = Field(None, gt=0, description="items a second, in the unit of the series")
    max_memory_bytes: int | None = Field(None, gt=0, description="peak memory above an empty worker")
    memory_headroom: float = Field(
        0.0, ge=0, lt=1, description="share of the device's memory that must stay free, where the device's is known"
    )
    max_output_error: float | None = Field(
        None, gt=0, description="largest difference of the output from eager fp32's, over the largest output"
    )
    max_joules_per_item: float | None = Field(None, gt=0, description="energy of one item, where it was measured")
    max_cost_per_hour: float | None = Field(None, gt=0, description="in the currency of the prices")
    max_cost_per_million: float | None = Field(None, gt=0, description="for a million items, back to back")
    samples: float | None = Field(None, gt=0, description="training: how many are to be trained on")
    max_training_s: float | None = Field(None, gt=0, description="the longest that training on `samples` may take")
    max_training_cost: float | None = Field(None, gt=0, description="what training on `samples` may cost")
    vendors: list[str] | None = Field(None, description="allowed makers of the device, e.g. NVIDIA; null: all")
    devices: list[str] | None = Field(None, description="allowed devices, as cpu or by their names; null: all")
    runtimes: list[str] | None = Field(None, description="allowed runtimes; null: all")
    precisions: list[Precision] | None = Field(None, description="allowed precisions; null: all")
    gpus: list[str] = Field(
        default_factory=list, description="cards that nobody measured, to be predicted from their datasheets"
    )
    prices: list[Price] = Field(default_factory=list)
    prices_file: str | None = Field(
        None, description="CSV of prices (device, per_hour, currency, as_of, source), relative to this file"
    )
    confidence: float = Field(
        0.9, gt=0, lt=1, description="level of the interval by which predicted options are judged"
    )

    @model_validator(mode="before")
    @classmethod
    def _prices_and_budgets(cls, given: Any) -> Any:
        """Prices of the file come after those given directly, which so win; then no budget may be nothing."""
        if not isinstance(given, dict):
            return given
        prices = [_parsed(price) for price in given.get("prices") or []]
        if isinstance(given.get("prices_file"), str):
            prices += [price for price in read_prices(given["prices_file"]) if price not in prices]
            given = given | {"prices": prices}
        for name in POSITIVE:
            if isinstance(given.get(name), int | float) and given[name] <= 0:
                raise ConfigError(_nothing(name, given[name], prices))
        return given

    @model_validator(mode="after")
    def _consistent(self) -> Requirements:
        asks = [name for name in COSTS if getattr(self, name) is not None]
        asks += ["objective 'cost'"] if "cost" in self.goals else []
        if asks and not self.prices:
            raise ConfigError(
                f'{asks[0]} needs prices, and labbench invents none; give them as "prices": [{{"device": "cpu", '
                '"per_hour": ..., "currency": "...", "as_of": "YYYY-MM-DD", "source": "where it stands"}], or in a CSV file of '
                'these columns as "prices_file" (`labbench select --prices FILE`)'
            )
        currencies = sorted({price.currency for price in self.prices})
        if len(currencies) > 1:
            raise ConfigError(f"prices are in {' and '.join(currencies)}; give all of them in one currency")
        if self.weights is not None and not self.weights:
            raise ConfigError("weights: {} weighs nothing; name an objective or two, or leave it out")
        if self.weights and "objective" in self.model_fields_set:
            raise ConfigError("objective and weights exclude each other; leave one of them out")
        training = [name for name in ("max_training_s", "max_training_cost") if getattr(self, name) is not None]
        if training and self.samples is None:
            raise ConfigError(f'{training[0]} needs the number of samples to train on; give it as "samples"')
        return self

    @property
    def goals(self) -> dict[str, float]:
        """Each objective that counts, and its weight."""
        return {str(name): weight for name, weight in (self.weights or {self.objective: 1.0}).items()}

    @property
    def aim(self) -> str:
        """What the choice is best at, in words."""
        return WEIGHTED if self.weights else self.objective

    @property
    def currency(self) -> str:
        """Currency of the prices, or an empty text where there are none."""
        return self.prices[0].currency if self.prices else ""

    def price_of(self, *names: str) -> Price | None:
        """The first price given for any of these names, tried in order."""
        given = {price.device: price for price in reversed(self.prices)}
        return next((given[name] for name in names if name in given), None)


def _nothing(name: str, value: float, prices: list[Price]) -> str:
    """A budget of nothing is a mistake that deserves the nearest one that buys something."""
    cheapest = ""
    if name == "max_cost_per_hour" and prices:
        price = min(prices, key=lambda one: one.per_hour)
        cheapest = f"; the cheapest price given is {price.per_hour:g} {price.currency} ({price.device})"
    return f"{name}: {value:g} allows nothing, it must be greater than 0{cheapest}; leave it out for no limit"


def _parsed(price: Any) -> Price:
    return price if isinstance(price, Price) else parse(Price, price, "prices")


def read_requirements(path: str | Path | None = None, **changes: Any) -> Requirements:
    """Requirements from a JSON file (default: none), with single fields changed.

    Raises
    ------
    ConfigError
        For an unknown key or value (naming the nearest known one), or a cost question without prices.
    """
    if path is None:
        return parse(Requirements, changes, "requirements")
    given = _given(Path(path))
    if "weights" in changes:
        given.pop("objective", None)
    if "objective" in changes:
        given.pop("weights", None)
    return parse(Requirements, given | changes, str(path))


class Anything(RootModel[dict[str, Any]]):
    """A JSON object, not looked into."""


def _given(path: Path) -> dict[str, Any]:
    """What the file says, after reading it whole; a price file is looked for beside it."""
    data = dict(read(Anything, path).root)
    if isinstance(data.get("prices_file"), str):
        data["prices_file"] = str(path.parent / data["prices_file"])
    return data
