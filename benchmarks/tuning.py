"""Does tuning pay? Training time to the target loss of the usual setting, of what a search finds, and of random search.

The same number of trials for both searches; what they find is then trained with seeds that neither saw, beside the usual
setting, in turn. Repeated for five seeds; medians. What the searches themselves cost is printed too. Each seed is a record in
``--store``.

    python benchmarks/tuning.py [--seeds 5] [--trials 24] [--store data/benchmarks.h5]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from records import STORE, keep

from labbench.cells import Cell
from labbench.tuning.digits import Setting, train
from labbench.tuning.search import search, study

GOAL = 0.5
JUDGED = 3  # trainings of each setting with unseen seeds


def main() -> None:
    """Search, then train what was found beside the usual setting."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--store", type=Path, default=STORE)
    options = parser.parse_args()
    torch.set_num_threads(1)
    ratios: dict[str, list[float]] = {"tpe": [], "random": []}
    kept = []
    for seed in range(options.seeds):
        folder = Path(tempfile.mkdtemp(prefix="labbench-tuning-"))
        found = {
            name: search(study(folder / "study.log", name, name, seed), trials=options.trials, seed=10 * seed)  # type: ignore[arg-type]
            for name in ratios
        }
        settings = {"usual": Setting(), **{name: tuned.setting for name, tuned in found.items()}}
        times: dict[str, list[float]] = {name: [] for name in settings}
        for repeat in range(JUDGED):
            for name, setting in settings.items():
                times[name].append(train(setting, 100 * seed + repeat).seconds)
        medians = {name: statistics.median(values) for name, values in times.items()}
        print(f"seed {seed}: usual {medians['usual']:.2f} s", end="")
        for name, tuned in found.items():
            ratios[name].append(medians[name] / medians["usual"])
            print(
                f"; {name} {medians[name]:.2f} s (batch {tuned.setting.batch_size}, rate {tuned.setting.learning_rate:.2g}; "
                f"searched for {tuned.spent_s:.1f} s)",
                end="",
            )
        print(flush=True)
        cell = Cell.of(model="digits", mode="training", batch_size=found["tpe"].setting.batch_size)
        metrics = {f"{name}_to_target_s": value for name, value in medians.items()}
        kept.append((cell, metrics | {"seed": float(seed)}))
    keep(options.store, "benchmarks/tuning.py", kept)
    for name, values in ratios.items():
        print(
            f"{name}: {statistics.median(values):.2f} of the usual setting's time in the median (goal at most {GOAL})"
        )


if __name__ == "__main__":
    main()
