"""Operators of the zoo's workloads, traced when they are asked about."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from labbench import footprint, zoo
from labbench.cells import Workload
from labbench.operators import VIEWS, folded, watch
from labbench.prediction import tracing
from labbench.prediction.graphs import TRAFFIC
from labbench.prediction.tracing import ZooGraphs


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """A cache of its own for every test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "labbench" / "operators"


def rows(*workloads, runtime="eager"):
    """Rows of a store's frame, one for each series."""
    return pd.DataFrame([
        work.model_dump() | {"series": series, "runtime": runtime}
        for work in map(zoo.resolve, workloads) for series in footprint.of(work)
    ])  # fmt: skip


@pytest.mark.parametrize("workload", [
    Workload(model="gpt2-tiny", batch_size=4),  # two series
    Workload(model="wav2vec2-tiny", batch_size=2, audio_s=0.5, precision="bf16"),
    Workload(model="resnet-tiny", batch_size=8, mode="training"),
])  # fmt: skip
def test_operators_add_up_to_the_footprint_at_batch_sizes_that_were_not_traced(workload):
    graphs, frame = ZooGraphs(), rows(workload)
    operators = graphs.at(frame)
    operators = operators[~operators["kind"].isin(VIEWS.values())]  # which footprints do not count
    count = operators["count"]
    for row, demand in enumerate(footprint.of(workload).values()):
        these = operators["row"] == row
        assert (operators["flops"] * count)[these].sum() == pytest.approx(demand.flops, rel=1e-3)
        assert (operators[list(TRAFFIC)].sum(axis=1) * count)[these].sum() == pytest.approx(demand.bytes, rel=0.01)
        assert count[these].sum() == demand.kernels


def test_what_was_traced_is_not_traced_again_here_nor_in_the_next_process(monkeypatch, cache):
    frame = rows(Workload(model="bert-tiny"), Workload(model="bert-tiny", batch_size=8))
    traced, trace = [], tracing.trace
    monkeypatch.setattr(tracing, "trace", lambda work: traced.append(work) or trace(work))
    graphs = ZooGraphs()
    first = graphs.at(frame)
    pd.testing.assert_frame_equal(graphs.at(frame), first)
    assert len(traced) == 1
    pd.testing.assert_frame_equal(ZooGraphs().at(frame), first)
    assert len(traced) == 1
    [entry] = cache.glob("*/*")
    entry.write_bytes(b"damaged")
    pd.testing.assert_frame_equal(ZooGraphs().at(frame), first)
    assert len(traced) == 2


def test_models_that_the_zoo_does_not_have_and_those_that_cannot_be_traced_are_unknown(monkeypatch, cache):
    def refuses(_):
        raise RuntimeError("looks at its input")

    monkeypatch.setattr(zoo, "_REGISTERED", {})
    zoo.register_module("mine", lambda: nn.Linear(8, 4), lambda n: (torch.ones(n, 8),))
    fails = nn.Linear(8, 4)
    fails.forward = refuses
    zoo.register_module("fails", lambda: fails, lambda n: (torch.ones(n, 8),))
    frame = pd.DataFrame({"model": ["efficientnet_b0", "mine", "fails"], "series": "forward", "runtime": "eager"})
    frame = frame.assign(mode="inference", precision="fp32", batch_size=1)
    graphs = ZooGraphs()
    assert (graphs.number(frame) >= 0).tolist() == [False, True, False]
    assert graphs.unknown(frame) == [
        "its operators cannot be traced: the zoo has no such model",
        None,
        "its operators could not be traced: RuntimeError: looks at its input",
    ]
    assert [(work.model, reason) for work, reason in graphs.why_not.items()] == [
        ("fails", "RuntimeError: looks at its input")
    ]
    assert not cache.exists()


def test_the_window_of_pooling_is_the_same_backwards():
    image = torch.ones(1, 2, 8, 8, requires_grad=True)
    seen = watch(lambda: nn.functional.max_pool2d(image, 3).sum().backward())
    assert [one.window for one in seen if one.label == "pooling"] == [9, 9]
    assert np.prod([one.window for one in seen]) == 81


def test_views_are_told_as_what_copying_them_would_move():
    image, layer = torch.ones(2, 8, 4, 4), nn.Linear(8, 3)
    seen = watch(lambda: layer(image.permute(0, 2, 3, 1)[:, :2]), layer, views=True)
    told = {one.kind: one.written_bytes for one in seen if one.kind in VIEWS.values()}
    assert told == {"transpose": 4 * 256, "slice": 4 * 128}  # and not the weight, which is transposed once and for all
    assert not [one for one in watch(lambda: image.permute(0, 2, 3, 1)) if one.kind in VIEWS.values()]


def test_exporting_runtimes_fold_norms_and_activations_into_convolutions():
    body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.ReLU()).eval()
    seen = watch(lambda: body(torch.ones(2, 3, 8, 8)), body)
    assert [one.kind for one, gone in zip(seen, folded(seen), strict=True) if gone] == ["batch_norm", "activation"]
    assert not any(folded([one for one in seen if one.label != "convolution"]))


def test_a_frozen_batch_norm_is_folded_as_any_other_and_a_sum_of_two_images_is_not():
    body, scale, shift = nn.Conv2d(3, 8, 3).eval(), torch.rand(8, 1, 1), torch.rand(8, 1, 1)

    def call():
        image = body(torch.ones(2, 3, 8, 8)) * (scale + 1e-5).rsqrt() + shift
        return image.relu() + image

    seen = watch(call, body)
    gone = [one.name for one, folds in zip(seen, folded(seen), strict=True) if folds]
    assert gone == ["mul", "add", "relu"]
    assert [one.name for one in seen].count("add") == 3
