"""Is a runtime's output the model's? Comparison with eager fp32 on the same weights and inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labbench.records import Check

if TYPE_CHECKING:
    import torch

# Largest |difference| over largest |reference|, per precision. The smallest models of sixteen families showed at most
# 6e-5 (fp32), 6e-2 (bf16) and 1.1e-1 (int8); the limits leave room for deeper models and still catch a wrong layer,
# which is off by about 1.
TOLERANCE = {"fp32": 2e-3, "bf16": 1e-1, "fp16": 5e-2, "int8": 5e-1}
WRONG = 1e30  # stands for an error that is no number: wrong shape, wrong count, NaN


def compare(outputs: list[torch.Tensor], reference: list[torch.Tensor], precision: str) -> Check:
    """Largest difference over all outputs, each relative to the largest value of its reference.

    A missing output, a wrong shape, or NaN where the reference has none counts as an error of ``WRONG``.
    """
    tolerance = TOLERANCE[precision]
    error = WRONG
    if len(outputs) == len(reference):
        error = max((_difference(got, want.float()) for got, want in zip(outputs, reference, strict=True)), default=0.0)
    return Check(passed=error <= tolerance, max_error=error, tolerance=tolerance)


def _difference(got: torch.Tensor, want: torch.Tensor) -> float:
    if got.shape != want.shape:
        return WRONG
    if want.numel() == 0:
        return 0.0
    scale = max(float(want.abs().max()), 1e-12)  # an all-zero reference: compare absolutely
    error = float((got - want).abs().max()) / scale
    return min(error, WRONG) if error == error else WRONG
