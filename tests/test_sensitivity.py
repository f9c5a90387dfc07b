import matplotlib as mpl
import numpy as np
import pytest
from made import ENVIRONMENT, ENVIRONMENTS, made_frame, record, study

from labbench.prediction import PredictionConfig, Predictor
from labbench.selection import Requirements, read_requirements, select
from labbench.selection.figures import plot_chances, plot_compatibility, plot_sensitivity
from labbench.selection.report import certainty_sentence, compatibility_table, decision_list, open_table
from labbench.selection.sensitivity import LOAD, PREDICTION, Remembered, sensitivity, sensitivity_sentence
from labbench.selection.what_if import what_if

DAY = {"currency": "EUR", "as_of": "2025-01-01", "source": "made for a test"}
TWO = made_frame(record(seconds=1e-3), record(seconds=0.4e-3, device="cuda:0"))
PRICES = [{"device": "cpu", "per_hour": 1.0, **DAY}, {"device": "cuda:0", "per_hour": 3.0, **DAY}]
MEMORY = ENVIRONMENT.model_copy(update={"machine": {**ENVIRONMENT.machine, "memory_bytes": 1e9}})


@pytest.fixture(scope="module")
def predicted():
    records = [
        r for r in study(scatter=0.1) if (r.cell.workload.model, r.cell.platform.runtime) != ("t5-tiny", "onnxruntime")
    ]
    table = made_frame(*records)
    return table, Predictor(PredictionConfig(residual="none")).fit(table, ENVIRONMENTS)


def changes(table, what):
    rows = table[table["what"] == what]
    return dict(zip(rows["factor"], rows["changes"], strict=True))


def test_a_choice_changes_where_the_price_passes_the_ratio_of_times():
    table = sensitivity(TWO, read_requirements(objective="cost", prices=PRICES), factors=(0.5, 0.8, 0.85, 2.0))
    # cpu: 1 x 1 ms; cuda: 3 x 0.4 ms = 1.2 times the cost of cpu
    assert changes(table, "price of cuda:0") == {0.5: True, 0.8: True, 0.85: False, 2.0: False}
    assert changes(table, "price of cpu") == {0.5: False, 0.8: False, 0.85: False, 2.0: True}
    assert "1 of 1 choice if the price of cpu is 0.5 to 2 times as much" in sensitivity_sentence(table)


def test_a_choice_changes_where_the_load_is_more_than_it_carries():
    asked = read_requirements(objective="cost", prices=PRICES, min_throughput=900.0)
    assert changes(sensitivity(TWO, asked), LOAD) == {0.5: False, 0.8: False, 1.25: True, 2.0: True}


def test_a_choice_changes_where_predictions_are_that_wrong(predicted):
    table, predictor = predicted
    asked = Requirements(models=["t5-tiny"])
    turned = sensitivity(table, asked, predictor, factors=(0.8, 3.0))
    assert changes(turned, PREDICTION) == {0.8: False, 3.0: True}
    assert turned["before"].tolist() == ["cpu/onnxruntime"] * 2
    assert turned["choice"].tolist() == ["cpu/onnxruntime", "cpu/compile"]


def test_what_was_not_asked_about_is_said():
    text = sensitivity_sentence(sensitivity(TWO, Requirements()))
    assert "none was given" in text
    assert "the load (give `min_throughput`), prices (give them, and ask for cost) and predictions" in text


def test_what_is_remembered_is_what_is_predicted(predicted):
    table, predictor = predicted
    asked = Remembered(predictor)
    first, again = (asked.predict(table, 0.8, (0.5,)) for _ in range(2))
    assert first.equals(predictor.predict(table, 0.8, (0.5,)))
    assert again.equals(first)
    assert (asked.times(2.0).predict(table, 0.8, (0.5,))["latency_s"] == 2 * first["latency_s"]).all()
    other = asked.predict(table.iloc[:3], 0.8, (0.5,))
    assert len(other) == 3


# The widget


def test_the_decision_follows_the_controls(predicted):
    table, predictor = predicted
    shown = what_if(table, Requirements(models=["t5-tiny"]), predictor, ENVIRONMENTS)
    assert shown.decision.choices[0].best["option"] == "cpu/onnxruntime"
    shown.controls["predicted"].value = 2.0
    assert shown.decision.choices[0].best["option"] == "cpu/compile"
    shown.controls["latency"].value = 1.0
    assert shown.decision.choices[0].best is None
    assert "Nothing meets the requirements" in shown._shown.value


def test_the_controls_begin_where_the_requirements_are_and_offer_cost_with_prices_only():
    asked = read_requirements(max_latency_s=2e-3, probability=0.9, prices=PRICES)
    controls = what_if(TWO, asked).controls
    assert controls["latency"].value == pytest.approx(2.0)
    assert controls["probability"].value == 0.9
    assert "cost" in controls["objective"].options
    assert "cost" not in what_if(TWO).controls["objective"].options
    assert "price" not in what_if(TWO).controls


def test_untouched_controls_decide_as_the_requirements_do():
    asked = read_requirements(objective="cost", prices=PRICES, max_latency_s=0.7e-3)
    before, shown = select(TWO, asked), what_if(TWO, asked)
    assert [c.best["option"] for c in shown.decision.choices] == [c.best["option"] for c in before.choices]


# Tables and figures


def test_a_page_says_how_sure_what_suits_and_what_to_measure(predicted):
    mpl.use("Agg")
    table, predictor = predicted
    decision = select(table, read_requirements(max_latency_s=3e-3, probability=0.8), predictor, {MEMORY.id: MEMORY})
    assert "with at least 95 % probability" in certainty_sentence(decision)
    assert compatibility_table(decision)["part"].tolist() == ["support", "memory fit", "evidence", "stability"]
    assert "how sure: best among the allowed" in decision_list(decision)
    assert set(open_table(decision)["workload"]) <= {choice.question for choice in decision.choices}
    points = np.concatenate([one.get_offsets() for one in plot_chances(decision).collections])
    assert len(points) == sum(choice.best is not None for choice in decision.choices)
    ax = plot_compatibility(decision, decision.choices[0].question)
    shown = [float(text.get_text()) for text in ax.texts]
    assert shown == [round(v, 2) for o in decision.choices[0].ranked for v in o["compatibility"].parts.values()]


def test_the_figure_of_sensitivity_shows_what_stays():
    mpl.use("Agg")
    asked = read_requirements(objective="cost", prices=PRICES)
    ax = plot_sensitivity(sensitivity(TWO, asked, factors=(0.5, 2.0)))
    stays = {line.get_label(): dict(zip(*line.get_data(), strict=True)) for line in ax.lines}
    assert stays == {"price of cpu": {0.5: 100, 1.0: 100, 2.0: 0}, "price of cuda:0": {0.5: 0, 1.0: 100, 2.0: 100}}
    assert "no price, load or prediction" in plot_sensitivity(sensitivity(TWO, Requirements())).texts[0].get_text()
