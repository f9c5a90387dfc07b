"""Results that a person measured by hand are taken in, with nothing trusted."""

import copy
import json

import live_answers
import pytest

from labbench.importers import Unreadable, read_foreign
from labbench.store import Store
from labbench.transfer import import_into

CHROME = (
    "Mozilla/5.0 (Linux; Android 15; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Mobile Safari/537.36"
)
SAFARI = "Mozilla/5.0 (iPhone; CPU iPhone OS 19_0) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/19.0 Mobile/15E148 Safari/604.1"
LIVE = {
    "kind": "live", "started_at": "2026-05-01T10:00:00Z", "model": "kws-tiny", "window_s": 1, "provider": "wasm",
    "threads": 1, "hop_s": 0.1, "source": "microphone", "seconds": 600,
}  # fmt: skip
BENCHMARK = {
    "kind": "benchmark", "started_at": "2026-05-01T10:02:00Z", "model": "kws-tiny", "window_s": 1, "provider": "wasm",
    "threads": 1,
    "answer": {
        "status": "ok", "opened": live_answers.OPENED, "warm": {"warmed": True, "warmup_calls": 12, "call_s": 0.002},
        "calls": 2, "seconds": [0.002, 0.0021, 0.0019] * 10, "check": {"max_error": 1e-7},
    },
}  # fmt: skip


def document(*results, agent=CHROME, **changes):
    return {
        "format": "labbench-web",
        "version": 1,
        "labbench": "0.1",
        "onnxruntime_web": "1.30.0",
        "device": {
            "user_agent": agent, "brands": ["Chromium 156"], "platform": "Android 15", "model": "Pixel 12", "architecture": None,
            "mobile": True, "cores": 8, "memory_gib": 8, "isolated": True, "shared_memory": True, "clock_step_s": 5e-6,
            "gpu": {"adapter": None, "error": "navigator.gpu is not there"},
        },
        "made_at": "2026-05-01T10:05:00Z",
        "results": list(results),
        **changes,
    }  # fmt: skip


@pytest.fixture
def read(tmp_path):
    def read(data):
        path = tmp_path / "phone.json"
        path.write_text(json.dumps(data))
        return read_foreign(path)

    return read


def live(**changes):
    return {**LIVE, "answer": live_answers.answer(source="microphone"), **changes}


def test_a_live_run_and_a_benchmark_become_imported_records_of_another_machine(read):
    found = read(document(live(), BENCHMARK))
    assert not found.skipped
    for record in found.records:
        assert (record.status, record.provenance) == ("ok", "imported")
        assert record.source == "labbench's page in chromium 156.0.0.0, by hand: Pixel 12 Android 15"
        assert record.cell.platform.device == "chromium"
    assert [record.series[0].name for record in found.records] == ["live", "forward"]
    assert found.records[1].series[0].latency_s == pytest.approx(0.002)
    (environment,) = found.environments.values()
    assert environment.hostname == "unknown"
    assert environment.software == {"chromium": "156.0.0.0", "onnxruntime-web": "1.30.0", "labbench": "0.1"}


def test_figures_come_from_the_raw_times_and_importing_twice_changes_nothing(read, tmp_path):
    read(document(live(), BENCHMARK))
    with Store(tmp_path / "s.h5", writable=True) as store:
        assert import_into(store, [tmp_path / "phone.json"]).new == 2
        assert import_into(store, [tmp_path / "phone.json"], "labbench-web").new == 0


@pytest.mark.parametrize("source", ["microphone", "file", "signal"])
def test_every_source_of_the_page_is_known(read, source):
    (record,) = read(document(live(source=source))).records
    assert record.protocol["live"]["source"] == source


def test_the_browser_is_told_by_the_user_agent(read):
    assert read(document(BENCHMARK, agent=SAFARI)).records[0].cell.platform.device == "safari"
    firefox = "Mozilla/5.0 (X11; rv:153.0) Gecko/20100101 Firefox/153.0"
    assert read(document(BENCHMARK, agent=firefox)).records[0].cell.platform.device == "firefox"
    assert read(document(BENCHMARK, agent="?")).records[0].cell.platform.device == "browser"


def test_webgpu_without_work_for_the_gpu_is_unsupported(read):
    false = {**BENCHMARK, "provider": "webgpu"}
    false["answer"] = {**BENCHMARK["answer"], "opened": {**live_answers.OPENED, "provider": "webgpu"}}
    (record,) = read(document(false)).records
    assert record.status == "unsupported"


@pytest.mark.parametrize("off", [0.5, None])
def test_a_wrong_output_is_a_failed_record_however_fast(read, off):
    wrong = {**BENCHMARK, "answer": {**BENCHMARK["answer"], "check": {"max_error": off}}}
    (record,) = read(document(wrong)).records
    assert record.status == "failed"
    assert "native onnxruntime" in record.reason


def test_what_the_browser_refused_is_kept_with_its_reason(read):
    refused = live(answer={"status": "unsupported", "reason": "the browser refuses the microphone", "stage": "audio"})
    (record,) = read(document(refused)).records
    assert (record.status, record.reason) == ("unsupported", "the browser refuses the microphone")


def spoil(path, value):
    """A result with one field changed."""
    data = copy.deepcopy(live())
    at = data
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return data


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (spoil(["model"], "../../etc/passwd;"), "model"),
        (spoil(["model"], "kws-tinny"), "did you mean 'kws-tiny'"),
        (spoil(["threads"], 10**9), "threads"),
        (spoil(["surprise"], 1), "surprise"),
        (spoil(["answer", "hops", "model_s"], [1.0]), "unequal length"),
        (spoil(["answer", "hops", "model_s"], [-1.0] * 50), "below zero"),
        (spoil(["answer", "hops", "from_s"], [0.0] * 200_000), "at most 100000"),
        (spoil(["answer", "counts", "dropped"], -1), "dropped"),
        (spoil(["answer", "rate"], 0), "rate"),
        (spoil(["answer", "hop"], 16_000), "hop_s is 0.1"),
        (spoil(["hop_s"], None), "without hop_s"),
        (spoil(["answer", "ready", "opened", "counts"], {}), "counts"),
        (spoil(["answer"], {"status": "ok"}), "Field required"),
    ],
)
def test_a_result_that_makes_no_sense_is_left_out_with_the_reason_and_the_others_go_in(read, bad, why):
    found = read(document(bad, BENCHMARK))
    assert len(found.records) == 1
    (skipped,) = found.skipped
    assert "result 0" in str(skipped)
    assert why in str(skipped)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"version": 2}, "version 2"),
        ({"results": [BENCHMARK] * 1001}, "at most 1000"),
        ({"device": {}}, "user_agent"),
        ({"made_at": "yesterday"}, "made_at"),
    ],
)
def test_a_file_that_is_none_of_the_page_is_refused_whole(read, changes, why):
    with pytest.raises(Unreadable, match=why):
        read(document(BENCHMARK, **changes))
