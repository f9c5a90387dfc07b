"""What a workload's errors in some configurations tell of others."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
from made import ENVIRONMENTS, footprint, law_seconds, made_frame, record, study

from labbench.prediction import PredictionConfig, Predictor
from labbench.prediction.features import prepare
from labbench.prediction.predictor import with_framework
from labbench.prediction.relatives import Relatives, still_shared

PLAIN = PredictionConfig(residual="none")
RUNTIMES, SD = ("onnxruntime", "openvino"), 0.2
NAMES = [f"model{number}-tiny" for number in range(10)]


def cells(models, runtimes):
    rows = [record(model, runtime) for model in models for runtime in runtimes]
    return with_framework(prepare(made_frame(*rows)), ENVIRONMENTS)


def errors(models, correlation):
    """Of each model on both runtimes, a row a model."""
    factor = np.linalg.cholesky(SD**2 * np.array([[1.0, correlation], [correlation, 1.0]]))
    return np.random.default_rng(0).normal(size=(models, 2)) @ factor.T


def fitted(error):
    """From errors of each model on both runtimes, a family each."""
    names = NAMES[: len(error)]
    return Relatives.fit(cells(names, RUNTIMES), error.ravel(), np.repeat(names, 2))


def asked_of_the_second(error, both):
    """Models of which the first ``both`` ran on both runtimes: of the others, told errors on the second and half-widths of 90 %."""
    names = [f"model{number}-tiny" for number in range(len(error))]
    rows = [(name, runtime) for name in names[:both] for runtime in RUNTIMES] + [
        (name, RUNTIMES[0]) for name in names[both:]
    ]
    frame = with_framework(prepare(made_frame(*(record(*row) for row in rows))), ENVIRONMENTS)
    found = Relatives.fit(frame, np.concatenate([error[:both].ravel(), error[both:, 0]]), frame["model"].to_numpy(str))
    question = cells(names[both:], RUNTIMES[1:])
    assert found.known(question).all()
    mean, left = found.told(question)
    return mean, left * found.radius(0.9).value


def test_what_one_runtime_takes_longer_for_the_other_does_too_as_far_as_they_are_alike():
    error = errors(90, 0.9)
    truth, (mean, reach) = error[60:, 1], asked_of_the_second(error, 60)
    assert np.abs(truth - mean).mean() < 0.7 * np.abs(truth).mean()
    assert 0.75 < (np.abs(truth - mean) <= reach).mean() <= 1.0


@pytest.mark.parametrize("correlation", [0.0, -0.9])
def test_runtimes_that_have_nothing_in_common_or_seem_to_err_against_each_other_tell_little(correlation):
    error = errors(90, correlation)
    truth, (mean, reach) = error[60:, 1], asked_of_the_second(error, 60)
    assert np.abs(mean).max() < 0.15
    assert np.abs(truth - mean).mean() < 1.1 * np.abs(truth).mean()
    assert (np.abs(truth - mean) <= reach).mean() > 0.75


def test_what_is_told_is_taken_off_what_errors_have_in_common():
    told = still_shared(np.array([0.8, 0.8, 0.8, 0.3]), np.sqrt([1.0, 0.5, 0.2, 0.5]))
    assert told == pytest.approx([0.8, 0.6, 0.0, 0.0])


def test_few_families_tell_less():
    alike = np.where(np.arange(41) % 2, 0.3, -0.3)[:, None] * [1.0, 1.0]
    few, many = (asked_of_the_second(np.vstack([alike[:both], alike[40:]]), both)[0][0] for both in (6, 40))
    assert many < few < 0


def test_other_workloads_and_configurations_and_too_few_families_are_left_to_others():
    found = pickle.loads(pickle.dumps(fitted(errors(10, 0.9))))  # as it is stored
    assert found.known(cells(["model3-tiny", "other-tiny"], ("openvino", "compile"))).tolist() == [
        True,
        False,
        False,
        False,
    ]
    assert Relatives.fit(cells(NAMES, RUNTIMES[:1]), np.zeros(10), np.array(NAMES)) is None
    assert fitted(np.zeros((5, 2))) is None


def test_a_predictor_that_saw_a_model_on_other_runtimes_is_nearer_to_it_on_one_more():
    frame = made_frame(*study(scatter=0.25))
    hidden = (frame["model"] == "vit-tiny") & (frame["runtime"] == "onnxruntime")
    predictor = Predictor(PLAIN).fit(frame[~hidden].reset_index(drop=True), ENVIRONMENTS)
    quantities = {name: replace(one, relatives=None) for name, one in predictor.quantities.items()}
    measured = frame.loc[hidden, "latency_s"].item()
    off = [
        abs(float(np.log(one.predict(frame[hidden])["latency_s"].item() / measured)))
        for one in (predictor, replace(predictor, quantities=quantities))
    ]
    assert off[0] < 0.7 * off[1]
    assert predictor.predict(frame[hidden])["method"].item() == "fitted roofline + its other platforms"
    stranger = made_frame(record("new-tiny", "onnxruntime", demand=footprint(4)))
    told = predictor.predict(stranger)["latency_s"].item()
    assert told == replace(predictor, quantities=quantities).predict(stranger)["latency_s"].item()
    assert told == pytest.approx(law_seconds(footprint(4), "onnxruntime"), rel=0.3)
