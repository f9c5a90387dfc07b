"""Live runs as tables, sentences and figures: newest of each cell, milliseconds for people, drop-outs in sight."""

import live_answers
import pytest

from labbench import plots
from labbench.config import ConfigError
from labbench.records import Environment
from labbench.store import Store
from labbench.web.live import Live, record
from labbench.web.live_report import ensure, for_people, live_sentence, live_table, shortest

HERE = Environment(machine_id="m", hostname="h", machine={}, software={"firefox": "153.0", "chromium": "156.0.1"})


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    def made(told, **wish):
        found = record(Live(**{"browser": "firefox", "model": "kws-tiny", **wish}), told)
        return found.model_copy(update={"environment_id": HERE.id, "machine_id": "m"})

    refused = {"status": "unsupported", "reason": "this browser has no AudioWorklet", "stage": "api"}
    path = tmp_path_factory.mktemp("live") / "live.h5"
    with Store(path, writable=True) as opened:
        opened.extend(
            [
                made(live_answers.answer(dropped=3)),  # measured again below
                made(live_answers.answer()),
                made(live_answers.answer(hop_s=0.05), hop_s=0.05),
                made(live_answers.answer(hop_s=0.02, dropped=25), hop_s=0.02),
                made(live_answers.answer(late_s=0.2), load="all"),
                made(refused, browser="chromium"),
            ],
            [HERE],
        )
    return Store(path)


def test_a_row_is_the_newest_run_of_a_hop_and_load(store):
    table = live_table(store)
    assert list(table["browser"]) == ["chromium", *["firefox"] * 4]
    assert list(table["version"]) == ["156.0.1", *["153.0"] * 4]
    mine = table[(table["browser"] == "firefox") & (table["load"] == "nothing else")]
    assert list(mine["hop_s"]) == pytest.approx([0.02, 0.05, 0.1])
    assert list(mine["dropped_hops"]) == [25, 0, 0]
    assert set(table["load"]) == {"nothing else", "all cores loaded"}


def test_for_people_it_is_in_milliseconds_and_says_what_keeps_up(store):
    shown = for_people(live_table(store)).set_index(["platform", "beside", "hop (ms)"])
    free = shown.loc[("firefox/wasm", "nothing else", "100")]
    assert free["p50 (ms)"] == "111"
    assert free["came of it"] == "keeps up"
    assert shown.loc[("firefox/wasm", "nothing else", "20"), "came of it"] == "falls behind"
    refused = shown.loc[("chromium/wasm", "nothing else", "100")]
    assert (refused["came of it"], refused["reason"]) == ("unsupported", "this browser has no AudioWorklet")


def test_the_shortest_hop_is_one_without_drops(store):
    found = shortest(live_table(store)).set_index("load")["hop_s"]
    assert found["nothing else"] == pytest.approx(0.05)
    assert found["all cores loaded"] == pytest.approx(0.1)


def test_the_sentence_counts_what_keeps_up_and_how_far_the_parts_are_off(store):
    said = live_sentence(live_table(store))
    assert said.startswith("Of 4 live runs 3 keep up.")
    assert "within 10 % in 4; the worst is off by 3.2 %" in said  # the way to the page, 1 of 31 ms


def test_without_runs_it_says_how_to_make_some(store, tmp_path):
    with Store(tmp_path / "empty.h5", writable=True):
        pass
    with pytest.raises(ConfigError, match="labbench web live"):
        ensure(live_table(Store(tmp_path / "empty.h5")))
    ensure(live_table(store))


def test_figures_show_parts_and_drops_and_the_tail(store):
    table = live_table(store)
    parts = plots.plot_live_parts(table)
    assert [text.get_text() for text in parts.texts] == ["33% dropped"]
    assert len(parts.get_yticks()) == 4
    spread = plots.plot_live_spread(store, table)
    drawn = [line for line in spread.lines if len(line.get_xdata())]  # the others are for the legend
    assert len(drawn) == 3  # those that keep up
    nothing = plots.plot_live_spread(store, table[table["status"] != "ok"])
    assert "no run keeps up" in nothing.texts[0].get_text()
