"""One rank, as torchrun starts it: ``torchrun ... -m labbench.distributed.rank FOLDER``.

It joins the others, does its job and writes its result or its own error. Whatever ends the agent ends the rank too.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from labbench.distributed import place
from labbench.distributed.job import JOINED, Job, Pulse, read_json, write_json
from labbench.process import die_with_parent, is_out_of_memory

PATIENCE_S = 15  # a peer waits so much longer than the launcher, which knows better who is to blame
COUNT_S = 0.2  # between looks at how many collectives were entered
PEER = ("connection closed by peer", "connection reset by peer", "timed out waiting", "broken pipe")


def main(folder: Path) -> int:
    """Do the job in ``folder``; returns the exit status."""
    die_with_parent()  # elsewhere than on Linux the launcher sees to it
    rank, attempt = int(os.environ["RANK"]), int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))
    job = Job.model_validate(read_json(folder / "job.json"))
    pulse = Pulse(folder, rank, attempt, job.fault)
    try:
        pulse("loading")
        os.environ[place.VARIABLE] = job.device
        if job.pinned:
            pin(rank if job.one_machine else int(os.environ["LOCAL_RANK"]))
        import torch

        torch.set_num_threads(1)
        if job.device != "cpu":
            torch.accelerator.set_device_index(int(os.environ["LOCAL_RANK"]))
        if job.memory_limit_bytes:
            limit_memory(job.memory_limit_bytes)
        join(attempt, job.seconds_without_sign + PATIENCE_S, pulse)
        result = _task(job)(pulse, **job.options)
        write_json(folder / f"result{rank}.json", result)
        torch.distributed.destroy_process_group()
    except BaseException as error:
        traceback.print_exc()
        write_json(folder / f"error{rank}.json", described(error) | {"attempt": attempt})
        return 1
    return 0


def _task(job: Job) -> Any:
    if job.task == "correct":
        from labbench.distributed.correct import compare

        return compare
    if job.task == "steps":
        from labbench.distributed.steps import time_steps

        return time_steps
    if job.task == "layers":
        from labbench.distributed.layered import time_layers

        return time_layers
    from labbench.distributed.collectives import time_collectives

    return time_collectives


def join(attempt: int, timeout_s: float, pulse: Pulse) -> None:
    """Make the process group; each attempt under names of its own, or it would find the addresses of dead ranks."""
    import torch.distributed

    dist: Any = torch.distributed

    environ, wait = os.environ, datetime.timedelta(seconds=timeout_s)
    agents = environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    pulse("joining")
    world = int(environ["WORLD_SIZE"])
    store = dist.TCPStore(
        environ["MASTER_ADDR"],
        int(environ["MASTER_PORT"]),
        world,
        is_master=not agents and environ["RANK"] == "0",
        timeout=wait,
    )
    dist.init_process_group(
        place.BACKENDS[place.kind()],
        store=dist.PrefixStore(f"r{attempt}", store),
        rank=int(environ["RANK"]),
        world_size=world,
        timeout=wait,
    )
    pulse(JOINED)
    threading.Thread(target=_count_calls, args=(pulse,), daemon=True).start()


def _count_calls(pulse: Pulse) -> None:
    """Tell now and then how many collectives this rank has entered: one that waits has entered one more than one that hangs."""
    from torch.distributed import distributed_c10d

    world: Any = distributed_c10d._world

    while True:
        with contextlib.suppress(RuntimeError):  # a group that is just being made or has no count
            groups = list(world.pg_map)
            pulse.entered(sum(group._get_sequence_number_for_group() for group in groups))
        time.sleep(COUNT_S)


def described(error: BaseException) -> dict[str, Any]:
    """What went wrong: status, reason, and whether it only tells that another rank is gone."""
    text = str(error).strip() or type(error).__name__
    low = text.lower()
    return {
        "status": "out_of_memory" if is_out_of_memory(error) else "failed",
        "reason": f"{type(error).__name__}: {text.splitlines()[0][:500]}",
        "of_peer": any(words in low for words in PEER),
        "at_s": time.monotonic(),
    }


def pin(local_rank: int) -> None:
    """Keep to one core: the next one for each rank, round again when there are more ranks."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[local_rank % len(cores)]})


def limit_memory(increase_bytes: int) -> None:
    """Let this process take no more than so much private memory above what it has now."""
    import resource

    import psutil

    status = Path("/proc/self/status")
    now = (
        next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmData"))
        if status.exists()
        else psutil.Process().memory_info().rss
    )
    resource.setrlimit(resource.RLIMIT_DATA, (now + increase_bytes, now + increase_bytes))


if __name__ == "__main__":
    status = main(Path(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # threads of a broken process group could wait for ever
