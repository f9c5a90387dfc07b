"""The same ranks on several hosts, as text to run: torchrun on each, over ssh, or under Slurm."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from labbench.config import ConfigError
from labbench.distributed.job import Job, write_json

PORT = 29400  # torchrun's own default


def prepare(folder: Path, modes: Sequence[str], steps: int, precision: str, shape: dict[str, int], **job: Any) -> None:
    """Write the job that the commands do: steps of strategies, or with no steps their comparison with one process.

    What an earlier job left in the folder goes, or it would be taken for results.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for kind in ("beat", "calls", "result", "error"):
        for path in folder.glob(f"{kind}[0-9]*"):
            path.unlink()
    options: dict[str, Any] = {"modes": list(modes), "shape": shape}
    options |= {"steps": steps} if steps else {"precision": precision}
    written = Job(task="steps" if steps else "correct", options=options, **job)
    write_json(folder / "job.json", written.model_dump(mode="json"))


def torchrun(folder: str, nodes: int, ranks_in_node: int, host: str, port: int = PORT) -> str:
    """The command that every host runs; all meet at ``host:port``.

    Parameters
    ----------
    folder : str
        Of the job (``job.json``), seen by every host under the same path.
    nodes, ranks_in_node : int
    host : str
        One of the hosts, by a name that all others reach.
    port : int
    """
    if nodes < 1 or ranks_in_node < 1:
        raise ConfigError(f"{nodes} nodes of {ranks_in_node} ranks: give one or more of each")
    words = [
        "torchrun",
        f"--nnodes={nodes}",
        f"--nproc-per-node={ranks_in_node}",
        "--rdzv-backend=c10d",
        f"--rdzv-endpoint={host}:{port}",
        "--rdzv-id=labbench",
        "-m",
        "labbench.distributed.rank",
        folder,
    ]
    return shlex.join(words)


def over_ssh(hosts: Sequence[str], folder: str, ranks_in_node: int, port: int = PORT) -> list[str]:
    """A command for each host, to be started at the same time; the first is where they meet.

    ``-tt`` gives the remote command a terminal, so that it ends with the connection.
    """
    if not hosts:
        raise ConfigError("no hosts: give their names, or a file with one on each line")
    command = torchrun(folder, len(hosts), ranks_in_node, hosts[0].rpartition("@")[2], port)
    return [shlex.join(["ssh", "-tt", "-o", "BatchMode=yes", host, command]) for host in hosts]


def for_slurm(folder: str, nodes: int, ranks_in_node: int, minutes: int = 30, port: int = PORT) -> str:
    """A batch script: one torchrun on each node, which meet at the first."""
    command = torchrun(folder, nodes, ranks_in_node, "HOST", port).replace("HOST:", '"$HOST":')
    return f"""#!/bin/bash
#SBATCH --job-name=labbench
#SBATCH --nodes={nodes}
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task={ranks_in_node}
#SBATCH --time={minutes}
HOST=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export HOST
srun --kill-on-bad-exit=1 {command}
"""


def hosts_of(text: str) -> list[str]:
    """Names of a host list: one on each line, ``#`` begins a comment; ``slots=`` and the like after a name are left out."""
    lines = (line.partition("#")[0].split() for line in text.splitlines())
    return [words[0] for words in lines if words]
