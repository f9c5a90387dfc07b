"""Live audio: what the page tells becomes a record that adds up, says what was dropped, and carries a true label."""

import live_answers
import pytest

from labbench.config import ConfigError
from labbench.web.live import Live, hearing, live_models, record
from labbench.web.live_run import loaded_cores
from labbench.web.server import Server

WISH = Live(browser="firefox", model="kws-tiny", seconds=5)


def test_end_to_end_is_the_hop_and_buffering_and_inference():
    found = record(WISH, live_answers.answer())
    assert found.status == "ok"
    metrics = found.metrics
    assert metrics["end_to_end_mean_s"] == pytest.approx(0.1 + 0.002 + 0.008 + 0.001)
    assert metrics["buffering_mean_s"] == pytest.approx(0.002)
    assert metrics["inference_mean_s"] == pytest.approx(0.008)
    assert metrics["response_p99_s"] == pytest.approx(0.011)
    assert metrics["parts_share"] == pytest.approx(0.110 / 0.111)
    assert metrics["real_time_factor"] == pytest.approx(0.08)


def test_series_hold_the_raw_times_of_every_hop():
    live, inference = record(WISH, live_answers.answer(hops=40)).series
    assert (live.name, inference.name) == ("live", "inference")
    assert live.n_samples == inference.n_samples == 40
    assert live.samples.seconds == pytest.approx([0.111] * 40)
    assert inference.throughput == pytest.approx(0.1 / 0.008)  # seconds of audio a second


@pytest.mark.parametrize(
    ("dropped", "waiting", "hop_s", "keeps_up"),
    [
        (0, 0, 0.1, 1),
        (0, 1, 0.1, 1),
        (0, 2, 0.1, 0),
        (3, 0, 0.1, 0),
        (0, 1, 0.5, 1),
        (0, 2, 0.5, 0),
        (0, 9, 0.01, 1),
        (0, 11, 0.01, 0),
    ],
)
def test_a_run_keeps_up_if_nothing_was_dropped_and_no_backlog_is_left(dropped, waiting, hop_s, keeps_up):
    told = live_answers.answer(dropped=dropped, hop_s=hop_s)
    told["counts"]["waiting"] = waiting
    metrics = record(WISH, told).metrics
    assert metrics["keeps_up"] == keeps_up
    assert metrics["dropped_s"] == pytest.approx(hop_s * dropped)


def test_hop_and_load_tell_cells_apart_from_each_other_and_from_the_matrix():
    wishes = [WISH, WISH.model_copy(update={"hop_s": 0.05}), WISH.model_copy(update={"load": "all"})]
    assert len({wish.cell.id for wish in wishes}) == 3
    assert wishes[1].cell.workload.task == "live, hop 50 ms"
    assert wishes[2].cell.workload.task == "live, hop 100 ms, all cores loaded"
    assert Live(browser="chromium", model="kws-tiny", provider="webgpu").cell.platform.threads is None


def test_a_run_that_fell_back_to_wasm_is_never_one_of_webgpu():
    told = live_answers.answer()
    told["ready"] = {**told["ready"], "opened": {**live_answers.OPENED, "provider": "webgpu"}}
    found = record(WISH.model_copy(update={"provider": "webgpu"}), told)
    assert found.status == "unsupported"
    assert "ran on wasm instead of WebGPU" in found.reason
    assert not found.series


def test_what_a_browser_lacks_is_unsupported_in_its_words():
    told = {"status": "unsupported", "reason": "this browser has no SharedArrayBuffer", "stage": "api"}
    found = record(WISH, told)
    assert (found.status, found.reason, found.stage) == ("unsupported", told["reason"], "api")


def test_a_run_too_slow_to_give_results_has_failed_and_tells_what_was_dropped():
    found = record(WISH, live_answers.answer(hops=2, dropped=47))
    assert found.status == "failed"
    assert "only 2 results" in found.reason
    assert found.metrics["dropped_hops"] == 47


def test_a_decoder_hears_nothing_and_is_refused_with_the_models_that_do():
    with pytest.raises(ValueError, match=r"hears no audio.*kws-tiny"):
        Live(browser="firefox", model="whisper-micro-decoder")
    with pytest.raises(ConfigError, match="hears no audio"):
        hearing("whisper-micro-decoder")
    assert "whisper-micro-decoder" not in live_models()


def test_a_browser_that_is_not_there_is_unsupported_and_one_that_hangs_a_timeout():
    from labbench.web.browsers import Hung, Unavailable
    from labbench.web.live_run import run

    class Browsers:
        def __init__(self, error):
            self.error, self.closed = error, False

        def get(self, name):
            raise self.error

        def close(self):
            self.closed = True

    with Server({}) as server:
        absent, hung = Browsers(Unavailable("firefox is not installed")), Browsers(Hung("no answer for 5 s"))
        assert [run(WISH, one, server).status for one in (absent, hung)] == ["unsupported", "timeout"]
    assert not absent.closed
    assert hung.closed


def test_loads_are_none_one_or_all_cores():
    assert [loaded_cores("none"), loaded_cores("one")] == [0, 1]
    assert loaded_cores("all") >= 1


def test_a_store_without_browsers_gives_empty_tables(tmp_path):
    from made import ENVIRONMENT, study

    from labbench.store import Store
    from labbench.web.live_report import live_table
    from labbench.web.report import table

    with Store(tmp_path / "s.h5", writable=True) as store:
        store.extend(study(), [ENVIRONMENT])
        assert table(store).empty
        assert live_table(store).empty
