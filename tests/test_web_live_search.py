"""The shortest hop that keeps up is found in few runs, and a model that never does is told with the reason."""

import pytest

from labbench.records import Record
from labbench.web.live import Live
from labbench.web.live_search import RUNGS_S, largest, shortest_hop

WISH = Live(browser="firefox", model="kws-tiny", seconds=60)


def machine(computes_s, overhead_s=0.0):
    """Runs of a model that computes so long a hop, on a machine whose hops cost a bit more than is seen; and what was run."""
    made = []

    def run(wish):
        made.append(wish)
        fine = computes_s + overhead_s <= wish.hop_s
        metrics = {"inference_mean_s": computes_s, "keeps_up": float(fine), "dropped_s": 0.0 if fine else 12.0}
        return Record(cell=wish.cell, status="ok", metrics=metrics)

    return run, made


@pytest.mark.parametrize("computes_s", [0.001, 0.015, 0.03, 0.3, 0.9])
@pytest.mark.parametrize("overhead_s", [0.0, 0.004, 0.03])
def test_the_shortest_hop_that_keeps_up_is_found_in_few_runs(computes_s, overhead_s):
    run, made = machine(computes_s, overhead_s)
    found = shortest_hop(WISH, run)
    assert found.hop_s == min(hop for hop in RUNGS_S if computes_s + overhead_s <= hop)
    assert found.wish.hop_s == found.hop_s
    assert len(made) <= 5
    assert all(wish.seconds == 60 for wish in made[1:])


def test_a_model_too_slow_for_every_hop_says_what_was_dropped():
    run, _ = machine(2.0)
    found = shortest_hop(WISH, run)
    assert found.hop_s is None
    assert "12 s of 60 s were dropped" in str(found)
    assert "on firefox/wasm, all cores loaded: no hop" in str(
        shortest_hop(WISH.model_copy(update={"load": "all"}), run)
    )


def test_a_model_that_does_not_run_is_not_run_again():
    made = []

    def run(wish):
        made.append(wish)
        return Record(cell=wish.cell, status="unsupported", reason="navigator.gpu is not there")

    found = shortest_hop(WISH, run)
    assert len(made) == 1
    assert "navigator.gpu is not there" in str(found)


def test_the_largest_model_is_that_of_those_that_keep_up():
    slow = shortest_hop(WISH.model_copy(update={"model": "wav2vec2-base"}), machine(2.0)[0])
    quick = [
        shortest_hop(WISH.model_copy(update={"model": name}), machine(0.01)[0]) for name in ("kws-tiny", "kws-small")
    ]
    sizes = {"kws-tiny": 1, "kws-small": 2, "wav2vec2-base": 3}
    assert largest([slow, *quick], sizes.__getitem__).wish.model == "kws-small"
    assert largest([slow], sizes.__getitem__) is None
