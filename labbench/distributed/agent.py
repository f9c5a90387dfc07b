"""torchrun's elastic agent on this node, in a process of its own: starts the ranks, restarts them, tells how they ended."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from labbench.distributed.job import read_json, write_json
from labbench.process import die_with_parent

WATCH_S = 0.05  # between looks at the ranks
SHUTDOWN_S = 1  # for ranks to end when asked to, before they are killed


def main(folder: Path, index: int = 0, address: str | None = None) -> int:
    """Run the agent by ``agent_settings.json``; ``agent<index>.json`` says how it ended.

    Parameters
    ----------
    folder : Path
        Of the job.
    index : int
        Of this host; agents meet at the first.
    address : str, optional
        Where other hosts reach this one; without, there are no others.
    """
    die_with_parent()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    given: dict[str, Any] = read_json(folder / "agent_settings.json")
    meeting = {"timeout": int(given.pop("join_s")), "read_timeout": int(given.pop("connect_s"))}
    config = LaunchConfig(
        rdzv_backend="c10d",
        monitor_interval=WATCH_S,
        shutdown_timeout=SHUTDOWN_S,
        rdzv_configs=meeting | ({"is_host": index == 0} if address else {}),
        local_addr=address,
        **given,
    )
    said = folder / f"agent{index}.json"
    try:
        elastic_launch(config, entrypoint=sys.executable)("-u", "-m", "labbench.distributed.rank", str(folder))
    except ChildFailedError as error:
        codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
        write_json(said, {"codes": codes})
        return 1
    except Exception as error:  # whatever keeps an agent from starting ranks is told in its own words
        write_json(said, {"error": f"{type(error).__name__}: {str(error).splitlines()[0][:500]}"})
        return 1
    write_json(said, {"codes": {}})
    return 0


if __name__ == "__main__":
    given_folder, *where = sys.argv[1:]
    sys.exit(main(Path(given_folder), int(where[0]), where[1]) if where else main(Path(given_folder)))
