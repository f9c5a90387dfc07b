"""What an optimum-benchmark run was of: cell, machine and protocol from its configuration or from the caller."""

from __future__ import annotations

from typing import Any

from labbench.cells import Cell
from labbench.config import ConfigError
from labbench.importers.base import File, Origin, environment, positive, whole

MUST = ("model", "device", "runtime", "precision")  # what must be known before a number has a meaning
OPTIONS = (*MUST, "task", "batch_size", "seq_len", "image_size", "device_name")
EXAMPLES = {"model": '"gpt2"', "device": '"cpu"', "runtime": '"eager"', "precision": '"fp32"', "batch_size": "1"}
DTYPES = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
LOADS_FP32 = ("pytorch", "onnxruntime", "openvino", "ipex", "torch-ort")  # backends whose default is single precision
DEVICES = {"cuda": "cuda:0", "gpu": "xpu"}  # "gpu" is OpenVINO's name of an Intel GPU
NOT_TEXT = ("image", "object", "semantic", "audio", "automatic-speech", "text-to-image")  # how their tasks start
VARIANTS = ("attn_implementation", "cache_implementation", "auto_optimization")  # configured values that change speed
PROTOCOL = ("iterations", "duration", "warmup_runs", "max_steps", "warmup_steps")


def described(
    file: File, config: dict[str, Any], options: dict[str, Any], mode: str, batch: int | None
) -> tuple[Cell, Origin]:
    """Cell and origin of a run, from its configuration (empty if there is none) and what the caller adds.

    Parameters
    ----------
    batch : int or None
        The batch that follows from the report's own throughput, for want of a better source.

    Raises
    ------
    Unreadable
        If something that must be known is not, or the caller contradicts the configuration.
    BadRow
        If a count in the configuration makes no sense.
    """
    told = {name: value for name, value in _told(config, mode).items() if value is not None}
    for name, value in options.items():
        if str(told.get(name, value)) != str(value):
            raise file.unreadable(f"says {name} {told[name]!r}, but {name}={value!r} was given; leave it out")
    fields = {"mode": mode, **({} if batch is None else {"batch_size": batch}), **told, **options}
    if missing := [name for name in (*MUST, "batch_size") if name not in fields]:
        given = ", ".join(f"{name}={EXAMPLES[name]}" for name in missing)
        beside = "" if config else ", or put its benchmark_config.json beside it"
        raise file.unreadable(f"does not tell {', '.join(missing)}; give it, e.g. {given}{beside}")
    device_name = fields.pop("device_name", None)
    try:
        cell = Cell.of(**fields)
    except ConfigError as error:
        raise file.unreadable(str(error)) from None
    return cell, _origin(file, config, cell, device_name)


def _told(config: dict[str, Any], mode: str) -> dict[str, Any]:
    """Fields of the cell, and the device's name, as the configuration tells them; None where it does not."""
    backend, scenario = part_of(config, "backend"), part_of(config, "scenario")
    if not backend:
        return {}
    world, suffix = _world(config)
    shapes = part_of(scenario, "input_shapes" if mode == "inference" else "dataset_shapes")
    task = backend.get("task")
    is_text = not str(task).startswith(NOT_TEXT)
    side = shapes.get("height")
    return {
        "model": backend.get("model"),
        "task": task,
        "batch_size": _batch(scenario, mode, world),
        "precision": _precision(backend),
        "seq_len": shapes.get("sequence_length") if is_text else None,
        "image_size": side if side == shapes.get("width") else None,
        "device": _device(config),
        "runtime": _runtime(backend) + suffix,
        "threads": backend.get("intra_op_num_threads"),
        "world_size": world,
        "device_name": _device_name(config),
    }


def part_of(config: dict[str, Any], name: str) -> dict[str, Any]:
    """A part of a configuration or report that should be an object; empty if it is missing or something else."""
    found = config.get(name)
    return found if isinstance(found, dict) else {}


def _batch(scenario: dict[str, Any], mode: str, world: int) -> int | None:
    """Samples of one call on all processes together; training counts them per process, inference shares them out."""
    if mode == "inference":
        return part_of(scenario, "input_shapes").get("batch_size")
    training = part_of(scenario, "training_arguments")
    batch = training.get("per_device_train_batch_size")
    if batch is None:
        return None
    accumulated = whole(training.get("gradient_accumulation_steps") or 1, "gradient_accumulation_steps")
    return whole(batch, "per_device_train_batch_size") * accumulated * world


def _world(config: dict[str, Any]) -> tuple[int, str]:
    """Devices that share the work, and a suffix of the runtime where one process spreads the model over several."""
    backend, launcher = part_of(config, "backend"), part_of(config, "launcher")
    if launcher.get("name") == "torchrun":
        world = whole(launcher.get("nproc_per_node"), "nproc_per_node")
        return world, f"-{backend['tp_plan']}-tp" if backend.get("tp_plan") else ""
    devices = len(str(backend.get("device_ids") or "0").split(","))
    if devices > 1 and (spread := backend.get("device_map")):
        return devices, f"-{spread}-map"
    return 1, ""


def _precision(backend: dict[str, Any]) -> str | None:
    """None where the configuration leaves it to the checkpoint or the server, or where labbench has no name for it."""
    quantization = backend.get("quantization_config") or backend.get("quantization_scheme")
    if backend.get("autocast_enabled") or backend.get("amp_autocast"):
        return "amp"
    if backend.get("load_in_4bit"):
        return None
    if backend.get("auto_quantization") or backend.get("quantization") or backend.get("load_in_8bit"):
        return "int8"
    if quantization:
        return "int8" if isinstance(quantization, dict) and quantization.get("load_in_8bit") else None
    dtype = backend.get("torch_dtype") or backend.get("dtype")
    if dtype is None and backend.get("name") in LOADS_FP32:
        return "fp16" if backend.get("half") else "fp32"
    return DTYPES.get(str(dtype))


def _runtime(backend: dict[str, Any]) -> str:
    """The backend, with what was configured beside its defaults: ``eager-sdpa``, ``compile``, ``onnxruntime-O2``."""
    name = str(backend.get("name"))
    if name == "pytorch":
        name = "compile" if backend.get("torch_compile") else "eager"
    parts = [str(backend[option]) for option in VARIANTS if backend.get(option)]
    parts += ["deepspeed"] if backend.get("deepspeed_inference") else []
    if "Tensorrt" in str(backend.get("provider")):
        parts.append("tensorrt")
    return "-".join([name, *parts])


def _device(config: dict[str, Any]) -> str | None:
    device = part_of(config, "backend").get("device")
    if device == "cuda" and any("AMD" in name or "Advanced Micro" in name for name in _gpus(config)):
        return "rocm:0"
    return DEVICES.get(str(device), device)


def _gpus(config: dict[str, Any]) -> list[str]:
    names = part_of(config, "environment").get("gpu")
    return [str(name) for name in names] if isinstance(names, list) else [names] if isinstance(names, str) else []


def _device_name(config: dict[str, Any]) -> str | None:
    backend = part_of(config, "backend")
    if backend.get("device") == "cpu":
        return str(part_of(config, "environment").get("cpu") or "").strip() or None
    names = _gpus(config)
    first = str(backend.get("device_ids") or "0").split(",")[0].strip()
    index = int(first) if first.isdigit() else 0
    return names[index] if index < len(names) else None


def _origin(file: File, config: dict[str, Any], cell: Cell, device_name: str | None) -> Origin:
    backend, scenario, found = (part_of(config, name) for name in ("backend", "scenario", "environment"))
    software = {
        key.removesuffix("_version").replace("_", "-"): str(value)
        for key, value in found.items()
        if key.endswith("_version") and value
    }
    if backend.get("version"):
        software["torch" if backend.get("name") == "pytorch" else str(backend.get("name"))] = str(backend["version"])
    machine: dict[str, Any] = {}
    if isinstance(found.get("cpu"), str):
        machine["cpu"] = {"name": found["cpu"].strip(), "logical_cores": found.get("cpu_count")}
    if found.get("cpu_ram_mb"):
        machine["memory_bytes"] = round(positive(found["cpu_ram_mb"], "cpu_ram_mb") * 1e6)
    protocol = {
        "tool": "optimum-benchmark",
        "scenario": scenario.get("name"),
        "launcher": part_of(config, "launcher").get("name"),
    }
    protocol |= {name: scenario[name] for name in PROTOCOL if name in scenario}
    return Origin(
        source=f"optimum-benchmark results: {config.get('name') or file.path.name}",
        licence=None,
        environment=environment(
            "optimum-benchmark", device=cell.platform.device, device_name=device_name, software=software, **machine
        ),
        device_name=device_name,
        protocol=protocol,
    )
