"""Do a browser's numbers agree with native onnxruntime's?"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from labbench.records import Check

REFERENCE = "native onnxruntime, CPU"
CLOSE = 1e-4  # largest |difference| in fp32 that counts as the same numbers


@dataclass(frozen=True)
class Agreement:
    """Outputs held against a reference.

    Attributes
    ----------
    check : Check
        Relative, by the rule that holds for every runtime.
    max_abs : float
        Largest |difference| over all outputs.
    cosine : float
        Smallest cosine between an output and its reference.
    same_class : float or None
        Share of places where the largest value stands at the same class; None where nothing is decided.
    """

    check: Check
    max_abs: float
    cosine: float
    same_class: float | None

    @property
    def close(self) -> bool:
        """Whether all values are within :data:`CLOSE`, and every class is the same."""
        return self.max_abs <= CLOSE and self.same_class in (None, 1.0)

    def metrics(self) -> dict[str, float]:
        """For a record's ``metrics``."""
        told = {"native_max_abs_error": self.max_abs, "native_cosine": self.cosine}
        return told if self.same_class is None else {**told, "native_same_class": self.same_class}


def decoded(outputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Arrays of the page's ``outputs``; raises ValueError where one is not what it says."""
    found = {}
    for name, told in outputs.items():
        try:
            raw = base64.b64decode(told["data"], validate=True)
            found[name] = np.frombuffer(raw, np.dtype(told["type"])).reshape(told["shape"])
        except (binascii.Error, TypeError, ValueError) as error:
            raise ValueError(f"output {name!r} of the page cannot be read: {error}") from None
    return found


def agreement(
    outputs: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray], classes: str | None = None
) -> Agreement:
    """Compare by name; ``classes`` is the output whose largest value along the last axis decides something.

    An output that is missing, of another shape, or NaN where the reference is not fails the check.
    """
    import torch

    from labbench.runtimes.check import WRONG, compare

    pairs = [(outputs[name], want) for name, want in reference.items() if name in outputs]
    # a copy: what comes from the network cannot be written to, of which torch warns
    got = [torch.tensor(a) for a, _ in pairs]
    check = compare(got, [torch.tensor(want) for want in reference.values()], "fp32")
    check = check.model_copy(update={"reference": REFERENCE})
    if check.max_error >= WRONG:
        return Agreement(check, WRONG, 0.0, None if classes is None else 0.0)
    same = None
    if classes is not None:
        same = float(np.mean(outputs[classes].argmax(-1) == reference[classes].argmax(-1)))
    max_abs = max(float(np.abs(a - want).max()) for a, want in pairs)
    return Agreement(check, max_abs, min(_cosine(a, want) for a, want in pairs), same)


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Between -1 and 1; of two vectors of nothing but zeros, 1."""
    x, y = a.astype(float).ravel(), b.astype(float).ravel()
    lengths = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(np.clip(x @ y / lengths, -1, 1)) if lengths else float(not x.any() and not y.any())
