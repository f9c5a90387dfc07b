"""Are bottlenecks named right? Cells whose bottleneck is known, and zoo cells whose resources are then changed.

First, three modules built to wait for one thing each: a large matrix product (compute), a large element-wise operation (memory),
many tiny operators (dispatch). They must be named so, by profile and by counts alone.

Then cells of the zoo. Each is measured and named, and then measured again with one resource changed at a time: half the
threads, bf16, four times the batch. If a cell waits for one resource only, its latency changes as that resource's lower bound
does (FLOPs over the measured rate, bytes over the measured bandwidth, number of operators); this is one prediction a resource.
The one whose predictions are nearest to what was measured (mean absolute difference of log ratios over the changes) is the
verdict of the intervention, and the name given before must agree with it. Ceilings are measured for each number of threads.

    python benchmarks/bottlenecks.py [--store FILE]
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from labbench import zoo
from labbench.analysis.bottlenecks import STEADY, attribute, uncached_bytes
from labbench.analysis.roofline import place
from labbench.campaign import Campaign
from labbench.cells import Cell, Grid
from labbench.machine.ceilings import measured
from labbench.measure.protocol import preset
from labbench.store import Store

SIDE, LONG, TINY, OPERATORS = 2048, 2**26, 16, 400


class LargeProduct(torch.nn.Module):
    """One matrix product of 2 SIDE³ FLOPs."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(SIDE, SIDE, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x)


class LargeElementwise(torch.nn.Module):
    """Reads and writes far more than a cache holds."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 0.5


class ManyTiny(torch.nn.Module):
    """Operators that compute nearly nothing."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(OPERATORS):
            x = x + 1.0
        return x


BUILT = {
    "large-product": (LargeProduct, (SIDE, SIDE), "compute"),
    "large-elementwise": (LargeElementwise, (LONG,), "memory"),
    "many-tiny": (ManyTiny, (TINY,), "dispatch"),
}
ZOO = (  # model, runtime, series
    ("bert-base", "eager", "forward"),
    ("bert-base", "onnxruntime", "forward"),
    ("resnet-50", "eager", "forward"),
    ("vit-tiny", "openvino", "forward"),
    ("wav2vec2-tiny", "eager", "forward"),
    ("gpt2-small", "eager", "prefill"),
    ("gpt2-small", "eager", "decode"),
    ("gpt2-small", "onnxruntime", "decode"),
    ("gpt2-small", "openvino", "decode"),
    ("llama-tiny", "eager", "decode"),
    ("qwen2-tiny", "eager", "decode"),
    ("gpt2-tiny", "eager", "decode"),
)
CHANGES = {"threads": 1, "precision": "bf16", "batch_size": 4}


def built(store: Path) -> bool:
    """Print the names of the built cells; whether all are right."""
    for name, (module, shape, _) in BUILT.items():
        zoo.register_module(name, module, lambda batch, shape=shape: (torch.randn(shape),))
    protocol = preset("quick", profile=True)
    print(Campaign(Grid(axes={"model": list(BUILT), "runtime": "eager"}), store, protocol).run())
    frame = Store(store).latest(status="ok", model=list(BUILT))
    placed = place(frame, Store(store).environments())
    bare = placed.assign(profile_wall_s=np.nan)
    right = True
    for evidence, found in (("profile", attribute(placed)), ("counts", attribute(bare))):
        for row in found.itertuples():
            truth = BUILT[row.model][2]
            right &= row.bottleneck == truth
            print(
                f"{row.model:18} built for {truth:9} by {evidence:8}-> {row.bottleneck:9} {row.share:4.0%}, "
                f"confidence {row.confidence}, {row.reached:.0%} of the ceiling"
            )
    return right and len(frame) == len(BUILT)


def variants(model: str, runtime: str) -> dict[str, Cell]:
    """The cell and what it becomes by each change that its runtime can express."""
    start = {"model": model, "runtime": runtime, "threads": 2, "batch_size": 1}
    changes = {name: value for name, value in CHANGES.items() if not (name == "precision" and runtime == "onnxruntime")}
    return {"start": Cell.of(**start)} | {name: Cell.of(**{**start, name: value}) for name, value in changes.items()}


def bounds(row: pd.Series) -> dict[str, float]:
    """Seconds of each resource if the cell waited for it alone; of dispatch, the number of operators."""
    ceilings = measured("cpu", int(row["threads"]))
    moved = float(uncached_bytes(row.to_frame().T).sum()) or np.nan  # all in the cache: it cannot be main memory
    return {
        "compute": row["flops"] / ceilings["gemm_flops"][row["precision"]],
        "memory": moved / ceilings["bandwidth_bytes_s"],
        "dispatch": float(row["kernels"]),
    }


def intervene(store: Path) -> pd.DataFrame:
    """A row a zoo cell: the name given, and how far each resource's predictions are from what the changes brought."""
    for threads in (1, 2):
        measured("cpu", threads)
    cells = {(model, runtime): variants(model, runtime) for model, runtime, _ in ZOO}
    every = [cell for some in cells.values() for cell in some.values()]
    print(Campaign(every, store, preset("quick", profile=True)).run())
    frame = Store(store).latest(status="ok")
    named = attribute(place(frame, Store(store).environments()))
    rows = []
    for model, runtime, series in ZOO:
        part = named[(named["model"] == model) & (named["runtime"] == runtime) & (named["series"] == series)]
        part = part.astype(dict.fromkeys(CHANGES, object))
        start = part[(part["threads"] == 2) & (part["precision"] == "fp32") & (part["batch_size"] == 1)].iloc[0]
        apart: dict[str, list[float]] = {name: [] for name in STEADY}
        ratios = {}
        for change, value in CHANGES.items():
            same = [name for name in CHANGES if name != change]
            changed = part[(part[change] == value) & (part[same] == start[same]).all(axis=1)]
            if changed.empty:
                continue
            after = changed.iloc[0]
            ratios[change] = after["latency_s"] / start["latency_s"]
            before_s, after_s = bounds(start), bounds(after)
            for name in STEADY:
                apart[name].append(abs(np.log(ratios[change] * before_s[name] / after_s[name])))
        means = {name: float(np.mean(values)) for name, values in apart.items()}
        rows.append(
            {
                "cell": f"{model} {runtime} {series}",
                "named": start["bottleneck"],
                "share": f"{start['share']:.0%}",
                "confidence": start["confidence"],
                **{f"latency × ({name})": f"{ratio:.2f}" for name, ratio in ratios.items()},
                **{f"misfit {name}": f"{value:.2f}" for name, value in means.items()},
                "by intervention": min((name for name in means if means[name] == means[name]), key=means.__getitem__),
            }
        )
    return pd.DataFrame(rows).fillna("–")


def main() -> None:
    """Print both parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, help="where records are kept; default: nowhere")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    store = options.store or folder / "bottlenecks.h5"
    right = built(store)
    table = intervene(store)
    print(table.to_string(index=False))
    agree = int((table["named"] == table["by intervention"]).sum())
    print(f"built cells: {'all named right' if right else 'NOT all named right'}")
    print(f"zoo cells: {agree} of {len(table)} names agree with the intervention")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
