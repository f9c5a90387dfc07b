"""What cells of a workload at some batch sizes tell of it at others."""

import pickle

import numpy as np
import pytest
from made import ENVIRONMENTS, footprint, law_seconds, made_frame, record, study

from labbench.prediction import PredictionConfig, Predictor
from labbench.prediction.batches import NOISE_SD, Batches, Line
from labbench.prediction.features import prepare
from labbench.prediction.predictor import with_framework

LENGTH, SD = 8.0, 0.2


def cells(models, batches):
    rows = [record(model, batch_size=batch) for model in models for batch in batches]
    return with_framework(prepare(made_frame(*rows)), ENVIRONMENTS)


def drawn(models, batches, seed=0):
    """Errors of an Ornstein-Uhlenbeck process along the batches of each model."""
    octave = np.log2(batches)
    factor = np.linalg.cholesky(SD**2 * np.exp(-np.abs(octave[:, None] - octave) / LENGTH))
    rng = np.random.default_rng(seed)
    paths = rng.normal(size=(len(models), len(batches))) @ factor.T
    return (paths + rng.normal(0, NOISE_SD, paths.shape)).ravel()


def predicted(found, frame):
    """Errors and half-widths of intervals of 90 % for a law that says one second everywhere."""
    mean, sd = found.told(frame, np.ones(len(frame)))
    return mean, sd * found.radius(0.9).value


MODELS = [f"model{number}-tiny" for number in range(60)]


def test_errors_are_those_measured_between_them_in_between_and_nothing_far_away():
    frame, error = cells(MODELS[:10], (1, 8)), np.tile([0.3, 0.1], 10)
    found = Batches.fit(frame, error)
    mean, reach = predicted(found, cells(MODELS[:1], (1, 2, 4, 8, 1 << 40)))
    assert mean[[0, 3]] == pytest.approx([0.3, 0.1], abs=0.02)
    assert 0.1 < mean[2] < mean[1] < 0.3
    assert abs(mean[4]) < 0.1
    assert reach[4] > max(reach[1:3]) > reach[0]


def test_intervals_hold_what_they_say_at_batch_sizes_that_were_not_measured():
    batches = (1, 2, 4, 8, 16, 32, 64)
    error = drawn(MODELS, batches).reshape(len(MODELS), -1)
    seen = [batches.index(one) for one in (1, 8, 32)]
    found = Batches.fit(cells(MODELS, (1, 8, 32)), error[:, seen].ravel())
    asked = [batches.index(one) for one in (2, 4, 16, 64)]
    mean, reach = predicted(found, cells(MODELS, (2, 4, 16, 64)))
    held = np.abs(error[:, asked].ravel() - mean) <= reach
    assert 0.8 < held.mean() < 0.98
    assert np.abs(error[:, asked].ravel() - mean).mean() < 0.6 * np.abs(error[:, asked]).mean()


def test_other_workloads_and_too_few_siblings_are_left_to_others():
    found = Batches.fit(cells(MODELS[:10], (1, 8)), np.zeros(20))
    assert found.known(cells(["model3-tiny", "other-tiny"], (4,))).tolist() == [True, False]
    assert Batches.fit(cells(MODELS, (8,)), np.zeros(len(MODELS))) is None
    assert Batches.fit(cells(MODELS[:3], (1, 8)), np.zeros(6)) is None


def test_what_was_measured_is_known_after_it_was_stored():
    found = pickle.loads(pickle.dumps(Batches.fit(cells(MODELS[:10], (1, 8)), np.zeros(20))))
    assert found.known(cells(["model3-tiny", "other-tiny"], (4,))).tolist() == [True, False]


def off(batches, noise, asked=64):
    """How far memory at a batch size is off, in the log: as it is told, and on the line through two; the law is off by 0.3."""
    rng, batches = np.random.default_rng(0), np.array(batches)
    once, each = np.tile(np.linspace(1e8, 2e8, 10), 6)[:, None], np.repeat(np.geomspace(1e5, 5e6, 6), 10)[:, None]
    memory, law = once + each * batches, (once + each * batches) * np.exp(rng.normal(0, 0.3, (60, 1)))
    measured = memory * np.exp(rng.normal(0, noise, memory.shape))
    found = Batches.fit(cells(MODELS, batches), np.log(measured / law).ravel(), measured.ravel())
    truth = (once + each * asked).ravel()
    shift, _ = found.told(cells(MODELS, (asked,)), truth * (law / memory)[:, 0])
    on_line = np.array([Line.through(batches, one).at(np.array([asked]))[0][0] for one in measured])
    return np.abs(shift + np.log((law / memory)[:, 0])), np.abs(np.log(on_line / truth))


def test_memory_lies_on_the_line_through_batch_sizes_that_are_far_enough_apart():
    told, on_line = off((1, 8), noise=1e-4)
    assert on_line.max() < 0.01
    assert np.median(told) < 0.03
    told, on_line = off((1, 2), noise=0.02)
    assert np.median(told) < np.median(on_line)
    assert told.max() < 0.7 * on_line.max()


def test_memory_does_not_fall_with_the_batch():
    line = Line.through(np.array([1.0, 8.0]), np.array([3e8, 2e8]))
    value, _ = line.at(np.array([1.0, 8.0, 64.0]))
    assert line.each == 0
    assert 2e8 < value[0] == value[2] < 3e8


def test_a_predictor_anchors_scaling_at_what_was_measured():
    """A model half as fast as its footprint says is so at other batch sizes, too."""
    slow = [
        record("odd-tiny", "eager", batch_size=batch, demand=demand, seconds=2 * law_seconds(demand, "eager"))
        for batch in (1, 8)
        for demand in [footprint(3 * batch)]
    ]
    others = [
        record(f"other{number}-tiny", "eager", batch_size=batch, demand=demand, seconds=law_seconds(demand, "eager"))
        for number in range(6)
        for batch in (1, 8)
        for demand in [footprint((number + 1) * batch)]
    ]
    predictor = Predictor(PredictionConfig(residual="none")).fit(made_frame(*study(), *slow, *others), ENVIRONMENTS)
    asked = made_frame(record("odd-tiny", "eager", batch_size=4, demand=footprint(12)))
    [told], [method] = (predictor.predict(asked)[name] for name in ("latency_s", "method"))
    assert method == "fitted roofline + its other batch sizes"
    assert told == pytest.approx(2 * law_seconds(footprint(12), "eager"), rel=0.1)
