"""Read and check configuration: a mistake is refused before anything runs, with the nearest known name."""

from __future__ import annotations

import difflib
import json
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

ModelT = TypeVar("ModelT", bound=BaseModel)


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names the place, the reason and the way out."""


def nearest(name: str, known: Iterable[str]) -> str:
    """``"did you mean 'x'?"`` for the closest known name, else the list of known names."""
    names = sorted(str(item) for item in known)
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"


def unknown_name(kind: str, name: str, known: Iterable[str]) -> ConfigError:
    """The error for a name that is not known: says what kind of name, and the nearest known one."""
    return ConfigError(f"unknown {kind} {name!r}; {nearest(name, known)}")


def require_known(kind: str, given: Iterable[str] | None, known: Iterable[str]) -> None:
    """Raises ConfigError, naming the nearest known one, for the first of the names given that is not known."""
    known = list(known)
    for name in given or ():
        if name not in known:
            raise unknown_name(kind, name, known)


def parse(model: type[ModelT], data: Any, source: str) -> ModelT:
    """Validate ``data`` against ``model``.

    Raises
    ------
    ConfigError
        Listing every mistake with its place in ``source`` and, for unknown names, the nearest known one.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        lines = [_explain(model, item) for item in error.errors()]
        raise ConfigError(f"{source}: " + "; ".join(lines)) from None


def read(model: type[ModelT], path: str | Path) -> ModelT:
    """Read a JSON file and validate it against ``model``; raises :class:`ConfigError` as :func:`parse` does."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read configuration {path}: {error.strerror}") from None
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}:{error.lineno}: not valid JSON ({error.msg})") from None
    return parse(model, data, str(path))


def _explain(model: type[BaseModel], item: Any) -> str:
    place = ".".join(str(part) for part in item["loc"]) or "configuration"
    if item["type"] == "extra_forbidden":
        owner = _model_at(model, item["loc"][:-1])
        known = list(owner.model_fields) if owner else []
        return f"{place}: unknown key; {nearest(str(item['loc'][-1]), known)}"
    if item["type"] == "literal_error":
        allowed = [str(value) for value in _literals(model, item["loc"])]
        return f"{place}: unknown value {item['input']!r}; {nearest(str(item['input']), allowed)}"
    if item["type"] == "value_error":
        return str(item["ctx"]["error"])
    return f"{place}: {item['msg']} (got {item['input']!r})"


def _unwrap(annotation: Any) -> Any:
    """The inner type of ``X | None`` and ``list[X]``."""
    while get_origin(annotation) in (Union, types.UnionType, list, tuple):
        annotation = next(arg for arg in get_args(annotation) if arg is not type(None))
    return annotation


def _model_at(model: type[BaseModel], loc: tuple[Any, ...]) -> type[BaseModel] | None:
    for part in loc:
        if isinstance(part, int):
            continue
        field = model.model_fields.get(part)
        inner = _unwrap(field.annotation) if field else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return None
        model = inner
    return model


def _literals(model: type[BaseModel], loc: tuple[Any, ...]) -> tuple[Any, ...]:
    names = [part for part in loc if not isinstance(part, int)]  # a place in a list has its field's values
    owner = _model_at(model, tuple(names[:-1]))
    annotation = _unwrap(owner.model_fields[names[-1]].annotation) if owner else None
    return get_args(annotation) if get_origin(annotation) is Literal else ()
