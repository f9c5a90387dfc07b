"""labbench's training step against a plain PyTorch loop, in turn: step time, and whether the parts add up to it.

The plain side is a process of its own with its own clock: a module, an optimizer, ``zero_grad``, ``model(**batch).loss``,
``backward``, ``step``, as anyone would write it. Both are pinned to the same cores with the same number of threads and setting
of the allocator, and take turns of a few hundredths of a second. Medians of the ratios of neighbouring turns, by set of processes
(``--processes``, medians again): of two identical processes one may be 3 % slower by luck. Each model is a record in ``--store``.
With ``--optimum PYTHON`` (``pip install optimum-benchmark 'transformers<5' 'datasets<4.5'`` in an environment of its own)
optimum-benchmark's training takes turns too, for the tasks that it makes data for.

    python benchmarks/training_agreement.py [--seconds 5] [--processes 3] [--threads 1] [--models bert-tiny ...] [--optimum PYTHON]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from records import STORE, keep

from labbench.analysis.training_benchmarks import GOALS
from labbench.cells import Cell
from labbench.measure.memory import LARGEST_MMAP, LARGEST_TRIM

MODELS = (
    "bert-tiny", "t5-tiny", "gpt2-tiny", "llama-tiny", "vit-tiny",
    "resnet-tiny", "convnext-micro", "whisper-micro", "wav2vec2-tiny", "detr-tiny",
)  # fmt: skip
BATCH = 4
ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": str(LARGEST_MMAP),
    "MALLOC_TRIM_THRESHOLD_": str(LARGEST_TRIM),
}  # as our workers'
SIDES = {  # name -> metric, what it is, and the benchmark's name among the goals
    "plain": ("step_over_plain_loop", "plain loop", "training_agreement.py"),
    "optimum": ("step_over_optimum_benchmark", "optimum-benchmark", "training_agreement.py, optimum-benchmark"),
    "parts": ("parts_over_step", "parts' sum over the step", "training_agreement.py, parts"),
}

PLAIN = """
import sys, time, torch
from labbench import zoo
from labbench.cells import Workload
from labbench.measure.worker import pin
model, batch_size, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
pin(threads)
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


class Side:
    """A process that takes turns of its own step; each turn is answered with the median step in seconds."""

    def __init__(self, *command: str) -> None:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=os.environ | ALLOCATOR)

    def ready(self) -> None:
        """Wait until it has warmed up."""
        answer = self._process.stdout.readline()  # type: ignore[union-attr]
        if answer != "ready\n":
            raise SystemExit(f"{' '.join(self._process.args[:2])} … ended with {answer!r}")  # type: ignore[index]

    def turn(self, seconds: float) -> float:
        """The median step of a turn."""
        self._process.stdin.write(f"{seconds}\n")  # type: ignore[union-attr]
        self._process.stdin.flush()  # type: ignore[union-attr]
        return float(self._process.stdout.readline())  # type: ignore[union-attr]

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


def plain_loop(cell: Cell, threads: int) -> Side:
    """The plain side."""
    return Side(sys.executable, "-c", PLAIN, cell.workload.model, str(BATCH), str(threads))


def optimum(python: str, cell: Cell, threads: int, folder: Path) -> Side | None:
    """optimum-benchmark's side, with the same configuration and shapes; None where it has no generator for the task."""
    from labbench import zoo

    work = cell.workload
    texts = ("fill-mask", "text-generation", "text2text-generation")
    if work.task == "image-classification":
        shapes = {"height": work.image_size, "width": work.image_size}
    elif work.task in texts:
        shapes = {"sequence_length": work.seq_len}
    else:
        return None
    if not (folder / work.model).exists():
        zoo.build(work).module.save_pretrained(folder / work.model)
    script = str(Path(__file__).with_name("optimum_training.py"))
    return Side(python, script, str(folder / work.model), work.task, str(BATCH), str(threads), json.dumps(shapes))


def compare(cell: Cell, seconds: float, threads: int, sides: dict[str, Side]) -> tuple[dict[str, float], int]:
    """Medians of our step over that of each side, and of the parts' sum over our whole step; and the number of turns."""
    from labbench.measure.group import job_of
    from labbench.measure.protocol import preset
    from labbench.measure.worker import Worker

    protocol = preset("standard", min_samples=10_000)  # parts are timed in every turn
    worker = Worker(job_of(cell, protocol, threads, ()), "fork", sys.maxsize)
    ratios: dict[str, list[float]] = {name: [] for name in ("parts", *sides)}
    try:
        worker.set_deadline(60)
        worker.wait()
        for command in ("load", "prepare", "first"):
            worker.call(command, timeout_s=60)
        for side in sides.values():
            side.ready()

        def ours(_: float) -> float:
            found = worker.call("round", {"step": 10_000}, timeout_s=60)
            step = statistics.median(found["samples"]["step"])
            ratios["parts"].append(statistics.median(sum(one.values()) for one in found["parts"]) / step)
            return step

        turns = {"ours": ours, **{name: side.turn for name, side in sides.items()}}
        spent, count = 0.0, 0
        while spent < seconds:
            order = list(turns)[:: -1 if count % 2 else 1]
            step = {name: turns[name](protocol.round_s) for name in order}
            for name in sides:
                ratios[name].append(step["ours"] / step[name])
            spent += sum(max(protocol.round_s, one) for one in step.values())
            count += 1
    finally:
        worker.close()
        for side in sides.values():
            side.close()
    return {name: statistics.median(values) for name, values in ratios.items()}, count


def main() -> None:
    """Print both sides for every model."""
    from labbench.campaign import resolve

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="of turns, each set of processes")
    parser.add_argument("--processes", type=int, default=3, help="sets of processes, each model")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--optimum", metavar="PYTHON", help="interpreter of an environment with optimum-benchmark")
    parser.add_argument("--store", type=Path, default=STORE)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="labbench-agreement-"))
    off: dict[str, list[float]] = {}
    found = []
    print(f"{'model':16} {'ours/plain loop':>24} {'ours/optimum-benchmark':>24} {'parts/step':>24} {'turns':>6}")
    for model in options.models:
        [cell] = resolve([Cell.of(model=model, mode="training", batch_size=BATCH, threads=options.threads)])
        runs, turns = [], 0
        for _ in range(options.processes):
            sides: dict[str, Side | None] = {"plain": plain_loop(cell, options.threads)}
            if options.optimum:
                sides["optimum"] = optimum(options.optimum, cell, options.threads, folder)
            run, count = compare(cell, options.seconds, options.threads, {k: v for k, v in sides.items() if v})
            runs.append(run)
            turns += count
        medians = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
        line = f"{model:16}"
        for name in SIDES:
            told = ""
            if name in medians:
                off.setdefault(name, []).append(medians[name] - 1)
                told = f"{medians[name]:.3f} ({min(run[name] for run in runs):.3f} to {max(run[name] for run in runs):.3f})"
            line += f" {told:>24}"
        print(f"{line} {turns:6}", flush=True)
        metrics = {SIDES[name][0]: value for name, value in medians.items()}
        found.append((cell, metrics | {"turns": float(turns)}))
    keep(options.store, "benchmarks/training_agreement.py", found)
    for name, (_, what, benchmark) in SIDES.items():
        if name in off:
            gaps, goal = [abs(one) for one in off[name]], GOALS[benchmark][2] - 1
            print(
                f"{what}: {statistics.median(off[name]):+.1%} in the median of {len(gaps)} models, off by "
                f"{statistics.median(gaps):.1%} in the median, {max(gaps):.1%} at worst (goal {goal:.0%} in the median)"
            )


if __name__ == "__main__":
    main()
