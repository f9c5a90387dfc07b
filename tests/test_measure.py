import math
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labbench import zoo
from labbench.campaign import Campaign
from labbench.cells import Cell
from labbench.measure import measure, stats
from labbench.measure.protocol import MIN_SAMPLES, preset
from labbench.measure.session import Job
from labbench.measure.steady import Steady
from labbench.measure.worker import Worker, WorkerEnded
from labbench.store import Store

pytestmark = pytest.mark.alone

HOSTILE = str(Path(__file__).parent / "plugins" / "hostile.py")
FAST = preset("quick", min_time_s=0.05, max_time_s=0.3, round_s=0.02, warmup_max_s=0.2)
GIB = 2**30
FROZEN_STANDARD_ID = "5b9741deeab48fa0"


@pytest.fixture(scope="module")
def hostile_campaign(tmp_path_factory):
    """All hostile cells, with honest ones between them, in one campaign."""
    zoo.load_plugins([HOSTILE])
    names = ["honest", "segfaults", "sleeps", "allocates", "raises"]
    cells = [Cell.of(model=name, threads=1) for name in names]
    cells += [Cell.of(model="honest", runtime="lies", threads=1), Cell.of(model="honest", batch_size=4, threads=1)]
    path = tmp_path_factory.mktemp("hostile") / "study.h5"
    protocol = FAST.model_copy(
        update={
            "call_timeout_s": 5.0,
            "memory_limit_bytes": 2 * GIB,
            "prepare_concurrency": 1,
        }
    )
    summary = Campaign(cells, path, protocol).run(progress=False)
    return {
        (r.cell.workload.model, r.cell.platform.runtime, r.cell.workload.batch_size): r for r in summary.records
    }, path


@pytest.mark.parametrize(
    ("key", "status", "hint"),
    [
        (("segfaults", "eager", 1), "failed", "SIGSEGV"),
        (("sleeps", "eager", 1), "timeout", "no answer within 5"),
        (("allocates", "eager", 1), "out_of_memory", "over its limit of 2.00 GiB"),
        (("raises", "eager", 1), "failed", "cannot count to three"),
        (("honest", "lies", 1), "failed", "differs from eager fp32"),
    ],
)
@pytest.mark.slow
def test_a_cell_that_misbehaves_becomes_a_record_that_says_how(hostile_campaign, key, status, hint):
    record = hostile_campaign[0][key]
    assert record.status == status
    assert hint in record.reason
    assert record.stage
    assert not record.series


@pytest.mark.slow
def test_the_other_cells_of_a_hostile_campaign_are_unharmed(hostile_campaign):
    records, path = hostile_campaign
    assert [records["honest", "eager", batch].status for batch in (1, 4)] == ["ok", "ok"]
    assert len(Store(path)) == len(records) == 7


@pytest.mark.slow
def test_a_crash_leaves_its_stack_in_the_record(hostile_campaign):
    assert "Segmentation fault" in hostile_campaign[0]["segfaults", "eager", 1].stderr_tail


@pytest.mark.slow
def test_a_killed_worker_is_a_failure_that_names_the_signal():
    job = Job(zoo_cell("bert-tiny"), FAST, threads=1)
    worker = Worker(job, "fork", 8 * GIB)
    worker.set_deadline(60)
    worker.wait()
    import os

    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(WorkerEnded, match="SIGKILL") as ended:
        worker.call("load", timeout_s=60)
    assert ended.value.outcome.status == "failed"


def zoo_cell(model: str, **fields) -> Cell:
    cell = Cell.of(model=model, threads=1, **fields)
    return cell.model_copy(update={"workload": zoo.resolve(cell.workload)})


@pytest.mark.slow
def test_a_record_has_every_phase_and_the_interleaved_rounds_of_two_processes():
    protocol = FAST.model_copy(update={"processes": 2})
    one, two = measure(
        Cell.of(model="gpt2-tiny", threads=1),
        Cell.of(model="gpt2-tiny", runtime="onnxruntime", threads=1),
        protocol=protocol,
    )
    for record in (one, two):
        assert record.status == "ok", record
        assert record.processes == 2
        assert [series.name for series in record.series] == ["prefill", "decode"]
        assert record.check is not None
        assert record.check.passed
        assert None not in (
            record.phases.load_s,
            record.phases.prepare_s,
            record.phases.first_run_s,
            record.phases.start_s,
        )
        assert record.memory.increase_bytes
        assert record.energy.joules_per_call is not None or record.energy.reason
        assert record.noise is not None
        for series in record.series:
            assert set(series.samples.process) == {0, 1}
            assert len(series.samples.seconds) == series.n_samples >= 2 * MIN_SAMPLES
            assert series.median_s.ci_low <= series.median_s.value <= series.median_s.ci_high
            assert series.footprint is not None
            assert series.footprint.flops > 0
    prefill, decode = one.series
    assert prefill.footprint.flops > 10 * decode.footprint.flops


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["eager", "onnxruntime", "openvino"])
def test_a_profile_tells_where_the_time_goes_by_class(runtime):
    [record] = measure(zoo_cell("bert-tiny", runtime=runtime), protocol=FAST.model_copy(update={"profile": True}))
    [series] = record.series
    profile = series.profile
    assert profile is not None
    assert {"matmul", "dispatch"} <= set(profile.seconds)
    assert profile.kernels["matmul"] >= 12  # six in each of two layers
    assert profile.seconds["matmul"] > profile.seconds["embedding"]  # of a few rows
    assert sum(profile.seconds.values()) >= 0.9 * profile.wall_s  # in whole microseconds, by some profilers


def test_a_protocol_without_a_profile_has_the_id_that_it_had_before_profiles():
    assert preset("standard", round_s=0.1).id == FROZEN_STANDARD_ID  # what rounds took then
    assert preset("standard", profile=True).id != FROZEN_STANDARD_ID


@pytest.mark.slow
def test_training_steps_are_measured_and_really_train():
    [record] = measure(Cell.of(model="bert-tiny", mode="training", threads=1), protocol=FAST)
    assert record.status == "ok", record
    assert [series.name for series in record.series] == ["step"]


@pytest.mark.slow
def test_a_fresh_worker_measures_like_a_forked_one():
    protocol = FAST.model_copy(update={"start": "fresh"})
    [record] = measure(Cell.of(model="resnet-tiny", threads=1), protocol=protocol)
    assert record.status == "ok", record
    assert record.phases.start_s is not None


class Counted:
    """A prepared callable that counts its calls and takes a fixed number of loop turns."""

    def __init__(self, turns: int) -> None:
        self.turns, self.calls = turns, 0

    def __call__(self) -> None:
        self.calls += 1
        for _ in range(self.turns):
            pass

    def synchronize(self) -> None:
        pass


def test_blocks_are_long_enough_for_the_timer():
    from labbench.measure.steady import timer_cost_s

    steady = Steady(Counted(0), FAST)
    steady.warm_up()
    samples = steady.round(50)
    assert steady.calls_per_sample > 10  # a call of nanoseconds must be timed in blocks
    assert (
        np.median(samples) * steady.calls_per_sample
        > timer_cost_s(steady.prepared.synchronize) / FAST.timer_overhead / 5
    )


def test_a_long_call_is_timed_alone():
    steady = Steady(Counted(1_000_000), FAST)
    steady.warm_up()
    assert steady.calls_per_sample == 1
    assert steady.warmup_calls >= FAST.warmup_min_calls


def test_waiting_for_the_device_counts_as_cost_of_the_timer():
    from labbench.measure.steady import timer_cost_s

    class Waiting(Counted):
        waits = 0

        def synchronize(self) -> None:
            self.waits += 1

    callable_ = Waiting(1)
    timer_cost_s(callable_.synchronize, repeats=7)
    assert callable_.waits >= 7
    steady = Steady(callable_, FAST)
    before = callable_.waits
    steady.warm_up()
    assert callable_.waits - before >= 500  # what a block must outlast was measured with the wait in it


HEAP = """
import sys
from resource import RUSAGE_SELF, getrusage
from labbench.measure.memory import keep_heap
import numpy as np
if sys.argv[1] == "kept":
    keep_heap()
def call():
    for size in (2_000_000, 400_000, 3_000_000):  # bytes: beyond and below glibc's usual thresholds
        np.ones(size, np.uint8)
for _ in range(3):
    call()
before = getrusage(RUSAGE_SELF).ru_minflt
for _ in range(50):
    call()
print(getrusage(RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_a_kept_heap_is_not_faulted_in_again_by_every_call():
    unlucky = {**os.environ, "MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_MMAP_THRESHOLD_": "4096"}
    kept, given_back = (
        int(subprocess.run([sys.executable, "-c", HEAP, how], capture_output=True, check=True, env=unlucky).stdout)
        for how in ("kept", "given back")
    )
    assert given_back > 1000
    assert kept < 100


def test_a_round_keeps_no_more_than_there_is_room_for():
    assert len(Steady(Counted(10), FAST).round(3)) <= 3


@given(st.lists(st.floats(1e-6, 10), min_size=6, max_size=60), st.integers(1, 6))
def test_estimates_lie_within_their_intervals_and_the_data(values, rounds):
    index = [i % rounds for i in range(len(values))]
    for estimate in stats.quantiles(values, [0] * len(values), index, (0.5, 0.9, 0.99)):
        assert min(values) <= estimate.ci_low <= estimate.value <= estimate.ci_high <= max(values)


def test_the_interval_of_the_median_covers_it_at_about_its_level():
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(100):
        offsets = rng.normal(0, 0.05, 20).repeat(5)  # rounds differ, samples within them little
        values = np.exp(offsets + rng.normal(0, 0.01, 100))
        [median] = stats.quantiles(values, [0] * 100, np.arange(20).repeat(5), (0.5,))
        hits += median.ci_low <= 1 <= median.ci_high
    assert hits >= 85  # 95 % nominal; fewer would be 100 draws' bad luck (1 in 27,000) or a wrong interval


def test_too_few_samples_never_satisfy_the_stopping_rule():
    assert math.isinf(stats.median_half_width([1.0] * 5, [0] * 5))
    assert math.isinf(stats.median_half_width([1.0] * 50, [0] * 25 + [1] * 25))
    assert stats.median_half_width([1.0] * 50, list(range(5)) * 10) == 0


def test_drift_between_rounds_widens_the_stopping_interval():
    rounds = np.arange(10).repeat(20)
    drifting = 1 + 0.1 * rounds
    assert stats.median_half_width(drifting, rounds) > 0.05
