"""The measuring page in a real browser: labels, numbers, features, and what it says when something is missing."""

import base64

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from labbench.web import parts  # noqa: E402
from labbench.web.agreement import agreement, decoded  # noqa: E402
from labbench.web.browsers import PageError, missing, open_browser  # noqa: E402
from labbench.web.export import export  # noqa: E402
from labbench.web.families import CLAP_MEL, KEYWORD_MEL, WHISPER_MEL  # noqa: E402
from labbench.web.labels import judge  # noqa: E402
from labbench.web.server import Server, page_files  # noqa: E402

pytestmark = pytest.mark.alone
DEADLINE_S = 120.0
# The page with a runtime that silently takes wasm for everything, as applications do with ['webgpu', 'wasm'].
SILENT = (b"executionProviders: [one]", b"executionProviders: ['wasm']"), (b"kind !== 'wasm' && strict", b"false")


@pytest.fixture(scope="module")
def server():
    if reason := parts.found() or missing("chromium"):
        pytest.skip(reason)
    silent = page_files()["session.js"].read_bytes()
    for before, after in SILENT:
        assert before in silent
        silent = silent.replace(before, after)
    files = {**page_files(), **parts.served(), **parts.served("silent/ort/")}
    tampered = {f"silent/{name}": content for name, content in page_files().items()} | {"silent/session.js": silent}
    with Server({**files, **tampered}) as one:
        yield one


@pytest.fixture(scope="module")
def browser(server):
    with open_browser("chromium") as one:
        yield one


def opened(browser, server, made, provider="wasm", threads=1, *, page="bench.html", **more):
    """The page loaded anew, and what it says to opening a session."""
    browser.go(server.url(page))
    argument = made if isinstance(made, dict) else made.argument(server)
    asked = {**argument, "provider": provider, "threads": threads, **more}
    if page.startswith("silent/"):
        asked["model"] = f"../{asked['model']}"
        asked["inputs"] = {name: {**one, "data": f"../{one['data']}"} for name, one in asked["inputs"].items()}
    return browser.call("labbench.open", asked, DEADLINE_S)


@pytest.mark.parametrize(("threads", "where"), [(1, "page"), (2, "page"), (2, "worker")])
def test_wasm_runs_with_the_threads_asked_for_and_native_numbers(browser, server, threads, where):
    made = export("kws-tiny")
    told = opened(browser, server, made, threads=threads, where=where)
    assert judge(told, "wasm", threads).status == "ok", told
    assert told["threads"] == {"asked": threads, "used": threads, "workers": threads - 1}
    assert told["model_bytes"] == made.path.stat().st_size
    assert all(told["phases"][phase] > 0 for phase in ("runtime_s", "download_s", "session_s", "first_run_s"))
    got = agreement(decoded(browser.call("labbench.outputs", None, DEADLINE_S)), made.outputs, made.model.classes)
    assert got.close, got
    assert got.cosine > 1 - 1e-6
    samples = browser.call("labbench.samples", {"calls": 3, "for_s": 0.05, "room": 4}, DEADLINE_S)["seconds"]
    assert 1 <= len(samples) <= 4
    assert min(samples) > 0
    stuck = browser.call("labbench.blocking", {"for_s": 0.1}, DEADLINE_S)
    assert stuck["calls"] >= 1
    if where == "page":  # one call is one piece of work, during which nothing else can run
        assert stuck["longest_gap_s"] > min(samples)


def test_a_decoder_step_with_whole_numbers_and_a_cache_agrees_too(browser, server):
    made = export("whisper-micro-decoder", 2.0)
    told = opened(browser, server, made)
    assert judge(told, "wasm").status == "ok", told
    got = agreement(decoded(browser.call("labbench.outputs", None, DEADLINE_S)), made.outputs, made.model.classes)
    assert got.close, got


def test_webgpu_is_seen_by_hooks_and_a_software_adapter_is_called_one(browser, server):
    made = export("kws-tiny")
    told = opened(browser, server, made, "webgpu")
    verdict = judge(told, "webgpu")
    assert verdict.status in ("ok", "unsupported"), told
    if verdict.status == "unsupported":  # this Chromium's build has no adapter at all
        assert told["error"]["stage"] == "api"
        pytest.skip(verdict.reason)
    assert told["counts"]["dispatches"] > 0
    assert told["adapter"]["software"] == ("(software)" in verdict.device_name)
    got = agreement(decoded(browser.call("labbench.outputs", None, DEADLINE_S)), made.outputs, made.model.classes)
    assert got.close, got
    counts = browser.call("labbench.counts", {"calls": 2}, DEADLINE_S)
    assert counts["dispatches"] > 0


def test_a_runtime_that_falls_back_in_silence_is_found_out(browser, server):
    told = opened(browser, server, export("kws-tiny"), "webgpu", page="silent/bench.html")
    if told["error"] and told["error"]["stage"] == "api":
        pytest.skip(told["error"]["message"])
    assert told["error"] is None, "the runtime itself is content"
    verdict = judge(told, "webgpu")
    assert verdict.status == "unsupported"
    assert "wasm instead of WebGPU" in verdict.reason


def test_without_the_interface_webgpu_is_unsupported_in_the_browsers_words(server):
    with open_browser("chromium", webgpu=False) as one:
        told = opened(one, server, export("kws-tiny"), "webgpu")
        verdict = judge(told, "webgpu")
        assert verdict.status == "unsupported"
        assert "navigator.gpu" in verdict.reason
        silent = judge(opened(one, server, export("kws-tiny"), "webgpu", page="silent/bench.html"), "webgpu")
        assert silent.status == "unsupported"


def test_webnn_is_ok_or_unsupported_in_the_browsers_words(browser, server):
    told = opened(browser, server, export("kws-tiny"), "webnn-cpu")
    verdict = judge(told, "webnn-cpu")
    assert verdict.status == "ok" or "navigator.ml" in verdict.reason


def test_operators_that_would_be_left_for_the_cpu_are_counted_and_named(browser, server):
    told = opened(browser, server, _graph(server, "nan", [("IsNaN", {}), ("Cast", {"to": 1})]), "webgpu")
    if told["error"]["stage"] == "api":
        pytest.skip(told["error"]["message"])
    verdict = judge(told, "webgpu")
    assert verdict.status == "unsupported"
    assert "(IsNaN)" in verdict.reason, verdict


def test_out_of_memory_is_told_from_other_failures(browser, server):
    """A graph of a few bytes that wants 4 GiB less 0.3 MB: WebAssembly has no more than 4, and the runtime takes its share."""
    huge = {"value": onnx.helper.make_tensor("value", 1, [1], [1.0])}
    graph = _graph(server, "huge", [("ConstantOfShape", huge), ("Sqrt", {})], [32_767, 32_767], "int64")
    verdict = judge(opened(browser, server, graph), "wasm")
    assert verdict.status == "out_of_memory", verdict
    assert verdict.stage in ("session", "first run")


def test_what_the_server_does_not_have_and_what_is_no_model_fail_with_the_reason(browser, server):
    graph = _graph(server, "gone", [("Sqrt", {})])
    server.remove(graph["model"])
    verdict = judge(opened(browser, server, graph), "wasm")
    assert (verdict.status, verdict.stage) == ("failed", "download")
    assert "404" in verdict.reason
    server.add(graph["model"], b"rubbish")
    verdict = judge(opened(browser, server, graph), "wasm")
    assert (verdict.status, verdict.stage) == ("failed", "session")


def test_a_page_runs_the_runtime_one_way_only_and_calls_need_a_session(browser, server):
    argument = export("kws-tiny").argument(server)
    opened(browser, server, argument)
    with pytest.raises(PageError, match="load the page again"):
        browser.call("labbench.open", {**argument, "provider": "wasm", "threads": 2}, DEADLINE_S)
    with pytest.raises(PageError, match="open one first"):
        browser.call("labbench.block", {"calls": 1}, DEADLINE_S)
    with pytest.raises(PageError, match="unknown provider"):
        browser.call("labbench.open", {**argument, "provider": "cuda"}, DEADLINE_S)


def test_the_page_is_isolated_and_measures_its_clock(browser, server):
    browser.go(server.url("bench.html"))
    told = browser.call("labbench.environment", None, DEADLINE_S)
    assert told["isolated"] is True
    assert 0 < told["clock_step_s"] < 1e-3
    assert set(told["ml"]) == {"cpu", "gpu", "npu"}
    late = browser.call("labbench.memory", {"within_s": 0.01}, DEADLINE_S)
    assert late.get("bytes") or "0.01 s" in late["error"]


@pytest.mark.parametrize(("settings", "seconds"), [(WHISPER_MEL, 30.0), (CLAP_MEL, 10.0), (KEYWORD_MEL, 1.0)])
def test_log_mel_of_the_page_is_that_of_the_models_authors(browser, server, settings, seconds):
    rate = settings["sample_rate"]
    time = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(0).normal(size=time.size)
    wave = (0.3 * np.sin(2 * np.pi * 440 * time * (1 + time / 10)) + 0.01 * noise).astype(np.float32)
    name = server.add("audio.f32", wave.tobytes())
    browser.go(server.url("bench.html"))
    asked = {"audio": name, "settings": settings, "calls": 1, "for_s": 0, "room": 1, "values": True}
    told = browser.call("labbench.features", asked, DEADLINE_S)
    got = np.frombuffer(base64.b64decode(told["values"]), np.float32).reshape(told["shape"])
    want = _of_the_authors(settings, wave)
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= 1e-4
    assert told["seconds"][0] > 0


def _of_the_authors(settings, wave):
    from transformers import ClapFeatureExtractor, WhisperFeatureExtractor
    from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

    if settings is WHISPER_MEL:
        return WhisperFeatureExtractor()(wave, sampling_rate=16_000)["input_features"][0]
    if settings is CLAP_MEL:
        extractor = ClapFeatureExtractor(truncation="rand_trunc", padding="repeatpad")
        return extractor(wave, sampling_rate=48_000)["input_features"][0][0]
    window = window_function(settings["n_fft"], "hann")
    filters = mel_filter_bank(
        settings["n_fft"] // 2 + 1, settings["mels"], 0, 8000, 16_000, norm="slaney", mel_scale="slaney"
    )
    power = spectrogram(
        wave, window, settings["n_fft"], settings["hop"], power=2.0, mel_filters=filters, mel_floor=1e-6, center=False
    )
    return np.log(power)


def _graph(server, name, operators, shape=(2,), kind="float32"):
    """A served graph of operators one after another, with one input ``x`` that holds ``shape``'s numbers, or has it."""
    values = np.array(shape, np.int64) if kind == "int64" else np.ones(shape, np.float32)
    nodes = [
        onnx.helper.make_node(op, [f"v{i}"], [f"v{i + 1}"], **attributes)
        for i, (op, attributes) in enumerate(operators)
    ]
    given = onnx.helper.make_tensor_value_info("v0", 7 if kind == "int64" else 1, list(values.shape))
    result = onnx.helper.make_tensor_value_info(f"v{len(operators)}", 1, None)
    graph = onnx.helper.make_graph(nodes, name, [given], [result])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    path = server.add(f"{name}.onnx", model.SerializeToString())
    data = server.add(f"{name}.bin", values.tobytes())
    return {"model": path, "inputs": {"v0": {"type": kind, "shape": list(values.shape), "data": data}}, "dims": {}}
