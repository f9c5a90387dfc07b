"""Does tuning pay? Training time to the target loss of the usual setting, of what a search finds, and of random search.

The same number of trials for both searches; what they find is then trained with seeds that neither saw, beside the usual
setting, in turn. Repeated for five seeds; medians. What the searches themselves cost is printed too. Each seed is a record in
``--store``.

    python benchmarks/tuning.py [--seeds 5] [--trials 24] [--store data/benchmarks.h5]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import pandas as pd
from records import STORE, keep

from labbench.analysis.training_benchmarks import GOALS
from labbench.cells import Cell
from labbench.tuning.config import TuningConfig
from labbench.tuning.search import TRIALS
from labbench.tuning.studies import SAMPLERS, USUAL, ratios, tune_once


def main() -> None:
    """Search, then train what was found beside the usual setting."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=TRIALS)
    parser.add_argument("--store", type=Path, default=STORE)
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = TuningConfig(trials=options.trials)
    studies = Path(tempfile.mkdtemp(prefix="labbench-tuning-")) / "studies.log"
    judged, kept = [], []
    for seed in range(options.seeds):
        found = tune_once(config, studies, seed).judged
        judged.append(found)
        settings = found.groupby("setting").first()
        medians = found.groupby("setting")["seconds"].median()
        print(f"seed {seed}: usual {medians[USUAL]:.2f} s", end="")
        for name in SAMPLERS:
            one = settings.loc[name]
            print(
                f"; {name} {medians[name]:.2f} s (batch {one['batch_size']:.0f}, rate {one['learning_rate']:.2g}; "
                f"searched for {one['spent_s']:.1f} s)",
                end="",
            )
        print(flush=True)
        cell = Cell.of(model="digits", mode="training", batch_size=int(settings.loc["tpe", "batch_size"]))
        metrics = {f"{name}_to_target_s": float(value) for name, value in medians.items()}
        kept.append((cell, metrics | {"seed": float(seed)}))
    keep(options.store, "benchmarks/tuning.py", kept)
    for name, values in ratios(pd.concat(judged)).items():
        print(
            f"{name}: {values.median():.2f} of the usual setting's time in the median ({values.min():.2f} to {values.max():.2f}; "
            f"goal at most {GOALS['tuning.py, TPE'][2]})"
        )


if __name__ == "__main__":
    main()
