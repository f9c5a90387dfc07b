import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from test_store import ENVIRONMENT, filled, make_record

from labbench.store import Store, StoreError, StoreLocked

WRITER = """
import sys
sys.path.insert(0, {tests!r})
from test_store import make_record
from labbench.store import Store
store = Store({path!r}, writable=True)
print("writing", flush=True)
for line in sys.stdin:
    record = make_record()
    store.append(record)
    print(record.record_id, flush=True)
store.close()
"""


class Writer:
    """Another process that has a database open, and appends a record when told to."""

    def __init__(self, path: Path) -> None:
        code = WRITER.format(tests=str(Path(__file__).parent), path=str(path))
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self.said()

    def said(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def append(self) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        return self.said()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


@pytest.fixture
def path(tmp_path):
    return filled(tmp_path / "s.h5", make_record())


def test_a_second_writer_is_told_who_the_first_is(path):
    writer = Writer(path)
    with pytest.raises(StoreLocked) as error:
        Store(path, writable=True)
    text = str(error.value)
    for part in (f"process {writer.process.pid} on {socket.gethostname()} since 20", "wait for it", "stop it"):
        assert part in text
    with pytest.raises(StoreLocked, match=r"waited 0\.1 s"):
        Store(path, writable=True, wait=0.1)
    writer.close()
    Store(path, writable=True).close()


@pytest.mark.parametrize("wait", [60, True])
def test_who_waits_gets_a_turn(path, wait):
    writer = Writer(path)
    written = writer.append()
    threading.Timer(0.3, writer.close).start()
    with Store(path, writable=True, wait=wait) as store:
        assert written in [record.record_id for record in store.records()]
        store.append(make_record(), ENVIRONMENT)
    assert len(Store(path)) == 3


def test_the_lock_of_a_killed_writer_is_no_hindrance(path):
    writer = Writer(path)
    written = writer.append()
    os.kill(writer.process.pid, signal.SIGKILL)
    writer.process.wait()
    assert path.with_name("s.h5.writer").exists()  # it could not say goodbye
    with Store(path, writable=True) as store:
        assert written in [record.record_id for record in store.records()]
    assert not path.with_name("s.h5.writer").exists()


def test_a_reader_sees_what_was_acknowledged_while_another_process_writes(path):
    writer = Writer(path)
    reader = Store(path)
    seen = {str(key) for key in reader.frame()["record_id"]}
    for _ in range(5):
        seen.add(writer.append())
        assert {str(key) for key in reader.frame()["record_id"]} == seen
        assert len(reader) == len(reader.records()) == len(Store(path)) == len(seen)
    writer.close()
    assert {record.record_id for record in reader.records()} == seen


def test_one_process_can_read_what_it_writes(path):
    with Store(path, writable=True) as writer:
        writer.append(make_record())
        assert len(writer) == len(Store(path)) == 2
        with pytest.raises(StoreLocked, match=f"process {os.getpid()}"):
            Store(path, writable=True)
    with pytest.raises(StoreError, match="open for reading"):
        writer.append(make_record())


@pytest.mark.parametrize("wait", [None, 0.1, True])
def test_who_waits_for_itself_is_told_so(path, wait):
    """It would wait for ever."""
    with Store(path, writable=True) as store:
        with pytest.raises(StoreLocked, match=f"process {os.getpid()}"):
            Store(path, writable=True, wait=wait)
        store.append(make_record())
    assert len(Store(path)) == 2


@pytest.mark.parametrize("wait", [-1, float("nan"), "soon"])
def test_a_wait_that_is_no_time_is_refused(path, wait):
    with pytest.raises(StoreError, match=f"wait = {wait!r}"):
        Store(path, writable=True, wait=wait)
    Store(path, writable=True).close()


def test_two_databases_can_be_written_at_once(path, tmp_path):
    with Store(path, writable=True) as one, Store(tmp_path / "other.h5", writable=True) as other:
        records = [make_record() for _ in range(4)]
        for i, record in enumerate(records):
            (one, other)[i % 2].append(record, ENVIRONMENT)
    assert Store(path).records()[1:] == records[::2]
    assert Store(tmp_path / "other.h5").records() == records[1::2]
