"""What a workload demands, counted without running it: FLOPs, bytes, parameters, activations and kernels by operator class.

The model is built and run on *fake* tensors, which have shapes but no storage, under a dispatch mode that sees every ATen
operator. A model of seven billion parameters takes seconds and no memory.

- FLOPs: ``torch.utils.flop_counter``'s formulas for matrix products, convolutions and attention (2 FLOP a multiply–add);
  one FLOP an output element for other arithmetic, five for normalization and softmax (about what their passes do).
- Bytes: every input read once and every output written once per operator, as if nothing were cached or fused: an upper
  bound for the traffic of a fusing runtime. Views cost nothing.
- Activations: bytes of all operators' outputs.
- Peak: most bytes of tensors that live at one time (:mod:`labbench.live`); of training, of a step that is not the first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from labbench.live import Live
from labbench.operators import Operator, watch
from labbench.records import Footprint, OperatorClass

if TYPE_CHECKING:
    import torch

    from labbench.cells import Workload
    from labbench.runtimes.step import TrainingStep
    from labbench.zoo.base import Model

PRECISION_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "int8": 1}


def count(module: torch.nn.Module, call: Callable[[], Any], live: Live | None = None) -> Footprint:
    """Footprint of ``call()``, which runs ``module``; real or fake tensors.

    Parameters
    ----------
    module : torch.nn.Module
        Whose parameters are counted.
    call : callable
        Runs it, e.g. ``lambda: module(x)``.
    live : Live, optional
        Follows the tensors.
    """
    live = live or Live()
    live.see_module(module)
    seen = watch(call, module, live)
    demand: dict[str, list[Operator]] = defaultdict(list)
    for operator in seen:
        demand[operator.label].append(operator)
    parameters = list(module.parameters())
    return Footprint(
        flops=sum(one.flops for one in seen),
        bytes=sum(one.bytes for one in seen),
        parameters=sum(p.numel() for p in parameters),
        parameter_bytes=sum(p.numel() * p.element_size() for p in parameters),
        activation_bytes=sum(one.written_bytes for one in seen),
        peak_bytes=live.peak_bytes,
        peak_by_cause=live.peak_by_cause,
        peak_cpu_bytes=live.peak_cpu_bytes,
        kernels=len(seen),
        by_class={
            label: OperatorClass(
                flops=sum(one.flops for one in these), bytes=sum(one.bytes for one in these), kernels=len(these)
            )
            for label, these in demand.items()
        },
    )


def of(workload: Workload) -> dict[str, Footprint]:
    """Footprint of one call of every series of a workload; ``step`` in training.

    The workload is completed by :func:`labbench.zoo.resolve`. Inference is counted in fp32; a narrower precision scales all
    bytes (int8: those of weights and activations alike, which dynamic quantization comes close to for the weights only).
    Training is counted as it runs, with its variant, weights in fp32.
    A count of a built-in model is kept (:mod:`labbench.footprint_cache`): asking again needs no torch.
    """
    from labbench import footprint_cache, zoo

    workload = zoo.resolve(workload)
    counted = footprint_cache.recall(workload)
    if counted is None:
        counted = _counted(workload)
        footprint_cache.keep(workload, counted)
    return counted


def _counted(workload: Workload) -> dict[str, Footprint]:
    """Count the calls of a resolved workload."""
    with calls(workload) as found:
        return {name: _scaled(one.counted(), scale_of(workload)) for name, one in found.items()}


def scale_of(workload: Workload) -> float:
    """By how much bytes of a workload differ from what is counted: inference is counted in fp32."""
    return 1.0 if workload.mode == "training" else PRECISION_BYTES[workload.precision] / PRECISION_BYTES["fp32"]


@dataclass(frozen=True)
class Call:
    """Something that can be run on fake tensors: a program of a model, or a training step that is not the first."""

    module: torch.nn.Module
    run: Callable[[], Any]
    step: TrainingStep | None = None

    def counted(self) -> Footprint:
        """What it demands."""
        live = Live()
        with live.training(self.step) if self.step else nullcontext():
            return count(self.module, self.run, live)


@contextmanager
def calls(workload: Workload) -> Iterator[dict[str, Call]]:
    """Calls of a resolved workload by series, to be run within the context: on fake tensors, without gradients in inference."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from transformers.initialization import no_init_weights

    from labbench import zoo

    training = workload.mode == "training"
    narrow = "bf16" if workload.precision == "fp16" else workload.precision  # as wide, and a CPU can count it
    counted_in = workload.model_copy(update={"precision": narrow if training else "fp32"})
    with FakeTensorMode(allow_non_fake_inputs=True), any_value(1.0), where_they_are():
        with no_init_weights(), any_value(0.0):
            model = zoo.build(counted_in)
            _tie(model.module)
        if training:
            step = _second_step(model, counted_in)
            yield {"step": Call(step.module, step, step)}
            return
        with torch.no_grad():
            yield {
                program.name: Call(program.module, partial(program.module, *program.inputs))
                for program in model.programs
            }


def _tie(module: torch.nn.Module) -> None:
    """Make one of weights that a transformers model shares, which it does not do where none are initialized."""
    from transformers import PreTrainedModel

    for part in module.modules():
        if isinstance(part, PreTrainedModel):
            part.tie_weights()


def where_they_are() -> Any:
    """Leave modules on their device: fake parameters cannot be moved, and adapters are moved to where they are already."""
    from unittest import mock

    import torch

    return mock.patch.object(torch.nn.Module, "to", lambda module, *_, **__: module)


def any_value(value: float) -> Any:
    """Let code look at values, which fake tensors lack: a drop rate or a step count is ``value``, a condition false."""
    import torch
    from torch.overrides import TorchFunctionMode

    class AnyValue(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is torch.Tensor.item:
                return value
            return False if func is torch.Tensor.__bool__ else func(*args, **(kwargs or {}))

    return AnyValue()


def _second_step(model: Model, workload: Workload) -> TrainingStep:
    """A training step that ran once: the first one makes the optimizer's state.

    A loss that looks at values (CTC, Hungarian matching) cannot be computed without any; the sum of the outputs stands
    for it, which leaves out the little that the loss itself costs.
    """
    from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

    from labbench.cells import Platform
    from labbench.runtimes.base import Unsupported
    from labbench.runtimes.step import TrainingStep

    if model.training is None:
        raise Unsupported(f"{workload.model} declares no training loss; register it with one (docs/zoo.md)")
    step = TrainingStep(model, Platform(), workload)
    try:
        _first(step)
    except (DataDependentOutputException, DynamicOutputShapeException, RuntimeError, ValueError):
        training = replace(model.training, criterion=_output_sum)
        step = TrainingStep(replace(model, training=training), Platform(), workload)
        step.module.eval()  # masks drawn at random depend on values too
        _first(step)
    return step


def _first(step: TrainingStep) -> None:
    """Run it, with all parameters updated at once: nobody counts that, and one by one takes as long as all the rest."""
    left_open = [group for group in step.optimizer.param_groups if group["foreach"] is None and not group.get("fused")]
    for group in left_open:
        group["foreach"] = True
    try:
        step()
    finally:
        for group in left_open:
            group["foreach"] = None


def _output_sum(module: Any, outputs: Any, batch: Any) -> torch.Tensor:
    """A scalar that depends on every floating-point output."""
    import torch
    from torch.utils._pytree import tree_leaves

    leaves = tree_leaves(dict(outputs) if hasattr(outputs, "keys") else outputs)
    return torch.stack([x.float().sum() for x in leaves if torch.is_tensor(x) and x.requires_grad]).sum()


def _scaled(footprint: Footprint, scale: float) -> Footprint:
    if scale == 1:
        return footprint
    changes: dict[str, Any] = {
        name: value * scale
        for name in ("bytes", "activation_bytes", "peak_bytes", "peak_cpu_bytes")
        if (value := getattr(footprint, name)) is not None
    }
    if footprint.peak_by_cause:
        changes["peak_by_cause"] = {name: value * scale for name, value in footprint.peak_by_cause.items()}
    classes = {name: one.model_copy(update={"bytes": one.bytes * scale}) for name, one in footprint.by_class.items()}
    size = int(footprint.parameter_bytes * scale)
    return footprint.model_copy(update={**changes, "parameter_bytes": size, "by_class": classes})
