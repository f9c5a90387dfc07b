"""``notebooks/config/web_audio_config.json``: which models to run in which browsers, and how to measure them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from labbench.cells import Cell, Frozen, Platform, Workload
from labbench.measure.protocol import PRESETS, Protocol, preset

BrowserName = Literal["chromium", "firefox", "webkitgtk"]
Provider = Literal["wasm", "webgpu", "webgpu-jsep", "webnn-cpu", "webnn-gpu", "webnn-npu"]
NATIVE = Platform(device="cpu", runtime="onnxruntime")  # what browsers are held against
# A round is a question to the browser, which costs hundredths of a second; nobody waits for a page as long as for a compiler.
CHANGES: dict[str, Any] = {"round_s": 0.1, "prepare_timeout_s": 180.0, "call_timeout_s": 60.0}


class WebConfig(Frozen):
    """Browsers × providers × models × chunk lengths (notebook ``13_web_audio``, ``labbench web run``)."""

    browsers: list[BrowserName] = Field(["chromium", "firefox", "webkitgtk"], min_length=1)
    providers: list[Provider] = Field(["wasm", "webgpu", "webnn-cpu", "webnn-gpu", "webnn-npu"], min_length=1)
    threads: list[int | Literal["all"]] = Field([1, "all"], min_length=1, description="of wasm; all: physical cores")
    models: list[str] = Field(["kws-small", "whisper-micro-decoder", "wav2vec2-tiny"], min_length=1)
    audio_s: list[float] | None = Field(
        None, min_length=1, description="chunk lengths, seconds; null: each model's own"
    )
    native: bool = Field(True, description="time native onnxruntime in turn with each browser")
    protocol: str = Field("quick", description=f"a preset: {', '.join(PRESETS)}")
    protocol_changes: dict[str, Any] = Field(CHANGES, description="single fields of the preset, changed")

    def make_protocol(self) -> Protocol:
        """The preset with its changes."""
        return preset(self.protocol, **self.protocol_changes)

    def cells(self) -> list[Cell]:
        """Every cell once: browser by browser, what needs no GPU first.

        Raises
        ------
        ConfigError
            For an unknown model, naming the nearest known one.
        """
        cells = [
            Cell(workload=workload, platform=Platform(device=browser, runtime=provider, threads=threads))
            for browser in self.browsers
            for provider in sorted(self.providers, key=lambda name: name != "wasm")
            for workload in self._workloads()
            for threads in (self._threads() if provider == "wasm" else [None])
        ]
        return list({cell.id: cell for cell in cells}.values())

    def _threads(self) -> list[int]:
        from labbench.machine import physical_cores

        return list(dict.fromkeys(physical_cores() if one == "all" else one for one in self.threads))

    def _workloads(self) -> list[Workload]:
        from labbench.web.families import find

        models = [find(name) for name in self.models]
        return [
            Workload(model=model.name, task=model.task, audio_s=seconds)
            for model in models
            for seconds in (self.audio_s or [model.audio_s])
        ]


def native_cell(cell: Cell) -> Cell:
    """The same work on native onnxruntime, with the threads that the cell may use."""
    return cell.model_copy(update={"platform": NATIVE.model_copy(update={"threads": threads_of(cell)})})


def threads_of(cell: Cell) -> int:
    """CPU threads of a cell: those it names, or every physical core for a provider that is not the CPU's."""
    from labbench.machine import physical_cores

    return cell.platform.threads or physical_cores()
