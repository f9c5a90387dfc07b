"""Steps simulated pass by pass: time, memory, the slowest of many and failures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labbench.config import ConfigError
from labbench.distributed.cluster import Accelerator, Cluster, Link
from labbench.distributed.collectives_model import Collectives
from labbench.distributed.compute import LAWS, Compute
from labbench.distributed.reliability import Training, expected_slowest, expected_slowest_of
from labbench.distributed.simulate import simulate
from labbench.distributed.step import MEGATRON, SINGLE, ZERO, Segment, Step, Strategy, transformer_step
from labbench.distributed.transformer import Transformer, published
from labbench.prediction.kernel_laws import LAUNCH_S

DEVICE = Accelerator("made", 100e12, 120e12, 1e12, 80e9, 100, 60e12)
SEGMENT = Segment(forward_s=1.0, backward_s=2.0, parameters=1e9, update_s=0.5, kept_bytes=1e9)


def collectives(ranks, bytes_s=4e9, alpha_s=0.0, taken=0.0, **more):
    link = Link(alpha_s, bytes_s)
    return Collectives(Cluster(replace(DEVICE, taken_by_messages=taken), 1, ranks, link, link, **more), "ring")


def steps(layers=4, **more):
    return Step([replace(SEGMENT, **more)] * layers, boundary_bytes=4e9, states=SINGLE)


def test_one_rank_takes_the_sum_of_its_parts():
    found = simulate(steps(), Strategy(), collectives(1), 3)
    assert found.step_s == 3 * 4 * 3.0 + 4 * 0.5
    assert found.exposed_s == 0
    assert found.memory.total == 4e9 * (4 + 4 + 8) + 4e9
    assert found.provenance == found.as_dict()["provenance"] == "simulated"


def test_gradients_of_ddp_travel_behind_the_backward_pass_by_hand():
    # 4 GB of each segment, halves exchanged twice at 4 GB/s: 1 s each, ready at 2, 4, 6, 8: only the last shows
    found = simulate(steps(), Strategy(data=2), collectives(2), 1)
    assert found.parts_s["gradients"] == pytest.approx(1.0)
    assert found.step_s == pytest.approx(4 * 3 + 1 + 4 * 0.5)
    # 4 s each: the first is ready at 2, all are through at 18, 10 s after the backward pass of 8
    slow = simulate(steps(), Strategy(data=2), collectives(2, 1e9), 1)
    assert slow.parts_s["gradients"] == pytest.approx(10.0)
    assert simulate(steps(), Strategy(data=2, overlap=False), collectives(2, 1e9), 1).parts_s[
        "gradients"
    ] == pytest.approx(16)


def test_messages_that_take_a_part_of_the_device_slow_what_hides_them_by_hand():
    # 1 s of a message beside three passes of 2 s, at four fifths: 0.2 s longer each; the last message shows
    found = simulate(steps(), Strategy(data=2), collectives(2, taken=0.2), 1)
    assert found.parts_s["gradients"] == pytest.approx(3 * 0.2 + 1)
    assert found.parts_s["compute"] == pytest.approx(4 * 3)
    # where messages are the slower ones, computing waits for them anyway
    slow = simulate(steps(), Strategy(data=2), collectives(2, 1e9, taken=0.2), 1)
    assert slow.parts_s["gradients"] == pytest.approx(10.0)
    # half a second each: forward beside three gathers, backward beside three gathers and three scatters
    zero3 = simulate(steps(), Strategy(data=2, zero=3), collectives(2, taken=0.2), 2)
    assert zero3.parts_s["gather"] == pytest.approx(2 * (1.5 + 0.2 * 0.5 * 9))
    zero2 = simulate(steps(), Strategy(data=2, zero=2), collectives(2, taken=0.2), 1)
    assert zero2.parts_s["gather"] == pytest.approx(0.5 + 0.2 * 0.5 * 3)


def test_the_stages_of_zero_by_hand():
    zero1 = simulate(steps(), Strategy(data=2, zero=1), collectives(2), 1)
    assert zero1.parts_s["gradients"] == pytest.approx(0.5)  # half of an all-reduce
    assert zero1.parts_s["weights"] == pytest.approx(4 * 0.5)
    assert zero1.parts_s["update"] == pytest.approx(4 * 0.5 / 2)
    zero3 = simulate(steps(), Strategy(data=2, zero=3), collectives(2), 2)
    # each micro-batch: the first gather forward and backward, and the last scatter
    assert zero3.parts_s["gather"] == pytest.approx(2 * (0.5 + 0.5 + 0.5))
    assert zero3.parts_s["gradients"] == zero3.parts_s["weights"] == 0


def test_a_pipeline_by_hand():
    found = simulate(steps(), Strategy(pipeline=2), collectives(2), 4)
    passes = (2 + 1) + (4 + 1)  # two layers each way, a second for each message
    assert found.step_s == pytest.approx((4 + 1) * passes + 2 * 0.5)
    assert found.parts_s["bubble"] == pytest.approx(passes)
    assert found.parts_s["stages"] == pytest.approx(4 * 2)
    assert found.memory.activations == 2 * 2e9


def test_parts_add_up_and_a_straggler_slows_all():
    mixed = Strategy(data=2, pipeline=2, zero=1)
    found = simulate(steps(), mixed, collectives(4), 4)
    assert sum(found.parts_s.values()) == pytest.approx(found.step_s)
    slow = simulate(steps(), mixed, collectives(4), 4, slow=1.5)
    assert slow.parts_s["slowest"] == pytest.approx(0.5 * (found.parts_s["compute"] + found.parts_s["update"]))


@settings(deadline=None, max_examples=40)
@given(
    data=st.sampled_from([1, 2, 4]),
    pipeline=st.sampled_from([1, 2, 4]),
    zero=st.sampled_from([0, 1, 2, 3]),
    count=st.integers(1, 6),
    times=st.floats(1, 20),
    taken=st.sampled_from([0.0, 0.15]),
)
def test_more_bandwidth_is_never_slower_and_nothing_beats_no_communication(data, pipeline, zero, count, times, taken):
    strategy = Strategy(data=data, pipeline=pipeline, zero=zero)
    slow = simulate(steps(), strategy, collectives(strategy.ranks, taken=taken), count)
    fast = simulate(steps(), strategy, collectives(strategy.ranks, times * 4e9, taken=taken), count)
    assert fast.step_s <= slow.step_s * (1 + 1e-12)
    assert slow.step_s >= slow.parts_s["compute"] + slow.parts_s["update"]
    assert min(slow.parts_s.values()) >= -1e-9


@settings(deadline=None)
@given(st.sampled_from([2, 4, 16]), st.sampled_from([ZERO, MEGATRON, SINGLE]))
def test_memory_falls_with_each_stage_of_zero(data, states):
    step = replace(steps(12), states=states)
    totals = [simulate(step, Strategy(data=data, zero=zero), collectives(data), 1).memory.total for zero in (0, 1, 2)]
    assert totals[0] > totals[1] > totals[2]


def test_memory_of_zero_is_its_authors_by_hand():
    """Figure 1 of Rajbhandari et al. 2020: 7.5 billion parameters on 64 ranks take 120, 31.4, 16.6 and 1.9 GB."""
    step = Step([Segment(0.1, 0.2, 7.5e9 / 1000)] * 1000, states=ZERO)
    gigabytes = [
        simulate(step, Strategy(data=64, zero=zero), collectives(64), 1).memory.total / 1e9 for zero in (0, 1, 2, 3)
    ]
    assert gigabytes == pytest.approx([120, 31.4, 16.6, 1.9], abs=0.06)


def test_published_sizes_flops_and_memory():
    """Parameters as published; FLOPs of an iteration by equation 3 of Narayanan et al. 2021; 34 bytes a token and width."""
    for name, billions in (
        ("gpt-1.7b", 1.7),
        ("gpt3-175b", 174.6),
        ("gpt-1t", 1008),
        ("llama-3.1-8b", 8.03),
        ("llama-3.1-405b", 405),
    ):
        assert published(name).parameters / 1e9 == pytest.approx(billions, rel=0.04)
    gpt = published("gpt3-175b")
    tokens, h, s, layers, v = 2048 * 1536, gpt.hidden, gpt.sequence, gpt.layers, gpt.vocabulary
    assert gpt.flops(tokens, "full") == pytest.approx(
        96 * tokens * layers * h**2 * (1 + s / 6 / h + v / 16 / layers / h), rel=1e-3
    )
    assert (
        gpt.flops(tokens) < gpt.flops(tokens, "selective") < gpt.flops(tokens, "alternate") < gpt.flops(tokens, "full")
    )
    each = gpt.sequence * gpt.hidden
    scores = 5 * gpt.heads * gpt.sequence / gpt.hidden
    assert gpt.kept_bytes(1, 1, "none", False) == pytest.approx(each * (34 + scores))
    assert gpt.kept_bytes(1, 8, "none", False) == pytest.approx(each * (10 + 24 / 8 + scores / 8))
    assert gpt.kept_bytes(1, 8, "selective", True) == pytest.approx(each * 34 / 8)
    assert gpt.kept_bytes(1, 8, "full", False) == pytest.approx(2 * each)


def test_memory_of_published_runs_within_five_per_cent():
    """Korthikanti et al. 2022, figure 1, GiB a GPU: weights and optimizer, and activations of the first stage."""
    for name, ranks, pipeline, chunks, micro, states, kept in (
        ("gpt-22b", 8, 1, 1, 4, 45.56, 59.25), ("gpt3-175b", 64, 8, 3, 1, 45.56, 66.84), ("gpt-1t", 512, 64, 1, 1, 32.96, 131.25),
    ):  # fmt: skip
        link = Link(0, 1e11)
        prices = Collectives(Cluster(DEVICE, ranks // 8, 8, link, link))
        schedule = "interleaved" if chunks > 1 else "1f1b"
        strategy = Strategy(1, 8, pipeline, micro_batch=micro, schedule=schedule, chunks=chunks)
        step = transformer_step(Compute(published(name), DEVICE), strategy, prices)
        found = simulate(step, strategy, prices, 8 * pipeline if chunks > 1 else pipeline).memory
        assert found.activations / 2**30 == pytest.approx(kept, rel=0.05)
        evenly = published(name).parameters * (MEGATRON.weight + MEGATRON.gradient + MEGATRON.optimizer) / ranks
        assert evenly / 2**30 == pytest.approx(states, rel=0.02)
        assert found.weights + found.gradients + found.optimizer >= evenly * 0.999


def test_a_layer_on_more_tensor_ranks_takes_less_and_recomputation_more():
    compute = Compute(Transformer("made", 4, 4096, 32, 2048, 50_000, flash=False), DEVICE)
    layer = [compute.layer(1, tensor, "none", True) for tensor in (1, 2, 4)]
    assert layer[0].forward_s > layer[1].forward_s > layer[2].forward_s
    again = [compute.layer(1, 1, how, False).again_s for how in ("none", "selective", "alternate", "full")]
    assert again == sorted(again)
    assert again[0] == 0
    assert again[-1] == layer[0].forward_s


def test_what_software_moves_in_memory_and_its_kernel_of_attention_make_a_step_longer_by_their_bytes_and_rates():
    model, alone = Transformer("made", 4, 4096, 32, 2048, 50_000), collectives(1)
    assert (MEGATRON.handled, MEGATRON.updated) == (0, 30)

    def made(states=MEGATRON, attention="flash-2"):
        return transformer_step(Compute(model, DEVICE, attention=attention), Strategy(), alone, states)

    def parts(step):
        return simulate(step, Strategy(), alone, 3).parts_s

    plain, moved = parts(made()), parts(made(replace(MEGATRON, handled=10.0, updated=60.0)))
    many, rate = sum(one.parameters for one in made().segments), DEVICE.bytes_s * LAWS.shares["elementwise"]
    assert moved["compute"] - plain["compute"] == pytest.approx(3 * (10 * many / rate + model.layers * LAUNCH_S))
    assert moved["update"] - plain["update"] == pytest.approx(30 * many / rate)
    causal = 2 * model.heads * model.sequence**2 * (model.hidden / model.heads) / DEVICE.attention_flops
    slower = parts(made(attention="triton"))["compute"] - plain["compute"]
    assert slower == pytest.approx(3 * model.layers * causal * (0.4 + 2.5))


def test_a_tied_output_layer_is_kept_once_by_one_stage_and_copied_by_the_last_of_several():
    model = Transformer("made", 4, 1024, 16, 512, 50_000)
    for tied, pipeline, tables in ((True, 1, 1), (True, 2, 2), (False, 1, 2), (False, 2, 2)):
        compute = Compute(replace(model, tied=tied), DEVICE)
        step = transformer_step(compute, Strategy(pipeline=pipeline), collectives(pipeline))
        assert sum(one.parameters for one in step.segments) == pytest.approx(
            4 * model.layer_parameters + tables * model.embedding_parameters
        )


def test_what_cannot_be_is_refused_with_the_way_out():
    with pytest.raises(ConfigError, match="make them equal"):
        simulate(steps(), Strategy(data=2), collectives(4), 1)
    with pytest.raises(ConfigError, match="fewer pipeline ranks"):
        simulate(steps(2), Strategy(pipeline=4), collectives(4), 1)
    with pytest.raises(ConfigError, match="change either"):
        Strategy(data=3).micro_batches(16)
    with pytest.raises(ConfigError, match="known are 0"):
        Strategy(zero=4)
    with pytest.raises(ConfigError, match="did you mean 'gpt3-175b'"):
        published("gpt-175b")


def test_the_slowest_of_many_ranks():
    assert expected_slowest(0.1, 1) == 1
    assert expected_slowest(0.1, 2) == pytest.approx(1 + 0.1 / np.sqrt(np.pi))  # E max of two normals
    assert expected_slowest(0.02, 1024) == pytest.approx(1 + 0.02 * 3.25, rel=1e-2)
    assert expected_slowest_of(np.array([1.0, 3.0]), 2) == pytest.approx((0.25 * 1 + 0.75 * 3) / 2)
    scattered = simulate(steps(), Strategy(data=4), collectives(4, scatter=0.05), 1)
    assert scattered.parts_s["slowest"] > 0


def test_checkpoints_and_failures():
    day = 86_400.0
    job = Training(work_s=30 * day, ranks=1000, rank_mtbf_s=1000 * day, checkpoint_s=300, restart_s=600)
    assert job.mtbf_s == day
    assert job.young_s() == pytest.approx(np.sqrt(2 * 300 * day))
    best = job.best_interval_s()
    assert best == pytest.approx(job.young_s(), rel=0.05)
    around = [job.expected_s(best * factor) for factor in (0.8, 1.0, 1.25)]
    assert min(around) == around[1]
    assert job.expected_s() == pytest.approx(job.first_order_s(best), rel=0.02)
    assert job.expected_s() > job.work_s
    # Daly's expression, by hand for an interval of an hour
    hour = day * np.exp(600 / day) * (np.exp(3900 / day) - 1) * 30 * day / 3600
    assert job.expected_s(3600) == pytest.approx(hour)
    with pytest.raises(ConfigError, match="positive"):
        replace(job, checkpoint_s=0)
