"""Histories with known truth: seeded noise, injected shifts, outliers, bad input, and the command for CI."""

import json
import time
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from shell import labbench, process
from test_ratio import simulated
from test_store import make_record, make_series

from labbench import cli_history, plots
from labbench.analysis import attribution, history, history_report, regression_formats
from labbench.analysis.levels import process_medians
from labbench.analysis.ratio import _processes, rounds_by_series
from labbench.analysis.regressions import compared, regressions
from labbench.cells import Cell
from labbench.config import ConfigError
from labbench.records import Environment, Noise, Record, Samples
from labbench.store import Store
from labbench.store.frame import frame
from labbench.store.table import Contents

START = datetime(2026, 1, 1, tzinfo=UTC)
SOFTWARE = {"torch": "2.12.0", "transformers": "5.0", "openvino": "2026.1"}
OLD = Environment(
    machine_id="m1", hostname="h", machine={"kernel": "6.1", "cpu": {"governor": None}}, software=SOFTWARE
)
NEW = OLD.model_copy(update={"software": {**SOFTWARE, "torch": "2.13.0", "openvino": "2026.2"}})
OTHER = Environment(machine_id="m2", hostname="i", machine={"kernel": "6.1"}, software=SOFTWARE)
ENVIRONMENTS = {one.id: one for one in (OLD, NEW, OTHER)}
RUN_SD = 0.008  # between runs


def run(rng, number: int, level: float, environment: Environment = OLD, **changes) -> Record:
    """A run of two processes of four rounds, ``level`` being the log of its latency."""
    level = level + rng.normal(0, RUN_SD)
    shape = (2, 4, 3)
    process, rounds, _ = np.indices(shape)
    log_s = level + rng.normal(0, 0.004, (2, 1, 1)) + rng.normal(0, 0.003, shape)
    series = make_series(seconds=tuple(np.exp(log_s).ravel()))
    samples = Samples(seconds=series.samples.seconds, process=process.ravel().tolist(), round=rounds.ravel().tolist())
    given = {
        "series": [series.model_copy(update={"samples": samples})] if changes.get("status", "ok") == "ok" else [],
        "started_at": START + timedelta(days=number),
        "campaign_id": f"c{number}",
        "machine_id": environment.machine_id,
        "environment_id": environment.id,
        "noise": Noise(verdict="quiet"),
        "cell": Cell.of(model="bert-tiny", seq_len=16),
    }
    return make_record(**{**given, **changes})


def levels(rng, values, **changes) -> list[Record]:
    """A run a day, of one cell."""
    return [run(rng, i, value, **changes) for i, value in enumerate(values)]


def shifted(size: float, at: int, runs: int = 12) -> list[float]:
    return [-5.0 + size * (i >= at) for i in range(runs)]


def cell(model: str, **fields) -> Cell:
    return Cell.of(model=model, seq_len=16, **fields)


def tables(records: list[Record]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The frame and the samples of records, without a file."""
    rows = [
        (one.record_id, series.name, *values)
        for one in records
        for series in one.series
        for values in zip(series.samples.process, series.samples.round, series.samples.seconds, strict=True)
    ]
    samples = pd.DataFrame(rows, columns=["record_id", "series", "process", "round", "seconds"])
    samples = samples.astype({"process": int, "round": int, "seconds": float})
    return frame(Contents.of(records, {})), samples.astype({"record_id": "category", "series": "category"})


def found(records: list[Record]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Runs and change points."""
    runs = history.runs(*tables(records))
    return runs, history.change_points(runs)


def judged(records: list[Record], ids: list[str] | None = None, fail_on: float = 0.05) -> pd.DataFrame:
    table, samples = tables(records)
    needed = samples[samples["record_id"].isin(compared(table, ids))]
    return regressions(table, needed, ids, fail_on, environments=ENVIRONMENTS)


# --- change points ----------------------------------------------------------------------------------------------------


def test_processes_are_reduced_as_comparisons_reduce_them():
    rng = np.random.default_rng(0)
    parts = [simulated(rng, 3, rounds).assign(record_id=f"r{rounds}", series="f") for rounds in (1, 2, 5, 9)]
    samples = pd.concat(parts).sample(frac=1, random_state=1)
    medians = process_medians(samples)
    for code, (_, rounds) in enumerate(sorted(rounds_by_series(samples).items())):
        middles, variances = _processes(rounds.process, rounds.log_median, 1)
        ours = medians[medians["record"] == code]
        assert ours["log_s"].to_numpy() == pytest.approx(middles)
        assert ours["variance"].to_numpy() == pytest.approx(variances)


@pytest.mark.parametrize(("size", "verdict"), [(0.05, "slower"), (-0.05, "faster")])
def test_a_shift_of_five_per_cent_is_found_where_it_is(size, verdict):
    records = levels(np.random.default_rng(1), shifted(size, 7))
    runs, points = found(records)
    [point] = points.itertuples()
    assert (point.verdict, point.runs_before, point.runs_after) == (verdict, 7, 5)
    assert (point.record_id_before, point.record_id) == (records[6].record_id, records[7].record_id)
    assert point.at == records[7].started_at
    assert point.ci_low < np.exp(size) < point.ci_high
    assert point.p_adjusted < 0.05
    assert runs["record_id"].tolist() == [one.record_id for one in records]


def test_shifts_are_found_often_and_nothing_else_is():
    rng = np.random.default_rng(2)
    truth = {f"model-{i}": int(rng.integers(2, 14)) if i % 2 else 0 for i in range(60)}
    records = [
        one for name, at in truth.items() for one in levels(rng, shifted(0.05 * (at > 0), at, 16), cell=cell(name))
    ]
    _, points = found(records)
    points = points[points["verdict"] != "unconfirmed"]
    days = (points["at"] - START).dt.days
    right = [truth[m] > 0 and abs(truth[m] - day) <= 1 for m, day in zip(points["model"], days, strict=True)]
    assert np.mean(right) >= 0.95
    assert sum(right) >= 27


def test_without_a_shift_nothing_is_found():
    rng = np.random.default_rng(3)
    records = [one for i in range(40) for one in levels(rng, [-5.0] * 15, cell=cell(f"model-{i}"))]
    runs, points = found(records)
    assert len(points) <= 2
    assert "40 cells" not in history_report.changed(points.iloc[:0], runs)


def test_a_single_wild_run_is_no_change():
    values = [-5.0] * 12
    values[5] += 0.4
    assert found(levels(np.random.default_rng(4), values))[1].empty


def test_the_newest_run_alone_is_unconfirmed_until_the_next_agrees():
    records = levels(np.random.default_rng(5), shifted(0.2, 10, 12))
    [last] = found(records[:11])[1].itertuples()
    assert (last.verdict, last.runs_after, last.record_id) == ("unconfirmed", 1, records[10].record_id)
    [sure] = found(records)[1].itertuples()
    assert (sure.verdict, sure.record_id) == ("slower", records[10].record_id)


def test_drift_is_no_change():
    """Neighbouring runs resemble each other: a walk that reverts, as the temperature of a room does."""
    rng = np.random.default_rng(6)
    records = []
    for i in range(30):
        walk = [rng.normal(0, 0.02)]
        while len(walk) < 20:
            walk.append(0.8 * walk[-1] + rng.normal(0, 0.012))
        records += levels(rng, np.array(walk) - 5, cell=cell(f"model-{i}"))
    _, points = found(records)
    assert (points["verdict"] != "unconfirmed").sum() <= 3


def test_an_upgrade_that_slows_every_cell_is_found_in_short_histories():
    """Nothing tells drift from a change then but that there is one step in each."""
    rng = np.random.default_rng(22)
    records = [one for i in range(20) for one in levels(rng, shifted(0.05, 5, 10), cell=cell(f"model-{i}"))]
    _, points = found(records)
    assert len(points) >= 18
    assert (((points["at"] - START).dt.days - 5).abs() <= 1).mean() >= 0.95


def test_two_machines_are_two_histories():
    rng = np.random.default_rng(7)
    records = [run(rng, i, -5.0 + 0.5 * (i % 2), OTHER if i % 2 else OLD) for i in range(16)]
    runs, points = found(records)
    assert runs["history"].nunique() == 2
    assert points.empty


def test_unstable_runs_are_kept_and_left_out_of_judgements():
    rng = np.random.default_rng(8)
    records = levels(rng, [-5.0] * 6) + [run(rng, i, -4.0, noise=Noise(verdict="unstable")) for i in range(6, 12)]
    runs, points = found(records)
    assert len(runs) == 12
    assert runs["judged"].tolist() == [True] * 6 + [False] * 6
    assert points.empty
    assert "6 runs on an unstable machine are left out" in history_report.changed(points, runs)


def test_a_run_without_samples_takes_the_interval_it_has():
    rng = np.random.default_rng(9)
    plain = {"provenance": "imported", "source": "elsewhere"}
    records = levels(rng, shifted(0.3, 6), **plain)
    bare = [
        one.model_copy(update={"series": [s.model_copy(update={"samples": Samples()}) for s in one.series]})
        for one in records
    ]
    runs, points = found(bare)
    assert np.exp(runs["log_s"]).to_numpy() == pytest.approx(runs["latency_s"].to_numpy())
    assert (runs["ci_low_s"] < runs["latency_s"]).all()
    assert len(points) == 1


def test_a_run_of_unknown_time_is_shown_and_not_judged():
    records = [one.model_copy(update={"started_at": None}) for one in levels(np.random.default_rng(10), [-5.0] * 5)]
    runs, points = found(records)
    assert not runs["judged"].any()
    assert points.empty
    assert "nobody knows when" in history_report.changed(points, runs)


def test_the_unit_of_time_does_not_matter():
    records = levels(np.random.default_rng(11), shifted(0.05, 6))
    table, samples = tables(records)
    here = history.change_points(history.runs(table, samples))
    there = history.change_points(history.runs(table, samples.assign(seconds=samples["seconds"] * 1e4)))
    assert there["ratio"].tolist() == pytest.approx(here["ratio"].tolist())


POOR = {
    "empty": [],
    "one": levels(np.random.default_rng(12), [-5.0]),
    "failed": levels(np.random.default_rng(12), [-5.0] * 3, status="failed", reason="no"),
    "two machines, once each": [run(np.random.default_rng(12), i, -5, one) for i, one in enumerate((OLD, OTHER))],
    "two runs": levels(np.random.default_rng(12), [-5.0] * 2),
}


@pytest.mark.parametrize("records", POOR.values(), ids=POOR)
def test_poor_input_gives_a_clear_sentence(records):
    runs, points = found(records)
    runs = attribution.with_changes(runs, ENVIRONMENTS)
    causes = attribution.causes(attribution.in_time(runs, points), ENVIRONMENTS)
    table = judged(records)
    said = [
        history_report.changed(points, runs), history_report.attribution(points, causes),
        history_report.regressed(table, 0.05, None), history_report.regressed(table, 0.05, "v1"),
    ]  # fmt: skip
    assert [text for text in said if not text.endswith(".") or "nan" in text or "None" in text] == []
    assert len(history_report.change_table(points)) == len(points) == 0
    assert "not judged" not in set(history_report.regression_table(table)["verdict"])
    for make in regression_formats.FORMATS.values():
        assert make(table, 0.05, None)
    for ax in plots.plot_histories(runs, points):
        ax.figure.canvas.draw()


def test_after_a_first_study_a_sentence_stands_for_the_table():
    table = judged([run(np.random.default_rng(i), 0, -5.0, cell=cell(f"model-{i}")) for i in range(3)])
    said = "**No cell could be held against the run before**: there is no earlier run that is ok and stable."
    assert history_report.regressed(table, 0.05, None) == said
    assert history_report.regression_table(table).empty
    assert regression_formats.as_text(table, 0.05, None) == f"{regression_formats.plain(said)}\n"


@pytest.mark.full
@pytest.mark.parametrize("runs_each", [1_000_000, 20, 1])
def test_a_million_rows_take_less_than_a_minute(runs_each):
    rng = np.random.default_rng(13)
    count = 1_000_000
    [row] = frame(Contents.of(levels(rng, [-5.0]), {})).to_dict("records")
    cells = np.arange(count) // runs_each
    table = pd.DataFrame(
        {name: pd.Series([value] * 2).astype(object).iloc[[0]].repeat(count) for name, value in row.items()}
    )
    ids = [f"{i:032x}" for i in range(count)]
    table = table.assign(
        record_id=ids, cell_id=pd.Categorical.from_codes(cells, [f"{i:016x}" for i in range(cells[-1] + 1)]),
        started_at=pd.to_datetime(np.arange(count), unit="s", utc=True), latency_s=np.exp(rng.normal(-5, 0.01, count)),
        series=pd.Categorical(["forward"]).repeat(count),
    ).reset_index(drop=True)  # fmt: skip
    for name in ("model", "platform", "machine_id", "provenance", "status", "noise", "environment_id", "runtime"):
        table[name] = table[name].astype("category")
    level = min(runs_each // 2, 1000)  # runs between changes, where there are any
    changing = level > 0 and (np.arange(count) // max(level, 1) % 2 == 1) & (cells % 100 == 0)
    table["latency_s"] *= np.where(changing, 1.1, 1.0)
    samples = pd.DataFrame(
        {
            "record_id": pd.Categorical.from_codes(np.repeat(np.arange(count), 3), ids),
            "series": pd.Categorical(["forward"]).repeat(3 * count),
            "process": np.tile([0, 1, 1], count),
            "round": np.tile([0, 0, 1], count),
            "seconds": np.repeat(table["latency_s"].to_numpy(), 3) * np.exp(rng.normal(0, 0.005, 3 * count)),
        }
    )
    start = time.process_time()
    runs = history.runs(table, samples)
    points = history.change_points(runs)
    causes = attribution.causes(attribution.in_time(runs, points), ENVIRONMENTS)
    assert time.process_time() - start < 60
    assert len(runs) == count
    assert len(causes) == len(points)
    expected = {count: 999, 20: 500, 1: 0}[runs_each]
    assert 0.95 * expected <= len(points) <= 1.05 * expected
    assert history_report.changed(points, runs).endswith(".")


# --- attribution ------------------------------------------------------------------------------------------------------


def test_the_package_that_the_runtime_uses_and_that_changed_where_cells_slowed_comes_first():
    rng = np.random.default_rng(14)
    records = []
    for i in range(8):
        slows = i < 6
        for number, value in enumerate(shifted(0.08 if slows else 0.0, 6)):
            environment = OLD if number < 6 else NEW
            records.append(run(rng, number, value, environment, cell=cell(f"model-{i}")))
    runs, points = found(records)
    assert set(points["model"]) == {f"model-{i}" for i in range(6)}
    pairs = attribution.in_time(runs, points)
    candidates = attribution.candidates(pairs, ENVIRONMENTS)
    first = candidates.drop_duplicates("pair")
    assert first["what"].tolist() == ["torch"] * 6
    assert (candidates["what"] == "openvino").sum() == 6
    assert set(zip(first["same"], first["others"], strict=True)) == {(6, 2)}
    [text] = attribution.causes(pairs, ENVIRONMENTS).unique()
    assert text.startswith("torch 2.12.0 → 2.13.0 (changed in 6 cells that slowed, 2 that did not)")
    said = history_report.attribution(points, attribution.causes(pairs, ENVIRONMENTS))
    assert "1 more" in said
    assert runs.pipe(attribution.with_changes, ENVIRONMENTS)["changed"].str.startswith("torch 2.12.0").sum() == 8


def test_what_also_changed_where_nothing_shifted_ranks_lower():
    pairs = pd.DataFrame(
        {
            "shift": ["slower", "slower", "none", "none", "none"], "runtime": "eager",
            "environment_id_baseline": OLD.id, "environment_id": [NEW.id, NEW.id, OLD.id, OLD.id, OLD.id],
            "protocol_id_baseline": "a", "protocol_id": "b", "threads_baseline": 2, "threads": 2,
        }
    )  # fmt: skip
    found = attribution.candidates(pairs, ENVIRONMENTS)
    assert found.groupby("pair")["what"].apply(list).tolist() == [["torch", "protocol", "openvino"]] * 2


def test_measurements_and_the_same_twice_are_no_candidates():
    measured = OLD.model_copy(update={"machine": {**OLD.machine, "ceilings": {"cpu": {"dispatch_s": 1e-6}}}})
    assert attribution.differences(OLD, measured) == []
    assert attribution.differences(OLD, NEW) == [("torch", "2.12.0", "2.13.0"), ("openvino", "2026.1", "2026.2")]
    governor = OLD.model_copy(update={"machine": {"kernel": "6.1", "cpu": {"governor": "powersave"}}})
    assert attribution.differences(OLD, governor) == [("cpu.governor", "absent", "powersave")]


def test_where_nothing_changed_that_is_said():
    records = levels(np.random.default_rng(15), shifted(0.1, 6))
    runs, points = found(records)
    [text] = attribution.causes(attribution.in_time(runs, points), ENVIRONMENTS)
    assert text == attribution.NOTHING


# --- regressions ------------------------------------------------------------------------------------------------------


def test_the_newest_run_is_held_against_the_stable_one_before():
    rng = np.random.default_rng(16)
    records = [*levels(rng, [-5.0, -5.0]), run(rng, 2, -3.0, noise=Noise(verdict="unstable"))]
    records += [run(rng, 3, -4.8, NEW)]
    [row] = judged(records).itertuples()
    assert (row.record_id_baseline, row.record_id) == (records[1].record_id, records[3].record_id)
    assert row.regressed
    assert row.ci_low < np.exp(0.2) < row.ci_high
    assert row.cause.startswith("torch 2.12.0 → 2.13.0")
    [row] = judged(records, fail_on=0.5).itertuples()
    assert (row.verdict, row.regressed) == ("slower", False)


def test_a_faster_cell_is_no_regression():
    [row] = judged(levels(np.random.default_rng(17), [-5.0, -5.3])).itertuples()
    assert (row.verdict, row.regressed, row.cause) == ("faster", False, attribution.NOTHING)


def test_what_cannot_be_judged_says_why():
    rng = np.random.default_rng(18)
    old = [run(rng, 0, -5.0, cell=cell(name)) for name in ("a", "b", "c", "d")]
    late = [
        run(rng, 1, -4.0, cell=cell("a"), noise=Noise(verdict="unstable")),
        run(rng, 1, -4.0, cell=cell("b"), status="out_of_memory", reason="2 GB were not enough"),
        run(rng, 1, -4.0, cell=cell("new")),
        run(rng, 1, -5.0, cell=cell("d"), status="failed", reason="never ran before"),
    ]
    table = judged(old + late, [one.record_id for one in old[:3]]).set_index("model")
    assert table["verdict"].unique().tolist() == ["not judged"]
    assert table["reason"].to_dict() == {
        "a": "the machine was unstable",
        "b": "out of memory: 2 GB were not enough",
        "c": "it was not measured since the baseline",
        "new": "the baseline has no record of it",
    }
    assert table["regressed"].to_dict() == {"a": False, "b": True, "c": False, "new": False}
    said = history_report.regressed(table.reset_index(), 0.05, "v1")
    assert said.startswith("**1 regression** against baseline `v1`")
    assert "1 of them no longer runs" in said


def test_machines_are_not_held_against_each_other():
    rng = np.random.default_rng(19)
    table = judged([run(rng, 0, -5.0, OLD), run(rng, 1, -4.0, OTHER)])
    assert set(table["reason"]) == {"there is no earlier run that is ok and stable"}


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """One cell that slowed by 22 % with torch, one that did not, one that fails now; the first runs pinned as v1."""
    rng = np.random.default_rng(20)
    names = ("slow|er", "same", "broken")
    old = [run(rng, 0, -5.0, cell=cell(name)) for name in names]
    new = [run(rng, 1, -4.8, NEW, cell=cell(names[0])), run(rng, 1, -5.0, NEW, cell=cell(names[1]))]
    new += [run(rng, 1, -5.0, NEW, cell=cell(names[2]), status="failed", reason="segmentation fault \x1b[31m<&>")]
    where = tmp_path_factory.mktemp("history") / "s.h5"
    with Store(where, writable=True) as store:
        store.extend(old, ENVIRONMENTS.values())
        store.pin("v1")
        store.extend(new)
    return where


def test_the_command_fails_on_a_regression_and_names_its_cause(path):
    run = process("regressions", "--store", path, "--baseline", "v1")
    assert run.returncode == 1, run.stderr
    assert "2 regressions against baseline v1" in run.stdout
    assert "torch 2.12.0 → 2.13.0" in run.stdout
    assert labbench("regressions", "--store", path).returncode == 1


def test_the_command_passes_where_nothing_regressed(path):
    run = labbench("regressions", "--store", path, "--model", "same", "--fail-on", "5%")
    assert (run.returncode, run.stderr) == (0, "")
    assert "No regression against the run before" in run.stdout
    assert labbench("regressions", "--store", path, "--model", "slow|er", "--fail-on", "0.3").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--fail-on", "much"], "no percentage"),
        (["--fail-on", "5"], "write 5%"),
        (["--fail-on=-5%"], "above zero"),
        (["--fail-on", "nan%"], "above zero"),
        (["--baseline", "v11"], "did you mean 'v1'"),
        (["--model", "sam"], "did you mean 'same'"),
        (["--store", "/nowhere/s.h5"], "/nowhere/s.h5"),
        (["--output", "/nowhere/r.xml"], "cannot write /nowhere/r.xml"),
        (["--format", "html"], "invalid choice"),
    ],
)
def test_wrong_use_is_status_2_and_says_the_way_out(path, arguments, told):
    run = labbench("regressions", "--store", path, *arguments)
    assert run.returncode == 2
    assert told in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("name", POOR)
def test_where_nothing_can_be_judged_the_status_is_3(tmp_path, name):
    if name == "two runs":
        pytest.skip("these can be judged")
    with Store(tmp_path / "s.h5", writable=True) as store:
        store.extend(POOR[name], ENVIRONMENTS.values())
    run = labbench("regressions", "--store", tmp_path / "s.h5")
    assert (run.returncode, run.stderr) == (3, "")
    assert run.stdout.strip().endswith(".")


def test_junit_is_valid_with_a_case_a_cell(path, tmp_path):
    run = labbench("regressions", "--store", path, "--format", "junit", "--output", tmp_path / "r.xml")
    assert run.returncode == 1
    assert "2 regressions" in run.stdout
    assert [one.name for one in tmp_path.iterdir()] == ["r.xml"]
    suite = ElementTree.parse(tmp_path / "r.xml").getroot().find("testsuite")
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("3", "2", "0")
    cases = {one.get("name"): one for one in suite.iter("testcase")}
    assert set(cases) == {f"{name} · batch 1" for name in ("slow|er", "same", "broken")}
    assert {one.get("classname") for one in cases.values()} == {"cpu/eager"}
    assert "<&>" in cases["broken · batch 1"].find("failure").get("message")
    assert cases["slow|er · batch 1"].find("failure").get("message").startswith("+")
    assert "torch" in cases["slow|er · batch 1"].find("failure").text
    assert len(cases["same · batch 1"]) == 0


def test_a_cell_that_is_not_judged_is_a_skipped_case():
    table = judged(levels(np.random.default_rng(21), [-5.0]))
    suite = ElementTree.fromstring(regression_formats.as_junit(table, 0.05, None)).find("testsuite")
    assert suite.find("testcase/skipped").get("message") == "there is no earlier run that is ok and stable"


def test_markdown_has_a_verdict_and_a_table(path):
    text = labbench("regressions", "--store", path, "--format", "markdown").stdout
    lines = text.splitlines()
    assert lines[0] == "### labbench: regressed"
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 4
    assert "slow\\|er" in text
    assert len({row.replace("\\|", "").count("|") for row in rows}) == 1
    passed = labbench("regressions", "--store", path, "--model", "same", "--format", "markdown").stdout
    assert passed.startswith("### labbench: no regression")
    assert "| what |" not in passed


def test_json_is_the_table(path):
    run = labbench("regressions", "--store", path, "--json")
    rows = {row["model"]: row for row in json.loads(run.stdout)}
    assert {name: row["regressed"] for name, row in rows.items()} == {"slow|er": True, "same": False, "broken": True}
    assert run.returncode == 1


def test_help_tells_the_exit_status_and_the_formats_are_those_there_are():
    assert "3  nothing could be judged" in labbench("regressions", "--help").stdout
    assert set(cli_history.FORMATS) == set(regression_formats.FORMATS)


@pytest.mark.parametrize(("text", "value"), [("5%", 0.05), ("0.05", 0.05), (" 2.5 % ", 0.025), ("100%", 1.0)])
def test_a_percentage_or_a_fraction(text, value):
    assert cli_history.fraction(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "%", "0", "0%", "inf", "5 per cent", "5"])
def test_what_is_no_percentage_is_refused(text):
    with pytest.raises(ConfigError, match="--fail-on"):
        cli_history.fraction(text)
