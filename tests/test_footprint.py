import pytest
import torch

from labbench import footprint, zoo
from labbench.cells import Workload

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
    exact = sum(counted.by_class[name].flops for name in footprint.EXACT_CLASSES if name in counted.by_class)
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


@pytest.mark.parametrize("family", list(zoo.families()))
def test_every_family_is_counted_without_running_it(family):
    work = Workload(model=zoo.smallest(family), batch_size=2)
    for mode in ("inference", "training"):
        for name, counted in footprint.of(work.model_copy(update={"mode": mode})).items():
            assert counted.flops > 0, name
            assert counted.bytes > 0
            assert counted.kernels > 0
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
