import json
import statistics
import subprocess
import sys
import time

import pytest
from made import ENVIRONMENT, study
from shell import labbench, process
from test_analysis import timed
from test_store import filled, make_record

from labbench import cells, cli, cli_store, importers
from labbench.store import Store


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


COMMANDS = (
    *("doctor", "run", "study", "publish", "show", "compare", "predict", "select", "measure-next", "switch"),
    *("merge", "check", "history", "baseline", "retract", "import", "export", "schema", "regressions", "plan"),
)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command):
    run = labbench(command, "--help")
    assert run.returncode == 0
    assert f"example:\n  labbench {command}" in run.stdout


def test_options_of_cells_are_the_fields_of_cells():
    assert set(cli.CELL_OPTIONS) == set(cells.CELL_FIELDS) - {"task", "world_size"}


def test_show_gives_tables_and_json(path):
    assert "cpu/openvino" in process("show", "--store", path).stdout
    assert "2 records: 1 ok, 1 failed" in labbench("show", "--matrix", "--store", path).stdout
    rows = json.loads(labbench("show", "--store", path, "--status", "ok", "--json").stdout)
    assert sorted(row["runtime"] for row in rows) == ["eager", "openvino"]


def test_compare_gives_verdicts(path):
    [row] = json.loads(labbench("compare", "--store", path, "--json").stdout)
    assert row["verdict"] == "faster"


def test_a_prediction_is_made_for_every_runtime_that_was_measured_unless_one_is_named(tmp_path):
    with Store(tmp_path / "s.h5", writable=True) as store:
        for record in study(runtimes=("eager", "onnxruntime")):
            store.append(record, ENVIRONMENT)
    for arguments, runtimes in (((), {"eager", "onnxruntime"}), (("--runtime", "eager"), {"eager"})):
        run = labbench("predict", "--model", "bert-base", *arguments, "--store", tmp_path / "s.h5", "--json")
        assert {row["runtime"] for row in json.loads(run.stdout)} == runtimes, run.stderr


def test_what_is_exported_can_be_imported(path, tmp_path):
    lines = tmp_path / "lines.jsonl"
    lines.write_text(labbench("export", "--store", path).stdout)
    copy = tmp_path / "copy.h5"
    assert "3 records imported, 0 skipped" in labbench("import", lines, "--store", copy).stdout
    assert "no record imported, 3 records there already" in labbench("import", lines, "--store", copy).stdout
    assert Store(copy).content_hash() == Store(path).content_hash()
    assert labbench("export", "--store", path, "--format", "csv").stdout.startswith("record_id,")
    assert labbench("export", "--store", path, "-o", tmp_path / "t.parquet").returncode == 0
    assert (tmp_path / "t.parquet").read_bytes()[:4] == b"PAR1"


def test_import_names_what_it_skips(tmp_path):
    (tmp_path / "in.jsonl").write_text("{}\n" + make_record().model_dump_json() + "\n")
    run = labbench("import", tmp_path / "in.jsonl", "--store", tmp_path / "s.h5")
    assert "1 record imported, 1 skipped:\n  " + str(tmp_path / "in.jsonl:1: cell: Field required") in run.stdout
    assert set(cli_store.IMPORT_FORMATS) == {"jsonl", *importers.FORMATS}


def test_merge_and_check(path, tmp_path):
    other, both = filled(tmp_path / "other.h5", make_record()), tmp_path / "both.h5"
    assert "4 records, from 2 databases" in labbench("merge", path, other, "-o", both).stdout
    assert "everything is intact (4 records" in labbench("check", both).stdout
    whole = both.read_bytes()
    both.write_bytes(whole[:-100])
    run = labbench("check", both, "--json")
    assert run.returncode == 1
    assert not json.loads(run.stdout)["ok"]
    run = labbench("check", both, "--repair", tmp_path / "saved.h5")
    assert "4 records saved; nothing lost" in run.stdout
    assert run.returncode == 0
    assert labbench("check", both, "--repair", tmp_path / "saved.h5").returncode == 1  # is there already


def test_history_baselines_and_retractions(path):
    [first, second] = Store(path).frame(["record_id", "runtime", "cell_id"], status="ok").to_dict("records")
    assert "2 records pinned" in labbench("baseline", "v1", "--pin", "--store", path).stdout
    assert "v1" in labbench("baseline", "--store", path).stdout
    assert "bert-tiny" in labbench("baseline", "v1", "--store", path).stdout
    run = labbench("retract", first["record_id"][:12], "--reason", "on battery", "--store", path)
    assert "retracted: on battery" in run.stdout
    assert set(Store(path).frame(status="ok")["record_id"]) == {second["record_id"]}
    assert first["record_id"][:8] not in labbench("history", first["cell_id"], "--store", path).stdout
    shown = labbench("history", first["cell_id"], "--retracted", "--store", path).stdout
    assert first["record_id"][:8] in shown
    assert "on battery" in shown
    fields = labbench("history", "--model", "bert-tiny", "--store", path)
    assert fields.returncode == 0, fields.stderr


def test_schema_prints_the_json_schema():
    assert json.loads(labbench("schema").stdout)["title"] == "labbench records"


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["show", "--store", "nowhere.h5"], "no database at nowhere.h5"),
        (["run", "--model", "bert-tini"], "did you mean 'bert-tiny'?"),
        (["run"], "which model?"),
        (["run", "--model", "bert-tiny", "--protocol", "quik"], "did you mean 'quick'?"),
        (["check", "nowhere.h5"], "no database at nowhere.h5"),
        (["merge", "nowhere.h5", "-o", "x.h5"], "no database at nowhere.h5"),
        (["import", "nowhere.csv", "--store", "x.h5"], "no file or folder nowhere.csv"),
        (["baseline", "--pin", "--store", "x.h5"], "--pin needs a name"),
        (["run", "--config", "nowhere.json"], "cannot read configuration nowhere.json"),
        (["run", "--config", "x.json", "--model", "bert-tiny"], "exclude each other"),
    ],
)
def test_a_mistake_is_one_line_that_says_the_way_out(arguments, hint):
    run = labbench(*arguments)
    assert run.returncode in (1, 2)
    assert hint in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1


def test_a_shell_gets_the_line_the_status_and_no_traceback():
    run = process("show", "--store", "nowhere.h5")
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith("labbench: no database at nowhere.h5")
    assert len(run.stderr.splitlines()) == 1
