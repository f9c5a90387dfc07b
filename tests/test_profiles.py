"""A model's and a platform's page: every question answered from made records, and from stores with nothing to tell."""

from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made import ENVIRONMENT, made_frame, record
from test_imported_rows import imported

from labbench import plots
from labbench.analysis import profile_report as report
from labbench.analysis import profiles
from labbench.analysis.labels import place, side, usual_batch, work
from labbench.config import ConfigError
from labbench.notebooks import folder, run
from labbench.plots.base import MANY
from labbench.records import Energy, Phases
from labbench.store import Store

mpl.use("Agg")


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def generating(runtime: str, prefill_s: float, decode_s: float, **cell):
    """A record of a generative model: two series, the first primary."""
    one = record("gpt2-tiny", runtime, prefill_s, **cell)
    [first] = one.series
    batch = cell.get("batch_size", 1)
    read = {"name": "prefill", "unit": "tokens", "items_per_call": 16 * batch, "throughput": 16 * batch / prefill_s}
    again = record("gpt2-tiny", runtime, decode_s, **cell).series[0]
    write = {"name": "decode", "unit": "tokens", "items_per_call": batch, "throughput": batch / decode_s}
    return one.model_copy(update={"series": [first.model_copy(update=read), again.model_copy(update=write)]})


CELLS = [
    *(record("bert-tiny", "eager", 1e-3 * size**0.5, memory=1e8 + 1e6 * size, batch_size=size) for size in (1, 4, 16)),
    *(record("bert-tiny", "compile", 8e-4 * size, memory=2e8 + 2e6 * size, batch_size=size) for size in (1, 4)),
    record("bert-tiny", "eager", 3e-3, memory=3e8, mode="training", batch_size=1),
    record("bert-tiny", "openvino", status="unsupported", reason="OpenVINO lacks an operator"),
    generating("eager", 5e-3, 1e-3),
    generating("compile", 4e-3, 2e-3, batch_size=2),
]
FRAME = made_frame(*CELLS)


# --- names that tell rows apart ---------------------------------------------------------------------------------------


def test_a_name_tells_no_more_than_differs():
    assert set(place(FRAME)) == {"cpu/eager", "cpu/compile", "cpu/openvino"}
    mixed = made_frame(record(), record(precision="bf16"), record(machine_id="m2"), record(runtime="compile"))
    assert place(mixed).tolist() == [
        "cpu/eager · fp32 · machine m1", "cpu/eager · bf16 · machine m1", "cpu/eager · fp32 · machine m2", "cpu/compile · fp32",
    ]  # fmt: skip


def test_input_sizes_are_told_where_one_model_has_several():
    rows = made_frame(record(seq_len=16), record(seq_len=128), record("gpt2-tiny", seq_len=64), record("vit-tiny"))
    assert work(rows).tolist() == ["bert-tiny · 16 tokens", "bert-tiny · 128 tokens", "gpt2-tiny", "vit-tiny"]
    assert side(rows, "platform").tolist()[:2] == ["cpu/eager · 16 tokens", "cpu/eager · 128 tokens"]


def test_decoding_without_a_cache_is_never_taken_for_decoding_with_one():
    rows = made_frame(record("gpt2-tiny"), record("gpt2-tiny", kv_cache=False))
    assert work(rows).tolist() == ["gpt2-tiny", "gpt2-tiny · uncached"]


def test_the_usual_batch_is_what_most_platforms_have_and_the_smallest_of_equals():
    rows = made_frame(
        record(batch_size=1), record(batch_size=8), record(runtime="compile", batch_size=8),
        record("vit-tiny", batch_size=2), record("vit-tiny", batch_size=4),
    )  # fmt: skip
    chosen = usual_batch(rows)
    assert chosen.groupby("model", observed=True)["batch_size"].unique().map(list).to_dict() == {
        "bert-tiny": [8], "vit-tiny": [2],
    }  # fmt: skip
    assert usual_batch(rows.iloc[:0]).empty


# --- the facts --------------------------------------------------------------------------------------------------------


def test_without_a_name_it_is_the_model_or_platform_with_most_records():
    assert set(profiles.of_model(FRAME)["model"].astype("str")) == {"bert-tiny"}
    assert set(profiles.of_platform(FRAME)["platform"].astype("str")) == {"cpu/eager"}
    assert set(profiles.of_platform(FRAME)["side"]) == {"bert-tiny", "gpt2-tiny"}


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'bert-tiny'"):
        profiles.of_model(FRAME, "bert-tinny")
    with pytest.raises(ConfigError, match="did you mean 'cpu/eager'"):
        profiles.of_platform(FRAME, "cpu/eagr")


def test_sides_stand_at_their_smallest_batch_size_and_those_that_failed_keep_their_reason():
    table = profiles.side_by_side(profiles.of_model(FRAME, "bert-tiny")).set_index(["mode", "side"])
    assert set(table["batch_size"]) == {1}
    assert table.loc[("inference", "cpu/openvino"), "reason"] == "OpenVINO lacks an operator"
    assert table.loc[("inference", "cpu/compile"), "latency_s"] == 8e-4
    assert len(table) == 4


def test_the_interval_of_a_throughput_is_that_of_its_latency():
    curve = profiles.over_batch(profiles.of_model(FRAME, "bert-tiny"))
    assert curve["throughput_ci_low"].to_numpy() == pytest.approx(curve["throughput"] / 1.01)
    assert curve["throughput_ci_high"].to_numpy() == pytest.approx(curve["throughput"] / 0.99)


def test_growth_is_from_the_smallest_to_the_largest_batch_and_only_where_there_are_two():
    growth = profiles.growth(profiles.over_batch(profiles.of_model(FRAME, "bert-tiny"))).set_index("side")
    assert set(growth.index) == {"cpu/eager", "cpu/compile"}
    assert growth.loc["cpu/eager", "throughput_ratio"] == pytest.approx(4)
    assert growth.loc["cpu/eager", "latency_ratio"] == pytest.approx(4)
    assert growth.loc["cpu/compile", "throughput_ratio"] == pytest.approx(1)
    assert growth.loc["cpu/compile", "bytes_per_sample"] == pytest.approx(2e6)


def test_prefill_and_decode_are_apart():
    curve = profiles.over_batch(profiles.of_model(FRAME, "gpt2-tiny"))
    assert sorted(curve["series"].unique()) == ["decode", "prefill"]
    axes = plots.panels(plots.plot_curve, curve)
    assert len(axes) == 2
    assert {ax.get_ylabel() for ax in axes} == {"tokens per second"}
    text = report.batching(curve, profiles.growth(curve))
    assert "Reading the prompt: at most 8,000 tokens/s (`cpu/compile`, batch 2)." in text
    assert "A further token: at most 1,000 tokens/s" in text
    assert text.endswith("Each was run at one batch size only: points, no curves.")
    assert len({ax.figure for ax in axes}) == 2, "each fits a page"


def test_kinds_of_one_batch_size_are_left_out_where_others_have_curves_and_named():
    curve = profiles.over_batch(profiles.of_platform(FRAME[FRAME["mode"] == "inference"], "cpu/eager"))
    growth = profiles.growth(curve)
    assert set(profiles.with_curve(curve, growth)["series"]) == {"forward"}
    left_out = "Left out of the figures, for each was run at one batch size only: "
    told = "reading the prompt (tokens) and a further token (tokens)."
    assert report.batching(curve, growth).endswith(left_out + told)
    assert report.memory(curve, growth).endswith(left_out + "reading the prompt (tokens).")
    assert len(plots.panels(plots.plot_curve, profiles.with_curve(curve, growth))) == 1
    alone = profiles.over_batch(profiles.of_model(FRAME, "gpt2-tiny"))
    assert profiles.with_curve(alone, profiles.growth(alone)).equals(alone), "nothing has a curve: all are shown"


def test_a_cold_start_is_the_sum_of_its_parts_and_says_if_one_is_not_known():
    whole = record().model_copy(update={"phases": Phases(start_s=0.1, load_s=0.2, prepare_s=0.3, first_run_s=0.4)})
    part = record(runtime="compile", prepare_s=5.0)
    none = record(runtime="openvino", prepare_s=None)
    table = profiles.cold_start(profiles.of_model(made_frame(whole, part, none)))
    assert table["side"].tolist() == ["cpu/eager", "cpu/compile"]
    assert table["total_s"].tolist() == pytest.approx([1.0, 5.0])
    assert table["complete"].tolist() == [True, False]
    ax = plots.plot_cold_start(table)
    assert "≥: not all parts are known" in ax.get_xlabel()
    assert "after 1 s (`cpu/eager`, 40 % of it the first run)" in report.starting(table)


def test_energy_is_told_by_item_and_its_absence_by_the_recorded_reason():
    known = record(batch_size=4).model_copy(update={"energy": Energy(joules_per_call=2.0, method="RAPL")})
    reason = record(runtime="compile").model_copy(update={"energy": Energy(reason="no RAPL counter")})
    table = profiles.energy(profiles.of_model(made_frame(known, reason, record(runtime="openvino"))))
    assert table.set_index("side").loc["cpu/eager", "joules_per_item"] == 0.5
    text = report.energy(table)
    assert "0.5 J per item of samples (`cpu/eager`" in text
    assert "No energy of 1 cell: no RAPL counter." in text
    assert "Of 1 cell neither the energy nor a reason was recorded." in text


def test_a_training_step_is_compared_with_the_inference_call_of_the_same_work_only():
    table = profiles.training(profiles.of_model(FRAME, "bert-tiny"))
    [row] = table.to_dict("records")
    assert (row["side"], row["batch_size"], row["ratio"]) == ("cpu/eager", 1, pytest.approx(3))
    assert row["ratio_low"] == pytest.approx(3 * 0.99 / 1.01)
    assert row["memory_ratio"] == pytest.approx(3e8 / 1.01e8)
    other = [record(seq_len=16), record(seq_len=32, mode="training"), record(machine_id="m2", seq_len=32)]
    assert profiles.training(profiles.of_model(made_frame(*other))).empty


# --- the Pareto front -------------------------------------------------------------------------------------------------


def front(*records) -> dict[tuple[str, int], bool]:
    cells = profiles.pareto(profiles.over_batch(profiles.of_model(made_frame(*records))))
    return {(row.side, row.batch_size): bool(row.efficient) for row in cells.itertuples()}


def test_only_what_is_clearly_dominated_is_called_dominated():
    best = record("bert-tiny", "eager", 1e-3, memory=1e8)
    assert front(best, record("bert-tiny", "compile", 2e-3, memory=2e8)) == {
        ("cpu/eager", 1): True, ("cpu/compile", 1): False,
    }  # fmt: skip
    overlapping = record("bert-tiny", "compile", 1.01e-3, memory=2e8)
    assert all(front(best, overlapping).values()), "the intervals overlap"
    leaner = record("bert-tiny", "compile", 2e-3, memory=0.5e8)
    assert all(front(best, leaner).values()), "slower, but leaner"
    equal = record("bert-tiny", "compile", 1e-3, memory=1e8)
    assert all(front(best, equal).values()), "a tie is nobody's"


def test_memory_that_is_not_known_decides_nothing():
    best = record("bert-tiny", "eager", 1e-3, memory=1e8)
    unknown = record("bert-tiny", "compile", 2e-3, memory=None)
    assert all(front(best, unknown).values())
    assert front(imported(), imported(runtime="compile", mean_s=0.05)) == {
        ("cuda:0/eager", 1): False, ("cuda:0/compile", 1): True,
    }  # fmt: skip
    assert all(front(imported(), imported(runtime="compile", mean_s=0.098)).values()), (
        "within what is assumed of a mean"
    )


def test_inputs_of_different_size_do_not_compete():
    assert all(front(record(seconds=1e-3, seq_len=16), record(seconds=9e-3, memory=9e8, seq_len=128)).values())


costs = st.lists(
    st.tuples(st.floats(1e-4, 1), st.floats(1e6, 1e9), st.sampled_from([1, 2, 8])), min_size=1, max_size=12
)  # seconds, bytes, batch size


@settings(max_examples=30, deadline=None)
@given(costs)
def test_a_front_is_never_empty_and_who_dominates_is_on_no_count_worse(cells):
    frame = made_frame(*[
        record(seconds=seconds, memory=memory, batch_size=batch, threads=i + 1)
        for i, (seconds, memory, batch) in enumerate(cells)
    ])  # fmt: skip
    found = profiles.pareto(profiles.over_batch(profiles.of_model(frame)))
    assert found["efficient"].any()
    for row in found[~found["efficient"]].itertuples():
        winner = found.iloc[row.dominated_by]
        assert winner["latency_s"] <= row.latency_s
        assert winner["throughput"] >= row.throughput
        assert winner["memory_increase_bytes"] <= row.memory_increase_bytes


# --- words and figures ------------------------------------------------------------------------------------------------


def test_the_overview_counts_and_spans():
    text = report.overview(profiles.of_model(FRAME, "bert-tiny"))
    assert "`bert-tiny` has 7 records on 3 platforms: 6 ok, 1 unsupported, 7 measured." in text
    assert "from 0.800 ms [0.792 to 0.808 ms] (`cpu/compile`) to 1.00 ms [0.990 to 1.01 ms] (`cpu/eager`)" in text
    assert "`cpu/eager` has 5 records of 2 models" in report.overview(
        profiles.of_platform(FRAME, "cpu/eager"), "platform"
    )
    unstable = report.overview(profiles.of_model(made_frame(record(noise="unstable"))))
    assert "unstable during 1 of them" in unstable


def test_what_was_not_measured_here_is_hollow_and_named():
    rows = made_frame(record(), record(runtime="compile", provenance="predicted"), imported(model="bert-tiny"))
    curve = profiles.over_batch(profiles.of_model(rows))
    label = plots.plot_curve(curve).get_xlabel()
    assert "hollow: imported, predicted" in label
    assert "one batch size each: no curve" in label
    assert "hollow" in plots.plot_pareto(profiles.pareto(curve)).get_xlabel()
    assert "hollow" not in plots.plot_curve(curve[curve["provenance"] == "measured"]).get_xlabel()


def test_of_very_many_sides_a_figure_names_eight_and_says_so():
    frame = made_frame(*[record(f"bert-tiny{i}", seconds=1e-3 * (i + 1)) for i in range(50)])
    curve = profiles.over_batch(profiles.of_platform(frame))
    ax = plots.plot_curve(curve)
    assert "8 of 50 named" in ax.get_xlabel()
    named = [text.get_text() for text in ax.get_legend().get_texts()]
    assert len(named) == 8
    assert {"bert-tiny0", "bert-tiny49"} <= set(named), "the best and the worst are among them"
    starts = profiles.cold_start(profiles.of_platform(frame))
    assert "15 quickest and 15 slowest of 50" in plots.plot_cold_start(starts).get_xlabel()


def test_latencies_of_many_models_on_two_platforms_are_drawn_against_each_other():
    records = [
        record(f"{'vit' if i % 2 else 'resnet'}{i}", runtime, 1e-3 * (i + 1) * factor)
        for i in range(MANY + 5)
        for runtime, factor in (("eager", 2.0), ("compile", 1.0))
    ]
    ax = plots.plot_latency(made_frame(*records[:-1]))
    assert f"{MANY + 4} of {MANY + 5} workloads ran on both" in ax.get_xlabel()
    whole = plots.plot_latency(made_frame(*records)).get_xlabel()
    assert "latency on cpu/compile (ms)" in whole
    assert "the other 0.50 times as fast" in whole
    assert {text.get_text() for text in ax.get_legend().get_texts()} == {"vit", "resnet"}
    assert ax.figure.get_size_inches().max() < 12
    three = plots.plot_latency(made_frame(*records, *[record(f"vit{i}", "openvino", 1e-3) for i in range(3)]))
    assert "cpu/openvino (3)" in [text.get_text() for text in three.get_legend().get_texts()]


def comparison_of(count: int) -> pd.DataFrame:
    speedups = np.geomspace(0.5, 4, count)
    names = [f"m{i}" for i in range(count)]
    return pd.DataFrame(
        {
            "model": names, "series": "forward", "work": names, "platform": "cpu/compile", "baseline": "cpu/eager",
            "speedup": speedups, "ci_low": 0.99 / speedups, "ci_high": 1.01 / speedups, "verdict": "faster",
            "provenance": "measured",
        }
    )  # fmt: skip


def test_of_many_speedups_the_distribution_is_shown_and_the_ends_by_name():
    count = 1000
    top = plots.plot_speedup(comparison_of(count))
    [legend] = [text.get_text() for text in top.get_legend().get_texts()]
    assert "×1.41" in legend  # the geometric mean of 0.5 and 4
    bottom = top.figure.get_figure(root=True).axes[1]
    names = [text.get_text() for text in bottom.get_yticklabels()]
    assert names[0] == "m999"
    assert names[-1] == "m0"
    assert len(names) == 30
    assert "15 largest and 15 smallest of 1,000" in bottom.get_xlabel()
    assert top.figure.get_figure(root=True).get_size_inches().max() < 14
    assert len(plots.plot_speedup(comparison_of(MANY)).figure.axes) == 1, "a heat map still"


def test_a_matrix_of_many_models_is_shown_as_counts():
    from labbench.analysis.matrix import matrix

    failed = [record(f"m{i}", "compile", status="failed", reason="no") for i in range(10)]
    ax = plots.plot_matrix(matrix(made_frame(*[record(f"m{i}") for i in range(MANY + 1)], *failed)))
    assert f"{MANY + 1} in all" in ax.get_xlabel()
    assert {text.get_text() for text in ax.texts} == {"41", "10", "31"}


def test_words_in_a_matrix_fit_into_their_columns():
    words = ["ok 1,234.5 ms", "unsupported", "out_of_memory", "timeout"]
    drawn = pd.DataFrame(dict.fromkeys("abcde", words), index=["chromium 156 · webnn-npu", "b", "c", "d"])
    ax = plots.plot_matrix(drawn)
    ax.figure.canvas.draw()
    column = ax.get_window_extent().width / 5
    assert max(text.get_window_extent().width for text in ax.texts) <= column


# --- stores with little or nothing to tell ----------------------------------------------------------------------------

POOR = {
    "empty": [],
    "one": [record()],
    "failed": [record(status="failed", reason="no"), record("vit-tiny", status="out_of_memory", reason="too large")],
    "failed without a reason": [record(status="failed")],
    "imported": [imported(), imported(runtime="compile", mean_s=0.05), imported("vit-tiny")],
    "mixed machines": [record(), record(machine_id="m2"), record("vit-tiny", machine_id="m2", precision="bf16")],
    "no rest": [record(memory=None, prepare_s=None)],
    "generative": [generating("eager", 5e-3, 1e-3)],
    "training only": [record(mode="training")],
}


@pytest.mark.parametrize("records", POOR.values(), ids=POOR)
@pytest.mark.parametrize("of", [profiles.of_model, profiles.of_platform])
def test_a_poor_store_gives_sentences_tables_and_figures(records, of):
    profile = of(made_frame(*records) if records else made_frame(record()).iloc[:0])
    curve = profiles.over_batch(profile)
    growth, cells, ratios = profiles.growth(curve), profiles.pareto(curve), profiles.training(profile)
    starts = profiles.cold_start(profile)
    said = [
        report.overview(profile), report.batching(curve, growth), report.memory(curve, growth), report.starting(starts),
        report.energy(profiles.energy(profile)), report.training(ratios), report.pareto(cells), report.not_run(profile),
    ]  # fmt: skip
    assert [text for text in said if not text.rstrip().endswith((".", "reason was recorded", "no", "too large"))] == []
    assert [text for text in said if "nan" in text or "None" in text] == []
    side_by_side = report.side_by_side_table(profiles.side_by_side(profile))
    assert len(side_by_side) == (len(profile) if records else 0)
    report.training_table(ratios)
    report.pareto_table(cells)
    for plot, rows in (
        (plots.plot_curve, curve), (plots.plot_memory, profiles.with_memory(curve)),
        (plots.plot_cold_start, starts), (plots.plot_pareto, cells),
    ):  # fmt: skip
        for ax in plots.panels(plot, rows):
            ax.figure.canvas.draw()


PAGES = ("05_model_profile", "05_platform_profile")


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("poor", [None, "empty", "failed", "imported"])
def test_a_page_runs_to_its_end_whatever_the_store_holds(tmp_path, name, poor):
    with Store(tmp_path / "s.h5", writable=True) as store:
        store.extend(CELLS if poor is None else POOR[poor], [ENVIRONMENT])
    result = run(
        folder() / f"{name}.ipynb", tmp_path / "o.ipynb", {"store_path": str(tmp_path / "s.h5")}, progress=False
    )
    assert result.status == "ok", result.error
    cells = nbformat.read(Path(tmp_path / "o.ipynb"), as_version=4).cells
    drawn = [cell.outputs for cell in cells if "plots.panels" in cell.source]
    assert drawn
    assert all(any("image/svg+xml" in out.get("data", {}) for out in outputs) for outputs in drawn)
