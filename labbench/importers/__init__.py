"""Results of other tools as records: :func:`read_foreign` reads a file or a folder of any of the ``FORMATS``.

::

    file or folder ──> which format? ──> one small module a format ──> Import: records, environments, what was skipped

An imported record has provenance ``imported``, a source and, where the source publishes one, a licence. What the source does not
tell stays null. Its id is derived from its content, so importing the same file twice gives the same records.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labbench.config import ConfigError, unknown_name
from labbench.importers import neusight, optimum, pyperf, timm, web
from labbench.importers.base import File, Import, Skipped, Unreadable, identified

__all__ = ["FORMATS", "Format", "Import", "Skipped", "Unreadable", "identified", "read_foreign"]


@dataclass(frozen=True)
class Format:
    """A format that can be imported.

    Attributes
    ----------
    about : str
        What it is, in a few words, for messages.
    recognises : callable
        Whether a file is of the format; may raise :class:`Unreadable`.
    read : callable
        Adds a file's records to an :class:`Import`.
    options : tuple of str
        What the caller may tell ``read`` beside the file.
    """

    about: str
    recognises: Callable[[File], bool]
    read: Callable[..., None]
    options: tuple[str, ...] = ()


FORMATS = {
    "timm": Format("timm's benchmark-….csv", timm.recognises, timm.read),
    "neusight": Format("NeuSight's end_to_end.csv", neusight.recognises, neusight.read),
    "optimum-benchmark": Format(
        "optimum-benchmark's benchmark.json or benchmark_report.json", optimum.recognises, optimum.read, optimum.OPTIONS
    ),
    "pyperf": Format("pyperf's JSON", pyperf.recognises, pyperf.read),
    "labbench-web": Format("what the page of `labbench web serve` saves", web.recognises, web.read),
}
KNOWN = "known are " + "; ".join(f"{name}: {one.about}" for name, one in FORMATS.items())
FEW = 10  # reasons in the error about a folder without results
SUFFIXES = (".csv", ".json", ".json.gz")  # other files in a folder are not looked at


def read_foreign(path: str | Path, format: str | None = None, **options: Any) -> Import:
    """Read another tool's results.

    Parameters
    ----------
    path : path
        A file, or a folder: all of its CSV and JSON files, those of sub-folders included, hidden ones not, in the order of their
        names. In a folder, a file that cannot be imported is noted in ``skipped`` and the rest goes in.
    format : str, optional
        One of ``FORMATS``; by default what name and content say.
    **options
        What the files do not tell, where the format allows for it (optimum-benchmark: ``model``, ``device``, ...).

    Raises
    ------
    Unreadable
        If the file cannot be imported, or the folder has no file that could be.
    ConfigError
        For an unknown format or option, naming the nearest known one.

    Examples
    --------
    >>> found = read_foreign("results/benchmark-infer-amp-nchw-pt240-cu124-rtx3090.csv")
    >>> print(found)
    1443 records imported, 0 skipped
    """
    path = Path(path)
    formats = _formats(format, options)
    into = Import()
    if path.is_dir():
        _read_folder(path, formats, options, into)
        return into
    file = File(path, str(path))
    found = formats[format] if format is not None else _format_of(file, formats)
    if found is None:
        raise file.unreadable(f"{_unknown(file)}; {KNOWN}")
    _read(found, file, options, into)
    return into


def _read_folder(folder: Path, formats: dict[str, Format], options: dict[str, Any], into: Import) -> None:
    recognised = False
    for path in sorted(folder.rglob("*")):
        file = File(path, path.relative_to(folder).as_posix())
        hidden = file.name.startswith(".") or "/." in file.name
        if hidden or not path.name.endswith(SUFFIXES) or not path.is_file() or optimum.is_companion(file):
            continue
        try:
            found = _format_of(file, formats)
            if found is None:
                into.skip(file.name, None, _unknown(file))
                continue
            recognised = True
            _read(found, file, options, into)
        except Unreadable as error:
            into.skip(error.file, error.line, error.reason)
    if not recognised:
        reasons = "".join(f"\n  {one}" for one in into.skipped[:FEW])
        raise Unreadable(str(folder), f"no results in this folder that can be imported; {KNOWN}{reasons}")


def _formats(name: str | None, options: dict[str, Any]) -> dict[str, Format]:
    """The formats to consider; raises :class:`ConfigError` for a name or an option that none of them has."""
    if name is not None and name not in FORMATS:
        raise unknown_name("format", name, FORMATS)
    formats = FORMATS if name is None else {name: FORMATS[name]}
    known = [option for one in formats.values() for option in one.options]
    for option in options:
        if not known:
            raise ConfigError(f"format {name!r} takes no options, {option!r} was given; leave it out")
        if option not in known:
            raise unknown_name("import option", option, known)
    return formats


def _format_of(file: File, formats: dict[str, Format]) -> Format | None:
    return next((one for one in formats.values() if one.recognises(file)), None)


def _read(found: Format, file: File, options: dict[str, Any], into: Import) -> None:
    found.read(file, into, **{name: value for name, value in options.items() if name in found.options})


def _unknown(file: File) -> str:
    begins = "" if file.is_json else f" (it begins with: {', '.join(file.header)[:80]})"
    return f"not a format that can be imported{begins}"
