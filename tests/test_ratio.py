import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labbench.analysis.ratio import (
    PROCESS_DF,
    PROCESS_SD,
    Contrast,
    Spread,
    benjamini_hochberg,
    compare_pair,
    contrast,
    fit_spread,
    judge,
    rounds_of,
)

SAMPLES = 20  # a round


def simulated(rng, processes: int, rounds: int, slower: float = 1.0, drift=None) -> pd.DataFrame:
    """Samples as a noisy machine gives them: processes differ, rounds drift together, samples spike."""
    shape = (processes, rounds, SAMPLES)
    effects = rng.normal(0, 0.004, (processes, 1, 1)) + rng.normal(0, 0.006, (processes, rounds, 1))
    effects = effects + (0 if drift is None else drift[:, :, None])
    noise = rng.normal(0, 0.01, shape) + (rng.random(shape) < 0.05) * rng.exponential(0.5, shape)
    process, number, _ = np.indices(shape)
    seconds = 1e-3 * slower * np.exp(effects + noise)
    return pd.DataFrame({"process": process.ravel(), "round": number.ravel(), "seconds": seconds.ravel()})


def slow_drift(rng, processes: int, rounds: int) -> np.ndarray:
    return np.cumsum(rng.normal(0, 0.01, (processes, rounds)), axis=1)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_cell_compared_with_itself_is_called_different_in_at_most_five_per_cent(processes):
    rng = np.random.default_rng(0)
    different = 0
    for _ in range(300):
        drift = slow_drift(rng, processes, 10)
        a, b = (simulated(rng, processes, 10, drift=drift) for _ in range(2))
        different += compare_pair(rounds_of(a), rounds_of(b), paired=True).verdict in ("faster", "slower")
    assert different <= 15


def test_a_naive_test_on_raw_samples_would_have_failed_that():
    from scipy.stats import ttest_ind

    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(100):
        a, b = (simulated(rng, 1, 10, drift=slow_drift(rng, 1, 10)) for _ in range(2))
        wrong += ttest_ind(np.log(a["seconds"]), np.log(b["seconds"]), equal_var=False).pvalue < 0.05
    assert wrong > 15


@pytest.mark.parametrize("processes", [1, 2])
def test_five_per_cent_slower_is_found_in_nine_of_ten(processes):
    rng = np.random.default_rng(1)
    found = 0
    for _ in range(200):
        drift = slow_drift(rng, processes, 10)
        slow = simulated(rng, processes, 10, slower=1.05, drift=drift)
        found += (
            compare_pair(rounds_of(slow), rounds_of(simulated(rng, processes, 10, drift=drift)), paired=True).verdict
            == "slower"
        )
    assert found >= 180


def test_a_significant_but_tiny_difference_is_no_verdict():
    rng = np.random.default_rng(2)
    result = compare_pair(
        rounds_of(simulated(rng, 20, 40, slower=1.01)),
        rounds_of(simulated(rng, 20, 40)),
        paired=False,
        spread=Spread(0.004),
    )
    assert result.verdict in ("same", "undecided")


def test_adjusting_for_many_comparisons_is_benjamini_hochberg():
    adjusted = benjamini_hochberg(np.array([0.01, 0.02, 0.03, 0.04, 0.8]))
    assert adjusted == pytest.approx([0.05, 0.05, 0.05, 0.05, 0.8])
    assert len(benjamini_hochberg(np.array([]))) == 0


def contrasts(rng, sd: float, count: int, processes: int = 2) -> list[Contrast]:
    """Cells whose processes differ by ``sd`` on each side, and whose rounds say nothing more."""
    values = rng.normal(0, sd * math.sqrt(2), (count, processes))
    variances = values.var(axis=1, ddof=1) / 2
    return [
        Contrast(float(m), float(v), processes - 1, 0.0, 2 / processes, True)
        for m, v in zip(values.mean(axis=1), variances, strict=True)
    ]


@pytest.mark.parametrize("sd", [0.002, 0.006, 0.03])
def test_the_spread_between_processes_is_learnt_from_all_cells(sd):
    found = fit_spread(contrasts(np.random.default_rng(0), sd, 100))
    assert found.sd == pytest.approx(sd, rel=0.2)
    assert found.df > 10  # every cell has the same spread, so that knowledge weighs much


def test_where_nothing_can_be_learnt_the_spread_is_the_assumed_one():
    assert fit_spread([]) == Spread(PROCESS_SD, PROCESS_DF)
    [single] = contrasts(np.random.default_rng(0), 0.01, 1)
    assert fit_spread([single]).sd == pytest.approx(PROCESS_SD, rel=1)


@pytest.mark.parametrize("processes", [2, 5])
def test_the_interval_holds_the_truth_in_about_95_per_cent(processes):
    rng = np.random.default_rng(3)
    cells = contrasts(rng, 0.01, 2000, processes)
    spread = fit_spread(cells)
    found = [judge(one, spread) for one in cells]
    assert 0.93 <= np.mean([one.ci_low <= 1 <= one.ci_high for one in found]) <= 0.97


@given(st.floats(0.2, 5), st.floats(1e-3, 0.05), st.integers(2, 10))
def test_more_processes_are_asked_for_exactly_where_nothing_is_decided(ratio, sd, processes):
    cell = Contrast(math.log(ratio), sd**2, processes - 1, 0.0, 2 / processes, True)
    found = judge(cell)
    assert (found.more_processes > 0) == (found.verdict == "undecided")


def test_the_processes_asked_for_do_decide():
    spread = Spread(0.02, 50)
    cell = Contrast(math.log(1.03), 0.02**2, 1, 0.0, 1.0, True)
    first = judge(cell, spread)
    assert first.verdict == "undecided"
    more = int(2 + first.more_processes)
    again = Contrast(cell.log_ratio, 0.02**2, more - 1, 0.0, 2 / more, True)
    assert judge(again, spread).verdict == "slower"


def test_a_ratio_at_the_threshold_can_not_be_decided_by_any_number():
    found = judge(Contrast(math.log(1.02), 1e-4, 1, 0.0, 1.0, True))
    assert found.verdict == "undecided"
    assert found.more_processes == math.inf


@given(st.floats(1e-6, 1e3))
def test_the_unit_of_time_does_not_matter(scale):
    rng = np.random.default_rng(4)
    a, b = simulated(rng, 2, 6), simulated(rng, 2, 6)
    here = compare_pair(rounds_of(a), rounds_of(b), paired=True)
    there = compare_pair(*(rounds_of(one.assign(seconds=one["seconds"] * scale)) for one in (a, b)), paired=True)
    assert there.ratio == pytest.approx(here.ratio)
    assert (there.ci_low, there.ci_high) == pytest.approx((here.ci_low, here.ci_high))


def test_sides_swapped_give_the_inverse():
    rng = np.random.default_rng(5)
    a, b = (rounds_of(simulated(rng, 2, 6)) for _ in range(2))
    for paired in (True, False):
        here, there = compare_pair(a, b, paired=paired), compare_pair(b, a, paired=paired)
        assert here.ratio == pytest.approx(1 / there.ratio)
        assert here.ci_low == pytest.approx(1 / there.ci_high)


def test_another_campaign_widens_the_interval():
    rng = np.random.default_rng(6)
    a, b = (rounds_of(simulated(rng, 2, 6)) for _ in range(2))
    near, far = (compare_pair(a, b, paired=False, same_campaign=same) for same in (True, False))
    assert far.ci_low < near.ci_low
    assert far.ci_high > near.ci_high


def test_rounds_that_do_not_meet_are_not_paired():
    rng = np.random.default_rng(7)
    a, b = simulated(rng, 1, 2), simulated(rng, 1, 2)
    found = contrast(rounds_of(a), rounds_of(b), paired=True)
    assert not found.paired
    assert found.df == 0
    assert judge(found).verdict in ("same", "undecided")
