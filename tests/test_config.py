import json
from pathlib import Path

import pytest

from labbench.campaign import BenchmarkConfig
from labbench.config import ConfigError, nearest, read

CONFIGS = Path(__file__).parent.parent / "notebooks" / "config"


def write(path: Path, value: object) -> Path:
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def test_the_shipped_benchmark_configuration_is_valid_and_not_empty():
    config = read(BenchmarkConfig, CONFIGS / "benchmark_config.json")
    assert len(config.cells()) >= 60
    assert config.make_protocol().processes >= 1


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("{", "benchmark.json:1: not valid JSON"),
        ({"grids": [], "protocol": "quick"}, "at least 1"),
        ({"gridz": [{}]}, "did you mean 'grids'?"),
        ({"grids": [{"axes": {"model": "bert-tiny", "runtim": "eager"}}]}, "did you mean 'runtime'?"),
    ],
)
def test_a_bad_file_is_refused_with_file_place_and_nearest_name(tmp_path, text, hint):
    with pytest.raises(ConfigError) as error:
        read(BenchmarkConfig, write(tmp_path / "benchmark.json", text))
    assert hint in str(error.value)


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({"protocol": "quik"}, "did you mean 'quick'?"),
        ({"protocol_changes": {"proceses": 3}}, "did you mean 'processes'?"),
        ({"grids": [{"axes": {"model": "bert-tinny"}}]}, "did you mean 'bert-tiny'?"),
        ({"grids": [{"axes": {"model": "bert-tiny", "runtime": "onnxruntme"}}]}, "did you mean 'onnxruntime'?"),
        ({"grids": [{"axes": {"model": "bert-tiny", "image_size": 224}}]}, "image_size"),
    ],
)
def test_a_wrong_value_is_refused_before_anything_runs(tmp_path, changes, hint):
    data = {"grids": [{"axes": {"model": "bert-tiny"}}], **changes}
    config = read(BenchmarkConfig, write(tmp_path / "benchmark.json", data))
    with pytest.raises(ConfigError) as error:
        (config.make_protocol(), config.cells())
    assert hint in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="nowhere"):
        read(BenchmarkConfig, tmp_path / "nowhere.json")


def test_without_a_near_name_all_known_ones_are_listed():
    assert nearest("zzz", ["alpha", "beta"]) == "known: alpha, beta"
