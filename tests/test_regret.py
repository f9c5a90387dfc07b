import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labbench.prediction.regret import regret, reliability

seconds = st.floats(1e-6, 1e3)
tables = st.lists(st.tuples(seconds, seconds, st.integers(0, 4)), min_size=1, max_size=40)


def arrays(rows):
    measured, predicted, question = zip(*rows, strict=True)
    return np.array(measured), np.array(predicted), np.array(question)


def of(found):
    return dict(zip(found["question"], found["regret"], strict=True))


def test_regret_of_a_table_worked_out_by_hand():
    # a: the second is taken, 5 s where 4 s were to be had; b: the best is taken; c: two tie, one of them is the best
    measured = np.array([4.0, 5.0, 8.0, 2.0, 3.0, 1.0, 2.0, 9.0])
    predicted = np.array([6.0, 5.0, 7.0, 1.0, 2.0, 3.0, 3.0, 4.0])
    found = regret(measured, predicted, np.array(["a", "a", "a", "b", "b", "c", "c", "c"]))
    assert of(found) == pytest.approx({"a": 1 - 4 / 5, "b": 0.0, "c": (0 + 0.5) / 2})
    assert dict(zip(found["question"], found["options"], strict=True)) == {"a": 3, "b": 2, "c": 3}


def test_an_option_without_a_prediction_is_not_taken_unless_none_has_one():
    measured, nan = np.array([1.0, 2.0, 1.0, 4.0]), np.nan
    found = of(regret(measured, np.array([nan, 5.0, nan, nan]), np.array(["a", "a", "b", "b"])))
    assert found == pytest.approx({"a": 0.5, "b": (0 + 0.75) / 2})


@settings(max_examples=50, deadline=None)
@given(tables)
def test_who_knows_the_answer_regrets_nothing(rows):
    measured, _, question = arrays(rows)
    assert (regret(measured, measured, question)["regret"] == 0).all()


@settings(max_examples=50, deadline=None)
@given(tables, st.floats(0.01, 100.0))
def test_regret_is_a_share_and_errors_that_all_options_have_in_common_do_not_matter(rows, factor):
    measured, predicted, question = arrays(rows)
    predicted = np.round(np.log2(predicted))  # far apart or equal: rounding makes no ties and breaks none
    found, scaled = of(regret(measured, predicted, question)), of(regret(factor * measured, predicted + 7, question))
    assert all(0 <= value < 1 for value in found.values())
    assert scaled == pytest.approx(found, abs=1e-9)


def test_reliability_of_a_table_worked_out_by_hand():
    chance = np.array([0.99, 0.97, 0.96, 0.5, 0.9, 0.1])
    met = np.array([True, True, False, True, True, False])
    found = reliability(chance, met, declared=(0.95, 0.9, 1.0)).set_index("declared")
    assert found["options"].to_dict() == {0.95: 3, 0.9: 4, 1.0: 0}
    assert found.loc[0.95, "met"] == pytest.approx(2 / 3)
    assert found.loc[0.9, "met"] == pytest.approx(3 / 4)
    assert np.isnan(found.loc[1.0, "met"])
    assert found["refused"].to_dict() == pytest.approx({0.95: 2 / 4, 0.9: 1 / 4, 1.0: 1.0})


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31))
def test_true_probabilities_are_found_to_be_calibrated_and_boasts_are_not(seed):
    rng = np.random.default_rng(seed)
    chance = rng.random(20_000)
    met = rng.random(len(chance)) < chance
    found = reliability(chance, met)
    error = 4 / np.sqrt(4 * np.maximum(found["options"], 1))  # four standard deviations of a share at most
    assert (found["met"] >= found["declared"] - error).all()
    boasting = reliability(chance**0.1, met).set_index("declared")
    assert boasting.loc[0.9, "met"] < 0.9
