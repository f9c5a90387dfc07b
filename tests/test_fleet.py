"""Workloads on a fleet: plans that can be carried out, the best of them by brute force, conflicts that are real."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labbench.config import ConfigError
from labbench.selection.fleet import Demand, Fleet, FleetOption, Infeasible, Kind, assign, faults

GB = 1e9


def fleet(demands, kinds, table, **more):
    """``table[demand][kind]`` is (seconds a call, GB) or None."""
    options = [
        FleetOption(d.name, k.name, "made", cell[0], cell[1] * GB)
        for d, row in zip(demands, table, strict=True)
        for k, cell in zip(kinds, row, strict=True)
        if cell is not None
    ]
    return Fleet(tuple(demands), tuple(kinds), tuple(options), **{"busy": 1.0, **more})


@st.composite
def small_fleets(draw):
    kinds = [
        Kind(name=f"k{k}", count=draw(st.integers(0, 2)), memory_bytes=10 * GB, per_hour=draw(st.integers(1, 9)))
        for k in range(2)
    ]
    demands = [
        Demand(
            name=f"d{d}",
            per_second=draw(st.sampled_from([1, 3, 5, 8, 11])) / 10,
            max_latency_s=draw(st.sampled_from([None, None, 8.0, 40.0])),
            replicas=draw(st.sampled_from([1, 1, 1, 2])),
        )
        for d in range(draw(st.integers(1, 3)))
    ]
    cell = st.one_of(st.none(), st.tuples(st.sampled_from([0.5, 1.0, 1.7]), st.sampled_from([2, 4, 6, 9])))
    table = [[draw(cell) for _ in kinds] for _ in demands]
    question = fleet(demands, kinds, table, busy=draw(st.sampled_from([0.7, 1.0])))
    slower = [
        replace(o, name="lean", service_s=1.5 * o.service_s, memory_bytes=o.memory_bytes / 2) for o in question.options
    ]
    return replace(question, options=(*question.options, *slower[: draw(st.integers(0, 2))]))


def brute_force(question):
    """The least cost over everything that devices could hold; infinite if nothing serves all."""
    from scipy.optimize import linprog

    usable = [o for o in question.options if question.why_not(o) is None]
    each = []
    for kind in question.kinds:
        mine = [o for o in usable if o.kind == kind.name]
        sets = [
            subset
            for size in range(len(mine) + 1)
            for subset in itertools.combinations(mine, size)
            if len({o.demand for o in subset}) == size
            and sum(o.memory_bytes for o in subset) <= kind.memory_bytes
            and sum(question.claim_of(o).floor for o in subset) <= question.busy + 1e-9
        ]
        each.append(list(itertools.combinations_with_replacement(sets, kind.count)))
    ways = [[held for part in way for held in part if held] for way in itertools.product(*each)]
    price = {kind.name: kind.per_hour for kind in question.kinds}
    for way in sorted(ways, key=lambda way: sum(price[held[0].kind] for held in way)):
        if all(sum(o.demand == d.name for held in way for o in held) >= d.replicas for d in question.demands):
            pairs = [(device, o) for device, held in enumerate(way) for o in held]
            share, room = np.zeros((len(way), len(pairs))), np.full(len(way), question.busy)
            rate = np.array([[-o.per_second * (o.demand == d.name) for _, o in pairs] for d in question.demands])
            for column, (device, o) in enumerate(pairs):
                share[device, column] = 1 / question.claim_of(o).slope
                room[device] -= question.claim_of(o).floor
            asked = [-d.per_second for d in question.demands]
            found = linprog(np.zeros(len(pairs)), np.vstack([share, rate]), np.concatenate([room + 1e-9, asked]))
            if found.status == 0:
                return sum(price[held[0].kind] for held in way)
    return math.inf


@settings(max_examples=20, deadline=None)
@given(small_fleets())
def test_the_exact_plan_is_what_brute_force_finds_and_every_plan_can_be_carried_out(question):
    best = brute_force(question)
    for how in ("exact", "fast"):
        if math.isinf(best):
            with pytest.raises(Infeasible):
                assign(question, how)
        else:
            plan = assign(question, how, seconds=60)
            assert list(faults(question, plan.placements)) == []
            assert plan.value >= best - 1e-6
            assert plan.bound <= best + 1e-6
            if how == "exact":
                assert plan.value == pytest.approx(best)
                assert plan.gap == 0
            else:
                assert plan.value <= 1.02 * best + 1e-6
                assert plan.gap <= 0.02


# What is asked and what is refused


def two(**more):
    """Two workloads that fit one device together in time, and in memory on the large kind only."""
    kinds = [
        Kind(name="large", count=2, memory_bytes=10 * GB, per_hour=3, domains={"zone": "a"}),
        Kind(name="small", count=4, memory_bytes=5 * GB, per_hour=2, domains={"zone": "b"}),
    ]
    demands = [Demand(name="a", per_second=0.4), Demand(name="b", per_second=0.5)]
    return fleet(demands, kinds, [[(1.0, 4), (1.0, 4)], [(1.0, 4), (1.0, 4)]], **more)


def test_workloads_share_a_device_where_memory_and_time_allow_it():
    plan = assign(two())
    assert list(plan.devices) == [("large", 1)]
    assert plan.used(plan.placements) == pytest.approx((0.9, 0.9, 8 * GB))


def test_no_more_of_a_device_is_dealt_out_than_allowed():
    assert assign(two(busy=0.8)).value == 4


def test_replicas_are_on_devices_of_their_own():
    question = two()
    spread = question.demands[0].model_copy(update={"replicas": 3})
    plan = assign(Fleet((spread, question.demands[1]), question.kinds, question.options, busy=1.0))
    assert len({(p.option.kind, p.device) for p in plan.replicas("a")}) == 3
    assert list(faults(plan.fleet, plan.placements)) == []


def test_a_budget_is_kept_and_an_objective_can_be_the_number_of_devices_or_energy():
    assert assign(two(objective="devices", max_per_hour=3)).per_hour == 3
    watts = [kind.model_copy(update={"idle_w": watt}) for kind, watt in zip(two().kinds, (50, 10), strict=True)]
    options = tuple(
        FleetOption(o.demand, o.kind, o.name, o.service_s, o.memory_bytes, energy_j=20) for o in two().options
    )
    plan = assign(Fleet(two().demands, tuple(watts), options, "energy", busy=1.0))
    assert plan.value == pytest.approx(2 * 10 + 20 * 0.9)


def test_the_checker_finds_what_is_wrong_with_a_plan():
    plan = assign(two())
    one, other = sorted(plan.placements, key=lambda p: p.option.demand)
    assert "0.2 of 0.4" in next(faults(plan.fleet, [replace(one, per_second=0.2), other]))
    assert "bytes" in next(
        faults(plan.fleet, [*plan.placements, replace(other, option=replace(other.option, memory_bytes=7e9))])
    )
    assert "dealt out" in next(faults(plan.fleet, [replace(one, per_second=0.9), other]))
    assert "there are 2" in next(faults(plan.fleet, [replace(one, device=device) for device in range(3)]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kinds": ()}, "at least one kind"),
        ({"demands": (Demand(name="a", per_second=1),) * 2}, "2 demands are called 'a'"),
        ({"busy": 0.0}, "above 0"),
        ({"objective": "energy"}, "idle_w of large is not given"),
        (
            {"kinds": (Kind(name="large", count=1, memory_bytes=1), Kind(name="small", count=1, memory_bytes=1))},
            "no price",
        ),
        ({"options": (FleetOption("c", "large", "made", 1, 1),)}, "unknown demand of an option 'c'"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(change, words):
    given = {"demands": two().demands, "kinds": two().kinds, "options": two().options} | change
    with pytest.raises(ConfigError, match=words):
        Fleet(**given)


# Random instances of the benchmark


def random_fleet(*size):
    import sys
    from pathlib import Path

    sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
    import fleet as benchmark

    return benchmark.random_fleet(*size)


def test_plans_of_random_fleets_can_be_carried_out_and_the_fast_one_is_near_the_best():
    question = random_fleet(3, 14, 4)
    best, good = assign(question, "exact"), assign(question, "fast")
    for plan in (best, good):
        assert list(faults(question, plan.placements)) == []
        assert plan.bound <= plan.value * (1 + 1e-9)
    assert best.value <= good.value * (1 + 1e-9)
    assert good.value <= 1.1 * best.value


def test_a_fleet_of_many_options_is_assigned_the_fast_way_with_a_bound():
    question = random_fleet(4, 80, 15)
    plan = assign(question)
    assert plan.how == "fast"
    assert list(faults(question, plan.placements)) == []
    assert 0 < plan.gap < 0.3


def test_what_can_be_split_is_packed_into_what_the_rest_leaves():
    from time import perf_counter

    from labbench.selection.fleet.packing import packed
    from labbench.selection.fleet.program import Blocks, Numbers

    kinds = [Kind(name="gpu", count=2, memory_bytes=10 * GB, per_hour=1)]
    wide = [Demand(name="wide", per_second=0.9), *(Demand(name=n, per_second=0.3, max_latency_s=30) for n in "abc")]
    question = fleet(wide, kinds, [[(1.0, 1)]] * 4)
    numbers, claims = Numbers.of(question), question.claims
    load = np.array([0.9, 0.3, 0.3, 0.3])
    share = claims.floor + load / claims.slope
    load[0] += 2 - share.sum()  # both devices are full to the brim: only the one without a floor can be split
    full = replace(numbers, asked=load * claims.per_second)
    x = np.concatenate([[2], np.ones(4), load])
    loads, failed = packed(full, Blocks.of(claims, numbers.counts, set()), x, perf_counter())  # no time to search
    assert failed == set()
    assert sum(0 in device for device in loads.values()) == 2
    assert all(
        sum(claims.floor[r] + v / claims.slope[r] for r, v in d.items()) == pytest.approx(1) for d in loads.values()
    )
    assert sum(device.get(0, 0) for device in loads.values()) == pytest.approx(load[0])


def test_from_a_bad_plan_and_a_low_bound_the_best_is_found_and_shown_to_be_that():
    from labbench.selection.fleet.exact import solve
    from labbench.selection.fleet.program import Numbers

    numbers = Numbers.of(two())
    on_large = {
        int(d): row for row, (d, k) in enumerate(zip(numbers.claims.demand, numbers.claims.kind, strict=True)) if k == 0
    }
    apart = {(0, 0): {on_large[0]: 0.4}, (0, 1): {on_large[1]: 0.5}}
    assert numbers.value(apart) == 6
    found = solve(numbers, 30, apart, bound=1.0)
    assert numbers.value(found.loads) == found.bound == 3


def test_the_fast_way_tells_the_bound_that_its_program_has_shown():
    from labbench.selection.fleet.relaxation import relaxed

    question = random_fleet(1012, 20, 5)
    plan = assign(question, "fast", seconds=300)
    assert plan.bound > relaxed(question).value
    assert plan.gap == 0


# Why there is no plan


def test_the_smallest_conflict_is_named_with_what_would_have_to_give():
    with pytest.raises(Infeasible) as error:
        assign(two(max_per_hour=2.5))
    conflict = error.value.conflict
    assert {(r.what, r.of) for r in conflict.requirements} == {("budget", ""), ("rate", "a"), ("rate", "b")}
    assert conflict.shown == "smallest"
    assert "a budget of 3" in str(error.value)


def test_a_conflict_over_devices_names_how_many_are_needed():
    kinds = [Kind(name="gpu", count=2, memory_bytes=10 * GB, per_hour=1)]
    question = fleet(
        [Demand(name="a", per_second=4.5), Demand(name="b", per_second=0.1)], kinds, [[(1.0, 1)], [(1.0, 1)]]
    )
    with pytest.raises(Infeasible) as error:
        assign(question)
    assert [(r.what, r.of) for r in error.value.conflict.requirements] == [("rate", "a"), ("count", "gpu")]
    assert "5 instead of 2 of gpu" in str(error.value)
    assert "instead of 4.5/s of a" in str(error.value)


def test_what_all_rates_together_would_have_to_be_is_told():
    kinds = [Kind(name="gpu", count=1, memory_bytes=10 * GB, per_hour=1)]
    question = fleet([Demand(name=name, per_second=1.0) for name in "ab"], kinds, [[(1.0, 1)], [(1.0, 1)]])
    with pytest.raises(Infeasible, match="50 % of all rates"):
        assign(question)


@settings(max_examples=8, deadline=None)
@given(small_fleets())
def test_a_conflict_is_one_and_no_smaller_set_is(question):
    from labbench.selection.fleet.asked import possible, requirements, restricted

    try:
        assign(question)
    except Infeasible as error:
        conflict = error.conflict
        if conflict.stranded:
            return
        assert conflict.shown == "smallest"
        assert math.isinf(brute_force(question))
        for fewer in itertools.combinations(list(requirements(question)), len(conflict.requirements) - 1):
            assert possible(restricted(question, frozenset(fewer)))


def test_many_requirements_are_reduced_to_some_of_which_none_can_be_left_out():
    from labbench.selection.fleet.asked import possible, restricted

    demands = [Demand(name=f"d{i}", per_second=0.3) for i in range(20)]
    question = fleet(demands, [Kind(name="gpu", count=1, memory_bytes=10 * GB, per_hour=1)], [[(1.0, 1)]] * 20)
    with pytest.raises(Infeasible) as error:
        assign(question)
    found = error.value.conflict.requirements
    assert error.value.conflict.shown == "irreducible"
    assert len(found) == 5  # four rates and the number of devices
    for left_out in found:
        assert possible(restricted(question, frozenset(found) - {left_out}))


def test_a_workload_that_nothing_can_serve_is_told_with_every_reason():
    kinds = [
        Kind(name="small", count=1, memory_bytes=1 * GB, per_hour=1),
        Kind(name="slow", count=1, memory_bytes=9 * GB, per_hour=1),
    ]
    question = fleet([Demand(name="a", per_second=0.1, max_latency_s=1.0)], kinds, [[(0.1, 2), (5.0, 2)]])
    with pytest.raises(
        Infeasible, match=r"small .*needs 2 GB of memory, small has 1 GB.*slow .*p99 comes to .* s at the least load"
    ):
        assign(question)


# What if something fails


def test_the_rest_carries_everything_or_what_is_short_is_named():
    from labbench.selection.fleet.failures import failures, headroom

    question = two()
    spread = tuple(d.model_copy(update={"replicas": 2}) for d in question.demands)
    plan = assign(Fleet(spread, question.kinds, question.options, busy=1.0))
    told = {(f.what, f.name): f.served for f in failures(plan)}
    assert [name for what, name in told if what == "device"] == ["large 1", "large 2"]
    assert told["device", "large 1"] == told["device", "large 2"] == {}
    assert told["zone", "a"] == {"a": 0.0, "b": 0.0}
    assert headroom(plan) == pytest.approx(2 / 0.9 - 1)
    single = {(f.what, f.name): f.served for f in failures(assign(question))}
    assert single["device", "large 1"] == {"a": 0.0, "b": 0.0}


def test_after_a_failure_no_device_holds_more_than_it_may():
    from labbench.selection.fleet.failures import failures

    demands = [Demand(name="a", per_second=1.6)]
    question = fleet(demands, [Kind(name="gpu", count=2, memory_bytes=10 * GB, per_hour=1)], [[(1.0, 1)]], busy=0.8)
    [device, *_] = failures(assign(question))
    assert device.served == pytest.approx({"a": 0.5})


# Latency


@pytest.mark.parametrize("scv", [0.0, 1.0])
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_replica_that_holds_its_claim_answers_within_the_limit(scv, share):
    from labbench.selection.fleet.queueing import claim

    rng, service, limit = np.random.default_rng(7), 0.01, 0.3
    drawn = rng.exponential(service, 200_000) if scv else np.full(200_000, service)
    held = claim(service, limit, percentile=99, tail_s=float(np.quantile(drawn, 0.99)), scv=scv)
    load = held.load(share)
    assert 0 < load < share
    arrivals = np.cumsum(rng.exponential(service / load, len(drawn)))
    done = np.cumsum(drawn / share)  # Lindley: a call begins when it has come and the one before is done
    waits = np.maximum.accumulate(arrivals - np.concatenate([[0], done[:-1]]))
    answered = done + waits - arrivals
    assert np.quantile(answered, 0.99) <= limit
    overloaded = np.cumsum(rng.exponential(service / (0.98 * share), len(drawn)))
    waits = np.maximum.accumulate(overloaded - np.concatenate([[0], done[:-1]]))
    assert np.quantile(done + waits - overloaded, 0.99) > limit


@settings(deadline=None)
@given(st.floats(1e-4, 1), st.floats(1, 100), st.floats(0, 4), st.sampled_from([50, 90, 99]), st.floats(0.3, 1))
def test_the_claim_is_below_the_curve_it_stands_for(service, times, scv, percentile, most):
    from labbench.selection.fleet.queueing import claim

    limit = service * times
    held = claim(service, limit, percentile=percentile, scv=scv, most=most)
    if held.floor >= most:
        return
    for share in np.linspace(held.floor, most, 9)[1:]:
        busy = held.load(share) / share
        wait = math.log(100 / (100 - percentile)) * service / share * (1 + scv) / 2 / (1 - busy)
        assert service / share + wait <= limit * (1 + 1e-6)


def test_a_workload_without_a_limit_holds_what_it_computes():
    from labbench.selection.fleet.queueing import FREE, claim

    assert claim(0.01, None) == FREE
    assert FREE.load(0.4) == 0.4


def test_importing_the_room_loads_neither_scipy_nor_pandas_nor_torch():
    import subprocess
    import sys

    code = "import sys, labbench.selection.fleet; print([m for m in ('torch', 'scipy', 'pandas') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
