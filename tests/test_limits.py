"""Every reason for an exclusion is true: at the stated distance the option comes in, a hair before it does not."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made import ENVIRONMENT, ENVIRONMENTS, made_frame, record, study

from labbench.config import ConfigError
from labbench.prediction import PredictionConfig, Predictor
from labbench.records import Check, Energy
from labbench.selection import SelectionError, read_requirements, select
from labbench.selection.conflicts import conflict_sentence, smallest_conflict
from labbench.selection.pareto import non_dominated

PRICES = [{"device": "cpu", "per_hour": 0.36, "currency": "EUR", "as_of": "2025-01-01", "source": "an invoice"}]
MEMORY = 8e9
HERE = ENVIRONMENT.model_copy(update={"machine": {**ENVIRONMENT.machine, "memory_bytes": MEMORY}})
PLACE = {HERE.id: HERE}
LEAST = ("min_throughput", "memory_headroom")
HAIR = 1e-9  # relative
# Requirement and a factor that makes it of a size at which some options fail
SIZES = {
    "max_latency_s": 2e-3, "max_latency_p50_s": 2e-3, "max_latency_p90_s": 2e-3, "max_latency_p99_s": 2e-3,
    "min_throughput": 500.0, "max_memory_bytes": 4e8, "memory_headroom": 0.95, "max_output_error": 1e-3,
    "max_joules_per_item": 0.1, "max_cost_per_hour": 0.3, "max_cost_per_million": 0.2,
}  # fmt: skip


def full(runtime, seconds, memory, joules, error):
    made = record(runtime=runtime, seconds=seconds, memory=memory, relative_ci=0.03)
    check = Check(passed=True, max_error=error, tolerance=1.0)
    return made.model_copy(update={"energy": Energy(joules_per_call=joules), "check": check})


TABLE = made_frame(
    full("openvino", 1e-3, 6e8, 0.05, 2e-3),
    full("onnxruntime", 2e-3, 5e8, 0.2, 1e-4),
    full("compile", 3e-3, 2e8, 0.1, 5e-4),
)


@pytest.fixture(scope="module")
def predicted():
    records = [
        r for r in study(scatter=0.1) if (r.cell.workload.model, r.cell.platform.runtime) != ("t5-tiny", "onnxruntime")
    ]
    table = made_frame(*records)
    return table, Predictor(PredictionConfig(residual="none")).fit(table, ENVIRONMENTS)


def decide(limits, table=TABLE, predictor=None, **more):
    needs = any(name.startswith("max_cost") for name in limits)
    return select(table, read_requirements(**limits, **more, prices=PRICES if needs else []), predictor, PLACE).choices[
        0
    ]


def names(choice):
    return {option["option"] for option in choice.ranked}


def holds(limits, **context):
    """Whether what the exclusions of a choice say is true."""
    for option, found in decide(limits, **context).excluded:
        if any(one.needed is None for one in found):
            continue
        relaxed = limits | {one.requirement: one.needed for one in found}
        assert option["option"] in names(decide(relaxed, **context))
        for one in found:
            hair = 1 if one.requirement == "max_memory_bytes" else HAIR * one.needed
            sign = 1 if one.requirement in LEAST else -1
            short = relaxed | {one.requirement: one.needed + sign * hair}
            assert option["option"] not in names(decide(short, **context))


@settings(max_examples=6, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(SIZES)), st.floats(0.3, 1.0), min_size=1, max_size=4))
def test_a_measured_option_comes_in_at_the_stated_distance_and_not_before(given_limits):
    limits = {name: size * SIZES[name] for name, size in given_limits.items()}
    if "max_memory_bytes" in limits:
        limits["max_memory_bytes"] = int(limits["max_memory_bytes"])
    holds(limits)


@settings(max_examples=3, deadline=None)
@given(st.sampled_from((0.6, 0.8, 0.9)), st.floats(0.5, 1.2), st.sampled_from((50, 90, 99)))
def test_so_does_one_under_a_chance_constraint_predicted_or_measured(predicted, probability, size, percentile):
    table, predictor = predicted
    limits = {"max_latency_s": 2.7e-3 * size, "max_memory_bytes": 45_000_000}
    more = {"latency_percentile": percentile, "models": ["t5-tiny"], "probability": probability}
    holds(limits, table=table, predictor=predictor, **more)


@settings(max_examples=10, deadline=None)
@given(st.floats(0.5, 0.99), st.floats(0.5, 2))
def test_the_chance_of_an_option_that_meets_a_chance_constraint_is_at_least_that(probability, size):
    choice = decide({"max_latency_s": 2e-3 * size}, probability=probability)
    for option in (*choice.ranked, *(option for option, _ in choice.excluded)):
        [check] = [one for one in option["checks"] if one.requirement == "max_latency_s"]
        assert (check.violation is None) == (check.distance <= 0)
        assert (check.violation is None) == (check.chance >= probability - 1e-6)


def test_every_limit_keeps_a_signed_distance_met_or_not():
    choice = decide({"max_latency_s": 2.5e-3, "min_throughput": 400.0})
    distances = {
        option["option"]: {one.requirement: one.distance for one in option["checks"]}
        for option in (*choice.ranked, *(option for option, _ in choice.excluded))
    }
    assert distances["cpu/openvino"]["max_latency_s"] == pytest.approx(1.03e-3 / 2.5e-3 - 1)
    assert distances["cpu/compile"]["max_latency_s"] == pytest.approx(3.09e-3 / 2.5e-3 - 1)
    assert distances["cpu/openvino"]["min_throughput"] < 0 < distances["cpu/compile"]["min_throughput"]


def test_with_too_few_families_no_prediction_is_sure_enough(predicted):
    table, predictor = predicted
    choice = decide({"max_latency_s": 10.0}, table=table, predictor=predictor, models=["t5-tiny"], probability=0.99)
    [(option, [violation])] = choice.excluded
    assert option["option"] == "cpu/onnxruntime"
    assert "too few families were measured for a prediction that is 99 % sure" in violation.reason
    assert violation.needed is None


def test_a_surer_requirement_allows_no_more(predicted):
    table, predictor = predicted
    kept = [
        names(decide({"max_latency_s": 3.2e-3}, table=table, predictor=predictor, models=["t5-tiny"], probability=one))
        for one in (0.5, 0.8, 0.95)
    ]
    assert kept[0] >= kept[1] >= kept[2]
    assert kept[0] > kept[2]


def test_limits_at_several_percentiles_apply_together():
    choice = decide({"max_latency_p50_s": 2.5e-3, "max_latency_p99_s": 2e-3})
    assert names(choice) == {"cpu/openvino"}
    reasons = {option["option"]: [one.requirement for one in found] for option, found in choice.excluded}
    assert reasons == {
        "cpu/onnxruntime": ["max_latency_p99_s"], "cpu/compile": ["max_latency_p50_s", "max_latency_p99_s"],
    }  # fmt: skip


def test_what_does_not_fit_into_the_device_is_excluded_unasked():
    table = made_frame(record(memory=MEMORY * 1.5), record(runtime="compile", memory=MEMORY / 2))
    choice = decide({}, table=table)
    assert names(choice) == {"cpu/compile"}
    assert "does not fit into 8 GB of cpu" in choice.excluded[0][1][0].reason


def test_headroom_that_cannot_be_told_is_not_granted():
    choice = select(TABLE, read_requirements(memory_headroom=0.1)).choices[0]
    assert "nothing tells how much memory cpu has" in choice.excluded[0][1][0].reason
    assert "leave out memory_headroom" in choice.sentence
    both = select(TABLE, read_requirements(memory_headroom=0.1, max_latency_s=1e-4)).choices[0]
    assert "The nearest is cpu/openvino: relax max_latency_s to 1.03 ms and leave out memory_headroom." in both.sentence


def test_the_reference_of_outputs_has_no_error():
    assert names(decide({"max_output_error": 1e-6}, table=made_frame(record()))) == {"cpu/eager"}


def test_energy_that_was_not_measured_is_no_ground():
    choice = decide({}, table=made_frame(record()), objective="energy")
    assert choice.best is None
    assert "its energy is not known: its energy was not measured" in choice.excluded[0][1][0].reason


def test_vendors_and_names_of_devices_can_be_asked_for():
    table = TABLE.assign(device_name="Intel(R) Xeon(R)")
    assert len(names(decide({}, table=table, vendors=["Intel"]))) == 3
    choice = decide({}, table=table, vendors=["AMD"])
    assert "vendor Intel is not among those allowed (AMD)" in choice.excluded[0][1][0].reason
    assert "allow more vendors" in choice.sentence
    assert len(names(decide({}, table=table, devices=["Intel(R) Xeon(R)"]))) == 3


# Objectives


def test_weights_choose_by_the_sum_of_logs():
    lean = decide({}, weights={"latency": 1.0, "memory": 5.0})
    fast = decide({}, weights={"latency": 5.0, "memory": 1.0})
    assert (lean.best["option"], fast.best["option"]) == ("cpu/compile", "cpu/openvino")
    assert lean.best["score"] == pytest.approx(math.log(3e-3 / 1e-3))
    assert "times better, weighted, than the next" in lean.sentence


def test_weights_and_an_objective_or_none_at_all_are_refused():
    with pytest.raises(ConfigError, match="exclude each other"):
        read_requirements(weights={"latency": 1.0}, objective="memory")
    with pytest.raises(ConfigError, match="weighs nothing"):
        read_requirements(weights={})


def test_the_batch_can_belong_to_the_answer():
    table = made_frame(record(seconds=1e-3), record(seconds=4e-3, batch_size=8), record(seconds=2e-2, batch_size=32))
    best = {
        limit: decide({"max_latency_s": limit}, table=table, choose_batch=True, objective="throughput").best["option"]
        for limit in (2e-3, 1e-2, 1.0)
    }
    assert best == {2e-3: "cpu/eager b1", 1e-2: "cpu/eager b8", 1.0: "cpu/eager b8"}
    assert len(select(table, read_requirements(choose_batch=True)).choices) == 1


@pytest.mark.parametrize(("unit", "seq_len", "items"), [("samples", None, 8), ("tokens", 128, 1024)])
def test_training_is_told_in_samples_and_money(unit, seq_len, items):
    table = made_frame(record(mode="training", batch_size=8, seconds=0.5, seq_len=seq_len))
    table = table.assign(items_per_call=items, throughput_unit=unit)
    limits = {"samples": 16_000, "max_training_s": 2000.0}
    choice = select(table, read_requirements(**limits, prices=PRICES)).choices[0]
    assert choice.best["training_s"] == pytest.approx(16_000 / 8 * 0.5)
    assert choice.best["training_cost"] == pytest.approx(0.36 * 1000 / 3600)
    short = select(table, read_requirements(samples=16_000, max_training_s=900.0)).choices[0]
    assert "time to train 0.281 h > limit 0.25 h" in short.excluded[0][1][0].reason or "time to train" in short.sentence
    assert short.best is None


def test_a_training_limit_needs_the_number_of_samples():
    with pytest.raises(ConfigError, match='give it as "samples"'):
        read_requirements(max_training_s=1.0)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=8))
def test_the_front_is_what_nothing_dominates(rows):
    values = np.array(rows, float)
    kept = non_dominated(values)
    for row, keeps in zip(values, kept, strict=True):
        beaten = any((other <= row).all() and (other < row).any() for other in values)
        assert keeps == (not beaten)


def test_the_best_by_an_objective_is_on_the_front():
    options = select(TABLE, read_requirements(prices=PRICES)).options
    assert options.loc[options["rank"] == 1, "on_front"].all()


# Nothing is left


@settings(max_examples=30, deadline=None)
@given(st.lists(st.frozensets(st.sampled_from("abcd"), min_size=1), min_size=1, max_size=6))
def test_the_conflict_is_the_smallest_that_every_option_misses(sets):
    found = smallest_conflict(sets)
    assert all(one & set(found) for one in sets)
    for name in found:
        assert not all(one & (set(found) - {name}) for one in sets)


def test_limits_that_contradict_each_other_are_named_with_the_nearest_way_out():
    choice = decide({"max_latency_s": 2.5e-3, "max_memory_bytes": 300_000_000})
    assert choice.conflict == ("max_latency_s", "max_memory_bytes")
    assert "contradict each other here: some option meets each of them, none both" in choice.sentence
    assert "relax" in choice.sentence
    assert conflict_sentence(()) == ""


@pytest.mark.parametrize("name", ["max_cost_per_hour", "max_latency_s", "max_training_cost"])
def test_a_budget_of_nothing_is_refused_with_the_nearest_that_buys_something(name):
    with pytest.raises(ConfigError, match=f"{name}: 0 allows nothing") as caught:
        read_requirements(**{name: 0}, prices=PRICES)
    assert ("the cheapest price given is 0.36 EUR (cpu)" in str(caught.value)) == (name == "max_cost_per_hour")


def test_a_card_without_a_predictor_is_refused():
    with pytest.raises(SelectionError, match="it can only be predicted; give a fitted predictor"):
        decide({}, gpus=["RTX 4090"])


# What to measure, and how well an option suits


def test_what_to_measure_to_become_sure_is_a_command(predicted):
    table, predictor = predicted
    choice = decide({"max_latency_s": 2.9e-3}, table=table, predictor=predictor, models=["t5-tiny"], probability=0.9)
    [cell] = choice.open
    assert cell.command == "labbench run --model t5-tiny --runtime onnxruntime"
    assert 0.05 < cell.chance < 0.9


def test_measuring_what_was_named_settles_it():
    measured = made_frame(*[r for r in study(scatter=0.1) if r.cell.workload.model == "t5-tiny"])
    assert decide({"max_latency_s": 2.9e-3}, table=measured, models=["t5-tiny"], probability=0.9).open == ()


def test_close_measurements_are_to_be_measured_again():
    table = made_frame(
        record(seconds=1e-3, relative_ci=0.1), record(runtime="compile", seconds=1.01e-3, relative_ci=0.1)
    )
    commands = [one.command for one in decide({}, table=table).open]
    assert len(commands) == 2
    assert all(one.endswith("--rerun --protocol thorough") for one in commands)


def test_parts_of_compatibility_are_shares_and_mean_what_they_say():
    failed = record("t5-tiny", runtime="compile", status="failed", reason="no")
    table = made_frame(record(runtime="compile", memory=2e9, relative_ci=0.25), failed)
    choices = select(table, read_requirements(), None, PLACE).choices
    parts = choices[0].best["compatibility"].parts
    assert parts == {
        "support": 0.5, "memory_fit": 0.75, "evidence": pytest.approx(0.8), "stability": pytest.approx(1 / 1.3),
    }  # fmt: skip
    assert choices[1].excluded[0][0]["compatibility"].support == 0.0
    assert "1 of 2 cells tried there ran" in choices[0].best["compatibility"].sentence


@settings(max_examples=6, deadline=None)
@given(st.floats(1e-5, 1), st.floats(0, 0.9), st.floats(1e6, 1e11))
def test_no_part_leaves_0_to_1(seconds, ci, memory):
    options = select(made_frame(record(seconds=seconds, relative_ci=ci, memory=memory)), None, None, PLACE)
    choice = options.choices[0]
    score = (choice.best or choice.excluded[0][0])["compatibility"]
    assert all(math.isnan(value) or 0 <= value <= 1 for value in score.parts.values())
    assert json.dumps(options.to_dict(), allow_nan=False)
