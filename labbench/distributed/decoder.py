"""A small decoder to spread over ranks: plain enough that every way of spreading it can be held against one process.

It has no biases (a key's bias has a gradient of zero, and relative errors of nothing mean nothing) and no dropout. Its layers
keep their names wherever they run, so that a gradient on any rank can be found by its name in one process.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from labbench.distributed.place import device
from labbench.distributed.sizes import Shape


class Attention(nn.Module):
    """Causal self-attention; works on as many heads as its projections give."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.head_width = shape.width // shape.heads
        self.query, self.key, self.value, self.out = (nn.Linear(shape.width, shape.width, bias=False) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(batch, tokens, width)`` to the same."""
        batch, tokens, _ = x.shape
        q, k, v = (
            part(x).view(batch, tokens, -1, self.head_width).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(mixed.transpose(1, 2).reshape(batch, tokens, -1))


class FeedForward(nn.Module):
    """Two products with GELU between."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.up = nn.Linear(shape.width, 4 * shape.width, bias=False)
        self.down = nn.Linear(4 * shape.width, shape.width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(batch, tokens, width)`` to the same."""
        return self.down(functional.gelu(self.up(x)))


class Layer(nn.Module):
    """Attention and feed-forward, each with a norm before and a way around."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.attention_norm, self.forward_norm = (nn.LayerNorm(shape.width, bias=False) for _ in range(2))
        self.attention, self.feed_forward = Attention(shape), FeedForward(shape)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(batch, tokens, width)`` to the same."""
        x = x + self.attention(self.attention_norm(x))
        return x + self.feed_forward(self.forward_norm(x))


class Decoder(nn.Module):
    """Embedding, layers, norm and output; as a stage of a pipeline, some of these only (:meth:`stage`)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding: nn.Module | None = nn.Embedding(shape.vocabulary, shape.width)
        self.layers = nn.ModuleDict({str(index): Layer(shape) for index in range(shape.layers)})
        self.norm: nn.Module | None = nn.LayerNorm(shape.width, bias=False)
        self.output: nn.Module | None = nn.Linear(shape.width, shape.vocabulary, bias=False)

    def stage(self, index: int, stages: int) -> Decoder:
        """Keep what stage ``index`` of ``stages`` runs, and return self."""
        kept = [str(layer) for layer in torch.arange(self.shape.layers).tensor_split(stages)[index].tolist()]
        self.layers = nn.ModuleDict({name: self.layers[name] for name in kept})
        if index > 0:
            self.embedding = None
        if index < stages - 1:
            self.norm = self.output = None
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(batch, tokens)`` to scores ``(batch, tokens, vocabulary)``; a stage from and to ``(batch, tokens, width)``."""
        if self.embedding is not None:
            x = self.embedding(x)
        for layer in self.layers.values():
            x = layer(x)
        return x if self.norm is None or self.output is None else self.output(self.norm(x))


def decoder(shape: Shape, dtype: torch.dtype, seed: int = 0) -> Decoder:
    """A decoder with the same weights in every process."""
    torch.manual_seed(seed)
    return Decoder(shape).to(device(), dtype)


def batch(shape: Shape, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and the ids that should follow, ``(batch, tokens)`` each, the same in every process."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(shape.vocabulary, (shape.batch, shape.tokens + 1), generator=generator)
    ids = ids.to(device())
    return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()


def loss(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of a batch."""
    return functional.cross_entropy(scores.flatten(0, 1), targets.flatten())


def stages_of(ranks: int, each: int) -> Sequence[Sequence[int]]:
    """Stages of each rank when every rank has ``each`` of them, dealt in turn."""
    return [[rank + turn * ranks for turn in range(each)] for rank in range(ranks)]
