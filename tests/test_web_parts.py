"""onnxruntime-web is fetched once, is the pinned one, or is not used."""

import shutil
import tarfile

import pytest

from labbench.config import ConfigError
from labbench.web import parts


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def tarball(tmp_path, monkeypatch):
    """A stand-in for the package, whose hash is the pinned one in this test."""
    dist = tmp_path / "package" / "dist"
    dist.mkdir(parents=True)
    for name in parts.FILES:
        (dist / name).write_text(name)
    path = tmp_path / "onnxruntime-web.tgz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(tmp_path / "package", "package")
    monkeypatch.setattr(parts, "TARBALL_SHA256", parts.sha256(path))
    return path


def test_what_is_fetched_is_kept_and_asked_for_no_more(tarball, monkeypatch):
    folder = parts.fetch(tarball)
    assert sorted(path.name for path in folder.iterdir()) == sorted(parts.FILES)
    tarball.unlink()
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert parts.fetch() == folder
    assert parts.found() is None
    assert parts.served()["ort/ort.wasm.min.mjs"].read_text() == "ort.wasm.min.mjs"


def test_another_tarball_is_refused_and_nothing_is_left(tarball):
    tarball.write_bytes(tarball.read_bytes() + b"\0")
    with pytest.raises(ConfigError, match="not the onnxruntime-web"):
        parts.fetch(tarball)
    assert not parts.folder().exists()
    assert [path.name for path in parts.folder().parent.iterdir()] == [".lock"]


def test_without_npm_the_command_that_gets_it_is_told(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert "apt-get install npm" in parts.found()
    with pytest.raises(ConfigError, match="apt-get install npm"):
        parts.fetch()


def test_what_npm_says_is_passed_on(tmp_path, monkeypatch):
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho 'npm error 404 Not Found' >&2\nexit 1\n")
    npm.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda _: str(npm))
    with pytest.raises(ConfigError, match="npm error 404 Not Found"):
        parts.fetch()


def test_what_a_killed_process_left_is_removed_by_the_next(tarball):
    left = parts.folder().parent / ".new-killed"
    left.mkdir(parents=True)
    (left / "half").write_text("")
    parts.fetch(tarball)
    assert not left.exists()
