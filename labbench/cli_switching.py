"""The command that routes requests among backends under load: simulated, or live."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labbench.cells import Cell
    from labbench.cli_store import Command, Option
    from labbench.switching import Arrivals, Disturbance, Run, Settings
    from labbench.switching import Option as Backend


def add(command: Command, store: Option, json: Option) -> None:
    """Add the command to the parser."""
    from labbench.cli import cells
    from labbench.cli_prediction import plugin_option

    sub = command(
        "switch",
        _switch,
        "requests routed among backends by policy, under load, with one of them slowed or killed: simulated, or live",
        "labbench switch --model bert-tiny --runtime eager onnxruntime --arrivals bursts --kill eager@15 --live",
    )
    cells(sub, mode=False)
    load = sub.add_argument_group("load")
    load.add_argument(
        "--arrivals", default="bursts", metavar="PATTERN",
        help="poisson, bursts, diurnal, or a CSV file with a column 'seconds' (default: %(default)s)",
    )  # fmt: skip
    load.add_argument(
        "--rate", type=float, metavar="N", help="requests a second (default: a third of what the backends can serve)"
    )
    load.add_argument("--seconds", type=float, default=30.0, metavar="S", help="how long (default: %(default)g)")
    load.add_argument(
        "--seed", type=int, default=0, help="of the arrivals and of drawn service times (default: %(default)s)"
    )
    load.add_argument("--slow", nargs="+", default=[], metavar="WHAT", help="e.g. eager@10:3x, or eager@10-20:3x")
    load.add_argument("--kill", nargs="+", default=[], metavar="WHAT", help="e.g. eager@15: killed, and started again")
    rules = sub.add_argument_group("rules")
    rules.add_argument(
        "--policy", nargs="+", help="static, round-robin, join-shortest-queue, power-of-two, expected-finish"
    )
    rules.add_argument("--limit-ms", type=float, metavar="MS", help="accepted requests are to be answered within it")
    rules.add_argument("--capacity", type=int, metavar="N", help="open requests; one more is refused")
    world = sub.add_mutually_exclusive_group()
    world.add_argument("--simulate", action="store_true", help="from service times in the store (the usual)")
    world.add_argument(
        "--live", action="store_true", help="with processes of this machine, and simulated from their service times"
    )
    sub.add_argument("--save", metavar="FOLDER", help="keep every run there: trace, requests, calls of backends (JSON)")
    plugin_option(sub)
    store(sub)
    json(sub)


def _switch(options: Any) -> int:
    from labbench import zoo
    from labbench.campaign import resolve
    from labbench.cli import grid, print_frame, print_json
    from labbench.switching import COMPARED, kill, make_arrivals, make_policy, named, report, slow
    from labbench.switching.disturbances import in_order

    zoo.load_plugins(options.plugin)
    options.mode = ["inference"]
    options.threads = options.threads or [1]  # backends share the machine
    cells = resolve(grid(options).cells())
    found = [event for text in options.slow for event in slow(text)] + [
        event for text in options.kill for event in kill(text)
    ]
    policies = options.policy or list(COMPARED)
    for name in policies:  # a mistake is refused before anything runs
        make_policy(name)
    rate = 1.0 if options.rate is None else options.rate
    example = make_arrivals(options.arrivals, rate, options.seconds)
    troubles, settings = list(in_order(found, named(cells), example.seconds)), _settings(options)
    backends, runs = (_live if options.live else _simulated)(options, named(cells), policies, troubles, settings)
    _save(runs, options.save)
    if options.json:
        print_json([run.to_dict() for run in runs])
        return 0
    print(runs[0].arrivals)
    print_frame(report.option_table(backends), as_json=False)
    print_frame(report.run_table(runs), as_json=False)
    said = [report.policy_sentence(runs), report.loss_sentence(runs)]
    if options.live:
        said += [report.agreement_sentences(runs), report.overhead_sentence(runs)]
    print("\n".join(said))
    return 0


def _simulated(
    options: Any, cells: dict[str, Cell], policies: list[str], troubles: list[Disturbance], settings: Settings
) -> tuple[list[Backend], list[Run]]:
    """What is known of the backends, and a run of each policy."""
    from labbench.store import Store
    from labbench.switching import compared, stored_options

    backends = stored_options(Store(options.store), list(cells.values()))
    return backends, compared(None, backends, _arrivals(options, backends), policies, troubles, settings, options.seed)


def _live(
    options: Any, cells: dict[str, Cell], policies: list[str], troubles: list[Disturbance], settings: Settings
) -> tuple[list[Backend], list[Run]]:
    """The same, each policy simulated and live."""
    from labbench.switching import calibrate, compared
    from labbench.switching.live import LiveWorld

    with LiveWorld(cells, options.plugin) as world:
        backends = calibrate(world)
        return backends, compared(
            world, backends, _arrivals(options, backends), policies, troubles, settings, options.seed
        )


def _arrivals(options: Any, backends: list[Backend]) -> Arrivals:
    from labbench.switching import USUAL_LOAD, capacity, make_arrivals

    rate = USUAL_LOAD * capacity(backends) if options.rate is None else options.rate
    return make_arrivals(options.arrivals, rate, options.seconds, options.seed)


def _settings(options: Any) -> Settings:
    from labbench.config import parse
    from labbench.switching import Settings

    given = {"limit_s": options.limit_ms and options.limit_ms / 1e3, "capacity": options.capacity}
    return parse(Settings, {name: value for name, value in given.items() if value is not None}, "command line")


def _save(runs: list[Run], folder: str | None) -> None:
    from pathlib import Path

    if folder is None:
        return
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    for run in runs:
        run.save(place / f"{run.policy}-{run.provenance}.json")
