"""Did the browser run what the record will say it ran? From the page's answer to ``open`` to a status, or ``ok``.

The page asks the runtime for exactly one provider and forbids it to place anything on the CPU; hooks around the browser's own
interfaces, set before the runtime loads, count what reached the GPU, WebNN and how many workers there are. A label is true only
if both agree. Everything else is ``unsupported`` or ``failed``, in the browser's own words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from labbench.records import Status

# What engines, Emscripten, the runtime and Dawn say when memory ends.
OUT_OF_MEMORY = re.compile(
    r"out of ?memory|allocation failed|bad_alloc|aborted\(oom\)|cannot enlarge memory|could not allocate|"
    r"failed to allocate|invalid (typed )?array (buffer )?length|memory\.grow|allocation size overflow|\boom\b",
    re.IGNORECASE,
)
NO_CPU = "fallback to CPU EP has been explicitly disabled"  # the runtime, where a node would be left for the CPU
# The runtime, where the provider that was asked for cannot be had or is not in this build of it.
UNAVAILABLE = ("no available backend found", "backend not found", "Failed to get GPU adapter", "WebNN is not supported")
TRAP = "RuntimeError"  # of WebAssembly: a provider that is there, and broke; the runtime calls that no available backend too
SOFTWARE = "software"  # in a device's name: not a GPU, whatever the interface


@dataclass(frozen=True)
class Verdict:
    """What a cell's record may say.

    Attributes
    ----------
    status : str
        As in a record.
    reason : str or None
        Why it is not ``ok``.
    stage : str or None
        Where it ended.
    device_name : str or None
        The adapter, with ``(software)`` behind it if it is none of hardware; None on the CPU.
    """

    status: Status
    reason: str | None = None
    stage: str | None = None
    device_name: str | None = None


def judge(opened: Mapping[str, Any], provider: str, threads: int = 1) -> Verdict:
    """What came of opening a session with this provider and so many threads (page/bench.js, ``open``)."""
    if opened.get("provider") != provider:
        raise ValueError(f"asked for {provider}, and the page answers about {opened.get('provider')}")
    name = device_name(opened.get("adapter"))
    error = opened.get("error")
    if error is not None:
        return Verdict(*_of_error(error, opened, provider), error["stage"], name)
    wrong = _wrong_label(opened, provider, threads)
    return Verdict("unsupported", wrong, "first run", name) if wrong else Verdict("ok", device_name=name)


def device_name(adapter: Mapping[str, Any] | None) -> str | None:
    """What an adapter calls itself, and whether it is none."""
    if adapter is None:
        return None
    return f"{adapter['name']} ({SOFTWARE})" if adapter["software"] else str(adapter["name"])


def out_of_memory(words: str) -> bool:
    """Whether these are the words of something that got no memory."""
    return OUT_OF_MEMORY.search(words) is not None


def _of_error(error: Mapping[str, Any], opened: Mapping[str, Any], provider: str) -> tuple[Status, str]:
    words = str(error["message"]).strip() or str(error["name"])
    if error["stage"] == "api":
        return "unsupported", words
    if out_of_memory(f"{error['name']}: {words}"):
        return "out_of_memory", words
    if NO_CPU in words:
        return "unsupported", _left_for_cpu(opened.get("placement"), provider)
    if TRAP not in words and any(one.lower() in words.lower() for one in UNAVAILABLE):
        return "unsupported", words
    return "failed", f"{error['stage']}: {words}"


def _left_for_cpu(placement: Mapping[str, Any] | None, provider: str) -> str:
    if not placement:
        return f"onnxruntime-web would run part of the model on the CPU instead of {provider}"
    nodes = placement["nodes"]
    kinds = f" ({', '.join(placement['cpu_operators'])})" if placement.get("cpu_operators") else ""
    return (
        f"onnxruntime-web would run {nodes.get('CPU', 0)} of {sum(nodes.values())} operators{kinds} on the CPU "
        f"instead of {provider}"
    )


def _wrong_label(opened: Mapping[str, Any], provider: str, threads: int) -> str | None:
    """What ran, if it is not what was asked for."""
    counts = opened["counts"]
    gpu, webnn = counts["dispatches"], counts["webnn"]
    if provider.startswith("webgpu") and not gpu:
        return "the model ran, but the GPU was given no work: it ran on wasm instead of WebGPU"
    if provider.startswith("webnn") and not webnn:
        return "the model ran, but WebNN was given no work: it ran on wasm instead"
    if provider == "wasm" and (gpu or webnn):
        return f"asked for wasm, and {gpu} dispatches went to the GPU, {webnn} to WebNN"
    told = opened["threads"]
    if provider == "wasm" and (told["used"] != threads or told["workers"] < threads - 1):
        return f"asked for {threads} threads, and onnxruntime-web runs on {told['used']} with {told['workers']} workers"
    return None
