"""The commands that fit, use, judge and watch a predictor."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from labbench.cli import cells, grid, print_frame, print_json

if TYPE_CHECKING:
    import pandas as pd

    from labbench.cells import Cell
    from labbench.cli_store import Command, Option
    from labbench.prediction import Graphs, PredictionConfig, Predictor
    from labbench.store import Store

# Written out, not read from labbench.prediction: --help must not wait for numpy. A test holds the two together.
SPLITS = ("random", "architecture", "family", "device", "version", "larger")
DEFAULT = "default"  # name of a predictor
NO_GRAPHS = "none"
REFIT = 1  # exit status
STATUS = """
exit status:
  0  no refit is due, or nobody asked (--fail-on-drift)
  1  a refit is due: intervals hold less than they promise, or errors are above the card's, beyond chance
  2  wrong use: no such database or predictor, or one that may not be loaded"""


def add(command: Command, store: Option, as_json: Option) -> None:
    """Add the commands; ``store`` and ``as_json`` add the options ``--store`` and ``--json``."""
    fit = command(
        "fit",
        _fit,
        "fit a predictor to a database and keep it with a card: what it learnt from, how wrong it is, what not to ask it",
        "labbench fit --name laptop",
    )
    fit.add_argument(
        "--name", default=DEFAULT, help="goes to data/predictors/NAME; with a slash: a folder (default: %(default)s)"
    )
    config_option(fit)
    _graphs_option(fit)
    fit.add_argument(
        "--evaluate",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="find its errors on families that it has not seen, which takes as long as fitting ten times (default: yes)",
    )
    store(fit)
    as_json(fit)

    predict = command(
        "predict",
        _predict,
        "latency and memory of cells that were not measured, with intervals, from those that were",
        "labbench predict --model bert-base --runtime eager openvino --batch-size 1 8",
    )
    cells(predict)
    plugin_option(predict)
    predict.add_argument(
        "--predictor",
        metavar="NAME",
        help="one that `labbench fit` kept; only of people you trust: it can run any code (default: fit one now)",
    )
    predict.add_argument(
        "--gpu",
        metavar="NAME",
        help="on a card that nobody measured, by its datasheet and what others of the database did, e.g. 'RTX 4090'",
    )
    predict.add_argument(
        "--largest-batch",
        action="store_true",
        help="instead, the largest batch whose predicted peak memory fits each device",
    )
    predict.add_argument(
        "--memory-gb", type=positive, metavar="GB", help="of the devices, 10⁹ bytes (default: all they have)"
    )
    predict.add_argument(
        "--save",
        action="store_true",
        help="keep the predictions in the database; `show --provenance predicted` lists them",
    )
    store(predict)
    as_json(predict)

    evaluate = command(
        "evaluate",
        _evaluate,
        "how well a predictor does on what it has not seen, beside baselines on the same data",
        "labbench evaluate --split device --probes 3",
    )
    evaluate.add_argument(
        "--split",
        choices=SPLITS,
        default="family",
        help="what it has not seen (default: %(default)s); random is a warning",
    )
    evaluate.add_argument("--probes", type=int, default=0, metavar="K", help="of a new device, K cells are trained on")
    config_option(evaluate)
    _graphs_option(evaluate)
    store(evaluate)
    as_json(evaluate)

    drift = command(
        "drift",
        _drift,
        "does a kept predictor still hold for what was measured since? Says whether to fit it again",
        "labbench drift --predictor laptop --fail-on-drift\n" + STATUS,
    )
    drift.add_argument(
        "--predictor", default=DEFAULT, metavar="NAME", help="default: %(default)s; only of people you trust"
    )
    drift.add_argument("--fail-on-drift", action="store_true", help=f"exit status {REFIT} if a refit is due")
    store(drift)
    as_json(drift)


def config_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--config``."""
    parser.add_argument("--config", metavar="FILE", help="a prediction_model_config.json")


def plugin_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--plugin``."""
    parser.add_argument("--plugin", nargs="+", default=[], metavar="FILE", help="files or modules that register models")


def _graphs_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--graphs",
        metavar="FILE",
        help="each operator of the models is priced, not only their totals: 'zoo' traces those of the zoo, nothing is run, or a "
        "parquet table of operators (labbench.prediction.Graphs); 'none' for totals alone (default: the configuration's, zoo)",
    )


def _told(options: Any) -> tuple[PredictionConfig, Graphs | None]:
    """The configuration, and the operators that ``--graphs`` names; None leaves them to the configuration."""
    from labbench.prediction import Graphs, ZooGraphs

    config = configuration(options)
    if options.graphs == NO_GRAPHS:
        return config.model_copy(update={"operators": "totals"}), None
    if options.graphs == "zoo":
        return config, ZooGraphs()
    return config, Graphs.read(options.graphs) if options.graphs else None


def configuration(options: Any) -> PredictionConfig:
    """What ``--config`` names, or the defaults."""
    from labbench.config import read
    from labbench.prediction import PredictionConfig

    return read(PredictionConfig, options.config) if options.config else PredictionConfig()


def _fit(options: Any) -> int:
    from labbench.prediction import PredictionError, Predictor, cross_validate
    from labbench.prediction.card import folder_of, save
    from labbench.store import Store

    folder, store = folder_of(options.name), Store(options.store)
    frame, environments = store.latest(), store.environments()
    config, graphs = _told(options)
    predictor = Predictor(config).fit(frame, environments, graphs)
    try:
        validated = cross_validate(frame, environments, config, graphs=predictor.graphs) if options.evaluate else None
    except PredictionError as error:
        raise PredictionError(f"{error}. Without its errors it is kept by `labbench fit --no-evaluate`") from None
    card = save(predictor, options.name, frame, validated)
    if options.json:
        print_json(card.model_dump(mode="json"))
    else:
        print(f"{card}\nkept in {folder}")
    return 0


def _predict(options: Any) -> int:
    from labbench import zoo
    from labbench.campaign import resolve
    from labbench.config import ConfigError
    from labbench.prediction import predict_cells, with_threads
    from labbench.prediction.card import load
    from labbench.prediction.report import forecast_sentence, forecast_table
    from labbench.store import Store

    if options.save and not options.predictor:
        raise ConfigError(
            "--save keeps predictions, which must name the predictor they are of: `labbench fit --name NAME`, then "
            "`labbench predict --predictor NAME --save ...`"
        )
    if options.memory_gb and not options.largest_batch:
        raise ConfigError("--memory-gb is what a largest batch must fit: ask for it with --largest-batch")
    if options.save and options.largest_batch:
        raise ConfigError("--save keeps predictions of cells, and a largest batch is none: leave one of them out")
    zoo.load_plugins(options.plugin)
    if options.gpu and options.save:
        raise ConfigError(
            "--save keeps predictions of machines; a card of a datasheet (--gpu) is none: leave one of them out"
        )
    saved = load(options.predictor) if options.predictor else None
    if options.gpu and not options.device:
        options.device = ["cuda:0"]
    store = Store(options.store)
    measured = store.latest(status="ok", provenance="measured")
    for name in ("device", "runtime"):  # not asked for: wherever something was measured
        if not getattr(options, name):
            setattr(options, name, sorted(measured[name].astype("str").unique()))
    asked = resolve(grid(options).cells())
    asked = asked if options.threads else with_threads(asked, measured)
    if options.largest_batch:
        return _largest_batch(store, asked, saved.predictor if saved else None, options)
    predicted = predict_cells(store, asked, predictor=saved.predictor if saved else None, gpu=options.gpu)
    print_frame(predicted if options.json else forecast_table(predicted), options.json)
    if not options.json:
        print(forecast_sentence(predicted))
    if options.save and saved:
        from labbench.prediction.as_records import as_records
        from labbench.words import count

        records = as_records(predicted, asked, saved.card.signature)
        with Store(options.store, writable=True) as opened:
            opened.extend(records)
        print(f"{options.store}: {count(len(records), 'prediction')} kept", file=sys.stderr)
    return 0


def _largest_batch(store: Store, asked: list[Cell], predictor: Predictor | None, options: Any) -> int:
    from labbench.prediction import Predictor, largest_batches, memory_of
    from labbench.prediction.report import batch_sentence, batch_table

    environments = store.environments()
    predictor = predictor or Predictor().fit(store.latest(), environments)
    memory = memory_of(environments, options.gpu, options.memory_gb and options.memory_gb * 1e9)
    found = largest_batches(predictor, asked, memory)
    print_frame(found if options.json else batch_table(found), options.json)
    if not options.json:
        print(batch_sentence(found, predictor.config.level))
    return 0


def positive(text: str) -> float:
    """A number above zero."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number above zero")
    return value


def _evaluate(options: Any) -> int:
    from labbench.prediction import evaluate
    from labbench.prediction.card_report import evaluation_sentence, evaluation_table
    from labbench.store import Store

    store = Store(options.store)
    rows = _rows(store, options.split)
    asked = {"split": options.split, "probes": options.probes}
    config, graphs = _told(options)
    scores = evaluate(rows, store.environments(), config, graphs=graphs, **asked)
    print_frame(scores.assign(**asked) if options.json else evaluation_table(scores), options.json)
    print(evaluation_sentence(scores, options.split, options.probes), file=sys.stderr if options.json else sys.stdout)
    return 0


def _rows(store: Store, split: str) -> pd.DataFrame:
    """The newest record of each cell; where versions are held apart, of each cell under each environment."""
    if split != "version":
        return store.latest()
    rows = store.frame(status="ok").sort_values("started_at", kind="stable", na_position="first")
    return rows.drop_duplicates(["cell_id", "series", "machine_id", "provenance", "environment_id"], keep="last")


def _drift(options: Any) -> int:
    from labbench.config import ConfigError
    from labbench.prediction import PredictionError
    from labbench.prediction.card import load
    from labbench.prediction.card_report import drift_table
    from labbench.prediction.drift import drift
    from labbench.store import Store, StoreError

    try:
        found = drift(load(options.predictor), Store(options.store).latest())
    except (PredictionError, StoreError) as error:  # status 1 means that a refit is due
        raise ConfigError(str(error)) from None
    if options.json:
        print_json(found.to_dict())
    else:
        if len(found.table):
            print_frame(drift_table(found), as_json=False)
        print(found)
    return REFIT if found.due and options.fail_on_drift else 0
