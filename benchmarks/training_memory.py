"""Is the counted memory of a training step what it takes? Families x batch sizes, each measured in a process of its own.

Counted: the most bytes of tensors that live at one time, found by running the step on tensors without memory
(``labbench.live``), plus what a runtime takes, the same for every cell (``labbench.analysis.training.RUNTIME_BYTES``).
Measured: the peak above the empty worker of what lives; beside it the resident peak, which has what glibc's heap keeps of freed
blocks too. Batches are chosen so that the tensors take each of the ``--targets``. Cells that take less than 200 MB are printed
and not judged. Every cell is a record in ``--store``, from which ``07_training`` draws.

    python benchmarks/training_memory.py [--store data/benchmarks.h5] [--models bert-tiny ...] [--targets 300 600 1200]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from records import STORE

GOAL = 0.9  # share of cells
MODELS = (
    "bert-tiny", "t5-tiny", "gpt2-tiny", "llama-tiny", "qwen2-tiny", "vit-tiny", "resnet-tiny", "convnext-micro", "clip-tiny",
    "clap-tiny", "whisper-micro", "wav2vec2-tiny", "llava-tiny", "llava_next-tiny", "xclip-tiny", "detr-tiny",
)  # fmt: skip


def main() -> None:
    """Measure, print the table and the share of cells that are met."""
    from labbench import Campaign, Store
    from labbench.analysis import training
    from labbench.analysis.training_benchmarks import GOALS, LARGE_BYTES
    from labbench.campaign import resolve
    from labbench.cells import Cell
    from labbench.measure.protocol import preset
    from labbench.tuning.largest_batch import batch_within, with_batch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, default=STORE)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--targets", nargs="+", type=float, default=[300, 600, 1200], metavar="MB")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    cells = []
    for model in options.models:
        [cell] = resolve([Cell.of(model=model, mode="training", threads=options.threads)])
        cells += [with_batch(cell, max(batch_within(cell, 1e6 * target), 2)) for target in options.targets]
    # memory is what is asked: a few samples in one process suffice
    campaign = Campaign(
        cells,
        options.store,
        preset("quick", group_size=1, min_time_s=0.1, max_time_s=0.5, warmup_max_s=0.1, warmup_min_calls=1),
    )
    print(campaign.run())
    store = Store(options.store)
    frame = store.latest()
    mine = frame[frame["cell_id"].isin([cell.id for cell in campaign.cells])]
    table = training.memory(training.steps(mine, store.environments()))
    print(table.to_string(index=False))
    judged = table[table["live_bytes"] >= LARGE_BYTES]
    _, low, high = GOALS["training_memory.py"]
    met = (judged["error"] + 1).between(low, high).mean()
    print(
        f"{len(judged)} cells of at least {LARGE_BYTES / 1e6:.0f} MB: {met:.1%} within {high - 1:.0%} "
        f"(goal at least {GOAL:.0%}: {'met' if met >= GOAL else 'missed'}); median error {judged['error'].median():+.1%}, "
        f"largest {judged['error'].abs().max():.1%}"
    )


if __name__ == "__main__":
    main()
