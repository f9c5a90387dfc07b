"""Profiles: what runtimes' own profilers tell, put into the operator classes of :mod:`labbench.footprint`.

Classes that the footprint does not have: ``fused`` (kernels that a compiler made of several operators) and ``dispatch`` (views,
allocations and wrappers that compute nothing, and what the framework does between operators).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from operator import attrgetter
from time import perf_counter
from typing import TYPE_CHECKING

from labbench.records import Profile

if TYPE_CHECKING:
    from labbench.runtimes.base import Prepared

PROFILED_CALLS = 10  # after one that warms up; the fastest is kept, for others were disturbed
US = 1e-6
DISPATCH, FUSED = "dispatch", "fused"
COMPUTING = ("aten", "mkldnn", "quantized", "mkl", "inductor")  # torch's namespaces of operators that do
# Operator class -> words in the names of onnxruntime's operators and OpenVINO's nodes; the first hit wins, else elementwise.
WORDS: dict[str, tuple[str, ...]] = {
    "attention": ("attention", "rope", "rotary"),
    "matmul": ("matmul", "gemm", "fullyconnected", "lstm", "gru"),
    "convolution": ("conv",),
    "normalization": ("normalization", "mvn", "rms"),
    "softmax": ("softmax",),
    "activation": ("gelu", "relu", "sigmoid", "tanh", "silu", "swish", "erf"),
    "embedding": ("gather", "embedding"),
    "reduction": ("reduce", "argm", "cumsum", "topk"),
    "pooling": ("pool", "interpolate", "resize"),
    "copy": (
        "transpose", "concat", "slice", "reshape", "squeeze", "expand", "cast", "convert", "split", "pad", "reorder",
        "identity", "where", "scatter", "tile", "broadcast", "constant", "shape", "input", "output", "memory", "range",
    ),
    FUSED: ("subgraph", "snippet"),
}  # fmt: skip


def classify_node(kind: str) -> str:
    """Operator class of a node of onnxruntime or OpenVINO, e.g. ``SkipLayerNormalization``."""
    name = kind.lower()
    return next((label for label, words in WORDS.items() if any(word in name for word in words)), "elementwise")


def of_call(wall_s: float, nodes: Iterable[tuple[str, float]], method: str) -> Profile:
    """The profile of a call that took ``wall_s``, from kind and seconds of each of its nodes."""
    return _profile([(classify_node(kind), seconds, 1) for kind, seconds in nodes], wall_s, method)


def _profile(parts: Iterable[tuple[str, float, int]], wall_s: float, method: str) -> Profile:
    """From class, seconds and number of operators of one call; what no operator accounts for is dispatch."""
    seconds: dict[str, float] = defaultdict(float)
    kernels: dict[str, float] = defaultdict(float)
    for label, taken, count in parts:
        seconds[label] += taken
        kernels[label] += count
    seconds[DISPATCH] += max(wall_s - sum(seconds.values()), 0.0)
    return Profile(seconds=dict(seconds), kernels=dict(kernels), wall_s=wall_s, method=method)


def torch_profile(prepared: Prepared, device: str) -> Profile:
    """The fastest of a few calls under ``torch.profiler``: an accelerator's own time, on a CPU that of the calling thread."""
    prepared()
    prepared.synchronize()
    return min((_torch_call(prepared, device) for _ in range(PROFILED_CALLS)), key=attrgetter("wall_s"))


def _torch_call(prepared: Prepared, device: str) -> Profile:
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU]
    if device != "cpu":
        activities.append(getattr(ProfilerActivity, device.upper(), ProfilerActivity.PrivateUse1))
    with profile(activities=activities, acc_events=True) as profiler:
        start = perf_counter()
        prepared()
        prepared.synchronize()
        wall_s = perf_counter() - start
    parts = []
    for event in profiler.key_averages():
        taken = event.self_cpu_time_total if device == "cpu" else event.self_device_time_total
        parts.append((classify_operator(event.key), taken * US, event.count))
    return _profile(parts, wall_s, "torch.profiler")


@cache
def classify_operator(key: str) -> str:
    """Class of an event of ``torch.profiler``: an operator that computes, a compiled graph, or overhead."""
    from labbench.operators import classify

    if key.startswith(("## Call CompiledFxGraph", "triton")):
        return FUSED
    space, _, name = key.partition("::")
    if space not in COMPUTING or (space == "aten" and _computes_nothing(name)):
        return DISPATCH
    name = name.removeprefix("mkldnn_").removeprefix("_mkl_")
    return "matmul" if "linear" in name else classify(name)


def _computes_nothing(name: str) -> bool:
    """Whether an ATen operator only looks at memory in another way, allocates it, or calls others."""
    import torch

    from labbench.operators import FREE

    packet = getattr(torch.ops.aten, name, None)
    overloads = [getattr(packet, one) for one in packet.overloads()] if packet is not None else []
    known = [one.name() for one in overloads if torch._C._dispatch_has_kernel(one.name())]  # the rest is TorchScript's
    composite = any(torch._C._dispatch_has_kernel_for_dispatch_key(one, "CompositeImplicitAutograd") for one in known)
    return composite or name.startswith((*FREE, "resize_", "set_")) or any(one.is_view for one in overloads)
