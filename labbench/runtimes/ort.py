"""onnxruntime, on the CPU or on the execution provider that a device needs."""

from __future__ import annotations

import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labbench.runtimes.base import Prepared, Runtime, Unsupported
from labbench.runtimes.export import to_onnx
from labbench.runtimes.profiling import PROFILED_CALLS, US, of_call

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from labbench.cells import Platform, Precision
    from labbench.records import Profile
    from labbench.zoo.base import Program

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "rocm": "MIGraphXExecutionProvider",
    "mps": "CoreMLExecutionProvider",
}


class OnnxPrepared(Prepared):
    """A session with its feed."""

    def __init__(self, session: Any, feed: dict[str, Any], size: int) -> None:
        self._session, self._feed = session, feed
        self.parameter_bytes = size

    def __call__(self) -> list[Any]:
        """One run; returns when the outputs are in host memory."""
        result: list[Any] = self._session.run(None, self._feed)
        return result

    def outputs(self, result: list[Any]) -> list[torch.Tensor]:
        """Float tensors."""
        import torch

        return [torch.from_numpy(array).float() for array in result]


class OnnxRuntime(Runtime):
    """Exported by ``torch.onnx.export(dynamo=True)``; int8 is onnxruntime's dynamic quantization."""

    name = "onnxruntime"
    packages = ("onnxruntime", "onnx", "onnxscript")
    precisions = ("fp32", "int8")

    def available(self, device: str = "cpu") -> str | None:
        """None where the packages and the device's execution provider are installed."""
        for package in self.packages:
            if find_spec(package) is None:
                return f"{package} is not installed: pip install 'labbench[runtimes]'"
        import onnxruntime

        provider = PROVIDERS.get(device.partition(":")[0])
        if provider is None:
            return f"onnxruntime has no execution provider for {device!r}; it has some for {', '.join(PROVIDERS)}"
        if provider not in onnxruntime.get_available_providers():
            return f"this onnxruntime has no {provider}: install the build for {device} (e.g. onnxruntime-gpu)"
        return None

    def prepare(
        self, module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], platform: Platform, precision: Precision
    ) -> Prepared:
        """Export, quantize if asked to, and make a session."""
        with tempfile.TemporaryDirectory(prefix="labbench-onnx-") as name:
            path = to_onnx(module, inputs, Path(name))
            if precision == "int8":
                path = _quantized(path)
            size = sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))
            session = make_session(path, platform)
        return OnnxPrepared(session, _feed(session, inputs), size)

    def profile(
        self, prepared: Prepared, rebuilt: Callable[[], Program], platform: Platform, precision: Precision
    ) -> Profile:
        """By onnxruntime's profiler, in a session of its own."""
        program = rebuilt()
        with tempfile.TemporaryDirectory(prefix="labbench-onnx-") as name:
            path = to_onnx(program.module, program.inputs, Path(name))
            path = _quantized(path) if precision == "int8" else path
            session = make_session(path, platform, profile_prefix=str(Path(name) / "profile"))
            return _timed_nodes(session, OnnxPrepared(session, _feed(session, program.inputs), 0))


def _feed(session: Any, inputs: tuple[torch.Tensor, ...]) -> dict[str, Any]:
    """The inputs as a session takes them, by name."""
    names = [item.name for item in session.get_inputs()]
    if len(names) != len(inputs):
        raise RuntimeError(
            f"the exported graph has {len(names)} inputs, the model {len(inputs)}: some were folded away"
        )
    return {key: x.numpy() for key, x in zip(names, inputs, strict=True)}


def _timed_nodes(session: Any, call: Prepared) -> Profile:
    """Run and read the profile that onnxruntime writes, the first run left out."""
    import json

    for _ in range(1 + PROFILED_CALLS):
        call()
    events = json.loads(Path(session.end_profiling()).read_text())
    nodes = [e for e in events if e["cat"] == "Node" and e["name"].endswith("_kernel_time")]
    runs = sorted((e["ts"], e["dur"]) for e in events if e["name"] == "model_run")[1:]
    start, taken = min(runs, key=lambda run: run[1])
    times = [(e["args"]["op_name"], e["dur"] * US) for e in nodes if start <= e["ts"] <= start + taken]
    return of_call(taken * US, times, "onnxruntime profiler")


def _quantized(path: Path) -> Path:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    target = path.with_name("int8.onnx")
    quantize_dynamic(path, target, weight_type=QuantType.QInt8, use_external_data_format=False)
    return target


def make_session(path: Path, platform: Platform, profile_prefix: str | None = None) -> Any:
    """A session that runs on the device asked for, and nowhere else; it profiles itself if a file's prefix is given.

    Raises
    ------
    Unsupported
        If onnxruntime would run the model, or part of it, on another device.
    """
    import onnxruntime
    import torch

    device, _, index = platform.device.partition(":")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = platform.threads or torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only
    if profile_prefix is not None:
        options.enable_profiling = True
        options.profile_file_prefix = profile_prefix
    provider = PROVIDERS[device]
    if device != "cpu":
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    settings = [{"device_id": index or "0"}] if device in ("cuda", "rocm") else [{}]
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=[provider], provider_options=settings)
    except Exception as error:
        if "disable_cpu_ep_fallback" in str(error) or "fallback" in str(error).lower():
            raise Unsupported(
                f"onnxruntime would run part of the model on the CPU instead of {platform.device}"
            ) from error
        raise
    used = session.get_providers()
    if used[0] != provider:
        raise Unsupported(f"onnxruntime fell back to {used[0]} instead of {provider} on {platform.device}")
    return session
