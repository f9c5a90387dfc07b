"""The models of :mod:`labbench.web.families` as torch modules with random weights and inputs of a seed.

Every module takes and returns tensors by position, under names that the exported graph keeps. Importing this imports torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.cache_utils import EncoderDecoderCache

from labbench import zoo
from labbench.web.families import WebModel
from labbench.zoo.audio import CLAP_FRAMES_PER_S, FRAMES_PER_S
from labbench.zoo.building import Forward, configured
from labbench.zoo.generation import _cache, _flat

WRITTEN = 32  # tokens in the decoder's cache when a step is measured: a sentence
KEYWORDS = 12  # classes, as in the Speech Commands benchmark: ten words, silence, unknown
KEYWORD_SIZES = {
    "tiny": (16, 1),
    "small": (64, 4),
}  # channels, blocks; small: DS-CNN-S of Zhang et al., "Hello Edge", 2017
# Attention as plain products and a softmax: the exported form of torch's own looks for NaN, on the CPU in every browser.
PLAIN = {"attn_implementation": "eager"}
WHISPER_OUTPUT = ("last_hidden_state",)

Inputs = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Part:
    """A module, how its inputs are made, and which of their dimensions may change.

    Attributes
    ----------
    module : torch.nn.Module
    example : callable
        ``example(batch, audio_s) -> inputs``, by name, in the order in which the module takes them.
    outputs : tuple of str
        Names of what it returns.
    dims : dict
        Input to {axis: name of the dimension}, of those that the exported graph leaves open.
    """

    module: nn.Module
    example: Callable[[int, float], Inputs]
    outputs: tuple[str, ...]
    dims: dict[str, dict[int, str]]


def build(model: WebModel, audio_s: float, seed: int = 0) -> Part:
    """The model for chunks of ``audio_s`` seconds: the same seed gives the same weights."""
    builder = {"whisper": _whisper, "wav2vec2": _wav2vec2, "clap": _clap, "kws": _keywords}[model.family]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        part = builder(model, audio_s)
    part.module.eval().requires_grad_(False)
    return part


def inputs_of(part: Part, batch: int, audio_s: float, seed: int = 0) -> Inputs:
    """Inputs of a size, from a seed."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed + 1)
        return part.example(batch, audio_s)


def _size(model: WebModel) -> zoo.Size:
    return zoo.families()[model.family].sizes[model.size]


# --- Whisper -----------------------------------------------------------------------------------------------------------


class DecoderStep(nn.Module):
    """One token more: ids and both caches in, logits and the grown cache out.

    ``past`` are the decoder's own keys and values layer by layer, then those of the cross-attention, which do not change.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.decoder, self.head = model.model.decoder, model.proj_out

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Ids (batch × 1), then the past; logits: batch × vocabulary."""
        input_ids, *past = inputs
        half = len(past) // 2
        caches = EncoderDecoderCache(_cache(tuple(past[:half])), _cache(tuple(past[half:])))
        nothing_new = past[half][:, 0]  # stands for the encoder's output, whose keys and values are all in the cache
        output = self.decoder(input_ids=input_ids, encoder_hidden_states=nothing_new, cache=caches, use_cache=True)
        logits = self.head(output.last_hidden_state[:, -1])
        return (logits, *_flat(caches.self_attention_cache))


def _whisper(model: WebModel, audio_s: float) -> Part:
    frames = 2 * round(audio_s * FRAMES_PER_S / 2)
    whole: Any = configured(
        "WhisperConfig", "WhisperForConditionalGeneration", _size(model), max_source_positions=frames // 2, **PLAIN
    )

    def mel(batch: int, _: float) -> Inputs:
        return {"input_features": torch.randn(batch, whole.config.num_mel_bins, frames)}

    if model.part == "encoder":
        encoder = Forward(whole.model.encoder, ("input_features",), WHISPER_OUTPUT)
        return Part(encoder, mel, WHISPER_OUTPUT, {"input_features": {0: "batch"}})

    names = [(kind, side) for kind in ("decoder", "encoder") for side in ("key", "value")]
    layers = range(whole.config.decoder_layers)
    own, cross = (
        [f"{{}}.{i}.{kind}.{side}" for i in layers for kind, side in names if kind == which]
        for which in ("decoder", "encoder")
    )

    def step(batch: int, seconds: float) -> Inputs:
        encoded = whole.model.encoder(**mel(batch, seconds)).last_hidden_state
        written = torch.randint(
            4, whole.config.vocab_size, (batch, WRITTEN + batch)
        )  # another batch: another length too
        caches = EncoderDecoderCache(_cache(()), _cache(()))
        whole.model.decoder(input_ids=written[:, :-1], encoder_hidden_states=encoded, cache=caches, use_cache=True)
        tensors = (*_flat(caches.self_attention_cache), *_flat(caches.cross_attention_cache))
        past = dict(zip([name.format("past_key_values") for name in (*own, *cross)], tensors, strict=True))
        return {"input_ids": written[:, -1:], **past}

    dims = {"input_ids": {0: "batch"}} | {name.format("past_key_values"): {0: "batch"} for name in cross}
    dims |= {name.format("past_key_values"): {0: "batch", 2: "past"} for name in own}
    ordered = {name: dims[name] for name in ("input_ids", *(n.format("past_key_values") for n in (*own, *cross)))}
    return Part(DecoderStep(whole), step, ("logits", *(name.format("present") for name in own)), ordered)


# --- others ------------------------------------------------------------------------------------------------------------


def _wav2vec2(model: WebModel, audio_s: float) -> Part:
    whole = configured("Wav2Vec2Config", "Wav2Vec2ForCTC", _size(model), **PLAIN)

    def wave(batch: int, seconds: float) -> Inputs:
        return {"input_values": torch.randn(batch, round(seconds * model.rate))}

    forward = Forward(whole, ("input_values",), ("logits",))
    return Part(forward, wave, ("logits",), {"input_values": {0: "batch", 1: "samples"}})


def _clap(model: WebModel, audio_s: float) -> Part:
    from dataclasses import replace

    size = _size(model)
    tower = replace(size, config=size.config.get("audio_config", {}))
    whole = configured("ClapAudioConfig", "ClapAudioModelWithProjection", tower, **PLAIN)

    def mel(batch: int, seconds: float) -> Inputs:
        return {"input_features": torch.randn(batch, 1, round(seconds * CLAP_FRAMES_PER_S), 64)}

    forward = Forward(whole, ("input_features",), ("audio_embeds",))
    return Part(forward, mel, ("audio_embeds",), {"input_features": {0: "batch"}})


class Keywords(nn.Module):
    """A convnet with depthwise-separable blocks, as DS-CNN."""

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        first = nn.Conv2d(1, channels, (4, 10), stride=2, padding=(1, 4), bias=False)  # mels × frames
        body = [layer for _ in range(blocks) for layer in self.block(channels)]
        pooled = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, KEYWORDS)]
        self.layers = nn.Sequential(first, nn.BatchNorm2d(channels), nn.ReLU(), *body, *pooled)
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d):  # torch's own way lets signals fade, until the bias alone makes the output
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")

    @staticmethod
    def block(channels: int) -> list[nn.Module]:
        """Each channel by itself, then all of a place together."""
        depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        pointwise = nn.Conv2d(channels, channels, 1, bias=False)
        return [depthwise, nn.BatchNorm2d(channels), nn.ReLU(), pointwise, nn.BatchNorm2d(channels), nn.ReLU()]

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Log-mel (batch × 1 × mels × frames) to one number a class."""
        logits: torch.Tensor = self.layers(inputs[0])
        return logits


def _keywords(model: WebModel, audio_s: float) -> Part:
    assert model.features is not None
    mels, hop, n_fft = (model.features[name] for name in ("mels", "hop", "n_fft"))

    def mel(batch: int, seconds: float) -> Inputs:
        frames = (round(seconds * model.rate) - n_fft) // hop + 1
        return {"mel": torch.randn(batch, 1, mels, frames)}

    return Part(Keywords(*KEYWORD_SIZES[model.size]), mel, ("logits",), {"mel": {0: "batch", 3: "frames"}})
