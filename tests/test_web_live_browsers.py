"""Live audio in real browsers: what is dropped is counted, the parts add up, and the page works for a person."""

import json
import os
import shutil
import time
from collections.abc import Iterator

import pytest
import web

from labbench.web.browsers import NAMES, open_browser, sound
from labbench.web.live import Live
from labbench.web.live_run import SILENT, Open, run
from labbench.web.parts import served
from labbench.web.serve import serve
from labbench.web.server import Server, page_files

pytestmark = pytest.mark.alone
SLACK_S = 0.3
SOON_S = 60
READY = "new Promise(done => { const look = () => 'ready' in document.body.dataset ? done(1) : setTimeout(look, 20); look(); })"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server({**page_files(), **served()}) as one:
        yield one


@pytest.fixture(params=NAMES, scope="module")
def browsers(request) -> Iterator[tuple[str, Open]]:
    name = web.need(request.param)
    if name not in SILENT and shutil.which(sound.PROGRAM) is None and os.environ.get("CI") != "true":
        pytest.skip(f"{sound.PROGRAM} is not installed; get it with {sound.INSTALL}")
    with Open() as one:
        yield name, one


def counted(record) -> float:
    """Hops that were worked off, dropped or left waiting."""
    return sum(record.metrics[name] for name in ("hops", "dropped_hops", "waiting_hops"))


def test_a_model_that_is_slowed_on_purpose_drops_what_it_must_and_one_that_is_not_keeps_up(browsers, server):
    name, opened = browsers
    wish = Live(browser=name, model="kws-tiny", seconds=2, hop_s=0.1, slack_s=SLACK_S)
    free = run(wish, opened, server)
    assert free.status == "ok", free.reason
    assert free.metrics["dropped_s"] <= 0.5  # none on a quiet machine
    assert counted(free) == 20

    slowed = run(wish.model_copy(update={"slowdown": 2.0}), opened, server)
    assert slowed.status == "ok", slowed.reason
    assert counted(slowed) == 20
    assert slowed.metrics["hops"] <= 11  # each takes two hops
    assert slowed.metrics["dropped_hops"] >= 20 - 11 - SLACK_S / 0.1 - 2  # one in work, one just begun
    assert not slowed.metrics["keeps_up"]
    assert slowed.metrics["longest_gap_s"] > 0.15
    # what waits is as old as the slack lets it be, and was waiting, not worked at
    assert slowed.metrics["buffering_mean_s"] > free.metrics["buffering_mean_s"] + 0.05

    for one in (free, slowed):
        metrics = one.metrics
        parts = metrics["filling_mean_s"] + metrics["buffering_mean_s"] + metrics["inference_mean_s"]
        assert parts == pytest.approx(metrics["end_to_end_mean_s"], rel=0.10)


def test_a_browser_without_shared_memory_says_why_there_is_no_live_audio(server):
    """A page that is not isolated, as one served without its headers would be."""
    from labbench.web import server as module

    with open_browser(web.need("chromium")) as browser:
        kept = dict(module.HEADERS)
        del module.HEADERS["Cross-Origin-Embedder-Policy"]
        try:
            browser.go(server.url("live.html"))
            told = browser.call(
                "labbench.live", {"source": "signal", "model": {}, "rate": 16000, "window": 1, "hop": 1}
            )
        finally:
            module.HEADERS.update(kept)
    assert told["status"] == "unsupported"
    assert "not cross-origin isolated" in told["reason"]


def test_a_person_measures_by_keyboard_and_sends_the_result_which_can_be_imported(tmp_path):
    sent: list[bytes] = []
    with serve(["kws-tiny"], on_result=sent.append) as url, open_browser(web.need("chromium")) as browser:
        browser.go(url)
        browser.call("eval", READY)

        def status() -> str:
            return browser.call("eval", "document.getElementById('status').textContent")

        def until(true: str) -> None:
            late = time.monotonic() + SOON_S
            while not browser.call("eval", true):
                assert time.monotonic() < late, f"never {true}: {status()}"
                time.sleep(0.1)

        def says(words: str) -> str:
            return f"document.getElementById('status').textContent.includes({words!r})"

        browser.click("#start")
        until(says("after each hop"))  # a sentence comes with the first result
        until("document.getElementById('chart').dataset.hops > 8")
        assert browser.call("eval", "document.activeElement.id") == "stop"
        browser.click("#stop")
        until("!document.getElementById('bench').disabled")
        browser.click("#bench")
        until(says("A call takes"))
        browser.click("#send")
        until(says("Sent"))
        assert browser.call("eval", "document.querySelectorAll('#rows tr').length") == 2
        unlabelled = "[...document.querySelectorAll('input, select, meter')].filter(one => !one.labels.length).length"
        assert browser.call("eval", unlabelled) == 0

    from labbench.importers import read_foreign

    path = tmp_path / "page.json"
    path.write_bytes(sent[0])
    found = read_foreign(path)
    assert not found.skipped
    assert [record.status for record in found.records] == ["ok", "ok"]
    assert json.loads(sent[0])["results"][0]["answer"]["source"] == "microphone"
