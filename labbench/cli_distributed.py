"""Commands for training on many devices: the best way to spread a model over a cluster, and what ranks here really do."""

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


TASKS = {  # of `labbench distributed`
    "run": "check and time strategies",
    "correct": "check them only",
    "scale": "time them at several numbers of ranks, beside one process",
    "collectives": "time all-reduce and others",
    "faults": "kill a rank, let it hang, ..., and see who is blamed and how soon",
    "commands": "write a job for several hosts, and what starts it on each, as text",
    "watch": "wait for such a job, and keep its results",
}


def add(command: Command, store: Option, json: Option) -> None:
    """Add the commands to the parser."""
    _add_plan(command, json)
    _add_distributed(command, store, json)


def _add_plan(command: Command, json: Option) -> None:
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


def _add_distributed(command: Command, store: Option, json: Option) -> None:
    sub = command(
        "distributed",
        _distributed,
        "start ranks on this machine: hold strategies against one process, time them, time collectives",
        "labbench distributed run --ranks 2 --strategy ddp fsdp tensor",
    )
    sub.add_argument(
        "what",
        choices=tuple(TASKS),
        help="; ".join(f"{name}: {does}" for name, does in TASKS.items()),
    )
    sub.add_argument("--ranks", type=int, nargs="+", default=[2], metavar="N", help="processes (default: 2)")
    sub.add_argument(
        "--device",
        choices=("cpu", "cuda", "xpu"),
        default="cpu",
        help="what they compute on (default: cpu, by gloo; the others by nccl and xccl, which nobody has tried yet)",
    )
    sub.add_argument("--strategy", nargs="+", metavar="NAME", help="ddp, fsdp, tensor, ... (default: all)")
    sub.add_argument("--operation", nargs="+", metavar="NAME", help="all_reduce, ... (default: all)")
    sub.add_argument("--model", default="decoder", metavar="NAME", help="decoder, or e.g. decoder-4x128-4h-256v")
    sub.add_argument("--batch-size", type=int, metavar="N", help="samples of a step (scale: of one process)")
    sub.add_argument("--seq-len", type=int, metavar="N", help="tokens of a sample")
    sub.add_argument("--weak", action="store_true", help="scale: the batch grows with the ranks")
    sub.add_argument("--strong", action="store_true", help="scale: the batch stays (default)")
    sub.add_argument("--fault", nargs="+", metavar="KIND", help="faults: kill, hang, ... (default: all)")
    sub.add_argument(
        "--precision", choices=("fp64", "fp32"), default="fp64", help="of the check (default: %(default)s)"
    )
    sub.add_argument("--steps", type=int, default=21, metavar="N", help="to time (default: %(default)s)")
    sub.add_argument("--max-mib", type=int, default=64, metavar="MIB", help="largest collective (default: %(default)s)")
    sub.add_argument("--hang-s", type=float, default=60, metavar="S", help="end a job that gives no sign for so long")
    sub.add_argument("--memory-gb", type=float, metavar="GB", help="10⁹ bytes that each rank may take above its start")
    sub.add_argument("--hosts", metavar="FILE", help="commands: a host on each line; without it, a Slurm script")
    sub.add_argument("--nodes", type=int, default=2, metavar="N", help="commands: nodes of the Slurm script")
    sub.add_argument("--folder", default="labbench-job", help="commands, watch: of the job, seen by every host")
    store(sub)
    sub.set_defaults(store="data/ranks.h5")  # notebook 11's; faults are failures that nobody else should count
    json(sub)


def _distributed(options: Any) -> int:
    from labbench.cli import print_frame
    from labbench.config import ConfigError
    from labbench.distributed.rank_records import stored
    from labbench.distributed.scaling import scaling_text

    if min(options.ranks) < 1:
        raise ConfigError(f"{min(options.ranks)} ranks: give one or more")
    if options.what == "commands":
        return _commands(options)
    records, table = {
        "collectives": _collectives,
        "scale": _scale,
        "faults": _faults,
        "watch": _watch,
        "run": _strategies_run,
        "correct": _strategies_run,
    }[options.what](options)
    records = stored(records, options.store)
    if options.what == "scale" and not options.json:
        print(scaling_text(records))
        return _status(records)
    print_frame(table(records), options.json)
    return _status(records)


def _status(records: list[Any]) -> int:
    """Of the process: whether anything failed that was not meant to."""
    failed = [
        record.status not in ("ok", "unsupported") and not record.metrics.get("as_expected") for record in records
    ]
    return int(any(failed))


def _job(options: Any) -> dict[str, Any]:
    job: dict[str, Any] = {"seconds_without_sign": options.hang_s, "device": options.device}
    if options.memory_gb is not None:
        job["memory_limit_bytes"] = int(options.memory_gb * 1e9)
    return job


def _shape(options: Any) -> dict[str, int]:
    from labbench.distributed.sizes import shape_of

    return shape_of(options.model, options.batch_size, options.seq_len)


def _collectives(options: Any) -> tuple[list[Any], Any]:
    from labbench.distributed.measured_collectives import KIB, SIZES, collectives
    from labbench.distributed.ranks_report import collective_table

    sizes = [size for size in SIZES if size <= options.max_mib * KIB**2]
    operations, job = _operations(options.operation), _job(options)
    records = [one for ranks in options.ranks for one in collectives(operations, ranks, sizes, **job)]
    return records, collective_table


def _strategies_run(options: Any) -> tuple[list[Any], Any]:
    from labbench.distributed import measured
    from labbench.distributed.ranks_report import strategy_table

    steps = options.steps if options.what == "run" else 0
    names = _strategies(options.strategy)
    asked = {"precision": options.precision, "steps": steps, "shape": _shape(options), **_job(options)}
    return [one for ranks in options.ranks for one in measured.strategies(names, ranks, **asked)], strategy_table


def _scale(options: Any) -> tuple[list[Any], Any]:
    from labbench.distributed.rank_study import scale
    from labbench.distributed.scaling import scaling_table

    kinds = [kind for kind in ("strong", "weak") if getattr(options, kind)] or ["strong"]
    asked = {"precision": options.precision, "steps": options.steps, "shape": _shape(options), **_job(options)}
    found = scale(_strategies(options.strategy), options.ranks, kinds, **asked)
    return [one for records in found for one in records], lambda records: scaling_table(records, kinds[0])


def _faults(options: Any) -> tuple[list[Any], Any]:
    from labbench.config import require_known
    from labbench.distributed.faults import KINDS, STRATEGIES, fault_table, trial

    require_known("fault", options.fault, KINDS)
    kinds = options.fault or KINDS
    names = _strategies(options.strategy) if options.strategy else STRATEGIES
    ranks = max(options.ranks)
    return [trial(kind, name, ranks) for name in names for kind in kinds], fault_table


def _operations(given: list[str] | None) -> list[str]:
    from labbench.config import require_known
    from labbench.distributed.collectives_model import OPERATIONS

    require_known("collective", given, OPERATIONS)
    return given or list(OPERATIONS)


def _strategies(given: list[str] | None) -> list[str]:
    from labbench.config import require_known
    from labbench.distributed.strategies import MODES

    require_known("strategy", given, MODES)
    return given or list(MODES)


def _commands(options: Any) -> int:
    from pathlib import Path

    from labbench.config import ConfigError
    from labbench.distributed.commands import for_slurm, hosts_of, over_ssh, prepare

    ranks = max(options.ranks)
    names = _strategies(options.strategy or ["ddp"])
    folder = Path(options.folder)
    prepare(folder, names, options.steps, options.precision, _shape(options), **_job(options))
    if not options.hosts:
        print(for_slurm(options.folder, options.nodes, ranks))
        nodes = options.nodes
    else:
        try:
            hosts = hosts_of(Path(options.hosts).read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"cannot read the host list {options.hosts}: {error.strerror}") from None
        print("\n".join(over_ssh(hosts, options.folder, ranks)))
        nodes = len(hosts)
    print(f"# and, where the results are to be: labbench distributed watch --folder {folder} --ranks {nodes * ranks}")
    return 0


def _watch(options: Any) -> tuple[list[Any], Any]:
    from pathlib import Path

    from labbench.distributed import measured
    from labbench.distributed.ranks_report import strategy_table

    return measured.watched(Path(options.folder), max(options.ranks)), strategy_table
