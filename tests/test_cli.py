import json
import statistics
import subprocess
import sys
import time

import pytest
from made import ENVIRONMENT, study
from test_analysis import timed
from test_store import filled, make_record

from labbench import cells, cli
from labbench.store import Store


def labbench(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "labbench.cli", *map(str, arguments)], capture_output=True, text=True)


@pytest.fixture
def path(tmp_path):
    return filled(
        tmp_path / "s.h5", timed("eager", 1e-2), timed("openvino", 5e-3), make_record(status="failed", reason="no")
    )


def test_import_labbench_loads_no_framework():
    code = "import sys, labbench; print({'torch', 'transformers', 'sklearn', 'pandas', 'selenium'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"


def test_help_answers_in_half_the_time_of_importing_pandas():
    def seconds(*command: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, *command], capture_output=True, check=True)
        return time.perf_counter() - start

    pairs = [(seconds("-m", "labbench.cli", "--help"), seconds("-c", "import pandas")) for _ in range(7)]
    assert statistics.median(ours / theirs for ours, theirs in pairs) <= 0.5


@pytest.mark.parametrize("command", ["doctor", "run", "study", "show", "compare", "predict", "select", "export"])
def test_every_command_has_help_with_an_example(command):
    run = labbench(command, "--help")
    assert run.returncode == 0
    assert f"example:\n  labbench {command}" in run.stdout


def test_options_of_cells_are_the_fields_of_cells():
    assert set(cli.CELL_OPTIONS) == set(cells.CELL_FIELDS) - {"task", "world_size"}


def test_show_gives_tables_and_json(path):
    assert "cpu/openvino" in labbench("show", "--store", path).stdout
    assert "2 records: 1 ok, 1 failed" in labbench("show", "--matrix", "--store", path).stdout
    rows = json.loads(labbench("show", "--store", path, "--status", "ok", "--json").stdout)
    assert sorted(row["runtime"] for row in rows) == ["eager", "openvino"]


def test_compare_gives_verdicts(path):
    [row] = json.loads(labbench("compare", "--store", path, "--json").stdout)
    assert row["verdict"] == "faster"


@pytest.mark.slow
def test_a_prediction_is_made_for_every_runtime_that_was_measured_unless_one_is_named(tmp_path):
    with Store(tmp_path / "s.h5", writable=True) as store:
        for record in study(runtimes=("eager", "onnxruntime")):
            store.append(record, ENVIRONMENT)
    for arguments, runtimes in (((), {"eager", "onnxruntime"}), (("--runtime", "eager"), {"eager"})):
        run = labbench("predict", "--model", "bert-base", *arguments, "--store", tmp_path / "s.h5", "--json")
        assert {row["runtime"] for row in json.loads(run.stdout)} == runtimes, run.stderr


def test_export_is_lossless(path):
    from labbench.records import Record
    from labbench.store import Store

    lines = labbench("export", "--store", path).stdout.splitlines()
    assert [Record.model_validate_json(line) for line in lines] == Store(path).records()
    assert labbench("export", "--store", path, "--format", "csv").stdout.startswith("record_id,")


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["show", "--store", "nowhere.h5"], "no database at nowhere.h5"),
        (["run", "--model", "bert-tini"], "did you mean 'bert-tiny'?"),
        (["run"], "which model?"),
        (["run", "--model", "bert-tiny", "--protocol", "quik"], "did you mean 'quick'?"),
        (["run", "--config", "nowhere.json"], "cannot read configuration nowhere.json"),
        (["run", "--config", "x.json", "--model", "bert-tiny"], "exclude each other"),
    ],
)
def test_a_mistake_is_one_line_that_says_the_way_out(arguments, hint, tmp_path):
    run = labbench(*arguments)
    assert run.returncode in (1, 2)
    assert hint in run.stderr
    assert "Traceback" not in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1
