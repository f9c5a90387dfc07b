import zlib

import pytest
from powercut import (
    Ack,
    Create,
    Link,
    Replace,
    Sync,
    SyncFolder,
    Truncate,
    Unlink,
    Write,
    crashes,
    played,
    read_folder,
    write_folder,
)

# ------------------------------------------------------------------ writers of numbered lines, right and wrong


def line(number: int) -> bytes:
    body = b"record %d" % number
    return b"%08x %s\n" % (zlib.crc32(body), body)


def intact(data: bytes) -> list[int]:
    """Numbers of the lines up to the first that is not whole."""
    numbers = []
    for text in data.split(b"\n")[:-1]:
        if text[:8] != b"%08x" % zlib.crc32(text[9:]):
            break
        numbers.append(int(text.split()[-1]))
    return numbers


def journal(path: str = "j", sync: bool = True, sync_folder: bool = True, ack_first: bool = False):
    """Operations of a program that appends three lines to a journal, with what it may forget."""
    yield Create(path)
    if sync_folder:
        yield SyncFolder(".")
    offset = 0
    for number in (1, 2, 3):
        if ack_first:
            yield Ack(number)
        yield Write(path, offset, line(number))
        offset += len(line(number))
        if sync:
            yield Sync(path)
        if not ack_first:
            yield Ack(number)


def rewriting(sync: bool = True, sync_folder: bool = True, in_place: bool = False):
    """Operations of a program that writes the whole file anew for each record, beside the old one unless ``in_place``."""
    if in_place:
        yield Create("f")
        yield SyncFolder(".")
    for number in (1, 2, 3):
        path = "f" if in_place else "f.tmp"
        yield Truncate("f", 0) if in_place else Create("f.tmp")
        yield Write(path, 0, b"".join(line(i) for i in range(1, number + 1)))
        if sync:
            yield Sync(path)
        if not in_place:
            yield Replace("f.tmp", "f")
        if sync_folder:
            yield SyncFolder(".")
        yield Ack(number)


def losses(operations, path: str, read=intact) -> list[str]:
    """The crashes after which an acknowledged record is not there, or something is there that was never written."""
    found = []
    for crash in crashes(operations):
        numbers = read(crash.files.get(path, b""))
        if len(numbers) < crash.acknowledged or numbers != [1, 2, 3][: len(numbers)]:
            found.append(crash.variant)
    return found


@pytest.mark.parametrize(("operations", "path"), [(journal(), "j"), (rewriting(), "f")])
def test_a_writer_that_syncs_what_it_acknowledges_loses_nothing(operations, path):
    assert losses(operations, path) == []


@pytest.mark.parametrize(
    ("operations", "path", "variant"),
    [
        pytest.param(journal(sync=False), "j", "unsynced lost", id="no fsync of the journal"),
        pytest.param(journal(sync_folder=False), "j", "unsynced lost", id="no fsync of the new journal's folder"),
        pytest.param(journal(ack_first=True), "j", "unsynced lost", id="acknowledged before it is written"),
        pytest.param(rewriting(sync=False), "f", "only Replace", id="renamed before its content is on the disk"),
        pytest.param(rewriting(sync_folder=False), "f", "unsynced lost", id="no fsync after the rename"),
        pytest.param(rewriting(in_place=True), "f", "without Write", id="written anew in place"),
    ],
)
def test_a_writer_that_forgets_something_is_caught(operations, path, variant):
    assert any(found.startswith(variant) for found in losses(operations, path))


def test_a_reader_that_takes_any_line_for_whole_is_caught_by_torn_writes():
    def trusting(data: bytes) -> list[int]:
        texts = [text for text in data.split(b"\n") if text]
        return [number if text + b"\n" == line(number) else -1 for number, text in enumerate(texts, 1)]

    found = losses(journal(), "j", trusting)
    assert found
    assert all("half" in variant or "zeros" in variant for variant in found)


# ------------------------------------------------------------------ the model


def states(*operations, files=None):
    """Contents of the folder that a crash after the last of these can leave."""
    last = len(operations)
    return [crash.files for crash in crashes(operations, files) if crash.after == last]


def test_content_is_certain_after_fsync_and_names_after_fsync_of_the_folder():
    written = [Create("a"), Write("a", 0, b"xy")]
    assert {} in states(*written)
    assert {"a": b"xy"} in states(*written)
    assert {"a": b""} in states(*written)
    assert states(*written, Sync("a"), SyncFolder(".")) == [{"a": b"xy"}]
    assert states(*written, SyncFolder("."), Sync("a")) == [{"a": b"xy"}]
    assert {} in states(*written, Sync("a"))
    assert {"a": b""} in states(*written, SyncFolder("."))


def test_an_operation_before_an_unsynced_one_can_be_missing():
    found = states(Write("a", 0, b"xx"), Write("a", 2, b"yy"), files={"a": b""})
    assert {"a": b"\0\0yy"} in found
    assert {"a": b"xx"} in found
    assert {"a": b""} in found


def test_a_torn_write_leaves_a_part_of_it_or_zeros():
    found = states(Write("a", 1, b"wxyz"), files={"a": b"a_____"})
    assert {"a": b"awx___"} in found
    assert {"a": b"awx\0\0_"} in found
    assert {"a": b"a\0\0yz_"} in found


def test_a_rename_can_arrive_before_the_content_or_not_at_all_but_never_in_part():
    old = {"f": b"old"}
    found = states(Create("t"), Write("t", 0, b"new"), Replace("t", "f"), files=old)
    assert {"f": b""} in found
    assert {"f": b"new"} in found
    assert old in found
    synced = states(Create("t"), Write("t", 0, b"new"), Sync("t"), Replace("t", "f"), files=old)
    assert {bytes(files["f"]) for files in synced} == {b"old", b"new"}


def test_a_removed_name_can_come_back():
    assert states(Unlink("f"), files={"f": b"x"}) == [{"f": b"x"}, {}]
    assert states(Unlink("f"), SyncFolder("."), files={"f": b"x"}) == [{}]


def test_a_second_name_keeps_the_content_that_the_first_one_lost():
    operations = [Link("f", "kept"), SyncFolder("."), Create("t"), Replace("t", "f"), SyncFolder(".")]
    assert states(*operations, files={"f": b"old"}) == [{"f": b"", "kept": b"old"}]


def test_syncing_one_file_or_folder_says_nothing_about_another():
    operations = [Write("a", 0, b"1"), Write("s/b", 0, b"2"), Sync("a"), Unlink("a"), Unlink("s/b"), SyncFolder("s")]
    found = states(*operations, files={"a": b"", "s/b": b""})
    assert {"a": b"1"} in found
    assert all("s/b" not in files for files in found)


def test_a_write_after_a_rename_goes_to_the_renamed_file():
    operations = [Create("t"), Replace("t", "f"), Write("f", 0, b"x"), Sync("f"), SyncFolder(".")]
    assert played(operations, {"f": b"old"}) == {"f": b"x"}
    assert states(*operations, files={"f": b"old"}) == [{"f": b"x"}]


def test_what_is_required_grows_with_each_acknowledgement_and_starts_at_none():
    found = [(crash.after, crash.acknowledged) for crash in crashes([Ack(1), Write("a", 0, b"x"), Ack(2)], {"a": b""})]
    assert sorted(set(found)) == [(0, 0), (1, 1), (2, 1), (3, 2)]


def test_crashes_of_the_same_state_have_the_same_key_and_others_do_not():
    found = list(crashes([Create("a"), Write("a", 0, b"x"), Sync("a")], {}))
    for first in found:
        for second in found:
            assert (first.key == second.key) == (first.files == second.files)


def test_a_folder_is_made_to_hold_the_given_files_and_no_others(tmp_path):
    (tmp_path / "old").write_bytes(b"x")
    write_folder(tmp_path, {"a": b"1", "s/b": b"2"})
    assert read_folder(tmp_path) == {"a": b"1", "s/b": b"2"}
