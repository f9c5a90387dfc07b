"""Commands for several hosts, as text."""

import shlex

import pytest

from labbench.config import ConfigError
from labbench.distributed.commands import for_slurm, hosts_of, over_ssh, torchrun
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
