"""A browser model as one ONNX file with inputs and right answers, made once and cached by what it is made from.

    ~/.cache/labbench/web-models/VERSIONS/MODEL[-SECONDS]/model.onnx     random weights of a seed
                                          .../SECONDS.npz, SECONDS.json  inputs, outputs of native onnxruntime

The graph is exported with its batch (and length, where the model allows) left open, and trusted only after its outputs were
those of torch **at two shapes**: exporters have been seen to fix a shape silently, and be right at the one they were shown.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from labbench.config import ConfigError
from labbench.web.cached import making
from labbench.web.families import WebModel, find

if TYPE_CHECKING:
    from labbench.web.models import Inputs, Part
    from labbench.web.server import Server

TOLERANCE = 1e-4  # largest |difference| over the largest |reference|: those of the tiny models are within 6e-5 (CLAP), else 2e-6
UNUSED_S = (
    14 * 86_400
)  # files of other versions that nobody used for so long go: a published Whisper takes hundreds of megabytes
PACKAGES = ("torch", "transformers", "onnx", "onnxscript", "onnxruntime")
SOURCES = ("web/models.py", "web/families.py", "web/export.py", "zoo/audio.py", "zoo/building.py", "zoo/generation.py",
           "runtimes/export.py")  # fmt: skip


class WrongExport(RuntimeError):
    """An exported graph whose outputs are not the model's."""


@dataclass(frozen=True)
class Exported:
    """A model for chunks of one length, ready to be served.

    Attributes
    ----------
    model : WebModel
    audio_s : float
        Seconds of a chunk.
    path : Path
        The ONNX file, weights inside.
    dims : dict
        What the graph's open dimensions are with these inputs.
    inputs, outputs : dict of str to ndarray
        Inputs of one sample, and what native onnxruntime makes of them.
    torch_error, second_shape_error : float
        Largest difference of native onnxruntime's outputs to torch's, relative to the largest reference: at these inputs, and
        at a second shape.
    """

    model: WebModel
    audio_s: float
    path: Path
    dims: dict[str, int]
    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]
    torch_error: float
    second_shape_error: float

    @property
    def items_per_call(self) -> float:
        """What one call processes, in the model's unit: seconds of audio, or one token."""
        return 1.0 if self.model.unit == "tokens" else self.audio_s

    def argument(self, server: Server) -> dict[str, Any]:
        """Put model and inputs on a server; what the page's ``open`` has to know of them."""
        folder = f"models/{self.model.name}-{self.audio_s:g}"
        told = {}
        for i, (name, value) in enumerate(self.inputs.items()):
            data = server.add(f"{folder}/{i}.bin", value.tobytes())
            told[name] = {"type": str(value.dtype), "shape": list(value.shape), "data": data}
        return {"model": server.add(f"{folder}/model.onnx", self.path), "inputs": told, "dims": self.dims}


def export(name: str, audio_s: float | None = None, seed: int = 0) -> Exported:
    """The model of a name for chunks of ``audio_s`` seconds (its default), from the cache or made now.

    Raises
    ------
    ConfigError
        For an unknown model.
    WrongExport
        If the exported graph does not compute what the model does.
    """
    model = find(name)
    seconds = audio_s or model.audio_s
    root = _root()
    folder = root / (f"{name}-{seed}" if model.any_length else f"{name}-{seed}-{seconds:g}")
    about = folder / f"{seconds:g}.json"
    if not about.exists():
        with making(folder) as temporary:
            if not about.exists():
                _make(model, seconds, seed, folder, temporary)
    arrays = np.load(about.with_suffix(".npz"))
    told = json.loads(about.read_text(encoding="utf-8"))
    inputs, outputs = ({key: arrays[f"{kind}.{key}"] for key in told[kind]} for kind in ("inputs", "outputs"))
    errors = told["torch_error"], told["second_shape_error"]
    return Exported(model, seconds, folder / "model.onnx", told["dims"], inputs, outputs, *errors)


def _root() -> Path:
    """The folder of these versions, marked as used; those of others go when nobody uses them."""
    from labbench.machine.ceilings import cache_folder

    root = cache_folder() / "web-models" / _versions()
    root.mkdir(parents=True, exist_ok=True)
    root.touch()
    for other in root.parent.iterdir():
        if other.stat().st_mtime < time.time() - UNUSED_S:
            shutil.rmtree(other, ignore_errors=True)
    return root


@cache
def _versions() -> str:
    """Id of all that a file depends on besides model and seed."""
    from importlib.metadata import PackageNotFoundError, version

    from labbench.cells import content_id
    from labbench.manifest import sha256

    package = Path(__file__).parents[1]
    try:
        versions = {name: version(name) for name in PACKAGES}
    except PackageNotFoundError as error:
        raise ConfigError(
            f"{error.name} is not installed, and models are exported with it: pip install 'labbench[runtimes]'"
        ) from None
    return content_id({**versions, **{name: sha256(package / name) for name in SOURCES}})


def _make(model: WebModel, audio_s: float, seed: int, folder: Path, temporary: Path) -> None:
    """Export if there is no graph yet, compare at two shapes, keep inputs and outputs; the .json comes last."""
    from labbench.web.models import build, inputs_of

    part = build(model, audio_s, seed)
    inputs = inputs_of(part, 1, audio_s, seed)
    graph = folder / "model.onnx"
    if not graph.exists():
        to_graph(part, inputs, temporary).rename(graph)
    try:
        run = native(graph)
        outputs, error = compared(part, inputs, run, f"{model.name}, {audio_s:g} s")
        other = inputs_of(part, 2, audio_s * (1.5 if model.any_length else 1), seed + 1)
        second = compared(part, other, run, f"{model.name} at a second shape")[1]
    except WrongExport:
        graph.unlink()
        raise
    dims = {name: inputs[key].shape[axis] for key, axes in part.dims.items() for axis, name in axes.items()}
    arrays = {f"inputs.{key}": value.numpy() for key, value in inputs.items()}
    arrays |= {f"outputs.{key}": value for key, value in outputs.items()}
    with (folder / f"{audio_s:g}.npz").open("wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]
    told: dict[str, Any] = {"dims": dims, "inputs": list(inputs), "outputs": list(outputs)}
    told |= {"torch_error": error, "second_shape_error": second}
    last = temporary / "about.json"
    last.write_text(json.dumps(told), encoding="utf-8")
    last.rename(folder / f"{audio_s:g}.json")


def to_graph(part: Part, inputs: Inputs, folder: Path) -> Path:
    """The part as one ONNX file with its dimensions open."""
    from labbench.runtimes.export import to_onnx

    return to_onnx(
        part.module, tuple(inputs.values()), folder, names=(tuple(inputs), part.outputs), dims=tuple(part.dims.values())
    )


def native(graph: Path) -> Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]:
    """Native onnxruntime on the CPU, as a function from inputs to outputs."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda feed: dict(zip(names, session.run(names, feed), strict=True))


def compared(
    part: Part, inputs: Inputs, run: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]], what: str
) -> tuple[dict[str, np.ndarray], float]:
    """Outputs of a graph, and their largest difference to the module's, relative to the largest reference.

    Raises
    ------
    WrongExport
        If that is more than :data:`TOLERANCE`, or the graph does not run with these inputs.
    """
    import torch

    from labbench.runtimes.check import compare

    with torch.no_grad():
        reference = part.module(*inputs.values())
    wanted = [reference] if isinstance(reference, torch.Tensor) else list(reference)
    try:
        outputs = run({key: value.numpy() for key, value in inputs.items()})
    except Exception as error:
        raise WrongExport(f"{what}: the exported graph does not run: {error}") from error
    off = compare([torch.from_numpy(outputs[name]) for name in part.outputs], wanted, "fp32").max_error
    if off > TOLERANCE:
        raise WrongExport(f"{what}: the exported graph is off by {off:.2g} of its largest output")
    return outputs, off
