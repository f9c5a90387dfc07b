import copy
import gc
import logging
import weakref

import pytest
import torch

from labbench import runtimes, zoo
from labbench.campaign import Campaign
from labbench.cells import Grid, Platform, Workload
from labbench.config import ConfigError
from labbench.measure.protocol import preset
from labbench.runtimes import ort
from labbench.runtimes.base import Unsupported
from labbench.runtimes.check import WRONG, compare

SUPPORTED = [
    (name, precision) for name in ("eager", "onnxruntime", "openvino") for precision in runtimes.get(name).precisions
]
SUPPORTED = [(name, precision) for name, precision in SUPPORTED if precision != "fp16"]


class Small(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.layers(x)
        return y, y.softmax(-1)


@pytest.fixture
def module():
    return Small().eval().requires_grad_(False)


def run(name: str, module, inputs, precision="fp32", **platform):
    prepared = runtimes.get(name).prepare(module, inputs, Platform(runtime=name, threads=1, **platform), precision)
    with torch.inference_mode():
        return prepared, prepared.outputs(prepared())


@pytest.mark.parametrize(("name", "precision"), SUPPORTED)
def test_outputs_agree_with_eager_fp32_in_order_and_type(module, name, precision):
    x = torch.randn(3, 16)
    prepared, outputs = run(name, module, (x,), precision)
    check = compare(outputs, list(module(x)), precision)
    assert check.passed, check
    assert all(tensor.dtype == torch.float32 and tensor.device.type == "cpu" for tensor in outputs)
    assert prepared.parameter_bytes > 0


@pytest.mark.parametrize("name", ["eager", "onnxruntime", "openvino"])
def test_weights_that_are_tied_count_once(name):
    tied = torch.nn.Sequential(torch.nn.Linear(256, 256, bias=False), torch.nn.Linear(256, 256, bias=False)).eval()
    tied[1].weight = tied[0].weight
    prepared, _ = run(name, tied.requires_grad_(False), (torch.randn(2, 256),))
    assert prepared.parameter_bytes == pytest.approx(256 * 256 * 4, rel=0.1)  # onnxruntime: the whole file


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_the_exporter_holds_hardly_a_weight_after_preparing(name, monkeypatch):
    monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL)  # what pytest captures holds them too
    program = zoo.build(zoo.resolve(Workload(model="bert-tiny"))).programs[0]
    inputs, weights = program.inputs, [weakref.ref(p) for p in program.module.parameters() if p.numel() > 1000]
    prepared = runtimes.get(name).prepare(program.module, inputs, Platform(runtime=name, threads=1), "fp32")
    del program
    gc.collect()
    assert prepared() is not None
    alive = sum(reference() is not None for reference in weights)
    assert alive <= 2, f"{alive} of {len(weights)} weights are still held"  # BERT's tied ones have two names


@pytest.mark.slow
def test_compiled_outputs_agree_and_leave_no_cache_behind(module, monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", None)
    x = torch.randn(3, 16)
    _, outputs = run("compile", module, (x,))
    assert compare(outputs, list(module(x)), "fp32").passed
    assert not list(tmp_path.glob("labbench-*"))


@pytest.mark.parametrize("name", ["eager", "onnxruntime", "openvino"])
def test_inputs_are_not_folded_into_the_model(module, name):
    one, two = torch.zeros(3, 16), torch.ones(3, 16)
    assert not torch.allclose(run(name, module, (one,))[1][0], run(name, module, (two,))[1][0])


class Attention(torch.nn.Module):
    """One query over some keys, under a mask that hides nothing: how transformers decodes."""

    def forward(self, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        mask = torch.ones(1, 1, 1, keys.shape[2], dtype=torch.bool)
        return torch.nn.functional.scaled_dot_product_attention(query, keys, values, attn_mask=mask)


@pytest.mark.parametrize(("name", "precision"), [one for one in SUPPORTED if one[1] != "int8"])
def test_attention_of_a_single_query_agrees_with_eager_fp32(name, precision):
    query, keys = torch.randn(1, 4, 1, 32), torch.randn(1, 4, 128, 32)
    _, outputs = run(name, Attention(), (query, keys, keys.flip(2)), precision)
    check = compare(outputs, [Attention()(query, keys, keys.flip(2))], precision)
    assert check.max_error < 0.02, check  # bf16 has 8 bits


FAMILIES_IN_CI = ("gpt2", "resnet")  # a cache, and almost no linear layer


@pytest.mark.slow
@pytest.mark.parametrize(
    "family",
    [name if name in FAMILIES_IN_CI else pytest.param(name, marks=pytest.mark.full) for name in zoo.families()],
)
def test_every_precision_of_a_family_is_right_or_unsupported_for_a_true_reason(family, tmp_path):
    axes = {"model": zoo.smallest(family), "precision": ["bf16", "int8"]}
    grid = Grid(axes=axes | {"runtime": ["eager", "onnxruntime", "openvino"]})
    protocol = preset("quick", min_time_s=0.02, max_time_s=0.1, round_s=0.01, warmup_max_s=0.1)
    for record in Campaign(grid, tmp_path / "s.h5", protocol).run(progress=False).records:
        offered = runtimes.get(record.cell.platform.runtime).precisions
        if record.cell.workload.precision in offered:
            assert record.status == "ok", record
        else:
            assert record.status == "unsupported", record
            assert record.reason.endswith(f"it has {', '.join(offered)}")


@pytest.mark.parametrize(("name", "precision"), SUPPORTED)
def test_the_module_given_is_not_changed(module, name, precision):
    before = copy.deepcopy(module.state_dict())
    run(name, module, (torch.randn(3, 16),), precision)
    after = module.state_dict()
    assert all(torch.equal(before[key], after[key]) and before[key].dtype == after[key].dtype for key in before)


def test_int8_shrinks_the_weights_and_without_linear_layers_is_unsupported(module):
    x = torch.randn(3, 16)
    assert run("eager", module, (x,), "int8")[0].parameter_bytes < run("eager", module, (x,))[0].parameter_bytes / 2
    with pytest.raises(Unsupported, match=r"no nn\.Linear"):
        run("eager", torch.nn.Conv1d(1, 1, 1).eval(), (torch.randn(1, 1, 4),), "int8")


def test_fp16_on_a_cpu_is_unsupported_with_the_way_out(module):
    with pytest.raises(Unsupported, match="use bf16"):
        run("eager", module, (torch.randn(3, 16),), "fp16")


@pytest.mark.skipif(torch.accelerator.is_available(), reason="this machine has an accelerator")
@pytest.mark.parametrize(
    ("name", "device", "hint"),
    [
        ("eager", "cuda:0", "no cuda device"),
        ("compile", "rocm:0", "no rocm device"),
        ("eager", "tpu", "knows no device"),
        ("onnxruntime", "cuda:0", "CUDAExecutionProvider"),
        ("onnxruntime", "tpu", "no execution provider"),
        ("openvino", "npu", "no device"),
    ],
)
def test_an_absent_device_is_unavailable_with_the_reason(module, name, device, hint):
    assert hint in runtimes.get(name).available(device)


@pytest.mark.parametrize("name", runtimes.names())
def test_every_built_in_runtime_is_available_on_the_cpu(name):
    assert runtimes.get(name).available("cpu") is None


def test_a_session_that_fell_back_to_the_cpu_is_unsupported_never_a_number(monkeypatch, tmp_path):
    import onnxruntime

    class Fallen:
        def __init__(self, *arguments, **options) -> None:
            pass

        def get_providers(self):
            return ["CPUExecutionProvider"]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Fallen)
    with pytest.raises(Unsupported, match="fell back to CPUExecutionProvider"):
        ort.make_session(tmp_path / "model.onnx", Platform(device="cuda:0", runtime="onnxruntime"))


def test_threads_are_those_of_the_platform(module):
    prepared, _ = run("onnxruntime", module, (torch.randn(3, 16),))
    assert prepared._session.get_session_options().intra_op_num_threads == 1


def test_a_training_step_changes_the_parameters_and_returns_its_loss():
    from labbench.cells import Workload

    work = zoo.resolve(Workload(model="bert-tiny", mode="training"))
    model = zoo.build(work)
    before = next(model.module.parameters()).detach().clone()
    prepared = runtimes.get("eager").prepare_step(model, Platform(), work)
    losses = [float(prepared.outputs(prepared())[0]) for _ in range(3)]
    assert losses[2] < losses[0]
    assert not torch.equal(before, next(model.module.parameters()))


def test_an_unknown_runtime_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match="did you mean 'openvino'"):
        runtimes.get("openvno")


@pytest.mark.parametrize(
    "outputs",
    [[], [torch.zeros(2)], [torch.full((3,), float("nan"))], [torch.full((3,), float("inf"))]],
    ids=["none", "shape", "nan", "inf"],
)
def test_an_output_that_is_no_answer_fails_the_check_with_a_finite_error(outputs):
    check = compare(outputs, [torch.ones(3)], "fp32")
    assert not check.passed
    assert check.max_error == WRONG


def test_channels_last_lays_out_images_and_convolutions_and_gives_the_same_result():
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 4, 3)).eval()
    x = torch.randn(2, 3, 16, 16)
    prepared, [output] = run("eager", module.requires_grad_(False), (x,), memory_format="channels_last")
    assert torch.allclose(output, module(x), atol=1e-5)
    assert prepared().is_contiguous(memory_format=torch.channels_last)
    assert module[0].weight.is_contiguous()


def test_channels_last_means_nothing_without_a_convolution(module):
    with pytest.raises(Unsupported, match="no two-dimensional convolution"):
        run("eager", module, (torch.randn(3, 16),), memory_format="channels_last")
