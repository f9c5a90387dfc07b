"""The command that measures training steps and tells what they consist of."""

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
    """Add the command to the parser."""
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
