"""The command that finds the best way to spread a model over a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labbench.cli_store import Command, Option
    from labbench.distributed.config import PlanConfig

GIVEN = {  # option to field of the configuration
    "model": "model",
    "sequence": "sequence",
    "device": "device",
    "ranks": "ranks",
    "ranks_in_node": "ranks_in_node",
    "network_gbit_s": "network_gbit_s",
    "batch": "batch",
    "states": "states",
    "scatter": "scatter",
}


def add(command: Command, json: Option) -> None:
    """Add the command to the parser."""
    sub = command(
        "plan",
        _plan,
        "the best strategy (data, tensor, pipeline, ZeRO, micro-batch, recomputation) for a model on a cluster, simulated, and why",
        "labbench plan --model gpt3-175b --device 'A100 SXM4 80 GB' --ranks 1024 --batch 1536",
    )
    sub.add_argument("--config", metavar="FILE", help="a distributed_training_config.json; options below go before it")
    sub.add_argument("--model", help="published (gpt3-175b, llama-3.1-70b, ...) or a language model of the zoo")
    sub.add_argument("--sequence", type=int, metavar="TOKENS", help="of a sample (default: the model's own)")
    sub.add_argument("--device", help="by its datasheet, e.g. 'H100 SXM5 80 GB'")
    sub.add_argument("--ranks", type=int, metavar="N", help="devices in all")
    sub.add_argument("--ranks-in-node", type=int, metavar="N")
    sub.add_argument("--network-gbit-s", type=float, metavar="GBIT", help="Gbit/s of each rank's network card")
    sub.add_argument("--batch", type=int, metavar="N", help="samples of a step")
    sub.add_argument("--memory-gb", type=float, metavar="GB", help="10⁹ bytes that a rank may take")
    sub.add_argument("--states", choices=("megatron", "zero", "single"), help="18 or 16 bytes a parameter, or fp32")
    sub.add_argument("--scatter", type=float, help="standard deviation of a rank's compute time over its mean")
    sub.add_argument("--rows", type=int, default=10, metavar="N", help="strategies to show (default: %(default)s)")
    sub.add_argument("--all", action="store_true", help="not only the best of each data x tensor x pipeline")
    json(sub)


def _configuration(options: Any) -> PlanConfig:
    from labbench.config import parse, read
    from labbench.distributed.config import DistributedConfig, PlanConfig

    base = read(DistributedConfig, options.config).plan if options.config else PlanConfig()
    given = {field: getattr(options, name) for name, field in GIVEN.items() if getattr(options, name) is not None}
    if options.memory_gb is not None:
        given["memory_bytes"] = options.memory_gb * 1e9
    if "model" in given:
        given["sizes"] = None
    return parse(PlanConfig, base.model_dump() | given, "command line")


def _plan(options: Any) -> int:
    from labbench.cli import print_frame
    from labbench.distributed.config import planned
    from labbench.distributed.report import explain, plan_table

    found = planned(_configuration(options))
    if options.json:
        table = found.table.head(options.rows) if options.rows else found.table
        print_frame(table.assign(provenance=found.provenance), as_json=True)
        return 0
    print_frame(plan_table(found, options.rows, each=not options.all), as_json=False)
    print(f"\n{explain(found)}")
    return 0
