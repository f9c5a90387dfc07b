"""Who is to blame for the end of a job, from what the ranks left behind (made here; no process is started)."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labbench.distributed.blame import of_failure, of_hang
from labbench.distributed.job import Beat, Fault, Job, Pulse, read_beat, read_json, write_json
from labbench.distributed.rank import described

PEER = {"status": "failed", "reason": "RuntimeError: Connection closed by peer", "of_peer": True, "at_s": 1.0}
OWN = {"status": "failed", "reason": "ValueError: made to fail", "of_peer": False, "at_s": 2.0}


def beat(rank: int, count: int, where: str = "step 3") -> Beat:
    return Beat(rank=rank, pid=1, count=count, attempt=0, where=where, at_s=0.0, host="here")


def test_a_killed_rank_is_blamed_and_not_the_peer_that_complained_first() -> None:
    ending = of_failure({0: PEER}, {0: 1, 1: -9}, [1])
    assert ending.ranks == [1]
    assert "SIGKILL" in (ending.reason or "")


def test_the_agents_own_sigterm_blames_nobody() -> None:
    ending = of_failure({1: OWN}, {0: -15, 1: 1}, [0])
    assert ending.ranks == [1]
    assert "made to fail" in (ending.reason or "")


def test_a_rank_that_ends_without_a_word_is_blamed_before_its_peers() -> None:
    assert of_failure({0: PEER, 2: PEER}, {}, [1]).ranks == [1]


def test_where_every_error_is_about_a_peer_nobody_is_named() -> None:
    ending = of_failure({0: PEER, 1: PEER}, {}, [])
    assert ending.ranks == []
    assert "about a peer" in (ending.reason or "")


def test_out_of_memory_keeps_its_status() -> None:
    error = described(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 16777216 bytes"))
    assert of_failure({2: error, 0: PEER}, {}, []).model_dump() == {
        "status": "out_of_memory",
        "reason": f"rank 2: {error['reason']}",
        "ranks": [2],
    }


@pytest.mark.parametrize(
    "text", ["Connection closed by peer [127.0.0.1]:1", "Timed out waiting 6000ms for recv operation to complete"]
)
def test_what_gloo_says_of_a_lost_peer_is_known_as_such(text: str) -> None:
    assert described(RuntimeError(text))["of_peer"]


@settings(deadline=None)
@given(st.lists(st.integers(1, 100), min_size=2, max_size=8))
def test_the_hung_rank_is_the_one_that_got_least_far(counts: list[int]) -> None:
    ending = of_hang([beat(rank, count) for rank, count in enumerate(counts)], 5)
    assert ending.status == "timeout"
    assert ending.ranks == [rank for rank, count in enumerate(counts) if count == min(counts)]


def test_of_ranks_at_the_same_place_the_one_that_did_not_enter_the_collective_hangs() -> None:
    waiting, hung = beat(0, 7).model_copy(update={"calls": 12}), beat(1, 7).model_copy(update={"calls": 11})
    assert of_hang([waiting, hung], 5).ranks == [1]


def test_a_hang_that_leaves_all_equally_far_says_that_it_cannot_tell() -> None:
    assert "cannot be told" in (of_hang([beat(0, 7), beat(1, 7)], 5).reason or "")


def test_a_pulse_can_be_read_while_it_goes_on(tmp_path) -> None:
    pulse = Pulse(tmp_path, 3, attempt=1)
    assert read_beat(tmp_path, 3) is None
    pulse("a long name " * 20)
    pulse("short")
    pulse.entered(5)
    found = read_beat(tmp_path, 3)
    assert found is not None
    assert (found.rank, found.count, found.attempt, found.where) == (3, 2, 1, "short")
    assert found.calls == 5
    assert found.at_s <= time.monotonic()


def test_a_fault_meets_its_rank_at_its_beat_in_the_first_attempt_only(tmp_path) -> None:
    fault = Fault(kind="exception", rank=1, beat=2)
    for rank, attempt in ((0, 0), (1, 1)):
        pulse = Pulse(tmp_path, rank, attempt, fault)
        pulse("one")
        pulse("two")
    pulse = Pulse(tmp_path, 1, 0, fault)
    pulse("one")
    with pytest.raises(ValueError, match="made to fail"):
        pulse("two")
    assert read_json(tmp_path / "fault.json")["at_s"] <= time.monotonic()


def test_a_job_comes_back_from_its_file_as_it_was(tmp_path) -> None:
    job = Job(task="correct", options={"modes": ["ddp"]}, fault=Fault(kind="hang", rank=0))
    write_json(tmp_path / "job.json", job.model_dump(mode="json"))
    assert Job.model_validate(read_json(tmp_path / "job.json")) == job
