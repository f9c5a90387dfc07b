"""Fallbacks that do not fail together."""

from hypothesis import given, settings
from hypothesis import strategies as st

from labbench.selection.fallback import fallbacks

DOMAINS = ("machine", "runtime", "zone")


def option(name, machine, runtime, zone=None):
    return {"option": name, "machine": machine, "runtime": runtime, "zone": zone}


def names(chain):
    return [link.option["option"] for link in chain]


def test_what_shares_nothing_comes_before_what_is_better_but_shares():
    ranked = [
        option("a", "m1", "eager"),
        option("b", "m1", "onnx"),
        option("c", "m2", "compile"),
        option("d", "m1", "eager"),
    ]
    chain = fallbacks(ranked, DOMAINS)
    assert names(chain) == ["c", "b"]  # d would fail with a
    assert [link.shares for link in chain] == [(), ("machine m1",)]


def test_among_those_that_share_as_much_the_better_comes_first():
    chain = fallbacks([option(name, "m1", name) for name in "abc"], DOMAINS)
    assert names(chain) == ["b", "c"]


def test_an_unknown_label_is_not_shared():
    [link] = fallbacks([option("a", "m1", "eager", float("nan")), option("b", "m2", "onnx", float("nan"))], DOMAINS)
    assert link.shares == ()


def test_one_option_has_no_fallback():
    assert fallbacks([option("a", "m1", "eager")], DOMAINS) == ()
    assert fallbacks([], DOMAINS) == ()


@settings(deadline=None)
@given(st.lists(st.tuples(*[st.sampled_from("xyz")] * 3), min_size=1, max_size=9))
def test_each_step_shares_as_little_as_any_that_is_left(labels):
    ranked = [{"option": i, **dict(zip(DOMAINS, label, strict=True))} for i, label in enumerate(labels)]
    chain = fallbacks(ranked, DOMAINS)
    before = [ranked[0]]
    for link in chain:

        def shared(o):
            return sum(any(o[d] == b[d] for b in before) for d in DOMAINS)

        left = [o for o in ranked if all(any(o[d] != b[d] for d in DOMAINS) for b in before)]
        assert shared(link.option) == len(link.shares) == min(map(shared, left))
        before.append(link.option)
    assert {tuple(o[d] for d in DOMAINS) for o in before} == set(labels)
