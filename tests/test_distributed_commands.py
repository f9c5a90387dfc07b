"""Commands for several hosts, as text."""

import shlex

import pytest

from labbench.config import ConfigError
from labbench.distributed.commands import for_slurm, hosts_of, over_ssh, torchrun


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
