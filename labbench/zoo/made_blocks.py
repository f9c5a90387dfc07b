"""Blocks that made networks are drawn from; importing this imports torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from torch import nn
from torch.nn import functional

ACTIVATIONS = (nn.ReLU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Tanh, nn.Sigmoid)
HEAD_WIDTHS = (16, 32, 64)
WINDOWS = (8, 7, 4, 3, 2, 1)
LENGTHS = (16, 50, 64, 128, 197, 256, 384, 512, 1024, 1500)
MOST_ELEMENTS = 2**17  # of a sequence's activations: length x width


@dataclass
class Output:
    """Named as transformers' models do."""

    logits: torch.Tensor


class Residual(nn.Module):
    """``x + body(x)``, scaled channel by channel in some networks."""

    def __init__(self, body: nn.Module, scale: torch.Tensor | None = None) -> None:
        super().__init__()
        self.body = body
        self.scale = None if scale is None else nn.Parameter(scale)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape stays."""
        out = self.body(x)
        return x + (out if self.scale is None else out * self.scale)


class ChannelsLast(nn.Module):
    """A body of tokens' layers on an image: batch x channels x height x width."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape stays."""
        return self.body(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Flat(nn.Module):
    """The same, for bodies that want a sequence of positions."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape stays."""
        return self.body(x.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(x.shape)


class Windows(nn.Module):
    """The same, for bodies that look at one window of the image at a time; windows are shifted by half of their side."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape stays."""
        batch, width, height, _ = x.shape
        side = next(one for one in WINDOWS if height % one == 0)
        count = height // side
        shifted = x.roll((-(side // 2), -(side // 2)), (2, 3)).view(batch, width, count, side, count, side)
        found = self.body(shifted.permute(0, 2, 4, 3, 5, 1).reshape(-1, side * side, width))
        whole = found.view(batch, count, count, side, side, width).permute(0, 5, 1, 3, 2, 4).reshape(x.shape)
        return whole.roll((side // 2, side // 2), (2, 3))


class Resize(nn.Module):
    """Interpolates images to another size."""

    def __init__(self, factor: float, mode: str) -> None:
        super().__init__()
        self.factor, self.mode = factor, mode

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Batch x channels x height x width."""
        size = [int(side * self.factor) for side in x.shape[2:]]
        return functional.interpolate(x, size=size, mode=self.mode, align_corners=False)


class RMSNorm(nn.Module):
    """As language models write it out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape stays."""
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


class Gated(nn.Module):
    """Multilayer perceptron whose inner layer is gated."""

    def __init__(self, width: int, inner: int, act: nn.Module) -> None:
        super().__init__()
        self.gate, self.up = nn.Linear(width, inner, bias=False), nn.Linear(width, inner, bias=False)
        self.act, self.down = act, nn.Linear(inner, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape stays."""
        return self.down(self.act(self.gate(x)) * self.up(x))


class Attention(nn.Module):
    """Self-attention in one of the ways that models write it; with ``past`` keys and values, of new tokens only."""

    def __init__(self, width: int, draw: Random) -> None:
        super().__init__()
        self.wide = draw.choice([one for one in HEAD_WIDTHS if width % one == 0])
        self.heads = width // self.wide
        self.shared = draw.choice([1, 1, 2]) if self.heads % 2 == 0 else 1  # query heads to a head of keys and values
        self.written = draw.random() < 0.4  # out, operator by operator
        self.masked = draw.random() < 0.5
        self.rotary = draw.random() < 0.4
        bias = draw.random() < 0.6
        self.query = nn.Linear(width, width, bias)
        self.key, self.value = (nn.Linear(width, width // self.shared, bias) for _ in range(2))
        self.out = nn.Linear(width, width, bias)

    def forward(self, x: torch.Tensor, past: tuple[torch.Tensor, torch.Tensor] | None = None) -> torch.Tensor:
        """Batch x length x width."""
        shape = (*x.shape[:2], -1, self.wide)
        query, key, value = (one(x).view(shape).transpose(1, 2) for one in (self.query, self.key, self.value))
        if self.rotary:
            query, key = (self._turned(one) for one in (query, key))
        if past is not None:
            key, value = torch.cat([past[0], key], 2), torch.cat([past[1], value], 2)
        if self.shared > 1:
            key, value = (one.repeat_interleave(self.shared, 1) for one in (key, value))
        mask = torch.zeros(query.shape[-2], key.shape[-2], device=x.device) if self.masked else None
        if self.written:
            scores = query @ key.transpose(-1, -2) / self.wide**0.5
            found = (scores if mask is None else scores + mask).softmax(-1) @ value
        else:
            found = functional.scaled_dot_product_attention(query, key, value, mask)
        return self.out(found.transpose(1, 2).reshape(x.shape))

    def _turned(self, x: torch.Tensor) -> torch.Tensor:
        angle = torch.arange(x.shape[-2], device=x.device)[:, None] * torch.ones(self.wide, device=x.device)
        first, second = x.chunk(2, -1)
        return x * angle.cos() + torch.cat([-second, first], -1) * angle.sin()


def norm(width: int, draw: Random) -> nn.Module:
    """Of tokens."""
    kinds: list[Callable[[int], nn.Module]] = [nn.LayerNorm, nn.LayerNorm, RMSNorm]
    return draw.choice(kinds)(width)


def perceptron(width: int, draw: Random) -> nn.Module:
    """Of tokens."""
    inner, act = width * draw.choice([2, 3, 4]), draw.choice(ACTIVATIONS)()
    if draw.random() < 0.3:
        return Gated(width, inner, act)
    return nn.Sequential(nn.Linear(width, inner), act, nn.Linear(inner, width))


def transformer(width: int, draw: Random) -> nn.Module:
    """Attention and perceptron, each with a norm before it."""
    return nn.Sequential(
        Residual(nn.Sequential(norm(width, draw), Attention(width, draw))),
        Residual(nn.Sequential(norm(width, draw), perceptron(width, draw))),
    )


def convolutions(width: int, draw: Random) -> nn.Module:
    """A block of convolutions that leaves an image's shape."""
    act = draw.choice(ACTIVATIONS)

    def layer(inputs: int, outputs: int, size: int, groups: int = 1, last: bool = False) -> list[nn.Module]:
        convolution = nn.Conv2d(inputs, outputs, size, padding=size // 2, groups=groups, bias=False)
        return [convolution, calm(outputs), *([] if last else [act()])]

    norms: list[Callable[[int], nn.Module]] = [nn.BatchNorm2d] * 3 + [lambda outputs: nn.GroupNorm(8, outputs)]
    calm = draw.choice(norms)
    kind = draw.choice(["plain", "bottleneck", "separable", "spatial", "tokens", "windows"])
    if kind == "plain":
        size = draw.choice([1, 3, 3, 5])
        return Residual(nn.Sequential(*layer(width, width, size), *layer(width, width, size, last=True)))
    if kind == "bottleneck":
        inner, groups = width // 2, draw.choice([1, 1, 4])
        return Residual(nn.Sequential(
            *layer(width, inner, 1), *layer(inner, inner, 3, groups), *layer(inner, width, 1, last=True)
        ))  # fmt: skip
    if kind == "separable":
        inner, size = 4 * width, draw.choice([3, 5])
        return Residual(nn.Sequential(
            *layer(width, inner, 1), *layer(inner, inner, size, inner), *layer(inner, width, 1, last=True)
        ))  # fmt: skip
    if kind == "spatial":
        size = draw.choice([5, 7])
        mixed = nn.Conv2d(width, width, size, padding=size // 2, groups=width)
        tokens = nn.Sequential(norm(width, draw), perceptron(width, draw))
        return Residual(nn.Sequential(mixed, ChannelsLast(tokens)), torch.ones(width, 1, 1))
    if kind == "windows":
        return Windows(transformer(width, draw))
    return Residual(Flat(nn.Sequential(norm(width, draw), perceptron(width, draw))))


class Images(nn.Module):
    """A convolutional network, in some with attention at the end."""

    def __init__(self, draw: Random, classes: int) -> None:
        super().__init__()
        width, patch = draw.choice([16, 32, 48, 64, 96]), draw.choice([2, 4, 4])
        stem = draw.choice([patch, 7])
        layers: list[nn.Module] = [nn.Conv2d(3, width, stem, stride=patch, padding=(stem - patch + 1) // 2)]
        if draw.random() < 0.3:
            layers.insert(0, Resize(2 ** draw.choice([-1, 1]), draw.choice(["bilinear", "bicubic"])))
        stages = draw.choice([2, 3])
        for stage in range(stages):
            layers += [convolutions(width, draw) for _ in range(draw.choice([1, 2, 3]))]
            if stage < stages - 1:
                halve = draw.choice(["stride", "patch", "pool"])
                if halve == "pool":
                    layers += [draw.choice([nn.MaxPool2d, nn.AvgPool2d])(2), nn.Conv2d(width, 2 * width, 1)]
                else:
                    size = 3 if halve == "stride" else 2
                    layers.append(nn.Conv2d(width, 2 * width, size, stride=2, padding=size // 3))
                width *= 2
        if draw.random() < 0.4:
            layers.append(Flat(transformer(width, draw)))
        self.body, self.head = nn.Sequential(*layers), nn.Linear(width, classes)

    def forward(self, image: torch.Tensor) -> Output:
        """Batch x 3 x side x side."""
        return Output(self.head(self.body(image).mean((2, 3))))


class Wave(nn.Module):
    """Convolutions along the time that make tokens of a signal's features or of the signal itself."""

    def __init__(self, draw: Random, inputs: int, width: int) -> None:
        super().__init__()
        if inputs > 1:
            layers = [nn.Conv1d(inputs, width, 3, padding=1), nn.GELU(), nn.Conv1d(width, width, 3, 2, 1), nn.GELU()]
        else:
            layers = [nn.Conv1d(1, width, 10, 5, bias=False), nn.GroupNorm(width, width), nn.GELU()]
            for _ in range(draw.choice([2, 3, 4])):
                layers += [nn.Conv1d(width, width, 3, 2, bias=False), nn.GELU()]
        self.layers = nn.Sequential(*layers)
        size = draw.choice([15, 31, 127])
        self.place = nn.Conv1d(width, width, size, padding=size // 2, groups=16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Batch x inputs x time to batch x length x width."""
        found = self.layers(x)
        return (found + functional.gelu(self.place(found))).transpose(1, 2)


class Words(nn.Module):
    """Token ids and their places."""

    def __init__(self, vocabulary: int, width: int, length: int) -> None:
        super().__init__()
        self.embedding, self.place = nn.Embedding(vocabulary, width), nn.Parameter(torch.zeros(length, width))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Batch x length to batch x length x width."""
        return self.embedding(ids) + self.place


class Tokens(nn.Module):
    """A transformer of what a stem makes of its input."""

    def __init__(self, draw: Random, classes: int, stem: nn.Module, width: int) -> None:
        super().__init__()
        self.stem = stem
        self.body = nn.Sequential(*(transformer(width, draw) for _ in range(draw.choice([1, 2, 3]))))
        self.norm, self.head = norm(width, draw), nn.Linear(width, classes)
        self.everywhere = draw.random() < 0.5  # classes of every position, then their mean

    def forward(self, x: torch.Tensor) -> Output:
        """Whatever the stem takes."""
        found = self.norm(self.body(self.stem(x)))
        return Output(self.head(found).mean(1) if self.everywhere else self.head(found[:, 0]))


class Layer(nn.Module):
    """Of a decoder."""

    def __init__(self, width: int, draw: Random) -> None:
        super().__init__()
        self.before, self.attention = norm(width, draw), Attention(width, draw)
        self.between, self.mlp = norm(width, draw), perceptron(width, draw)

    def forward(self, x: torch.Tensor, past: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Batch x 1 x width; keys and values of what came before, batch x heads x length x width of a head."""
        x = x + self.attention(self.before(x), past)
        return x + self.mlp(self.between(x))


class Step(nn.Module):
    """The next token of a decoder: its keys and values of what came before are inputs."""

    def __init__(self, draw: Random, classes: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(1000, width)
        self.layers = nn.ModuleList(Layer(width, draw) for _ in range(draw.choice([1, 2, 4])))
        self.head = nn.Linear(width, classes)

    def forward(self, token: torch.Tensor, **past: torch.Tensor) -> Output:
        """Batch x 1; of each layer ``key`` and ``value``."""
        x = self.embedding(token)
        for number, layer in enumerate(self.layers):
            x = layer(x, (past[f"key{number}"], past[f"value{number}"]))
        return Output(self.head(x[:, -1]))


def images(draw: Random, batch: int, classes: int) -> tuple[nn.Module, dict[str, Any]]:
    """A convolutional network and its input."""
    side = draw.choice([64, 96, 128, 160, 192])
    return Images(draw, classes), {"image": torch.randn(batch, 3, side, side)}


def tokens(draw: Random, batch: int, classes: int) -> tuple[nn.Module, dict[str, Any]]:
    """A transformer and its input: ids, features of a signal or a signal."""
    width = draw.choice([64, 128, 192, 256, 384, 512, 768])
    length = draw.choice([size for size in LENGTHS if size * width <= MOST_ELEMENTS])
    kind = draw.choice(["ids", "ids", "features", "signal"])
    if kind == "ids":
        vocabulary = draw.choice([1000, 8000, 30000])
        x = torch.randint(0, vocabulary, (batch, length))
        return Tokens(draw, classes, Words(vocabulary, width, length), width), {"x": x}
    inputs = draw.choice([40, 80]) if kind == "features" else 1
    x = torch.randn(batch, inputs, 2 * length if inputs > 1 else 20 * length)
    return Tokens(draw, classes, Wave(draw, inputs, width), width), {"x": x}


def step(draw: Random, batch: int, classes: int) -> tuple[nn.Module, dict[str, Any]]:
    """A decoder and its input."""
    width, length = draw.choice([64, 128, 256, 512, 768]), draw.choice([16, 64, 128, 512])
    module = Step(draw, classes, width)
    inputs = {"token": torch.randint(0, 1000, (batch, 1))}
    attentions = [part for part in module.modules() if isinstance(part, Attention)]
    for number, attention in enumerate(attentions):
        shape = (batch, attention.heads // attention.shared, length, attention.wide)
        inputs |= {f"{name}{number}": torch.randn(shape) for name in ("key", "value")}
    return module, inputs


KINDS = (images, tokens, images, tokens, step)
