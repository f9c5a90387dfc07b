"""Blocks of calls as a page takes them: long enough for its clock, whatever the machine does while they are calibrated."""

import itertools

import pytest

from labbench.measure.protocol import preset
from labbench.measure.sampling import Sampling
from labbench.web.steady import CLOCK_SHARE, MARGIN, Stream

STEP_S = 20e-6


def stream(call_s, slowed):
    """A page whose clock has a step, and a machine that is slower at some blocks."""
    clock = itertools.cycle(slowed)

    def take(calls, seconds, room):
        exact = [calls * call_s * next(clock) for _ in range(min(room, 5))]
        return [round(value / STEP_S) * STEP_S / calls for value in exact]

    return Stream(take, STEP_S, Sampling(preset("quick")), warm_min_s=0.0)


@pytest.mark.parametrize("call_s", [1e-7, 4e-6, 3e-5, 4e-4, 1.9e-3, 0.5])
@pytest.mark.parametrize("slowed", [[1], [3, 3, 1, 3, 3], [1.5, 1, 4]])
def test_a_step_of_the_clock_is_at_most_one_percent_of_a_block_and_blocks_are_no_longer_than_that(call_s, slowed):
    one = stream(call_s, slowed)
    one.warm_up()
    block_s = one.calls_per_sample * call_s
    assert STEP_S / block_s <= CLOCK_SHARE
    assert block_s <= 1.3 * MARGIN * STEP_S / CLOCK_SHARE + call_s
