"""The nouns of the zoo: a :class:`Family` declares models; a :class:`Model` is one of them, built and ready to run.

Declarations are plain data and functions that import torch and transformers only when they are called, so listing
the zoo costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from labbench.cells import Workload

Unit = str  # "samples" | "tokens" | "audio_s"


@dataclass(frozen=True)
class Size:
    """One published or tiny configuration of a family.

    Attributes
    ----------
    config : dict
        Keyword arguments of the family's configuration.
    published_parameters : int or None
        The figure its authors give, where there is one.
    source : str or None
        Where that figure stands.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    published_parameters: int | None = None
    source: str | None = None


@dataclass(frozen=True)
class Program:
    """One callable that a runtime prepares and times.

    Attributes
    ----------
    name : str
        Series name: ``forward``, ``prefill``, ``decode`` or ``step``.
    module : torch.nn.Module
        Takes ``inputs`` positionally and returns a tensor or a tuple of tensors; in ``eval()``.
    inputs : tuple of torch.Tensor
        Positional inputs; never constants of the module.
    items_per_call, unit
        What throughput counts, e.g. 8 ``samples`` or 1024 ``tokens``.
    """

    name: str
    module: torch.nn.Module
    inputs: tuple[torch.Tensor, ...]
    items_per_call: float
    unit: Unit


@dataclass(frozen=True)
class Training:
    """How a model is trained.

    Attributes
    ----------
    batch : mapping of str to tensors, or lists of what holds tensors
        One batch, inputs and labels; the first dimension (or the list) counts samples.
    forward : callable
        ``forward(module, batch) -> outputs``
    criterion : callable
        ``criterion(module, outputs, batch) -> scalar tensor``: the loss.
    items_per_batch, unit
        What throughput counts.
    """

    batch: Mapping[str, Any]
    forward: Callable[[torch.nn.Module, Mapping[str, Any]], Any]
    criterion: Callable[[torch.nn.Module, Any, Mapping[str, Any]], torch.Tensor]
    items_per_batch: float
    unit: Unit

    def loss(self, module: torch.nn.Module) -> torch.Tensor:
        """The loss of the batch."""
        return self.criterion(module, self.forward(module, self.batch), self.batch)


@dataclass(frozen=True)
class Model:
    """A workload's model, built with seeded random weights.

    Attributes
    ----------
    module : torch.nn.Module
        The model itself (parameters live here).
    programs : tuple of Program
        What inference runs, primary first: one ``forward``, or ``prefill`` and ``decode`` for generative models.
    training : Training or None
        How it is trained; None if it cannot be.
    uncached : Program or None
        ``decode`` without a KV cache, of generative models.
    """

    module: torch.nn.Module
    programs: tuple[Program, ...]
    training: Training | None
    uncached: Program | None = None


@dataclass(frozen=True)
class Family:
    """A model family: its sizes, default input shape, and how to build it.

    Attributes
    ----------
    name : str
        e.g. ``bert``; a model is called ``{family}-{size}``, e.g. ``bert-base``.
    title : str
        For people, e.g. ``BERT``.
    task : str
        Default task, in the Hugging Face hub's vocabulary, e.g. ``fill-mask``.
    modality : str
        ``text``, ``vision``, ``audio`` or ``multimodal``.
    sizes : mapping of str to Size
    shape : mapping of str to number
        Default of each shape field of a Workload that the family uses, e.g. ``{"seq_len": 128}``.
    build : callable
        ``build(size, workload) -> Model``; called with a resolved workload, under the workload's seed.
    """

    name: str
    title: str
    task: str
    modality: str
    sizes: Mapping[str, Size]
    shape: Mapping[str, Any]
    build: Callable[[Size, Workload], Model]
