"""Sizes of the decoder that ranks train; apart from it, so that knowing them loads no framework."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from labbench.config import ConfigError

MODEL = "decoder"
NAME = re.compile(rf"{MODEL}-(\d+)x(\d+)-(\d+)h-(\d+)v")
ONE = "one"  # a single process: what the speed of ranks is measured against

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

    @property
    def name(self) -> str:
        """Of the model: ``decoder``, or e.g. ``decoder-4x128-8h-256v`` (layers, width, heads, vocabulary)."""
        own, usual = (self.layers, self.width, self.heads, self.vocabulary), Shape()
        if own == (usual.layers, usual.width, usual.heads, usual.vocabulary):
            return MODEL
        return "{}-{}x{}-{}h-{}v".format(MODEL, *own)


def shape_of(model: str = MODEL, batch: int | None = None, tokens: int | None = None) -> dict[str, Any]:
    """Sizes by the name of a model, as :attr:`Shape.name` writes it; None: as usual.

    Raises
    ------
    ConfigError
        If it is no such name, or heads do not divide the width.
    """
    found = {"batch": batch, "tokens": tokens}
    if model != MODEL:
        told = NAME.fullmatch(model)
        if not told:
            raise ConfigError(
                f"ranks train no model {model!r}: write {MODEL!r} or, with its sizes, e.g. '{MODEL}-4x128-8h-256v'"
            )
        found |= dict(zip(("layers", "width", "heads", "vocabulary"), map(int, told.groups()), strict=True))
        if not found["heads"] or found["width"] % found["heads"]:  # type: ignore[operator]
            raise ConfigError(
                f"{model}: {found['heads']} heads do not share a width of {found['width']}: take a divisor"
            )
    return {name: value for name, value in found.items() if value is not None}


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
