"""The largest batch from batches that ran and did not: made networks, counted tensors, a made rule for what memory they take."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from labbench.autocast import autocast
from labbench.live import Live
from labbench.operators import watch
from labbench.prediction import Graphs, PredictionError
from labbench.prediction.batch_limits import CONTEXT_BYTES, MOST_ELEMENTS, BatchLimits, demands, ladder
from labbench.prediction.graphs import by_sample

BATCHES = (61, 67)
SMALL, LARGE = 24e9, 96e9  # bytes of two devices
MOST = 2**17  # that is tried
EAGER, COMPILED = ("eager", "torch 2.4"), ("compile", "torch 2.9")


def network(width, depthwise):
    groups = width if depthwise else 1
    with torch.device("meta"):
        return nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1),
            nn.Conv2d(width, width, 3, padding=1, groups=groups),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(2 * width, 10),
        ).eval()


def traced(name, module, size):
    seen, peaks = [], []
    for batch in BATCHES:
        live = Live()
        live.see_module(module)
        image = torch.empty(batch, 3, size, size, device="meta")
        with torch.no_grad():
            seen.append(watch(lambda image=image: module(image), module, live))
        peaks.append(np.array([live.peak_bytes, live.peak_cpu_bytes]))
    each = (peaks[1] - peaks[0]) / (BATCHES[1] - BATCHES[0])
    fixed = peaks[0] - BATCHES[0] * each
    return by_sample(BATCHES, *seen).assign(
        model=name,
        precision="fp32",
        image_size=size,
        peak_bytes=each[0],
        peak_bytes_fixed=fixed[0],
        peak_copies_bytes=each[1],
        peak_copies_bytes_fixed=fixed[1],
    )


NETWORKS = {
    (f"{'light' if depthwise else 'plain'}-{width}", size): network(width, depthwise)
    for depthwise in (False, True)
    for width in (24, 40, 64, 80, 96, 130)
    for size in (96, 160, 224)
}
TABLE = pd.concat([traced(name, module, size) for (name, size), module in NETWORKS.items()], ignore_index=True)
GRAPHS = Graphs(pd.concat([TABLE.assign(fused=fused) for fused in (False, True)], ignore_index=True))


def workloads(runtime=EAGER, networks=NETWORKS):
    rows = pd.DataFrame(list(networks), columns=["model", "image_size"])
    return rows.assign(precision="fp32", runtime=runtime[0], framework=runtime[1], group=rows["model"])


def searched(frame, memory, most=MOST):
    """The made rule: tensors take half as much again as counted, of depthwise networks twice; compiled ones count in 32 bits."""
    needs, rungs = demands(frame, GRAPHS), ladder(most)
    factor = np.where(needs["indexed"] > 0, 2.0, 1.5)
    true = (memory - CONTEXT_BYTES - needs["fixed"]) / (factor * needs["each"])
    refused = MOST_ELEMENTS / needs["indexed"].replace(0, np.nan)
    true = np.where((frame["runtime"] == "compile") & (refused < true), refused, true)
    place = np.searchsorted(rungs, true, side="right") - 1
    fails_at = np.where(place + 1 < len(rungs), rungs[np.minimum(place + 1, len(rungs) - 1)], np.nan)
    return frame.assign(batch_size=rungs[place], fails_at=fails_at)


@pytest.fixture(scope="module")
def limits():
    frame = pd.concat([searched(workloads(runtime), LARGE) for runtime in (EAGER, COMPILED)], ignore_index=True)
    return BatchLimits.fit(frame, np.full(len(frame), LARGE), GRAPHS)


def test_a_ladder_has_powers_of_two_and_what_is_halfway():
    assert list(ladder(16)) == [1, 2, 3, 4, 6, 8, 12, 16]
    assert list(ladder(100))[-2:] == [64, 96]


def test_of_another_device_only_the_memory_need_be_known(limits):
    asked = workloads()
    true, rungs = searched(asked, SMALL), ladder(MOST)
    chance = limits.rungs(asked, SMALL, rungs)
    off = chance.argmax(axis=1) - np.searchsorted(rungs, true["batch_size"])
    assert (off == 0).mean() > 0.8
    assert (np.abs(off) <= 1).all()


def test_a_model_that_was_never_seen_is_foretold_within_a_rung():
    frame = searched(workloads(), LARGE)
    left_out = (frame["model"] == "plain-64").to_numpy()
    fitted = BatchLimits.fit(frame[~left_out], np.full((~left_out).sum(), LARGE), GRAPHS)
    found = fitted.rungs(frame[left_out], LARGE, ladder(MOST)).argmax(axis=1)
    assert (np.abs(found - np.searchsorted(ladder(MOST), frame.loc[left_out, "batch_size"])) <= 1).all()


def test_more_memory_never_holds_fewer_samples(limits):
    found = [limits.predict(workloads(), memory) for memory in (1e9, 4e9, 16e9, 64e9)]
    for less, more in pairwise(found):
        assert (less["batch_size"] <= more["batch_size"]).all()
    assert (found[0]["batch_size"] < found[-1]["batch_size"]).all()


def test_memory_for_not_even_one_sample_holds_none(limits):
    assert (limits.predict(workloads(), CONTEXT_BYTES)["batch_size"] == 0).all()


def test_what_should_fit_is_below_what_probably_does(limits):
    found = limits.predict(workloads(), LARGE)
    assert (found["low"] <= found["safe"]).all()
    assert (found["safe"] <= found["batch_size"]).all()
    assert (found["batch_size"] <= found["high"]).all()
    true = searched(workloads(), LARGE)
    assert (found["safe"] < true["fails_at"].fillna(np.inf)).mean() >= 0.9


def test_chances_of_rungs_add_up_to_one_where_one_sample_fits(limits):
    chance = limits.rungs(workloads(), LARGE, ladder(2**20))
    assert (chance >= 0).all()
    assert chance.sum(axis=1) == pytest.approx(1.0, abs=0.02)


def test_batches_that_stop_at_32_bit_indices_are_told_from_those_that_stop_at_memory(limits):
    assert limits.stops == {COMPILED}
    huge = 4e12
    compiled, eager = (limits.predict(workloads(runtime), huge) for runtime in (COMPILED, EAGER))
    light = workloads()["model"].str.startswith("light").to_numpy()
    assert (compiled.loc[light, "limited_by"] == "32-bit indexing").all()
    assert (compiled.loc[~light, "limited_by"] == "memory").all()
    assert (eager["limited_by"] == "memory").all()
    most = MOST_ELEMENTS / demands(workloads(), GRAPHS)["indexed"]
    assert (compiled.loc[light, "high"] <= most[light]).all()


def test_batches_that_nothing_exceeded_are_no_ground_to_stand_on():
    frame = searched(workloads(), LARGE).assign(fails_at=np.nan)
    with pytest.raises(PredictionError, match=r"known of 0 models, 10 are needed: .* a larger one failed"):
        BatchLimits.fit(frame, np.full(len(frame), LARGE), GRAPHS)


def test_tensors_that_nobody_counted_are_named():
    table = GRAPHS.operators.drop(columns="peak_bytes")
    with pytest.raises(PredictionError, match="lacks peak_bytes: trace with labbench"):
        demands(workloads(), Graphs(table))


def test_casts_of_weights_live_until_autocast_ends():
    module, image = network(24, depthwise=False), torch.empty(4, 3, 8, 8, device="meta")

    def casts(passes):
        found = watch(lambda: [module(image) for _ in range(passes)], module)
        return [one.weight_bytes for one in found if one.name == "_to_copy" and one.weight_bytes]

    with torch.no_grad(), autocast(torch.float16):
        once = casts(1)
    with torch.no_grad(), autocast(torch.float16):
        assert casts(2) == once
    assert sum(once) == 4 * sum(one.numel() for one in module.parameters())
