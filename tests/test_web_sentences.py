"""What is said of the matrix follows from the table."""

import pandas as pd
import pytest

from labbench.config import ConfigError
from labbench.web.sentences import agreement_sentence, ensure, slowdown_sentence, status_sentence

COLUMNS = ["browser", "provider", "model", "status", "max_abs_error", "same_class", "slowdown", "adapter"]
TABLE = pd.DataFrame(
    [
        ("chromium", "wasm 1 thread", "kws-tiny", "ok", 1e-8, 1.0, 2.0, None),
        ("chromium", "webgpu", "kws-tiny", "ok", 3e-4, 0.5, 250.0, "google swiftshader (software)"),
        ("firefox", "wasm 1 thread", "kws-tiny", "ok", 2e-8, 1.0, 3.0, None),
        ("firefox", "wasm 1 thread", "wav2vec2-tiny", "ok", 2e-8, None, 5.0, None),
        ("firefox", "webgpu", "kws-tiny", "unsupported", None, None, None, None),
        ("webkitgtk", "wasm 1 thread", "kws-tiny", "out_of_memory", None, None, None, None),
    ],
    columns=COLUMNS,
)


def test_the_status_of_all_cells_is_counted():
    assert status_sentence(TABLE) == "Of 6 cells 4 ran; 1 unsupported and 1 out of memory."
    assert status_sentence(TABLE[TABLE["status"] == "ok"]) == "Of 4 cells 4 ran."


def test_the_worst_difference_is_named_with_where_it_was():
    said = agreement_sentence(TABLE)
    assert "3.0e-04 (kws-tiny in chromium on webgpu)" in said
    assert "1 cell of 4 is off by more than 0.0001" in said
    assert "same class wins in 2 of 3 cells" in said
    assert agreement_sentence(TABLE[4:]) == "No output was compared."


def test_software_adapters_are_told_apart_from_webassembly():
    said = slowdown_sentence(TABLE)
    assert "2.00 times in chromium (2.00 to 2.00) and 4.00 times in firefox (3.00 to 5.00)" in said
    assert "250 to 250 times as long as native: that tells that it works" in said
    assert slowdown_sentence(TABLE[4:]) == "No cell took turns with native onnxruntime."


def test_without_cells_it_says_how_to_measure_some():
    with pytest.raises(ConfigError, match="labbench web run"):
        ensure(TABLE[:0])
