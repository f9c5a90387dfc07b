"""What ranks are asked to do, and the files in which they tell how they get on.

A job is a folder: ``job.json`` is what to do; each rank writes ``beat<rank>`` (where it is, rewritten at every sign of life),
``calls<rank>`` (collectives it has entered), ``result<rank>.json`` (once, whole) or ``error<rank>.json`` (its own exception); the
agents write ``agent<host>.json`` (exit codes). The launcher reads them, so it need not believe what one rank says of another.
"""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from labbench.cells import Frozen
from labbench.manifest import write_text

Task = Literal["correct", "steps", "collectives", "layers"]
FaultKind = Literal["kill", "hang", "exception", "out_of_memory"]
JOINED = "joined"  # the sign of life of a rank that has all others beside it
HOST = platform.node()[:64]
BEAT_BYTES = 384  # one write of so few bytes is whole or not there


class Fault(Frozen):
    """What is made to happen to a rank, so that what follows can be watched.

    The rank meets it at its sign of life number ``beat``, in the first attempt only (a restart is to succeed).
    """

    kind: FaultKind
    rank: int = Field(ge=0)
    beat: int = Field(5, ge=1)


class Job(Frozen):
    """What every rank does; ``options`` are those of the task."""

    task: Task
    options: dict[str, Any] = Field(default_factory=dict)
    seconds_without_sign: float = Field(60, gt=0, description="a job without a sign of life for so long is ended")
    memory_limit_bytes: int | None = Field(None, gt=0, description="each rank may take so much above its start")
    device: Literal["cpu", "cuda", "xpu"] = Field("cpu", description="what ranks compute on; backends go with it")
    pinned: bool = Field(True, description="each rank keeps to a core of its own, as far as there are enough")
    one_machine: bool = Field(
        False, description="all hosts are namespaces of one machine, whose cores its ranks share out"
    )
    fault: Fault | None = None


class Beat(Frozen):
    """A rank's last sign of life."""

    rank: int
    pid: int
    count: int = Field(description="signs of life so far, in this attempt")
    attempt: int = Field(description="restarts before this attempt")
    where: str = Field(description="what it was about to do")
    calls: int = Field(0, description="collectives that it has entered, as far as the process groups count them")
    at_s: float = Field(description="clock of the machine (monotonic)")
    host: str = Field(description="name of its machine, which alone knows its pid")


class Pulse:
    """A rank's side of the files: call it before everything that may take long.

    Parameters
    ----------
    folder : Path
        Of the job.
    rank, attempt : int
    fault : Fault, optional
    """

    def __init__(self, folder: Path, rank: int, attempt: int = 0, fault: Fault | None = None) -> None:
        self.folder, self.rank, self.attempt = folder, rank, attempt
        mine = fault if fault and fault.rank == rank else None
        self.fault = mine if attempt == 0 else None
        self._survived = mine if attempt > 0 else None
        self.count = 0
        self._file = os.open(folder / f"beat{rank}", os.O_WRONLY | os.O_CREAT, 0o644)
        self._calls = os.open(folder / f"calls{rank}", os.O_WRONLY | os.O_CREAT, 0o644)

    def __call__(self, where: str) -> None:
        """Say what comes next."""
        self.count += 1
        beat = Beat(
            rank=self.rank,
            pid=os.getpid(),
            count=self.count,
            attempt=self.attempt,
            where=where[:40],
            at_s=time.monotonic(),
            host=HOST,
        )
        os.pwrite(self._file, beat.model_dump_json().encode().ljust(BEAT_BYTES), 0)
        if self.fault and self.count == self.fault.beat:
            write_json(self.folder / "fault.json", {"at_s": time.monotonic()})
            meet(self.fault.kind)
        if self._survived and where == JOINED:
            write_json(self.folder / "joined_again.json", {"at_s": time.monotonic()})
        if self._survived and self.count == self._survived.beat:
            write_json(self.folder / "caught_up.json", {"at_s": time.monotonic()})

    def entered(self, calls: int) -> None:
        """Say how many collectives this rank has entered; from another thread than the one that may hang."""
        text = json.dumps({"pid": os.getpid(), "calls": calls})
        os.pwrite(self._calls, text.encode().ljust(BEAT_BYTES), 0)


def meet(kind: FaultKind) -> None:
    """Let this process have the fault."""
    import signal

    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "hang":
        time.sleep(3600)
    elif kind == "exception":
        raise ValueError("made to fail")
    else:
        import torch

        held = [torch.ones(2**22) for _ in range(2**16)]  # 1 TiB, 16 MiB at a time
        raise AssertionError(f"{len(held)} blocks fitted; give the job a memory limit")


def write_json(path: Path, content: Any) -> None:
    """Write a file that is there whole or not at all."""
    write_text(path, json.dumps(content))  # unlike manifest.write_json with infinity, which an error may be


def read_json(path: Path) -> Any:
    """Content of a file; None if it is not there (yet)."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def read_beat(folder: Path, rank: int) -> Beat | None:
    """A rank's last sign of life, None before the first."""
    found = read_json(folder / f"beat{rank}")
    if not found:
        return None
    beat = Beat.model_validate(found)
    entered = read_json(folder / f"calls{rank}") or {}
    return beat.model_copy(update={"calls": entered.get("calls", 0) if entered.get("pid") == beat.pid else 0})
