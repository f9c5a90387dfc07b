"""What users register, families and runtimes alike, by name; and how a worker comes to know it.

A worker loads plugins and entry points itself. What a script or a notebook cell registers by a call is known in that
process alone: it is pickled by value, code included, and goes to the worker with its job.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import pickle
import sys
import types
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")

# The plugin or entry point being loaded, and its version; None outside of one.
_ORIGIN: ContextVar[str | None] = ContextVar("origin", default=None)


@contextlib.contextmanager
def loading(origin: str) -> Iterator[None]:
    """Whatever is registered inside comes from ``origin`` (a name with a version), which workers load too."""
    token = _ORIGIN.set(origin)
    try:
        yield
    finally:
        _ORIGIN.reset(token)


class Registry(dict[str, T]):
    """Registered things by name.

    Parameters
    ----------
    kind : str
        What they are, for people: ``model`` or ``runtime``.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self._origins: dict[str, str | None] = {}

    def __setitem__(self, name: str, item: T) -> None:
        super().__setitem__(name, item)
        self._origins[name] = _ORIGIN.get()

    def pack(self, name: str) -> bytes | None:
        """The thing of that name, for a worker to ``pickle.loads``; None if a worker knows it anyway.

        Raises
        ------
        ConfigError
            If it cannot be pickled.
        """
        return self._pickled(name, _by_value) if name in self and self._origins[name] is None else None

    def version(self, name: str) -> str | None:
        """A text that changes when the definition does: of the plugin or entry point, or else of the code; None if built in.

        It may also change when the definition does not (another order of a set, say): a cell is then measured once more.
        """
        if name not in self:
            return None
        return self._origins[name] or hashlib.sha256(self._pickled(name, _canonical)).hexdigest()[:16]

    def _pickled(self, name: str, dumps: Any) -> bytes:
        from labbench.config import ConfigError

        try:
            found: bytes = dumps(self[name])
        except Exception as error:  # whatever the user's objects raise
            raise ConfigError(
                f"{self.kind} {name!r} cannot be sent to a worker process: {type(error).__name__}: {error}; register it in a "
                f"plugin file, which workers load themselves: labbench.zoo.load_plugins(['my_{self.kind}.py'])"
            ) from error
        return found


def _by_value(item: Any) -> bytes:
    import cloudpickle

    packed: bytes = cloudpickle.dumps(item)
    return packed


def _canonical(item: Any) -> bytes:
    """Like :func:`_by_value`, but the same for the same code wherever it stands: for comparison, not for loading."""
    import cloudpickle

    class Canonical(cloudpickle.Pickler):
        def reducer_override(self, item: Any) -> Any:
            if isinstance(item, types.CodeType):  # without file name and line numbers
                return tuple, ((item.co_code, item.co_consts, item.co_names, item.co_varnames, item.co_freevars),)
            if "torch" in sys.modules and isinstance(item, sys.modules["torch"].Tensor):  # speed ignores the values
                return tuple, ((str(item.dtype), tuple(item.shape)),)
            reduced = super().reducer_override(item)
            if isinstance(item, type) and isinstance(reduced, tuple) and len(reduced) > 2:  # without the random id
                state = {key: value for key, value in reduced[2][0].items() if key != "__firstlineno__"}
                return tuple, ((item.__qualname__, item.__bases__),), state
            return reduced

    stream = io.BytesIO()
    Canonical(stream, protocol=pickle.DEFAULT_PROTOCOL).dump(item)
    return stream.getvalue()
