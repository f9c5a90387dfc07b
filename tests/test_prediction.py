import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made import (
    BANDWIDTH,
    DISPATCH_S,
    ENVIRONMENTS,
    FAMILIES,
    LAWS,
    PEAK,
    footprint,
    law_seconds,
    made_frame,
    record,
    study,
)

from labbench.cells import Cell
from labbench.config import ConfigError, read
from labbench.prediction import (
    PredictionConfig,
    PredictionError,
    Predictor,
    candidates,
    choice_regret,
    cross_validate,
    evaluate,
    missing,
    score,
    with_threads,
)
from labbench.prediction.conformal import radius
from labbench.prediction.features import Ceilings, prepare
from labbench.prediction.law import _solved, fit_terms
from labbench.prediction.predictor import ceilings_of
from labbench.prediction.quantity import MOST_NOISE, Quantity
from labbench.prediction.residual import _fitted, folds_by_group, foretold
from labbench.records import Environment, OperatorClass

PLAIN = PredictionConfig(residual="none")


def asked(demand, model="new-tiny", **cell):
    """A frame of one cell that was not measured."""
    return made_frame(record(model, demand=demand, **cell))


# The law


def test_a_law_finds_the_coefficients_that_made_the_data():
    rng = np.random.default_rng(0)
    terms = rng.lognormal(0, 1.5, (40, 3))
    theta = fit_terms(terms, terms @ [2.0, 0.5, 1.0], np.zeros(3), width=2.0, noise=0.1)
    assert np.exp(theta) == pytest.approx([2.0, 0.5, 1.0], rel=0.05)


def test_a_coefficient_that_the_data_do_not_speak_about_stays_at_its_centre():
    terms = np.column_stack([np.arange(1.0, 9), np.zeros(8)])
    theta = fit_terms(terms, 3 * np.arange(1.0, 9), np.array([0.0, 0.7]), width=2.0, noise=0.1)
    assert np.exp(theta[0]) == pytest.approx(3, rel=0.01)
    assert theta[1] == pytest.approx(0.7)


def test_one_wild_measurement_does_not_move_a_law_much():
    terms = np.arange(1.0, 21)[:, None]
    target = 2 * terms[:, 0]
    target[7] *= 100
    assert np.exp(fit_terms(terms, target, np.zeros(1), width=2.0, noise=0.1)[0]) == pytest.approx(2, rel=0.05)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.floats(1e-6, 1e6))
def test_a_law_scales_with_the_unit_of_its_target_and_is_positive(seed, unit):
    terms = np.random.default_rng(seed).lognormal(0, 1, (12, 3))
    target = terms.sum(axis=1)
    one = np.exp(fit_terms(terms, target, np.zeros(3), 2.0, 0.1))
    other = np.exp(fit_terms(terms * unit, target * unit, np.zeros(3), 2.0, 0.1))
    assert (one > 0).all()
    assert other == pytest.approx(one, rel=1e-3)


@pytest.mark.parametrize("shape", [(5, 40), (40, 5), (12, 12)])
def test_a_step_is_the_same_whether_rows_or_coefficients_are_fewer(shape):
    rng = np.random.default_rng(0)
    slope, weight, ridge, right = (
        9 * rng.random(shape),
        0.1 + rng.random(shape[0]),
        0.2 + rng.random(shape[1]),
        rng.random(shape[1]),
    )
    whole = slope.T @ np.diag(weight) @ slope + np.diag(ridge)
    assert whole @ _solved(slope, weight, ridge, right) == pytest.approx(right, rel=1e-9)


def test_a_system_that_rounding_makes_indefinite_is_solved_all_the_same():
    slope = np.outer(np.ones(8), [1e9, 1e9, 1e-3])
    with pytest.raises(np.linalg.LinAlgError):
        np.linalg.cholesky(slope.T @ slope + np.diag([1e-4, 1e-4, 1.0]))
    found = _solved(slope, np.ones(8), np.array([1e-4, 1e-4, 1.0]), np.array([8e9, 8e9, 1.0]))
    assert np.isfinite(found).all()
    assert slope @ found == pytest.approx(np.ones(8), rel=1e-3)


def test_families_that_scatter_are_not_fitted_as_if_they_did_not():
    frames = made_frame(*study()), made_frame(*study(scatter=0.4))
    noises = [Predictor(PLAIN).fit(one, ENVIRONMENTS).quantities["latency_s"].law.law.noise for one in frames]
    assert noises[0] == PLAIN.noise
    assert 0.2 < noises[1] <= MOST_NOISE


# Intervals


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 10), st.integers(0, 30)), min_size=1), st.floats(0.5, 0.95))
def test_an_interval_grows_with_its_level_and_never_claims_more_than_its_families_support(rows, level):
    scores, groups = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    found = radius(scores, groups, level)
    assert found.level <= level
    assert found.level <= found.families / (found.families + 1)
    assert radius(scores, groups, level / 2).value <= found.value <= scores.max()


def test_a_family_with_many_rows_counts_no_more_than_one_with_few():
    groups = np.array(["a"] * 1000 + list("bcdefghijklmnopqrst"))
    scores = np.array([0.01] * 1000 + [1.0] * 19)
    assert radius(scores, groups, 0.9).value == 1.0


@pytest.mark.parametrize("per_family", [1, 7])
def test_the_interval_covers_new_families_at_its_level(per_family):
    rng = np.random.default_rng(1)
    covered = []
    for _ in range(400):
        size = np.abs(rng.normal(0, 1, 21))  # families differ in how wrong they are
        scores = np.abs(rng.normal(0, 1, (21, per_family))) * size[:, None]
        found = radius(scores[:-1].ravel(), np.repeat(np.arange(20), per_family), 0.9)
        covered.append((scores[-1] <= found.value).mean())
    assert np.mean(covered) >= 0.9 - 2 * np.std(covered) / 20


# The predictor


@pytest.fixture(scope="module")
def fitted():
    return Predictor(PLAIN).fit(made_frame(*study()), ENVIRONMENTS)


def test_a_new_model_on_a_measured_platform_is_predicted_with_an_interval(fitted):
    demand = footprint(5)
    row = fitted.predict(asked(demand, runtime="onnxruntime")).iloc[0]
    assert row["latency_s"] == pytest.approx(law_seconds(demand, "onnxruntime"), rel=0.05)
    assert row["latency_low_s"] < row["latency_s"] < row["latency_high_s"]
    assert row["memory_increase_bytes"] == pytest.approx(
        3e7 + demand.parameter_bytes + demand.activation_bytes / 2, rel=0.02
    )
    assert (row["provenance"], row["out_of_domain"], row["level"]) == ("predicted", False, 0.9)
    assert row["reason"] is None


def test_cells_are_asked_about_with_the_threads_that_were_measured():
    measured = made_frame(record(threads=1), record(threads=2), record(runtime="onnxruntime"))
    asked = [Cell.of(model="bert-tiny", runtime=runtime) for runtime in ("eager", "onnxruntime", "openvino")]
    labels = [cell.platform.label for cell in with_threads(asked, measured)]
    assert labels == ["cpu/eager·1t", "cpu/eager·2t", "cpu/onnxruntime", "cpu/openvino"]


def test_a_platform_that_was_never_measured_gets_a_reason_and_no_number(fitted):
    for row in (asked(footprint(1), runtime="openvino"), asked(footprint(1), machine_id="m2")):
        answer = fitted.predict(row).iloc[0]
        assert np.isnan(
            [answer["latency_s"], answer["latency_low_s"], answer["memory_increase_bytes"], answer["level"]]
        ).all()
        assert answer["out_of_domain"]
        assert "nothing was measured on cpu/" in answer["reason"]


@pytest.mark.parametrize(
    ("demand", "cell", "words"),
    [
        (footprint(3, batch_size=100), {}, "times the most FLOPs measured"),
        (footprint(3), {"precision": "bf16"}, "bf16 inference was never measured"),
        (footprint(3, extra={"attention": OperatorClass(flops=1e8, bytes=1e6, kernels=4)}), {}, "class attention"),
    ],
)
def test_a_cell_outside_what_was_measured_is_marked_with_the_reason(fitted, demand, cell, words):
    row = fitted.predict(asked(demand, **cell)).iloc[0]
    assert row["out_of_domain"]
    assert words in row["reason"]
    assert row["latency_s"] > 0


def test_a_cell_without_a_footprint_is_refused(fitted):
    row = fitted.predict(asked(None)).iloc[0]
    assert np.isnan(row["latency_s"])
    assert "footprint" in row["reason"]


def test_measured_values_of_the_cells_asked_for_do_not_enter_the_prediction(fitted):
    one, other = (fitted.predict(asked(footprint(2), seconds=s, memory=s * 1e12)) for s in (1e-3, 1.0))
    pd.testing.assert_frame_equal(one.drop(columns="record_id"), other.drop(columns="record_id"))


def test_predictions_failures_and_unstable_series_are_never_learnt_from():
    good = study()
    bad = [
        record("x-tiny", seconds=50.0, demand=footprint(1), provenance="predicted"),
        record("y-tiny", seconds=50.0, demand=footprint(2), provenance="simulated"),
        record("z-tiny", seconds=50.0, demand=footprint(3), noise="unstable"),
        record("w-tiny", status="failed", reason="no"),
    ]
    question = asked(footprint(4))
    with_bad, without = (
        Predictor(PLAIN).fit(made_frame(*rows), ENVIRONMENTS).predict(question) for rows in ([*good, *bad], good)
    )
    assert with_bad["latency_s"].tolist() == without["latency_s"].tolist()


def test_more_work_never_takes_less_time(fitted):
    rows = pd.concat([asked(footprint(3, batch_size=size), batch_size=size) for size in (1, 2, 4, 8)])
    assert fitted.predict(rows)["latency_s"].is_monotonic_increasing


def test_a_precision_of_its_own_ceiling_is_not_needed_to_answer(fitted):
    assert fitted.predict(asked(footprint(3), precision="int8")).iloc[0]["latency_s"] > 0


def test_a_machine_without_measured_ceilings_can_be_learnt_too():
    table = made_frame(*study())
    row = Predictor(PLAIN).fit(table, {}).predict(asked(footprint(5))).iloc[0]
    assert row["latency_s"] == pytest.approx(law_seconds(footprint(5), "eager"), rel=0.1)


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ([record(status="failed", reason="no")], "no measured cell"),
        (study(FAMILIES[:2]), "2 model families"),
        ([record(noise="unstable", demand=footprint(1))], "unstable"),
    ],
)
def test_too_little_to_learn_from_is_an_error_with_the_way_out(records, words):
    with pytest.raises(PredictionError, match=words):
        Predictor().fit(made_frame(*records), ENVIRONMENTS)


def test_memory_that_too_few_families_tell_is_left_out_and_latency_answered():
    """As where results were imported, which tell no memory, and two models of one's own were measured."""
    frame = made_frame(*study())
    own = frame["model"].astype(str).str.startswith(("bert", "vit"))
    assert 0 < own.sum() < len(frame)
    frame.loc[~own, "memory_increase_bytes"] = None
    row = Predictor(PLAIN).fit(frame, ENVIRONMENTS).predict(asked(footprint(5))).iloc[0]
    assert row["latency_s"] > 0
    assert "memory_increase_bytes" not in row


def test_an_unfitted_predictor_says_so():
    with pytest.raises(PredictionError, match="fit"):
        Predictor().predict(asked(footprint(1)))


def test_the_residual_is_used_where_it_helps_and_only_there():
    def quantity(factor):
        records = []
        for index in range(60):
            demand = footprint(index, extra={"softmax": OperatorClass(flops=1, bytes=1, kernels=index % 2)})
            seconds = law_seconds(demand, "eager") * factor(index)
            records.append(record(f"family{index}-tiny", seconds=seconds, demand=demand))
        return Predictor().fit(made_frame(*records), ENVIRONMENTS).quantities["latency_s"]

    learnable = quantity(lambda index: 1.5 if index % 2 else 1 / 1.5)
    assert isinstance(learnable, Quantity)
    assert learnable.far.weight > 0.5
    draws = np.random.default_rng(0).lognormal(0, 0.2, 60)
    assert quantity(lambda index: draws[index]).far.weight < 0.2


# Evaluation


def test_a_forest_leaves_the_filters_of_warnings_alone_and_shows_none():
    import warnings

    from sklearn.ensemble import ExtraTreesRegressor

    class Racing(ExtraTreesRegressor):
        """As where the threads of scikit-learn meet: the filters are left empty."""

        def fit(self, features, target):
            warnings.resetwarnings()
            warnings.warn("filters are empty", UserWarning, stacklevel=1)
            return super().fit(features, target)

        def predict(self, features):
            warnings.resetwarnings()
            warnings.warn("filters are empty", UserWarning, stacklevel=1)
            return super().predict(features)

    rows = np.random.default_rng(0).normal(size=(40, 3))
    with warnings.catch_warnings(record=True) as shown:
        before = list(warnings.filters)
        model = _fitted(Racing(5), rows, rows[:, 0])
        assert len(foretold(model, rows)) == 40
        assert warnings.filters == before
    assert not shown


def test_no_family_is_on_both_sides_of_a_split():
    groups = np.array(list("aabbbccdeffgg"))
    seen = []
    for train, test in folds_by_group(groups, 4, seed=0):
        assert not set(groups[train]) & set(groups[test])
        seen += test.tolist()
    assert sorted(seen) == list(range(len(groups)))


def test_families_that_share_an_operator_graph_are_split_together():
    twins = [record(name, demand=footprint(3), seconds=1e-3) for name in ("llama-tiny", "qwen2-tiny")]
    table = made_frame(*twins, record("bert-tiny", demand=footprint(4)))
    assert prepare(table)["group"].tolist() == ["llama", "llama", "bert"]


def test_a_planted_leak_across_families_would_be_seen_by_the_evaluation():
    """A family whose latency no other family tells: predicted well only if its own rows were trained on."""
    records = study()
    odd = record("odd-tiny", seconds=40 * law_seconds(footprint(7), "eager"), demand=footprint(7, extra={
        "softmax": OperatorClass(flops=1.0, bytes=1.0, kernels=3)}))  # fmt: skip
    found = cross_validate(made_frame(*records, odd), ENVIRONMENTS, PLAIN)
    row = found[(found["family"] == "odd") & (found["method"] == "labbench") & (found["quantity"] == "latency_s")].iloc[
        0
    ]
    assert row["measured"] / row["predicted"] > 20


@pytest.fixture(scope="module")
def validated():
    return cross_validate(made_frame(*study(scatter=0.1)), ENVIRONMENTS, PLAIN)


def test_every_measured_row_is_scored_once_by_every_method(validated):
    latency = validated[validated["quantity"] == "latency_s"]
    assert (latency.groupby("method").size() == len(FAMILIES) * len(LAWS)).all()
    assert {"labbench", "nearest measured cell", "platform median", "roofline, measured ceilings"} <= set(
        latency["method"]
    )


def test_scores_are_those_of_the_predictions(validated):
    scores = score(validated).set_index(["quantity", "method"]).loc[("latency_s", "platform median")]
    rows = validated[(validated["quantity"] == "latency_s") & (validated["method"] == "platform median")]
    error = (rows["predicted"] / rows["measured"] - 1).abs()
    assert scores["mape"] == pytest.approx(error.mean())
    assert scores["within_25"] == pytest.approx((error <= 0.25).mean())
    assert np.isnan(scores["coverage"])


def test_on_data_that_follow_a_law_the_predictor_beats_the_baselines_and_covers(validated):
    scores = score(validated)
    latency = scores[scores["quantity"] == "latency_s"].set_index("method")
    assert latency["mape"].idxmin().startswith("labbench")
    assert latency.loc["labbench", "mape"] < 0.2
    assert latency.loc["labbench", "family_coverage"] >= 0.8


def test_scores_by_platform_have_a_row_each(validated):
    by = score(validated, ["platform"])
    assert set(by["platform"].astype(str)) == {f"cpu/{runtime}" for runtime in LAWS}


def test_regret_is_zero_for_a_method_that_always_picks_the_fastest(validated):
    oracle = validated[validated["method"] == "labbench"].assign(predicted=lambda t: t["measured"])
    found = choice_regret(oracle).set_index("method")
    assert found.loc["labbench", "mean_regret"] == 0
    assert found.loc["best fixed platform", "workloads"] == len(FAMILIES)


def test_evaluate_is_the_score_of_the_cross_validation(validated):
    table = evaluate(made_frame(*study(scatter=0.1)), ENVIRONMENTS, PLAIN)
    clocks = ["fit_s", "predict_s"]
    pd.testing.assert_frame_equal(table.drop(columns=clocks), score(validated).drop(columns=clocks))


# New devices


def twice_as_fast(machine_id):
    """A machine that nobody measured but for its ceilings."""
    ceilings = {"gemm_flops": {"fp32": 2 * PEAK}, "bandwidth_bytes_s": 2 * BANDWIDTH, "dispatch_s": DISPATCH_S / 2}
    return Environment(machine_id=machine_id, hostname="new", machine={"ceilings": {"cpu": ceilings}}, software={})


def test_a_new_device_is_predicted_from_others_by_its_ceilings_with_a_wide_interval():
    new = twice_as_fast("m2")
    fitted = Predictor(PLAIN).fit(made_frame(*study()), ENVIRONMENTS | {new.id: new})
    demand = footprint(5)
    for runtime in LAWS:
        there, here = (fitted.predict(asked(demand, machine_id=m, runtime=runtime)).iloc[0] for m in ("m2", "m1"))
        truth = law_seconds(demand, runtime) / 2
        assert there["latency_s"] == pytest.approx(truth, rel=0.25)
        assert there["latency_low_s"] < truth < there["latency_high_s"]
        width, known = (row["latency_high_s"] / row["latency_low_s"] for row in (there, here))
        assert width > max(1.5, 1.2 * known)
        assert there["method"] == "fitted roofline + Gaussian process, no probes"
        assert f"nothing was measured on cpu/{runtime} of machine m2" in there["reason"].replace("-t2", "")
        assert not there["out_of_domain"]
        assert there["memory_increase_bytes"] > 0


def test_a_card_is_predicted_by_the_datasheet_of_its_name_and_an_unknown_one_is_refused():
    card = machine_with("NVIDIA GeForce RTX 3090")
    seconds = {name: law_seconds(footprint(i), "eager") / 300 for i, name in enumerate(FAMILIES)}
    rows = [
        record(f"{name}-tiny", "eager", seconds[name], demand=footprint(i), machine_id="m", device="cuda:0")
        for i, name in enumerate(FAMILIES)
    ]
    fitted = Predictor(PLAIN).fit(made_frame(*rows), {card.id: card})
    row = asked(footprint(5), machine_id="new", device="cuda:0")
    slow, fast, unknown = (
        fitted.predict(row.assign(device_name=name)).iloc[0] for name in ("RTX 3090", "RTX 5090", "RTX 9999")
    )
    assert 1.4 < slow["latency_s"] / fast["latency_s"] < 3.1  # 1.9 times the bandwidth, 2.9 times the FLOP/s
    assert "carried over from 1 other device; its ceilings: datasheet of GeForce RTX 5090" in fast["reason"]
    assert np.isnan(unknown["latency_s"])
    assert "neither measurements nor a datasheet tell what cuda:0 of it can do" in unknown["reason"]


# Ceilings


def machine_with(name, ceilings=None):
    measured = {"cuda:0": ceilings} if ceilings else {}
    machine = {"accelerators": [{"device": "cuda:0", "name": name}], "ceilings": measured}
    return Environment(machine_id="m", hostname="here", machine=machine, software={})


def test_ceilings_are_measured_or_of_the_datasheet_or_nominal_and_say_which():
    measured = {"gemm_flops": {"fp32": 1e13, "fp16": 5e13}, "bandwidth_bytes_s": 4e11, "dispatch_s": 7e-6}
    found = Ceilings.of(machine_with("NVIDIA GeForce RTX 4090", measured), "cuda:0")
    assert (found.source, found.bandwidth, found.dispatch_s) == ("measured", 4e11, 7e-6)
    assert found.peak("amp") == 5e13
    sheet = Ceilings.of(machine_with("NVIDIA GeForce RTX 4090"), "cuda:0")
    assert sheet.source == "datasheet of GeForce RTX 4090"
    assert sheet.peak("amp") == pytest.approx(2 * sheet.peak("fp32"), rel=0.01)
    unknown = Ceilings.of(machine_with("a card of my own"), "cuda:0")
    assert (unknown.source, unknown.known) == ("nominal", False)
    assert not Ceilings.of(None, "cpu").known


def test_another_layout_than_any_measured_is_answered_and_marked(fitted):
    row = fitted.predict(asked(footprint(5), runtime="eager-nhwc", device="cpu")).iloc[0]
    assert row["latency_s"] > 0
    assert row["out_of_domain"]
    assert "eager-nhwc was never measured, only as cpu/eager" in row["reason"]


def test_a_device_that_nothing_is_known_of_is_taken_for_the_mean_of_its_kind():
    machines = {"a": machine_with("RTX 3090"), "b": machine_with("RTX 4090"), "c": machine_with("a card of my own")}
    environments = {name: one.model_copy(update={"machine_id": name}) for name, one in machines.items()}
    places = pd.DataFrame({"machine_id": ["a", "b", "c", "c"], "device": ["cuda:0", "cuda:0", "cuda:0", "cpu"]})
    found = ceilings_of(places, environments)
    assert found["c", "cuda:0"].bandwidth == pytest.approx(np.sqrt(936.2e9 * 1010e9), rel=0.01)
    assert [found["c", name].source for name in ("cuda:0", "cpu")] == ["nominal", "nominal"]
    assert found["c", "cpu"] == Ceilings.of(None, "cpu")


def test_of_cards_that_a_short_name_may_mean_the_geometric_mean_stands():
    found = Ceilings.named("a100")
    assert found.source.count(" or ") == 3
    assert 1.5e12 < found.bandwidth < 2.1e12


# Cells that were not measured


def test_missing_cells_are_those_without_any_record_on_a_platform_that_could_run_them():
    records = [r for r in study() if (r.cell.workload.model, r.cell.platform.runtime) != ("t5-tiny", "compile")]
    records = [r for r in records if (r.cell.workload.model, r.cell.platform.runtime) != ("vit-tiny", "compile")]
    records += [
        record("vit-tiny", "compile", status="failed", reason="no"),
        record("bert-tiny", "eager", demand=footprint(0), mode="training"),
    ]
    found = missing(made_frame(*records))
    assert found[["model", "platform", "mode"]].astype(str).values.tolist() == [["t5-tiny", "cpu/compile", "inference"]]
    assert found["flops"].iloc[0] == footprint(1).flops


def test_candidates_have_the_columns_of_a_measured_cell(monkeypatch, fitted):
    import labbench.footprint

    monkeypatch.setattr(labbench.footprint, "of", lambda workload: {"forward": footprint(5)})
    rows = candidates([Cell.of(model="new-tiny", runtime="compile")], ["m1"])
    assert fitted.predict(rows).iloc[0]["latency_s"] == pytest.approx(law_seconds(footprint(5), "compile"), rel=0.05)


@pytest.mark.slow
def test_a_real_model_is_counted_and_predicted_without_being_run(fitted):
    from labbench.campaign import resolve

    rows = candidates(resolve([Cell.of(model="bert-tiny"), Cell.of(model="gpt2-tiny")]), ["m1"])
    assert set(rows["series"]) == {"forward", "prefill", "decode"}
    assert (fitted.predict(rows)["latency_s"] > DISPATCH_S).all()


# Figures


def test_predicted_points_are_hollow_and_measured_ones_filled(fitted):
    import matplotlib as mpl

    mpl.use("Agg")
    from labbench.prediction.figures import plot_prediction_forecast

    measured = made_frame(*study())
    inside = asked(footprint(0, batch_size=2), model="bert-tiny", batch_size=2)
    outside = asked(footprint(0, batch_size=900), model="bert-tiny", batch_size=900)
    ax = plot_prediction_forecast(fitted.predict(pd.concat([inside, outside])), measured, "bert-tiny")
    drawn = [points for points in ax.collections if len(points.get_offsets()) == 1 and hasattr(points, "get_sizes")]
    faces = [tuple(points.get_facecolor()[0]) for points in drawn]
    assert faces.count((1.0, 1.0, 1.0, 1.0)) == 1, "one prediction inside the domain"
    assert sum(face != (1.0, 1.0, 1.0, 1.0) for face in faces) == 2, "one cross outside it, one measured point"


def test_a_forecast_is_marked_as_predicted_and_a_guess_as_such(fitted):
    from labbench.prediction.report import fit_sentence, forecast_sentence, forecast_table

    inside = asked(footprint(0, batch_size=2), model="bert-tiny", batch_size=2)
    outside = asked(footprint(0, batch_size=900), model="bert-tiny", batch_size=900)
    predicted = fitted.predict(pd.concat([inside, outside]))
    table = forecast_table(predicted)
    assert table["provenance"].tolist() == ["predicted", "predicted, out of domain"]
    assert table["reason"].iloc[0] == ""
    assert "calibrated" not in table["reason"].iloc[1]
    assert "1 of 2 predictions lie inside" in forecast_sentence(predicted)
    assert fit_sentence(fitted).startswith("The 90 % interval of a latency reaches from the prediction divided by")
    assert "It comes from a fitted roofline; what was learnt besides did not help" in fit_sentence(fitted)


def test_every_method_has_a_curve_of_errors(validated):
    from labbench.prediction.figures import plot_predicted_measured, plot_prediction_errors, plot_prediction_residuals

    ax = plot_prediction_errors(validated)
    methods = set(validated.loc[validated["quantity"] == "latency_s", "method"])
    methods.remove("labbench, without residual")  # there was none: one curve for both
    assert {text.get_text() for text in ax.get_legend().get_texts()} == methods
    assert len(plot_prediction_residuals(validated).get_yticklabels()) == len(FAMILIES)
    low, high = plot_predicted_measured(validated).get_xlim()
    rows = validated[(validated["quantity"] == "latency_s") & (validated["method"] == "labbench")]
    assert low < rows["measured"].min() * 1e3
    assert rows["measured"].max() * 1e3 < high


# Configuration and imports


def test_an_unknown_key_of_the_configuration_is_refused_with_the_nearest_one(tmp_path):
    path = tmp_path / "prediction_model_config.json"
    path.write_text(json.dumps({"lvel": 0.9}))
    with pytest.raises(ConfigError, match="did you mean 'level'"):
        read(PredictionConfig, path)


def test_importing_the_room_loads_neither_torch_nor_sklearn_nor_pandas():
    code = "import sys, labbench.prediction; print([m for m in ('torch', 'sklearn', 'pandas') if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


# What is behind the errors


def test_calibration_is_the_share_of_a_family_inside_at_each_level():
    from labbench.prediction.errors import LEVELS, calibration

    predictions = cross_validate(made_frame(*study(scatter=0.1)), ENVIRONMENTS, PLAIN, levels=LEVELS)
    found = calibration(predictions)
    assert sorted(found.index) == sorted(FAMILIES)
    assert max(found.columns) == 0.9, "of eleven families no interval has 95 %"
    assert (found.diff(axis=1).iloc[:, 1:] >= 0).all(axis=None)
    rows = predictions[(predictions["method"] == "labbench") & (predictions["quantity"] == "latency_s")]
    covered = rows["measured"].between(rows["low"], rows["high"]).groupby(rows["group"]).mean()
    pd.testing.assert_series_equal(found[0.9], covered, check_names=False)


def test_what_an_error_goes_with_is_found_and_what_it_does_not_is_not():
    from labbench.prediction.errors import drivers

    table = made_frame(*study())
    predictions = cross_validate(table, ENVIRONMENTS, PLAIN)
    odd = predictions["platform"].astype("str") == "cpu/eager"
    predictions["predicted"] = predictions["measured"] * np.where(odd, 3.0, 1.1)
    found = drivers(predictions, table).set_index("driver")
    assert found["correlation"].idxmax() == "platform cpu/eager"
    assert found.loc["platform cpu/eager", "low"] > 0.9
    assert found.loc["FLOPs", "low"] < 0 < found.loc["FLOPs", "high"]


def test_sentences_on_errors_say_what_was_found():
    from labbench.prediction.report import calibration_sentence, drivers_sentence

    narrow = pd.DataFrame({0.5: 0.1, 0.9: [*[0.3] * 19, 0.2]}, index=[*(f"family{i}" for i in range(19)), "vit"])
    assert "too narrow" in calibration_sentence(narrow)
    assert "The worst is vit: 20 %" in calibration_sentence(narrow)
    driven = pd.DataFrame(
        {"driver": ["FLOPs", "bytes"], "correlation": [0.6, 0.1], "low": [0.4, -0.2], "high": [0.8, 0.4]}
    )
    assert drivers_sentence(driven).startswith("Errors are larger with FLOPs (+0.60).")
    assert drivers_sentence(driven.iloc[1:]).startswith("Nothing")


def test_figures_of_errors_show_every_family_and_driver():
    from labbench.prediction.errors import LEVELS, calibration, drivers
    from labbench.prediction.figures import plot_calibration, plot_error_drivers, plot_prediction_residuals

    table = made_frame(*study(scatter=0.1))
    predictions = cross_validate(table, ENVIRONMENTS, PLAIN, levels=LEVELS)
    lines = plot_calibration(calibration(predictions)).get_lines()
    assert len(lines) == len(FAMILIES) + 2  # the mean, and where promise is delivery
    driven = drivers(predictions, table)
    shown = {text.get_text() for text in plot_error_drivers(driven, most=len(driven)).get_yticklabels()}
    assert {"FLOPs", "platform cpu/eager"} <= shown
    places = {text.get_text() for text in plot_prediction_residuals(predictions, by="place").get_yticklabels()}
    assert places == {f"cpu/{runtime}" for runtime in LAWS}


def test_where_nothing_can_be_predicted_the_figure_and_the_sentence_say_so(fitted):
    from labbench.prediction.figures import plot_prediction_forecast
    from labbench.prediction.report import forecast_sentence, forecast_table

    predicted = fitted.predict(asked(footprint(1), runtime="openvino"))
    assert (
        "nothing can be predicted"
        in plot_prediction_forecast(predicted, made_frame(*study()), "new-tiny").texts[0].get_text()
    )
    assert "1 have no prediction, such as new-tiny" in forecast_sentence(predicted)
    assert forecast_table(predicted)["provenance"].tolist() == ["not predicted"]
