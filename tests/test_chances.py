import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made import ENVIRONMENTS, made_frame, study
from scipy.stats import lognorm, norm

from labbench.prediction import PredictionConfig, Predictor, missing
from labbench.prediction.conformal import Radius, radius
from labbench.prediction.residual import in_common
from labbench.selection.chances import Belief, chances_of_best, levels_with, likely

LEVELS = levels_with(0.9, 0.95)
POSITIVE = st.floats(1e-6, 1e3)
REACHES = st.lists(st.floats(1e-4, 3), min_size=len(LEVELS) - 1, max_size=len(LEVELS) - 1)


def one(point=1.0, low=0.9, high=1.2, levels=LEVELS):
    return Belief.of_interval(*(np.array([value]) for value in (point, low, high)), levels)


def reaching(reaches, point=1.0):
    return Belief.of_reach(np.array([point]), np.array([[0.0, *sorted(reaches)]]), LEVELS)


def test_the_ends_of_a_measured_interval_are_its_quantiles():
    levels = levels_with(0.975)
    assert one(levels=levels).quantile(0.975)[0] == pytest.approx(1.2)
    assert one(levels=levels).quantile(0.025)[0] == pytest.approx(0.9)
    assert one().quantile(0.5)[0] == 1.0


@settings(max_examples=50, deadline=None)
@given(POSITIVE, st.floats(1.001, 3), st.floats(0.5, 0.99))
def test_a_symmetric_interval_is_that_of_a_lognormal_distribution(point, factor, probability):
    belief = one(point, point / factor, point * factor, levels_with(probability))
    spread = math.log(factor) / 1.959964
    assert belief.quantile(probability)[0] == pytest.approx(lognorm.ppf(probability, spread, scale=point), rel=1e-5)


@settings(max_examples=50, deadline=None)
@given(REACHES, st.sampled_from((0.5, 0.9, 0.95)), POSITIVE)
def test_a_limit_at_a_quantile_is_met_with_its_probability(reaches, probability, point):
    belief = reaching(reaches, point)
    limit = belief.quantile(probability)
    assert belief.chance_below(limit)[0] >= probability - 1e-6


@settings(max_examples=50, deadline=None)
@given(REACHES, POSITIVE, POSITIVE)
def test_chances_grow_with_the_limit_and_lie_between_0_and_1(reaches, limit, other):
    belief = reaching(reaches)
    low, high = (belief.chance_below(value)[0] for value in sorted((limit, other)))
    assert 0 <= low <= high <= 1


def test_what_lies_beyond_the_supported_levels_misses_every_limit():
    belief = reaching([0.1] * 8 + [math.inf] * (len(LEVELS) - 9))
    top = max(level for level, reach in zip(LEVELS, [0, *[0.1] * 8], strict=False))
    assert belief.chance_below(1e9)[0] == pytest.approx(0.5 + 0.5 * top)
    assert belief.quantile(0.95)[0] == math.inf


def test_without_an_interval_there_is_no_probability():
    belief = one(1.0, np.nan, np.nan)
    assert math.isnan(belief.chance_below(2.0)[0])
    assert belief.quantile(0.95)[0] == 1.0
    assert not belief.told[0]
    assert np.isnan(chances_of_best({"cost": belief.followed_by(belief)}, {"cost": 1.0})).all()


def test_nothing_known_is_no_chance():
    assert math.isnan(one(np.nan, np.nan, np.nan).chance_below(1.0)[0])


def test_an_unsure_factor_widens():
    belief = one(1.0, 1 / 1.1, 1.1).blurred(np.array([0.1]))
    assert belief.quantile(0.95)[0] > one(1.0, 1 / 1.1, 1.1).quantile(0.95)[0]
    assert one().blurred(np.zeros(1)).quantile(0.95)[0] == pytest.approx(one().quantile(0.95)[0])


def test_the_chance_to_be_the_best_is_that_of_the_distributions():
    wide, sure = one(1.0, 1 / 1.2, 1.2), one(1.05, 1.05, 1.05)
    chances = chances_of_best({"latency": wide.followed_by(sure)}, {"latency": 1.0})
    assert chances.sum() == pytest.approx(1.0)
    truth = lognorm.cdf(1.05, math.log(1.2) / 1.959964)
    assert chances[0] == pytest.approx(truth, abs=0.03)  # 2,000 draws


def test_equal_options_share_their_chance():
    both = one().followed_by(one())
    assert chances_of_best({"cost": both}, {"cost": 1.0}) == pytest.approx([0.5, 0.5], abs=0.03)


def test_errors_in_common_favour_no_option():
    first, second = one(1.0, 1 / 1.5, 1.5), one(1.1, 1.1 / 1.5, 1.1 * 1.5)
    both = first.followed_by(second)
    apart, together = (
        chances_of_best({"latency": replace(both, shared=np.full(2, shared))}, {"latency": 1.0})[0]
        for shared in (0.0, 0.95)
    )
    sd = math.log(1.5) / 1.959964 * math.sqrt(2)
    assert apart == pytest.approx(norm.cdf(math.log(1.1) / sd), abs=0.03)
    assert together == pytest.approx(norm.cdf(math.log(1.1) / (sd * math.sqrt(0.05))), abs=0.03)


def test_an_error_of_its_own_leaves_less_in_common():
    wide = replace(one(1.0, 1 / 1.2, 1.2), shared=np.array([0.8]))
    assert wide.blurred(np.zeros(1)).in_common == pytest.approx([0.8])
    own = math.log(1.2) / 1.959964
    assert wide.blurred(np.array([own])).in_common == pytest.approx([0.4])


@settings(max_examples=20, deadline=None)
@given(st.sampled_from((0.0, 0.3, 0.7, 0.95)), st.integers(0, 100))
def test_the_share_of_errors_in_common_is_found(share, seed):
    random = np.random.default_rng(seed)
    asked = np.repeat(np.arange(150), 6)
    errors = np.sqrt(share) * random.standard_normal(150)[asked] + np.sqrt(1 - share) * random.standard_normal(900)
    assert in_common(errors, asked) == pytest.approx(share, abs=0.12)
    assert in_common(errors[:12], asked[:12]) == 0.0, "two questions tell nothing"


def test_a_model_that_is_slow_everywhere_leaves_little_doubt_which_option_is_best():
    records = [
        r for r in study(scatter=0.3) if r.cell.workload.model != "t5-tiny" or r.cell.platform.runtime == "eager"
    ]
    frame = made_frame(*records)
    predictor = Predictor().fit(frame, ENVIRONMENTS)
    told = predictor.predict(missing(frame), levels=LEVELS[1:])
    assert (told["latency_shared"] > 0.5).all()


def test_what_a_weight_is_worth():
    def known(point):
        return one(point, 0.999 * point, 1.001 * point)

    fast, lean = known(1.0).followed_by(known(2.0)), known(3.0).followed_by(known(1.0))
    both = {"latency": fast, "memory": lean}
    assert chances_of_best(both, {"latency": 1.0, "memory": 1.0}).tolist() == [0.0, 1.0]
    assert chances_of_best(both, {"latency": 2.0, "memory": 1.0}).tolist() == [1.0, 0.0]


def test_a_radius_beyond_what_its_groups_support_is_infinite():
    few = radius(np.array([0.1, 0.2, 0.3]), np.array(["a", "b", "c"]), 0.9)
    assert few.at(0.9) == math.inf
    assert few.at(0.75) == few.value
    assert Radius(0.1, 0.9, 20).at(0.9) == 0.1


def test_a_predictor_tells_its_distribution():
    table = made_frame(*study(scatter=0.1))
    predictor = Predictor(PredictionConfig(residual="none")).fit(table, ENVIRONMENTS)
    told = predictor.predict(table, level=0.8, levels=(0.5, 0.8, 0.99))
    assert (told["latency_reach_0.5"] <= told["latency_reach_0.8"]).all()
    high = np.log(told["latency_high_s"] / told["latency_s"])
    assert told["latency_reach_0.8"].to_numpy() == pytest.approx(high.to_numpy())
    assert np.isinf(told["latency_reach_0.99"]).all(), "twelve families support no more than 12 / 13"
    assert np.isfinite(told["memory_increase_reach_0.5"]).all()


def test_chances_are_told_no_finer_than_they_are_known():
    assert likely(0.9996) == "more than 99 % probability"
    assert likely(0.001) == "less than 1 % probability"
    assert likely(0.871, "at least ") == "at least 87 % probability"
