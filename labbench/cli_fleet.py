"""The command that assigns workloads to a fleet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from labbench.cli_selection import predictor, predictor_of

if TYPE_CHECKING:
    from labbench.cli_store import Command, Option


def add(command: Command, store: Option, json: Option) -> None:
    """Add the command to the parser."""
    sub = command(
        "fleet",
        _fleet,
        "which workloads run on which devices of a fleet, how busy, at what cost, and what if one fails",
        "labbench fleet --config notebooks/config/fleet_config.json",
    )
    sub.add_argument(
        "--config", metavar="FILE", required=True, help="a fleet_config.json: demands, kinds of devices, prices"
    )
    sub.add_argument(
        "--how",
        choices=("auto", "exact", "fast"),
        default="auto",
        help="the best plan, or a good one for very many workloads (default: by their number)",
    )
    sub.add_argument(
        "--seconds",
        type=float,
        metavar="S",
        help="that it may take (default: 60 for the exact way, 10 for the fast one)",
    )
    sub.add_argument("--figure", metavar="FILE", help="draw the plan there, too (png, svg, pdf)")
    predictor(sub)
    store(sub)
    json(sub)


def _fleet(options: Any) -> int:
    from labbench.cli import print_json
    from labbench.selection.fleet import Infeasible, assign, report
    from labbench.selection.fleet.config import fleet_of, read_fleet
    from labbench.store import Store

    config, store = read_fleet(options.config), Store(options.store)
    frame = store.latest()
    found, _ = predictor_of(options, frame, store.environments())
    fleet = fleet_of(config, frame, found)
    try:
        plan = assign(fleet, options.how, seconds=options.seconds)
    except Infeasible as error:
        if not options.json:
            raise
        print_json(error.conflict.to_dict())
        return 1
    print_json(report.to_dict(plan)) if options.json else print(report.text(plan))
    if options.figure:
        from labbench.selection.fleet.figure import plot_fleet

        plot_fleet(plan).savefig(options.figure, dpi=160)
    return 0
