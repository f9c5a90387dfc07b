"""The comparison itself: it must find what is wrong. One process, no ranks."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labbench.config import ConfigError
from labbench.distributed.correct import KINDS, largest_errors, trajectory
from labbench.distributed.decoder import batch, decoder, loss, stages_of
from labbench.distributed.sizes import Shape
from labbench.distributed.strategies import MODES, strategy
from labbench.distributed.strategies.one import OneSpread
from labbench.distributed.tolerance import norm_of, tolerances

SMALL = Shape(layers=3, width=8, heads=2, vocabulary=16, tokens=6, batch=4)


@pytest.fixture(scope="module")
def truth():
    return trajectory(OneSpread(decoder(SMALL, torch.float64)), SMALL)


def test_one_process_equals_itself_exactly(truth) -> None:
    again = trajectory(OneSpread(decoder(SMALL, torch.float64)), SMALL)
    assert {error for error, _ in largest_errors(again, truth).values()} == {0}


def test_gradients_summed_instead_of_averaged_are_found_at_every_precision(truth) -> None:
    wrong = copy.deepcopy(truth)
    wrong[0]["gradient"] = {name: 2 * value for name, value in wrong[0]["gradient"].items()}
    error, where = largest_errors(wrong, truth)["gradient"]
    assert error > tolerances(torch.float32, torch.bfloat16, SMALL, truth)["gradient"]
    assert where.startswith("the gradient of")


@settings(deadline=None)
@given(st.integers(0, 1), st.sampled_from(["gradient", "change"]), st.integers(0, 10**6), st.floats(1e-9, 1.0))
def test_an_error_in_any_one_element_is_found(truth, step, kind, position, size) -> None:
    wrong = copy.deepcopy(truth)
    names = sorted(wrong[step][kind])
    name = names[position % len(names)]
    value = wrong[step][kind][name].view(-1)
    norm = torch.stack([one.norm() for one in truth[step][kind].values()]).norm()
    value[position % value.numel()] += size * norm
    found = largest_errors(wrong, truth)
    error, where = found.pop(kind)
    assert error == pytest.approx(size, rel=1e-4)
    assert {other for other, _ in found.values()} == {0}
    assert name in where


def test_what_is_missing_strange_or_not_a_number_is_an_infinite_error(truth) -> None:
    for change in ("missing", "strange", "nan"):
        wrong = copy.deepcopy(truth)
        tensors = wrong[0]["gradient"]
        name = next(iter(tensors))
        if change == "nan":
            tensors[name][0] = float("nan")
        else:
            value = tensors.pop(name)
            if change == "strange":
                tensors["unheard.of"] = value
        assert max(error for error, _ in largest_errors(wrong, truth).values()) == float("inf"), change


def test_what_rounding_may_do_shrinks_with_the_format_and_is_far_below_what_a_mistake_does(truth) -> None:
    double, single = (tolerances(dtype, None, SMALL, truth) for dtype in (torch.float64, torch.float32))
    assert max(double.values()) < 1e-12
    ratio = torch.finfo(torch.float32).eps / torch.finfo(torch.float64).eps
    for kind in KINDS:
        assert single[kind] == pytest.approx(ratio * double[kind])
        assert single[kind] < 1e-3


def test_one_process_in_float32_differs_from_itself_in_float64_by_less_than_rounding_may_do(truth) -> None:
    rounded = trajectory(OneSpread(decoder(SMALL, torch.float32)), SMALL)
    allowed = tolerances(torch.float32, None, SMALL, truth)
    found = largest_errors(rounded, truth)
    assert all(0 < found[kind][0] < allowed[kind] for kind in KINDS), (found, allowed)


def test_the_last_digit_of_a_norms_weight_is_not_taken_for_a_mistake_but_one_of_a_gradient_is(truth) -> None:
    allowed = tolerances(torch.float32, None, SMALL, truth)
    digit = torch.finfo(torch.float32).eps / norm_of(truth[0]["change"])
    assert allowed["gradient"] < digit < allowed["change"]


@settings(deadline=None)
@given(st.integers(1, 5))
def test_stages_one_after_another_are_the_whole_model(stages) -> None:
    shape = Shape(layers=5, width=8, heads=2, vocabulary=16, tokens=6, batch=2)
    whole = decoder(shape, torch.float64)
    parts = [copy.deepcopy(whole).stage(index, stages) for index in range(stages)]
    ids, targets = batch(shape)
    x = ids
    for part in parts:
        x = part(x)
    assert torch.equal(loss(x, targets), loss(whole(ids), targets))
    names = [name for part in parts for name, _ in part.named_parameters()]
    assert sorted(names) == sorted(name for name, _ in whole.named_parameters())


@settings(deadline=None)
@given(st.integers(1, 8), st.integers(1, 3))
def test_every_stage_has_one_rank(ranks, each) -> None:
    dealt = [stage for own in stages_of(ranks, each) for stage in own]
    assert sorted(dealt) == list(range(ranks * each))


def test_there_are_fifteen_modes_and_an_unknown_one_names_the_nearest() -> None:
    assert len(MODES) >= 15
    with pytest.raises(ConfigError, match="did you mean 'fsdp'"):
        strategy("fsdpp")
