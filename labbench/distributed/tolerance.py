"""How far a strategy may be from one process, from what rounding alone can do.

Sums in another order round otherwise. A product with sums of ``k`` terms has a relative error of about ``u sqrt(k)`` (Higham & Mary
2019, SIAM J. Sci. Comput. 41(5), A2815: random roundings; ``u``: half of the distance from 1 to the next number), and ``D`` of them
in series one of ``u sqrt(k D)``, here taken of the largest element:

- *loss*: ``u sqrt(k D)``, relative;
- *gradient*: ``u sqrt(k D) max|g| / |g|``, in units of the norm of all gradients;
- *change* of the parameters, in units of its norm ``|d|``: AdamW's first step ``r g / (|g| + e)`` (learning rate ``r``) turns an
  error of a gradient near zero into one ``r / e`` times as large, and a parameter is kept in steps of its last digit, ``2 u
  max|p|``. That is ``(r / e) |g| / |d|`` times the gradient's plus ``2 u max|p| / |d|``; without the second part, the last digit of
  a norm's weights (they are 1) hides whatever is wrong with gradients.

Where gradients pass through a coarser format on purpose, all three are one rounding of that: the bound above would say nothing.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

import torch

from labbench.distributed.sizes import Shape
from labbench.distributed.strategies.base import EPSILON, LEARNING_RATE

PRODUCTS_IN_LAYER = 6  # in series: query, scores, mixing, out, up, down


def rounding_error(dtype: torch.dtype, sizes: Shape) -> float:
    """``u sqrt(k D)`` of a decoder, forward and backward."""
    terms = max(sizes.batch * sizes.tokens, 4 * sizes.width, sizes.vocabulary)
    products = 2 * (PRODUCTS_IN_LAYER * sizes.layers + 1)
    return torch.finfo(dtype).eps / 2 * sqrt(terms * products)


def tolerances(
    dtype: torch.dtype, rounding: torch.dtype | None, sizes: Shape, wanted: list[dict[str, Any]]
) -> dict[str, float]:
    """Largest errors allowed of ``loss``, ``gradient`` and ``change``.

    Parameters
    ----------
    dtype : dtype
        Of the model.
    rounding : dtype or None
        A coarser format that gradients pass through.
    sizes : Shape
    wanted : list of dict
        What one process did (:func:`labbench.distributed.correct.trajectory`): sizes of gradients, changes and parameters.
    """
    if rounding is not None:
        return dict.fromkeys(("loss", "gradient", "change"), float(torch.finfo(rounding).eps))
    relative = rounding_error(dtype, sizes)
    last_digit = float(torch.finfo(dtype).eps)
    gradient = change = 0.0
    for step in wanted:
        whole, moved = norm_of(step["gradient"]), norm_of(step["change"])
        gradient = max(gradient, relative * largest(step["gradient"]) / whole)
        magnified = LEARNING_RATE / EPSILON * whole / moved
        change = max(change, magnified * gradient + last_digit * step["largest_parameter"] / moved)
    return {"loss": relative, "gradient": gradient, "change": change}


def norm_of(tensors: dict[str, torch.Tensor]) -> float:
    """Of all of them together."""
    return float(torch.stack([value.norm() for value in tensors.values()]).norm())


def largest(tensors: dict[str, torch.Tensor]) -> float:
    """Of all elements, without sign."""
    return max(float(value.abs().max()) for value in tensors.values())
