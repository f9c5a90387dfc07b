"""What can be measured: a :class:`Workload` on a :class:`Platform` is a :class:`Cell`; a :class:`Grid` declares many.

Nothing here runs anything or imports a framework. Identities are derived from content, so the same cell has the
same id on every machine, in every Python version, for ever: fields left at ``None`` do not enter the id, which lets
later versions add optional fields without renaming a single stored cell.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Mode = Literal["inference", "training"]
Precision = Literal["fp32", "bf16", "fp16", "int8", "amp"]  # amp: fp32 weights, products in half precision (autocast)
MemoryFormat = Literal["channels_last"]
Optimizer = Literal["sgd", "adamw", "adamw_foreach", "adamw_fused", "adafactor"]
Trained = Literal["head", "lora"]

BROWSERS = ("chromium", "firefox", "webkitgtk")  # devices that labbench.web drives

ID_LENGTH = 16  # hex digits: 64 bits, a collision among a million cells has probability 3e-8


class Frozen(BaseModel):
    """A value object: immutable, hashable by content, refuses unknown keys and non-finite numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, ser_json_inf_nan="constants")


def content_id(payload: Any, length: int = ID_LENGTH) -> str:
    """Stable id of a JSON-able value: SHA-256 of its canonical JSON, first 16 hex digits (or ``length``)."""
    canonical = json.dumps(payload, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:length]


class Workload(Frozen):
    """What runs: a model, its task and mode, and the size of its input.

    A shape field that the model does not use stays ``None``; one that it uses and that was not given is filled in
    with the model's default by :func:`labbench.zoo.resolve` before the cell is run or stored.
    """

    model: str = Field(description="name in the zoo, e.g. 'bert-base'")
    task: str | None = Field(None, description="what the model is asked to do, e.g. 'fill-mask'")
    mode: Mode = Field("inference", description="inference, or one optimizer step of training")
    batch_size: int = Field(1, ge=1, description="samples in one call")
    precision: Precision = Field("fp32", description="numeric format of the computation")
    seq_len: int | None = Field(None, ge=1, description="tokens of text in a sample")
    image_size: int | None = Field(None, ge=1, description="pixels along each side of a square image")
    frames: int | None = Field(None, ge=1, description="frames of a video clip")
    audio_s: float | None = Field(None, gt=0, description="seconds of audio in a sample")
    kv_cache: bool | None = Field(None, description="false: decode reads the whole context again; null: with a cache")
    optimizer: Optimizer | None = Field(None, description="training: what updates the parameters; null: adamw")
    accumulation: int | None = Field(
        None, ge=1, description="training: batches whose gradients one step adds up; null: 1"
    )
    checkpointing: bool | None = Field(
        None, description="training: true: activations are computed again in the backward pass instead of being kept"
    )
    trained: Trained | None = Field(
        None, description="training: head: all but the last part is frozen; lora: adapters only; null: everything"
    )
    clip_norm: float | None = Field(None, gt=0, description="training: largest norm of the gradient; null: any")

    @property
    def variant(self) -> str | None:
        """How it is trained, where that is not the plain way: ``sgd, 4 batches a step, checkpointing``; None if it is."""
        parts = (
            self.optimizer,
            self.accumulation and f"{self.accumulation} batches a step",
            self.checkpointing and "checkpointing",
            self.trained and {"head": "head only", "lora": "lora"}[self.trained],
            self.clip_norm and f"clipped at {self.clip_norm:g}",
        )
        return ", ".join(part for part in parts if part) or None

    @property
    def shape_label(self) -> str:
        """Compact input size, e.g. ``b8 s128`` (batch, tokens), ``b1 i224`` (pixels), ``b1 10s`` (audio)."""
        parts = [f"b{self.batch_size}"]
        for prefix, value in (("s", self.seq_len), ("i", self.image_size), ("f", self.frames)):
            if value is not None:
                parts.append(f"{prefix}{value}")
        if self.audio_s is not None:
            parts.append(f"{self.audio_s:g}s")
        if self.kv_cache is False:
            parts.append("uncached")
        return " ".join(parts)


class Platform(Frozen):
    """Where it runs: a device and a runtime on it. ``threads=None`` means every physical core of the machine."""

    device: str = Field("cpu", description="cpu, cuda:0, rocm:0, mps, xpu, or a browser")
    runtime: str = Field("eager", description="eager, compile, onnxruntime, openvino, wasm, webgpu, ...")
    threads: int | None = Field(None, ge=1, description="CPU threads; null: all physical cores")
    world_size: int = Field(1, ge=1, description="number of processes that share the work")
    memory_format: MemoryFormat | None = Field(None, description="layout of images and convolutions; null: NCHW")
    loader_workers: int | None = Field(
        None,
        ge=0,
        description="training: processes that make the batches; 0: the training process; null: they are at hand",
    )

    @property
    def label(self) -> str:
        """``device/runtime``, with threads, memory format, loader's workers and world size where they are not the default."""
        extra = f"·{self.threads}t" if self.threads else ""
        extra += f"·{self.memory_format}" if self.memory_format else ""
        extra += f"·{self.loader_workers}w" if self.loader_workers is not None else ""
        ranks = f"×{self.world_size}" if self.world_size > 1 else ""
        return f"{self.device}/{self.runtime}{extra}{ranks}"


class Cell(Frozen):
    """One square of the benchmark matrix: a workload on a platform.

    Examples
    --------
    >>> cell = Cell.of(model="bert-tiny", runtime="eager", batch_size=8)
    >>> cell.label
    'bert-tiny inference b8 fp32 on cpu/eager'
    """

    workload: Workload = Field(description="what runs")
    platform: Platform = Field(Platform(), description="where it runs")

    @classmethod
    def of(cls, **fields: Any) -> Cell:
        """Build a cell from flat fields; each goes to the workload or the platform that has it.

        Raises
        ------
        ConfigError
            For an unknown field or value, naming the nearest known one.
        """
        from labbench.config import parse, unknown_name

        parts: dict[str, dict[str, Any]] = {"workload": {}, "platform": {}}
        for key, value in fields.items():
            if key in Workload.model_fields:
                parts["workload"][key] = value
            elif key in Platform.model_fields:
                parts["platform"][key] = value
            else:
                raise unknown_name("cell field", key, CELL_FIELDS)
        return parse(cls, parts, "cell")

    @property
    def id(self) -> str:
        """Content-derived id, 16 hex digits."""
        payload = {
            "workload": self.workload.model_dump(exclude_none=True),
            "platform": self.platform.model_dump(exclude_none=True),
        }
        return content_id(payload)

    @property
    def command(self) -> str:
        """The command line that measures it; values that are the default are left out."""
        import shlex

        if elsewhere := self._command_of_ranks() or self._command_of_browser():
            return shlex.join(elsewhere)
        words = ["labbench", "run"]
        for name, value in self.flat().items():
            part = Workload if name in Workload.model_fields else Platform
            if value is not None and name not in ("task", "world_size") and value != part.model_fields[name].default:
                words += [f"--{name.replace('_', '-')}", str(value).lower() if isinstance(value, bool) else str(value)]
        return shlex.join(words)

    def _command_of_browser(self) -> list[str]:
        """Words of the command, if a browser measures it; else none."""
        work, platform = self.workload, self.platform
        if platform.device not in BROWSERS:
            return []
        live = work.task is not None and work.task.startswith("live")
        words = ["labbench", "web", "live" if live else "run", "--browser", platform.device]
        words += ["--provider", platform.runtime, "--model", work.model]
        words += ["--audio-s", f"{work.audio_s:g}"] if work.audio_s and not live else []
        return words + (["--threads", str(platform.threads)] if platform.threads else [])

    def _command_of_ranks(self) -> list[str]:
        """Words of the command, if ranks measure it together; else none."""
        work, ranks = self.workload, ["--ranks", str(self.platform.world_size)]
        if work.task == "collective":
            return ["labbench", "distributed", "collectives", *ranks, "--operation", work.model]
        if work.model.partition("-")[0] != RANKS_TRAIN or work.mode != "training":
            return []
        if work.task and work.task.startswith("fault-"):
            fault = ["--fault", work.task.removeprefix("fault-")]
            return ["labbench", "distributed", "faults", *ranks, "--strategy", self.platform.runtime, *fault]
        what = "correct" if work.task == "correctness" else "run"
        words = ["labbench", "distributed", what, *ranks, "--strategy", self.platform.runtime, "--model", work.model]
        if self.platform.runtime == "one":  # a single process is what scaling begins with
            words = ["labbench", "distributed", "scale", *ranks, "--model", work.model]
        return [*words, "--batch-size", str(work.batch_size), "--seq-len", str(work.seq_len)]

    @property
    def label(self) -> str:
        """One line for people: model, mode, input size, precision, platform."""
        work = self.workload
        variant = f" ({work.variant})" if work.variant else ""
        return f"{work.model} {work.mode} {work.shape_label} {work.precision}{variant} on {self.platform.label}"

    def flat(self) -> dict[str, Any]:
        """All fields of workload and platform in one flat dict."""
        return {**self.workload.model_dump(), **self.platform.model_dump()}

    def _repr_html_(self) -> str:
        return f"<code>{self.id}</code> {self.label}"


TRAINING_FIELDS = ("optimizer", "accumulation", "checkpointing", "trained", "clip_norm")  # what a variant consists of
RANKS_TRAIN = "decoder"  # the model of labbench.distributed.sizes; no family of the zoo is called so
CELL_FIELDS = (*Workload.model_fields, *Platform.model_fields)


class Grid(Frozen):
    """A declarative set of cells: the product of ``axes``, plus ``include``, minus ``exclude``.

    Attributes
    ----------
    axes : dict
        Cell field to a value or a list of values; the grid is their product, in the order written.
    include : list of dict
        Single further cells; fields not given take their defaults.
    exclude : list of dict
        Partial cells: a cell that agrees with every field of one of them is left out.
    """

    axes: dict[str, Any] = Field(default_factory=dict)
    include: list[dict[str, Any]] = Field(default_factory=list)
    exclude: list[dict[str, Any]] = Field(default_factory=list)

    @model_validator(mode="after")
    def _known_fields(self) -> Grid:
        from labbench.config import unknown_name

        for where in (self.axes, *self.include, *self.exclude):
            for key in where:
                if key not in CELL_FIELDS:
                    raise unknown_name("grid field", key, CELL_FIELDS)
        return self

    def cells(self) -> list[Cell]:
        """Every cell once, in a stable order.

        Raises
        ------
        ConfigError
            If a field has a value that no cell can have.
        """
        candidates = (Cell.of(**fields) for fields in itertools.chain(self._product(), self.include))
        unique = {cell.id: cell for cell in candidates}
        return [cell for cell in unique.values() if not any(_matches(cell, rule) for rule in self.exclude)]

    def _product(self) -> Iterator[dict[str, Any]]:
        if not self.axes:
            return
        values = [value if isinstance(value, list) else [value] for value in self.axes.values()]
        for combination in itertools.product(*values):
            yield dict(zip(self.axes, combination, strict=True))


def _matches(cell: Cell, rule: dict[str, Any]) -> bool:
    flat = cell.flat()
    return all(flat[key] in (value if isinstance(value, list) else [value]) for key, value in rule.items())


def by_workload(cells: Iterable[Cell]) -> list[list[Cell]]:
    """Cells grouped by what runs, whatever the precision, cache, training variant or platform: those a reader will compare."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        key = content_id(
            cell.workload.model_dump(exclude={"precision", "kv_cache", *TRAINING_FIELDS}, exclude_none=True)
        )
        groups.setdefault(key, []).append(cell)
    return list(groups.values())
