"""``notebooks/config/distributed_training_config.json``: what to plan, and for which cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator, model_validator

from labbench.cells import Frozen

if TYPE_CHECKING:
    import pandas as pd

    from labbench.distributed.plan import Plan
    from labbench.distributed.reliability import Training
    from labbench.distributed.transformer import Transformer

DAY_S = 86_400.0


class SizesConfig(Frozen):
    """A model that is not published under a name: see :class:`labbench.distributed.transformer.Transformer`."""

    layers: int = Field(ge=1)
    hidden: int = Field(ge=1)
    heads: int = Field(ge=1)
    sequence: int = Field(2048, ge=1)
    vocabulary: int = Field(51_200, ge=1)
    ffn: int = Field(0, ge=0, description="0: four times hidden")
    kv_heads: int = Field(0, ge=0, description="0: as many as heads")
    gated: bool = False
    dropout: bool = False
    flash: bool = True
    tied: bool = True


class FailuresConfig(Frozen):
    """What a long training meets."""

    tokens: float = Field(300e9, gt=0, description="to train on")
    rank_mtbf_days: float = Field(2000.0, gt=0, description="mean time between failures of one rank")
    checkpoint_s: float = Field(60.0, gt=0)
    restart_s: float = Field(600.0, ge=0)


class PlanConfig(Frozen):
    """A model on a cluster (notebook ``12_cluster_plan``, ``labbench plan``)."""

    model: str = Field("gpt3-175b", description="published, or a language model of the zoo")
    sizes: SizesConfig | None = Field(
        None, description="of a model that has neither name; `model` is what it is called"
    )
    sequence: int | None = Field(None, ge=1, description="tokens of a sample; null: the model's own")
    device: str = Field("A100 SXM4 80 GB", description="by its datasheet")
    ranks: int = Field(1024, ge=1)
    ranks_in_node: int = Field(8, ge=1)
    network_gbit_s: float = Field(200.0, gt=0, description="of the network card of each rank")
    batch: int = Field(1536, ge=1, description="samples of a step")
    memory_bytes: float | None = Field(None, gt=0, description="a rank's; null: the usable share of the device's")
    states: Literal["megatron", "zero", "single"] = Field(
        "megatron", description="bytes of a parameter's states: 18, 16, or fp32"
    )
    scatter: float = Field(0.0, ge=0, description="standard deviation of a rank's compute time over its mean")
    compared_ranks: list[int] = Field([], description="other sizes of the cluster, for scaling")
    failures: FailuresConfig = FailuresConfig()

    @field_validator("model")
    @classmethod
    def _named(cls, name: str) -> str:
        if not name:
            raise ValueError("model: give a name")
        return name


class MeasuredConfig(Frozen):
    """What ranks of this machine are asked (notebook ``11_distributed``)."""

    strategies: list[str] = Field(
        ["ddp", "ddp-small-buckets", "fsdp", "tensor", "pipeline-1f1b"], min_length=1, description="timed"
    )
    checked: list[str] | None = Field(None, description="held against one process; null: all that are known")
    ranks: list[int] = Field([2, 4], min_length=1, description="numbers of ranks; one process is always timed")
    scaling: list[Literal["strong", "weak"]] = Field(["strong", "weak"])
    model: str = Field("decoder-4x128-4h-256v", description="layers x width, heads, vocabulary")
    batch: int = Field(16, ge=1, description="samples of a step of one process")
    tokens: int = Field(64, ge=1, description="of a sample")
    steps: int = Field(11, ge=3)
    operations: list[str] = Field(["all_reduce", "all_gather", "reduce_scatter", "broadcast", "all_to_all", "p2p"])
    max_mib: int = Field(16, ge=1, description="largest message of a collective")
    samples: int = Field(11, ge=3, description="of each size of a collective")
    faults: list[str] = Field(["kill", "hang", "exception", "out_of_memory", "rendezvous", "restart"])
    fault_strategies: list[str] = Field(["ddp"])
    simulated_ranks: list[int] = Field([2, 4, 8, 16, 32, 64], description="to which measured scaling is continued")

    @model_validator(mode="after")
    def _known(self) -> MeasuredConfig:
        from labbench.config import require_known
        from labbench.distributed.collectives_model import OPERATIONS
        from labbench.distributed.faults import KINDS
        from labbench.distributed.sizes import shape_of

        require_known("collective", self.operations, OPERATIONS)
        require_known("fault", self.faults, KINDS)
        shape_of(self.model)
        return self


class DistributedConfig(Frozen):
    """What notebooks ``11_distributed`` and ``12_cluster_plan`` do."""

    measured: MeasuredConfig = MeasuredConfig()
    plan: PlanConfig = PlanConfig()


def transformer_of(config: PlanConfig) -> Transformer:
    """The model that a configuration names; raises ConfigError, naming the nearest known one."""
    from dataclasses import replace

    from labbench import zoo
    from labbench.cells import Workload
    from labbench.config import unknown_name
    from labbench.distributed.transformer import PUBLISHED, Transformer, from_workload

    if config.sizes:
        model = Transformer(config.model, **config.sizes.model_dump())
    elif config.model in PUBLISHED:
        model = PUBLISHED[config.model]
    elif config.model in zoo.models():
        return from_workload(Workload(model=config.model, seq_len=config.sequence))
    else:
        raise unknown_name("model", config.model, [*PUBLISHED, *zoo.models()])
    return replace(model, sequence=config.sequence) if config.sequence else model


def planned(config: PlanConfig, ranks: int | None = None) -> Plan:
    """The plan that a configuration asks for; with ``ranks`` on so many instead."""
    from dataclasses import replace

    from labbench.distributed.cluster import cluster
    from labbench.distributed.collectives_model import Collectives
    from labbench.distributed.compute import Compute
    from labbench.distributed.plan import plan
    from labbench.distributed.step import STATES

    nodes = cluster(config.device, ranks or config.ranks, config.ranks_in_node, config.network_gbit_s)
    nodes = replace(nodes, scatter=config.scatter)
    compute = Compute(transformer_of(config), nodes.device)
    return plan(compute, Collectives.of(nodes), config.batch, STATES[config.states], memory_bytes=config.memory_bytes)


def training_of(config: PlanConfig, found: Plan) -> Training:
    """The whole training by the plan's best strategy, with failures."""
    from labbench.distributed.reliability import Training

    own = config.failures
    return Training(
        work_s=own.tokens / float(found.table["tokens_s"].iloc[0]),
        ranks=found.collectives.cluster.ranks,
        rank_mtbf_s=own.rank_mtbf_days * DAY_S,
        checkpoint_s=own.checkpoint_s,
        restart_s=own.restart_s,
    )


def scaling(config: PlanConfig) -> pd.DataFrame:
    """The best strategy that fits at each size of the cluster, the same batch throughout (strong scaling).

    Returns
    -------
    DataFrame
        First rows of the plans' tables with ``ranks``; ``fits`` is false where nothing fits.
    """
    import pandas as pd

    sizes = sorted({*config.compared_ranks, config.ranks})
    return pd.DataFrame([planned(config, ranks).table.iloc[0].to_dict() | {"ranks": ranks} for ranks in sizes])
