"""Generative models as two programs with flat tensor inputs and outputs: ``prefill`` and ``decode`` with a KV cache.

``prefill`` reads the whole prompt and returns the logits of the last position and the cache: its time is the time to
first token (TTFT). ``decode`` takes one new token and the cache *as inputs*, and returns logits and the grown cache: its
time is the time per output token (TPOT) at that context length. Both have static shapes, so that every runtime can
compile or export them, and nothing carries over from one call to the next.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers.cache_utils import DynamicCache, EncoderDecoderCache


def _flat(cache: Any) -> list[torch.Tensor]:
    """Keys and values of every layer, in layer order."""
    return [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]


def _cache(tensors: tuple[torch.Tensor, ...]) -> DynamicCache:
    """Undo :func:`_flat`."""
    return DynamicCache(list(zip(tensors[0::2], tensors[1::2], strict=True)))


class Prefill(nn.Module):
    """A decoder-only model reading a prompt; ``names`` are the keyword arguments that its inputs stand for."""

    def __init__(self, model: nn.Module, names: tuple[str, ...] = ("input_ids",)) -> None:
        super().__init__()
        self.model = model
        self.names = names

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Logits of the last position (batch × vocabulary), then keys and values of every layer."""
        output = self.model(**dict(zip(self.names, inputs, strict=True)), use_cache=True, logits_to_keep=1)
        return (output.logits[:, -1], *_flat(output.past_key_values))


class Decode(nn.Module):
    """One further token of a decoder-only model, given the cache."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, token: torch.Tensor, *cache: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Logits (batch × vocabulary), then the grown cache. ``token``: batch × 1."""
        output = self.model(input_ids=token, cache=_cache(cache), use_cache=True)
        return (output.logits[:, -1], *_flat(output.past_key_values))


class Reread(nn.Module):
    """One further token of a decoder-only model without a cache: everything before it is read again."""

    def __init__(self, model: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model = model
        self.names = names

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Logits of the last position (batch × vocabulary); ``input_ids`` end with the new token."""
        output = self.model(**dict(zip(self.names, inputs, strict=True)), use_cache=False, logits_to_keep=1)
        logits: torch.Tensor = output.logits[:, -1]
        return logits


class EncoderPrefill(nn.Module):
    """An encoder–decoder model: the encoder over its input, then the decoder's first token."""

    def __init__(self, model: nn.Module, name: str) -> None:
        super().__init__()
        self.model = model
        self.name = name

    def forward(self, source: torch.Tensor, start: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Logits, then the decoder's own cache, then the cross-attention cache. ``start``: batch × 1."""
        output = self.model(**{self.name: source}, decoder_input_ids=start, use_cache=True)
        cache = output.past_key_values
        own, cross = _flat(cache.self_attention_cache), _flat(cache.cross_attention_cache)
        return (output.logits[:, -1], *own, *cross)


class EncoderDecode(nn.Module):
    """One further token of an encoder–decoder model, given both caches."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, token: torch.Tensor, encoded: torch.Tensor, *cache: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Logits, then the decoder's grown cache; the cross-attention cache does not change."""
        half = len(cache) // 2
        caches = EncoderDecoderCache(_cache(cache[:half]), _cache(cache[half:]))
        output: Any = self.model(encoder_outputs=(encoded,), decoder_input_ids=token, cache=caches, use_cache=True)
        return (output.logits[:, -1], *_flat(output.past_key_values.self_attention_cache))


class EncoderReread(nn.Module):
    """One further token of an encoder–decoder model without a cache: the decoder reads what it wrote again."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, written: torch.Tensor, encoded: torch.Tensor) -> torch.Tensor:
        """Logits of the last position. ``written``: batch × tokens, the new one last."""
        output: Any = self.model(encoder_outputs=(encoded,), decoder_input_ids=written, use_cache=False)
        logits: torch.Tensor = output.logits[:, -1]
        return logits
