"""The commands that say what should run where."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from labbench.cli import print_frame, print_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from labbench.cli_store import Command, Option
    from labbench.prediction import Predictor
    from labbench.records import Environment
    from labbench.selection import Requirements
    from labbench.store import Store

EXAMPLE = "labbench select --objective latency --max-latency-ms 20 --p99 --max-memory-gb 2"
# option -> requirement and the factor from what is written to SI
NUMBERS = {
    "max_latency_ms": ("max_latency_s", 1e-3, "MS", "the longest a call may take"),
    "min_throughput": ("min_throughput", 1.0, "RATE", "items a second"),
    "max_memory_gb": ("max_memory_bytes", 1e9, "GB", "peak memory, 10⁹ bytes"),
    "headroom": ("memory_headroom", 1.0, "SHARE", "of the device's memory that must stay free, e.g. 0.2"),
    "max_cost_per_hour": ("max_cost_per_hour", 1.0, "PRICE", "in the currency of the prices"),
    "max_cost_per_million": ("max_cost_per_million", 1.0, "PRICE", "of a million items"),
    "max_joules": ("max_joules_per_item", 1.0, "J", "energy of one item"),
    "probability": ("probability", 1.0, "P", "with which every limit must be met by what is known, e.g. 0.95"),
    "samples": ("samples", 1.0, "N", "training: tell what it takes to train on so many"),
    "max_training_hours": ("max_training_s", 3600.0, "H", "training on that many samples"),
    "max_training_cost": ("max_training_cost", 1.0, "PRICE", "of training on that many samples"),
}
LISTS = {
    "model": ("models", "only these models"),
    "mode": ("modes", "inference or training"),
    "device": ("devices", "allowed devices, as cpu or by name"),
    "vendor": ("vendors", "allowed makers of devices"),
    "runtime": ("runtimes", "allowed runtimes"),
    "precision": ("precisions", "allowed precisions"),
    "gpu": ("gpus", "cards that nobody measured, predicted from their datasheets; fits a predictor"),
}


def add(command: Command, store: Option, as_json: Option) -> None:
    """Add the commands; ``store`` and ``as_json`` add the options ``--store`` and ``--json``."""
    select = command(
        "select",
        _select,
        "which platform to run each model on under the given limits, and why the others were excluded",
        EXAMPLE,
    )
    select.add_argument("--config", metavar="FILE", help="a hardware_selection_config.json; options win over it")
    select.add_argument("--objective", help="latency, throughput, memory, cost or energy")
    select.add_argument(
        "--p99", action="store_true", help="the latency limit is for the 99th percentile, not the median"
    )
    for name, (_, _, unit, text) in NUMBERS.items():
        select.add_argument(f"--{name.replace('_', '-')}", type=float, metavar=unit, help=text)
    for name, (_, text) in LISTS.items():
        select.add_argument(f"--{name}", nargs="+", metavar=name.upper(), help=text)
    select.add_argument("--choose-batch", action="store_true", help="the batch size belongs to the answer")
    select.add_argument(
        "--weight",
        nargs="+",
        metavar="AIM=WEIGHT",
        help="several objectives at once, e.g. latency=2 cost=1: the least sum of their weighted logs",
    )
    _prices(select)
    predictor(select)
    store(select)
    as_json(select)

    catalogue = command(
        "catalogue",
        _catalogue,
        "the devices to choose from: what they are, how they are known, what they cost",
        'labbench catalogue --gpu "RTX 5090" --prices prices.csv',
    )
    catalogue.add_argument("--gpu", nargs="+", metavar="GPU", help="cards that nobody measured")
    _prices(catalogue)
    store(catalogue)
    as_json(catalogue)


def predictor(parser: Any) -> None:
    """Add the options by which :func:`predictor_of` chooses what answers where nothing was measured."""
    parser.add_argument(
        "--predict", action="store_true", help="fit a predictor now; it answers where nothing was measured"
    )
    parser.add_argument(
        "--predictor",
        metavar="NAME",
        help="one that `labbench fit` kept answers where nothing was measured; only of people you trust",
    )


def _prices(parser: Any) -> None:
    parser.add_argument(
        "--prices", metavar="FILE", help="CSV of what devices cost: device, per_hour, currency, as_of, source"
    )


def _asked(options: Any) -> Requirements:
    from labbench.selection import read_requirements

    changes: dict[str, Any] = {}
    for name, (field, factor, _, _) in NUMBERS.items():
        value = getattr(options, name)
        if value is not None:
            changes[field] = int(value * factor) if field == "max_memory_bytes" else value * factor
    changes |= {field: getattr(options, name) for name, (field, _) in LISTS.items() if getattr(options, name)}
    changes |= {"latency_percentile": 99} if options.p99 else {}
    changes |= {"choose_batch": True} if options.choose_batch else {}
    changes |= {"objective": options.objective} if options.objective else {}
    changes |= {"weights": _weights(options.weight)} if options.weight else {}
    changes |= {"prices_file": options.prices} if options.prices else {}
    return read_requirements(options.config, **changes)


def _weights(words: list[str]) -> dict[str, float]:
    """``latency=2``; names and sizes are checked by the requirements."""
    from labbench.config import ConfigError

    weights = {}
    for word in words:
        name, _, weight = word.partition("=")
        try:
            weights[name] = float(weight)
        except ValueError:
            raise ConfigError(f"--weight {word}: write an objective and its weight, e.g. latency=2 cost=1") from None
    return weights


def _select(options: Any) -> int:
    from labbench.selection import select
    from labbench.selection.document import Origin
    from labbench.selection.ticket import ticket
    from labbench.store import Store

    requirements = _asked(options)
    store = Store(options.store)
    frame, environments = store.latest(), store.environments()
    found, told = predictor_of(options, frame, environments, needed=bool(requirements.gpus))
    decision = select(frame, requirements, found, environments)
    decision = replace(decision, origin=Origin.of(frame, str(options.store), told))
    print_json(decision.to_dict()) if options.json else print(ticket(decision))
    return 0


def predictor_of(
    options: Any, frame: pd.DataFrame, environments: Mapping[str, Environment], needed: bool = False
) -> tuple[Predictor | None, str | None]:
    """What predicts, and how it is called; nothing, unless it was asked for or is needed."""
    if options.predictor:
        from labbench.prediction.card import load

        saved = load(options.predictor)
        return saved.predictor, saved.card.signature
    if options.predict or needed:
        from labbench.prediction import Predictor

        return Predictor().fit(frame, environments), "fitted to this store for this decision"
    return None, None


def _catalogue(options: Any) -> int:
    from labbench.selection import read_requirements
    from labbench.selection.catalogue import catalogue
    from labbench.selection.prices import price_notes
    from labbench.selection.report import catalogue_table
    from labbench.store import Store

    changes = {"gpus": options.gpu, "prices_file": options.prices}
    requirements = read_requirements(**{name: value for name, value in changes.items() if value})
    store: Store = Store(options.store)
    table = catalogue(store.latest(), store.environments(), requirements)
    print_frame(table if options.json else catalogue_table(table), options.json)
    if not options.json:
        known = {str(name) for column in ("machine_id", "device_name", "device") for name in table[column].dropna()}
        for note in price_notes(requirements.prices, known):
            print(f"note: {note}")
    return 0
