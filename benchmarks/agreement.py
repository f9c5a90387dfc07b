"""labbench's median against torch.utils.benchmark's, for ten cells in one run.

Both sides time the same programs with the same thread count and the same setting of the allocator (without it, whether a
process faults its heap in anew on every call is luck: see ``labbench.measure.memory.keep_heap``), in turn: for every
cell a fresh labbench worker, then ``torch.utils.benchmark.Timer.blocked_autorange`` in a fresh process pinned to the same
cores; repeated, medians compared.

    python benchmarks/agreement.py [--repeats 3] [--threads 1]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys

GOAL = 0.03
MODELS = (
    "bert-tiny", "t5-tiny", "gpt2-tiny", "llama-tiny", "vit-tiny",
    "resnet-tiny", "clip-tiny", "wav2vec2-tiny", "clap-tiny", "detr-tiny",
)  # fmt: skip

TIMER = """
import sys, torch
from torch.utils.benchmark import Timer
from labbench import zoo
from labbench.cells import Workload
from labbench.measure.memory import keep_heap
from labbench.measure.worker import pin
threads = int(sys.argv[2])
pin(threads)
keep_heap()
torch.set_num_threads(threads)
program = zoo.build(zoo.resolve(Workload(model=sys.argv[1]))).programs[0]
with torch.inference_mode():
    timer = Timer("f(*x)", globals={"f": program.module, "x": program.inputs}, num_threads=threads)
    timer.timeit(20)
    print(timer.blocked_autorange(min_run_time=1.0).median)
"""


def theirs(model: str, threads: int) -> float:
    """Median seconds by torch.utils.benchmark."""
    command = [sys.executable, "-c", TIMER, model, str(threads)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def ours(model: str, threads: int) -> float:
    """Median seconds by labbench."""
    from labbench.cells import Cell
    from labbench.measure import measure
    from labbench.measure.protocol import preset

    [record] = measure(Cell.of(model=model, threads=threads), protocol=preset("standard", processes=1))
    if record.primary is None:
        raise SystemExit(str(record))
    return record.primary.median_s.value


def main() -> None:
    """Print both sides of every cell, and the median disagreement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    gaps = []
    print(f"{'cell':<16} {'labbench':>12} {'torch Timer':>12} {'ratio':>8}   (range of repeats)")
    for model in MODELS:
        pairs = [(ours(model, options.threads), theirs(model, options.threads)) for _ in range(options.repeats)]
        mine, other = (statistics.median(side) for side in zip(*pairs, strict=True))
        ratios = [a / b for a, b in pairs]
        gaps.append(abs(mine / other - 1))
        print(
            f"{model:<16} {mine * 1e3:9.4f} ms {other * 1e3:9.4f} ms {mine / other:8.4f}"
            f"   ({min(ratios):.3f} to {max(ratios):.3f})"
        )
    middle = statistics.median(gaps)
    print(
        f"median disagreement {middle:.2%}, largest {max(gaps):.2%}  (goal: median within {GOAL:.0%}: "
        f"{'met' if middle <= GOAL else 'missed'})"
    )


if __name__ == "__main__":
    main()
