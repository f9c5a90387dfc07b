"""The search for a plan: equal to a search with events, one case at a time."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from labbench.config import ConfigError
from labbench.distributed import report
from labbench.distributed.cluster import Accelerator, Cluster, Link, cluster
from labbench.distributed.collectives_model import Collectives
from labbench.distributed.compute import Compute
from labbench.distributed.plan import plan, strategies, strategy_of
from labbench.distributed.report import explain, plan_table
from labbench.distributed.simulate import simulate
from labbench.distributed.step import ZERO, transformer_step
from labbench.distributed.transformer import RECOMPUTE, Transformer, published

DEVICE = Accelerator("made", 100e12, 120e12, 1e12, 11e9, 100, 60e12)
MODEL = Transformer("made", 8, 2048, 16, 1024, 32_000, flash=False)


def made(ranks=8, scatter=0.0):
    return Collectives(Cluster(DEVICE, ranks // 4, 4, Link(2e-6, 100e9), Link(8e-6, 10e9), scatter))


def exhaustive(compute, collectives, batch, states):
    """Every strategy, each simulated by events."""
    nodes = collectives.cluster
    for way, micros in strategies(compute, nodes.ranks, nodes.ranks_in_node, batch):
        for micro, again, zero in product(micros, RECOMPUTE, (0, 1, 2, 3) if way.data > 1 else (0,)):
            if again == "selective" and compute.model.flash:
                continue
            one = replace(way, micro_batch=micro, recompute=again, zero=zero)
            step = transformer_step(compute, one, collectives, states)
            yield one, simulate(step, one, collectives, one.micro_batches(batch))


@pytest.mark.parametrize(
    ("model", "scatter"), [(MODEL, 0.0), (replace(MODEL, layers=4, flash=True, tied=False, gated=True), 0.02)]
)
def test_the_search_equals_one_by_events_in_every_case(model, scatter):
    compute, collectives = Compute(model, DEVICE), made(scatter=scatter)
    found = plan(compute, collectives, 16, ZERO)
    told = {strategy_of(row): row for _, row in found.table.iterrows()}
    best, count = np.inf, 0
    for one, simulated in exhaustive(compute, collectives, 16, ZERO):
        row = told[one]
        assert row["step_s"] == pytest.approx(float(simulated.step_s), rel=1e-9), one
        assert row["memory_bytes"] == pytest.approx(float(simulated.memory.total), rel=1e-9), one
        for name, value in simulated.parts_s.items():
            assert row[f"{name}_s"] == pytest.approx(float(value), rel=1e-6, abs=1e-9 * row["step_s"]), (one, name)
        if simulated.fits:
            best = min(best, float(simulated.step_s))
        count += 1
    assert count == len(found.table)
    assert found.table["step_s"].iloc[0] == pytest.approx(best)


def test_the_table_is_in_order_and_the_winner_simulated_again_is_the_same():
    found = plan(Compute(MODEL, DEVICE), made(), 16, ZERO)
    fitting = found.fitting["step_s"]
    assert fitting.is_monotonic_increasing
    assert found.table["fits"].iloc[: len(fitting)].all()
    assert 0 < len(fitting) < len(found.table)
    assert found.simulated().step_s == pytest.approx(found.table["step_s"].iloc[0])
    assert found.provenance == "simulated"


def test_an_explanation_says_what_limits_the_winner_the_next_and_why_others_do_not_fit():
    found = plan(Compute(MODEL, DEVICE), made(), 16, ZERO)
    text = explain(found)
    assert "simulated" in text
    assert "Computing takes" in text
    assert "does not fit" in text
    assert "activations" in text
    assert plan_table(found, 5)["step"].notna().all()


def test_a_plan_on_zero_3_between_nodes_is_doubted_and_one_within_a_node_is_not():
    compute = Compute(MODEL, DEVICE)
    assert report.DOUBT in explain(plan(compute, made(), 16, ZERO, zeros=(3,)))
    assert report.DOUBT not in explain(plan(compute, made(4), 16, ZERO, zeros=(3,)))


def test_where_nothing_fits_the_explanation_says_what_is_nearest():
    found = plan(Compute(MODEL, DEVICE), made(), 16, ZERO, memory_bytes=1e8)
    assert found.fitting.empty
    assert "No strategy fits" in explain(found)


def test_a_batch_that_comes_out_nowhere_is_refused():
    with pytest.raises(ConfigError, match="batch with more divisors"):
        plan(Compute(replace(MODEL, layers=7, heads=1, kv_heads=1, hidden=64), DEVICE), made(8), 3)


def test_a_model_that_does_not_fit_one_device_is_planned_on_1024():
    nodes = cluster("A100 SXM4 80 GB", 1024)
    found = plan(Compute(published("gpt-76b"), nodes.device), Collectives.of(nodes), 1024)
    assert 0.3 < found.table["mfu"].iloc[0] < 0.8
