import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from labbench import machine
from labbench.machine import ceilings
from labbench.machine.datasheet import datasheet, datasheets
from labbench.machine.detect import pci_accelerators
from labbench.machine.doctor import examine
from labbench.measure import energy, memory, noise

pytestmark = pytest.mark.alone


def test_the_fingerprint_is_plain_data_and_its_id_stable(monkeypatch):
    one = machine.detect()
    assert json.loads(json.dumps(one)) == one
    assert machine.machine_id(one) == machine.machine_id(machine.detect())
    monkeypatch.setenv("LABBENCH_HOST", "another box of the same kind")
    assert machine.machine_id(one) != machine.machine_id({**one, "memory_bytes": one["memory_bytes"] // 4})


def test_two_boxes_of_one_kind_have_two_ids(monkeypatch):
    one = machine.detect()
    ids = set()
    for host in ("a", "b"):
        monkeypatch.setenv("LABBENCH_HOST", host)
        ids.add(machine.machine_id(one))
    assert len(ids) == 2


def test_the_default_thread_count_respects_what_this_process_may_use():
    from labbench.machine.detect import allowed_cores

    assert 1 <= machine.physical_cores() <= len(allowed_cores())


def test_a_cpu_quota_limits_the_default_thread_count(monkeypatch):
    monkeypatch.setattr(sys.modules["labbench.machine.detect"], "cpu_quota", lambda: 1.5)
    assert machine.physical_cores() == 1


def test_versions_are_found_without_importing():
    versions = machine.software()
    assert {"python", "torch", "transformers", "labbench"} <= set(versions)


@pytest.mark.slow
def test_ceilings_are_measured_once_and_then_cached(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    in_a_process = subprocess.run

    def briefly(command, **options):
        assert command[:3] == [sys.executable, "-m", "labbench.machine.ceilings"]
        code = "from labbench.machine import ceilings as c; c.BUDGET_S = 1; print(c.json.dumps(c._measure('cpu', 1)))"
        return in_a_process([sys.executable, "-c", code], **options)

    monkeypatch.setattr(ceilings.subprocess, "run", briefly)
    found = ceilings.measured(threads=1)
    assert found["gemm_flops"]["fp32"] > 1e8
    assert found["bandwidth_bytes_s"] > 1e7
    assert 0 < found["dispatch_s"] < 1e-2
    [file] = (tmp_path / "labbench").glob("*.json")
    file.write_text(json.dumps({**found, "dispatch_s": 42, "quiet": True}))
    assert ceilings.measured(threads=1)["dispatch_s"] == 42


def ceiling(rate, quiet, dispatch_s=1e-6):
    return {
        "gemm_flops": {"fp32": rate},
        "bandwidth_bytes_s": rate / 10,
        "dispatch_s": dispatch_s,
        "quiet": quiet,
        "disturbed_by": [] if quiet else ["other processes kept 1.00 cores busy"],
        "attempts": 1,
    }


def test_disturbed_ceilings_are_measured_again_and_the_better_figures_count(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = iter([ceiling(5e9, False), ceiling(9e9, False, 3e-6), ceiling(8e9, True, 2e-6), ceiling(99e9, True)])

    def run(*_, **__):
        return subprocess.CompletedProcess([], 0, stdout=json.dumps(next(found)), stderr="")

    monkeypatch.setattr(ceilings.subprocess, "run", run)
    assert ceilings.measured()["gemm_flops"]["fp32"] == 5e9
    assert ceilings.measured()["gemm_flops"]["fp32"] == 9e9
    last = ceilings.measured()
    assert (last["gemm_flops"]["fp32"], last["dispatch_s"], last["attempts"]) == (9e9, 1e-6, 3)
    assert last["quiet"]
    assert ceilings.measured() == last  # quiet: not measured again
    assert ceilings.measured(refresh=True)["gemm_flops"]["fp32"] == 99e9


def test_a_machine_that_is_never_quiet_is_not_measured_for_ever(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    runs = []

    def run(*_, **__):
        runs.append(1)
        return subprocess.CompletedProcess([], 0, stdout=json.dumps(ceiling(1e9, False)), stderr="")

    monkeypatch.setattr(ceilings.subprocess, "run", run)
    for _ in range(ceilings.MAX_ATTEMPTS + 3):
        ceilings.measured()
    assert len(runs) == ceilings.MAX_ATTEMPTS


def test_accelerators_on_the_bus_are_seen_without_a_driver(tmp_path):
    for name, kind, vendor, device in (
        ("0000:01:00.0", "0x030200", "0x10de", "0x2330"),
        ("0000:02:00.0", "0x030000", "0x1234", "0x1111"),  # a virtual display
        ("0000:03:00.0", "0x020000", "0x8086", "0x10d3"),  # a network card
    ):
        folder = tmp_path / name
        folder.mkdir()
        for key, text in (("class", kind), ("vendor", vendor), ("device", device)):
            (folder / key).write_text(text + "\n")
    assert pci_accelerators(tmp_path) == ["NVIDIA 0x2330"]
    one = machine.detect()
    assert machine.machine_id(one) != machine.machine_id({**one, "pci_accelerators": ["NVIDIA 0x2330"]})


@pytest.mark.parametrize(
    ("device", "sheet"),
    [
        ("NVIDIA GeForce RTX 4090", "GeForce RTX 4090"),
        ("NVIDIA GeForce RTX 4090 D", "GeForce RTX 4090 D"),
        ("NVIDIA A100-SXM4-40GB", "A100 SXM4 40 GB"),
        ("NVIDIA A100 80GB PCIe", "A100 PCIe 80 GB"),
        ("Tesla V100-PCIE-32GB", "Tesla V100 PCIe 32 GB"),
        ("Tesla T4", "Tesla T4"),
        ("NVIDIA H100 80GB HBM3", "H100 SXM5 80 GB"),
        ("NVIDIA H100 PCIe", "H100 PCIe 80 GB"),
        ("NVIDIA L4", "L4"),
    ],
)
def test_the_datasheet_of_a_known_device_is_found(device, sheet):
    found = datasheet(device)
    assert found is not None
    assert found.name == sheet
    assert found.bandwidth_bytes_s > 1e11


@pytest.mark.parametrize("device", ["AMD EPYC", "NVIDIA", "NVIDIA GeForce RTX", "NVIDIA GeForce RTX 9999", "", "A100"])
def test_no_datasheet_is_better_than_a_wrong_one(device):
    assert datasheet(device) is None


@pytest.mark.parametrize(
    ("name", "cards"),
    [
        ("rtx5090", ["GeForce RTX 5090"]),
        ("4090", ["GeForce RTX 4090"]),
        ("5070ti", ["GeForce RTX 5070 Ti"]),
        ("pro6000maxq", ["RTX PRO 6000 Blackwell Max-Q"]),
        ("rtxpro6000", ["RTX PRO 6000 Blackwell"]),
        ("rtx6000ada", ["RTX 6000 Ada Generation"]),
        ("a6000", ["RTX A6000"]),
        ("a100-80gb", ["A100 PCIe 80 GB", "A100 SXM4 80 GB"]),
        ("h100_pcie", ["H100 PCIe 80 GB", "H100 PCIe 96 GB"]),
        ("rtx6000", []),  # cards of three generations, five times apart
        ("5090d3", []),
        ("rtx", []),
        ("", []),
    ],
)
def test_a_short_name_stands_for_cards_that_are_alike_or_for_none(name, cards):
    assert sorted(sheet.name for sheet in datasheets(name)) == cards


@pytest.mark.parametrize(
    ("device", "rate"),  # FLOP/s in half precision by the makers' data sheets: dense, accumulated in single precision
    [
        ("Tesla V100 SXM2 16 GB", 125e12),
        ("Tesla T4", 65e12),
        ("NVIDIA A100-SXM4-40GB", 312e12),
        ("NVIDIA A10", 125e12),
        ("RTX 3090", 71e12),
        ("RTX 4090", 165.2e12),
        ("NVIDIA L4", 121e12),
        ("L40", 181e12),
        ("NVIDIA H100 80GB HBM3", 989.4e12),
        ("RTX 5090", 209.5e12),
        ("RTX PRO 6000 Blackwell", 503.8e12),
        ("B200", 2250e12),
    ],
)
def test_tensor_cores_are_as_fast_as_their_makers_say(device, rate):
    assert datasheets(device)[0].peak("amp") == pytest.approx(rate, rel=0.1)


def test_single_precision_and_cards_without_tensor_cores_run_on_the_others():
    assert datasheet("RTX 4090").peak("fp32") == pytest.approx(82.6e12, rel=0.01)
    assert datasheet("Tesla T4").peak("bf16") == datasheet("Tesla T4").flops["fp32"]
    pascal = datasheet("GTX 1080 Ti")
    assert pascal.peak("amp") == pascal.flops["fp32"]


def test_peak_memory_sees_an_allocation_and_is_reset():
    size = 200 * 2**20
    with memory.peak("cpu") as empty:
        pass
    with memory.peak("cpu") as full:
        block = np.ones(size // 8)
        del block
    with memory.peak("cpu") as after:
        pass
    assert full.method
    assert full.bytes - empty.bytes == pytest.approx(size, rel=0.1)
    assert after.bytes - empty.bytes < size / 4


def test_memory_of_a_process_that_is_gone_is_none():
    assert memory.rss_of(2**22 + 1) is None


@pytest.fixture
def powercap(tmp_path: Path) -> Path:
    for socket in (0, 1):
        zone = tmp_path / f"intel-rapl:{socket}"
        (tmp_path / f"intel-rapl:{socket}:0").mkdir()
        zone.mkdir()
        (zone / "energy_uj").write_text("1000000")
        (zone / "max_energy_range_uj").write_text("10000000")
    return tmp_path


def test_energy_adds_up_all_sockets(powercap):
    meter = energy.meter("cpu", powercap)
    meter.start()
    for socket in (0, 1):
        (powercap / f"intel-rapl:{socket}" / "energy_uj").write_text("3500000")
    assert meter.stop() == pytest.approx(5.0)
    assert meter.method


def test_an_energy_counter_that_wrapped_is_put_right(powercap):
    meter = energy.meter("cpu", powercap)
    meter.start()
    (powercap / "intel-rapl:0" / "energy_uj").write_text("500000")
    assert meter.stop() == pytest.approx(9.5)


def test_without_a_counter_there_is_a_reason(tmp_path):
    meter = energy.meter("cpu", tmp_path)
    meter.start()
    assert meter.stop() is None
    assert "no RAPL counter" in meter.reason
    assert "no energy counter" in energy.meter("mps").reason


def test_a_quiet_stretch_is_quiet_and_a_wide_spread_is_not():
    calm = noise.Evidence(wall_s=1, cpu_s=2, busy_s=1.0, own_s=1.0, steal_s=0)
    assert noise.verdict(calm, 0.02).verdict == "quiet"
    assert noise.verdict(calm, 0.15).verdict == "noisy"
    assert noise.verdict(calm, 0.30).verdict == "unstable"


@pytest.mark.parametrize(
    ("evidence", "hint"),
    [
        (noise.Evidence(wall_s=1, cpu_s=2, busy_s=1.9, own_s=1.0), "0.90 cores"),
        (noise.Evidence(wall_s=1, cpu_s=2, busy_s=1.0, own_s=1.0, steal_s=0.4), "20.0%"),
    ],
)
def test_other_load_and_stolen_time_make_it_unstable_and_say_so(evidence, hint):
    found = noise.verdict(evidence, 0.01)
    assert found.verdict == "unstable"
    assert hint in found.reasons[0]


def test_too_little_evidence_claims_nothing():
    found = noise.verdict(noise.Evidence(wall_s=0.01, cpu_s=0.02, busy_s=0.02), 0.01)
    assert found.other_load is None
    assert found.verdict == "quiet"


def test_a_busy_neighbour_is_seen():
    import subprocess
    import sys

    hog = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        probe = noise.NoiseProbe()
        probe.start()
        total = noise.Evidence()
        while total.wall_s < 1:
            [x * x for x in range(100_000)]
            total = probe.stop()
    finally:
        hog.kill()
        hog.wait()
    assert noise.verdict(total, 0.01).other_load > 0.3


@pytest.mark.slow
def test_the_doctor_gives_json_and_text_of_the_same():
    report = examine()
    assert json.loads(json.dumps(report.to_dict()))["machine"]["id"] in str(report)


def test_the_doctor_names_what_is_missing_and_the_way_out():
    report = examine()
    lacking = replace(
        report,
        machine={**report.machine, "accelerators": [], "pci_accelerators": ["NVIDIA 0x2330"]},
        ceilings={
            "cpu": {**report.ceilings["cpu"], "quiet": False, "disturbed_by": ["other processes kept 1.50 cores busy"]}
        },
        runtimes={"openvino": {"cpu": "openvino is not installed: pip install 'labbench[runtimes]'"}},
    )
    text = str(lacking)
    assert "NVIDIA 0x2330. Install a torch built for it: make study TORCH=own" in text
    assert "other processes kept 1.50 cores busy. Measure again on a quiet machine: labbench doctor --measure" in text
    assert "missing: openvino is not installed: pip install" in text
