"""One training step, made ready, and the times of its parts::

    zero_grad | data | forward | loss | backward | ... once for each batch of the step ... | clip | optimizer

``data`` is there with a loader only, ``clip`` with a largest norm only. On a CPU the parts are timed from the end of one to the
end of the next, so they add up to the step. An accelerator is not made to wait between them, which would change what is
timed: it records an event at each boundary, and the parts are the times between events on its own clock.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import torch

from labbench.runtimes.base import Unsupported
from labbench.runtimes.devices import torch_device
from labbench.runtimes.eager import TorchPrepared, size_of

if TYPE_CHECKING:
    from labbench.cells import Platform, Workload
    from labbench.zoo.base import Model

LEARNING_RATE = 1e-4  # small, so that a benchmark of any length keeps a finite loss
MOMENTUM = 0.9
LORA_RANK = 8  # peft's default
NS, MS = 1e-9, 1e-3

Mark = Callable[[str], None]


@dataclass(frozen=True)
class Gradients:
    """Proof that a step was real, taken after it.

    Attributes
    ----------
    loss : float
    norm : float
        Of all gradients together.
    nonfinite : int
        Elements of gradients that are NaN or infinite.
    trained : int
        Parameters (numbers, not tensors) that the optimizer may change.
    """

    loss: float
    norm: float
    nonfinite: int
    trained: int


class TrainingStep(TorchPrepared):
    """Zero the gradients, then forward, loss and backward for each batch of the step, then update; a call is one step.

    Parameters
    ----------
    model : Model
        Its module is trained in place.
    platform, workload
        Where it runs, and the variant: optimizer, precision, accumulation, checkpointing, what is trained, clipping.
    transform : callable
        What the runtime makes of a callable (``torch.compile``).

    Raises
    ------
    Unsupported
        If the model, the device or what is installed cannot do what the variant asks for.
    """

    def __init__(
        self, model: Model, platform: Platform, workload: Workload, transform: Callable[[Any], Any] = lambda call: call
    ) -> None:
        if model.training is None:
            raise Unsupported(f"{workload.model} declares no training loss; register it with one (docs/zoo.md)")
        device = torch_device(platform.device)
        module = _varied(model.module, workload).to(device).train()
        batch = _moved(model.training.batch, device)
        if platform.memory_format is not None:
            module, batch = _channels_last(module, batch)
        super().__init__(self._plain, (), size_of(module), device)
        self.module = module
        self.trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.optimizer = _optimizer(workload.optimizer, self.trained)
        self._device = device
        self._forward, self._criterion = transform(model.training.forward), transform(model.training.criterion)
        self._batches = _batches(batch, platform, device)
        self._loads = platform.loader_workers is not None
        self._accumulation = workload.accumulation or 1
        self._clip_norm = workload.clip_norm
        self._norm: torch.Tensor | None = None  # before clipping
        self._autocast = _autocast(workload.precision, device)
        self._scaler = torch.amp.GradScaler(device.type) if workload.precision == "fp16" else None

    @property
    def scales(self) -> bool:
        """Whether the loss is scaled, so that steps whose gradients overflow are skipped."""
        return self._scaler is not None

    def _plain(self) -> torch.Tensor:
        return self._run(_no_mark)

    def _run(self, mark: Mark) -> torch.Tensor:
        """One step; ``mark`` is told the part that just ended."""
        self.optimizer.zero_grad(set_to_none=True)
        mark("zero_grad")
        for _ in range(self._accumulation):
            batch = next(self._batches)
            if self._loads:
                mark("data")
            with self._autocast:
                outputs = self._forward(self.module, batch)
                mark("forward")
                loss = self._criterion(self.module, outputs, batch)
                if self._accumulation > 1:
                    loss = loss / self._accumulation
                del outputs, batch  # the backward pass needs only what autograd kept
                mark("loss")
            (loss if self._scaler is None else self._scaler.scale(loss)).backward()
            mark("backward")
        if self._clip_norm is not None:
            if self._scaler is not None:
                self._scaler.unscale_(self.optimizer)
            self._norm = torch.nn.utils.clip_grad_norm_(self.trained, self._clip_norm)
            mark("clip")
        if self._scaler is None:
            self.optimizer.step()
        else:
            self._scaler.step(self.optimizer)
            self._scaler.update()
        mark("optimizer")
        return loss.detach() * self._accumulation if self._accumulation > 1 else loss.detach()

    def anatomy(self) -> dict[str, float]:
        """One step; seconds of each of its parts, those of all its batches together."""
        return self._timed_by_clock() if self._device.type == "cpu" else self._timed_by_events()

    def _timed_by_clock(self) -> dict[str, float]:
        seconds: dict[str, float] = defaultdict(float)
        last = perf_counter_ns()

        def mark(part: str) -> None:
            nonlocal last
            now = perf_counter_ns()
            seconds[part] += (now - last) * NS
            last = now

        self._run(mark)
        return dict(seconds)

    def _timed_by_events(self) -> dict[str, float]:
        def event() -> torch.Event:
            made = torch.Event(self._device, enable_timing=True)
            made.record()
            return made

        self.synchronize()
        marks = [("", event())]
        self._run(lambda part: marks.append((part, event())))
        self.synchronize()
        seconds: dict[str, float] = defaultdict(float)
        for (_, before), (part, after) in pairwise(marks):
            seconds[part] += before.elapsed_time(after) * MS
        return dict(seconds)

    def gradients(self, loss: torch.Tensor) -> Gradients:
        """Statistics of the gradients of the last step, of which ``loss`` was the result; the norm is that before clipping."""
        scale = 1.0 if self._scaler is None or self._clip_norm is not None else self._scaler.get_scale()
        square, nonfinite = 0.0, 0
        for parameter in self.trained:
            if parameter.grad is not None:
                finite = torch.isfinite(parameter.grad)
                nonfinite += int((~finite).sum())
                square += float(parameter.grad.double().masked_fill(~finite, 0).square().sum()) / scale**2
        norm = square**0.5 if self._norm is None else float(self._norm)
        return Gradients(float(loss), norm, nonfinite, sum(parameter.numel() for parameter in self.trained))

    def checksums(self) -> list[int]:
        """A number for each trained tensor that any change of its bits changes (but for a chance of 2⁻⁶⁴)."""
        views = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
        return [
            int(parameter.detach().contiguous().view(views[parameter.element_size()]).sum(dtype=torch.int64))
            for parameter in self.trained
        ]

    def memory_by_cause(self) -> dict[str, int]:
        """Bytes of parameters and buffers, gradients, optimizer state, and of what a forward pass keeps for the backward pass."""
        kept: dict[int, int] = {}
        most = 0
        own = {parameter.untyped_storage().data_ptr() for parameter in self.module.parameters()}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        def mark(part: str) -> None:
            nonlocal most
            if part == "backward":
                most = max(most, sum(kept.values()))
                kept.clear()

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            self._run(mark)
        self.synchronize()
        state = [value for one in self.optimizer.state.values() for value in one.values() if torch.is_tensor(value)]
        return {
            "parameters": size_of(self.module),
            "gradients": sum(p.grad.numel() * p.grad.element_size() for p in self.trained if p.grad is not None),
            "optimizer": sum(value.numel() * value.element_size() for value in state),
            "activations": most,
        }


def _no_mark(part: str) -> None:
    """Nothing is timed."""


# --- the variant ---------------------------------------------------------------------------------------------------------


def _varied(module: torch.nn.Module, workload: Workload) -> torch.nn.Module:
    """The module with what is frozen frozen, adapters put in, and checkpointing switched on."""
    if workload.trained == "head":
        module.requires_grad_(False)
        _head(module).requires_grad_(True)
    elif workload.trained == "lora":
        _add_adapters(module, workload.model)
    if workload.checkpointing:
        _checkpoint(module, workload.model)
    return module


def _head(module: torch.nn.Module) -> torch.nn.Module:
    """The last part of a module that has parameters; a part that is alone is looked into."""
    parts = [part for part in module.children() if next(part.parameters(), None) is not None]
    return module if not parts else _head(parts[0]) if len(parts) == 1 else parts[-1]


def _add_adapters(module: torch.nn.Module, name: str) -> None:
    try:
        import peft
    except ImportError:
        raise Unsupported("lora needs the package peft: pip install 'labbench[lora]'") from None
    linear = [key for key, part in module.named_modules() if isinstance(part, torch.nn.Linear)]
    if not linear:
        raise Unsupported(f"{name} has no linear layer for an adapter")
    peft.inject_adapter_in_model(peft.LoraConfig(r=LORA_RANK, target_modules=linear), module)


def _checkpoint(module: torch.nn.Module, name: str) -> None:
    """Switch on transformers' checkpointing of layers."""
    for part in (module, *module.children()):
        if getattr(part, "supports_gradient_checkpointing", False):
            part.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})  # type: ignore[operator]
            return
    raise Unsupported(f"{name} ({type(module).__name__}) does not support checkpointing of activations")


def _optimizer(name: str | None, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    make: dict[str, Callable[[], torch.optim.Optimizer]] = {
        "adamw": lambda: torch.optim.AdamW(parameters, lr=LEARNING_RATE),
        "adamw_foreach": lambda: torch.optim.AdamW(parameters, lr=LEARNING_RATE, foreach=True),
        "adamw_fused": lambda: torch.optim.AdamW(parameters, lr=LEARNING_RATE, fused=True),
        "adafactor": lambda: torch.optim.Adafactor(parameters, lr=LEARNING_RATE),
        "sgd": lambda: torch.optim.SGD(parameters, lr=LEARNING_RATE, momentum=MOMENTUM),
    }
    try:
        return make[name or "adamw"]()
    except (RuntimeError, AttributeError) as error:  # not on this device, or not in this torch
        raise Unsupported(f"optimizer {name}: {error}") from None


def _autocast(precision: str, device: torch.device) -> torch.autocast:
    """Half precision where it is safe, weights in fp32."""
    if precision == "fp16" and device.type == "cpu":
        raise Unsupported("training in fp16 needs an accelerator, on a CPU it is emulated; use bf16")
    if precision not in ("fp32", "bf16", "fp16"):
        raise Unsupported(f"training in {precision} is not offered; use fp32, bf16, or fp16 on an accelerator")
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype, enabled=precision != "fp32")


def _channels_last(module: torch.nn.Module, batch: Mapping[str, Any]) -> tuple[torch.nn.Module, dict[str, Any]]:
    """Module and batch with images and convolutions in channels-last layout."""
    if not any(parameter.dim() == 4 for parameter in module.parameters()):
        raise Unsupported("channels_last: the model has no two-dimensional convolution whose layout it could change")
    layout = torch.channels_last
    laid: torch.nn.Module = module.to(memory_format=layout)  # type: ignore[call-overload]

    def image(value: Any) -> Any:
        return value.contiguous(memory_format=layout) if torch.is_tensor(value) and value.dim() == 4 else value

    return laid, {name: image(value) for name, value in batch.items()}


# --- data ----------------------------------------------------------------------------------------------------------------


def _moved(value: Any, device: torch.device) -> Any:
    """Tensors, in whatever containers, on the device."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {key: _moved(item, device) for key, item in value.items()}
    return [_moved(item, device) for item in value] if isinstance(value, list) else value


def _batches(batch: Mapping[str, Any], platform: Platform, device: torch.device) -> Iterator[Mapping[str, Any]]:
    """The batch again and again, or one made sample by sample by a loader each time."""
    if platform.loader_workers is None:
        while True:
            yield batch
    from labbench.runtimes.loading import loader

    for made in loader(_moved(batch, torch.device("cpu")), platform.loader_workers):
        yield _moved(made, device)
