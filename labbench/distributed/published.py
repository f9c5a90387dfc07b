"""Published training runs beside the simulator, which had no part of them to learn from.

What a simulated figure rests on:

- computing: rate of a large half-precision product and of fused attention on a single GPU (:mod:`labbench.distributed.known`), the
  shape of other products and everything that moves data by laws of single kernels in single precision on five GPUs
  (:data:`labbench.distributed.compute.LAWS`);
- links: all-reduces timed on a single node, and each run's network cards, used to the share that NCCL's maintainers name;
- memory traffic of gradients, gathered weights and the optimizer as each run's software has it (:data:`STATES`), and which kernel
  of attention it took;
- a board with a lower power limit than its datasheet's makes products in proportion more slowly (energy an operation stays the
  same).

Runs (``published_runs.csv``), all that a source has for models from a billion parameters on in half precision and sequences of
2048 (torchtitan: 8192, compiled, no context parallelism), so that none is left out for its result:

- megatron-2021: Narayanan et al. 2021, arXiv:2104.04473, table 1; micro-batches and chunks by Megatron-LM's
  examples/sc21/run_table_1.sh; and table 2: *PTD-P* (which does not tell chunks: one) and DeepSpeed's *ZeRO-3* of the time, which
  gathered every tensor on its own, 12 a layer;
- megatron-2022: Korthikanti et al. 2022, arXiv:2205.05198, table 5 (as in calculon's calculon/llm/validation.py), micro-batches
  and chunks by calculon's validation/seqsel/tab5;
- mt-nlg: Smith et al. 2022, arXiv:2201.11990, section 3.1, seconds of an iteration on 280, 350 and 420 nodes;
- llm-foundry: github.com/mosaicml/llm-foundry, scripts/train/benchmarking/README.md: 80 GB A100 and H100, 40 GB A100;
- torchtitan: github.com/pytorch/torchtitan, benchmarks/llama3_h100_202412_torchtitan.md (500 W, 2.4 TB/s): tables 1 and 3.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labbench.distributed.cluster import Accelerator, cluster
from labbench.distributed.collectives_model import Collectives
from labbench.distributed.compute import LAWS, Compute, Laws
from labbench.distributed.schedules import Schedule
from labbench.distributed.simulate import Simulated, simulate
from labbench.distributed.step import ADAM, MEGATRON, ZERO, States, Strategy, transformer_step
from labbench.distributed.transformer import Transformer, published

if TYPE_CHECKING:
    import pandas as pd

RUNS = Path(__file__).with_name("published_runs.csv")
GOAL = 0.15  # of the step's time
DEVICES = {
    "a100": "A100 SXM4 80 GB",
    "a100-40": "A100 SXM4 40 GB",
    "h100": "H100 SXM5 80 GB",
    "h100-500w": "H100 SXM5 96 GB",
}
POWER = {"h100-500w": (500 / 700, 2.4e12)}  # share of the datasheet's power, bytes/s of memory
# What each software keeps of a parameter, and reads and writes besides: counted, operator by operator, in its source.
HALF_ADDED = 6.0  # a half-precision gradient added to another: both read, one written
FSDP1 = States(  # shards in single precision, weights gathered in half, gradients sent in single
    4.0, 4.0, 8.0, 4.0, gathered=2.0,
    handled=4 + 6 + 8,  # gradients put together (split's backward pass), cast, divided: torch/distributed/fsdp/_runtime_utils.py
    updated=80 + 12,  # composer/optim/decoupled_weight_decay.py, an operator at a time; the norm, and clipping by it
)  # fmt: skip
STATES = {
    "megatron": MEGATRON,  # the product that makes a gradient adds it up: core/tensor_parallel/layers.py, of the time
    "megatron-2021": replace(MEGATRON, sent=2.0, handled=HALF_ADDED),  # fp16; only bf16 was added up and sent in fp32
    # cast to fp32, then added: deepspeed/runtime/bf16_optimizer.py
    "deepspeed-bf16": replace(MEGATRON, handled=6 + 12),
    "zero": ZERO,
    "fsdp1": FSDP1,
    "fsdp1-half": replace(FSDP1, sent=2.0, handled=4 + 4),  # nothing to cast
    # gradients are cast as they are put together, weights copied after both gathers: fsdp/_fully_shard/_fsdp_collectives.py
    "fsdp2": replace(FSDP1, handled=6 + 2 * 4, updated=ADAM),
}
ATTENTION = {"llm-foundry": "triton"}  # scripts/train/yamls/pretrain and benchmarking/submit_benchmarks.py of 2023
MPT = {  # layers, hidden, heads: llm-foundry, scripts/train/yamls/pretrain
    "1b": (24, 2048, 16),
    "3b": (32, 2560, 20),
    "7b": (32, 4096, 32),
    "13b": (40, 5120, 40),
    "30b": (48, 7168, 56),
    "70b": (80, 8192, 64),
}


def compare(laws: Laws = LAWS) -> pd.DataFrame:
    """Each run's reported and simulated figure.

    Parameters
    ----------
    laws : Laws
        Of single kernels.

    Returns
    -------
    DataFrame
        ``source``, ``model``, ``device``, ``ranks``, ``strategy``, ``unit`` (``seconds`` a step, ``tokens`` a second and GPU,
        ``hfu``: FLOP/s of a GPU, recomputation counted), ``reported``, ``simulated``, ``off`` (of the step's time, relative),
        ``within`` (:data:`GOAL`), the share of each part of the simulated step, and ``memory_bytes``.
    """
    import pandas as pd

    return pd.DataFrame([_compared(run, laws) for run in pd.read_csv(RUNS).itertuples()])


def summary(runs: pd.DataFrame) -> pd.DataFrame:
    """By source and device: how many runs, how many within the goal, mean absolute error and bias of the step's time in %."""
    groups = runs.assign(error=runs["off"].abs() * 100, bias=runs["off"] * 100).groupby(
        ["source", "device"], sort=False
    )
    return groups.agg(
        runs=("off", "size"),
        within=("within", "sum"),
        error=("error", "mean"),
        worst=("error", "max"),
        bias=("bias", "mean"),
    ).reset_index()


def _compared(run: Any, laws: Laws) -> dict[str, Any]:
    strategy, model = strategy_of(run), replace(model_of(run.model), sequence=run.sequence)
    found = _simulated(run, model, strategy, laws)
    tokens = run.batch * run.sequence
    told = {
        "seconds": found.step_s,
        "tokens": tokens / found.step_s / strategy.ranks,
        "hfu": model.flops(tokens, "full") / found.step_s / strategy.ranks,
    }[run.unit]
    off = told / run.reported - 1 if run.unit == "seconds" else run.reported / told - 1
    shares = {name: value / found.step_s for name, value in found.parts_s.items()}
    return {
        "source": run.source,
        "model": run.model,
        "device": run.device,
        "ranks": strategy.ranks,
        "strategy": f"d{run.data} t{run.tensor} p{run.pipeline}x{run.chunks} z{run.zero} b{run.micro_batch} {run.recompute}",
        "unit": run.unit,
        "reported": run.reported,
        "simulated": float(told),
        "off": float(off),
        "within": abs(off) <= GOAL,
        **shares,
        "memory_bytes": float(found.memory.total),
    }


def strategy_of(run: Any) -> Strategy:
    """How a run was spread."""
    schedule: Schedule = "interleaved" if run.chunks > 1 else "1f1b"
    return Strategy(
        run.data, run.tensor, run.pipeline, run.zero, run.micro_batch, schedule, run.chunks, run.recompute,
        bool(run.sequence_parallel), bool(run.overlap), run.pieces,
    )  # fmt: skip


@cache
def model_of(name: str) -> Transformer:
    """Published, or one of the MPT family: no biases, no dropout, fused attention."""
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


def _simulated(run: Any, model: Transformer, strategy: Strategy, laws: Laws) -> Simulated:
    nodes = cluster(device_of(run.device), strategy.ranks, 8, run.network_gbit_s)
    collectives = Collectives.of(nodes)
    compute = Compute(model, nodes.device, laws, ATTENTION.get(run.source, "flash-2"))
    step = transformer_step(compute, strategy, collectives, STATES[run.states])
    return simulate(step, strategy, collectives, strategy.micro_batches(run.batch))
