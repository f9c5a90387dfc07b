"""What cells of a workload at some batch sizes tell of it at others."""

import numpy as np
import pytest
from made import ENVIRONMENTS, footprint, law_seconds, made_frame, record, study

from labbench.prediction import PredictionConfig, Predictor
from labbench.prediction.batches import NOISE_SD, Batches
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


def test_memory_lies_on_the_line_through_two_batch_sizes_and_does_not_fall():
    models = MODELS[:10]
    once, each = np.linspace(1e8, 2e8, 10), np.linspace(1e6, 5e7, 10)
    memory = np.column_stack([once + each, once + 8 * each])
    memory[9] = 3e8, 2e8  # more samples never take less: what is left is one figure for all
    law = 1.7e8
    found = Batches.fit(cells(models, (1, 8)), np.log(memory / law).ravel(), memory.ravel())
    shift, _ = found.told(cells(models, (64,)), np.full(10, law))
    assert law * np.exp(shift[:9]) == pytest.approx((once + 64 * each)[:9], rel=1e-6)
    assert 2e8 < law * np.exp(shift[9]) < 3e8
    alone = Batches.fit(cells(models, (1, 8))[:-1], np.log(memory / law).ravel()[:-1], memory.ravel()[:-1])
    assert len(alone.lines) == 9


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
    [told] = predictor.predict(asked)["latency_s"]
    assert told == pytest.approx(2 * law_seconds(footprint(12), "eager"), rel=0.1)
