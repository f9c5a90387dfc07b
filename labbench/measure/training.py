"""What is measured of a training step beside its time: its parts, and proof that it trains."""

from __future__ import annotations

import math
from time import perf_counter_ns
from typing import TYPE_CHECKING

from labbench.measure.steady import NS, no_collection

if TYPE_CHECKING:
    import torch

    from labbench.measure.protocol import Protocol
    from labbench.runtimes.step import TrainingStep

MOST_SKIPPED = 20  # steps that a gradient scaler may skip before its factor (2¹⁶ at first, halved each time) suits


def parts_round(step: TrainingStep, protocol: Protocol) -> list[dict[str, float]]:
    """Seconds of each part of steps that take about ``round_s`` together; at least one step."""
    steps: list[dict[str, float]] = []
    with no_collection():
        deadline = perf_counter_ns() + protocol.round_s / NS
        while not steps or perf_counter_ns() < deadline:
            steps.append(step.anatomy())
    return steps


def proof(step: TrainingStep, loss: torch.Tensor, before: list[int]) -> dict[str, float]:
    """Metrics of a step that ended with ``loss``, and what they prove.

    Parameters
    ----------
    before : list of int
        :meth:`TrainingStep.checksums` of before it.

    Raises
    ------
    CellFailed
        If the loss or a gradient is not finite, or no parameter changed.
    """
    from labbench.measure.session import CellFailed

    for _ in range(MOST_SKIPPED if step.scales else 0):
        if step.checksums() != before:
            break
        loss = step()
    found = step.gradients(loss)
    require_finite(found.loss, "first")
    if found.nonfinite:
        raise CellFailed(f"{found.nonfinite:,} elements of the gradient are NaN or infinite")
    after = step.checksums()
    changed = sum(one != other for one, other in zip(before, after, strict=True))
    if not changed:
        raise CellFailed("the step changed no parameter: the loss does not depend on any, or its gradient is zero")
    return {
        "loss_first": found.loss,
        "gradient_norm": found.norm,
        "parameters_trained": float(found.trained),
        "tensors_changed_fraction": changed / len(before),
    }


def require_finite(loss: float, which: str) -> None:
    """Raises CellFailed for a loss that is none."""
    from labbench.measure.session import CellFailed

    if not math.isfinite(loss):
        raise CellFailed(f"the loss of the {which} training step is {loss}")
