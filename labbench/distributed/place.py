"""Where a rank computes and by which backend it talks: gloo on CPUs; nccl or xccl where such devices are.

Only CPUs with gloo have been tried. The others are what PyTorch's own names say; where one is asked for and is not there, the
answer is ``unsupported`` with what is missing.
"""

from __future__ import annotations

import os
from time import perf_counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

BACKENDS = {"cpu": "gloo", "cuda": "nccl", "xpu": "xccl"}
VARIABLE = "LABBENCH_RANK_DEVICE"  # of a rank's process, set before it loads anything


def kind() -> str:
    """The kind of device that this process computes on."""
    return os.environ.get(VARIABLE, "cpu")


def device() -> torch.device:
    """The device of this process: of accelerators, a rank's own one of its node."""
    import torch

    return torch.device("cpu") if kind() == "cpu" else torch.device(kind(), int(os.environ.get("LOCAL_RANK", 0)))


def clock() -> float:
    """Seconds, when the device has done all that it was given."""
    if kind() != "cpu":
        import torch

        torch.accelerator.synchronize()
    return perf_counter()


def missing(wanted: str, ranks: int) -> str | None:
    """Why ranks cannot compute on that kind of device here; None if they can.

    Parameters
    ----------
    wanted : str
        One of ``BACKENDS``.
    ranks : int
        Of this machine: each accelerator takes one.
    """
    if wanted == "cpu":
        return None
    import torch.distributed

    accelerator: Any = torch.accelerator
    found = accelerator.current_accelerator() if accelerator.is_available() else None
    if found is None or found.type != wanted:
        return f"no {wanted} device here: torch {torch.__version__} finds {found or 'no accelerator'}"
    backend = BACKENDS[wanted]
    if not torch.distributed.is_backend_available(backend):
        return f"torch {torch.__version__} was built without {backend}"
    if accelerator.device_count() < ranks:
        return f"{ranks} ranks want a {wanted} device each, and there are {accelerator.device_count()}"
    return None
