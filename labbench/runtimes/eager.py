"""Plain PyTorch, operator by operator: the reference, and what most people run."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from labbench.runtimes.base import Prepared, Runtime, Unsupported
from labbench.runtimes.devices import absent, torch_device

if TYPE_CHECKING:
    import torch

    from labbench.cells import Mode, Platform, Precision, Workload
    from labbench.records import Profile
    from labbench.zoo.base import Model, Program


class TorchPrepared(Prepared):
    """A torch callable with its inputs, on any torch device."""

    def __init__(
        self, call: Callable[..., Any], inputs: tuple[torch.Tensor, ...], size: int, device: torch.device
    ) -> None:
        import torch

        self._call, self._inputs = call, inputs
        self.parameter_bytes = size
        self._wait = None if device.type == "cpu" else (lambda: torch.accelerator.synchronize(device))

    def __call__(self) -> Any:
        """One run."""
        return self._call(*self._inputs)

    def outputs(self, result: Any) -> list[torch.Tensor]:
        """Float tensors on the CPU."""
        items = result if isinstance(result, tuple | list) else (result,)
        return [item.detach().float().cpu() for item in items]

    def synchronize(self) -> None:
        """Wait for the accelerator."""
        if self._wait is not None:
            self._wait()


class Eager(Runtime):
    """PyTorch eager mode; bf16 and fp16 convert the weights, int8 quantizes linear layers dynamically (CPU)."""

    name = "eager"
    packages = ("torch",)
    modes: ClassVar[tuple[Mode, ...]] = ("inference", "training")
    precisions: ClassVar[tuple[Precision, ...]] = ("fp32", "bf16", "fp16", "int8")
    lays_out: ClassVar[bool] = True

    def available(self, device: str = "cpu") -> str | None:
        """None where torch has the device."""
        return absent(device)

    def prepare(
        self, module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], platform: Platform, precision: Precision
    ) -> Prepared:
        """Move a copy to the device in the precision asked for."""
        device = torch_device(platform.device)
        module, inputs = _converted(module, inputs, device, precision)
        if platform.memory_format is not None:
            module, inputs = _laid_out(module, inputs)
        return TorchPrepared(self.transform(module), inputs, size_of(module), device)

    def transform(self, call: Any) -> Any:
        """What the runtime makes of a callable; eager leaves it as it is."""
        return call

    def profile(
        self, prepared: Prepared, rebuilt: Callable[[], Program], platform: Platform, precision: Precision
    ) -> Profile:
        """By ``torch.profiler``: time in operators alone, callees apart, on the accelerator where there is one."""
        from labbench.runtimes.profiling import torch_profile

        return torch_profile(prepared, torch_device(platform.device).type)

    def prepare_step(self, model: Model, platform: Platform, workload: Workload) -> Prepared:
        """One step of the workload's training variant; bf16 and fp16 by autocast, weights stay in fp32."""
        from labbench.runtimes.step import TrainingStep

        return TrainingStep(model, platform, workload, self.transform)


def _converted(
    module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], device: torch.device, precision: Precision
) -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
    """Module and inputs on the device in the precision; the module given is not changed."""
    import torch

    if precision == "fp32":
        module = module if device.type == "cpu" else copy.deepcopy(module).to(device)
        return module, tuple(tensor.to(device) for tensor in inputs)
    if precision == "int8":
        return _quantized(module, device), inputs
    if precision == "fp16" and device.type == "cpu":
        raise Unsupported("fp16 on a CPU is emulated and slow; use bf16")
    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    moved = tuple(x.to(device, dtype if x.is_floating_point() else None) for x in inputs)
    return copy.deepcopy(module).to(device, dtype), moved


def _laid_out(
    module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]
) -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
    """A copy of the module, and its inputs, with images and convolutions in channels-last layout."""
    import torch

    if not any(parameter.dim() == 4 for parameter in module.parameters()):
        raise Unsupported("channels_last: the model has no two-dimensional convolution whose layout it could change")
    layout = torch.channels_last
    moved: torch.nn.Module = copy.deepcopy(module).to(memory_format=layout)  # type: ignore[call-overload]
    return moved, tuple(x.contiguous(memory_format=layout) if x.dim() == 4 else x for x in inputs)


def _quantized(module: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """Linear layers with int8 weights and dynamically quantized activations."""
    import warnings

    import torch

    if device.type != "cpu":
        raise Unsupported(f"dynamic int8 quantization runs on the CPU, not on {device}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated in favour of torchao, which is not a dependency
        result: torch.nn.Module = torch.ao.quantization.quantize_dynamic(module, {torch.nn.Linear}, dtype=torch.qint8)
    if not any(isinstance(part, torch.ao.nn.quantized.dynamic.Linear) for part in result.modules()):
        raise Unsupported("int8: the model has no nn.Linear layer that dynamic quantization could replace")
    return result


def size_of(module: torch.nn.Module) -> int:
    """Bytes of parameters and buffers, tied ones once, packed int8 weights included."""
    import torch

    sizes: dict[int, int] = {}
    for value in module.state_dict().values():
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, torch.Tensor):
                if part.is_quantized:
                    sizes[id(part)] = part.numel() * part.element_size()
                else:
                    storage = part.untyped_storage()
                    sizes[storage._cdata] = storage.nbytes()
    return sum(sizes.values())
