"""What collectives cost: by hand, by formula, by measured tables; bandwidths as nccl-tests define them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labbench.config import ConfigError
from labbench.distributed.cluster import Accelerator, Cluster, Link
from labbench.distributed.collectives_model import OPERATIONS, Collectives, Measured, bandwidths, bus_factor

DEVICE = Accelerator("made", 100e12, 120e12, 1e12, 80e9, 100, 60e12)


def made(nodes=1, times=1.0):
    """Nodes of eight, with so many times 100 GB/s within and 10 GB/s between."""
    return Cluster(DEVICE, nodes, 8, Link(1e-6, times * 100e9), Link(10e-6, times * 10e9))


@pytest.mark.parametrize(
    ("operation", "bus"),
    [
        ("all_reduce", 2 * 3 / 4),
        ("all_gather", 3 / 4),
        ("reduce_scatter", 3 / 4),
        ("all_to_all", 3 / 4),
        ("broadcast", 1),
        ("p2p", 1),
    ],
)
def test_bandwidths_are_those_of_nccl_tests_by_hand(operation, bus):
    """1 GB in half a second by four ranks: 2 GB/s by the algorithm, times the factors of PERFORMANCE.md on the bus."""
    algorithm, on_bus = bandwidths(operation, 1e9, 0.5, 4)
    assert algorithm == 2e9
    assert on_bus == bus * 2e9


def test_a_ring_within_a_node_by_hand():
    cluster = made()
    ring = Collectives(cluster, "ring")
    group = cluster.group(4, 1)
    assert ring.seconds("all_reduce", 4e9, group) == pytest.approx(6 * (1e-6 + 1e9 / 100e9))
    assert ring.seconds("all_gather", 4e9, group) == pytest.approx(3 * (1e-6 + 1e9 / 100e9))
    assert ring.seconds("broadcast", 4e9, group) == pytest.approx(3e-6 + 4e9 / 100e9)
    assert ring.seconds("p2p", 4e9, cluster.group(2, 1)) == pytest.approx(1e-6 + 4e9 / 100e9)


def test_a_ring_over_nodes_leaves_by_all_ways_of_its_members_by_hand():
    cluster = made(nodes=4)
    ring = Collectives(cluster, "ring")
    side_by_side, apart = cluster.group(32, 1), cluster.group(4, 8)
    assert (side_by_side.in_node, side_by_side.nodes) == (8, 4)
    assert (apart.in_node, apart.nodes) == (1, 4)
    size = 32e9
    assert ring.seconds("all_reduce", size, side_by_side) == pytest.approx(62 * (10e-6 + 1e9 / 80e9))
    assert ring.seconds("all_reduce", size, apart) == pytest.approx(6 * (10e-6 + 8e9 / 10e9))


def test_a_tree_and_a_hierarchy_by_hand():
    cluster = made(nodes=4)
    group = cluster.group(32, 1)
    tree = Collectives(cluster, "tree").seconds("all_reduce", 32e9, group)
    assert tree == pytest.approx(2 * (3 * 1e-6 + 2 * 10e-6) + 2 * 31 / 32 * 32e9 / 80e9)
    layered = Collectives(cluster, "hierarchical").seconds("all_reduce", 32e9, group)
    assert layered == pytest.approx(2 * (7 * (1e-6 + 4e9 / 100e9) + 3 * (10e-6 + 1e9 / 10e9)))


def test_auto_takes_the_cheapest_trees_for_small_messages():
    cluster = made(nodes=16)
    group = cluster.group(128, 1)
    each = [Collectives(cluster, name).seconds("all_reduce", 1e3, group) for name in ("ring", "tree", "hierarchical")]
    assert Collectives(cluster).seconds("all_reduce", 1e3, group) == min(each) == each[1]


@settings(deadline=None)
@given(st.sampled_from(OPERATIONS), st.integers(1, 6), st.floats(1, 1e10), st.floats(1.0, 10.0))
def test_more_bandwidth_is_never_slower_nor_more_bytes_faster(operation, nodes, size, times):
    slow = made(nodes)
    fast = made(nodes, times)
    group = slow.group(2 if operation == "p2p" else slow.ranks, 1)
    seconds = Collectives(slow).seconds(operation, size, group)
    assert Collectives(fast).seconds(operation, size, group) <= seconds * (1 + 1e-12)
    assert Collectives(slow).seconds(operation, 2 * size, group) >= seconds


def test_one_rank_sends_nothing():
    assert Collectives(made()).seconds("all_reduce", 1e9, made().group(1, 1)) == 0


def measured(operation="reduce_scatter", ranks=2, alpha=2e-4, beta=1e-9, across=False):
    sizes = 2.0 ** np.arange(10, 27)
    return Measured(operation, ranks, sizes, alpha + beta * sizes, across)


def test_a_fit_finds_alpha_and_beta_of_a_ring():
    link, error = measured("all_reduce", 4, 6e-4, 1.5e-9).fit()
    assert link.alpha_s == pytest.approx(1e-4, rel=1e-3)
    assert link.bytes_s == pytest.approx(1e9, rel=1e-3)
    assert error < 1e-6
    assert link.source == "measured"


def test_what_was_measured_of_an_operation_comes_before_the_formula_and_of_no_other():
    cluster = made()
    prices = Collectives(cluster, measured=(measured(),))
    pair, four = cluster.group(2, 1), cluster.group(4, 1)
    assert prices.seconds("reduce_scatter", 2**20, pair) == pytest.approx(2e-4 + 2**20 * 1e-9)
    beyond = prices.seconds("reduce_scatter", 2.0**30, pair)
    assert beyond == pytest.approx(2e-4 + 2**30 * 1e-9, rel=1e-2)
    # three hops instead of one, three quarters of the bytes instead of half
    assert prices.seconds("reduce_scatter", 2**26, four) == pytest.approx(3 * 2e-4 + 1.5 * 2**26 * 1e-9, rel=1e-2)
    assert prices.seconds("all_gather", 2**20, pair) == Collectives(cluster).seconds("all_gather", 2**20, pair)


def test_what_was_measured_within_a_node_says_nothing_of_the_network():
    cluster = made(nodes=2)
    prices = Collectives(cluster, measured=(measured(),))
    assert prices.seconds("reduce_scatter", 1e6, cluster.group(2, 8)) == Collectives(cluster).seconds(
        "reduce_scatter", 1e6, cluster.group(2, 8)
    )


def test_where_costs_come_from_is_told_for_each_kind_of_link():
    assert Collectives(made()).source == "nominal within nodes"
    assert Collectives(made(2), measured=(measured(),)).source == "measured within nodes, nominal between them"


def test_mistakes_name_the_nearest_or_the_way_out():
    with pytest.raises(ConfigError, match="did you mean 'all_reduce'"):
        bus_factor("allreduce", 4)
    with pytest.raises(ConfigError, match="did you mean 'ring'"):
        Collectives(made(), "rings")
    with pytest.raises(ConfigError, match="add nodes"):
        made().group(16, 1)
    with pytest.raises(ConfigError, match="two or more"):
        Measured("p2p", 2, np.array([1.0]), np.array([1.0]))
    with pytest.raises(ConfigError, match="multiple"):
        made().with_ranks(12)
