"""Ways of spreading training over ranks, by name. Names are those of records: ``cpu/fsdp-hybrid×4``.

A new one is a :class:`~labbench.distributed.strategies.base.Strategy` and a line in
``MODES``; it is shown correct before it is timed.
"""

from __future__ import annotations

import torch

from labbench.config import unknown_name
from labbench.distributed.sizes import ONE
from labbench.distributed.strategies.base import Spread, Strategy
from labbench.distributed.strategies.context import Context
from labbench.distributed.strategies.data import Data
from labbench.distributed.strategies.one import One
from labbench.distributed.strategies.pipeline import SCHEDULES, Pipeline
from labbench.distributed.strategies.sharded import Sharded
from labbench.distributed.strategies.tensor import Tensor

__all__ = ["MODES", "Spread", "Strategy", "strategy"]

MODES: dict[str, Strategy] = {
    "ddp": Data(),
    "ddp-small-buckets": Data(bucket_mb=0.01),
    "ddp-accumulation": Data(accumulation=2),
    "ddp-static-graph": Data(static_graph=True),
    "ddp-compile": Data(backend="aot_eager"),
    "ddp-allreduce-hook": Data(hook="allreduce_hook"),
    "ddp-fp16-hook": Data(hook="fp16_compress_hook", rounding=torch.float16),
    "ddp-bf16-hook": Data(hook="bf16_compress_hook", rounding=torch.bfloat16, refusals=(TypeError,)),
    "zero1": Data(zero=True),
    "fsdp": Sharded(),
    "fsdp-no-reshard": Sharded(reshard=False),
    "fsdp-accumulation": Sharded(accumulation=2),
    "fsdp-bf16": Sharded(compute=torch.bfloat16, rounding=torch.bfloat16),
    "fsdp-offload": Sharded(offload=True),
    "fsdp-hybrid": Sharded(hybrid=True, multiple=4),
    "tensor": Tensor(),
    "tensor-loss": Tensor(loss=True),
    "tensor-sequence": Tensor(sequence=True),
    "tensor-sequence-loss": Tensor(sequence=True, loss=True),
    "fsdp-tensor": Tensor(sharded=True, multiple=4),
    "context": Context(),
    **{f"pipeline-{name}": Pipeline(schedule=name) for name in SCHEDULES},
}


def strategy(name: str) -> Strategy:
    """The strategy of that name, or ``one``: a single process; raises ConfigError, naming the nearest known one."""
    if name == ONE:
        return One()
    if name not in MODES:
        raise unknown_name("strategy", name, MODES)
    return MODES[name]
