"""Starts ranks through torchrun's elastic agent, watches each of them, and ends them all when one is lost.

    launch ──> agent (torchrun) on each host ──> ranks ── beat, result, error files ──> launch: who ended it, why ──> Launched

However a job ends, it ends within a stated time (:class:`Limits`), with one answer, and nothing is left running.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from labbench.config import ConfigError
from labbench.distributed import blame
from labbench.distributed.blame import Ending
from labbench.distributed.hosts import HERE, Host
from labbench.distributed.job import HOST, Beat, Job, read_beat, read_json, write_json
from labbench.process import runs

WATCH_S = 0.02  # between looks at the files and processes
GATHER_S = 1.0  # after the first trouble, for the agent and the other ranks to tell their part
PORT = 29400  # torchrun's own default, for the agents of several hosts
GONE_S = 5.0  # for killed processes to end
TAIL_BYTES = 4000


@dataclass(frozen=True)
class Limits:
    """How long a job may take.

    Attributes
    ----------
    start_s : float
        Until every rank has given a first sign of life, rendezvous included.
    total_s : float
    """

    start_s: float = 120.0
    total_s: float = 1800.0


LIMITS = Limits()


@dataclass(frozen=True)
class Launched:
    """What came of a job.

    Attributes
    ----------
    ending : Ending
        Status, reason and the ranks to blame.
    results : list
        What each rank returned; empty unless all is well.
    seconds : float
        From start to end.
    reported_after_s : float or None
        From a fault that was asked for to this answer.
    attempts : int
        One more than the restarts.
    rejoined_after_s, lost_s : float or None
        After a restart, from the fault until its rank had joined the others again, and until it was where the fault met it.
    output_tail : str
        What agent and ranks printed last.
    """

    ending: Ending
    results: list[Any] = field(default_factory=list)
    seconds: float = 0.0
    reported_after_s: float | None = None
    attempts: int = 1
    rejoined_after_s: float | None = None
    lost_s: float | None = None
    output_tail: str = ""


def launch(
    job: Job,
    ranks: int,
    *,
    limits: Limits = LIMITS,
    restarts: int = 0,
    rendezvous: str | None = None,
    hosts: Sequence[Host] = (HERE,),
) -> Launched:
    """Run a job on ``ranks`` ranks of each host.

    Parameters
    ----------
    job : Job
    ranks : int
        On each host.
    limits : Limits
    restarts : int
        Times that the agents may start all ranks again after one is lost.
    rendezvous : str, optional
        ``host:port`` where agents meet; default: at the first host.
    hosts : sequence of Host
        An agent is started on each, and all ranks count through them in no stated order.
    """
    folder = Path(tempfile.mkdtemp(prefix="labbench-ranks-"))
    began = time.monotonic()
    try:
        write_json(folder / "job.json", job.model_dump(mode="json"))
        settings = {
            "min_nodes": len(hosts),
            "max_nodes": len(hosts),
            "nproc_per_node": ranks,
            "run_id": folder.name,
            "rdzv_endpoint": rendezvous or (f"{hosts[0].address}:{PORT}" if len(hosts) > 1 else "localhost:0"),
            "max_restarts": restarts,
            "join_s": limits.start_s,
            "connect_s": max(1, int(limits.start_s / 2)),
        }
        write_json(folder / "agent_settings.json", settings)
        ranks *= len(hosts)
        with contextlib.ExitStack() as stack:
            agents = [stack.enter_context(_agent(folder, host, index)) for index, host in enumerate(hosts)]
            ending = _watch(folder, agents, job, ranks, limits, restarts)
        return _answer(folder, ranks, ending, began)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def watch(folder: Path, ranks: int, limits: Limits = LIMITS) -> Launched:
    """Wait for ranks that others start (``labbench distributed commands``), and tell how they ended; ends none of them.

    Parameters
    ----------
    folder : Path
        Of the job, seen by every host.
    ranks : int
        On all hosts together.
    limits : Limits

    Raises
    ------
    ConfigError
        If there is no job.
    """
    given = read_json(folder / "job.json")
    if given is None:
        raise ConfigError(f"no job in {folder}: `labbench distributed commands --folder {folder}` writes one")
    began = time.monotonic()
    return _answer(folder, ranks, _watch(folder, (), Job.model_validate(given), ranks, limits, 0), began)


def _answer(folder: Path, ranks: int, ending: Ending, began: float) -> Launched:
    """What the files of a job say now that it has ended."""
    answered = time.monotonic()
    results = [read_json(folder / f"result{rank}.json") for rank in range(ranks)]
    fault = read_json(folder / "fault.json")

    def since_fault(name: str) -> float | None:
        then = read_json(folder / name)
        return then["at_s"] - fault["at_s"] if then and fault else None

    beats = [beat for rank in range(ranks) if (beat := read_beat(folder, rank))]
    output = folder / "output.txt"
    return Launched(
        ending=ending,
        results=results if ending.status == "ok" else [],
        seconds=answered - began,
        reported_after_s=answered - fault["at_s"] if fault else None,
        attempts=1 + max((beat.attempt for beat in beats), default=0),
        rejoined_after_s=since_fault("joined_again.json"),
        lost_s=since_fault("caught_up.json"),
        output_tail=output.read_text(errors="replace")[-TAIL_BYTES:] if output.exists() else "",
    )


@contextlib.contextmanager
def _agent(folder: Path, host: Host, index: int) -> Iterator[subprocess.Popen[bytes]]:
    """The agent's process on a host; neither it nor a rank outlives this block."""
    where = [str(index), host.address] if host is not HERE else []
    with (folder / "output.txt").open("ab") as output:
        agent = subprocess.Popen(
            [*host.prefix, sys.executable, "-m", "labbench.distributed.agent", str(folder), *where],
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR", **host.environment},
        )
    try:
        yield agent
    finally:
        family = _family(agent.pid)
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        agent.wait()
        late = time.monotonic() + GONE_S
        while any(map(runs, family)) and time.monotonic() < late:
            time.sleep(WATCH_S)


def _family(pid: int) -> list[psutil.Process]:
    try:
        own = psutil.Process(pid)
        return [*own.children(recursive=True), own]
    except psutil.NoSuchProcess:
        return []


def _watch(
    folder: Path, agents: Sequence[subprocess.Popen[bytes]], job: Job, ranks: int, limits: Limits, restarts: int
) -> Ending:
    """Look at the ranks until the job has ended, one way or another."""
    began = moved = time.monotonic()
    last: dict[int, tuple[int, int, int]] = {}
    while True:
        now = time.monotonic()
        beats = {rank: beat for rank in range(ranks) if (beat := read_beat(folder, rank))}
        signs = {rank: (beat.attempt, beat.count, beat.calls) for rank, beat in beats.items()}
        if signs != last:
            last, moved = signs, now
        codes = [agent.poll() for agent in agents]
        finished = not agents and all((folder / f"result{rank}.json").exists() for rank in range(ranks))
        if finished or (agents and (None not in codes or any(codes))):
            return _ended(folder, ranks, beats)
        attempt = max((beat.attempt for beat in beats.values()), default=0)
        if attempt >= restarts and _trouble(folder, beats, attempt):
            with contextlib.suppress(subprocess.TimeoutExpired):
                agents[0].wait(GATHER_S) if agents else time.sleep(GATHER_S)
            return _ended(folder, ranks, beats)
        if len(beats) < ranks and now - began > limits.start_s:
            missing = ", ".join(str(rank) for rank in range(ranks) if rank not in beats)
            return Ending(
                status="timeout",
                reason=f"rank {missing} did not start within {limits.start_s:g} s: is the rendezvous reachable?",
            )
        if len(beats) == ranks and now - moved > job.seconds_without_sign:
            waiting = [beat for rank, beat in beats.items() if not (folder / f"result{rank}.json").exists()]
            return blame.of_hang(waiting or list(beats.values()), job.seconds_without_sign)
        if now - began > limits.total_s:
            return Ending(status="timeout", reason=f"the job did not end within {limits.total_s:g} s")
        time.sleep(WATCH_S)


def _trouble(folder: Path, beats: dict[int, Beat], attempt: int) -> bool:
    """Whether a rank of this attempt has raised, or is gone without a result."""
    for rank, beat in beats.items():
        error = read_json(folder / f"error{rank}.json")
        if error and error["attempt"] == attempt:
            return True
        if beat.attempt == attempt and _gone(beat) and not (folder / f"result{rank}.json").exists():
            return True
    return False


def _gone(beat: Beat) -> bool:
    """Whether a rank's process is no more; of one on another machine that cannot be seen from here."""
    if beat.host != HOST:
        return False
    try:
        return not runs(psutil.Process(beat.pid))
    except psutil.NoSuchProcess:
        return True


def _ended(folder: Path, ranks: int, beats: dict[int, Beat]) -> Ending:
    """What the files say after the agent has ended or a rank is lost."""
    results = [rank for rank in range(ranks) if (folder / f"result{rank}.json").exists()]
    said: dict[str, Any] = {}
    for path in sorted(folder.glob("agent[0-9]*.json")):
        one = read_json(path) or {}
        said = {**said, **one, "codes": {**said.get("codes", {}), **one.get("codes", {})}}
    if len(results) == ranks and not said.get("codes"):
        return Ending(status="ok")
    if "error" in said:
        meet = (read_json(folder / "agent_settings.json") or {}).get("rdzv_endpoint")
        return Ending(
            status="failed", reason=f"the agent could not start the ranks, which meet at {meet}: {said['error']}"
        )
    attempt = max((beat.attempt for beat in beats.values()), default=0)
    errors = {}
    for rank in range(ranks):
        error = read_json(folder / f"error{rank}.json")
        if error and error["attempt"] == attempt:
            errors[rank] = error
    codes = {int(rank): code for rank, code in said.get("codes", {}).items()}
    silent = [rank for rank, beat in beats.items() if rank not in errors and rank not in results and _gone(beat)]
    if not beats:
        return Ending(status="failed", reason="no rank started; see what the agent printed")
    return blame.of_failure(errors, codes, silent)
