"""gloo's rings by segment, by hand and against what they were fitted to."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labbench.distributed import gloo
from labbench.distributed.calibration import CPU
from labbench.distributed.cluster import Cluster, Link
from labbench.distributed.collectives_model import Collectives, Measured, bus_factor

MIB = 2**20
RATE = float(MIB)  # a second for each MiB


@pytest.mark.parametrize(
    ("operation", "size", "ranks", "expected"),
    [
        ("all_reduce", MIB, 2, (2, MIB / 4)),  # at least two segments of a rank
        ("all_reduce", 12 * MIB, 2, (6, MIB)),
        ("all_reduce", 13 * MIB, 4, (4, 13 * MIB / 16)),  # 13 segments, rounded up to as many of each rank
        ("reduce_scatter", 12 * MIB, 2, (6, MIB)),
        ("all_gather", 12 * MIB, 2, (2, 3 * MIB)),  # always two
    ],
)
def test_segments_are_those_of_the_library(operation, size, ranks, expected):
    assert gloo.cut(operation, size, ranks) == expected


@settings(deadline=None)
@given(
    st.sampled_from(["all_reduce", "reduce_scatter", "all_gather"]),
    st.floats(1e3, 1e8),
    st.sampled_from([3, 4, 8]),
    st.sampled_from([1, 2]),
)
def test_without_delay_a_ring_takes_what_its_bytes_take(operation, size, ranks, at_once):
    factor = bus_factor("all_reduce" if operation == "reduce_scatter" else operation, ranks)
    assert gloo.seconds(operation, size, ranks, Link(0.0, RATE), at_once) == pytest.approx(
        at_once * factor * size / RATE
    )


def test_between_two_ranks_an_all_gather_lasts_a_segment_longer():
    # half of 4 MiB each way, in two segments of 1 s: the later rank sends one before the other may begin
    assert gloo.seconds("all_gather", 4 * MIB, 2, Link(0.0, RATE)) == pytest.approx(3.0)
    assert gloo.seconds("all_reduce", 4 * MIB, 2, Link(0.0, RATE)) == pytest.approx(4.0)


def test_delays_by_hand():
    late = Link(0.1, RATE)
    # four ranks, rings of 6 segments of 1/2 s, enough to hide the way there and back but for the first: 2 x (2 x 0.1)
    assert gloo.seconds("all_reduce", 4 * MIB, 4, late) == pytest.approx(2 * (6 * 0.5 + 0.2))
    # two ranks, rings of 2 segments of 1 s: nothing waits for room but the first; of 3, the third waits for word: 0.1 s more
    assert gloo.seconds("all_reduce", 4 * MIB, 2, late) == pytest.approx(2 * (2 * 1.0 + 0.2))
    assert gloo.seconds("all_reduce", 6 * MIB, 2, late) == pytest.approx(2 * (3 * 1.0 + 0.2 + 0.1))
    # segments of 1/32 s are two under way in each 0.2 + 1/32 s, the second 1/32 s after the first
    small = gloo.seconds("all_reduce", MIB / 4, 4, late)
    assert small == pytest.approx(2 * (3 * (0.2 + 1 / 32) + 1 / 32))


def test_what_a_shaper_saves_up_in_a_pause_goes_at_once():
    saved = Link(0.1, RATE, burst_bytes=0.05 * RATE)
    assert gloo.seconds("all_reduce", 6 * MIB, 2, saved) == pytest.approx(2 * (3 * 1.0 + 0.2 + 0.1 - 2 * 0.05))


@pytest.mark.parametrize("alpha", [1e-4, 0.001, 0.005])
def test_a_link_fitted_to_two_ranks_tells_what_four_take(alpha):
    true = Link(alpha, 35e6, burst_bytes=131_072)
    sizes = np.array([MIB / 4, MIB, 4 * MIB, 12 * MIB])
    measured = tuple(
        Measured(name, 2, sizes, gloo.seconds(name, sizes, 2, true, many), at_once=many)
        for name, many in (("all_reduce", 1), ("all_reduce", 2), ("all_gather", 1))
    )
    made = Cluster(CPU, 4, 1, true, Link(0.0, 1.0, burst_bytes=131_072))
    prices = Collectives(made, "gloo", measured)
    group = made.group(4, 1)
    for name, many in (("all_reduce", 1), ("all_reduce", 2), ("all_gather", 1), ("reduce_scatter", 1)):
        expected = gloo.seconds(name, 3 * MIB, 4, true, many)
        if name != "reduce_scatter":  # of which nothing was measured: by the cluster's own link
            assert prices.seconds(name, 3 * MIB, group, many) == pytest.approx(expected, rel=0.01)
    assert gloo.fit(measured, 131_072)[1] < 1e-3
