import pytest
import torch
from torch import nn

from labbench import operators


class Attention(nn.Module):
    def forward(self, x):
        return nn.functional.scaled_dot_product_attention(x, x, x)


MODULES = {
    "pointwise": (nn.Conv2d(8, 16, 1), (2, 8, 6, 6), (72, 16, 8, 1)),
    "patch": (nn.Conv2d(3, 16, 4, stride=4), (2, 3, 8, 8), (8, 16, 48, 1)),
    "depthwise": (nn.Conv2d(8, 8, 3, padding=1, groups=8), (2, 8, 6, 6), (72, 1, 9, 8)),
    "grouped": (nn.Conv2d(8, 8, 3, padding=1, groups=2), (2, 8, 6, 6), (72, 4, 36, 2)),
    "transposed": (nn.ConvTranspose2d(8, 4, 2, stride=2), (2, 8, 6, 6), (72, 4, 32, 1)),
    "convolution": (nn.Conv2d(8, 16, 3, padding=1), (2, 8, 6, 6), (72, 16, 72, 1)),
    "linear": (nn.Linear(8, 4), (2, 5, 8), (10, 4, 8, 1)),
    "attention": (Attention(), (2, 3, 5, 8), (5, 5, 8, 6)),
    "batch_norm": (nn.BatchNorm2d(8).eval(), (2, 8, 6, 6), (0, 0, 0, 1)),
    "layer_norm": (nn.LayerNorm(8), (2, 8), (0, 0, 0, 1)),
}


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("kind", MODULES)
def test_an_operator_is_told_by_kind_and_size(kind, device):
    module, shape, size = MODULES[kind]
    module, x = module.to(device), torch.zeros(shape, device=device)
    with torch.no_grad():
        [found] = [
            one for one in operators.watch(lambda: module(x), module) if one.label not in ("copy", "elementwise")
        ]
    assert found.kind == kind
    assert (found.m, found.n, found.k, found.groups) == size
    if 0 not in size:
        products = 2 if kind == "attention" else 1
        assert found.flops == products * 2 * found.m * found.n * found.k * found.groups
    assert found.weight_bytes == 4 * sum(p.numel() for p in (*module.parameters(), *running(module)))


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_equal_operators_share_a_row(device):
    module = nn.Sequential(*(nn.Linear(8, 8) for _ in range(3)), nn.Linear(8, 4)).to(device)
    x = torch.zeros(2, 8, device=device)
    found = operators.table(operators.watch(lambda: module(x), module))
    assert list(found["count"]) == [3, 1]
    assert (found["flops"] * found["count"]).sum() == 2 * 2 * 8 * (3 * 8 + 4)


def test_a_backward_pass_has_operators_of_its_own():
    module = nn.Conv2d(8, 8, 3, groups=8)
    found = operators.table(operators.watch(lambda: module(torch.zeros(1, 8, 5, 5)).sum().backward(), module))
    [forward, backward] = found[found["kind"] == "depthwise"].itertuples()
    assert not forward.backward
    assert backward.backward
    assert (forward.m, forward.k) == (backward.m, backward.k) == (9, 9)


def test_all_that_autograd_runs_is_the_backward_pass_whatever_its_name():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(3, 2), nn.Flatten(), nn.LazyLinear(2))
    module(torch.zeros(1, 3, 9, 9))
    found = operators.watch(lambda: module(torch.zeros(1, 3, 9, 9)).sum().backward(), module)
    products = [one.backward for one in found if one.kind == "linear"]
    assert products[0] is False
    assert all(products[1:])
    assert len(products) > 1
    assert [one.window for one in found if "max_pool2d" in one.name] == [9, 9]


def test_what_is_remembered_on_meta_is_what_was_made():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.conv = nn.BatchNorm2d(8).eval(), nn.Conv2d(8, 8, 3, stride=2, padding=1)

        def forward(self, x):
            return x + nn.functional.interpolate(
                self.conv(self.norm(x)).clone().relu_(), scale_factor=2, mode="bicubic"
            )

    module = nn.Sequential(*(Block() for _ in range(3))).to("meta")
    x = torch.zeros(2, 8, 6, 6, device="meta").to(memory_format=torch.channels_last)
    made = []
    with torch.no_grad():
        seen = operators.table(operators.watch(lambda: made.append(module(x)), module))
        plain = module(x)
    assert set(seen["count"]) == {3}
    assert {"batch_norm", "convolution", "copy", "activation", "resample", "elementwise"} == set(seen["kind"])
    assert (made[0].shape, made[0].stride(), made[0].dtype) == (plain.shape, plain.stride(), plain.dtype)


def running(module):
    return [b for name, b in module.named_buffers() if name.startswith("running")]


def test_what_is_read_across_the_order_of_the_output_is_told():
    def added(one, other):
        return operators.watch(lambda: one + other)[-1]

    plain, crossed = torch.zeros(4, 6, 8), torch.zeros(6, 8, 4).permute(2, 0, 1)
    assert added(plain, plain).apart_bytes == 0
    told = added(plain, crossed)
    assert told.apart_bytes == crossed.nbytes
    assert (
        told.apart_span == 6 * 8 * operators.SECTOR_BYTES
    )  # the next of the first dimension is read after a whole plane
    assert added(torch.zeros(2, 4, 6, 8), crossed[None]).apart_bytes == 2 * crossed.nbytes
    assert added(plain, torch.zeros(4, 1, 8)).apart_bytes == 0


@pytest.mark.parametrize(("mode", "alone"), [("nearest", 1), ("bilinear", 2 * 5)])
def test_interpolation_goes_through_images_one_by_one_unless_a_compiler_makes_its_kernel(mode, alone):
    image = torch.empty(2, 5, 8, 8, device="meta")
    found = operators.watch(lambda: torch.nn.functional.interpolate(image, scale_factor=2, mode=mode))
    assert [one.groups for one in found if one.kind == "resample"] == [alone]
    assert [one.groups for one in operators.fused(found) if one.kind == "resample"] == [1]
    last = image.contiguous(memory_format=torch.channels_last)
    found = operators.watch(lambda: torch.nn.functional.interpolate(last, scale_factor=2, mode=mode))
    assert [one.groups for one in found if one.kind == "resample"] == [1]


def test_an_lstm_is_a_product_for_all_steps_and_a_product_and_a_kernel_for_each():
    layer = nn.LSTM(16, 8, num_layers=2, bidirectional=True, batch_first=True).to("meta")
    given, shapes = torch.empty(4, 5, 16, device="meta"), []

    def call():
        output, state = layer(given)
        shapes.extend(tuple(one.shape) for one in (output, *state))

    with torch.no_grad():
        found = operators.table(operators.watch(call, layer)).set_index("name")
    assert shapes == [(4, 5, 16), (4, 4, 8), (4, 4, 8)]
    products = found.loc["addmm"].sort_values("m")
    assert products[["m", "n", "k", "count"]].to_numpy().tolist() == [[4, 32, 8, 20], [20, 32, 16, 4]]
    assert found.loc["_thnn_fused_lstm_cell", "count"] == 20  # two layers, two directions, five steps
    assert found.loc["_thnn_fused_lstm_cell", "written_bytes"] == 2 * 4 * 8 * 4


@pytest.mark.parametrize("layer", [nn.LSTM(16, 8, bias=False), nn.LSTM(16, 8, proj_size=4), nn.GRU(16, 8)])
def test_other_recurrent_layers_are_taken_apart(layer):
    with torch.no_grad():
        found = operators.watch(lambda: layer.to("meta")(torch.empty(5, 4, 16, device="meta")), layer)
    assert "sigmoid_" in {one.name for one in found}


def test_the_backward_pass_of_an_lstm_is_seen():
    layer = nn.LSTM(16, 8).to("meta")
    found = operators.watch(lambda: layer(torch.empty(5, 4, 16, device="meta"))[0].sum().backward(), layer)
    assert any(one.backward and one.kind == "linear" for one in found)
