"""Sizes of the decoder that ranks train; apart from it, so that knowing them loads no framework."""

from __future__ import annotations

from dataclasses import dataclass

ALONE = "alone"  # the mode without communication


@dataclass(frozen=True)
class Shape:
    """Sizes of the decoder and its batch; heads, tokens and vocabulary are divided by the ranks in tensor parallelism.

    Attributes
    ----------
    layers, width, heads, vocabulary : int
    tokens : int
        Of a sample.
    batch : int
        Samples of one step, of all ranks together.
    """

    layers: int = 8
    width: int = 32
    heads: int = 4
    vocabulary: int = 64
    tokens: int = 16
    batch: int = 8


@dataclass(frozen=True)
class Layers:
    """Sizes of a model of equal layers, each a square matrix of float32 weights (:mod:`labbench.distributed.layered`).

    Attributes
    ----------
    layers, width : int
    forward_s, backward_s : float
        That a layer's passes wait, where computing is emulated.
    rows : int
        Of the input of products; 0: computing is emulated.
    """

    layers: int = 12
    width: int = 512
    forward_s: float = 0.005
    backward_s: float = 0.015
    rows: int = 0

    @property
    def parameters(self) -> int:
        """Of one layer."""
        return self.width**2
