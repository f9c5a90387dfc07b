"""The same dispatcher with processes of this machine: what was accepted is answered, whatever happens to a backend."""

import contextlib
import io
import os
import signal
import threading

import numpy as np
import pytest
from shell import labbench

from labbench.campaign import resolve
from labbench.cells import Cell
from labbench.switching import Disturbance, Settings, SwitchingError, calibrate, capacity, kill, poisson, serve
from labbench.switching.live import LiveWorld
from labbench.switching.processes import cores_of

pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="this system cannot stop a process"),
]


def backends(*names, **fields):
    [cell] = resolve([Cell.of(model="bert-tiny", runtime="eager", threads=1, seq_len=16, **fields)])
    return dict.fromkeys(names, cell)


@pytest.fixture(scope="module")
def world():
    with LiveWorld(backends("one", "other")) as found:
        yield found


@pytest.fixture(scope="module")
def options(world):
    return calibrate(world, 50, 0.5)


def test_calibration_tells_calls_that_followed_another_one_at_once(world):
    found = calibrate(world, 1.5 * capacity(calibrate(world, 50, 0.5)), 0.5)
    assert all(len(one.queued) == len(one.samples_s) for one in found)
    assert sum(one.queued.sum() for one in found) > 0


def test_killing_a_backend_loses_no_accepted_request_and_it_comes_back(world, options):
    starts = len(world.cold_start_s["one"])
    run = serve(
        world, options, poisson(60, 2.5, 0), "round-robin", kill("one@0.5"), Settings(limit_s=10, capacity=10**4)
    )
    found = run.summary()
    assert (found["provenance"], found["lost"], found["answered"]) == ("measured", 0, found["offered"])
    told = run.log[run.log["backend"] == "one"]["what"].tolist()
    assert told[:2] == ["died", "opened"]
    world.begin()
    assert len(world.cold_start_s["one"]) == starts + 1


def test_a_call_that_dies_with_its_backend_is_answered_by_another(world, options):
    """Both backends are held, so that a request is surely within the one that is killed."""
    settings = Settings(limit_s=30, least_patience_s=30, check_s=100)
    pids = {name: worker.pid for name, worker in world._workers.items()}
    held = threading.Timer(0.3, lambda: [os.kill(pid, signal.SIGSTOP) for pid in pids.values()])
    killed = threading.Timer(
        0.8, lambda: (os.kill(pids["one"], signal.SIGKILL), os.kill(pids["other"], signal.SIGCONT))
    )
    held.start()
    killed.start()
    run = serve(world, options, poisson(60, 1.0, 0), "round-robin", settings=settings)
    found = run.summary()
    assert found["lost"] == 0
    assert found["retried"] == 1
    again = run.requests[run.requests["attempts"] == 2]
    assert again["backend"].tolist() == ["other"]


def test_a_slowed_backend_is_slowed_by_about_the_factor_asked_for(world, options):
    run = serve(
        world, options, poisson(40, 4, 1), "static", [Disturbance(2.0, options[0].name, 4.0)], Settings(limit_s=60, capacity=10**4)
    )  # fmt: skip
    calls = run.attempts[(run.attempts["backend"] == options[0].name) & (run.attempts["ended"] == "answered")]
    took, before = calls["ended_s"] - calls["begun_s"], calls["ended_s"] < 2.0
    ratio = np.mean(took[~before]) / np.mean(took[before])
    assert 1.5 < ratio < 12, "the machine is shared, so this is rough"
    assert run.summary()["lost"] == 0


def test_requests_count_from_their_arrival_in_the_trace_and_overhead_is_told(world, options):
    run = serve(world, options, poisson(40, 1, 2))
    assert (run.requests["seen_s"] >= run.requests["arrived_s"]).all()
    overhead = run.overhead()
    assert 0 <= overhead["lag_p50_s"] <= overhead["lag_p99_s"]
    assert overhead["cpu_per_request_s"] > 0
    assert overhead["transport_p50_s"] > 0


def test_a_backend_that_cannot_start_is_named_with_its_reason_and_no_worker_stays():
    found = LiveWorld(backends("bad", precision="fp16"))
    with pytest.raises(SwitchingError, match="backend bad cannot be started: fp16 on a CPU"), found:
        pass
    assert found._workers == {}


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system does not keep processes on cores")
def test_each_backend_has_a_core_of_its_own_or_if_there_are_too_few_all_of_them(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    assert cores_of(["a", "b"]) == {"a": [2], "b": [1]}
    assert cores_of(["a", "b", "c", "d"]) == {name: [2, 1, 0] for name in "abcd"}


def test_the_command_runs_live_and_prints_both_worlds():
    asked = ("--model", "bert-tiny", "--seq-len", "16", "--runtime", "eager", "--precision", "fp32", "int8")
    with contextlib.redirect_stderr(io.StringIO()):
        run = labbench(
            "switch", "--live", *asked, "--seconds", "1", "--rate", "20", "--policy", "static", "expected-finish"
        )
    assert run.returncode == 0, run.stderr
    lines = [line.split()[:2] for line in run.stdout.splitlines()]
    assert [kind for policy, kind in (line for line in lines if len(line) == 2) if policy == "static"] == [
        "simulated",
        "measured",
    ]
    assert "of processor time a request" in run.stdout
