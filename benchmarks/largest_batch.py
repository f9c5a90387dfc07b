"""Is the largest batch that the search finds the true one, and how many probes does it take? For ten models.

The true one is found by bisection: the batch size is moved outwards by ``STEP`` from what the search found until one end fits and
the other does not, then halved to within a hundredth. Every probe is a process with the memory limit that may die of it; memory
differs by about a per cent from process to process, so the true one is known to about that. Each model is a record in ``--store``.

    python benchmarks/largest_batch.py [--limit 400] [--models bert-tiny ...] [--store data/benchmarks.h5]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from records import STORE, keep

from labbench.analysis.training_benchmarks import GOALS
from labbench.cells import Cell
from labbench.tuning.largest_batch import MOST_PROBES, Probe, largest_batch, try_batch, with_batch

STEP = 0.1  # of the batch size, outwards
FINEST = 0.01
MODELS = (
    "bert-tiny", "t5-tiny", "gpt2-tiny", "llama-tiny", "vit-tiny",
    "resnet-tiny", "convnext-micro", "clip-tiny", "whisper-micro", "wav2vec2-tiny",
)  # fmt: skip


def bisected(cell: Cell, start: int, limit_bytes: int, known: list[Probe]) -> tuple[int, int]:
    """The true largest batch, and how many further probes it took to know."""
    from labbench.measure.protocol import preset

    protocol, made = preset("quick"), 0
    fits = {one.batch_size: one.fits for one in known}

    def ask(size: int) -> bool:
        nonlocal made
        if size not in fits:
            made += 1
            fits[size] = try_batch(with_batch(cell, size), limit_bytes, protocol).fits
        return fits[size]

    low = max(start, 1)
    while low > 1 and not ask(low):
        low = max(int(low * (1 - STEP)), 1)
    high = low + max(int(STEP * low), 1)
    while ask(high):
        low, high = high, high + max(int(STEP * high), 1)
    while high - low > max(1, FINEST * low):
        middle = (low + high) // 2
        low, high = (middle, high) if ask(middle) else (low, middle)
    return low, made


def main() -> None:
    """Search, bisect, print both."""
    from labbench.campaign import resolve

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=float, default=400, help="MB above an empty process")
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--store", type=Path, default=STORE)
    options = parser.parse_args()
    limit = int(options.limit * 1e6)
    found, off = [], []
    print(f"{'model':16} {'found':>6} {'true':>6} {'off':>7} {'probes':>7} {'bisection':>10} {'seconds':>8}")
    for model in options.models:
        [cell] = resolve([Cell.of(model=model, mode="training")])
        start = time.perf_counter()
        search = largest_batch(cell, limit)
        seconds = time.perf_counter() - start
        true, further = bisected(cell, search.batch_size, limit, list(search.probes))
        off.append(search.batch_size / true - 1)
        probes = len(search.probes)
        print(
            f"{model:16} {search.batch_size:6} {true:6} {off[-1]:7.1%} {probes:7} {further:+10} {seconds:8.1f}",
            flush=True,
        )
        metrics = {
            "limit_bytes": limit,
            "largest_batch": search.batch_size,
            "true_largest_batch": true,
            "probes": probes,
        }
        found.append((with_batch(cell, max(search.batch_size, 1)), {k: float(v) for k, v in metrics.items()}))
    keep(options.store, "benchmarks/largest_batch.py", found)
    most = max(int(one[1]["probes"]) for one in found)
    _, least, most_of_true = GOALS["largest_batch.py"]
    met = sum(least <= 1 + one <= most_of_true for one in off)
    print(
        f"within {most_of_true - 1:.0%} of the true largest batch: {met} of {len(off)}; at most {most} probes "
        f"(goal {MOST_PROBES}); this process and its searches survived every probe"
    )


if __name__ == "__main__":
    main()
