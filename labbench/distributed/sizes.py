"""Sizes of the decoder that ranks train; apart from it, so that knowing them loads no framework."""

from __future__ import annotations

from dataclasses import dataclass


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
