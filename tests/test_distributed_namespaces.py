"""Hosts that are network namespaces of this machine. Skipped, with the system's words, where it refuses to make them."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from labbench.config import ConfigError
from labbench.distributed import measured_collectives, namespaces, probe
from labbench.distributed.calibration import Calibration
from labbench.distributed.job import Fault, Job
from labbench.distributed.launcher import launch
from labbench.distributed.namespaces import Wire, hosts
from labbench.distributed.sizes import Layers
from labbench.runtimes.base import Unsupported

pytestmark = pytest.mark.alone
REFUSED = namespaces.why_not()
needs_hosts = pytest.mark.skipif(REFUSED is not None, reason=f"no namespaces here: {REFUSED}")
TINY = {"layers": 2, "width": 16, "forward_s": 0.002, "backward_s": 0.004}


def ours() -> list[str]:
    return [name for name in namespaces._names() if name.startswith(f"labbench-{os.getpid()}-")]


def test_a_system_that_refuses_is_quoted(monkeypatch) -> None:
    monkeypatch.setattr(namespaces.shutil, "which", lambda name: None)
    with pytest.raises(Unsupported, match="there is no ip here: install iproute2"), hosts(2, Wire(1e9)):
        pass
    monkeypatch.undo()
    with pytest.raises(Unsupported, match=r"ls --no-such-option: .*no-such-option"):
        namespaces._run("ls", "--no-such-option")


def test_wires_and_numbers_of_hosts_that_cannot_be_are_refused() -> None:
    for bit_s, delay_s in ((0, 0), (-1e6, 0), (1e6, -1)):
        with pytest.raises(ConfigError, match="rates are positive, delays not negative"):
            Wire(bit_s, delay_s)
    with pytest.raises(ConfigError, match="0 hosts"), hosts(0, Wire(1e9)):
        pass


@needs_hosts
def test_hosts_and_switch_are_there_within_the_block_only_even_when_it_fails() -> None:
    def fail() -> None:
        with hosts(3, Wire(1e8, 0.001)) as found, hosts(1, Wire(1e8)) as others:
            assert len(ours()) == 4 + 2
            assert {one.name for one in (*found, *others)} < set(ours())
            raise KeyError("made to fail")

    with pytest.raises(KeyError, match="made to fail"):
        fail()
    assert ours() == []


@needs_hosts
def test_a_link_has_the_rate_and_the_delay_that_were_asked_for() -> None:
    for wire in (Wire(2e8), Wire(2e8, 0.005)):
        with hosts(2, wire) as (one, other):
            found = probe.measured(one, other, 12 * 2**20)
        assert found.bytes_s == pytest.approx(wire.payload_bytes_s, rel=0.1)
        assert found.trips_s.min() >= 2 * wire.delay_s
        if wire.delay_s:
            assert np.median(found.trips_s) == pytest.approx(2 * wire.delay_s, rel=0.25)


@needs_hosts
def test_what_a_killed_process_left_behind_is_swept() -> None:
    program = (
        "from labbench.distributed.namespaces import hosts, Wire\n"
        "with hosts(2, Wire(1e9, 0.001)): print('made', flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"made\n"
        left = [name for name in namespaces._names() if name.startswith(f"labbench-{owner.pid}-")]
        assert len(left) == 3
        assert not set(left) & set(namespaces.sweep())  # it still lives
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    assert set(left) <= set(namespaces.sweep())
    assert not set(left) & set(namespaces._names())


@needs_hosts
def test_ranks_on_two_hosts_meet_and_what_they_measure_becomes_records() -> None:
    with hosts(2, Wire(1e9)) as two:
        records = measured_collectives.collectives(["all_reduce"], 2, [2**12, 2**16, 2**20], samples=3, hosts=two)
        assert [one.status for one in records] == ["ok"], records[0].reason
        assert records[0].processes == 2
        assert len(records[0].series) == 3
        job = Job(
            task="layers",
            options={
                "layers": TINY,
                "modes": ["ddp-1", "fsdp"],
                "single": ["ddp-1"],
                "blocks": 1,
                "collectives": {
                    name: [2**12, 2**14] for name in ("all_reduce", "all_reduce x2", "all_gather", "reduce_scatter")
                },
            },
            pinned=False,
            one_machine=True,
        )
        done = launch(job, 1, hosts=two)
    assert done.ending.status == "ok", done.output_tail
    least = TINY["layers"] * (TINY["forward_s"] + TINY["backward_s"])
    for one in done.results:
        assert set(one["step_s"]) == {"ddp-1", "fsdp", "ddp-1 alone"}
        assert all(len(seconds) == 3 and min(seconds) >= least for seconds in one["step_s"].values())
        assert np.shape(one["forward_s"]) == np.shape(one["backward_s"]) == (3, TINY["layers"])
        assert np.min(one["backward_s"]) >= TINY["backward_s"]
    made = Calibration.of(done.results, Layers(**TINY))
    assert made.computing_s >= least
    assert set(made.overhead_s) == {"ddp-1"}
    for mode in ("ddp-1", "fsdp"):
        assert made.simulated(mode, 4).step_s > made.simulated(mode, 2).step_s > made.computing_s


@needs_hosts
@pytest.mark.full
def test_a_rank_that_is_killed_on_another_host_is_named() -> None:
    options = {"layers": TINY, "modes": ["ddp-1"]}
    with hosts(2, Wire(1e9)) as two:
        done = launch(Job(task="layers", options=options, fault=Fault(kind="kill", rank=1, beat=6)), 1, hosts=two)
    assert (done.ending.status, done.ending.ranks) == ("failed", [1]), done.output_tail
