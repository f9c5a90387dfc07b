"""Runtimes by name; a user's own come in through :func:`register` or the entry point group ``labbench.runtimes``."""

from __future__ import annotations

import importlib
from functools import cache
from importlib.metadata import entry_points

from labbench.registry import Registry
from labbench.runtimes.base import Prepared, Runtime, Unsupported
from labbench.runtimes.devices import device_name, torch_device

__all__ = [
    "Prepared",
    "Runtime",
    "Unsupported",
    "device_name",
    "get",
    "names",
    "pack",
    "register",
    "torch_device",
    "version",
]

_BUILT_IN = {
    "eager": "labbench.runtimes.eager:Eager",
    "compile": "labbench.runtimes.compile:Compile",
    "onnxruntime": "labbench.runtimes.ort:OnnxRuntime",
    "openvino": "labbench.runtimes.ov:OpenVino",
}
_REGISTERED: Registry[Runtime] = Registry("runtime")
GROUP = "labbench.runtimes"


def register(runtime: Runtime) -> None:
    """Make a runtime known under its name, here and to the workers of its cells, as :func:`labbench.zoo.register` does."""
    _REGISTERED[runtime.name] = runtime


def pack(name: str) -> bytes | None:
    """A runtime pickled for a worker; None if workers know it. Raises ConfigError if it cannot be pickled."""
    return _REGISTERED.pack(name)


def version(name: str) -> str | None:
    """What a user's runtime is, beyond its name; None if it is built in (see :func:`labbench.zoo.version`)."""
    return _REGISTERED.version(name)


@cache
def _entry_points() -> dict[str, str]:
    return {point.name: point.value for point in entry_points(group=GROUP)}


def names() -> list[str]:
    """Every runtime that can be asked for, present here or not."""
    return [*_BUILT_IN, *(name for name in {**_entry_points(), **_REGISTERED} if name not in _BUILT_IN)]


def get(name: str) -> Runtime:
    """The runtime of that name.

    Raises
    ------
    ConfigError
        If there is none, naming the nearest known one.
    """
    from labbench.config import unknown_name

    if name in _REGISTERED:
        return _REGISTERED[name]
    target = _BUILT_IN.get(name) or _entry_points().get(name)
    if target is None:
        raise unknown_name("runtime", name, names())
    module, _, attribute = target.partition(":")
    found: type[Runtime] = getattr(importlib.import_module(module), attribute)
    return found()
