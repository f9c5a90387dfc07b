"""The mean of two laws: what each misjudges, and how much each counts."""

from dataclasses import dataclass

import numpy as np
import pytest

from labbench.prediction.blend import EQUAL, PRIOR_FAMILIES, Blend, BlendDesign


@dataclass(frozen=True)
class Says:
    """A law that says what it is told of each row, in two parts; elsewhere twice that."""

    factor: float = 1.0

    def parts(self, design, elsewhere=False):
        says = self.factor * design.says * (2.0 if elsewhere else 1.0)
        return np.column_stack([0.25 * says, 0.75 * says])


@dataclass(frozen=True)
class Rows:
    says: np.ndarray

    def take(self, rows):
        return Rows(self.says[rows])

    def __len__(self):
        return len(self.says)


def design(operators, totals):
    """``None`` where operators are not known."""
    told = np.array([one is not None for one in operators])
    known = np.array([one for one in operators if one is not None], float)
    return BlendDesign(Rows(known), Rows(np.asarray(totals, float)), told)


def blend(weight=EQUAL):
    return Blend(Says(), Says(), {}, weight)


def test_parts_add_up_to_the_weighted_geometric_mean_in_the_proportions_of_each_law():
    parts = blend(0.25).parts(design([1.0, 16.0], [16.0, 1.0]))
    assert parts.sum(axis=1) == pytest.approx([8.0, 2.0])
    assert parts[0] == pytest.approx(8.0 * np.array([0.25 * 0.25, 0.25 * 0.75, 0.75 * 0.25, 0.75 * 0.75]))


def test_on_a_device_without_a_law_of_its_own_operators_answer_alone():
    parts = blend(0.25).parts(design([3.0], [100.0]), elsewhere=True)
    assert parts[0] == pytest.approx([1.5, 4.5, 0.0, 0.0])


def test_where_operators_are_not_known_totals_answer_alone():
    rows = design([None, 4.0, None, 9.0], [2.0, 1.0, 3.0, 1.0])
    for elsewhere, says in ((False, [2.0, 2.0, 3.0, 3.0]), (True, [4.0, 8.0, 6.0, 18.0])):
        assert blend().parts(rows, elsewhere).sum(axis=1) == pytest.approx(says)
    some = rows.take(np.array([3, 2]))
    assert blend().parts(some).sum(axis=1) == pytest.approx([3.0, 3.0])


def weight_of(operators, totals, target, groups):
    rows = design(operators, totals)
    halves = np.array_split(np.arange(len(target)), 2)
    return blend().best_weight(
        rows, np.asarray(target, float), np.asarray(groups), [(blend(), half) for half in halves]
    )


def test_many_families_tell_how_much_each_law_counts():
    rng = np.random.default_rng(0)
    target = np.exp(rng.normal(0, 2, 4000))
    groups = rng.integers(0, 2000, 4000).astype(str)
    exact, loose = (target * np.exp(rng.normal(0, sd, 4000)) for sd in (0.05, 0.1))
    # Of two unbiased, independent errors the weights are as the inverse variances (Bates & Granger 1969, equation 1).
    assert weight_of(exact, loose, target, groups) == pytest.approx(0.1**2 / (0.05**2 + 0.1**2), abs=0.02)
    assert weight_of(loose, exact, target, groups) == pytest.approx(0.05**2 / (0.05**2 + 0.1**2), abs=0.02)


def test_few_families_hardly_move_it_from_equal_weights():
    rng = np.random.default_rng(1)
    target, families = np.ones(200), np.repeat([str(one) for one in range(5)], 40)
    wrong = np.exp(rng.normal(0, 0.3, 200))
    told = weight_of(target, wrong, target, families)
    assert told == pytest.approx((5 + PRIOR_FAMILIES * EQUAL) / (5 + PRIOR_FAMILIES))


def test_a_family_counts_once_however_many_cells_it_has():
    says = np.exp([0.4] * 100 + [0.4] * 1)
    target = np.array(
        [says[0]] * 100 + [1.0]
    )  # the law of operators is right in the large family, totals in the small one
    assert weight_of(says, np.ones(101), target, ["large"] * 100 + ["small"]) == pytest.approx(EQUAL)


def test_laws_that_say_the_same_count_the_same():
    assert weight_of(np.ones(6), np.ones(6), np.full(6, 1.3), list("aabbcc")) == EQUAL
