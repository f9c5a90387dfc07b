"""How often is noise called a difference? A/A and A/B comparisons from real measurements.

A/A: the same cell is measured twice, as two cells of one group (interleaved rounds, separate processes), and compared. B is
the same cell with 5 % injected: every sample of one side times 1.05, so that everything else about it stays real. Done without
and with a CPU hog on the other core. Beside labbench's verdict: Welch's t on raw samples, and "the means differ by more than 2 %".

    python benchmarks/noise.py [--pairs 40] [--processes 2]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pandas as pd

ALPHA = 0.05
INJECTED = 1.05
MODELS = ("bert-tiny", "vit-tiny", "resnet-tiny", "clip-tiny")


@contextlib.contextmanager
def hog(core: int, running: bool) -> Iterator[None]:
    """A process that keeps one core busy."""
    if not running:
        yield
        return
    process = subprocess.Popen(
        [sys.executable, "-c", f"import os; os.sched_setaffinity(0, {{{core}}})\nwhile True: pass"]
    )
    try:
        yield
    finally:
        process.kill()
        process.wait()


def samples_of(record: object) -> pd.DataFrame:
    """Raw samples of a record's first series."""
    taken = record.series[0].samples  # type: ignore[attr-defined]
    return pd.DataFrame({"process": taken.process, "round": taken.round, "seconds": taken.seconds})


def pair(model: str, processes: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The same cell measured twice at the same time, one thread, in interleaved rounds."""
    from labbench import zoo
    from labbench.cells import Cell
    from labbench.measure import group
    from labbench.measure.protocol import preset

    cell = Cell.of(model=model, threads=1)
    cell = cell.model_copy(update={"workload": zoo.resolve(cell.workload)})
    protocol = preset("quick", processes=processes, prepare_concurrency=1, min_time_s=0.6, target_ci=0.02)
    found = list(group.measure([cell, twin(cell)], protocol, threads=1))
    if any(record.status != "ok" for record in found):
        raise SystemExit("; ".join(str(record) for record in found))
    return samples_of(found[0]), samples_of(found[1])


def twin(cell: object) -> object:
    """The same cell under another id: a task name is all that differs, and it does not change what runs."""
    work = cell.workload.model_copy(update={"task": "the same again"})  # type: ignore[attr-defined]
    return cell.model_copy(update={"workload": work})  # type: ignore[attr-defined]


def judgements(a: pd.DataFrame, b: pd.DataFrame) -> dict[str, bool]:
    """Whether each method calls the two different."""
    from scipy.stats import ttest_ind

    from labbench.analysis.compare import compare_pair, rounds_of

    return {
        "labbench": compare_pair(rounds_of(a), rounds_of(b), paired=True, alpha=ALPHA).verdict in ("faster", "slower"),
        "Welch's t on raw samples": bool(ttest_ind(a["seconds"], b["seconds"], equal_var=False).pvalue < ALPHA),
        "means differ by > 2 %": bool(abs(a["seconds"].mean() / b["seconds"].mean() - 1) > 0.02),
    }


def main() -> None:
    """Measure pairs, print the rate at which each method says "different"."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=40, help="pairs per condition")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    other = sorted(os.sched_getaffinity(0))[0]  # cells are pinned to the last core
    for loaded in (False, True):
        rows: dict[str, list[dict[str, bool]]] = {"A/A": [], "A/B": []}
        with hog(other, loaded):
            for i in range(options.pairs):
                a, b = pair(MODELS[i % len(MODELS)], options.processes)
                rows["A/A"].append(judgements(a, b))
                rows["A/B"].append(judgements(a.assign(seconds=a["seconds"] * INJECTED), b))
        print(
            f"\n{'with' if loaded else 'without'} a hog on the other core: {options.pairs} pairs of {options.processes} processes"
        )
        for kind, goal in (("A/A", "≤ 5 %"), ("A/B", "≥ 90 %")):
            rates = {name: np.mean([row[name] for row in rows[kind]]) for name in rows[kind][0]}
            text = ", ".join(f"{name} {rate:.1%}" for name, rate in rates.items())
            print(f"  {kind} called different (goal {goal} for labbench): {text}")


if __name__ == "__main__":
    main()
