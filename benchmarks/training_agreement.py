"""labbench's training step against a plain PyTorch loop, in turn: step time, and whether the parts add up to it.

The plain side is a process of its own with its own clock: a module, an optimizer, ``zero_grad``, ``model(**batch).loss``,
``backward``, ``step``, as anyone would write it. Both are pinned to the same cores with the same number of threads and setting
of the allocator, and take turns of a few hundredths of a second. Medians of the ratios of neighbouring turns, by pair of processes
(``--processes``, medians again): of two identical processes one may be 3 % slower by luck. Each model is a record in ``--store``.

    python benchmarks/training_agreement.py [--seconds 5] [--processes 3] [--threads 1] [--models bert-tiny ...]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

from records import STORE, keep

from labbench.cells import Cell

GOAL = 0.03
SUM_GOAL = 0.02
MODELS = (
    "bert-tiny", "t5-tiny", "gpt2-tiny", "llama-tiny", "vit-tiny",
    "resnet-tiny", "convnext-micro", "whisper-micro", "wav2vec2-tiny", "detr-tiny",
)  # fmt: skip
BATCH = 4

PLAIN = """
import sys, time, torch
from labbench import zoo
from labbench.cells import Workload
from labbench.measure.memory import keep_heap
from labbench.measure.worker import pin
model, batch_size, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
pin(threads)
keep_heap()
torch.set_num_threads(threads)
made = zoo.build(zoo.resolve(Workload(model=model, mode="training", batch_size=batch_size)))
module, batch = made.module.train(), dict(made.training.batch)
if "decoder_input_ids" in batch:
    batch["use_cache"] = False
optimizer = torch.optim.AdamW(module.parameters(), lr=1e-4)
def step():
    optimizer.zero_grad()
    loss = module(**batch).loss
    loss.backward()
    optimizer.step()
for _ in range(10):
    step()
print("ready", flush=True)
for line in sys.stdin:
    step()
    times = []
    end = time.perf_counter() + float(line)
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    times.sort()
    print(times[len(times) // 2], flush=True)
"""


def compare(cell: Cell, seconds: float, threads: int) -> tuple[float, float, int]:
    """Median of ours over theirs, of the parts' sum over our whole step, and the number of turns."""
    from labbench.measure.group import job_of
    from labbench.measure.protocol import preset
    from labbench.measure.worker import Worker

    protocol = preset("standard", min_samples=10_000)  # parts are timed in every turn
    arguments = [sys.executable, "-c", PLAIN, cell.workload.model, str(BATCH), str(threads)]
    plain = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    worker = Worker(job_of(cell, protocol, threads, ()), "fork", sys.maxsize)
    assert plain.stdin is not None
    assert plain.stdout is not None
    try:
        worker.set_deadline(60)
        worker.wait()
        for command in ("load", "prepare", "first"):
            worker.call(command, timeout_s=60)
        assert plain.stdout.readline() == "ready\n"
        ratios, sums, spent = [], [], 0.0
        turn = 0
        while spent < seconds:
            sides = {}
            for side in ("ours", "theirs") if turn % 2 else ("theirs", "ours"):
                if side == "ours":
                    found = worker.call("round", {"step": 10_000}, timeout_s=60)
                    sides[side] = statistics.median(found["samples"]["step"])
                    parts = statistics.median(sum(one.values()) for one in found["parts"])
                else:
                    plain.stdin.write(f"{protocol.round_s}\n")
                    plain.stdin.flush()
                    sides[side] = float(plain.stdout.readline())
            ratios.append(sides["ours"] / sides["theirs"])
            sums.append(parts / sides["ours"])
            spent += 2 * max(protocol.round_s, sides["ours"])
            turn += 1
    finally:
        worker.close()
        plain.kill()
        plain.wait()
    return statistics.median(ratios), statistics.median(sums), turn


def main() -> None:
    """Print both sides for every model."""
    from labbench.campaign import resolve

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="of turns, each pair of processes")
    parser.add_argument("--processes", type=int, default=3, help="pairs of processes, each model")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--store", type=Path, default=STORE)
    options = parser.parse_args()
    off, gaps, found = [], [], []
    print(f"{'model':16} {'ours/theirs':>12} {'by pair':>16} {'parts/whole':>12} {'turns':>6}")
    for model in options.models:
        [cell] = resolve([Cell.of(model=model, mode="training", batch_size=BATCH, threads=options.threads)])
        pairs = [compare(cell, options.seconds, options.threads) for _ in range(options.processes)]
        ratio, total = (statistics.median(pair[i] for pair in pairs) for i in range(2))
        turns = sum(pair[2] for pair in pairs)
        spread = f"{min(pair[0] for pair in pairs):.3f} to {max(pair[0] for pair in pairs):.3f}"
        off.append(abs(ratio - 1))
        gaps.append(abs(total - 1))
        print(f"{model:16} {ratio:12.3f} {spread:>16} {total:12.3f} {turns:6}", flush=True)
        metrics = {"step_over_plain_loop": ratio, "parts_over_step": total, "turns": float(turns)}
        found.append((cell, metrics))
    keep(options.store, "benchmarks/training_agreement.py", found)
    print(
        f"step: off by {statistics.median(off):.1%} in the median, {max(off):.1%} at worst (goal {GOAL:.0%} in the median)"
    )
    print(f"parts: off by {statistics.median(gaps):.1%} in the median, {max(gaps):.1%} at worst (goal {SUM_GOAL:.0%})")


if __name__ == "__main__":
    main()
