"""Users' own models: any ``torch.nn.Module`` with example inputs, any transformers configuration folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labbench.zoo.base import Family, Model, Program, Size, Training

if TYPE_CHECKING:
    import torch

    from labbench.cells import Workload


def register_module(
    name: str,
    module: Callable[[], torch.nn.Module],
    inputs: Callable[[int], torch.Tensor | tuple[torch.Tensor, ...]],
    *,
    loss: Callable[..., torch.Tensor] | None = None,
    targets: Callable[[int], torch.Tensor | tuple[torch.Tensor, ...]] | None = None,
    task: str = "custom",
) -> None:
    """Make any module a model of the zoo.

    Parameters
    ----------
    name : str
        What cells call it.
    module : callable
        Makes the module; called in the worker, under the workload's seed.
    inputs : callable
        Makes its positional inputs for a batch size: a tuple of tensors, or the one tensor that there is.
    loss : callable, optional
        ``loss(output, *targets) -> scalar tensor``; without one the model has no training mode.
    targets : callable, optional
        Makes what the loss compares the output with, for a batch size.

    Examples
    --------
    >>> register_module("mlp", lambda: torch.nn.Linear(512, 512), lambda batch: (torch.randn(batch, 512),))
    >>> register_module(
    ...     "classifier",
    ...     lambda: torch.nn.Linear(512, 10),
    ...     lambda batch: (torch.randn(batch, 512),),
    ...     loss=torch.nn.functional.cross_entropy,
    ...     targets=lambda batch: (torch.randint(10, (batch,)),),
    ... )
    """
    from labbench.zoo import register

    def build(size: Size, work: Workload) -> Model:
        made, batch = module().eval(), work.batch_size
        given = _several(inputs(batch))
        _fit(made.forward, given, f"{type(made).__name__}.forward", f"what `inputs` of {name!r} makes")
        program = Program("forward", made, given, batch, "samples")
        if loss is None:
            return Model(made, (program,), None)
        wanted = _several(targets(batch)) if targets else ()
        _fit(loss, (None, *wanted), "the loss", f"the output and what `targets` of {name!r} makes")
        return Model(made, (program,), _training(given, wanted, loss, batch))

    register(Family(name, name, task, "custom", {"": Size()}, {}, build))


def _several(made: torch.Tensor | Iterable[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """As a tuple; one tensor is one thing, not the rows that it could be taken apart into."""
    import torch

    return (made,) if isinstance(made, torch.Tensor) else tuple(made)


def _fit(call: Callable[..., Any], arguments: tuple[Any, ...], what: str, source: str) -> None:
    """Raises TypeError if a call cannot take these arguments by position; one that does not tell is tried later."""
    import inspect

    try:
        signature = inspect.signature(call)
    except ValueError:  # built in
        return
    try:
        signature.bind(*arguments)
    except TypeError as error:
        raise TypeError(
            f"{what}{signature} does not fit {source} ({len(arguments)} by position): {error}; make as many as it takes"
        ) from None


def _training(
    inputs: tuple[torch.Tensor, ...], targets: tuple[torch.Tensor, ...], loss: Callable[..., torch.Tensor], size: int
) -> Training:
    """Training of a module that takes its inputs by position."""
    given, wanted = (
        {f"{kind} {i}": x for i, x in enumerate(some)} for kind, some in (("input", inputs), ("target", targets))
    )

    def forward(module: torch.nn.Module, batch: Mapping[str, Any]) -> Any:
        return module(*(batch[name] for name in given))

    def criterion(module: torch.nn.Module, outputs: Any, batch: Mapping[str, Any]) -> torch.Tensor:
        return loss(outputs, *(batch[name] for name in wanted))

    return Training({**given, **wanted}, forward, criterion, size, "samples")


# How to feed a model, by the name of its main input. Others are registered as modules.
SHAPES: Mapping[str, Mapping[str, Any]] = {
    "input_ids": {"seq_len": 128},
    "pixel_values": {"image_size": 224},
}


def register_config_dir(name: str, path: str | Path) -> None:
    """Make a transformers configuration folder (``config.json``) a model of the zoo, with random weights.

    The model class is the first of the configuration's ``architectures``.

    Raises
    ------
    ConfigError
        If there is no configuration, it names no architecture, or its main input is neither token ids nor pixels.
    """
    import json

    from labbench.config import ConfigError
    from labbench.zoo import register

    file = Path(path).resolve() / "config.json"
    if not file.exists():
        raise ConfigError(f"no config.json in {Path(path)}")
    settings = json.loads(file.read_text())
    if not settings.get("architectures"):
        raise ConfigError(f'{file} names no architecture; add "architectures": ["BertModel"], say')
    kind = "pixel_values" if "image_size" in settings else "input_ids"
    shape = {"image_size": settings["image_size"]} if kind == "pixel_values" else dict(SHAPES[kind])

    def build(size: Size, work: Workload) -> Model:
        import transformers

        config = transformers.AutoConfig.from_pretrained(file.parent)
        made = getattr(transformers, settings["architectures"][0])._from_config(config).eval()
        return _configured(made, work)

    register(Family(name, name, "custom", "custom", {"": Size()}, shape, build))


def _configured(module: Any, work: Workload) -> Model:
    from labbench.config import ConfigError
    from labbench.zoo.building import cross_entropy, decoder_model, forward_model, pixels, tokens

    main = module.main_input_name
    if main not in SHAPES:
        raise ConfigError(f"{type(module).__name__} takes {main!r}; register it with register_module instead")
    value = pixels(work) if main == "pixel_values" else tokens(work, module.config.vocab_size)
    if type(module).__name__.endswith("ForCausalLM") or type(module).__name__.endswith("LMHeadModel"):
        return decoder_model(module, {main: value}, value.shape[1], value)
    output = "logits" if "For" in type(module).__name__ else "last_hidden_state"
    labels = _labels(module, value)
    criterion = None if labels is None else cross_entropy
    return forward_model(module, {main: value}, (output,), labels, criterion, work.batch_size)


def _labels(module: Any, value: torch.Tensor) -> torch.Tensor | None:
    """What a transformers model of this class learns to tell; None where it has no loss, or one that labbench does not know."""
    import torch

    name = type(module).__name__
    if name.endswith("ForMaskedLM"):
        return value
    sizes = {"TokenClassification": value.shape, "SequenceClassification": value.shape[:1]}
    for kind, size in {**sizes, "ImageClassification": value.shape[:1]}.items():
        if name.endswith(f"For{kind}"):
            return torch.randint(module.config.num_labels, size)
    return None
