import builtins
import os
import tempfile
from pathlib import Path

from disktap import Recorder, Tap
from hypothesis import given, settings
from hypothesis import strategies as st
from powercut import Create, Replace, Sync, SyncFolder, Write, played, read_folder

NAMES = st.sampled_from(["a", "b"])
DATA = st.binary(min_size=1, max_size=20)


@st.composite
def actions(draw):
    """Things that programs do to files, by all the ways that Python has."""
    kind = draw(st.sampled_from(["open", "os", "text", "truncate", "grow", "replace", "link", "unlink", "part"]))
    return kind, draw(NAMES), draw(NAMES), draw(DATA), draw(st.integers(0, 30)), draw(st.sampled_from("wax"))


def act(folder: Path, kind: str, name: str, other: str, data: bytes, size: int, mode: str) -> None:
    path = folder / name
    if kind == "open":
        with open(path, mode + "b", buffering=0 if size % 2 else 7) as file:
            file.write(data)
            file.write(data)
    elif kind == "os":
        flags = os.O_WRONLY | os.O_CREAT | (os.O_APPEND if mode == "a" else os.O_TRUNC if mode == "w" else 0)
        descriptor = os.open(path, flags)
        os.write(descriptor, data)
        os.pwrite(descriptor, data, size)
        os.fdatasync(descriptor)
        os.close(descriptor)
    elif kind == "text":
        path.write_text("é" + data.hex())
    elif kind == "truncate":
        os.truncate(path, size)
    elif kind == "grow":
        with open(path, "rb+") as file:
            file.seek(size)
            file.write(data)
            file.truncate()
            os.fsync(file.fileno())
    elif kind == "replace":
        os.replace(path, folder / other)
    elif kind == "link":
        os.link(path, folder / other)
    elif kind == "unlink":
        path.unlink()
    elif kind == "part":
        with open(path, "r+b") as file:
            file.seek(1)
            file.write(data)
            path.rename(folder / other)
            file.write(data)


@settings(max_examples=100, deadline=None)
@given(st.lists(actions(), max_size=12))
def test_what_the_tap_saw_makes_the_same_folder(steps):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "a").write_bytes(b"there before")
        with Recorder(folder) as recorder:
            for step in steps:
                try:
                    act(folder, *step)
                except (FileNotFoundError, FileExistsError):
                    continue
        assert played(recorder.operations, recorder.files) == read_folder(folder)


def test_the_tap_sees_syncs_of_files_and_folders_and_leaves_other_folders_alone(tmp_path):
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    with Recorder(inside) as recorder:
        for folder in (outside, inside):
            with open(folder / "f", "wb") as file:
                file.write(b"x")
                file.flush()
                os.fsync(file.fileno())
            descriptor = os.open(folder, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
    assert recorder.operations == [Create("f"), Write("f", 0, b"x"), Sync("f"), SyncFolder(".")]


def test_a_file_written_unseen_is_handed_on_when_it_is_renamed(tmp_path):
    with Recorder(tmp_path) as recorder:
        recorder._real["close"](recorder._real["open"](tmp_path / "t", os.O_CREAT | os.O_WRONLY))  # as C code would
        os.replace(tmp_path / "t", tmp_path / "f")
    assert recorder.operations == [Create("t"), Write("t", 0, b""), Replace("t", "f")]


def test_the_tap_can_cut_a_write_short_and_is_gone_after(tmp_path):
    before = os.open, os.write, os.replace, builtins.open

    def short(operation, perform):
        return perform(operation.data[:2]) if isinstance(operation, Write) else perform()

    with Tap(tmp_path, short), open(tmp_path / "f", "wb", buffering=0) as file:
        assert file.write(b"abcd") == 2
    assert (tmp_path / "f").read_bytes() == b"ab"
    assert (os.open, os.write, os.replace, builtins.open) == before
