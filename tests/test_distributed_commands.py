"""Commands for several hosts, as text."""

import shlex

import pytest

from labbench import cli
from labbench.config import ConfigError
from labbench.distributed import measured, measured_collectives
from labbench.distributed.commands import for_slurm, hosts_of, over_ssh, prepare, torchrun
from labbench.distributed.job import Beat, Job, read_json, write_json
from labbench.distributed.rank_cells import cell, checked_cell, collective_cell, fault_cell
from labbench.distributed.sizes import Shape, shape_of


def test_each_host_runs_the_same_torchrun_and_all_meet_at_the_first() -> None:
    lines = [shlex.split(line) for line in over_ssh(["me@alpha", "beta"], "/jobs/my job", 4)]
    assert [line[-2] for line in lines] == ["me@alpha", "beta"]
    inner = {line[-1] for line in lines}
    assert inner == {torchrun("/jobs/my job", 2, 4, "alpha")}
    words = shlex.split(inner.pop())
    assert words[-1] == "/jobs/my job"
    assert "--nnodes=2" in words
    assert "--rdzv-endpoint=alpha:29400" in words


def test_the_slurm_script_meets_at_the_first_node_of_its_allocation() -> None:
    script = for_slurm("/jobs/one", 3, 8, minutes=5)
    assert script.startswith("#!/bin/bash\n#SBATCH")
    assert "#SBATCH --nodes=3\n#SBATCH --ntasks-per-node=1\n" in script
    assert '--rdzv-endpoint="$HOST":29400' in script
    assert "--nnodes=3" in script


def test_a_host_list_may_have_comments_and_slots() -> None:
    assert hosts_of("# ours\nalpha slots=4\n\nbeta  # old\n") == ["alpha", "beta"]


def test_no_hosts_are_refused() -> None:
    with pytest.raises(ConfigError, match="no hosts"):
        over_ssh([], "x", 1)
    with pytest.raises(ConfigError, match="0 nodes"):
        torchrun("x", 0, 1, "alpha")


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        (cell("fsdp", 4, {}), "run --ranks 4 --strategy fsdp --model decoder --batch-size 8 --seq-len 16"),
        (cell("ddp", 2, {"width": 64}), "run --ranks 2 --strategy ddp --model decoder-8x64-4h-64v --batch-size 8"),
        (cell("one", 1, {}), "scale --ranks 1 --model decoder --batch-size 8 --seq-len 16"),
        (checked_cell("tensor", 2), "correct --ranks 2 --strategy tensor"),
        (collective_cell("all_reduce", 2), "collectives --ranks 2 --operation all_reduce"),
        (fault_cell("kill", "ddp", 2), "faults --ranks 2 --strategy ddp --fault kill"),
    ],
)
def test_what_ranks_measured_says_the_command_that_measures_it(cell, words) -> None:
    assert cell.command.startswith(f"labbench distributed {words}")


@pytest.mark.parametrize("shape", [{}, {"layers": 2, "batch": 4}, {"width": 64, "heads": 8, "tokens": 3}])
def test_a_models_name_tells_its_sizes(shape) -> None:
    sizes = Shape(**shape)
    assert Shape(**shape_of(sizes.name, sizes.batch, sizes.tokens)) == sizes


def test_a_model_that_ranks_do_not_train_is_refused() -> None:
    with pytest.raises(ConfigError, match="ranks train no model 'bert'"):
        shape_of("bert")
    with pytest.raises(ConfigError, match="3 heads do not share a width of 64"):
        shape_of("decoder-2x64-3h-64v")


def test_a_job_is_written_and_what_an_earlier_one_left_is_gone(tmp_path, capsys) -> None:
    (tmp_path / "result0.json").write_text("[]")
    (tmp_path / "hosts").write_text("alpha\nbeta\n")
    words = ["--hosts", str(tmp_path / "hosts"), "--folder", str(tmp_path), "--ranks", "4", "--strategy", "fsdp"]
    assert cli.main(["distributed", "commands", *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.startswith("ssh") for line in lines] == [True, True, False]
    assert lines[-1].endswith(f"labbench distributed watch --folder {tmp_path} --ranks 8")
    assert not (tmp_path / "result0.json").exists()
    job = Job.model_validate(read_json(tmp_path / "job.json"))
    assert (job.task, job.options["modes"], job.options["steps"]) == ("steps", ["fsdp"], 21)


def ranks_said(step_s: float) -> list[dict[str, object]]:
    times = {"step_s": [step_s] * 5, "backward_s": [step_s / 2] * 5, "silent_s": None, "busy_s": None}
    return [{"mode": "ddp", "memory": {}, "hook": None, "trace": None, "bubble": None, **times}]


def test_watching_makes_records_of_what_ranks_elsewhere_did(tmp_path) -> None:
    prepare(tmp_path, ["ddp"], 5, "fp64", {})
    for rank, step_s in enumerate((1.0, 2.0)):
        write_json(tmp_path / f"result{rank}.json", ranks_said(step_s))
    (record,) = measured.watched(tmp_path, 2)
    assert record.status == "ok"
    assert record.cell == cell("ddp", 2, {})
    assert record.primary
    assert record.primary.latency_s == 2.0


def test_a_rank_elsewhere_that_raises_is_named_though_its_process_cannot_be_seen(tmp_path) -> None:
    prepare(tmp_path, ["ddp"], 5, "fp64", {})
    for rank in range(2):
        beat = Beat(rank=rank, pid=2**22 + 1, count=3, attempt=0, where="joined", at_s=0.0, host="elsewhere")
        (tmp_path / f"beat{rank}").write_text(beat.model_dump_json())
    error = {"status": "failed", "reason": "ValueError: made to fail", "of_peer": False, "at_s": 1.0, "attempt": 0}
    write_json(tmp_path / "error1.json", error)
    (record,) = measured.watched(tmp_path, 2)
    assert (record.status, record.metrics["failing_rank_0"]) == ("failed", 1.0)
    assert "made to fail" in (record.reason or "")


def test_a_folder_without_a_job_says_how_to_get_one(tmp_path) -> None:
    with pytest.raises(ConfigError, match="labbench distributed commands"):
        measured.watched(tmp_path, 2)


@pytest.mark.parametrize("device", ["cuda", "xpu"])
def test_a_device_that_is_not_here_is_unsupported_and_no_rank_is_started(device, monkeypatch) -> None:
    import torch

    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setattr(measured, "launch", None)
    monkeypatch.setattr(measured_collectives, "launch", None)
    records = [
        measured.alone(device=device),
        *measured.strategies(["ddp"], 2, device=device),
        *measured_collectives.collectives(["all_reduce"], 2, device=device),
    ]
    assert {record.status for record in records} == {"unsupported"}
    assert all(f"no {device} device here" in (record.reason or "") for record in records)
    assert {record.cell.platform.device for record in records} == {device}
    assert records[-1].cell.platform.runtime == {"cuda": "nccl", "xpu": "xccl"}[device]
