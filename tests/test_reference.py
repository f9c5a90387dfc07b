"""A reference measured in turn: the other environment, what becomes of it in the store, and histories by ratio."""

import json
import os
import subprocess
import sys
import sysconfig
import textwrap
import venv
from datetime import timedelta
from pathlib import Path

import numpy as np
import psutil
import pytest
import shell
from test_history import NEW, OLD, START, run, tables
from test_store import ENVIRONMENT, make_record

import labbench
from labbench import zoo
from labbench.analysis import history, history_report
from labbench.analysis.regressions import compared, regressions
from labbench.campaign import Campaign, resolve
from labbench.cells import Cell
from labbench.config import ConfigError
from labbench.measure import group
from labbench.measure.interpreter import Interpreter
from labbench.measure.protocol import preset
from labbench.registry import Registry
from labbench.store import Store

pytestmark = pytest.mark.alone

QUICK = {"min_time_s": 0.02, "max_time_s": 0.1, "round_s": 0.01, "warmup_max_s": 0.1}
FAST = preset("quick", processes=2, **QUICK)
PACKAGE = """
import ctypes

import torch

from labbench import zoo


class Fragile(torch.nn.Module):
    def forward(self, x):
        return {fragile}


zoo.register_module("steady", lambda: torch.nn.Linear(64, 64), lambda batch: (torch.randn(batch, 64),))
zoo.register_module("fragile", Fragile, lambda batch: (torch.randn(batch, 64),))
"""


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> Path:
    """The Python of another environment with the same packages, but for one that another version is installed of."""
    folder = tmp_path_factory.mktemp("release")
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    asked = [str(python), "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"]
    site = Path(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip())
    paths = sysconfig.get_paths()
    (site / "same.pth").write_text(f"{paths['purelib']}\n{paths['platlib']}\n")
    (site / "house.py").write_text(PACKAGE.format(fragile="ctypes.string_at(0)"))
    return python


@pytest.fixture(scope="module")
def campaign(reference, tmp_path_factory):
    """``labbench run`` of a package's models beside the release of that package, twice."""
    folder = tmp_path_factory.mktemp("today")
    (folder / "house.py").write_text(PACKAGE.format(fragile="x + 1"))
    path = folder / "study.h5"
    config = folder / "config.json"
    grid = {"axes": {"model": ["steady", "fragile"], "threads": [1]}}
    config.write_text(json.dumps({"grids": [grid], "protocol": "quick", "protocol_changes": QUICK}))
    command = [
        "run",
        "--config",
        config,
        "--store",
        path,
        "--no-progress",
        "--plugin",
        "house",
        "--reference",
        reference,
    ]
    with pytest.MonkeyPatch.context() as here:
        root = Path(labbench.__file__).parents[1]
        here.setenv("PYTHONPATH", f"{folder}{os.pathsep}{root}")
        here.syspath_prepend(folder)
        here.setattr(zoo, "_PLUGINS", [])
        here.setattr(zoo, "_REGISTERED", Registry("model"))
        ran = [shell.labbench(*command), shell.process(*command)]  # here, where a server of workers may run already
    sys.modules.pop("house")
    assert [one.returncode for one in ran] == [0, 0], ran[0].stderr + ran[1].stderr
    return Store(path), [one.stdout for one in ran]


@pytest.mark.slow
def test_a_cell_and_its_reference_are_two_records_of_two_environments(campaign):
    store, _ = campaign
    [record] = store.records(store.latest(model="steady")["record_id"])
    [reference] = store.records([record.reference_id])
    assert (record.status, reference.status, reference.is_reference, record.is_reference) == ("ok", "ok", True, False)
    assert (record.cell, record.machine_id, record.campaign_id) == (
        reference.cell,
        reference.machine_id,
        reference.campaign_id,
    )
    here, there = (store.environments()[one.environment_id] for one in (record, reference))
    differing = {name for name in here.software if here.software[name] != there.software.get(name)}
    assert differing == {"model steady", "model fragile"}
    assert there.software["torch"]


@pytest.mark.slow
def test_a_reference_that_crashes_leaves_the_record_as_it_is(campaign):
    store, [first, _] = campaign
    [record] = store.records(store.latest(model="fragile")["record_id"])
    assert (record.status, record.reference_id) == ("ok", None)
    rows = store.frame(model="fragile", references=True)
    [failed] = store.records(rows.loc[rows["status"] == "failed", "record_id"])
    assert failed.is_reference
    assert "SIGSEGV" in failed.reason
    assert "ctypes" in failed.stderr_tail
    assert "2 ok" in first
    assert (
        "1 with a reference, 1 without (failed in the reference environment: the worker was ended by SIGSEGV" in first
    )


@pytest.mark.slow
def test_what_is_stored_is_kept_and_references_are_no_cells(campaign):
    store, [_, second] = campaign
    assert "nothing new; 2 kept" in second
    assert len(store.records()) == 4
    assert len(store.frame()) == len(store.latest()) == 2


@pytest.mark.slow
def test_rounds_take_turns_with_the_reference_in_alternating_order(reference):
    stages = []
    cells = resolve([Cell.of(model="bert-tiny", threads=1)])
    other = Interpreter(reference)
    try:
        records = list(group.measure(cells, FAST, threads=1, reference=other, on_stage=stages.append))
    finally:
        other.close()
    beside, record = records
    assert (beside.is_reference, record.reference_id) == (True, beside.record_id)
    order = [text.endswith("(reference)") for text in stages if text.startswith("round")]
    assert order[:8] == [False, True, True, False, False, True, True, False]
    mine, its = (set(zip(one.primary.samples.process, one.primary.samples.round, strict=True)) for one in records)
    assert {(process, index) for process in (0, 1) for index in range(3)} <= mine & its


@pytest.mark.slow
def test_no_worker_outlives_a_campaign_that_was_killed(reference, tmp_path):
    script = f"""
        import os, psutil, signal
        from labbench.campaign import resolve
        from labbench.cells import Cell
        from labbench.measure import group
        from labbench.measure.interpreter import Interpreter
        from labbench.measure.protocol import preset

        def stage(text):
            if text.startswith("round 1 "):
                print(*(child.pid for child in psutil.Process().children(recursive=True)), flush=True)
                os.kill(os.getpid(), signal.SIGKILL)

        cells = resolve([Cell.of(model="bert-tiny", threads=1)])
        list(group.measure(cells, preset("quick", **{QUICK}), threads=1, reference=Interpreter({str(reference)!r}), on_stage=stage))
    """
    killed = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True, timeout=120
    )
    assert killed.returncode == -9
    pids = killed.stdout.split()
    assert len(pids) >= 5  # two servers, their two workers, multiprocessing's tracker
    _, alive = psutil.wait_procs([psutil.Process(int(pid)) for pid in pids if psutil.pid_exists(int(pid))], timeout=30)
    assert not alive


def test_what_is_no_reference_is_refused_before_anything_is_measured(tmp_path):
    cells = [Cell.of(model="bert-tiny")]
    with pytest.raises(ConfigError, match=r"no reference /no/python: No such file.*where labbench is installed"):
        Campaign(cells, tmp_path / "s.h5", FAST, reference="/no/python")
    venv.create(tmp_path / "bare", symlinks=True)
    python = tmp_path / "bare" / "bin" / "python"
    with pytest.raises(
        ConfigError, match=r"bare/bin/python cannot run labbench: .*No module named .*; install labbench"
    ):
        Campaign(cells, tmp_path / "s.h5", FAST, reference=python)
    assert not (tmp_path / "s.h5").exists()


# --- what becomes of it -----------------------------------------------------------------------------------------------


def pairs(rng, shifts, drift, environments=None, **changes):
    """A record and its reference a day: ``drift`` is in both, ``shifts`` in the record alone."""
    found = []
    for i, (shift, common) in enumerate(zip(shifts, drift, strict=True)):
        away = environments[i] if environments else OLD
        beside = run(rng, i, -5.3 + common, away)
        beside = beside.model_copy(update={"reference_id": beside.record_id})
        found += [beside, run(rng, i, -5.0 + common + shift, NEW, reference_id=beside.record_id, **changes)]
    return found


def runs_of(records):
    return history.runs(*tables(records), {one.id: one for one in (OLD, NEW)})


def swings(rng, runs: int) -> np.ndarray:
    """A machine that gets slower by a fifth half-way, and is never the same two days running."""
    return 0.2 * (np.arange(runs) >= runs // 2) + rng.normal(0, 0.08, runs)


def test_what_the_machine_does_to_both_is_no_change():
    rng = np.random.default_rng(0)
    runs = runs_of(pairs(rng, np.zeros(14), swings(rng, 14)))
    assert len(runs) == 14
    assert history.change_points(runs).empty
    assert runs["log_s"].std() < 0.03


def test_a_shift_in_the_cell_alone_is_found_whatever_the_machine_does():
    from labbench.records import Noise

    rng = np.random.default_rng(1)
    records = pairs(rng, 0.05 * (np.arange(14) >= 5), swings(rng, 14), noise=Noise(verdict="unstable"))
    runs = runs_of(records)
    [point] = history.change_points(runs).itertuples()
    assert (point.verdict, point.at) == ("slower", START + timedelta(days=5))
    assert abs(point.ratio - 1.05) < 0.02
    assert 0.8 < point.mean_before_s / np.exp(-5.0 + 0.1) < 1.2  # still seconds
    text = history_report.changed(history.change_points(runs), runs)
    assert "relative to a reference" in text
    assert "torch 2.12.0" in text
    assert "unstable machine" not in text


def test_another_reference_begins_another_history():
    rng = np.random.default_rng(2)
    environments = [OLD] * 6 + [NEW] * 6
    records = pairs(rng, np.zeros(12), np.zeros(12), environments)
    records += [run(rng, 12 + i, -5.0) for i in range(4)]  # and none at all a third
    runs = runs_of(records)
    assert runs.groupby("history").size().tolist() == [6, 6, 4]
    assert runs.groupby("history")["reference"].nunique(dropna=False).eq(1).all()


def test_regressions_are_judged_by_the_ratio():
    rng = np.random.default_rng(3)

    def judged(shift: float):
        table, samples = tables(pairs(rng, [0.0, shift], [0.0, 0.3]))
        return regressions(table, samples[samples["record_id"].isin(compared(table))])

    [same] = judged(0.0).itertuples()
    [slower] = judged(0.12).itertuples()
    assert (same.regressed, slower.regressed, slower.verdict) == (False, True, "slower")
    assert abs(slower.ratio - np.exp(0.12)) < 0.03


def test_the_newest_of_a_cell_is_never_a_reference(tmp_path):
    record = make_record(environment_id=ENVIRONMENT.id)
    later = make_record(started_at=record.started_at + timedelta(hours=1), environment_id=ENVIRONMENT.id)
    later = later.model_copy(update={"reference_id": later.record_id, "cell": record.cell})
    with Store(tmp_path / "s.h5", writable=True) as store:
        store.extend([record, later], [ENVIRONMENT])
        assert store.latest()["record_id"].tolist() == store.frame()["record_id"].tolist() == [record.record_id]
        assert store.coverage([record.cell])["records"].tolist() == [1]
        assert store.pin("v1").record_ids == [record.record_id]
        assert len(store.frame(references=True)) == len(store.history(record.cell)) == 2
