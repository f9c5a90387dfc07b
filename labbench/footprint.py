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
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from labbench.live import Live
from labbench.records import Footprint, OperatorClass

if TYPE_CHECKING:
    import torch

    from labbench.cells import Workload
    from labbench.zoo.base import Model

# Operator class by ATen name (without overload); first hit wins.
CLASSES: dict[str, tuple[str, ...]] = {
    "attention": ("_scaled_dot_product",),
    "matmul": ("mm", "bmm", "addmm", "baddbmm", "addbmm", "linear"),
    "convolution": ("convolution", "conv"),
    "normalization": ("native_layer_norm", "native_batch_norm", "native_group_norm", "_fused_rms_norm", "batch_norm"),
    "softmax": ("_softmax", "_log_softmax", "_safe_softmax"),
    "activation": ("gelu", "relu", "silu", "sigmoid", "tanh", "hardtanh", "leaky_relu", "elu", "glu", "softplus", "erf"),
    "embedding": ("embedding", "index_select", "gather"),
    "reduction": ("sum", "mean", "max", "min", "argmax", "argmin", "var", "norm", "cumsum", "any", "all", "amax", "amin"),
    "pooling": ("max_pool", "avg_pool", "_adaptive_avg", "upsample"),
    "copy": ("clone", "copy_", "_to_copy", "cat", "stack", "constant_pad_nd", "repeat", "index", "scatter", "fill",
             "zeros", "ones", "empty", "full", "new_", "arange", "masked_fill", "roll", "slice_scatter"),
}  # fmt: skip
OTHER = "elementwise"
NAMES = (*CLASSES, OTHER)
FLOPS_PER_ELEMENT = {"normalization": 5, "softmax": 5, "copy": 0, "embedding": 0}
FREE = ("empty", "detach", "lift_fresh", "_unsafe_view", "alias", "is_same_size", "sym_size", "_local_scalar_dense")
PRECISION_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "int8": 1}
EXACT_CLASSES = ("attention", "matmul", "convolution")


def classify(name: str) -> str:
    """Class of an ATen operator, e.g. ``addmm`` or ``native_layer_norm_backward``."""
    base = name.removesuffix("_backward")
    for label, prefixes in CLASSES.items():
        if label in ("matmul", "activation", "reduction"):
            if base.rstrip("_") in prefixes:
                return label
        elif base.startswith(prefixes):
            return label
    return OTHER


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
    demand: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    activations = [0.0]
    live = live or Live()
    live.see_module(module)
    with _counter(demand, activations, live):
        call()
    parameters = list(module.parameters())
    return Footprint(
        flops=sum(flops for flops, _, _ in demand.values()),
        bytes=sum(size for _, size, _ in demand.values()),
        parameters=sum(p.numel() for p in parameters),
        parameter_bytes=sum(p.numel() * p.element_size() for p in parameters),
        activation_bytes=activations[0],
        peak_bytes=live.peak_bytes,
        peak_by_cause=live.peak_by_cause,
        peak_cpu_bytes=live.peak_cpu_bytes,
        kernels=int(sum(kernels for _, _, kernels in demand.values())),
        by_class={
            name: OperatorClass(flops=flops, bytes=size, kernels=int(kernels))
            for name, (flops, size, kernels) in demand.items()
        },
    )


def _counter(demand: dict[str, list[float]], activations: list[float], live: Live) -> Any:
    """A dispatch mode that adds every operator to ``demand`` and shows ``live`` every tensor."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves
    from torch.utils.flop_counter import flop_registry

    def nbytes(tree: Any) -> float:
        return float(sum(x.numel() * x.element_size() for x in tree_leaves(tree) if isinstance(x, torch.Tensor)))

    class Counter(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            for tensor in tree_leaves((args, kwargs, result)):
                if isinstance(tensor, torch.Tensor):
                    live.see(tensor)
            name = func._schema.name.removeprefix("aten::")
            if func.is_view or name.startswith(FREE) or func.namespace != "aten":
                return result
            label, backward = classify(name), name.endswith("_backward")
            packet = func._overloadpacket
            if label == "attention":
                flops = _attention_flops(args, backward=backward)
            elif label == "convolution":
                flops = _convolution_flops(args, result, backward=backward)
                live.borrow(_blocked_copies(args, result, backward=backward))
            elif packet in flop_registry:
                flops = float(flop_registry[packet](*args, **(kwargs or {}), out_val=result))
            else:
                elements = sum(x.numel() for x in tree_leaves(result) if isinstance(x, torch.Tensor))
                flops = float(elements * FLOPS_PER_ELEMENT.get(label, 1))
            written = nbytes(result)
            entry = demand[label]
            entry[0] += flops
            entry[1] += nbytes((args, kwargs)) + written
            entry[2] += 1
            activations[0] += written
            return result

    return Counter()


def _attention_flops(args: Any, backward: bool) -> float:
    """FLOPs of fused attention, which the registry knows for some devices only: two products forward, five backward."""
    query, key, value = args[1:4] if backward else args[:3]
    batch, heads, queries, width = query.shape
    pairs = 2.0 * batch * heads * queries * key.shape[-2]
    return pairs * (3 * width + 2 * value.shape[-1]) if backward else pairs * (width + value.shape[-1])


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
    """Build a resolved workload's model on fake tensors and count its calls."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from transformers.initialization import no_init_weights

    from labbench import zoo

    training = workload.mode == "training"
    narrow = "bf16" if workload.precision == "fp16" else workload.precision  # as wide, and a CPU can count it
    counted_in = workload.model_copy(update={"precision": narrow if training else "fp32"})
    with FakeTensorMode(allow_non_fake_inputs=True), _any_value(1.0), _where_they_are():
        with no_init_weights(), _any_value(0.0):
            model = zoo.build(counted_in)
        if training:
            return {"step": _counted_step(model, counted_in)}
        with torch.no_grad():
            found = {
                program.name: count(program.module, partial(program.module, *program.inputs))
                for program in model.programs
            }
    scale = PRECISION_BYTES[workload.precision] / PRECISION_BYTES["fp32"]
    return {name: _scaled(footprint, scale) for name, footprint in found.items()}


def _convolution_flops(args: Any, result: Any, backward: bool) -> float:
    """FLOPs of a convolution of any grouping; backward costs as much again for each gradient that is asked for.

    The registry's formula for the backward pass ignores groups.
    """
    weight = args[2] if backward else args[1]
    transposed = args[7] if backward else args[6]
    source, output = (args[1], args[0]) if backward else (args[0], result)
    positions = source.numel() if transposed else output.numel()
    gradients = sum(args[10][:2]) if backward else 1
    return 2.0 * positions * weight.shape[1:].numel() * gradients


def _where_they_are() -> Any:
    """Leave modules on their device: fake parameters cannot be moved, and adapters are moved to where they are already."""
    from unittest import mock

    import torch

    return mock.patch.object(torch.nn.Module, "to", lambda module, *_, **__: module)


def _any_value(value: float) -> Any:
    """Let code look at values, which fake tensors lack: a drop rate or a step count is ``value``, a condition false."""
    import torch
    from torch.overrides import TorchFunctionMode

    class AnyValue(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is torch.Tensor.item:
                return value
            return False if func is torch.Tensor.__bool__ else func(*args, **(kwargs or {}))

    return AnyValue()


def _counted_step(model: Model, workload: Workload) -> Footprint:
    """Footprint of the second training step: the first one makes the optimizer's state.

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
        step()
    except (DataDependentOutputException, DynamicOutputShapeException, RuntimeError, ValueError):
        training = replace(model.training, criterion=_output_sum)
        step = TrainingStep(replace(model, training=training), Platform(), workload)
        step.module.eval()  # masks drawn at random depend on values too
        step()
    live = Live()
    with live.training(step):
        return count(step.module, step, live)


def _blocked_copies(args: Any, result: Any, *, backward: bool) -> float:
    """Bytes beside its tensors that a convolution of a CPU holds at most: copies of images in oneDNN's blocked layout.

    Forwards: the image's copy until the output's is filled, then that until it is written out. Backwards: the image's copy with the
    larger one of its gradient's and the output's gradient's. An image of three channels or fewer, or in channels-last layout, is
    taken as it is. The rule was read off the peaks of single operators (ResNet, DETR, wav2vec 2.0; oneDNN 3, AVX-512).
    """
    import torch

    image = args[1] if backward else args[0]
    if image.dim() == 4 and not image.is_contiguous() and image.is_contiguous(memory_format=torch.channels_last):
        return 0.0
    copy = image.nbytes if image.shape[1] > 3 else 0
    if not backward:
        return float(max(copy, result.nbytes))
    gradient = 0 if result[0] is None else result[0].nbytes
    return float(copy + max(args[0].nbytes, gradient))


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
