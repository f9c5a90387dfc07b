"""OpenVINO, on the devices its plugins offer."""

from __future__ import annotations

from importlib.util import find_spec
from time import perf_counter
from typing import TYPE_CHECKING, Any

from labbench.runtimes.base import Prepared, Runtime, Unsupported
from labbench.runtimes.export import to_exported
from labbench.runtimes.profiling import of_call

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from labbench.cells import Platform, Precision
    from labbench.records import Profile
    from labbench.zoo.base import Program

AVERAGED_CALLS, AVERAGED_S = 200, 2.0  # its counters are means since the first call, which must not weigh
HINTS = {"fp32": "f32", "bf16": "bf16"}  # left alone, OpenVINO takes bf16 on CPUs that have it


class OpenVinoPrepared(Prepared):
    """An inference request with its inputs."""

    def __init__(self, compiled: Any, arrays: list[Any], size: int) -> None:
        self._request = compiled.create_infer_request()
        self._arrays, self._count = arrays, len(compiled.outputs)
        self.parameter_bytes = size

    def __call__(self) -> Any:
        """One run; inputs and outputs are shared, not copied."""
        return self._request.infer(self._arrays, share_inputs=True, share_outputs=True)

    def executed(self) -> list[tuple[str, float]]:
        """Kind and seconds (mean of all runs) of each node that is executed, if the model was compiled to count."""
        found = [node for node in self._request.profiling_info if node.status.name == "EXECUTED"]
        return [(node.node_type, node.real_time.total_seconds()) for node in found]

    def outputs(self, result: Any) -> list[torch.Tensor]:
        """Float tensors, copied out of the request."""
        import torch

        return [torch.from_numpy(result[i].copy()).float() for i in range(self._count)]


class OpenVino(Runtime):
    """Converted from ``torch.export``; latency hint, the number of threads of the platform."""

    name = "openvino"
    packages = ("openvino",)
    precisions = ("fp32", "bf16")

    def available(self, device: str = "cpu") -> str | None:
        """None where OpenVINO is installed and lists the device."""
        if find_spec("openvino") is None:
            return "openvino is not installed: pip install 'labbench[runtimes]'"
        import openvino

        wanted = device.partition(":")[0].upper()
        found = openvino.Core().available_devices
        if not any(name.split(".")[0] == wanted for name in found):
            return f"OpenVINO has no device {device!r} here; it has {', '.join(found).lower() or 'none'}"
        return None

    def prepare(
        self, module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], platform: Platform, precision: Precision
    ) -> Prepared:
        """Convert and compile."""
        compiled = _compiled(module, inputs, platform, precision)
        size = sum(parameter.numel() * parameter.element_size() for parameter in module.parameters())
        return OpenVinoPrepared(compiled, [tensor.numpy() for tensor in inputs], size)

    def profile(
        self, prepared: Prepared, rebuilt: Callable[[], Program], platform: Platform, precision: Precision
    ) -> Profile:
        """By OpenVINO's performance counters, in a model compiled for that."""
        program = rebuilt()
        compiled = _compiled(program.module, program.inputs, platform, precision, PERF_COUNT="YES")
        call = OpenVinoPrepared(compiled, [tensor.numpy() for tensor in program.inputs], 0)
        call()
        calls, start = 0, perf_counter()
        while calls < AVERAGED_CALLS and perf_counter() - start < AVERAGED_S:
            call()
            calls += 1
        return of_call((perf_counter() - start) / calls, call.executed(), "OpenVINO performance counters")


def _compiled(
    module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], platform: Platform, precision: Precision, **further: str
) -> Any:
    """Converted, with static shapes, and compiled for the platform's device alone; ``further`` settings are OpenVINO's."""
    import openvino
    import torch

    converted = openvino.convert_model(to_exported(module, inputs))
    for port, tensor in zip(converted.inputs, inputs, strict=True):
        port.get_node().set_partial_shape(openvino.PartialShape(list(tensor.shape)))
    converted.validate_nodes_and_infer_types()
    if precision == "bf16":
        _drop_idle_masks(converted)
    wanted = platform.device.partition(":")[0].upper()
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_PRECISION_HINT": HINTS[precision],
        "INFERENCE_NUM_THREADS": str(platform.threads or torch.get_num_threads()),
        **further,
    }
    if wanted != "CPU":
        del settings["INFERENCE_NUM_THREADS"], settings["NUM_STREAMS"]
    compiled = openvino.Core().compile_model(converted, wanted, settings)
    used = compiled.get_property("EXECUTION_DEVICES")
    if not all(name.split(".")[0] == wanted for name in used):
        raise Unsupported(f"OpenVINO would run on {', '.join(used)} instead of {platform.device}")
    return compiled


def _drop_idle_masks(model: Any) -> None:
    """Make masks that hide nothing zeros, which OpenVINO then drops.

    Transformers hands such a mask to the attention of a single query (decoding), and there OpenVINO's bf16 with a
    mask is wrong on CPUs (seen in 2026.4.1: off by the whole value, or NaN; two queries, no mask and fp32 are right).
    """
    import numpy as np
    from openvino import opset13

    for node in model.get_ops():
        if node.get_type_name() != "ScaledDotProductAttention" or node.get_input_size() < 4:
            continue
        mask = node.input_value(3).get_node()
        if mask.get_type_name() == "Constant" and mask.get_element_type().to_string() == "boolean":
            hidden = ~mask.get_data()
            if not hidden.any():
                node.input(3).replace_source_output(opset13.constant(hidden.astype(np.float32)).output(0))
