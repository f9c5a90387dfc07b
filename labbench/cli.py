"""The command line: thin commands over the functions that notebooks and scripts call.

Everything heavy is imported inside the command that needs it, so that ``labbench --help`` answers at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from labbench.campaign import Summary

DEFAULT_STORE = "data/study.h5"

EXAMPLES = """\
examples:
  labbench doctor                                     what this machine is, what it can run, what is missing
  labbench run --model bert-base --runtime eager onnxruntime --batch-size 1 8
  labbench run --config notebooks/config/benchmark_config.json
  labbench study                                      measure, compare, predict, select, publish: the whole report
  labbench show --matrix                              which model ran on which platform, and why the others did not
  labbench compare --baseline cpu/eager               speed-ups with intervals and verdicts
  labbench train --model bert-base --optimizer sgd    a training step and its parts, memory by cause
  labbench predict --model bert-large                 latency of a model nobody measured, with an interval
  labbench fit                                        keep the predictor, with a card: what it knows, how wrong it is
  labbench evaluate --split device                    how well it predicts what it has not seen, beside baselines
  labbench measure-next --budget 10m                  the cells that tell most about those nobody measured
  labbench select --max-latency-ms 20 --p99           what to run where, and why the others were excluded
  labbench switch --model bert-base --runtime eager onnxruntime --kill eager@15   requests routed under load
  labbench fleet --config fleet_config.json           many workloads on a finite fleet, and what if a device fails
  labbench web run --browser firefox --model kws-small   audio models in real browsers, beside native onnxruntime
  labbench bottlenecks --model bert-base              what it waits for, on what evidence, and what helps
  labbench advise --model bert-base                   what would make it cheaper to run; `verify-advice` tests it
  labbench regressions --baseline v1.0 --fail-on 5%   what got slower since, and why: exit status 1, for CI
  labbench merge laptop.h5 server.h5 -o all.h5        the databases of several machines as one
  labbench import benchmark-infer-*.csv --store timm.h5   results of timm, optimum-benchmark, pyperf, NeuSight
  labbench check data/study.h5                        is it whole? --repair saves what is intact
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status (0 done, 1 could not, 2 wrong use, 130 interrupted)."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if not hasattr(options, "action"):
        parser.print_help()
        return 2
    from labbench.config import ConfigError

    try:
        status: int = options.action(options)
    except KeyboardInterrupt:
        print("labbench: interrupted; what was stored is safe", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except ConfigError as error:
        print(f"labbench: {error}", file=sys.stderr)
        return 2
    except Exception as error:
        if not isinstance(error, _known_errors()):
            raise
        print(f"labbench: {error}", file=sys.stderr)
        return 1
    return status


def _known_errors() -> tuple[type[Exception], ...]:
    """Errors that are the user's to read, from rooms that are loaded (an unloaded one raised nothing)."""
    names = {
        "labbench.store": "StoreError",
        "labbench.notebooks": "NotebookError",
        "labbench.prediction": "PredictionError",
        "labbench.selection": "SelectionError",
        "labbench.switching": "SwitchingError",
    }
    found: list[Any] = [
        getattr(sys.modules[module], name, None) for module, name in names.items() if module in sys.modules
    ]
    return tuple(error for error in found if error is not None)


def adder(commands: Any) -> Callable[..., argparse.ArgumentParser]:
    """What adds a command to a parser's: by its name, action, text and an example."""

    def command(name: str, action: Callable[[Any], int], text: str, example: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(action=action)
        return sub

    return command


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="labbench",
        description="Which hardware, in which configuration, should this model run or train on, and what will it cost?",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    from labbench import __version__

    parser.add_argument("--version", action="version", version=f"labbench {__version__}")
    command = adder(parser.add_subparsers(title="commands", metavar="COMMAND"))

    doctor = command(
        "doctor", _doctor, "what this machine is, what it can run, what is missing", "labbench doctor --json"
    )
    doctor.add_argument("--measure", action="store_true", help="measure the ceilings again (under 15 s)")
    _json(doctor)

    run = command(
        "run",
        _run,
        "measure a grid of cells into a store; what is stored and valid is skipped",
        "labbench run --model bert-base vit-base --runtime eager openvino --batch-size 1 8 --protocol quick",
    )
    cells(run)
    campaign(run, "benchmark_config.json")
    _store(run)
    _json(run)

    show = command("show", _show, "what a store holds", "labbench show --matrix")
    show.add_argument("--matrix", action="store_true", help="models against platforms: status or latency")
    show.add_argument("--status", help="only records of this status")
    show.add_argument(
        "--provenance",
        choices=PROVENANCES,
        help="only of this provenance; predictions are shown only if they are asked for",
    )
    show.add_argument("--model", nargs="+", help="only these models")
    _store(show)
    _json(show)

    compare = command(
        "compare",
        _compare,
        "differences between platforms, precisions, versions or machines, with intervals and verdicts",
        "labbench compare --by version_torch --baseline 2.12.0",
    )
    compare.add_argument("--baseline", help="what to compare with (default: cpu/eager, else what most models have)")
    compare.add_argument(
        "--by",
        default="platform",
        metavar="COLUMN",
        help="platform, runtime, precision, threads, hostname, version_<package>, ... (default: %(default)s)",
    )
    compare.add_argument("--summary", action="store_true", help="geometric means over models instead of every cell")
    compare.add_argument("--families", action="store_true", help="geometric means within each family of models")
    _store(compare)
    _json(compare)

    from labbench import (
        cli_advice,
        cli_distributed,
        cli_fleet,
        cli_history,
        cli_next,
        cli_prediction,
        cli_report,
        cli_selection,
        cli_store,
        cli_switching,
        cli_training,
        cli_web,
    )

    cli_selection.add(command, _store, _json)
    cli_prediction.add(command, _store, _json)
    cli_next.add(command, _store, _json)
    cli_switching.add(command, _store, _json)
    cli_training.add(command, _store, _json)
    cli_distributed.add(command, _store, _json)
    cli_fleet.add(command, _store, _json)
    cli_report.add(command, _store)
    cli_advice.add(command, _store, _json)
    cli_history.add(command, _store, _json)
    cli_store.add(command, _store, _json)
    cli_web.add(command, _store, _json)
    return parser


def _store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--store", default=DEFAULT_STORE, metavar="FILE", help="the database (default: %(default)s)")


def _json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="machine-readable output, SI units")


def _true_or_false(text: str) -> bool:
    """A yes-or-no value of a cell's field."""
    values = {"true": True, "false": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return values[text.lower()]


# Written out, not read from labbench.records and labbench.cells: --help must not wait for pydantic. Tests hold them together.
PROVENANCES = ("measured", "imported", "simulated", "predicted")
CELL_OPTIONS: dict[str, Callable[[str], Any]] = {
    "model": str,
    "mode": str,
    "runtime": str,
    "device": str,
    "precision": str,
    "batch_size": int,
    "seq_len": int,
    "image_size": int,
    "frames": int,
    "audio_s": float,
    "threads": int,
    "memory_format": str,
    "kv_cache": _true_or_false,
    "optimizer": str,
    "accumulation": int,
    "checkpointing": _true_or_false,
    "trained": str,
    "clip_norm": float,
    "loader_workers": int,
}


def cells(parser: argparse.ArgumentParser, *, mode: bool = True) -> None:
    """Add an option for each field of a cell; without ``mode`` where a command has but one."""
    group = parser.add_argument_group("cells", "the grid is the product of all values given")
    for name, kind in CELL_OPTIONS.items():
        if name != "mode" or mode:
            group.add_argument(f"--{name.replace('_', '-')}", nargs="+", type=kind, metavar=name.upper())


def campaign(parser: argparse.ArgumentParser, config: str) -> None:
    """Add the options of how cells are measured; ``config`` is the usual configuration file."""
    parser.add_argument("--config", metavar="FILE", help=f"a {config}, instead of the fields above")
    parser.add_argument("--protocol", help="quick, standard or thorough (default: the configuration's, or standard)")
    parser.add_argument("--profile", action="store_true", help="profile a few calls too: where their time goes")
    parser.add_argument("--rerun", action="store_true", help="measure again what is stored and valid")
    parser.add_argument("--retry", action="store_true", help="measure again what is stored as failed")
    parser.add_argument(
        "--reference",
        metavar="PYTHON",
        help="the Python of an environment that stays what it is, e.g. the last release's: each cell is measured there too, in "
        "turn, and the history judges the ratio, which a machine of changing speed leaves alone",
    )
    parser.add_argument(
        "--plugin", nargs="+", default=[], metavar="FILE", help="Python files or modules that register models"
    )
    parser.add_argument("--no-progress", action="store_true", help="say nothing until the summary")


def grid(options: Any) -> Any:
    """The grid that the options of :func:`cells` span."""
    from labbench.cells import Grid
    from labbench.config import ConfigError, parse

    axes = {name: getattr(options, name) for name in CELL_OPTIONS if getattr(options, name)}
    if "model" not in axes:
        raise ConfigError("which model? give --model, e.g. --model bert-base (`labbench doctor` lists the zoo)")
    return parse(Grid, {"axes": axes}, "command line")


def print_json(value: Any) -> None:
    """A value as indented JSON."""
    import json

    print(json.dumps(value, indent=2, allow_nan=False, default=str))


def print_frame(table: pd.DataFrame, as_json: bool) -> None:
    """A table for people, or as JSON records."""
    if as_json:
        print(table.to_json(orient="records", indent=2, date_format="iso"))
    elif table.empty:
        print("nothing to show")
    else:
        print(table.to_string(index=False, na_rep="", float_format=lambda value: f"{value:.4g}", max_colwidth=72))


def _doctor(options: Any) -> int:
    from labbench.machine.doctor import examine

    report = examine(measure=options.measure)
    print_json(report.to_dict()) if options.json else print(report)
    return 0


def _run(options: Any) -> int:
    summary = measured(options)
    if options.json:
        print_json(
            [record.model_dump(mode="json", exclude={"series": {"__all__": {"samples"}}}) for record in summary.records]
        )
    else:
        if summary.records:
            print_frame(summary.frame(), as_json=False)
        print(summary)
    return 130 if summary.interrupted else 0


def measured(options: Any) -> Summary:
    """What came of the campaign that the options of :func:`campaign` ask for."""
    from labbench import zoo
    from labbench.campaign import BenchmarkConfig, Campaign
    from labbench.config import ConfigError, read
    from labbench.measure.protocol import preset

    zoo.load_plugins(options.plugin)
    if options.config:
        given = [name for name in CELL_OPTIONS if getattr(options, name) is not None]
        if given:
            raise ConfigError(f"--config and --{given[0].replace('_', '-')} exclude each other; change the file")
        config = read(BenchmarkConfig, options.config)
        cells: Any = config.cells()
        protocol = preset(options.protocol) if options.protocol else config.make_protocol()
    else:
        cells, protocol = grid(options), preset(options.protocol or "standard")
    if options.profile:
        protocol = protocol.model_copy(update={"profile": True})
    run = Campaign(
        cells, options.store, protocol, rerun=options.rerun, retry=options.retry, reference=options.reference
    )
    return run.run(progress=not (options.no_progress or options.json))


def _show(options: Any) -> int:
    from labbench.store import Store

    filters = {name: getattr(options, name) for name in ("status", "model", "provenance") if getattr(options, name)}
    table = Store(options.store).latest(**filters)
    if options.matrix:
        from labbench.analysis import matrix

        if options.json:
            print_frame(matrix.matrix(table).reset_index(), as_json=True)
        else:
            print(matrix.matrix(table).to_string(na_rep=""))
            print(matrix.coverage(table))
        return 0
    columns = ["model", "platform", "mode", "batch_size", "precision", "series", "status", "latency_s", "throughput"]
    columns += ["throughput_unit", "memory_increase_bytes", "noise", "provenance", "reason"]
    print_frame(table if options.json else table[columns], options.json)
    return 0


def _compare(options: Any) -> int:
    from labbench.analysis.compare import compare, summary, with_versions
    from labbench.analysis.tables import comparison_table
    from labbench.store import Store

    store = Store(options.store)
    versions = options.by.startswith("version_")
    table = with_versions(store.frame(status="ok") if versions else store.latest(status="ok"), store.environments())
    if versions and options.by in table:  # the newest of each version
        table = table.sort_values("started_at").drop_duplicates(
            ["cell_id", "series", "machine_id", options.by], keep="last"
        )
    found = compare(table, store.samples(table["record_id"]), baseline=options.baseline, by=options.by)
    if found.empty and not options.json:
        print(f"there is nothing to compare: no two records with status ok differ in {options.by} alone")
        return 0
    if options.summary or options.families:
        print_frame(summary(found, options.by, families=options.families), options.json)
    else:
        print_frame(found if options.json else comparison_table(found, options.by), options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
