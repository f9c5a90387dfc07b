"""How long it takes to fit all of timm's results and to predict 100,000 cells, from timm's results and traced operators.

The cells are the architectures and configurations of the results, each at batch sizes from 1 to 128: as many as are asked for.
What is worked out of operators is worked out within the time; the operators themselves are in GRAPHS.

    python benchmarks/prediction_speed.py FOLDER GRAPHS.parquet
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from timm_models import results

from labbench.prediction import Graphs, PredictionConfig, Predictor

BATCHES = 2 ** np.arange(8)


def main() -> None:
    """Print both times, of the wall and of the processor, and how many cores the processor's are spread over at least."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("graphs", type=Path)
    parser.add_argument("--cells", type=int, default=100_000)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    config, graphs = PredictionConfig(), Graphs.read(options.graphs)
    table, ceilings = results(options.folder, graphs, "inference", config)
    began = time.perf_counter()
    predictor = Predictor(config).fit_rows(table, ceilings, graphs)
    print(f"fitting {len(table):,} results: {time.perf_counter() - began:.0f} s")
    one_each = table.drop_duplicates(["model", "image_size", "machine_id", "platform", "precision", "framework"])
    each = pd.concat([one_each.assign(batch_size=int(batch)) for batch in BATCHES], ignore_index=True)
    asked = pd.concat([each] * -(-options.cells // len(each)), ignore_index=True).iloc[: options.cells]
    for _ in range(options.repeat):
        began, used = time.perf_counter(), time.process_time()
        found = predictor.predict(asked)
        wall, processor = time.perf_counter() - began, time.process_time() - used
        print(
            f"predicting {len(asked):,} cells, {asked.drop_duplicates().shape[0]:,} of them different: {wall:.1f} s "
            f"({processor:.1f} s of a processor), {found['latency_s'].notna().sum():,} answered"
        )


if __name__ == "__main__":
    main()
