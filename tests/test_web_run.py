"""The matrix of browsers, providers and models: true labels, right numbers, records for what goes wrong."""

import json
from functools import partial
from pathlib import Path

import pytest
import web

from labbench.cli import main
from labbench.config import ConfigError, parse, read
from labbench.measure.protocol import MIN_SAMPLES, preset
from labbench.store import Store
from labbench.web import report
from labbench.web.browsers import NAMES, open_browser
from labbench.web.config import CHANGES, WebConfig
from labbench.web.families import find
from labbench.web.run import WebCampaign

pytestmark = pytest.mark.alone
SHORT = {**CHANGES, "min_time_s": 0.1, "max_time_s": 0.4, "warmup_max_s": 0.5, "round_s": 0.05}
CHUNK_S = 0.3  # what software WebGPU takes a second for
MODELS = ["kws-tiny", "whisper-micro-encoder", "whisper-micro-decoder"]
SHIPPED = Path(__file__).parents[1] / "notebooks" / "config" / "web_audio_config.json"


def config(**fields) -> WebConfig:
    return parse(WebConfig, {"models": ["kws-tiny"], "protocol_changes": SHORT, **fields}, "test")


@pytest.fixture(scope="module")
def matrix(tmp_path_factory):
    """Every browser × {wasm, wasm with all threads, webgpu, webnn} × three models, by the command; its store.

    On a busy machine WebKitGTK's WebAssembly traps now and then: what failed is tried once more, as a user would.
    """
    for name in NAMES:
        web.need(name)
    folder = tmp_path_factory.mktemp("matrix")
    told = config(models=MODELS, audio_s=[CHUNK_S], providers=["wasm", "webgpu", "webnn-cpu"]).model_dump()
    (folder / "config.json").write_text(json.dumps(told))
    command = ["web", "run", "--config", str(folder / "config.json"), "--store", str(folder / "web.h5")]
    assert main(command) == 0
    if len(Store(folder / "web.h5").frame(status="failed")):
        assert main([*command, "--retry"]) == 0
    return Store(folder / "web.h5")


@pytest.mark.slow
def test_every_cell_ran_or_is_truly_unsupported(matrix, capsys):
    table = report.table(matrix)
    with capsys.disabled():
        print(f"\n{report.short(table).to_string(index=False, na_rep='', max_colwidth=60)}")
    assert set(table["browser"]) == set(NAMES)
    assert set(table["model"]) == set(MODELS)
    assert set(table["status"]) <= {"ok", "unsupported"}, table.loc[table["status"] == "failed", "reason"].tolist()
    assert table["reason"].notna().eq(table["status"] == "unsupported").all()
    wasm = table[table["provider"].str.startswith("wasm")]
    assert (wasm["status"] == "ok").all(), "WebAssembly runs everywhere, with one thread and several"
    for row in table[(table["status"] == "ok") & (table["provider"] == "webgpu")].itertuples():
        assert row.adapter, "a record of WebGPU names its adapter"


@pytest.mark.slow
def test_numbers_agree_with_native_onnxruntime(matrix):
    table = report.table(matrix)
    ok = table[table["status"] == "ok"]
    assert (ok["max_abs_error"] <= 1e-4).all()
    assert (ok["same_class"].dropna() == 1).all()
    assert report.agreement(table)["models"].max() == len(MODELS)


@pytest.mark.slow
def test_a_record_of_a_browser_has_what_a_person_would_feel(matrix):
    records = {
        record.cell.platform.label: record for record in matrix.records() if record.cell.workload.model == "kws-tiny"
    }
    one = records["chromium/wasm·1t"]
    assert [series.name for series in one.series] == ["forward", "features"]
    assert one.primary.n_samples >= MIN_SAMPLES
    assert len(one.primary.samples.seconds) == one.primary.n_samples
    assert one.metrics["clock_step_s"] <= 0.02 * one.primary.calls_per_sample * one.primary.latency_s
    assert min(one.phases.load_s, one.phases.prepare_s, one.phases.first_run_s) > 0
    assert one.metrics["real_time_factor"] == pytest.approx(one.primary.latency_s / CHUNK_S)
    assert one.metrics["slowdown_ci_low"] <= one.metrics["slowdown"] <= one.metrics["slowdown_ci_high"]
    assert one.metrics["blocking_longest_gap_s"] > 0
    assert one.memory.peak_bytes > one.metrics["memory_renderer_bytes"] > 0
    assert one.noise.verdict
    native = records["cpu/onnxruntime·1t"]
    assert native.check.reference == "eager fp32"
    assert one.environment_id in matrix.environments()
    software = matrix.environments()[one.environment_id].software
    assert software["onnxruntime-web"]
    assert software["chromium"].count(".") == 3
    if records["chromium/webgpu"].status == "ok":
        assert records["chromium/webgpu"].metrics["dispatches_per_run"] > 0
    assert one.metrics["dispatches_per_run"] == 0


@pytest.mark.slow
def test_the_compatibility_table_has_a_row_a_browser_and_provider_and_tells_why_there_are_gaps(matrix):
    from labbench.plots import plot_compatibility, plot_slowdown

    table = report.table(matrix)
    wide = report.compatibility(table)
    assert set(wide.columns) == set(MODELS)
    assert len(wide) == len(table) / len(MODELS)
    assert wide.map(lambda text: text.split()[0]).isin(["ok", "unsupported"]).all(axis=None)
    gaps = report.reasons(table)
    assert gaps["reason"].str.contains("navigator.gpu").any()
    assert len(plot_compatibility(table).texts) == wide.size
    assert plot_slowdown(table).get_yticklabels()


def test_a_lost_browser_is_a_record_and_the_others_go_on_and_a_disabled_gpu_yields_no_webgpu(tmp_path):
    """The first page is killed in the middle of its samples."""
    web.need("chromium")
    kills = []

    def sabotaged(name):
        browser = open_browser(name, webgpu=False)
        call = browser.call

        def fatal(function, argument=None, deadline_s=60.0):
            if function == "labbench.samples" and not kills:
                kills.extend(process.pid for process, kind in browser.group.kinds() if kind == browser.content_kind)
                for process, kind in browser.group.kinds():
                    if kind == browser.content_kind:
                        process.kill()
            return call(function, argument, deadline_s)

        browser.call = fatal
        return browser

    campaign = WebCampaign(
        config(browsers=["chromium"], providers=["wasm", "webgpu", "webgpu-jsep"]),
        tmp_path / "web.h5",
        open_with=sabotaged,
    )
    summary = campaign.run(progress=False)
    assert kills
    found = {record.cell.platform.label: record for record in summary.records}
    killed, *others = [found[cell.platform.label] for cell in campaign.cells]
    assert killed.status == "failed"
    assert killed.reason.startswith("the page's process has ended")
    assert killed.stage == "steady"
    assert [one.status for one in others if one.cell.platform.runtime == "wasm"] == ["ok"] * (len(campaign.cells) - 3)
    for one in others:
        if one.cell.platform.runtime.startswith("webgpu"):
            assert one.status == "unsupported", "asking for WebGPU where it is switched off never yields a number"
            assert "navigator.gpu" in one.reason


def test_an_interrupted_run_keeps_what_it_has_and_goes_on_where_it_stopped(tmp_path):
    web.need("firefox")
    opened = []

    def interrupting(name):
        browser = open_browser(name)
        call = browser.call

        def stop(function, argument=None, deadline_s=60.0):
            if function == "labbench.open":
                opened.append(browser.group.folder)
                if len(opened) == 2:
                    raise KeyboardInterrupt
            return call(function, argument, deadline_s)

        browser.call = stop
        return browser

    told = config(browsers=["firefox"], providers=["wasm", "webgpu-jsep"], threads=[1])
    run = partial(WebCampaign, told, tmp_path / "web.h5", open_with=interrupting)
    first = run().run(progress=False)
    assert first.interrupted
    assert [record.cell.platform.label for record in first.records] == ["firefox/wasm·1t", "cpu/onnxruntime·1t"]
    assert not opened[0].exists(), "the browser is gone, and its folder"
    second = run().run(progress=False)
    assert (second.kept, [record.cell.platform.runtime for record in second.records]) == (1, ["webgpu-jsep"])
    assert second.records[0].status == "unsupported"


def test_a_browser_that_is_not_installed_is_unsupported_with_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setattr("labbench.web.browsers.find._where", lambda names: None)
    summary = WebCampaign(config(browsers=["webkitgtk"], providers=["wasm"], threads=[1]), tmp_path / "web.h5").run()
    assert [record.status for record in summary.records] == ["unsupported"]
    assert "apt-get install webkit2gtk-driver" in summary.records[0].reason


TRAP = "no available backend found. ERR: [wasm] RuntimeError: Out of bounds memory access (evaluating 'V(a)(b)')"


class Trapping:
    """A browser whose WebAssembly traps while the runtime starts, as WebKitGTK's did once."""

    version = "2.50.6"

    def __init__(self):
        self.closed = False

    def call(self, function, argument=None, deadline_s=60.0):
        if function == "labbench.environment":
            return {"clock_step_s": 1e-5}
        error = {"stage": "session", "name": "Error", "message": TRAP}
        return {"provider": argument["provider"], "phases": {}, "error": error}

    def renew(self):
        pass

    def go(self, url):
        pass

    def memory(self):
        return {}

    def close(self):
        self.closed = True


def test_a_runtime_that_traps_has_failed_and_the_next_cell_gets_another_browser(tmp_path):
    opened = []

    def trapping(name):
        assert all(one.closed for one in opened)
        opened.append(Trapping())
        return opened[-1]

    told = config(browsers=["webkitgtk"], providers=["wasm"], threads=[1, 2])
    summary = WebCampaign(told, tmp_path / "web.h5", open_with=trapping).run(progress=False)
    assert [(one.status, one.reason, one.stage) for one in summary.records] == [
        ("failed", f"session: {TRAP}", "prepare")
    ] * 2
    assert len(opened) == 2
    for retry, measured in ((False, 0), (True, 2)):
        again = WebCampaign(told, tmp_path / "web.h5", open_with=trapping, retry=retry).run(progress=False)
        assert (len(again.records), again.kept) == (measured, 2 - measured)


def test_a_named_model_keeps_its_own_chunk_length():
    for name in ("whisper-micro-encoder", "clap-tiny-audio"):
        own = find(name).audio_s
        assert {cell.workload.audio_s for cell in WebConfig(models=[name]).cells()} == {own}


def test_configurations_are_refused_with_the_nearest_name():
    shipped = read(WebConfig, SHIPPED)
    assert len(shipped.models) >= 3
    assert shipped.make_protocol() == preset(shipped.protocol, **shipped.protocol_changes)
    cells = shipped.cells()
    assert len({cell.id for cell in cells}) == len(cells)
    assert all(cell.platform.threads for cell in cells if cell.platform.runtime == "wasm")
    assert cells[0].command == (
        "labbench web run --browser chromium --provider wasm --model kws-small --audio-s 1 --threads 1"
    )
    for wrong, nearest in (
        ({"browser": ["firefox"]}, "browsers"),
        ({"browsers": ["firefix"]}, "firefox"),
        ({"providers": ["webgp"]}, "webgpu"),
    ):
        with pytest.raises(ConfigError, match=f"did you mean '{nearest}'"):
            config(**wrong)
    with pytest.raises(ConfigError, match="did you mean 'kws-tiny'"):
        config(models=["kws-tinny"]).cells()
    with pytest.raises(ConfigError, match="did you mean 'round_s'"):
        config(protocol_changes={"round": 1}).make_protocol()
