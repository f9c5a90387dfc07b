"""Does advice keep its promise? The best single change of ten models, measured again beside where it starts from.

First a grid is measured (what is stored already is kept): ten models, four runtimes, one and two threads, two batch sizes, bf16,
channels-last. Then, twice:

- as a user would: the top-ranked advice on each model, from all that was measured;
- withheld: each model's own changed cells are hidden, so that its advice is estimated from the other nine.

A piece of advice is tested by measuring its cell and its starting point anew, interleaved, with the default protocol. It
kept its promise if at least half of the promised gain came.

    python benchmarks/advice.py [--store advice.h5]
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

from labbench.advice import verify
from labbench.analysis.opportunities import advise, top
from labbench.analysis.outcomes import hit_rate, outcomes
from labbench.analysis.tables import outcome_table
from labbench.campaign import Campaign
from labbench.cells import Grid
from labbench.measure.protocol import preset
from labbench.store import Store

MODELS = ["bert-tiny", "gpt2-tiny", "t5-tiny", "vit-tiny", "resnet-tiny", "convnext-micro", "clip-tiny", "whisper-micro",
          "wav2vec2-tiny", "detr-tiny"]  # fmt: skip
RUNTIMES = ["eager", "compile", "onnxruntime", "openvino"]
GRIDS: list[dict[str, Any]] = [
    {"model": MODELS, "runtime": RUNTIMES},
    {"model": MODELS, "batch_size": 8},
    {"model": MODELS, "threads": 1},
    {"model": MODELS, "precision": ["bf16", "int8"]},
    {"model": ["resnet-tiny", "convnext-micro", "detr-tiny"], "memory_format": "channels_last"},
]


def withheld(frame: pd.DataFrame, samples: pd.DataFrame) -> pd.DataFrame:
    """The top advice on each model as if nothing but its starting point had been measured of it."""
    parts = []
    for model in MODELS:
        own = frame["model"].astype("str") == model
        start = (
            (frame["platform"].astype("str") == "cpu/eager")
            & (frame["precision"] == "fp32")
            & (frame["batch_size"] == 1)
        )
        parts.append(advise(frame[~own | start], samples, models=[model]))
    return top(pd.concat(parts, ignore_index=True))


def test(name: str, advice: pd.DataFrame) -> None:
    """Measure what was advised, print what came of it."""
    if advice.empty:
        print(f"\n{name}: no advice")
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tests.h5"
        verify(advice, path, preset("standard"))
        found = outcomes(Store(path))
    print(f"\n{name}: {found['kept'].sum()} of {len(found)} brought at least half of the promised gain ", end="")
    print(f"({hit_rate(found):.0%}; goal at least 80 %); median share of the promise {found['share'].median():.0%}")
    print(outcome_table(found).to_string(index=False))


def main() -> None:
    """Measure, advise, test."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, help="where the grid is kept; default: nowhere")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    path = options.store or folder / "grid.h5"
    cells = [cell for axes in GRIDS for cell in Grid(axes=axes).cells()]
    print(Campaign(cells, path, preset("quick")).run())
    store = Store(path)
    frame = store.latest()
    samples = store.samples(frame.loc[frame["status"] == "ok", "record_id"])
    best = top(advise(frame, samples)).drop_duplicates("model")
    test("from all that was measured", best)
    test("estimated from other models", withheld(frame, samples).drop_duplicates("model"))
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
