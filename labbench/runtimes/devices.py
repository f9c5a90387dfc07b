"""Names of devices, as labbench writes them, to what frameworks call them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labbench.runtimes.base import Unsupported

if TYPE_CHECKING:
    import torch

ACCELERATORS = ("cuda", "rocm", "mps", "xpu")


def absent(name: str) -> str | None:
    """Why torch cannot use device ``name`` here (``cpu``, ``cuda:0``, ``rocm:0``, ``mps``, ``xpu``); None if it can."""
    import torch

    kind, _, index = name.partition(":")
    if kind == "cpu":
        return None
    if kind not in ACCELERATORS:
        return f"torch knows no device {name!r}; it knows cpu, {', '.join(ACCELERATORS)}"
    wanted = "cuda" if kind == "rocm" else kind  # a ROCm build answers to the name cuda
    if not torch.accelerator.is_available():
        return f"no {kind} device: torch {torch.__version__} sees no accelerator; install a torch built for {kind}"
    found = torch.accelerator.current_accelerator()
    if (
        found is None
        or found.type != wanted
        or (wanted == "cuda" and (torch.version.hip is not None) != (kind == "rocm"))
    ):
        what = "rocm" if torch.version.hip else found and found.type
        return f"no {kind} device: torch {torch.__version__} is built for {what}"
    if int(index or 0) >= torch.accelerator.device_count():
        return f"no device {name!r}: there are {torch.accelerator.device_count()} of that kind"
    return None


def torch_device(name: str) -> torch.device:
    """The torch device of that name.

    Raises
    ------
    Unsupported
        If torch cannot use it here.
    """
    import torch

    if (reason := absent(name)) is not None:
        raise Unsupported(reason)
    return torch.device(name.replace("rocm", "cuda"))


def device_name(name: str) -> str | None:
    """What the device calls itself, e.g. ``NVIDIA H100 80GB HBM3``; None if it is not there or does not say."""
    import torch

    kind = name.partition(":")[0]
    if kind == "cpu":
        from labbench.machine import cpu_name

        return cpu_name()
    if absent(name) is not None or kind == "mps":
        return None
    module = getattr(torch, "cuda" if kind == "rocm" else kind)
    label: str = module.get_device_name(torch_device(name))
    return label
