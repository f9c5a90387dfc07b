import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from labbench import footprint, footprint_cache, zoo
from labbench.cells import Workload
from labbench.operators import EXACT_CLASSES

# GFLOP of one forward pass = 2 × published multiply–accumulates, batch 1.
PUBLISHED = {
    "resnet-50": (2 * 4.089, "torchvision model table, ResNet50_Weights: 4.09 GFLOPS (multiply-adds)"),
    "resnet-101": (2 * 7.801, "torchvision model table, ResNet101_Weights: 7.8"),
    "vit-base": (2 * 17.564, "torchvision model table, ViT_B_16_Weights: 17.56"),
    "vit-large": (2 * 61.555, "torchvision model table, ViT_L_16_Weights: 61.55"),
    "convnext-tiny": (2 * 4.456, "torchvision model table, ConvNeXt_Tiny_Weights: 4.46"),
    "convnext-base": (2 * 15.355, "torchvision model table, ConvNeXt_Base_Weights: 15.36"),
}


@pytest.mark.parametrize("model", PUBLISHED)
def test_flops_are_the_published_ones_within_two_per_cent(model):
    [counted] = footprint.of(Workload(model=model)).values()
    exact = sum(counted.by_class[name].flops for name in EXACT_CLASSES if name in counted.by_class)
    assert exact / 1e9 == pytest.approx(PUBLISHED[model][0], rel=0.02)
    assert counted.flops / 1e9 == pytest.approx(PUBLISHED[model][0], rel=0.03)


def test_a_linear_layer_is_counted_by_hand():
    module = torch.nn.Linear(8, 4, bias=False)
    x = torch.randn(3, 8)
    counted = footprint.count(module, lambda: module(x))
    assert counted.by_class["matmul"].flops == 2 * 3 * 8 * 4
    assert counted.by_class["matmul"].bytes == 4 * (3 * 8 + 8 * 4 + 3 * 4)
    assert counted.parameters == 32
    assert counted.kernels == 1


def test_a_grouped_convolution_is_counted_forward_and_backward():
    module = torch.nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
    x = torch.randn(1, 8, 10, 10, requires_grad=True)
    forward = 2 * 8 * 100 * 9
    counted = footprint.count(module, lambda: module(x).sum().backward())
    assert counted.by_class["convolution"].flops == 3 * forward


def test_what_is_repeated_by_expanding_is_read_once():
    rows, row = torch.ones(16, 4), torch.ones(4)
    counted = footprint.count(torch.nn.Identity(), lambda: rows + row.expand(16, 4))
    assert counted.bytes == 4 * (64 + 4 + 64)


@pytest.mark.parametrize("family", list(zoo.families()))
def test_every_family_is_counted_without_running_it(family):
    work = zoo.resolve(Workload(model=zoo.smallest(family), batch_size=2))
    held = sum(p.numel() for p in zoo.build(work).module.parameters())  # tied ones once
    for mode in ("inference", "training"):
        for name, counted in footprint.of(work.model_copy(update={"mode": mode})).items():
            assert counted.flops > 0, name
            assert counted.bytes > 0
            assert counted.kernels > 0
            assert counted.parameters == held
            assert counted.flops == pytest.approx(sum(one.flops for one in counted.by_class.values()))


@pytest.mark.parametrize("model", ["bert-tiny", "resnet-tiny", "gpt2-tiny"])
def test_flops_grow_with_the_batch(model):
    one, four = (footprint.of(Workload(model=model, batch_size=n)) for n in (1, 4))
    for name in one:
        assert four[name].flops == pytest.approx(4 * one[name].flops, rel=0.01)


def test_a_training_step_costs_about_three_forward_passes():
    work = Workload(model="convnext-tiny", batch_size=2)
    forward = footprint.of(work)["forward"].flops
    step = footprint.of(work.model_copy(update={"mode": "training"}))["step"].flops
    assert 2.7 < step / forward < 3.6


def test_seven_billion_parameters_take_no_memory():
    from labbench.measure.memory import current_bytes

    before = current_bytes("cpu")
    counted = footprint.of(Workload(model="llama-7b"))
    assert counted["prefill"].parameters == 6_738_415_616
    assert counted["decode"].flops < counted["prefill"].flops / 50
    assert current_bytes("cpu") - before < 1e9


def test_a_narrower_precision_moves_fewer_bytes():
    wide, narrow = (footprint.of(Workload(model="bert-tiny", precision=p))["forward"] for p in ("fp32", "bf16"))
    assert narrow.bytes == wide.bytes / 2
    assert narrow.flops == wide.flops


# What was counted once


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """A cache of its own for every test, so that each counts."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "labbench" / "footprints"


@pytest.fixture
def counts(monkeypatch):
    """Workloads that were counted, one entry a count."""
    done, count = [], footprint._counted
    monkeypatch.setattr(footprint, "_counted", lambda workload: done.append(workload) or count(workload))
    return done


@pytest.mark.parametrize("mode", ["inference", "training"])
def test_a_count_is_made_once_and_then_the_same_from_the_cache(counts, mode):
    work = Workload(model="gpt2-tiny", mode=mode, precision="bf16")
    first, second = footprint.of(work), footprint.of(work)
    assert first == second
    assert [list(one.by_class) for one in first.values()] == [list(one.by_class) for one in second.values()]
    assert len(counts) == 1


def test_workloads_that_differ_are_counted_apart(counts):
    works = [Workload(model="bert-tiny", batch_size=n, precision=p) for n in (1, 2) for p in ("fp32", "bf16")]
    assert len({footprint.of(work)["forward"].bytes for work in works}) == 4
    assert len(counts) == 4


def test_a_cached_count_needs_no_torch(cache):
    footprint.of(Workload(model="bert-tiny"))
    code = "import sys; from labbench import footprint; from labbench.cells import Workload;"
    code += "footprint.of(Workload(model='bert-tiny')); print('torch' in sys.modules, 'transformers' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "False"]


def test_another_version_counts_again(counts, monkeypatch):
    footprint.of(Workload(model="bert-tiny"))
    monkeypatch.setattr(footprint_cache, "versions", lambda: "another")
    footprint.of(Workload(model="bert-tiny"))
    assert len(counts) == 2


@pytest.mark.parametrize("package", ["labbench", "torch", "transformers"])
def test_the_version_tells_sources_and_frameworks_apart(monkeypatch, package):
    from labbench import machine, manifest

    def versions(**changes):
        monkeypatch.setattr(machine, "software", lambda: {"torch": "1", "transformers": "1"} | changes)
        monkeypatch.setattr(manifest, "source_sha256", lambda: changes.get("labbench", "1"))
        return footprint_cache.versions.__wrapped__()

    assert versions() == versions()
    assert versions(**{package: "2"}) != versions()


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"forward": {"flops": 1}}'])
def test_a_damaged_entry_is_counted_again_and_mended(counts, cache, damage):
    whole = footprint.of(Workload(model="bert-tiny"))
    [entry] = cache.glob("*/*")
    entry.write_text(damage)
    for _ in range(2):
        assert footprint.of(Workload(model="bert-tiny")) == whole
    assert len(counts) == 2


def test_a_model_of_ones_own_is_always_counted(counts, cache, monkeypatch):
    monkeypatch.setattr(zoo, "_REGISTERED", {})
    work = Workload(model="mine")
    for width in (8, 16):  # its author changes it
        zoo.register_module(
            "mine", lambda width=width: torch.nn.Linear(width, 4), lambda n, w=width: (torch.ones(n, w),)
        )
        assert footprint.of(work)["forward"].parameters == 4 * width + 4
    assert len(counts) == 2
    assert not cache.exists()


def test_a_family_put_in_the_place_of_a_built_in_one_is_not_mistaken_for_it(counts, monkeypatch):
    monkeypatch.setattr(zoo, "_REGISTERED", {})
    footprint.of(Workload(model="bert-tiny"))
    zoo.register(replace(zoo.families()["bert"]))
    footprint.of(Workload(model="bert-tiny"))
    assert len(counts) == 2


def test_a_cache_that_cannot_be_written_does_not_matter(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert footprint.of(Workload(model="bert-tiny"))["forward"].flops > 0


def test_counts_of_old_versions_are_dropped(cache, monkeypatch):
    for number in range(footprint_cache.VERSIONS_KEPT + 3):
        monkeypatch.setattr(footprint_cache, "versions", lambda number=number: str(number))
        footprint_cache.keep(zoo.resolve(Workload(model="bert-tiny")), {})
    assert len(list(cache.iterdir())) == footprint_cache.VERSIONS_KEPT
