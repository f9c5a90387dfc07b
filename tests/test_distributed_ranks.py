"""Real ranks of this machine. A launch takes seconds (each rank imports torch), so that one does for many promises."""

import contextlib
import json
import os
import subprocess
import sys
import uuid

import psutil
import pytest

from labbench import cli
from labbench.distributed import faults, measured, measured_collectives, rank_records
from labbench.distributed.collectives_model import OPERATIONS
from labbench.distributed.job import Fault, Job
from labbench.distributed.launcher import launch
from labbench.distributed.scaling import scaling_table
from labbench.distributed.strategies import MODES
from labbench.process import runs
from labbench.store import Store

pytestmark = pytest.mark.alone

SMALL = {"layers": 4, "width": 16, "vocabulary": 32, "tokens": 8}
QUICK = ("ddp-accumulation", "ddp-bf16-hook", "zero1", "fsdp", "fsdp-hybrid", "tensor-sequence-loss", "pipeline-1f1b")
NO_KERNELS = {"ddp-bf16-hook", "context"}  # what a CPU has no kernels for


OURS = uuid.uuid4().hex  # in the environment of all that is started here, whoever its parent has become


@pytest.fixture(autouse=True)
def _marked(monkeypatch) -> None:
    monkeypatch.setenv("LABBENCH_TEST_RANKS", OURS)


def left_running() -> list[int]:
    """Processes that were started here and are still there, orphans too."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get("LABBENCH_TEST_RANKS") == OURS:
                found.append(process.pid)
    return found


def test_what_is_left_running_would_be_seen() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        for _ in range(1000):  # until it has become the new program
            if left_running():
                break
        assert left_running() == [process.pid]
        process.kill()
    assert left_running() == []


def test_a_process_that_has_ended_runs_no_more_though_nobody_has_fetched_it() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    seen = psutil.Process(child.pid)
    assert runs(seen)
    child.kill()
    while seen.status() != psutil.STATUS_ZOMBIE:
        pass
    assert not runs(seen)
    child.wait()
    assert not runs(seen)


@pytest.mark.slow
def test_strategies_train_as_one_process_does_and_what_cannot_run_says_why() -> None:
    records = {one.cell.platform.runtime: one for one in measured.correctness(QUICK, 2, shape=SMALL)}
    assert list(records) == list(QUICK)
    assert {name for name, one in records.items() if one.status == "unsupported"} == {"ddp-bf16-hook", "fsdp-hybrid"}
    assert "multiple of 4" in (records["fsdp-hybrid"].reason or "")
    right = [one for one in records.values() if one.status == "ok"]
    assert len(right) == 5
    assert all(one.check and one.check.passed and one.check.max_error <= 1e-12 for one in right)
    assert all(max(one.metrics["gradient_error"], one.metrics["change_error"]) <= 1e-12 for one in right)
    assert not left_running()


@pytest.mark.slow
def test_collectives_are_timed_fitted_and_stored(tmp_path, capsys) -> None:
    path = str(tmp_path / "ranks.h5")
    arguments = ["distributed", "collectives", "--max-mib", "1", "--store", path, "--json"]
    assert cli.main([*arguments, "--operation", "all_reduce", "p2p"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["operation"] for row in rows} == {"all_reduce", "p2p"}
    for row in rows:  # two ranks: every byte of the buffer passes the link once, so both bandwidths are equal
        assert row["bus_bytes_s"] == pytest.approx(row["algorithm_bytes_s"])
        assert row["algorithm_bytes_s"] == pytest.approx(row["size_bytes"] / row["median_s"])
        assert row["p10_s"] <= row["median_s"]
    with Store(path) as store:
        assert {one.cell.workload.model for one in store.records()} == {"all_reduce", "p2p"}
        assert all(one.metrics["alpha_s"] > 0 for one in store.records())


@pytest.mark.slow
def test_steps_are_timed_beside_one_process_and_divided_into_what_they_consist_of(tmp_path, capsys) -> None:
    path = str(tmp_path / "ranks.h5")
    arguments = ["distributed", "scale", "--ranks", "2", "--strategy", "ddp", "fsdp", "pipeline-gpipe"]
    sizes = ["--model", "decoder-4x16-4h-32v", "--batch-size", "8", "--seq-len", "8", "--steps", "5"]
    assert cli.main([*arguments, *sizes, "--store", path]) == 0
    told = capsys.readouterr().out
    assert "strong scaling" in told
    with Store(path) as store:
        records = {one.cell.platform.runtime: one for one in store.records()}
    assert list(records) == ["one", "ddp", "fsdp", "pipeline-gpipe"]
    assert [one.status for one in records.values()] == ["ok"] * 4
    one, ddp, fsdp, pipeline = (record.metrics for record in records.values())
    assert sum(name.startswith("forward_s") for name in one) == 5  # layers and the output
    assert ddp["parameters_bytes"] == one["parameters_bytes"] == 2 * fsdp["parameters_bytes"]
    assert fsdp["optimizer_bytes"] < 0.51 * ddp["optimizer_bytes"]  # and a step count for each tensor
    assert 0 <= ddp["hook_exposed_s"] <= ddp["hook_communication_s"] * (1 + 1e-9)
    assert ddp["trace_communication_s"] > 0 < fsdp["trace_communication_s"]
    assert 0 < pipeline["idle"] < 1
    assert pipeline["bubble_by_formula"] == pytest.approx(1 / 5)  # two ranks, four micro-batches
    table = scaling_table(list(records.values()))
    assert list(table["ranks"]) == [1, 2] * 3
    assert not left_running()


@pytest.mark.slow
def test_a_killed_rank_is_named_with_its_signal_and_nothing_is_left_running() -> None:
    job = Job(task="steps", options={"modes": ["ddp"], "shape": SMALL}, fault=Fault(kind="kill", rank=1, beat=6))
    done = launch(job, 2)
    assert done.ending.status == "failed"
    assert done.ending.ranks == [1], done.output_tail
    assert "SIGKILL" in (done.ending.reason or "")
    assert done.reported_after_s is not None
    assert not left_running()


@pytest.mark.full
@pytest.mark.parametrize("mode", faults.STRATEGIES)
@pytest.mark.parametrize("kind", faults.KINDS)
def test_every_fault_of_every_kind_of_strategy_names_its_rank(kind, mode) -> None:
    record = faults.trial(kind, mode, hang_s=15)
    assert record.metrics["as_expected"] == 1, (record.status, record.reason, record.stderr_tail)
    assert record.metrics["left_running"] == 0
    if kind == "restart":
        assert 0 < record.metrics["rejoined_after_s"] < record.metrics["lost_s"]
    assert not left_running()


@pytest.mark.full
@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("precision", measured.PRECISIONS)
def test_all_strategies_train_as_one_process_does(ranks, precision) -> None:
    records = measured.correctness(list(MODES), ranks, precision)
    refused = {one.cell.platform.runtime for one in records if one.status == "unsupported"}
    assert refused == NO_KERNELS | ({"fsdp-hybrid", "fsdp-tensor"} if ranks == 2 else set())
    assert [one.reason for one in records if one.status == "failed"] == []


@pytest.mark.full
def test_all_collectives_run_on_four_ranks_and_say_whether_they_shared_cores() -> None:
    records = measured_collectives.collectives(OPERATIONS, 4, measured_collectives.SIZES[:6])
    assert {one.status for one in records} == {"ok"}
    crowded = float(rank_records.usable_cores() < 4)
    assert {one.metrics["oversubscribed"] for one in records} == {crowded}
