import numpy as np
import pandas as pd
import pytest
from test_store import filled, make_record, make_series

from labbench.analysis import costs, matrix, roofline, sentences, tables
from labbench.analysis.compare import compare, family, fastest, summary, with_versions
from labbench.config import ConfigError
from labbench.records import Environment, Noise
from labbench.store import Store
from labbench.words import count


def timed(runtime: str, latency: float, model: str = "bert-tiny", **changes):
    """A record of 12 quiet rounds around ``latency``."""
    from labbench.cells import Cell

    rng = np.random.default_rng(len(runtime))
    seconds = tuple(latency * np.exp(rng.normal(0, 0.003, 60)))
    series = make_series(seconds=seconds)
    samples = series.samples.model_copy(update={"round": [i // 5 for i in range(60)]})
    series = series.model_copy(update={"samples": samples})
    values = {"series": [series], "campaign_id": "c", "noise": Noise(verdict="quiet"), **changes}
    return make_record(**values).model_copy(update={"cell": Cell.of(model=model, runtime=runtime, seq_len=16)})


@pytest.fixture
def store(tmp_path):
    ceilings = {"gemm_flops": {"fp32": 1e12}, "bandwidth_bytes_s": 1e10, "dispatch_s": 1e-6}
    environment = Environment(machine_id="m1", hostname="h", machine={"ceilings": {"cpu": ceilings}}, software={})
    records = [timed("eager", 1e-2), timed("openvino", 5e-3), timed("compile", 1.001e-2)]
    records += [timed("onnxruntime", 2e-3, noise=Noise(verdict="unstable"), campaign_id="another")]
    records += [timed("eager", 1e-2, "gpt2-tiny"), make_record(status="failed", reason="no")]
    records = [record.model_copy(update={"environment_id": environment.id}) for record in records]
    path = tmp_path / "s.h5"
    with Store(path, writable=True) as writer:
        for record in records:
            writer.append(record, environment)
    return Store(path)


def test_platforms_are_compared_within_a_workload_with_verdicts(store):
    frame = store.frame()
    table = compare(frame, store.samples(), baseline="cpu/eager").set_index("platform")
    assert table.loc["cpu/openvino", "verdict"] == "faster"
    assert table.loc["cpu/openvino", "speedup"] == pytest.approx(2, rel=0.02)
    assert table.loc["cpu/compile", "verdict"] in ("same", "undecided")
    assert set(table["model"]) == {"bert-tiny"}


def test_nothing_is_concluded_from_an_unstable_measurement(store):
    frame = store.frame()
    table = compare(frame, store.samples(), baseline="cpu/eager")
    assert table.set_index("platform").loc["cpu/onnxruntime", "verdict"] == "undecided"
    assert "cpu/onnxruntime" not in set(summary(table)["platform"])
    best = fastest(frame, store.samples()).set_index("model")
    assert not best.loc["bert-tiny", "real"]


def test_an_unstable_machine_does_not_matter_to_sides_that_ran_in_turn(tmp_path):
    unstable = {"noise": Noise(verdict="unstable")}
    records = [timed("eager", 1e-2, **unstable), timed("openvino", 5e-3, **unstable)]
    store = Store(filled(tmp_path / "s.h5", *records))
    table = compare(store.frame(), store.samples(), baseline="cpu/eager")
    assert table[["verdict", "unstable"]].to_numpy().tolist() == [["faster", False]]


def test_what_is_undecided_says_how_many_more_samples_would_decide(store):
    table = compare(store.frame(), store.samples(), baseline="cpu/eager").set_index("platform")
    assert table.loc["cpu/openvino", "more_samples"] == 0
    assert table.loc["cpu/compile", "more_samples"] == 60 * table.loc["cpu/compile", "more_processes"]


def test_what_else_differs_between_two_sides_is_said(tmp_path):
    from labbench.records import Check

    check = Check(passed=True, max_error=0, tolerance=1)
    alike = timed("eager", 1e-2, check=check, protocol_id="a", threads=1)
    others = [timed("compile", 1e-2, check=check, protocol_id="a", threads=1)]
    others += [timed("openvino", 1e-2, check=None, protocol_id="b", threads=2)]
    store = Store(filled(tmp_path / "s.h5", alike, *others))
    table = compare(store.frame(), store.samples(), baseline="cpu/eager").set_index("platform")
    assert table.loc["cpu/compile", "differs"] == ""
    assert table.loc["cpu/openvino", "differs"] == "threads, protocol, output not checked"


def test_versions_and_machines_are_compared_like_platforms(tmp_path):
    path = tmp_path / "s.h5"
    with Store(path, writable=True) as writer:
        for version, machine, latency in (("1.0", "m1", 1e-2), ("2.0", "m1", 5e-3), ("2.0", "m2", 1e-3)):
            software = {"torch": version}
            environment = Environment(machine_id=machine, hostname=machine, machine={}, software=software)
            record = timed("eager", latency, machine_id=machine, campaign_id=f"{version} {machine}")
            writer.append(record.model_copy(update={"environment_id": environment.id}), environment)
    store = Store(path)
    frame = with_versions(store.frame(), store.environments())
    [row] = compare(frame, store.samples(), baseline="1.0", by="version_torch").to_dict("records")
    assert (row["version_torch"], row["verdict"], row["paired"]) == ("2.0", "faster", False)
    assert "software" in row["differs"]
    newest = frame[frame["version_torch"] == "2.0"]
    [row] = compare(newest, store.samples(), baseline="m1", by="hostname").to_dict("records")
    assert row["ratio"] == pytest.approx(0.2, rel=0.02)


def test_families_have_geometric_means_with_intervals(store):
    comparison = compare(store.frame(), store.samples(), baseline="cpu/eager")
    table = summary(comparison, families=True)
    row = table.set_index(["platform", "family"]).loc[("cpu/openvino", "bert")]
    assert row["ci_low"] < row["speedup"] < row["ci_high"]
    assert row["models"] == 1
    assert [family(name) for name in ("bert-base", "resnet50d.ra2_in1k", "vgg16")] == ["bert", "resnet", "vgg"]


def test_nothing_to_compare_is_said(tmp_path):
    store = Store(filled(tmp_path / "s.h5", make_record(status="failed", reason="no")))
    table = compare(store.frame(), store.samples())
    assert table.empty
    assert sentences.speedups(summary(table), table) == "No two results that differ in platform alone can be compared."
    assert sentences.verdicts(table) == "There is nothing to judge."
    with pytest.raises(ConfigError, match="did you mean 'platform'"):
        compare(store.frame(), store.samples(), baseline="cpu/eager", by="platfrm")


def test_an_unknown_baseline_is_refused_with_the_nearest(store):
    with pytest.raises(ConfigError, match="did you mean 'cpu/eager'"):
        compare(store.frame(), store.samples(), baseline="cpu/eagr")


def test_the_matrix_and_coverage_tell_what_ran(store):
    frame = store.frame()
    assert matrix.matrix(frame).loc["gpt2-tiny", "cpu/openvino"] == "not run"
    coverage = matrix.coverage(frame)
    assert coverage.counts == {"ok": 5, "failed": 1}
    assert "failed: no" in str(coverage)


def test_the_roofline_has_the_ceilings_of_the_machine(store):
    placed = roofline.place(store.frame(), store.environments()).set_index("platform")
    row = placed.loc["cpu/openvino"]
    assert (row["peak_flops"], row["bandwidth_bytes_s"], row["launch_s"]) == (1e12, 1e10, 1e-6)
    assert row["intensity"] == pytest.approx(2e9 / 1e6)
    assert row["achieved_flops"] == pytest.approx(2e9 / 5e-3, rel=0.02)


def test_calls_to_pay_back_are_counted(tmp_path):
    from labbench.records import Phases

    slow_start = timed("openvino", 5e-3, phases=Phases(load_s=0, prepare_s=1.0, first_run_s=0))
    path = filled(tmp_path / "s.h5", timed("eager", 1e-2, phases=Phases(load_s=0)), slow_start)
    table = costs.payback(Store(path).frame(), "cpu/eager")
    assert table["calls_to_pay_back"].tolist() == [pytest.approx(200, abs=4)]


def test_sentences_hold_for_an_empty_store(tmp_path):
    store = Store(filled(tmp_path / "s.h5"))
    frame = store.frame()
    table = compare_empty = fastest(frame, store.samples())
    assert sentences.winners(compare_empty) == "There is nothing to compare."
    assert table.empty
    assert sentences.collected(matrix.coverage(frame), frame) == "Nothing was measured."
    assert sentences.failures(matrix.coverage(frame)) == "Nothing was measured."


def test_sentences_count_what_the_data_say(store):
    frame = store.frame()
    assert "6 records" in sentences.collected(matrix.coverage(frame), frame)
    assert "83 % are ok" in sentences.collected(matrix.coverage(frame), frame)
    assert count(1, "model") == "1 model"
    assert count(0, "model") == "no model"


def test_a_lead_that_may_be_chance_or_unstable_is_nobodys(store):
    text = sentences.winners(fastest(store.frame(), store.samples()))
    assert "No platform is clearly the fastest in any of 1 comparison" in text
    assert "onnxruntime" not in text
    assert "the machine was unstable (1)" in text


def test_the_matrix_names_what_is_not_the_smallest_inference(tmp_path):
    from labbench.cells import Cell

    record = timed("eager", 1e-2)
    cells = [{}, {"batch_size": 8}, {"mode": "training"}]
    records = [
        record.model_copy(
            update={"cell": Cell.of(model="bert-tiny", runtime="eager", seq_len=16, **cell), "record_id": f"{i}"}
        )
        for i, cell in enumerate(cells)
    ]
    rows = matrix.matrix(Store(filled(tmp_path / "s.h5", *records)).frame())
    assert rows.index.tolist() == ["bert-tiny", "bert-tiny, batch 8", "bert-tiny, training"]
    assert set(rows["cpu/eager"]) == {rows.iloc[0, 0]}


def with_holes() -> pd.DataFrame:
    """Two models on three platforms; a cell takes 2 s of vit and 1 s of bert, and twice as long on openvino."""
    from made import made_frame, record

    took = {
        ("bert-tiny", "eager"): 1.0, ("bert-tiny", "openvino"): 2.0, ("vit-tiny", "eager"): 2.0, ("nobodys", "eager"): 1.0,
    }  # fmt: skip
    ok = [
        record(model, runtime, batch_size=size).model_copy(update={"duration_s": seconds})
        for (model, runtime), seconds in took.items()
        for size in (1, 8)
    ]
    bad = [
        record("vit-tiny", "onnxruntime", status="unsupported", reason="an operator is missing"),
        record("bert-tiny", "onnxruntime", status="timeout", reason="took too long", batch_size=8, seq_len=16),
        record("bert-tiny", "onnxruntime", batch_size=1, seq_len=16),
    ]
    return made_frame(*ok, *bad, record("bert-tiny", "eager", mode="training"))


def test_every_model_is_wanted_on_every_platform_that_ran_its_mode():
    table = matrix.pairs(with_holes()).set_index(["model", "mode", "platform"])["status"]
    assert table.loc["vit-tiny", "inference"].to_dict() == {
        "cpu/eager": "ok", "cpu/onnxruntime": "unsupported", "cpu/openvino": "not run",
    }  # fmt: skip
    assert table.xs("training", level="mode").index.tolist() == [("bert-tiny", "cpu/eager")]


def test_what_is_missing_has_a_command_that_parses_to_the_missing_cells_and_a_time():
    import shlex

    from labbench import cli
    from labbench.campaign import resolve

    table = matrix.pairs(with_holes()).set_index(["model", "platform"])
    row = table.loc[("vit-tiny", "cpu/openvino")]
    program, *arguments = shlex.split(row["command"])
    options = cli._parser().parse_args(arguments)
    assert program == "labbench"
    cells = resolve(cli.grid(options).cells())
    assert sorted(cell.label for cell in cells) == [
        "vit-tiny inference b1 i224 fp32 on cpu/openvino", "vit-tiny inference b8 i224 fp32 on cpu/openvino",
    ]  # fmt: skip
    assert row["cells"] == 2
    # vit takes 1.5 times, openvino 1.5 times the typical cell: effects in logs, over the eight known cells
    logs = np.log([1, 1, 2, 2, 2, 2, 1, 1])
    expected = np.exp(np.log(2) + np.log(2) - logs.mean())
    assert row["estimated_s"] == pytest.approx(2 * expected)


def test_the_way_out_depends_on_why_it_is_missing():
    table = matrix.pairs(with_holes()).set_index(["model", "platform"])
    assert pd.isna(table.loc[("vit-tiny", "cpu/onnxruntime"), "command"])
    [timeout] = [
        row for (model, _), row in table.iterrows() if model.startswith("bert-tiny") and row["status"] == "timeout"
    ]
    assert timeout["command"].endswith("--batch-size 8 --seq-len 16 --retry")
    assert timeout["reason"] == "took too long"
    assert "no model `nobodys`" in table.loc[("nobodys", "cpu/openvino"), "way_out"]


def test_of_very_many_failures_the_first_are_told_and_the_rest_counted():
    from made import made_frame, record

    failed = [record(f"m{i}", status="failed", reason="no") for i in range(130)]
    text = sentences.failures(matrix.coverage(made_frame(*failed)))
    assert text.startswith("130 cells did not run")
    assert text.count("\n- ") == 101
    assert text.endswith("and 30 more, which `labbench show` lists")


def test_gaps_are_told_in_a_sentence_and_a_table():
    table = matrix.pairs(with_holes())
    text = sentences.gaps(table)
    bad = table[table["status"] != "ok"]
    assert f"of {len(table)} pairs of model and platform are complete" in text
    assert "1 unsupported" in text
    assert "1 timeout" in text
    assert "cannot be run by a command" in text
    shown = tables.gaps_table(table)
    assert len(shown) == len(bad)
    assert shown["way out"][0].startswith("labbench run"), "what can be run comes first"
    assert sentences.gaps(matrix.pairs(with_holes().iloc[:0])).startswith("There is no matrix to complete")
    assert sentences.gaps(table[table["status"] == "ok"]).startswith("**100 %")
    assert tables.gaps_table(matrix.pairs(with_holes().iloc[:0])).empty


def test_predicted_cells_did_not_run_and_time_that_nobody_took_is_not_known():
    from made import made_frame, record

    frame = made_frame(record(), record("vit-tiny", "compile"), record(runtime="compile", provenance="predicted"))
    table = matrix.pairs(frame).set_index(["model", "platform"])
    assert table.loc[("bert-tiny", "cpu/compile"), "status"] == "not run"
    assert np.isnan(table.loc[("bert-tiny", "cpu/compile"), "estimated_s"])
    assert "for how long no record tells" in sentences.gaps(table.reset_index())


def test_precisions_machines_and_input_sizes_have_squares_of_their_own():
    from made import made_frame, record

    records = [record(), record(precision="bf16"), record(machine_id="m2"), record(seq_len=16), record(seq_len=32)]
    assert matrix.matrix(made_frame(*records)).stack().value_counts()["ok 1.00 ms"] == len(records)


def test_tables_are_in_human_units_and_words(store):
    frame = store.frame()
    noise = tables.noise_table(frame)
    assert noise.columns.tolist() == ["platform", "quiet", "noisy", "unstable"]
    assert noise[["quiet", "noisy", "unstable"]].to_numpy().sum() == 5
    comparison = compare(frame, store.samples(), baseline="cpu/eager")
    speedups = tables.speedup_table(summary(comparison), comparison).set_index("platform")
    assert speedups.loc["cpu/openvino", "speed-up"].endswith("×")
    assert tables.memory_table(frame).columns.tolist()[2:] == ["smallest MB", "median MB", "largest MB"]


@pytest.mark.parametrize("name", ["latency", "speedup", "matrix", "roofline", "one_off"])
def test_figures_are_drawn_from_frames(store, name):
    import matplotlib as mpl

    mpl.use("Agg")
    from labbench import plots

    frame = store.frame()
    data = {
        "latency": lambda: frame,
        "speedup": lambda: compare(frame, store.samples(), baseline="cpu/eager"),
        "matrix": lambda: matrix.matrix(frame),
        "roofline": lambda: roofline.place(frame, store.environments()),
        "one_off": lambda: frame,
    }[name]()
    ax = getattr(plots, f"plot_{name}")(data)
    assert ax.has_data() or ax.texts
    ax.figure.canvas.draw()
