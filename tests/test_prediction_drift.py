import numpy as np
import pytest
from made import ENVIRONMENTS, FAMILIES, LAWS, footprint, law_seconds, made_frame, record, study

from labbench.prediction import PredictionConfig, PredictionError, Predictor, cross_validate
from labbench.prediction.card import Saved, load, save
from labbench.prediction.drift import Drift, drift

PLAIN = PredictionConfig(residual="none")
STUDY = study(scatter=0.1)
NEW = [f"new{i}" for i in range(8)]


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Saved:
    frame = made_frame(*STUDY)
    folder = tmp_path_factory.mktemp("predictors") / "laptop"
    save(Predictor(PLAIN).fit(frame, ENVIRONMENTS), folder, frame, cross_validate(frame, ENVIRONMENTS, PLAIN))
    return load(folder)


def measured_since(factor, runtimes=tuple(LAWS), families=NEW):
    """New families on the made hardware, which became slower by a factor (of each runtime) since."""
    of = factor if callable(factor) else lambda _: factor
    return [
        record(
            f"{family}-tiny",
            name,
            of(name) * law_seconds(demand, name),
            demand=demand,
            memory=3e7 + demand.parameter_bytes + 0.5 * demand.activation_bytes,
        )
        for i, family in enumerate(families)
        for name in runtimes
        for demand in [footprint(i % len(FAMILIES))]
    ]


def test_nothing_new_is_nothing_to_judge(saved):
    found = drift(saved, made_frame(*STUDY))
    assert not found.due
    assert found.table.empty
    assert "there is nothing to judge" in str(found)


def test_where_nothing_was_measured_there_is_an_error_with_the_way_out(saved):
    with pytest.raises(PredictionError, match="labbench run"):
        drift(saved, made_frame(record(status="failed", reason="no")))


def test_what_was_learnt_from_does_not_count(saved):
    found = drift(saved, made_frame(*STUDY, *measured_since(1.0)))
    [row] = found.table[(found.table["platform"] == "all") & (found.table["quantity"] == "latency_s")].to_dict(
        "records"
    )
    assert row["cells"] == len(NEW) * len(LAWS)


def test_hardware_that_is_as_it_was_needs_no_refit(saved):
    found = drift(saved, made_frame(*STUDY, *measured_since(1.0)))
    assert not found.due, found.reasons
    assert str(found).endswith("No refit is due.")


def test_hardware_that_became_slower_makes_a_refit_due(saved):
    found = drift(saved, made_frame(*STUDY, *measured_since(3.0)))
    assert found.due
    assert "Refit: beyond chance, intervals of latency hold 0.0 % and promise 90 %" in str(found)
    latency = found.table[found.table["quantity"] == "latency_s"]
    assert (latency["coverage"] == 0).all()
    assert latency["mape"].between(0.6, 0.75).all()


def test_a_single_platform_that_changed_is_named(saved):
    found = drift(saved, made_frame(*STUDY, *measured_since(lambda name: 3.0 if name == "eager" else 1.0)))
    assert any("on cpu/eager" in reason for reason in found.reasons)
    assert not any("on cpu/compile" in reason for reason in found.reasons)


def test_errors_above_those_of_the_card_make_a_refit_due_though_intervals_hold(saved):
    latency = saved.predictor.quantities["latency_s"]
    nearly = np.exp(0.9 * latency.radius(0.9).value)
    found = drift(saved, made_frame(*STUDY, *measured_since(nearly)))
    row = found.table[(found.table["platform"] == "all") & (found.table["quantity"] == "latency_s")].iloc[0]
    assert row["mape_low"] > row["card_mape"]
    assert [reason for reason in found.reasons if reason.startswith("errors of latency are")]


def test_one_family_that_is_off_may_be_chance(saved):
    found = drift(saved, made_frame(*STUDY, *measured_since(3.0, families=["new0"])))
    assert not found.due
    row = found.table[(found.table["platform"] == "all") & (found.table["quantity"] == "latency_s")].iloc[0]
    assert row["p_coverage"] == pytest.approx(0.1)
    assert np.isnan(row["mape_low"])


def test_what_lies_outside_or_is_refused_is_counted_and_not_scored(saved):
    refused = record("a-tiny", "openvino", demand=footprint(1))
    outside = record("b-tiny", demand=footprint(1, batch_size=1000), seconds=9.0)
    found = drift(saved, made_frame(*STUDY, refused, outside))
    row = found.table[(found.table["platform"] == "all") & (found.table["quantity"] == "latency_s")].iloc[0]
    assert (row["cells"], row["refused"], row["outside"]) == (0, 1, 1)
    assert not found.due
    assert "No new result of latency counts: 1 refused, 1 outside what it knows" in str(found)


def test_without_an_evaluation_the_card_has_no_error_to_compare_with(tmp_path):
    frame = made_frame(*STUDY)
    save(Predictor(PLAIN).fit(frame, ENVIRONMENTS), tmp_path, frame)
    found = drift(load(tmp_path), made_frame(*measured_since(1.0)))
    assert not found.due
    assert "the card says" not in str(found)


def test_alarms_are_as_rare_as_they_should_be(saved):
    """Sixty times new families whose errors are drawn as those of the training families are: few alarms."""
    rng = np.random.default_rng(0)
    errors = saved.predictor.quantities["latency_s"].far.scores
    alarms = 0
    for _ in range(60):
        drawn = {name: float(np.exp(rng.choice(errors) * rng.choice([-1, 1]))) for name in NEW}
        records = [one for name in NEW for one in measured_since(drawn[name], ("eager",), [name])]
        alarms += drift(saved, made_frame(*records)).due
    assert alarms / 60 <= 0.05


def test_json_has_no_number_that_json_cannot_say(saved):
    import json

    found = drift(saved, made_frame(*STUDY, *measured_since(1.0, families=["new0"])))
    assert isinstance(found, Drift)
    told = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert told["refit"] is False
    assert {row["platform"] for row in told["table"]} == {"all", *(f"cpu/{name}" for name in LAWS)}
