"""Pieces that the family declarations share; importing this imports torch and transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import transformers
from torch import nn

from labbench.zoo.base import Model, Program, Size
from labbench.zoo.generation import Decode, EncoderDecode, EncoderPrefill, EncoderReread, Prefill, Reread

if TYPE_CHECKING:
    from collections.abc import Callable

    from labbench.cells import Workload

IGNORED = -100  # label that transformers' losses leave out


class Forward(nn.Module):
    """A transformers model taking ``names`` positionally and returning the ``outputs`` by name, as a tuple of tensors."""

    def __init__(self, model: nn.Module, names: tuple[str, ...], outputs: tuple[str, ...]) -> None:
        super().__init__()
        self.model = model
        self.names, self.outputs = names, outputs

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """One pass."""
        result = self.model(**dict(zip(self.names, inputs, strict=True)))
        return tuple(getattr(result, name) for name in self.outputs)


def configured(config: str, model: str, size: Size, **further: Any) -> Any:
    """A transformers model of class ``model`` with random weights from a configuration of class ``config``."""
    settings = getattr(transformers, config)(**size.config, **further)
    return getattr(transformers, model)._from_config(settings).eval()


def tokens(work: Workload, vocabulary: int, length: int | None = None, avoid: int = 3) -> torch.Tensor:
    """Random token ids, batch × length; the first ``avoid`` ids (padding and other special tokens) do not occur."""
    return torch.randint(avoid, vocabulary, (work.batch_size, length or work.seq_len or 1))


def pixels(work: Workload, *shape: int) -> torch.Tensor:
    """Normal pixel values: batch × shape × 3 × image_size × image_size."""
    side = work.image_size or 1
    return torch.randn(work.batch_size, *shape, 3, side, side)


def forward_model(
    module: nn.Module,
    inputs: dict[str, torch.Tensor],
    outputs: tuple[str, ...],
    labels: dict[str, Any] | None,
    items: float,
    unit: str = "samples",
) -> Model:
    """A model with the one program ``forward``; its loss is transformers' own for ``labels``, contrastive without any."""
    program = Program("forward", Forward(module, tuple(inputs), outputs), tuple(inputs.values()), items, unit)
    loss = contrastive_loss_of(inputs) if labels is None else loss_of(inputs | labels)
    return Model(module, (program,), loss, items, unit)


def loss_of(arguments: dict[str, Any]) -> Callable[[nn.Module], torch.Tensor]:
    """The loss that the model itself computes for these arguments."""

    def loss(module: nn.Module) -> torch.Tensor:
        value: torch.Tensor = module(**moved(arguments, module)).loss
        return value

    return loss


def contrastive_loss_of(inputs: dict[str, torch.Tensor]) -> Callable[[nn.Module], torch.Tensor]:
    """The loss of pairs against all other pairs of the batch."""

    def loss(module: nn.Module) -> torch.Tensor:
        if len(inputs["input_ids"]) < 2:
            raise ValueError(
                "a contrastive loss needs a batch of at least 2: with one pair there is nothing to contrast"
            )
        return loss_of(inputs | {"return_loss": True})(module)

    return loss


def moved(value: Any, module: nn.Module) -> Any:
    """Tensors, in whatever containers, on the module's device."""
    if isinstance(value, torch.Tensor):
        return value.to(next(module.parameters()).device)
    if isinstance(value, dict):
        return {key: moved(item, module) for key, item in value.items()}
    return [moved(item, module) for item in value] if isinstance(value, list) else value


def decoder_model(module: nn.Module, inputs: dict[str, torch.Tensor], length: int, labels: torch.Tensor) -> Model:
    """A decoder-only generative model: ``prefill`` of ``length`` positions and ``decode`` after it."""
    batch = len(inputs["input_ids"])
    prefill = Prefill(module, tuple(inputs)).eval()
    arguments = tuple(inputs.values())
    with torch.no_grad():
        logits, *cache = prefill(*arguments)
    token = logits.argmax(-1, keepdim=True)
    programs = (
        Program("prefill", prefill, arguments, batch * length, "tokens"),
        Program("decode", Decode(module).eval(), (token, *cache), batch, "tokens"),
    )
    longer = inputs | {"input_ids": torch.cat([inputs["input_ids"], token], dim=1)}
    uncached = Program("decode", Reread(module, tuple(longer)).eval(), tuple(longer.values()), batch, "tokens")
    return Model(module, programs, loss_of(inputs | {"labels": labels}), batch * length, "tokens", uncached)


def encoder_decoder_model(
    module: Any, source: dict[str, torch.Tensor], labels: torch.Tensor, items: float, unit: str
) -> Model:
    """An encoder–decoder generative model; ``items`` of ``unit`` are what its prefill processes."""
    ((name, value),) = source.items()
    start = torch.full((len(value), 1), module.config.decoder_start_token_id)
    prefill = EncoderPrefill(module, name).eval()
    with torch.no_grad():
        logits, *cache = prefill(value, start)
        encoded = module.get_encoder()(value).last_hidden_state
    token = logits.argmax(-1, keepdim=True)
    programs = (
        Program("prefill", prefill, (value, start), items, unit),
        Program("decode", EncoderDecode(module).eval(), (token, encoded, *cache), len(value), "tokens"),
    )
    written = torch.cat([start, token], dim=1)
    uncached = Program("decode", EncoderReread(module).eval(), (written, encoded), len(value), "tokens")
    return Model(module, programs, loss_of(source | {"labels": labels}), items, unit, uncached)
