"""Pieces that the family declarations share; importing this imports torch and transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import transformers
from torch import nn

from labbench.zoo.base import Model, Program, Size, Training
from labbench.zoo.generation import Decode, EncoderDecode, EncoderPrefill, EncoderReread, Prefill, Reread

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from labbench.cells import Workload

    Criterion = Callable[[nn.Module, Any, Mapping[str, Any]], torch.Tensor]

IGNORED = -100  # label that takes no part in a cross entropy


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
    labels: Any,
    criterion: Criterion | None,
    items: float,
    unit: str = "samples",
) -> Model:
    """A model with the one program ``forward``; ``labels`` are what its criterion compares with, None if it needs none."""
    program = Program("forward", Forward(module, tuple(inputs), outputs), tuple(inputs.values()), items, unit)
    return Model(module, (program,), criterion and training_of(inputs, labels, criterion, items, unit))


def training_of(
    inputs: dict[str, torch.Tensor], labels: Any, criterion: Criterion, items: float, unit: str, **arguments: Any
) -> Training:
    """Training with these keyword arguments of the module's forward, and labels that only the criterion sees."""
    names = tuple(inputs)

    def forward(module: nn.Module, batch: Mapping[str, Any]) -> Any:
        return module(**{name: batch[name] for name in names}, **arguments)

    batch: dict[str, Any] = dict(inputs) if labels is None else {**inputs, "labels": labels}
    return Training(batch, forward, criterion, items, unit)


# --- criteria: transformers' own losses, apart from the forward pass ---------------------------------------------------


def cross_entropy(module: nn.Module, outputs: Any, batch: Mapping[str, Any]) -> torch.Tensor:
    """Of classes (batch × classes) or of tokens (batch × length × vocabulary)."""
    return nn.functional.cross_entropy(outputs.logits.flatten(0, -2).float(), batch["labels"].flatten())


def next_token(module: nn.Module, outputs: Any, batch: Mapping[str, Any]) -> torch.Tensor:
    """Cross entropy of each text token given all before it; what stands before the text (an image) is not predicted."""
    logits, labels = outputs.logits, batch["labels"]
    if logits.shape[1] < 2:
        raise ValueError(
            "a next-token loss needs a sequence of at least 2: after one token there is nothing to predict"
        )
    # labels are shifted, as transformers does: shifting logits would copy them, which are far larger
    before = logits.shape[1] - labels.shape[1]
    following = nn.functional.pad(labels, (before, 1), value=IGNORED)[:, 1:]
    return nn.functional.cross_entropy(logits.flatten(0, 1).float(), following.flatten(), ignore_index=IGNORED)


def contrastive(*similarities: str) -> Criterion:
    """Each sample's text against all others' images (or audio), and the other way round; the outputs' names of both matrices."""

    def criterion(module: nn.Module, outputs: Any, batch: Mapping[str, Any]) -> torch.Tensor:
        rows, columns = (getattr(outputs, name) for name in similarities)
        if len(rows) < 2:
            raise ValueError(
                "a contrastive loss needs a batch of at least 2: with one pair there is nothing to contrast"
            )
        own = torch.arange(len(rows), device=rows.device)
        loss: torch.Tensor = (nn.functional.cross_entropy(rows, own) + nn.functional.cross_entropy(columns, own)) / 2
        return loss

    return criterion


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
    training = training_of(inputs, labels, next_token, batch * length, "tokens", use_cache=False)
    return Model(module, programs, training, uncached)


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
    shifted = {"decoder_input_ids": torch.cat([start, labels[:, :-1]], dim=1)}
    training = training_of(source | shifted, labels, cross_entropy, items, unit, use_cache=False)
    return Model(module, programs, training, uncached)
