"""Commands for what holds models back, what would make them cheaper to run, and whether advice kept its promise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable


def add(
    command: Callable[..., argparse.ArgumentParser],
    store: Callable[[argparse.ArgumentParser], None],
    json: Callable[[argparse.ArgumentParser], None],
) -> None:
    """Add the commands to the parser."""
    bottlenecks = command(
        "bottlenecks",
        _bottlenecks,
        "what each cell waits for (compute, memory, dispatch, preparation), on what evidence, how sure, and what helps",
        "labbench bottlenecks --model bert-base --calls 1000",
    )
    bottlenecks.add_argument("--model", nargs="+", help="only these models")
    bottlenecks.add_argument(
        "--calls",
        type=float,
        help="how many calls a job makes after it started (default: so many that starting is nothing)",
    )
    store(bottlenecks)
    json(bottlenecks)

    advise = command(
        "advise",
        _advise,
        "what would make models cheaper to run: gain, interval, costs, and the command that tests it",
        "labbench advise --model bert-base",
    )
    _options(advise)
    store(advise)
    json(advise)

    verify = command(
        "verify-advice",
        _verify,
        "measure what was advised beside where it starts from, and record whether the gain came",
        "labbench verify-advice --model bert-base vit-base",
    )
    _options(verify)
    verify.add_argument("--protocol", default="standard", help="quick, standard or thorough (default: %(default)s)")
    verify.add_argument("--results", action="store_true", help="measure nothing: show what earlier tests found")
    verify.add_argument("--no-progress", action="store_true", help="say nothing until the results")
    store(verify)
    json(verify)


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", nargs="+", help="only these models")
    parser.add_argument("--change", nargs="+", help="only these: runtime, precision, batch_size, threads, ...")
    parser.add_argument("--baseline", default="cpu/eager", help="platform to start from (default: %(default)s)")
    parser.add_argument("--all", action="store_true", help="every change that promises a gain, not only the best")


def _found(options: Any) -> Any:
    """The advice that the options ask for."""
    from labbench.analysis.opportunities import CHANGES, advise, top
    from labbench.config import require_known
    from labbench.store import Store

    store = Store(options.store)
    frame = store.latest()
    require_known("model", options.model, frame["model"].unique())
    require_known("change", options.change, CHANGES)
    ids = frame.loc[frame["status"] == "ok", "record_id"]
    found = advise(frame, store.samples(ids), baseline=options.baseline, models=options.model)
    if options.change:
        found = found[found["change"].isin(options.change)]
    return found if options.all else top(found)


def _bottlenecks(options: Any) -> int:
    from labbench.analysis import bottleneck_report, bottlenecks, roofline
    from labbench.cli import print_frame
    from labbench.config import ConfigError, require_known
    from labbench.store import Store

    if options.calls is not None and not options.calls > 0:
        raise ConfigError(f"--calls {options.calls:g}: a job makes at least one call")
    store = Store(options.store)
    frame = store.latest()
    require_known("model", options.model, frame["model"].unique())
    frame = frame[frame["model"].isin(options.model)] if options.model else frame
    found = bottlenecks.attribute(roofline.place(frame, store.environments()), options.calls)
    print_frame(found if options.json else bottleneck_report.table(found), options.json)
    if not options.json:
        print(f"{bottleneck_report.overview(found)}\n{bottleneck_report.helps(found)}".replace("*", ""))
    return 0


def _advise(options: Any) -> int:
    from labbench.analysis.tables import advice_table
    from labbench.cli import print_frame

    found = _found(options)
    print_frame(found if options.json else advice_table(found), options.json)
    return 0


def _verify(options: Any) -> int:
    from labbench.advice import verify
    from labbench.analysis import sentences
    from labbench.analysis.outcomes import outcomes
    from labbench.analysis.tables import outcome_table
    from labbench.cli import print_frame
    from labbench.measure.protocol import preset
    from labbench.store import Store

    interrupted = False
    if not options.results:
        found = _found(options)
        if found.empty:
            print("there is no advice to test: nothing that was measured promises a gain")
            return 0
        done = verify(
            found, options.store, preset(options.protocol), progress=not (options.no_progress or options.json)
        )
        interrupted = done[-1].interrupted
    table = outcomes(Store(options.store))
    if options.json:
        print_frame(table, as_json=True)
    else:
        print_frame(outcome_table(table), as_json=False)
        print(sentences.hit_rate(table))
    return 130 if interrupted else 0
