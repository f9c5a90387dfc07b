"""The comparison itself: it must find what is wrong. One process, no ranks."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labbench.config import ConfigError
from labbench.distributed.correct import TOLERANCES, _trajectory, largest_error
from labbench.distributed.decoder import batch, decoder, loss, stages_of
from labbench.distributed.sizes import Shape
from labbench.distributed.strategies import MODES, strategy
from labbench.distributed.strategies.one import OneSpread

SMALL = Shape(layers=3, width=8, heads=2, vocabulary=16, tokens=6, batch=4)


@pytest.fixture(scope="module")
def truth():
    return _trajectory(OneSpread(decoder(SMALL, torch.float64)), SMALL)


def test_one_process_equals_itself_exactly(truth) -> None:
    again = _trajectory(OneSpread(decoder(SMALL, torch.float64)), SMALL)
    assert largest_error(again, truth)[0] == 0


def test_gradients_summed_instead_of_averaged_are_found_at_every_precision(truth) -> None:
    wrong = copy.deepcopy(truth)
    wrong[0]["gradient"] = {name: 2 * value for name, value in wrong[0]["gradient"].items()}
    error, where = largest_error(wrong, truth)
    assert error > max(TOLERANCES.values())
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
    error, where = largest_error(wrong, truth)
    assert error == pytest.approx(size, rel=1e-4)
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
        assert largest_error(wrong, truth)[0] == float("inf"), change


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
