"""Fixed cost of an isolated cell: ours, a fresh process, and optimum-benchmark's process launcher.

The fixed cost is everything but the measurement: from asking for a cell until its process is gone, less the time spent
calling the model. No side takes its memory pass; ours includes comparing the output with eager fp32's. All three run the
same tiny BERT on the CPU, one thread, in turn, and the medians are compared.

    python benchmarks/cell_overhead.py [--repeats 5] [--peer PYTHON]

``--peer`` is the interpreter of a virtual environment that has optimum-benchmark; without it, one is made in a temporary
folder (``optimum-benchmark``, ``transformers<5``, ``datasets<4.5``; it takes minutes). ``--peer none`` leaves it out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

GOAL = 1 / 30
CALLS = 5  # forward passes in every cell, ours and theirs

FRESH = f"""
import torch, transformers, time
from labbench import zoo
from labbench.cells import Workload
torch.set_num_threads(1)
program = zoo.build(zoo.resolve(Workload(model="bert-tiny"))).programs[0]
with torch.inference_mode():
    start = time.perf_counter()
    for _ in range({CALLS}):
        program.module(*program.inputs)
    print(time.perf_counter() - start)
"""

PEER = f"""
import json, os, sys, time
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"
from optimum_benchmark import Benchmark, BenchmarkConfig, InferenceConfig, ProcessConfig, PyTorchConfig

def cell(folder):
    scenario = InferenceConfig(
        iterations={CALLS}, warmup_runs=0, duration=0, latency=True, memory=False, energy=False,
        input_shapes=dict(batch_size=1, sequence_length=128),
    )
    backend = PyTorchConfig(model=folder, task="fill-mask", library="transformers", device="cpu", no_weights=False)
    config = BenchmarkConfig(name="cell", scenario=scenario, launcher=ProcessConfig(), backend=backend)
    start = time.perf_counter()
    report = Benchmark.launch(config)
    spent = time.perf_counter() - start
    return spent - sum(report.forward.latency.values)

if __name__ == "__main__":
    print("RESULT", json.dumps([cell(sys.argv[1]) for _ in range(int(sys.argv[2]))]))
"""


def ours() -> float:
    """Seconds of one labbench cell, less the time in the model's calls."""
    from labbench.cells import Cell
    from labbench.measure.protocol import preset
    from labbench.measure.session import Job
    from labbench.measure.worker import Worker
    from labbench.zoo import resolve

    cell = Cell.of(model="bert-tiny")
    job = Job(cell.model_copy(update={"workload": resolve(cell.workload)}), preset("quick", round_s=1e-9), threads=1)
    start = perf_counter()
    worker = Worker(job, "fork", memory_limit_bytes=2**34)
    worker.set_deadline(60)
    worker.wait()
    facts = worker.call("load", timeout_s=60)
    worker.call("prepare", timeout_s=60)
    first = worker.call("first", timeout_s=60)["first_run_s"]
    [(name, _, _)] = facts["series"]
    called = 0.0
    for _ in range(CALLS):
        before = perf_counter()
        worker.call("round", {name: 1}, timeout_s=60)
        called += perf_counter() - before
    worker.close()
    return perf_counter() - start - called - first


def fresh() -> float:
    """Seconds of a new interpreter that imports torch and transformers and runs the same model, less its calls."""
    start = perf_counter()
    run = subprocess.run([sys.executable, "-c", FRESH], capture_output=True, text=True, check=True)
    return perf_counter() - start - float(run.stdout)


def make_peer(folder: Path) -> str:
    """A virtual environment with optimum-benchmark; returns its interpreter."""
    python = folder / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    wanted = ["torch==2.13.0", "optimum-benchmark==0.6.0", "transformers<5", "datasets<4.5"]
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", *wanted], check=True)
    return str(python)


def save_model(folder: Path) -> Path:
    """The tiny BERT as a local model folder that optimum-benchmark can load."""
    from labbench import zoo
    from labbench.cells import Workload

    model = zoo.build(zoo.resolve(Workload(model="bert-tiny"))).module
    model.save_pretrained(folder / "bert")  # type: ignore[operator]
    return folder / "bert"


def peer(python: str, model: Path, repeats: int, folder: Path) -> list[float]:
    """Seconds of one optimum-benchmark cell through its process launcher, less its reported forward times."""
    script = folder / "peer.py"
    script.write_text(PEER)
    run = subprocess.run([python, str(script), str(model), str(repeats)], capture_output=True, text=True, cwd=folder)
    lines = [line for line in run.stdout.splitlines() if line.startswith("RESULT")]
    if not lines:
        raise SystemExit(f"optimum-benchmark did not run:\n{run.stderr[-2000:]}")
    found: list[float] = json.loads(lines[0].removeprefix("RESULT"))
    return found


def show(name: str, seconds: list[float]) -> float:
    """Print one side: median and range."""
    middle = statistics.median(seconds)
    print(f"{name:<34} {middle:8.3f} s   ({min(seconds):.3f} to {max(seconds):.3f}, n = {len(seconds)})")
    return middle


def main() -> None:
    """Run all sides in turn and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peer", help="interpreter with optimum-benchmark, or 'none'")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        python = None if options.peer == "none" else options.peer or make_peer(folder)
        model = save_model(folder) if python else None
        server = ours()  # starts the fork server: paid once a campaign, printed, not counted
        mine, anew, theirs = [], [], []
        for _ in range(options.repeats):
            mine += [ours() for _ in range(4)]
            anew.append(fresh())
            if python and model:
                theirs += peer(python, model, 1, folder)
        print(f"first cell, with the fork server's start-up: {server:.2f} s\n")
        ours_s = show("labbench, forked worker", mine)
        fresh_s = show("fresh process, torch + transformers", anew)
        print(f"{'ratio to a fresh process':<34} 1/{fresh_s / ours_s:.0f}")
        if theirs:
            theirs_s = show("optimum-benchmark, process launcher", theirs)
            verdict = "met" if ours_s <= GOAL * theirs_s else "missed"
            print(f"{'ratio to optimum-benchmark':<34} 1/{theirs_s / ours_s:.0f}   (goal 1/{1 / GOAL:.0f}: {verdict})")


if __name__ == "__main__":
    main()
