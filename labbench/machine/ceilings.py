"""What this machine can do at best, measured: matrix products per precision, memory bandwidth, dispatch overhead.

A measurement that other work disturbed is kept, but not trusted: the next campaign measures again, a few times at most, and the
better of both counts, for a ceiling is what the machine does when it is left alone.

Run as ``python -m labbench.machine.ceilings DEVICE THREADS`` in a process of its own, it prints one JSON object.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

BUDGET_S = 12.0  # shared by all measurements; with start-up the whole stays under 15 s
MATRIX = 1536  # side of the square product: past the size at which CPUs and GPUs reach their rate
STREAM_BYTES = 256 * 2**20  # per array: many times any last-level cache share
SMALL = 16  # elements: an operator whose cost is its dispatch
LEAST_REPEATS = 5
BEST_DECILE = 8  # index of the 90th percentile: single lucky readings do not count
MAX_ATTEMPTS = 4  # on a machine that is never quiet, the best of so many measurements is final


def measured(device: str = "cpu", threads: int | None = None, *, refresh: bool = False) -> dict[str, Any]:
    """Ceilings of a device, from the cache of this user or measured now in a fresh process.

    Returns
    -------
    dict
        ``gemm_flops`` (precision to FLOP/s), ``bandwidth_bytes_s``, ``dispatch_s``, ``threads``, ``spread`` (relative
        interquartile range of each), ``quiet`` (whether nothing disturbed it), ``disturbed_by`` (what did) and
        ``attempts`` (measurements that the figures are the best of).

    Raises
    ------
    RuntimeError
        If the measuring process failed; the message has its last words.
    """
    from labbench.machine.detect import detect, machine_id, physical_cores, software
    from labbench.manifest import write_json

    threads = threads or physical_cores()
    key = f"{machine_id(detect())}-{software().get('torch')}-{device.replace(':', '')}-{threads}"
    path = cache_folder() / f"ceilings-{key}.json"
    before = None if refresh else _cached(path)
    if before and (before["quiet"] or before["attempts"] >= MAX_ATTEMPTS):
        return before
    command = [sys.executable, "-m", "labbench.machine.ceilings", device, str(threads)]
    run = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": str(threads)})
    if run.returncode:
        raise RuntimeError(f"measuring the ceilings of {device} failed: {run.stderr.strip()[-500:]}")
    found = better_of(json.loads(run.stdout), before)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, found)
    return found


def _cached(path: Path) -> dict[str, Any] | None:
    """An earlier measurement, unless there is none or its file is damaged or older than the format."""
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found if {"quiet", "attempts"} <= set(found) else None


def better_of(new: dict[str, Any], before: dict[str, Any] | None) -> dict[str, Any]:
    """The better of two measurements, figure by figure; quiet if one of them was."""
    if before is None:
        return new
    rates = before["gemm_flops"]
    return {
        **new,
        "gemm_flops": {name: max(rate, rates.get(name, 0.0)) for name, rate in new["gemm_flops"].items()},
        "bandwidth_bytes_s": max(new["bandwidth_bytes_s"], before["bandwidth_bytes_s"]),
        "dispatch_s": min(new["dispatch_s"], before["dispatch_s"]),
        "attempts": new["attempts"] + before["attempts"],
    }


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/labbench``, or ``~/.cache/labbench``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "labbench"


def _times(call: Callable[[], Any], wait: Callable[[], None], budget_s: float) -> list[float]:
    """Seconds of single calls, for ``budget_s`` and at least ``LEAST_REPEATS`` times, after two untimed ones."""
    for _ in range(2):
        call()
    wait()
    times: list[float] = []
    end = time.perf_counter() + budget_s
    while len(times) < LEAST_REPEATS or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        wait()
        times.append(time.perf_counter() - start)
    return times


def _measure(device: str, threads: int) -> dict[str, Any]:
    import torch

    from labbench.measure.noise import NoiseProbe, verdict
    from labbench.runtimes.devices import torch_device

    place = torch_device(device)
    torch.set_num_threads(threads)
    wait = (lambda: None) if place.type == "cpu" else (lambda: torch.accelerator.synchronize(place))
    precisions = {"fp32": torch.float32, "bf16": torch.bfloat16}
    if place.type != "cpu":
        precisions["fp16"] = torch.float16
    share = BUDGET_S / (len(precisions) + 2)
    rates: dict[str, list[float]] = {}
    probe = NoiseProbe()
    probe.start()
    with torch.inference_mode():
        for name, dtype in precisions.items():
            a, b = (torch.randn(MATRIX, MATRIX, device=place).to(dtype) for _ in range(2))
            pixels, kernel = (
                a.T.reshape(1, MATRIX, MATRIX, 1).contiguous(),
                b.T.reshape(MATRIX, MATRIX, 1, 1).contiguous(),
            )
            # The same product by two libraries (BLAS; oneDNN or cuDNN): the better one is the ceiling.
            products = (partial(torch.mm, a, b), partial(torch.conv2d, pixels, kernel))
            times = min((_times(product, wait, share / 2) for product in products), key=statistics.median)
            rates[name] = [2 * MATRIX**3 / s for s in times]
        source = torch.randn(STREAM_BYTES // 4, device=place)
        target = torch.empty_like(source)
        copies = _times(lambda: target.copy_(source), wait, share)
        small = torch.ones(SMALL, device=place)
        dispatch = _times(lambda: [small.add(1) for _ in range(1000)], wait, share)
    samples = {**rates, "bandwidth": [2 * STREAM_BYTES / s for s in copies], "dispatch": [s / 1000 for s in dispatch]}
    best = {name: statistics.quantiles(values, n=10)[BEST_DECILE] for name, values in samples.items()}
    best["dispatch"] = statistics.quantiles(samples["dispatch"], n=10)[-1 - BEST_DECILE]
    spread = {name: _relative_iqr(values) for name, values in samples.items()}
    noise = verdict(probe.stop(), iqr_relative=0.0)  # spread does not count: the figures are best deciles
    return {
        "device": device,
        "threads": threads,
        "gemm_flops": {name: best[name] for name in rates},
        "bandwidth_bytes_s": best["bandwidth"],
        "dispatch_s": best["dispatch"],
        "spread": spread,
        "quiet": noise.verdict == "quiet",
        "disturbed_by": noise.reasons,
        "attempts": 1,
    }


def _relative_iqr(values: list[float]) -> float:
    low, middle, high = statistics.quantiles(values, n=4)
    return (high - low) / middle


if __name__ == "__main__":
    print(json.dumps(_measure(sys.argv[1], int(sys.argv[2]))))
