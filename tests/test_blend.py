"""The mean of two laws, and how far they disagree."""

from dataclasses import dataclass

import numpy as np
import pytest

from labbench.prediction.blend import Blend, BlendDesign


@dataclass(frozen=True)
class Says:
    """A law that says what it is told of each row, in two parts; elsewhere twice that."""

    columns = 2

    def parts(self, design, elsewhere=False):
        says = design.says * (2.0 if elsewhere else 1.0)
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


def blend():
    return Blend(Says(), Says(), {})


def test_parts_add_up_to_the_mean_in_the_proportions_of_each_law():
    parts = blend().parts(design([1.0, 16.0], [15.0, 4.0]))
    assert parts.sum(axis=1) == pytest.approx([8.0, 10.0])
    assert parts[1] == pytest.approx([2.0, 6.0, 0.5, 1.5])


def test_on_a_device_without_a_law_of_its_own_operators_answer_alone():
    parts = blend().parts(design([3.0], [100.0]), elsewhere=True)
    assert parts[0] == pytest.approx([1.5, 4.5, 0.0, 0.0])


def test_trees_are_told_the_shares_of_each_law_and_how_far_both_disagree():
    seen = blend().shares(blend().parts(design([8.0, None], [2.0, 3.0])))
    assert seen == pytest.approx(np.array([[0.25, 0.75, 0.25, 0.75, np.log(4.0)], [0.0, 0.0, 0.25, 0.75, 0.0]]))


def test_where_operators_are_not_known_totals_answer_alone():
    rows = design([None, 4.0, None, 9.0], [2.0, 1.0, 3.0, 1.0])
    for elsewhere, says in ((False, [2.0, 2.5, 3.0, 5.0]), (True, [4.0, 8.0, 6.0, 18.0])):
        assert blend().parts(rows, elsewhere).sum(axis=1) == pytest.approx(says)
    some = rows.take(np.array([3, 2]))
    assert blend().parts(some).sum(axis=1) == pytest.approx([5.0, 3.0])
