"""Footprints on disk: a count takes seconds and torch, and is the same every time until labbench or a framework changes.

    ~/.cache/labbench/footprints/VERSIONS/WORKLOAD.json
    ~/.cache/labbench/operators/VERSIONS/WORKLOAD.parquet       (:mod:`labbench.prediction.tracing`)

Only workloads of built-in families are kept: the source of a user's model is not known here, so nothing tells when
it changes.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from labbench.cells import content_id
from labbench.records import Footprint

if TYPE_CHECKING:
    from labbench.cells import Workload

PACKAGES = ("python", "torch", "transformers")
VERSIONS_KEPT = 8  # of labbench and frameworks, newest first; one of the study's takes about 100 kB
_ENTRY = TypeAdapter(dict[str, Footprint])


def recall(workload: Workload) -> dict[str, Footprint] | None:
    """What was counted for a resolved workload by these very versions; ``None`` if nothing was, or it is damaged."""
    if not cacheable(workload):
        return None
    try:
        return _ENTRY.validate_json(path_of(workload).read_bytes())
    except (OSError, ValidationError):
        return None


def keep(workload: Workload, counted: Mapping[str, Footprint]) -> None:
    """Keep a count for the next process, if the workload is of a built-in family and the cache can be written."""
    from labbench.manifest import write_json

    if not cacheable(workload):
        return
    path = path_of(workload)
    with contextlib.suppress(OSError):  # no space or no right to write: it is counted again
        make_room(path)
        write_json(path, {name: footprint.model_dump() for name, footprint in counted.items()})


def cacheable(workload: Workload) -> bool:
    """Whether what is counted of a workload may be kept."""
    from labbench import zoo

    return zoo.is_built_in(workload.model)


def path_of(workload: Workload, what: str = "footprints", suffix: str = ".json") -> Path:
    """Where something that was counted of a resolved workload by these versions is kept."""
    from labbench.machine.ceilings import cache_folder

    return cache_folder() / what / versions() / f"{content_id(workload.model_dump(exclude_none=True))}{suffix}"


def make_room(path: Path) -> None:
    """Make the folder of a file that is to be kept; the first one of new versions drops what is older than ``VERSIONS_KEPT``."""
    if not path.parent.exists():
        path.parent.mkdir(parents=True)
        _drop_old_versions(path.parent.parent)


@cache
def versions() -> str:
    """Id of all that a count depends on besides the workload: labbench's source and the frameworks' versions."""
    from labbench.machine import software
    from labbench.manifest import source_sha256

    found = software()
    return content_id({"labbench": source_sha256(), **{name: found.get(name) for name in PACKAGES}})


def _drop_old_versions(folder: Path) -> None:
    newest_first = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in newest_first[VERSIONS_KEPT:]:
        shutil.rmtree(old, ignore_errors=True)
