import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

from labbench.campaign import Campaign, groups, resolve
from labbench.cells import Cell, Grid
from labbench.config import ConfigError
from labbench.measure.protocol import preset
from labbench.store import Store, StoreLocked

pytestmark = pytest.mark.alone

FAST = preset("quick", min_time_s=0.02, max_time_s=0.1, round_s=0.01, warmup_max_s=0.1)
MODELS = ["bert-tiny", "gpt2-tiny", "resnet-tiny", "vit-tiny"]


def test_cells_are_completed_before_they_get_their_id():
    [cell] = resolve([Cell.of(model="bert-tiny")])
    assert cell.workload.task == "fill-mask"
    assert cell.workload.seq_len == 128
    assert resolve([Cell.of(model="bert-tiny", seq_len=128)]) == [cell]


@pytest.mark.parametrize(
    ("fields", "hint"),
    [
        ({"model": "bert-tini"}, "did you mean 'bert-tiny'?"),
        ({"model": "bert-tiny", "runtime": "eagr"}, "did you mean 'eager'?"),
        ({"model": "bert-tiny", "frames": 8}, "it uses seq_len"),
    ],
)
def test_an_unknown_name_is_refused_before_anything_runs(fields, hint, tmp_path):
    with pytest.raises(ConfigError) as error:
        Campaign([Cell.of(**fields)], tmp_path / "s.h5")
    assert hint in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("size", "lengths"), [(2, [2, 1] * 4), (3, [3] * 4), (4, [3] * 4), (7, [6, 6]), (50, [12])])
def test_groups_keep_a_workload_together_where_it_fits(size, lengths):
    cells = resolve(Grid(axes={"model": MODELS, "runtime": ["eager", "compile", "openvino"]}).cells())
    parts = list(groups(cells, size))
    assert [len(part) for part in parts] == lengths
    assert [cell for part in parts for cell in part] == cells


@pytest.mark.slow
def test_what_is_stored_and_valid_is_not_measured_again(tmp_path):
    path = tmp_path / "s.h5"
    cells = [Cell.of(model="bert-tiny", threads=1)]
    first = Campaign(cells, path, FAST).run(progress=False)
    assert first.counts == {"ok": 1}
    again = Campaign(cells, path, FAST).run(progress=False)
    assert (again.kept, again.counts) == (1, {})
    other_protocol = FAST.model_copy(update={"min_samples": 12})
    assert Campaign(cells, path, other_protocol).run(progress=False).counts == {"ok": 1}
    assert Campaign(cells, path, FAST, rerun=True).run(progress=False).counts == {"ok": 1}
    assert len(Store(path)) == 3


@pytest.mark.slow
def test_a_platform_that_is_absent_is_recorded_as_unsupported_with_the_reason(tmp_path):
    cells = [
        Cell.of(model="bert-tiny", device="cuda:0"),
        Cell.of(model="bert-tiny", device="cuda:0", runtime="onnxruntime"),
        Cell.of(model="bert-tiny", runtime="openvino", precision="int8"),
        Cell.of(model="bert-tiny", runtime="onnxruntime", mode="training"),
    ]
    records = Campaign(cells, tmp_path / "s.h5", FAST).run(progress=False).records
    assert [record.status for record in records] == ["unsupported"] * 4
    reasons = " ".join(record.reason or "" for record in records)
    for hint in ("no cuda device", "CUDAExecutionProvider", "has no int8", "has no training mode"):
        assert hint in reasons


def test_a_store_in_use_is_refused_with_the_holder_named(tmp_path):
    path = tmp_path / "s.h5"
    with Store(path, writable=True), pytest.raises(StoreLocked, match=str(os.getpid())):
        Campaign([Cell.of(model="bert-tiny")], path, FAST).run(progress=False)


CODE = """
import sys
from labbench import Campaign, Grid
from labbench.measure.protocol import preset
protocol = preset("quick", min_time_s=0.02, max_time_s=0.1, round_s=0.01, warmup_max_s=0.1)
grid = Grid(axes={"model": ["bert-tiny", "gpt2-tiny", "resnet-tiny", "vit-tiny"], "threads": 1, "batch_size": [1, 2, 3]})
print(Campaign(grid, sys.argv[1], protocol).run())
"""
CELLS = 12


def start(path) -> subprocess.Popen:
    """A campaign that heeds Ctrl-C, which what a shell has put into the background does not."""
    return subprocess.Popen(
        [sys.executable, "-c", CODE, str(path)], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def children_of(pid: int) -> list[int]:
    import psutil

    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


@pytest.mark.slow
@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.full)])
def test_kill_9_at_random_moments_loses_and_repeats_nothing_and_no_worker_outlives_it(tmp_path, kills):
    import psutil

    path = tmp_path / "0.h5"
    rng = random.Random(0)
    acknowledged: set[str] = set()
    for number in range(kills):
        campaign = start(path)
        assert campaign.stderr is not None
        campaign.stderr.readline()  # a new record is stored; workers of the next group are there, some of them stopped
        family = [psutil.Process(pid) for pid in children_of(campaign.pid)]
        time.sleep(rng.uniform(0, 3))  # the random moment
        if number % 2:
            os.killpg(campaign.pid, signal.SIGKILL)
        else:
            os.kill(campaign.pid, signal.SIGKILL)  # the campaign alone, not its group
        campaign.wait()
        _, alive = psutil.wait_procs(family, timeout=20)
        assert not alive
        kept = {record.record_id for record in Store(path).records()}
        assert acknowledged < kept
        acknowledged = kept
        if len(kept) == CELLS:  # finished: go on killing a new one
            path, acknowledged = tmp_path / f"{number + 1}.h5", set()
    final = start(path)
    _, errors = final.communicate(timeout=300)
    assert final.returncode == 0, errors
    counts = Counter(record.cell_id for record in Store(path).records())
    assert len(counts) == CELLS
    assert set(counts.values()) == {1}
    assert acknowledged <= {record.record_id for record in Store(path).records()}


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_stored_and_the_next_run_goes_on(tmp_path):
    import psutil

    path = tmp_path / "s.h5"
    campaign = start(path)
    assert campaign.stderr is not None
    campaign.stderr.readline()  # the first record is stored
    family = [psutil.Process(pid) for pid in children_of(campaign.pid)]
    os.kill(campaign.pid, signal.SIGINT)
    output, _ = campaign.communicate(timeout=60)
    assert "interrupted: run the same command again to go on" in output
    stored = len(Store(path))
    assert 1 <= stored < CELLS
    _, alive = psutil.wait_procs(family, timeout=20)  # the server of workers ends when it sees that the campaign has
    assert not alive
    final = start(path)
    output, errors = final.communicate(timeout=300)
    assert f"{CELLS - stored} ok; {stored} kept" in output, errors
