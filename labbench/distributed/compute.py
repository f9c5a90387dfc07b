"""Seconds that a device takes for a layer of a transformer: products by shape, everything else by bytes.

Products follow the law of :mod:`labbench.prediction.kernel_laws` (tiles, rounds of tiles over multiprocessors, the larger of
computing and moving), scaled so that the best shape reaches the device's measured rate; what moves data reaches a share of the
memory's bandwidth that depends on its kind. Both were learnt from single kernels of other GPUs in single precision
(:data:`LAWS`); no run of many devices had a part in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from labbench.distributed import known
from labbench.distributed.cluster import Accelerator
from labbench.distributed.transformer import HALF, Recompute, Transformer
from labbench.prediction.kernel_laws import LAUNCH_S, ProductLaw

SCORES_SHARE = 2 * HALF + 1  # bytes of a score in dropout: read, written, and its mask
FLOAT = 4


@dataclass(frozen=True)
class Laws:
    """How far kernels stay below a device's rates.

    Attributes
    ----------
    product : ProductLaw
        Its share of the peak is replaced by the device's measured rate.
    shares : dict
        Of the bandwidth: ``elementwise``, ``activation``, ``layer_norm``, ``softmax``.
    """

    product: ProductLaw
    shares: dict[str, float]


# Printed by ``benchmarks/published_clusters.py FOLDER``: the laws fitted to NeuSight's kernels of five GPUs (docs/kernels.md).
LAWS = Laws(
    ProductLaw(np.log([0.696, 0.870, 0.0621, 0.935, 0.759, 0.600])),
    {"elementwise": 0.839, "activation": 0.805, "layer_norm": 0.462, "softmax": 0.563},
)
# Every shape that a law prices: which side is split over tensor ranks is up to the caller.
Product = tuple[float, float, float, float]  # m, n, k, groups


@dataclass(frozen=True)
class LayerTime:
    """Seconds of a layer, or of the output layer: forward, backward, and what recomputation runs again."""

    forward_s: float
    backward_s: float
    again_s: float = 0.0


@dataclass(frozen=True)
class Compute:
    """Prices layers of one model on one device.

    Attributes
    ----------
    model : Transformer
    device : Accelerator
    laws : Laws
    attention : str
        Which kernel of fused attention: one of :data:`labbench.distributed.known.ATTENTION_SHARES`.
    """

    model: Transformer
    device: Accelerator
    laws: Laws = LAWS
    attention: str = "flash-2"

    def layer(self, micro_batch: int, tensor: int, recompute: Recompute, sequence_parallel: bool) -> LayerTime:
        """One layer on one of ``tensor`` ranks."""
        model, split = self.model, tensor
        tokens = micro_batch * model.sequence
        whole = tokens / (tensor if sequence_parallel else 1)
        gates = 2 if model.gated else 1
        qkv = (model.hidden + 2 * model.kv_width) / split
        weights: list[Product] = [
            (tokens, qkv, model.hidden, 1),
            (tokens, model.hidden, model.hidden / split, 1),
            (tokens, gates * model.ffn / split, model.hidden, 1),
            (tokens, model.hidden, model.ffn / split, 1),
        ]
        products = self._products(weights)
        norms = 2 * self._moved(2 * HALF * whole * model.hidden, "layer_norm")
        residuals = 2 * self._moved((3 * HALF + (1 if model.dropout else 0)) * whole * model.hidden, "elementwise")
        hidden = self._moved((gates + 1) * HALF * tokens * model.ffn / split, "activation")
        attention, attention_back, scores_again = self._attention(micro_batch, split)
        forward = products + norms + residuals + hidden + attention
        # backward: both gradients of every product; norms and activations read what came in and what comes back
        backward = 2 * products + 1.5 * (norms + hidden) + residuals + attention_back
        again = {
            "none": 0.0,
            "selective": scores_again,
            "alternate": products / 2 + norms + residuals + hidden + scores_again,
            "full": forward,
        }[recompute]
        return LayerTime(forward, backward, again)

    def head(self, micro_batch: int, tensor: int) -> LayerTime:
        """The output layer and the loss, its logits in single precision: read, exponentiated, normalized, written."""
        tokens, logits = micro_batch * self.model.sequence, self.model.vocabulary / tensor
        product = self._products([(tokens, logits, self.model.hidden, 1)])
        loss = self._moved(4 * FLOAT * tokens * logits, "softmax")
        return LayerTime(product + loss, 2 * product + loss / 2)

    def moved_s(self, moved: float) -> float:
        """So many bytes read and written, element by element."""
        return self._moved(moved, "elementwise") if moved else 0.0

    def _attention(self, micro_batch: int, split: int) -> tuple[float, float, float]:
        """Forward, backward, and what is computed again if scores are not kept."""
        model = self.model
        heads, width, sequence = model.heads / split, model.hidden / model.heads, model.sequence
        groups = micro_batch * heads
        if model.flash:
            forward, backward = (
                share * self.device.attention_flops for share in known.ATTENTION_SHARES[self.attention]
            )
            causal = (
                2 * groups * sequence**2 * width
            )  # two products, 2 FLOP a multiply-add, half of it hidden by the mask
            return LAUNCH_S + causal / forward, LAUNCH_S + 2.5 * causal / backward, 0.0
        products = self._products([(sequence, sequence, width, groups), (sequence, width, sequence, groups)])
        scores = groups * sequence**2
        softmax = self._moved(2 * HALF * scores, "softmax")
        dropout = self._moved(SCORES_SHARE * scores, "elementwise") if model.dropout else 0.0
        return products + softmax + dropout, 2 * products + 1.5 * softmax + dropout, products + softmax + dropout

    def _products(self, products: list[Product]) -> float:
        m, n, k, groups = np.array(products, float).T
        share = float(
            np.exp(self.laws.product.theta[1])
        )  # of a peak of which the best shape reaches just the measured rate
        count = len(m)
        shapes = {
            "m": m, "n": n, "k": k, "groups": groups,
            "issue": np.full(count, 2.0), "passes": np.ones(count), "strain": np.ones(count),
            "units": np.full(count, float(self.device.multiprocessors)),
            "peak": np.full(count, self.device.matmul_flops / share),
            "bandwidth": np.full(count, self.device.bytes_s),
            "bytes": HALF * groups * (m * k + k * n + m * n),
        }  # fmt: skip
        return float(self.laws.product.seconds(shapes).sum())

    def _moved(self, moved: float, kind: str) -> float:
        return LAUNCH_S + moved / (self.device.bytes_s * self.laws.shares[kind])
