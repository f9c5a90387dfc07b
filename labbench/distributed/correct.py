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
from labbench.distributed.tolerance import largest, norm_of, tolerances
from labbench.runtimes.base import Unsupported

if TYPE_CHECKING:
    from labbench.distributed.job import Pulse

STEPS = 2  # the second starts from what the first changed
DTYPES = {"fp64": torch.float64, "fp32": torch.float32}
KINDS = ("loss", "gradient", "change")


def compare(pulse: Pulse, modes: list[str], precision: str = "fp64", shape: dict[str, int] | None = None) -> list[Any]:
    """Hold each mode against one process, on every rank.

    Returns
    -------
    list of dict
        For each mode ``status``, ``reason``, ``errors`` (worst of all ranks; None where it did not run) and ``tolerances``, both by
        kind (``KINDS``).
    """
    sizes = Shape(**(shape or {}))
    wanted = trajectory(OneSpread(decoder(sizes, DTYPES[precision])), sizes)
    return [_held(pulse, name, precision, sizes, wanted) for name in modes]


def _held(pulse: Pulse, name: str, precision: str, sizes: Shape, wanted: list[Any]) -> dict[str, Any]:
    mode, dtype = strategy(name), DTYPES[precision]
    allowed = tolerances(dtype, mode.rounding, sizes, wanted)
    pulse(f"{name}: spreading")
    own: dict[str, Any] = {"status": "ok", "reason": None, "errors": None}
    try:
        mode.check_world()
        spread = mode.spread(decoder(sizes, dtype))
        pulse(f"{name}: training")
        found = largest_errors(trajectory(spread, sizes), wanted)
        own["errors"] = {kind: error for kind, (error, _) in found.items()}
        worst = max(KINDS, key=lambda kind: found[kind][0] / allowed[kind])
        error, where = found[worst]
        if not error <= allowed[worst]:
            own["status"] = "failed"
            own["reason"] = (
                f"differs from one process by {error:.3g} of the norm in {where} (tolerance {allowed[worst]:.3g})"
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
    return {"mode": name, "tolerances": allowed, **worst_of(own)}


def worst_of(own: dict[str, Any]) -> dict[str, Any]:
    """What all ranks say together: a failure of any, else a refusal of any; the largest error of each kind."""
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, own)
    order = ("ok", "unsupported", "failed")
    worst = dict(max(found, key=lambda one: order.index(one["status"])))
    told = [one["errors"] for one in found if one["errors"]]
    worst["errors"] = {kind: max(one[kind] for one in told) for kind in KINDS} if told else None
    return worst


def in_words(error: Exception) -> str:
    """Type and first line of an error."""
    return f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0][:300]}"


def trajectory(spread: Spread, sizes: Shape) -> list[dict[str, Any]]:
    """Loss, gradients and change of parameters of each step, and the largest of the parameters."""
    steps = []
    for index in range(STEPS):
        before = spread.parameters()
        value = float(spread.loss(spread.backward(batch(sizes, seed=index + 1))))
        gradients = spread.gradients()
        spread.update()
        after = spread.parameters()
        changes = {name: after[name] - before[name] for name in after}
        steps.append({"loss": value, "gradient": gradients, "change": changes, "largest_parameter": largest(after)})
    return steps


def largest_errors(found: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> dict[str, tuple[float, str]]:
    """The largest error of each of ``KINDS`` and what it is of; infinite where a tensor is missing or one process has none such.

    Parameters
    ----------
    found, wanted : list of dict
        Of each step ``loss`` (float), ``gradient`` and ``change`` (tensors by name; ``found`` may have those of its stage only).
    """
    worst = dict.fromkeys(KINDS, (0.0, "nothing"))

    def note(kind: str, error: float, where: str) -> None:
        worst[kind] = max(worst[kind], (error if error == error else float("inf"), where))

    for index, (step, truth) in enumerate(zip(found, wanted, strict=True), 1):
        note("loss", abs(step["loss"] - truth["loss"]) / abs(truth["loss"]), f"the loss of step {index}")
        if step["gradient"].keys() != step["change"].keys() or not step["gradient"]:
            note("gradient", float("inf"), f"step {index}: parameters without a gradient")
        for kind in ("gradient", "change"):
            norm = norm_of(truth[kind])
            for name, value in step[kind].items():
                if name not in truth[kind]:
                    note(kind, float("inf"), f"{kind} of {name}, which one process does not have")
                    continue
                error = float((value - truth[kind][name]).abs().max() / norm)
                note(kind, error, f"the {kind} of {name}, step {index}")
    return worst
