"""What a notebook's run leaves beside its output: a manifest, and the hashes that tell whether it still holds."""

from __future__ import annotations

import hashlib
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

MANIFEST_VERSION = 1
REPORTED_PACKAGES = ("numpy", "pandas", "scikit-learn", "torch", "transformers", "onnxruntime", "openvino")


def read_manifest(output: str | Path) -> dict[str, Any] | None:
    """The manifest beside an executed notebook; ``None`` if there is none or it was damaged."""
    try:
        manifest = json.loads(manifest_path(Path(output)).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return manifest if isinstance(manifest, dict) and manifest.get("version") == MANIFEST_VERSION else None


def manifest_path(output: Path) -> Path:
    """Where the manifest of an executed notebook is."""
    return output.with_suffix(".manifest.json")


def sha256(path: Path) -> str:
    """SHA-256 of a file, hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def source_sha256(room: str = "") -> str:
    """SHA-256 over labbench's own source, or a room of it: notebooks are thin, so what they show changes with the package."""
    root = Path(__file__).parent / room
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)} {sha256(path)}\n".encode())
    return digest.hexdigest()


@cache
def environment() -> dict[str, str]:
    """Versions and system, for the reader of a report: name to text."""
    import platform
    from importlib import metadata

    versions = {"python": platform.python_version(), "system": f"{platform.system()} {platform.release()}"}
    versions["machine"] = f"{platform.machine()}, {os.cpu_count()} logical cores"
    for name in REPORTED_PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a reader finds the old file or the new one, never half of one."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_text(path: str | Path, text: str) -> None:
    """Write a text so that a reader finds the old file or the new one, never half of one."""
    path = Path(path)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
