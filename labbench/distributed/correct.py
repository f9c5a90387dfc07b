"""Whether a strategy trains as one process does: same loss, gradients and parameters after an update.

Errors are absolute, in units of the norm of all gradients together (or of all changes of parameters): a tensor whose gradient is
zero in exact arithmetic has no relative error worth the name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from labbench.distributed.decoder import batch, decoder
from labbench.distributed.rank import described
from labbench.distributed.sizes import Shape
from labbench.distributed.strategies import strategy
from labbench.distributed.strategies.base import Spread
from labbench.distributed.strategies.one import OneSpread
from labbench.runtimes.base import Unsupported

if TYPE_CHECKING:
    from labbench.distributed.job import Pulse

STEPS = 2  # the second starts from what the first changed
DTYPES = {"fp64": torch.float64, "fp32": torch.float32}
# Largest error in units of the global norm. float64: what the issue of sums in another order leaves, with room; the others: eight
# roundings of a number as large as the norm (float32), one (formats that gradients pass through once).
TOLERANCES = {
    torch.float64: 1e-12,
    torch.float32: 8 * torch.finfo(torch.float32).eps,
    torch.float16: torch.finfo(torch.float16).eps,
    torch.bfloat16: torch.finfo(torch.bfloat16).eps,
}


def compare(pulse: Pulse, modes: list[str], precision: str = "fp64", shape: dict[str, int] | None = None) -> list[Any]:
    """Hold each mode against one process, on every rank.

    Returns
    -------
    list of dict
        For each mode ``status``, ``reason``, ``max_error`` (worst of all ranks) and ``tolerance``.
    """
    sizes = Shape(**(shape or {}))
    wanted = _trajectory(OneSpread(decoder(sizes, DTYPES[precision])), sizes)
    return [_held(pulse, name, precision, sizes, wanted) for name in modes]


def _held(pulse: Pulse, name: str, precision: str, sizes: Shape, wanted: list[Any]) -> dict[str, Any]:
    mode = strategy(name)
    tolerance = max(TOLERANCES[mode.rounding or DTYPES[precision]], TOLERANCES[DTYPES[precision]])
    pulse(f"{name}: spreading")
    own: dict[str, Any] = {"status": "ok", "reason": None, "max_error": None}
    try:
        mode.check_world()
        spread = mode.spread(decoder(sizes, DTYPES[precision]))
        pulse(f"{name}: training")
        error, where = largest_error(_trajectory(spread, sizes), wanted)
        own["max_error"] = error
        if not error <= tolerance:
            own["status"] = "failed"
            own["reason"] = (
                f"differs from one process by {error:.3g} of the norm in {where} (tolerance {tolerance:.3g})"
            )
    except Unsupported as refusal:
        own |= {"status": "unsupported", "reason": str(refusal)}
    except mode.refusals as refusal:
        own |= {"status": "unsupported", "reason": f"not on this platform: {in_words(refusal)}"}
    except (
        Exception
    ) as failure:  # one mode may fail in its own way; a rank that fails alone is missed by the others below
        if described(failure)["of_peer"]:
            raise
        own |= {"status": "failed", "reason": in_words(failure)}
    return {"mode": name, "tolerance": tolerance, **worst_of(own)}


def worst_of(own: dict[str, Any]) -> dict[str, Any]:
    """What all ranks say together: a failure of any, else a refusal of any, else the largest error."""
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, own)
    order = ("ok", "unsupported", "failed")
    return max(found, key=lambda one: (order.index(one["status"]), one["max_error"] or 0.0))


def in_words(error: Exception) -> str:
    """Type and first line of an error."""
    return f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0][:300]}"


def _trajectory(spread: Spread, sizes: Shape) -> list[dict[str, Any]]:
    """Loss, gradients and change of parameters of each step."""
    steps = []
    for index in range(STEPS):
        before = spread.parameters()
        value = float(spread.backward(batch(sizes, seed=index + 1)))
        gradients = spread.gradients()
        spread.update()
        after = spread.parameters()
        changes = {name: after[name] - before[name] for name in after}
        steps.append({"loss": value, "gradient": gradients, "change": changes})
    return steps


def largest_error(found: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> tuple[float, str]:
    """The largest error and what it is of; infinite where a tensor is missing or is none that one process has.

    Parameters
    ----------
    found, wanted : list of dict
        Of each step ``loss`` (float), ``gradient`` and ``change`` (tensors by name; ``found`` may have those of its stage only).
    """
    worst = (0.0, "nothing")
    for index, (step, truth) in enumerate(zip(found, wanted, strict=True), 1):
        loss = abs(step["loss"] - truth["loss"]) / abs(truth["loss"])
        worst = max(worst, (loss if loss == loss else float("inf"), f"the loss of step {index}"))
        if step["gradient"].keys() != step["change"].keys() or not step["gradient"]:
            return float("inf"), f"step {index}: parameters without a gradient"
        for kind in ("gradient", "change"):
            norm = torch.stack([value.norm() for value in truth[kind].values()]).norm()
            for name, value in step[kind].items():
                if name not in truth[kind]:
                    return float("inf"), f"{kind} of {name}, which one process does not have"
                error = float((value - truth[kind][name]).abs().max() / norm)
                worst = max(worst, (error if error == error else float("inf"), f"the {kind} of {name}, step {index}"))
    return worst
