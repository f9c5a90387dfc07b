import json

import pytest
from cells_of import run_cells
from made import ENVIRONMENT, ENVIRONMENTS, FAMILIES, footprint, law_seconds, made_frame, record, study

from labbench import cli, cli_next, machine, notebooks
from labbench.cells import Cell
from labbench.prediction import PredictionConfig, PredictionError, report
from labbench.prediction.measure_next import plan
from labbench.store import Store

PLAIN = PredictionConfig(residual="none")
MODELS = ("bert-tiny", "t5-tiny", "gpt2-tiny", "vit-tiny", "resnet-tiny", "clip-tiny", "whisper-micro", "detr-tiny")


def sparse(took_s=4.0, onnxruntime_is=1.0):
    """Models on eager, every second one on onnxruntime as well, slowed by a factor; each cell took as long to measure."""
    records = []
    for index, model in enumerate(MODELS):
        demand = footprint(index)
        for runtime in ("eager", "onnxruntime") if index % 2 else ("eager",):
            seconds = law_seconds(demand, runtime) * (1 + 0.1 * (-1) ** (index // 2))
            seconds *= onnxruntime_is if runtime == "onnxruntime" else 1
            records.append(record(model, runtime, seconds, demand=demand))
    return [one.model_copy(update={"duration_s": took_s}) for one in records]


def planned(budget_s=60.0, records=None, **options):
    frame = made_frame(*(records or sparse()))
    return plan(frame, ENVIRONMENTS, budget_s, machine_id="m1", config=PLAIN, **options)


@pytest.fixture(scope="module")
def found():
    return planned()


def test_what_is_missing_is_planned_once_and_only_for_this_machine(found):
    assert sorted(found.table["model"]) == sorted(MODELS[::2])
    assert set(found.table["platform"]) == {"cpu/onnxruntime"}
    assert [cell.workload.model for cell in found.cells] == list(found.table["model"])
    assert all(cell.platform.threads is None for cell in found.cells)  # as it was asked for, not as it ran
    with pytest.raises(PredictionError, match="nothing is missing on machine elsewhere"):
        plan(made_frame(*sparse()), ENVIRONMENTS, 60.0, machine_id="elsewhere")


def test_the_expected_error_falls_with_every_cell_and_the_budget_is_kept(found):
    assert found.table["expected_error"].is_monotonic_decreasing
    assert found.error > found.table["expected_error"].iloc[0]
    few = planned(budget_s=9.0)
    assert len(few.cells) == 2
    assert few.table["spent_s"].iloc[-1] <= 9
    assert list(few.table["model"]) == list(found.table["model"][:2])


def test_cells_cost_what_like_cells_took():
    records = sparse()
    slow = [
        one.model_copy(update={"duration_s": 20.0}) if one.cell.platform.runtime == "onnxruntime" else one
        for one in records
    ]
    assert set(planned(records=slow, budget_s=500.0).table["cost_s"]) == {20.0}


@pytest.mark.slow
def test_a_platform_that_nothing_is_known_of_gets_one_first_look():
    asked = [Cell.of(model=model, task="t", runtime="openvino") for model in ("vit-tiny", "bert-tiny")]
    found = planned(asked=list(map(_resolved, asked)))
    assert len(found.table) == 1
    assert found.table["reason"].iloc[0].startswith("a first look: nothing was measured on cpu/openvino")
    assert "1 cell of 2 in about 0.1 min: a first look, for nothing is known yet" in str(found)


def _resolved(cell):
    from labbench.campaign import resolve

    return resolve([Cell.of(model=cell.workload.model, runtime=cell.platform.runtime)])[0]


@pytest.mark.slow
def test_asked_cells_that_have_a_record_are_left_out():
    asked = [_resolved(Cell.of(model="bert-tiny", runtime="eager"))]
    stored = [*sparse(), record("bert-tiny", "eager", 1e-3, demand=footprint(0), **_shape(asked[0]))]
    with pytest.raises(PredictionError, match="nothing is missing"):
        planned(records=stored, asked=asked)


def _shape(cell):
    named = cell.workload.model_dump(exclude_none=True)
    return {name: value for name, value in named.items() if name not in ("model", "mode", "precision")}


def test_a_choice_that_is_settled_needs_no_measurement():
    """Where onnxruntime is a hundred times slower than eager, no measurement of it can change the choice."""
    near = planned(records=sparse(onnxruntime_is=3.0), question="choice")
    assert near.table["reason"].str.contains("the fastest of its workload with probability").all()
    with pytest.raises(PredictionError, match="no choice is open"):
        planned(records=sparse(onnxruntime_is=100.0), question="choice")


@pytest.mark.parametrize(
    ("change", "message"), [({"budget_s": 0.0}, "leaves time for nothing"), ({"question": "why"}, "unknown question")]
)
def test_what_cannot_be_asked_is_refused(change, message):
    with pytest.raises(PredictionError, match=message):
        planned(**change)


def test_a_store_of_too_few_families_says_so():
    few = [
        record(f"{family}-tiny", runtime, 1e-3, demand=footprint(i))
        for i, family in enumerate(FAMILIES[:2])
        for runtime in ("eager", "compile")
    ]
    with pytest.raises(PredictionError, match="prediction needs 3"):
        planned(records=few)


def test_the_plan_is_told_in_human_units(found):
    table = report.plan_table(found)
    assert list(table["expected error then %"]) == sorted(table["expected error then %"], key=float, reverse=True)
    assert "4 cells of 4 in about 0.3 min: the expected error falls from" in str(found)
    assert "Nothing is left" in str(planned(budget_s=0.5))


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("10m", 600), ("1.5h", 5400), ("45", 45)])
def test_times_are_read_as_people_write_them(text, seconds):
    assert cli_next.duration(text) == seconds


@pytest.mark.parametrize("text", ["", "ten", "m", "-5m", "nan", "infh"])
def test_what_is_no_time_is_refused(text):
    import argparse

    with pytest.raises(argparse.ArgumentTypeError):
        cli_next.duration(text)


def test_a_full_store_of_made_models_has_nothing_to_measure():
    with pytest.raises(PredictionError, match="nothing is missing"):
        planned(records=study())


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A store whose machine is this one, as far as the command can tell."""
    monkeypatch.setattr(machine, "machine_id", lambda fingerprint: "m1")
    with Store(tmp_path / "s.h5", writable=True) as store:
        for one in sparse():
            store.append(one, ENVIRONMENT)
    return tmp_path / "s.h5"


def test_a_dry_run_measures_nothing(path, capsys):
    command = ["measure-next", "--budget", "1m", "--dry-run", "--store", str(path)]
    assert cli.main(command) == 0
    assert "4 cells of 4" in capsys.readouterr().out
    assert cli.main([*command, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 4
    assert len(Store(path)) == len(sparse())


def test_the_plan_is_measured_in_its_order_until_the_time_is_up(path, monkeypatch):
    measured = []

    class Made:
        def __init__(self, cells, store, protocol):
            measured.append([cell.workload.model for cell in cells])

        def run(self, progress):
            return type("Summary", (), {"interrupted": len(measured) == 2})()

    monkeypatch.setattr("labbench.campaign.Campaign", Made)
    monkeypatch.setattr("labbench.measure.protocol.QUICK", {"group_size": 1})
    monkeypatch.setattr("labbench.measure.protocol.PRESETS", {"quick": {"group_size": 1}})
    planned_models = [cell.workload.model for cell in planned().cells]
    assert cli.main(["measure-next", "--budget", "1m", "--store", str(path), "--json"]) == 130
    assert measured == [[model] for model in planned_models[:2]]  # the second was interrupted: the others are left


@pytest.fixture
def said(monkeypatch):
    """What a notebook displays and prints."""
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda one: shown.append(one.data))
    return shown


def test_the_notebook_says_what_to_measure(path, monkeypatch, capsys):
    monkeypatch.chdir(notebooks.folder())
    run_cells("09_measure_next", store_path=str(path))
    printed = capsys.readouterr().out
    assert "4 cells of 4" in printed
    assert "Doubt is largest on cpu/onnxruntime" in printed


def test_where_there_is_nothing_to_plan_the_notebook_ends_in_words(path, tmp_path, monkeypatch, said):
    monkeypatch.chdir(notebooks.folder())
    Store(tmp_path / "e.h5", writable=True).close()
    for store_path, question in ((tmp_path / "e.h5", "error"), (path, "choice")):
        *_, last = run_cells("09_measure_next", store_path=str(store_path), question=question).values()
        assert isinstance(last, SystemExit)
    assert "no measured cell" in said[0].lower()
    assert "No choice is open" in said[1]
