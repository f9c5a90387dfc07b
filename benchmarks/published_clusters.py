"""Published training runs on clusters against the simulator, which had no part of them to learn from.

What each figure rests on:

- computing: rate of a large half-precision product and of fused attention on a single GPU (``labbench.distributed.known``), the
  shape of other products and everything that moves data by laws of single kernels in single precision on five GPUs
  (``labbench.distributed.compute.LAWS``; with FOLDER, NeuSight's ``scripts/asplos`` data, they are fitted anew and printed);
- links: all-reduces timed on a single node, and each run's network cards, used to the share that NCCL's maintainers name;
- a board with a lower power limit than its datasheet's makes products in proportion more slowly (energy an operation stays the
  same).

Runs (``published_runs.csv``), all that a source has for models from a billion parameters on in half precision and sequences of
2048 (torchtitan: 8192, compiled), so that none is left out for its result:

- megatron-2021: Narayanan et al. 2021, arXiv:2104.04473, table 1; micro-batches, chunks by Megatron-LM's
  examples/sc21/run_table_1.sh;
- megatron-2022: Korthikanti et al. 2022, arXiv:2205.05198, table 5 (as in calculon's calculon/llm/validation.py), micro-batches
  and chunks by calculon's validation/seqsel/tab5;
- mt-nlg: Smith et al. 2022, arXiv:2201.11990, section 3.1, seconds of an iteration on 280, 350 and 420 nodes;
- llm-foundry: github.com/mosaicml/llm-foundry, scripts/train/benchmarking/README.md: 80 GB A100 and H100, 40 GB A100;
- torchtitan: github.com/pytorch/torchtitan, benchmarks/llama3_h100_202412_torchtitan.md (500 W, 2.4 TB/s, half precision: tables
  1 and 3).

    python benchmarks/published_clusters.py [FOLDER]
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from labbench.distributed.cluster import Accelerator, cluster
from labbench.distributed.collectives_model import Collectives
from labbench.distributed.compute import LAWS, Compute, Laws
from labbench.distributed.simulate import Simulated, simulate
from labbench.distributed.step import MEGATRON, States, Strategy, transformer_step
from labbench.distributed.transformer import Transformer, published
from labbench.machine.datasheet import datasheet
from labbench.prediction.kernels import KernelModel

RUNS = Path(__file__).with_name("published_runs.csv")
GOAL = 0.15
DEVICES = {
    "a100": "A100 SXM4 80 GB",
    "a100-40": "A100 SXM4 40 GB",
    "h100": "H100 SXM5 80 GB",
    "h100-500w": "H100 SXM5 96 GB",
}
# FSDP: a shard of weights and gradients in fp32 and two moments, gradients reduced in fp32 (DEFAULT) or bf16 (PURE).
STATES = {"megatron": MEGATRON, "default": States(4.0, 4.0, 8.0, 4.0), "pure": States(4.0, 4.0, 8.0, 2.0)}
GATHERED = 2.0  # bytes of a weight on the wire under FSDP
POWER = {"h100-500w": (500 / 700, 2.4e12)}  # share of the datasheet's power, bytes/s of memory
MPT = {
    "1b": (24, 2048, 16),
    "3b": (32, 2560, 20),
    "7b": (32, 4096, 32),
    "13b": (40, 5120, 40),
    "30b": (48, 7168, 56),
    "70b": (80, 8192, 64),
}


def main() -> None:
    """Print each run beside what was simulated, then errors by source."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    folder = parser.parse_args().folder
    laws = fitted(folder) if folder else LAWS
    rows = [compared(run, laws) for run in pd.read_csv(RUNS).itertuples()]
    table = pd.DataFrame(rows)
    pd.set_option("display.width", 250)
    print(table.drop(columns="off").to_string(index=False))
    off = table["off"].abs()
    for by in (["source"], ["source", "device"], []):
        groups = table.groupby(by) if by else [("all", table)]
        print(f"\nBy {' and '.join(by) or 'nothing'}: runs, within {GOAL:.0%}, mean absolute error and bias in %")
        for name, these in groups:
            mine = off[these.index]
            text = name if isinstance(name, str) else " ".join(name)
            within = int((mine <= GOAL).sum())
            print(f"{text:26s} {len(these):3d} {within:3d} {100 * mine.mean():6.1f} {100 * these['off'].mean():+6.1f}")


def fitted(folder: Path) -> Laws:
    """The laws of single kernels, printed beside those that the package keeps."""
    from labbench.importers.neusight_kernels import kernels

    timed = kernels(folder / "ops")
    model = KernelModel.fit(timed, {name: datasheet(name) for name in timed["device"].unique()}, judge=False)
    shares = {kind: float(np.exp(model.laws[kind].share + model.laws[kind].stacked)) for kind in LAWS.shares}
    laws = Laws(model.laws["product"], shares)
    for what, mine in (("kept", LAWS), ("fitted", laws)):
        theta = " ".join(f"{value:.3g}" for value in np.exp(mine.product.theta))
        print(
            f"laws {what}: product {theta}; " + ", ".join(f"{kind} {share:.3f}" for kind, share in mine.shares.items())
        )
    return laws


def compared(run: Any, laws: Laws) -> dict[str, Any]:
    """A run's reported and simulated figure."""
    strategy = strategy_of(run)
    model = replace(model_of(run.model), sequence=run.sequence)
    found = simulated(run, model, strategy, laws)
    tokens = run.batch * run.sequence
    told = {
        "seconds": found.step_s,
        "tokens": tokens / found.step_s / strategy.ranks,
        "hfu": model.flops(tokens, "full") / found.step_s / strategy.ranks,
    }[run.unit]
    off = run.reported / told - 1 if run.unit != "seconds" else found.step_s / run.reported - 1  # of the step's time
    shown = {name: f"{100 * value / found.step_s:.0f}" for name, value in found.parts_s.items() if name != "slowest"}
    memory = found.memory.total / 2**30
    return {
        "source": run.source, "model": run.model, "device": run.device, "ranks": strategy.ranks,
        "strategy": f"d{run.data} t{run.tensor} p{run.pipeline}x{run.chunks} z{run.zero} b{run.micro_batch} {run.recompute}",
        "unit": run.unit, "reported": f"{run.reported:.4g}", "simulated": f"{told:.4g}", "time off %": f"{100 * off:+.1f}",
        **shown, "GiB": f"{memory:.0f}", "off": off,
    }  # fmt: skip


def strategy_of(run: Any) -> Strategy:
    """How a run was spread."""
    return Strategy(
        run.data, run.tensor, run.pipeline, run.zero, run.micro_batch, "interleaved" if run.chunks > 1 else "1f1b", run.chunks,
        run.recompute, bool(run.sequence_parallel), bool(run.overlap),
    )  # fmt: skip


@cache
def model_of(name: str) -> Transformer:
    """Published, or one of the MPT family (llm-foundry, scripts/train/yamls): no biases, no dropout, fused attention."""
    if not name.startswith("mpt-"):
        return published(name)
    layers, hidden, heads = MPT[name[4:]]
    return Transformer(name, layers, hidden, heads, 2048, 50_368, dropout=False)


def device_of(name: str) -> Accelerator:
    """With its power limit and memory."""
    whole = Accelerator.of(DEVICES[name])
    if name not in POWER:
        return whole
    power, bandwidth = POWER[name]
    return replace(whole, matmul_flops=whole.matmul_flops * power, bytes_s=bandwidth)


def simulated(run: Any, model: Transformer, strategy: Strategy, laws: Laws) -> Simulated:
    """A run's step."""
    nodes = cluster(DEVICES[run.device], strategy.ranks, 8, run.network_gbit_s)
    nodes = replace(nodes, device=device_of(run.device))
    collectives = Collectives.of(nodes)
    step = transformer_step(Compute(model, nodes.device, laws), strategy, collectives, STATES[run.states])
    return simulate(step, strategy, collectives, strategy.micro_batches(run.batch))


if __name__ == "__main__":
    main()
