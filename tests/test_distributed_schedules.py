"""Pipelines and overlap: events, and what they come to."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labbench.config import ConfigError
from labbench.distributed.schedules import (
    beside,
    gathered,
    gathered_and_scattered,
    in_flight,
    makespan,
    orders,
    overlap,
    run,
)

SOME_S = st.floats(0.01, 10)


def test_1f1b_of_two_ranks_and_two_micro_batches_by_hand():
    # rank 0: F0 0-1, F1 1-2, B0 4-6, B1 7-9; rank 1: F0 1-2, B0 2-4, F1 4-5, B1 5-7
    pipe = run("1f1b", [1, 1], [2, 2], 2, 2)
    assert pipe.seconds == 9
    assert pipe.ends_s == (9, 7)
    assert pipe.busy_s == (6, 6)
    assert pipe.kept == (2, 1)


def test_gpipe_keeps_all_micro_batches():
    assert run("gpipe", [1, 1], [2, 2], 5, 2).kept == (5, 5)


def test_a_delay_between_stages_makes_1f1b_wait_more_than_it_lasts():
    """The round trip through both ranks limits what two micro-batches in flight can do."""
    still, delayed = (run("1f1b", [1, 1], [1, 1], 8, 2, delay_s=delay).seconds for delay in (0.0, 0.5))
    assert delayed - still > 2 * 0.5


@settings(deadline=None, max_examples=60)
@given(
    schedule=st.sampled_from(["gpipe", "1f1b", "interleaved"]),
    ranks=st.integers(1, 5),
    groups=st.integers(1, 4),
    chunks=st.integers(1, 3),
    forward=SOME_S,
    backward=SOME_S,
    later=st.tuples(st.floats(0, 5), st.floats(0, 5)),
)
def test_events_come_to_the_closed_form_with_a_slower_last_stage(
    schedule, ranks, groups, chunks, forward, backward, later
):
    chunks = chunks if schedule == "interleaved" else 1
    count = groups * ranks if schedule == "interleaved" else groups
    times = [[one] * (ranks * chunks) for one in (forward, backward)]
    for stages, more in zip(times, later, strict=True):
        stages[-1] += more
    pipe = run(schedule, *times, count, ranks)
    assert pipe.seconds == pytest.approx(makespan(forward, backward, sum(later), count, ranks, chunks))
    assert pipe.kept[0] == max(pipe.kept) == in_flight(schedule, ranks, count, chunks)
    assert pipe.ends_s[-1] == pytest.approx(pipe.seconds - (ranks - 1) * backward)


def test_every_order_runs_each_pass_once_and_forward_before_backward():
    for queue in orders("interleaved", 3, 6, 2):
        assert len(set(queue)) == len(queue) == 2 * 6 * 2
        for forward, micro_batch, chunk in queue:
            if not forward:
                assert queue.index((True, micro_batch, chunk)) < queue.index((False, micro_batch, chunk))


def test_what_a_schedule_cannot_do_is_refused_with_the_way_out():
    with pytest.raises(ConfigError, match="groups of as many"):
        orders("interleaved", 4, 6, 2)
    with pytest.raises(ConfigError, match="take 'interleaved'"):
        orders("gpipe", 2, 4, 2)
    with pytest.raises(ConfigError, match="did you mean '1f1b'"):
        orders("1f1", 2, 4)


def test_messages_wait_for_their_gradients_and_for_one_another_by_hand():
    assert overlap([1, 2, 10], [3, 3, 3]) == 13  # 1-4, 4-7, then nothing until 10
    assert overlap([1, 2, 3], [3, 3, 3]) == 10  # one after another


@settings(deadline=None)
@given(st.lists(st.tuples(SOME_S, SOME_S), min_size=1, max_size=6), SOME_S)
def test_messages_end_after_the_last_is_ready_and_no_later_than_all_of_them_after_it(messages, more):
    ready = np.cumsum([gap for gap, _ in messages])
    cost = [seconds for _, seconds in messages]
    end = overlap(list(ready), cost)
    assert ready[-1] + cost[-1] <= end + 1e-9
    assert end <= ready[-1] + sum(cost) + 1e-9
    assert overlap(list(ready), [one + more for one in cost]) >= end


def test_gathers_hide_behind_the_layer_before_by_hand():
    assert gathered([2, 2, 2], [1, 1, 1]) == 1 + 6  # only the first shows
    assert gathered([1, 1, 1], [2, 2, 2]) == 2 + 2 + 2 + 1  # each waits for its own
    # backward: gather 1, then per layer compute 2 beside a gather and a scatter of 1 each, the last scatter shows
    assert gathered_and_scattered([2, 2, 2], [1, 1, 1], [1, 1, 1]) == 1 + 6 + 1


@settings(deadline=None)
@given(st.integers(1, 8), SOME_S, SOME_S, SOME_S)
def test_alike_layers_come_to_the_closed_form(layers, compute, gather, scatter):
    expected = gather + (layers - 1) * max(compute, gather) + compute
    assert gathered([compute] * layers, [gather] * layers) == pytest.approx(expected)
    whole = gathered_and_scattered([compute] * layers, [gather] * layers, [scatter] * layers)
    assert whole >= gather + layers * compute + scatter - 1e-9
    assert whole <= layers * (gather + compute + scatter) + 1e-9


def test_a_message_under_way_slows_computing_by_the_share_it_takes_and_no_longer_than_it_lasts():
    assert beside([2.0, 2.0], [1.0, 0.0], 0.25) == [2.25, 2.0]  # a second at three quarters: a quarter is left to do
    assert beside([3.0], [100.0], 0.25) == [4.0]
    assert beside([3.0], [100.0], 0.0) == [3.0]
