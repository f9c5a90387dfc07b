"""The command that says which cells to measure next, and measures them."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labbench.cli_store import Command, Option
    from labbench.prediction.measure_next import Plan

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def add(command: Command, store: Option, json: Option) -> None:
    """Add the command to the parser."""
    from labbench.cli import cells
    from labbench.cli_prediction import config_option, plugin_option

    sub = command(
        "measure-next",
        _measure_next,
        "measure, within a budget of time, the cells that tell most about those that were not measured",
        "labbench measure-next --budget 10m --dry-run",
    )
    sub.add_argument("--budget", required=True, type=duration, metavar="TIME", help="wall time, e.g. 90s, 10m or 1h")
    sub.add_argument(
        "--question",
        choices=("error", "choice"),
        default="error",
        help="what is to become surer: every prediction, or which platform is the fastest (default: %(default)s)",
    )
    config_option(sub)
    sub.add_argument("--dry-run", action="store_true", help="only say which, in what order, and why")
    sub.add_argument("--protocol", default="quick", help="quick, standard or thorough (default: %(default)s)")
    plugin_option(sub)
    sub.add_argument("--no-progress", action="store_true", help="say nothing until the summary")
    cells(sub)
    store(sub)
    json(sub)


def duration(text: str) -> float:
    """Seconds of ``90s``, ``10m``, ``1.5h`` or a bare number of seconds."""
    import argparse
    import math

    number, unit = (text[:-1], text[-1]) if text[-1:] in UNITS else (text, "s")
    try:
        value = float(number) * UNITS[unit]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; write e.g. 90s, 10m or 1h") from None
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text!r} leaves time for nothing; write e.g. 90s, 10m or 1h")
    return value


def _measure_next(options: Any) -> int:
    from labbench import machine, zoo
    from labbench.campaign import resolve
    from labbench.cli import CELL_OPTIONS, grid, print_frame
    from labbench.cli_prediction import configuration
    from labbench.prediction import report
    from labbench.prediction.measure_next import plan
    from labbench.store import Store

    zoo.load_plugins(options.plugin)
    asked = resolve(grid(options).cells()) if any(getattr(options, name) for name in CELL_OPTIONS) else None
    store = Store(options.store)
    found = plan(
        store.latest(),
        store.environments(),
        options.budget,
        machine_id=machine.machine_id(machine.detect()),
        question=options.question,
        asked=asked,
        config=configuration(options),
    )
    print_frame(found.table if options.json else report.plan_table(found), options.json)
    if not options.json:
        print(found)
    return 0 if options.dry_run or not found.cells else _measure(found, options)


def _measure(found: Plan, options: Any) -> int:
    """Measure in the order of the plan, some at a time, until they are done, the time is up or Ctrl-C; all is stored at once."""
    from labbench.campaign import Campaign
    from labbench.measure.protocol import preset

    protocol, begun, left = preset(options.protocol), perf_counter(), list(found.cells)
    while left and perf_counter() - begun < options.budget:
        now, left = left[: protocol.group_size], left[protocol.group_size :]
        summary = Campaign(now, options.store, protocol).run(progress=not (options.no_progress or options.json))
        if not options.json:
            print(summary)
        if summary.interrupted:
            return 130
    if left and not options.json:
        print(f"The time is up: {len(left)} of the plan are left; the same command plans anew with what is known now.")
    return 0
