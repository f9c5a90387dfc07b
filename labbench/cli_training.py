"""Commands for training: what a step consists of, and the largest batch that fits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

TIP = (
    "Train with MALLOC_MMAP_THRESHOLD_=65536 (Linux with glibc): freed memory then goes back at once, as it did in the probes; "
    "the default heap takes up to half as much again."
)


def add(
    command: Callable[..., argparse.ArgumentParser],
    store: Callable[[argparse.ArgumentParser], None],
    json: Callable[[argparse.ArgumentParser], None],
) -> None:
    """Add the commands to the parser."""
    from labbench.cli import campaign, cells

    sub = command(
        "train",
        _train,
        "measure training steps: data, forward, loss, backward, clipping, optimizer; memory by cause; variants beside one another",
        "labbench train --model bert-tiny --batch-size 8 --optimizer adamw adamw_fused sgd --checkpointing false true",
    )
    cells(sub, mode=False)
    campaign(sub, "training_config.json")
    store(sub)
    json(sub)
    _add_largest_batch(command, json)


def _add_largest_batch(
    command: Callable[..., argparse.ArgumentParser], json: Callable[[argparse.ArgumentParser], None]
) -> None:
    from labbench.cli import cells

    sub = command(
        "largest-batch",
        _largest_batch,
        "the largest batch that fits into a memory limit, from at most five probes, each a process that may die of it",
        "labbench largest-batch --model bert-base --mode training --memory-gb 8",
    )
    cells(sub)
    sub.add_argument("--memory-gb", type=float, required=True, metavar="GB", help="10⁹ bytes above an empty process")
    sub.add_argument("--plugin", nargs="+", default=[], metavar="FILE", help="files or modules that register models")
    json(sub)


def _largest_batch(options: Any) -> int:
    from labbench import zoo
    from labbench.campaign import resolve
    from labbench.cli import grid, print_frame
    from labbench.config import ConfigError
    from labbench.tuning.largest_batch import largest_batch, probe_table

    if options.batch_size:
        raise ConfigError("--batch-size is what is looked for; leave it out")
    zoo.load_plugins(options.plugin)
    found = []
    for cell in resolve(grid(options).cells()):
        found.append(largest_batch(cell, int(options.memory_gb * 1e9)))
        if not options.json:
            print(found[-1], flush=True)
    print_frame(probe_table(found), options.json)
    if not options.json and any(one.cell.platform.device.startswith("cpu") for one in found):
        print(TIP)
    return 0


def _train(options: Any) -> int:
    from labbench.analysis import training, training_report
    from labbench.cli import measured, print_frame
    from labbench.store import Store

    options.mode = None if options.config else ["training"]
    summary = measured(options)
    store = Store(options.store)
    frame = store.latest()
    ids = {record.record_id for record in summary.records}
    new = frame[frame["record_id"].isin(ids)] if ids else frame
    steps = training.steps(new, store.environments())
    print_frame(steps if options.json else training_report.step_table(steps), options.json)
    if options.json:
        return 130 if summary.interrupted else 0
    failed = [record for record in summary.records if record.status != "ok"]
    for record in failed:
        print(record)
    print(training_report.anatomy(steps).replace("*", ""))
    print(summary)
    return 130 if summary.interrupted else 0
