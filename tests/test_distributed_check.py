"""What the check of the simulator makes of runs: made ones, of which everything is known."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from labbench.distributed import gloo
from labbench.distributed.calibration import Calibration
from labbench.distributed.cluster import Link
from labbench.distributed.namespaces import BURST_BYTES, Wire
from labbench.distributed.sizes import Layers

MIB = 2**20
SIZES = {"all_reduce": (1, (MIB // 4, MIB, 4 * MIB, 12 * MIB)), "all_reduce x2": (2, (MIB // 4, MIB, 4 * MIB, 8 * MIB))}
SIZES |= dict.fromkeys(("all_gather", "reduce_scatter"), (1, (MIB // 2, MIB, 2 * MIB)))


@pytest.fixture(scope="module")
def check():
    path = Path(__file__).parents[1] / "benchmarks" / "simulator_check.py"
    spec = importlib.util.spec_from_file_location("simulator_check", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def made(ranks: int, link: Link, steps: dict[str, list[float]]) -> list[dict[str, object]]:
    rows = []
    for name, (many, sizes) in SIZES.items():
        operation = name.split()[0]
        for size in sizes:
            seconds = float(gloo.seconds(operation, size, ranks, link, many))
            rows.append({"operation": operation, "at_once": many, "size_bytes": size, "seconds": [seconds] * 3})
    one = {
        "collectives": rows,
        "forward_s": [[0.005] * 12] * 6,
        "backward_s": [[0.015] * 12] * 6,
        "update_s": [0.001] * 6,
    }
    return [{**one, "step_s": steps}] * ranks


def test_every_cell_is_compared_and_a_link_that_changes_with_ranks_is_refused(check, tmp_path, capsys):
    chosen = json.loads(check.SETTINGS.read_text())
    setting = check.Setting(Wire(1e8), 8 * MIB, "emulated")
    true = Link(0.001, setting.wire.payload_bytes_s, "measured", BURST_BYTES)
    single = {f"{mode} alone": [0.241] * 6 for mode in ("ddp-25", "fsdp")}
    truth = Calibration.of(made(2, true, single), Layers(**chosen["emulated"]), BURST_BYTES)
    for ranks in (2, 4):
        steps = {mode: [1.1 * truth.simulated(mode, ranks).step_s] * 6 for mode in chosen["modes"]}
        for rate, where in ((1.0, tmp_path / "good"), (0.9 if ranks == 4 else 1.0, tmp_path / "bad")):
            where.mkdir(exist_ok=True)
            link = Link(true.alpha_s, rate * true.bytes_s, "measured", BURST_BYTES)
            content = {"link": {"trip_s": 0.002, "bytes_s": 1e7}, "ranks": made(ranks, link, {**steps, **single})}
            (where / f"{setting.name}_{ranks}.json").write_text(json.dumps(content))
    good, bad = (pd.DataFrame(check.compared(setting, chosen, tmp_path / name)) for name in ("good", "bad"))
    assert len(good) == len(bad) == len(chosen["modes"]) * 2
    assert good["simulated_off"].to_numpy() == pytest.approx(1 / 1.1 - 1)
    assert good["accepted"].all()
    assert bad["accepted"].tolist() == (bad["ranks"] == 2).tolist()
    assert bad["gate_off"].max() == pytest.approx(0, abs=1e-12)
    assert bad["gate_off"].min() == pytest.approx(-0.1, abs=0.01)
    (tmp_path / "good" / f"{setting.name}_4.json").unlink()
    gone = pd.DataFrame(check.compared(setting, chosen, tmp_path / "good"))  # a run that failed is reported, too
    assert gone["accepted"].tolist() == gone["measured_s"].notna().tolist() == (gone["ranks"] == 2).tolist()
    assert len(check.compared(setting, chosen, tmp_path)) == len(gone) == len(good)
    lines = check.table(bad).splitlines()
    assert len(lines) == 2 + len(chosen["modes"])
    assert lines[2].startswith("| emulated | 100 | 0 | ddp-1 | ")
    assert all(line.count("| -9.1 |") == 2 and line.count("(refused)") == 1 for line in lines[2:])
    check.report(bad, tmp_path / "bad")
    said = capsys.readouterr().out
    assert "emulated, 2 ranks, 4 of 4 cells: simulated 9.1 (9.1)" in said
    assert "MISSED" in said  # 4 % in the mean is the goal
    assert "emulated, 4 ranks: none of 4 cells passed" in said


def test_settings_are_those_that_were_promised(check):
    chosen = json.loads(check.SETTINGS.read_text())
    settings = check.all_settings(chosen, None)
    emulated = [one for one in settings if one.compute == "emulated"]
    assert len({one.wire.bit_s for one in emulated}) >= 3
    assert len({one.wire.delay_s for one in emulated} - {0}) >= 2
    assert sum(mode.startswith("ddp-") for mode in chosen["modes"]) >= 3
    assert "fsdp" in chosen["modes"]
    assert len(emulated) * len(chosen["modes"]) * len(chosen["worlds"]) >= 24
    assert all(check.worlds(one, chosen) == [2] for one in settings if one.compute == "real")
    assert len(np.unique([one.name for one in settings])) == len(settings)
