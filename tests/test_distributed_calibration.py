"""What the simulator makes of measured links and layers: messages that share a link, buckets, steps of ranks that wait."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labbench.config import ConfigError
from labbench.distributed.calibration import CPU, Calibration
from labbench.distributed.cluster import Cluster, Link
from labbench.distributed.collectives_model import Collectives, Measured
from labbench.distributed.schedules import overlap, shared
from labbench.distributed.simulate import simulate
from labbench.distributed.sizes import Layers
from labbench.distributed.step import SINGLE, Segment, Step, Strategy, bucketed

MIB = 2.0**20
SIZES = np.array([MIB / 4, MIB, 12 * MIB])
costs = st.lists(st.tuples(st.floats(0, 5), st.floats(0, 5)), min_size=1, max_size=8)


@settings(deadline=None)
@given(costs)
def test_one_message_at_a_time_is_a_queue(messages):
    ready = np.cumsum([gap for gap, _ in messages]).tolist()
    cost = [one for _, one in messages]
    assert shared(ready, [cost]) == pytest.approx(float(overlap(ready, cost)))


@settings(deadline=None)
@given(costs, st.floats(1, 2))
def test_two_at_a_time_end_between_a_queue_and_all_at_once(messages, slower):
    ready = np.cumsum([gap for gap, _ in messages]).tolist()
    cost = [one for _, one in messages]
    found = shared(ready, [cost, [slower * one for one in cost]])
    assert found <= float(overlap(ready, cost)) * (1 + 1e-9) + 1e-9
    assert found >= max(when + one for when, one in zip(ready, cost, strict=True)) * (1 - 1e-9)


def test_two_messages_by_hand():
    # 2 s alone, 3 s in company: the first has done 1/2 when the second comes at 1, is through at 2.5, the second 1/4 s later
    assert shared([0.0, 1.0], [[2.0, 2.0], [3.0, 3.0]]) == pytest.approx(2.5 + 2 * (1 - 1.5 / 3))
    assert shared([0.0, 0.0, 0.0], [[2.0] * 3, [3.0] * 3]) == pytest.approx(3 + 2)


def test_what_is_not_measured_of_two_at_once_shares_the_link_but_no_latency():
    link = Link(0.5, 4e9)
    prices = Collectives(Cluster(CPU, 2, 1, link, link), "ring", channels=2)
    group = prices.cluster.group(2, 1)
    small, large = 0.4e9, 8e9  # two ranks send all bytes of an all-reduce once: 0.1 s and 2 s, and 2 x 0.5 s of latency
    assert prices.seconds("all_reduce", small, group, 1) == pytest.approx(1.1)
    assert prices.seconds("all_reduce", small, group, 2) == pytest.approx(1.1)
    assert prices.seconds("all_reduce", large, group, 2) == pytest.approx(4.0)


def test_what_is_measured_of_two_at_once_comes_first_and_scales_as_a_ring():
    alone = Measured("all_reduce", 2, SIZES, 0.01 + SIZES / 1e8)
    pair = Measured("all_reduce", 2, SIZES, 0.012 + 2 * SIZES / 1e8, at_once=2)
    link = Link(0.0, 1.0)
    for ranks, hops, share in ((2, 1, 1), (4, 3, 1.5)):
        prices = Collectives(Cluster(CPU, ranks, 1, link, link), "ring", (alone, pair), channels=2)
        group = prices.cluster.group(ranks, 1)
        assert prices.seconds("all_reduce", MIB, group) == pytest.approx(hops * 0.01 + share * MIB / 1e8, rel=1e-3)
        assert prices.seconds("all_reduce", MIB, group, 2) == pytest.approx(
            hops * 0.012 + share * 2 * MIB / 1e8, rel=1e-3
        )


def test_gradients_in_two_channels_by_hand():
    """Three segments, ready at 2, 4, 6, whose all-reduces have 4 s of latency and no bytes to speak of."""
    link = Link(2.0, 1e15)
    step = Step([Segment(1.0, 2.0, 1.0)] * 3, states=SINGLE)
    one, two = (
        simulate(step, Strategy(data=2), Collectives(Cluster(CPU, 2, 1, link, link), "ring", channels=channels), 1)
        for channels in (1, 2)
    )
    assert one.parts_s["gradients"] == pytest.approx(2 + 3 * 4 - 6)
    assert two.parts_s["gradients"] == pytest.approx(6 + 4 - 6)


def test_without_overlap_a_sharded_step_is_all_its_messages_and_passes():
    link = Link(0.0, 4e9)
    step = Step([Segment(1.0, 2.0, 1e9)] * 4, states=SINGLE)  # half of 4 GB each way: 0.5 s a message
    prices = Collectives(Cluster(CPU, 2, 1, link, link), "ring")
    serial = simulate(step, Strategy(data=2, zero=3, overlap=False), prices, 1)
    assert serial.step_s == pytest.approx(4 * (1 + 2) + 4 * 3 * 0.5)
    zero2 = simulate(step, Strategy(data=2, zero=2, overlap=False), prices, 1)  # weights are gathered after the update
    assert zero2.step_s == pytest.approx(4 * (1 + 2) + 4 * 2 * 0.5)
    assert simulate(step, Strategy(data=2, zero=3), prices, 1).step_s < serial.step_s


def test_buckets_are_those_of_distributed_data_parallel():
    """A bucket closes with the gradient that fills it, from the last layer on; nothing is lost."""
    layers = [Segment(1.0, 2.0, MIB / 4, update_s=0.5, working_bytes=index) for index in range(5)]  # 1 MiB each
    for cap, first, counts in ((1, None, [1] * 5), (2, None, [1, 2, 2]), (25, None, [5]), (25, MIB, [4, 1])):
        found = bucketed(layers, cap * MIB, first)
        assert [one.parameters / (MIB / 4) for one in found] == counts
        assert sum(one.backward_s for one in found) == 10
        assert max(one.working_bytes for one in found) == 4


def test_buckets_are_those_that_pytorch_makes():
    torch = pytest.importorskip("torch")
    import torch.distributed as dist

    sizes = [300_000, 10, 200_000, 262_144, 1, 500_000, 40_000]
    tensors = [torch.empty(size) for size in reversed(sizes)]  # gradients come from the last one on
    for cap in (1, 2):
        made, _ = dist._compute_bucket_assignment_by_size(tensors, [int(cap * MIB)])
        segments = [Segment(0.0, 0.0, size) for size in sizes]
        wanted = [sum(tensors[index].numel() for index in bucket) for bucket in made][::-1]
        assert [one.parameters for one in bucketed(segments, cap * MIB)] == wanted


PRICES = (("all_reduce", 1, 1), ("all_reduce", 2, 1), ("all_gather", 1, 0.5), ("reduce_scatter", 1, 1))


def results(ranks=2, layers=3, alpha=0.001, beta=1e-8):
    rows = [
        {"operation": name, "size_bytes": size, "at_once": many, "seconds": [alpha + many * share * beta * size] * 3}
        for name, many, share in PRICES
        for size in SIZES
    ]
    one = {
        "collectives": rows,
        "forward_s": [[0.01] * layers] * 6,
        "backward_s": [[0.02] * layers] * 6,
        "update_s": [0.003] * 6,
        "step_s": {"ddp-1": [0.3], "fsdp alone": [0.093 + 0.006] * 3},
    }
    return [one] * ranks


def test_a_calibration_tells_the_steps_that_it_was_made_from_by_hand():
    sizes = Layers(layers=3)  # 1 MiB each
    made = Calibration.of(results(), sizes)
    assert made.scatter == 0
    assert made.computing_s == pytest.approx(3 * 0.03 + 0.003)
    assert made.overhead_s == {"fsdp": pytest.approx(0.006)}
    reduce, gather = 0.001 + MIB * 1e-8, 0.001 + MIB * 0.5e-8
    # a bucket a layer is through before the next one comes: the last one shows
    assert made.simulated("ddp-1", 2).step_s == pytest.approx(made.computing_s + reduce, rel=1e-3)
    late = made.simulated("ddp-1", 2, overlap=False).parts_s["gradients"]
    assert late == pytest.approx(0.001 + 3 * MIB * 1e-8, rel=0.03)  # between sizes that were timed, by their logs
    fsdp = made.simulated("fsdp", 2)  # weights gathered twice, gradients scattered, nothing hidden; shards are updated
    assert fsdp.parts_s["gather"] == pytest.approx(3 * (2 * gather + reduce), rel=1e-3)
    assert fsdp.step_s == pytest.approx(0.09 + 0.006 + 0.003 / 2 + fsdp.parts_s["gather"], rel=1e-3)
    nominal = made.simulated("ddp-1", 2, link=Link(0.0, 1e8))
    assert nominal.parts_s["gradients"] == pytest.approx(MIB / 1e8, rel=1e-3)
    with pytest.raises(ConfigError, match="no mode 'tensor'"):
        made.simulated("tensor", 2)


def test_ranks_that_wait_after_every_pass_wait_for_its_slowest():
    link = Link(0.0, 4e9)
    step = Step([Segment(1.0, 2.0, 1e9)] * 4, states=SINGLE)
    prices = Collectives(Cluster(CPU, 4, 1, link, link, scatter=0.01, pass_scatter=0.1), "ring")
    slowest = {
        overlap: simulate(step, Strategy(data=4, zero=3, overlap=overlap), prices, 1).parts_s["slowest"]
        for overlap in (True, False)
    }
    assert slowest[False] == pytest.approx(10 * slowest[True])
    assert slowest[True] == pytest.approx(0.01 * 1.0294 * 12, rel=1e-3)  # the mean of the largest of four normal draws


def test_scatter_is_between_ranks_of_a_step_not_between_steps():
    two = results()
    slow = {**two[0], "forward_s": (np.array(two[0]["forward_s"]) * np.arange(1, 7)[:, None]).tolist()}
    assert Calibration.of([slow, slow], Layers(layers=3)).scatter == 0
    assert Calibration.of([two[0], slow], Layers(layers=3)).scatter > 0
