"""onnxruntime-web, fetched once from the npm registry, checked against a pinned hash, and cached; Node.js is not needed after that.

~/.cache/labbench/onnxruntime-web/VERSION/     the files of its ``dist`` that are used, renamed into place whole
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from pathlib import Path

from labbench.config import ConfigError
from labbench.manifest import sha256
from labbench.web.cached import making

PACKAGE = "onnxruntime-web"
VERSION = "1.30.0"
# SHA-256 of the tarball that the registry gives for this version.
TARBALL_SHA256 = "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71"
# Each bundle finds the .mjs and .wasm that it was built for beside itself.
BUNDLES = {
    "ort.wasm.min.mjs": "ort-wasm-simd-threaded",  # CPU only
    "ort.webgpu.min.mjs": "ort-wasm-simd-threaded.asyncify",  # the native WebGPU provider
    "ort.all.min.mjs": "ort-wasm-simd-threaded.jsep",  # the older WebGPU provider, WebNN
}
FILES = tuple(name for bundle, wasm in BUNDLES.items() for name in (bundle, f"{wasm}.mjs", f"{wasm}.wasm"))
FETCH_TIMEOUT_S = 600
COMMAND = f"npm pack {PACKAGE}@{VERSION}"


def folder() -> Path:
    """Where the files are, or will be."""
    from labbench.machine.ceilings import cache_folder

    return cache_folder() / PACKAGE / VERSION


def found() -> str | None:
    """None if everything is there or can be fetched, else what is missing and the way out."""
    if _complete(folder()) or shutil.which("npm"):
        return None
    return f"{PACKAGE} {VERSION} is not cached and npm, which fetches it, is not installed: apt-get install npm"


def fetch(tarball: Path | None = None) -> Path:
    """The folder with the files of :data:`FILES`; fetched first if they are not there.

    Parameters
    ----------
    tarball : Path, optional
        Of the package, where somebody has it already; ``npm pack`` is then not asked.

    Raises
    ------
    ConfigError
        If npm is missing or fails, or the tarball is not the pinned one.
    """
    target = folder()
    if _complete(target):
        return target
    with making(target.parent) as temporary:
        if not _complete(target):
            whole = temporary / "whole"
            _unpack(tarball or _pack(temporary), whole)
            shutil.rmtree(target, ignore_errors=True)
            whole.rename(target)
    return target


def served(prefix: str = "ort/") -> dict[str, Path]:
    """The files by the names under which the measuring page asks for them, for :class:`labbench.web.server.Server`."""
    here = fetch()
    return {f"{prefix}{name}": here / name for name in FILES}


def _complete(path: Path) -> bool:
    return all((path / name).is_file() for name in FILES)


def _pack(into: Path) -> Path:
    """The tarball, as npm gets it."""
    npm = shutil.which("npm")
    if npm is None:
        raise ConfigError(str(found()))
    command = [npm, *COMMAND.split()[1:], "--loglevel", "error", "--pack-destination", str(into)]
    own_cache = {**os.environ, "npm_config_cache": str(into / "npm")}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S, cwd=into, env=own_cache)
    except subprocess.TimeoutExpired:
        raise ConfigError(f"`{COMMAND}` took longer than {FETCH_TIMEOUT_S} s; is the npm registry reachable?") from None
    tarballs = list(into.glob("*.tgz"))
    if done.returncode or len(tarballs) != 1:
        said = (done.stderr or done.stdout).strip().splitlines() or ["nothing"]
        raise ConfigError(f"`{COMMAND}` failed; npm says: {said[-1]}")
    return tarballs[0]


def _unpack(tarball: Path, into: Path) -> None:
    """Take the files out, after a look at the hash."""
    got = sha256(tarball)
    if got != TARBALL_SHA256:
        raise ConfigError(
            f"{tarball.name} has SHA-256 {got}, not {TARBALL_SHA256}: it is not the {PACKAGE} {VERSION} that labbench knows"
        )
    into.mkdir()
    with tarfile.open(tarball) as archive:
        for name in FILES:
            member = archive.extractfile(f"package/dist/{name}")
            assert member is not None
            with member, (into / name).open("wb") as out:
                shutil.copyfileobj(member, out)
