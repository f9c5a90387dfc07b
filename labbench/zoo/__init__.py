"""The zoo: model families by name. Listing it imports neither torch nor transformers.

A model is called ``{family}-{size}``. The published sizes keep the names people know; the smallest of every family is made
here, runs in milliseconds and is called ``tiny``, or ``micro`` where a published ``tiny`` exists (Whisper, ConvNeXt).
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from importlib.machinery import ModuleSpec
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labbench.registry import Registry, loading
from labbench.zoo.base import Family, Model, Program, Size
from labbench.zoo.own import register_config_dir, register_module

if TYPE_CHECKING:
    from labbench.cells import Workload

__all__ = [
    "Family", "Model", "Program", "Size", "build", "families", "family_of", "load_plugins", "models", "pack",
    "plugins", "register", "register_config_dir", "register_module", "resolve", "smallest", "version",
]  # fmt: skip

BUILT_IN = ("text", "vision", "audio", "multimodal")
GROUP = "labbench.families"  # entry points: each a Family, or a function that registers some
SHAPE_FIELDS = ("seq_len", "image_size", "frames", "audio_s")

_REGISTERED: Registry[Family] = Registry("model")
_PLUGINS: list[str] = []


@cache
def _built_in() -> dict[str, Family]:
    modules = [importlib.import_module(f"labbench.zoo.{name}") for name in BUILT_IN]
    return {family.name: family for module in modules for family in module.FAMILIES}


@cache
def _load_entry_points() -> None:
    for point in entry_points(group=GROUP):
        with loading(f"{point.dist.name} {point.dist.version}" if point.dist else point.value):
            found = point.load()
            if isinstance(found, Family):
                register(found)
            else:
                found()


def families() -> dict[str, Family]:
    """Every family by name: built in, from entry points, and registered."""
    _load_entry_points()
    return {**_built_in(), **_REGISTERED}


def models() -> list[str]:
    """Every model name, smallest first within a family."""
    return [_name(family, size) for family in families().values() for size in family.sizes]


def smallest(family: str) -> str:
    """The model of a family that is made for tests."""
    found = families()[family]
    return _name(found, next(iter(found.sizes)))


def _name(family: Family, size: str) -> str:
    return f"{family.name}-{size}" if size else family.name


def register(family: Family) -> None:
    """Make a family known, here and to the workers of its cells (to which it goes by value, see :mod:`labbench.registry`)."""
    _REGISTERED[family.name] = family


def pack(model: str) -> bytes | None:
    """The family of a model, pickled for a worker; None if workers know it. Raises ConfigError if it cannot be pickled."""
    return _REGISTERED.pack(family_of(model).name)


def version(model: str) -> str | None:
    """What a user's model is, beyond its name: another text for another definition. None if it is built in."""
    return _REGISTERED.version(family_of(model).name)


def plugins() -> list[str]:
    """The plugins loaded here, for workers to load too."""
    return list(_PLUGINS)


def load_plugins(names: Iterable[str]) -> None:
    """Import Python files or modules that register families or runtimes; each once.

    Raises
    ------
    ConfigError
        If one is not there.
    """
    from labbench.config import ConfigError

    for name in names:
        path = Path(name)
        key = str(path.resolve()) if path.suffix == ".py" else name
        if key in _PLUGINS:
            continue
        if path.suffix == ".py":
            if not path.exists():
                raise ConfigError(f"no plugin file {name}")
            spec = importlib.util.spec_from_file_location(f"labbench_plugin_{path.stem}", path)
            assert spec is not None
            assert spec.loader is not None
            with loading(_content(spec)):
                module = importlib.util.module_from_spec(spec)
                sys.modules[spec.name] = module
                spec.loader.exec_module(module)
        elif (spec := importlib.util.find_spec(name)) is None:
            raise ConfigError(f"no plugin module {name!r}: give a module that can be imported, or a .py file")
        else:
            with loading(_content(spec)):
                importlib.import_module(name)
        _PLUGINS.append(key)


def _content(spec: ModuleSpec) -> str:
    """A plugin's name and the SHA-256 of its file; files that it imports do not count."""
    content = Path(spec.origin).read_bytes() if spec.origin and spec.has_location else b""
    return f"{spec.name} {hashlib.sha256(content).hexdigest()[:16]}"


def _find(model: str) -> tuple[Family, Size]:
    from labbench.config import unknown_name
    from labbench.zoo import made

    for family in (*families().values(), made.FAMILY):
        for name, size in family.sizes.items():
            if model == _name(family, name):
                return family, size
    raise unknown_name("model", model, models())


def family_of(model: str) -> Family:
    """The family that a model belongs to; raises ConfigError for an unknown model, naming the nearest one."""
    return _find(model)[0]


def is_built_in(model: str) -> bool:
    """Whether a model's family is labbench's own, and no plugin has put another in its place."""
    from labbench.zoo import made

    family = family_of(model)
    return {**_built_in(), made.FAMILY.name: made.FAMILY}.get(family.name) is family


def resolve(workload: Workload) -> Workload:
    """The workload with task and input shape filled in.

    Raises
    ------
    ConfigError
        For an unknown model (with the nearest known one), or a shape field that it does not use.
    """
    from labbench.config import ConfigError

    family = family_of(workload.model)
    given = {name: getattr(workload, name) for name in SHAPE_FIELDS if getattr(workload, name) is not None}
    if useless := set(given) - set(family.shape):
        used = ", ".join(family.shape) or "no shape field"
        raise ConfigError(f"{workload.model} has no {', '.join(sorted(useless))}; it uses {used}")
    changes: dict[str, Any] = {"task": workload.task or family.task, **family.shape, **given}
    changes["kv_cache"] = workload.kv_cache and None  # with a cache is the default, and needs no second name
    changes |= _training(workload)
    return workload.model_copy(update=changes)


def _training(workload: Workload) -> dict[str, Any]:
    """How the workload is trained; what is the default gets no second name."""
    from labbench.cells import TRAINING_FIELDS
    from labbench.config import ConfigError

    given = {name: getattr(workload, name) for name in TRAINING_FIELDS if getattr(workload, name) is not None}
    if given and workload.mode != "training":
        raise ConfigError(f"{', '.join(given)} belong{'s' * (len(given) == 1)} to training; say --mode training")
    plain = {"optimizer": "adamw", "accumulation": 1, "checkpointing": False}
    return {name: None for name, value in given.items() if value == plain.get(name)}


def build(workload: Workload, seed: int = 0) -> Model:
    """Build a resolved workload's model, on the CPU in fp32: the same seed gives the same weights and inputs."""
    import torch

    family, size = _find(workload.model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = family.build(size, workload)
    if workload.kv_cache is False:
        model = _without_cache(model, workload)
    model.module.requires_grad_(workload.mode == "training")
    return model


def _without_cache(model: Model, workload: Workload) -> Model:
    """The model with a ``decode`` that reads the whole context again."""
    from labbench.runtimes.base import Unsupported

    if model.uncached is None:
        raise Unsupported(f"{workload.model} does not generate with a KV cache, so it cannot do without one")
    programs = [program for program in model.programs if program.name != "decode"]
    return replace(model, programs=(*programs, model.uncached))
