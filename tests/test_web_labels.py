"""From what the page says to what a record may say; the words are those that browsers and the runtime were seen to use."""

import base64

import numpy as np
import pytest

from labbench.web.agreement import agreement, decoded
from labbench.web.labels import judge

SWIFTSHADER = {"name": "google swiftshader", "fallback": True, "software": True}
NVIDIA = {"name": "nvidia ada", "fallback": False, "software": False}


def opened(provider, *, error=None, dispatches=0, webnn=0, used=1, workers=0, **fields):
    counts = {"dispatches": dispatches, "submits": 0, "webnn": webnn}
    threads = {"asked": 1, "used": used, "workers": workers}
    return {"provider": provider, "adapter": None, "error": error, "counts": counts, "threads": threads, **fields}


def test_webgpu_is_ok_only_if_the_gpu_was_given_work():
    good = judge(opened("webgpu", dispatches=8, adapter=NVIDIA), "webgpu")
    assert (good.status, good.device_name) == ("ok", "nvidia ada")
    silent = judge(opened("webgpu", dispatches=0, adapter=NVIDIA), "webgpu")
    assert silent.status == "unsupported"
    assert "wasm instead of WebGPU" in silent.reason


def test_a_software_adapter_is_called_one():
    assert (
        judge(opened("webgpu", dispatches=8, adapter=SWIFTSHADER), "webgpu").device_name
        == "google swiftshader (software)"
    )


def test_webnn_is_ok_only_if_it_was_given_work():
    assert judge(opened("webnn-cpu", webnn=1), "webnn-cpu").status == "ok"
    assert judge(opened("webnn-cpu"), "webnn-cpu").status == "unsupported"


def test_wasm_is_ok_only_on_the_cpu_and_with_the_threads_asked_for():
    assert judge(opened("wasm"), "wasm").status == "ok"
    assert judge(opened("wasm", used=2, workers=1), "wasm", 2).status == "ok"
    assert "8 dispatches went to the GPU" in judge(opened("wasm", dispatches=8), "wasm").reason
    for used, workers in ((1, 0), (2, 0), (1, 1)):
        assert judge(opened("wasm", used=used, workers=workers), "wasm", 2).status == "unsupported"


def test_an_answer_about_another_provider_is_a_mistake():
    with pytest.raises(ValueError, match="asked for webgpu"):
        judge(opened("wasm"), "webgpu")


@pytest.mark.parametrize(
    ("stage", "message", "status"),
    [
        ("api", "navigator.gpu is not there", "unsupported"),
        ("api", "navigator.ml.createContext: WebNN is not supported on this platform.", "unsupported"),
        ("session", "no available backend found. ERR: [webgpu] Error: Failed to get GPU adapter.", "unsupported"),
        # what WebKitGTK once said; the same session opened before and after it
        (
            "session",
            "no available backend found. ERR: [wasm] RuntimeError: Out of bounds memory access (evaluating 'V(a)(b)')",
            "failed",
        ),
        ("download", "Array buffer allocation failed", "out_of_memory"),
        ("session", "Aborted(OOM)", "out_of_memory"),
        ("session", "GPUOutOfMemoryError: Failed to allocate memory for buffer mapping", "out_of_memory"),
        ("session", "the input 'classroom' has the wrong shape", "failed"),
        ("first run", "std::bad_alloc", "out_of_memory"),
        ("session", "Can't create a session. ERROR_CODE: 7, ERROR_MESSAGE: Failed to load model", "failed"),
        ("download", "model.onnx: the server says 404", "failed"),
    ],
)
def test_an_error_keeps_the_browsers_words(stage, message, status):
    verdict = judge(opened("webgpu", error={"stage": stage, "name": "Error", "message": message}), "webgpu")
    assert verdict.status == status
    assert message in verdict.reason
    assert verdict.stage == stage


def test_operators_left_for_the_cpu_are_counted_and_named():
    error = {
        "stage": "session",
        "name": "Error",
        "message": "fallback to CPU EP has been explicitly disabled by the user.",
    }
    placement = {"nodes": {"CPU": 2, "WebGpu": 130}, "cpu_operators": ["IsNaN"]}
    verdict = judge(opened("webgpu", error=error, placement=placement), "webgpu")
    assert verdict.status == "unsupported"
    assert "2 of 132 operators (IsNaN) on the CPU instead of webgpu" in verdict.reason
    assert judge(opened("webgpu", error=error), "webgpu").status == "unsupported"


# --- numbers -----------------------------------------------------------------------------------------------------------


def test_the_same_numbers_agree_and_others_do_not():
    reference = {"logits": np.array([[1.0, 2.0, 0.5]], np.float32), "more": np.zeros((2, 2), np.float32)}
    same = agreement(reference, reference, "logits")
    assert (same.max_abs, same.cosine, same.same_class, same.close, same.check.passed) == (0, 1, 1, True, True)
    near = agreement({**reference, "logits": reference["logits"] + 5e-4}, reference, "logits")
    assert near.check.passed
    assert not near.close
    assert near.metrics()["native_max_abs_error"] == pytest.approx(5e-4, rel=1e-3)
    turned = agreement({**reference, "logits": -reference["logits"]}, reference, "logits")
    assert turned.cosine == pytest.approx(-1)
    assert (turned.same_class, turned.check.passed, turned.close) == (0, False, False)


@pytest.mark.parametrize(
    "wrong", [{}, {"logits": np.zeros((1, 2), np.float32)}, {"logits": np.full((1, 3), np.nan, np.float32)}]
)
def test_a_missing_output_another_shape_and_nan_fail(wrong):
    reference = {"logits": np.array([[1.0, 2.0, 0.5]], np.float32)}
    got = agreement(wrong, reference, "logits")
    assert not got.check.passed
    assert not got.close


def test_outputs_of_the_page_are_read_or_refused_by_name():
    values = np.arange(6, dtype=np.int64).reshape(2, 3)
    told = {"type": "int64", "shape": [2, 3], "data": base64.b64encode(values.tobytes()).decode()}
    np.testing.assert_array_equal(decoded({"x": told})["x"], values)
    for change in ({"shape": [7]}, {"data": "?"}, {"type": "float33"}):
        with pytest.raises(ValueError, match="'x'"):
            decoded({"x": {**told, **change}})
