import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made import ENVIRONMENTS, footprint, made_frame, record, study

from labbench.analysis.few import MOST_ROWS
from labbench.config import ConfigError
from labbench.prediction import PredictionConfig, Predictor
from labbench.records import Memory
from labbench.selection import (
    Requirements,
    SelectionError,
    headline,
    read_requirements,
    select,
    study_headline,
    token_headline,
)
from labbench.selection.figures import pareto_front, plot_selection_overview
from labbench.selection.report import decision_list, decision_table, exclusion_sentence, exclusion_table
from labbench.store import Store
from labbench.words import about, digits, outward, percent, rate, seconds, size

PRICES = [{"device": "cpu", "per_hour": 0.36, "currency": "EUR", "as_of": "2025-01-01", "source": "an invoice"}]


MEMORY = {"eager": 5e8, "compile": 3e8, "onnxruntime": 9e8}  # the fastest needs the most


def three():
    """One model on three runtimes: fast and large, slower and small, and one that failed."""
    return made_frame(
        record(runtime="openvino", seconds=1e-3, memory=6e8),
        record(runtime="eager", seconds=3e-3, memory=3e8),
        record(runtime="compile", status="failed", reason="RuntimeError: no such operator"),
    )


def ask(frame, predictor=None, **requirements):
    return select(frame, read_requirements(**requirements), predictor).choices[0]


def why(choice):
    return {option["option"]: "; ".join(v.reason for v in found) for option, found in choice.excluded}


@pytest.mark.parametrize(
    ("objective", "best"), [("latency", "openvino"), ("throughput", "openvino"), ("memory", "eager")]
)
def test_the_best_by_the_objective_is_chosen(objective, best):
    assert ask(three(), objective=objective).best["option"] == f"cpu/{best}"


def test_a_cell_that_failed_is_excluded_with_its_recorded_reason():
    assert why(ask(three()))["cpu/compile"] == "failed: RuntimeError: no such operator"


def test_an_option_over_a_limit_is_excluded_with_its_distance():
    choice = ask(three(), max_latency_s=2e-3)
    assert why(choice)["cpu/eager"] == "median latency 3.03 ms > limit 2 ms, 52 % over"
    assert choice.best["option"] == "cpu/openvino"


def test_the_percentile_asked_for_is_the_one_limited():
    assert "p99 latency 3.94 ms" in why(ask(three(), max_latency_s=2e-3, latency_percentile=99))["cpu/eager"]


def test_each_kind_of_limit_excludes():
    assert "peak memory 600 MB > limit 400 MB, 50 % over" in why(ask(three(), max_memory_bytes=4e8))["cpu/openvino"]
    assert "330 samples/s < 500 samples/s needed, 34 % short" in why(ask(three(), min_throughput=500))["cpu/eager"]
    assert (
        "runtime eager is not among those allowed (openvino)" in why(ask(three(), runtimes=["openvino"]))["cpu/eager"]
    )
    assert "0.303 EUR > limit 0.2 EUR" in why(ask(three(), prices=PRICES, max_cost_per_million=0.2))["cpu/eager"]
    assert (
        "price per hour 0.36 EUR > limit 0.1 EUR"
        in why(ask(three(), prices=PRICES, max_cost_per_hour=0.1))["cpu/eager"]
    )


def test_what_was_not_measured_does_not_pass_a_limit():
    choice = ask(made_frame(record(memory=None)), max_memory_bytes=1e9)
    assert "not measured" in why(choice)["cpu/eager"]


@settings(max_examples=5, deadline=None)
@given(
    st.lists(st.tuples(st.floats(1e-5, 1), st.floats(1e8, 1e10)), min_size=1, max_size=4),
    st.floats(1e-5, 1),
    st.floats(1e8, 1e10),
    st.floats(1, 1e5),
)
def test_relaxing_each_requirement_to_the_value_stated_lets_the_option_in(cells, latency_s, memory, throughput):
    names = ("eager", "compile", "onnxruntime", "openvino")
    table = made_frame(*(record(runtime=n, seconds=s, memory=m) for n, (s, m) in zip(names, cells, strict=False)))
    limits = {"max_latency_s": latency_s, "max_memory_bytes": int(memory), "min_throughput": throughput}
    for option, found in ask(table, **limits).excluded:
        relaxed = limits | {v.requirement: v.needed for v in found}
        assert option["option"] in [kept["option"] for kept in ask(table, **relaxed).ranked]
        spoken = limits | {v.requirement: outward(v.needed, up=v.requirement[:3] == "max") for v in found}
        spoken["max_memory_bytes"] = round(spoken["max_memory_bytes"])
        assert option["option"] in [kept["option"] for kept in ask(table, **spoken).ranked]


def test_with_nothing_left_the_nearest_option_and_what_it_needs_are_named():
    choice = ask(three(), max_latency_s=5e-4, max_memory_bytes=5e8)
    assert choice.best is None
    assert "nearest is cpu/openvino: relax max_latency_s to 1.01 ms and max_memory_bytes to 600 MB" in choice.sentence


def test_with_nothing_left_and_no_limit_to_blame_it_says_so():
    choice = ask(made_frame(record(status="unsupported", reason="no")))
    assert "no option ran here" in choice.sentence


def test_options_that_cannot_be_told_apart_are_ties_and_the_smaller_is_chosen():
    table = made_frame(
        record(runtime="openvino", seconds=1.00e-3, memory=6e8, relative_ci=0.05),
        record(runtime="onnxruntime", seconds=1.04e-3, memory=5e8, relative_ci=0.05),
        record(runtime="eager", seconds=2e-3, memory=1e8),
    )
    choice = ask(table)
    assert set(choice.ties) == {"cpu/openvino", "cpu/onnxruntime"}
    assert choice.best["option"] == "cpu/onnxruntime"
    assert (
        "tied with cpu/openvino in latency (intervals overlap), chosen because it needs less memory" in choice.sentence
    )


def test_the_fallback_chain_holds_the_other_runtimes_in_order():
    table = made_frame(
        record(runtime="openvino", seconds=1e-3),
        record(runtime="openvino", seconds=2e-3, threads=1),
        record(runtime="compile", seconds=4e-3),
        record(runtime="eager", seconds=3e-3),
    )
    assert ask(table).fallbacks == ("cpu/eager", "cpu/compile")


def test_precision_belongs_to_the_answer_and_batch_to_the_question():
    table = made_frame(record(seconds=2e-3), record(seconds=1e-3, precision="bf16"), record(seconds=9e-3, batch_size=8))
    choices = select(table).choices
    assert [choice.best["option"] for choice in choices] == ["cpu/eager bf16", "cpu/eager"]


def test_a_cost_question_without_prices_is_refused_with_the_way_to_give_them():
    for question in ({"objective": "cost"}, {"max_cost_per_hour": 1}, {"max_cost_per_million": 1}):
        with pytest.raises(ConfigError, match=r'labbench invents none; give them as "prices"'):
            read_requirements(**question)


def test_cost_is_the_price_times_the_time():
    best = ask(three(), objective="cost", prices=PRICES).best
    assert best["option"] == "cpu/openvino"
    assert best["cost_per_million"] == pytest.approx(0.36 / 3600 * 1e-3 * 1e6)


def test_prices_in_two_currencies_are_refused():
    with pytest.raises(ConfigError, match="one currency"):
        read_requirements(prices=[*PRICES, {**PRICES[0], "device": "cuda:0", "currency": "USD"}])


@pytest.mark.parametrize(
    ("requirements", "words"),
    [
        ({"models": ["bert-tny"]}, "did you mean 'bert-tiny'"),
        ({"runtimes": ["eagr"]}, "did you mean 'eager'"),
        ({"devices": ["cuda:0"]}, "known: cpu"),
        ({"series": "decode"}, "known: forward"),
    ],
)
def test_a_name_that_the_store_does_not_know_is_refused_with_the_nearest_one(requirements, words):
    with pytest.raises(ConfigError, match=words):
        ask(three(), **requirements)


def test_a_mode_that_was_never_measured_and_an_empty_store_are_errors_with_the_way_out():
    with pytest.raises(SelectionError, match="labbench run"):
        ask(three(), modes=["training"])
    with pytest.raises(SelectionError, match="labbench run"):
        select(made_frame(record(provenance="predicted")))


@pytest.mark.parametrize(
    ("given", "words"),
    [({"max_latency": 1}, "did you mean 'max_latency_s'"), ({"objective": "latencies"}, "did you mean 'latency'"),
     ({"max_cost_per_hour": 0}, "greater than 0")],
)  # fmt: skip
def test_a_mistake_in_the_configuration_is_refused(tmp_path, given, words):
    path = tmp_path / "hardware_selection_config.json"
    path.write_text(json.dumps(given))
    with pytest.raises(ConfigError, match=words):
        read_requirements(path)


def test_changes_win_over_the_file(tmp_path):
    path = tmp_path / "hardware_selection_config.json"
    path.write_text(json.dumps({"max_latency_s": 1.0, "objective": "memory"}))
    found = read_requirements(path, max_latency_s=0.5)
    assert (found.max_latency_s, found.objective) == (0.5, "memory")


# Predictions


@pytest.fixture(scope="module")
def incomplete():
    """A study with one cell that nobody measured."""
    records = [r for r in study() if (r.cell.workload.model, r.cell.platform.runtime) != ("t5-tiny", "onnxruntime")]
    table = made_frame(*records)
    return table, Predictor(PredictionConfig(residual="none")).fit(table, ENVIRONMENTS)


def test_a_cell_without_a_record_is_predicted_and_said_to_be(incomplete):
    table, predictor = incomplete
    choice = ask(table, predictor, models=["t5-tiny"])
    predicted = {option["option"]: option["predicted"] for option in choice.ranked}
    assert predicted == {"cpu/onnxruntime": True, "cpu/compile": False, "cpu/eager": False}
    assert ("predicted, not measured" in choice.sentence) == choice.best["predicted"]


def test_without_a_predictor_only_what_was_measured_can_be_chosen(incomplete):
    assert "cpu/onnxruntime" not in [option["option"] for option in ask(incomplete[0], models=["t5-tiny"]).ranked]


def test_a_predicted_option_is_judged_at_the_pessimistic_end_of_its_interval(incomplete):
    table, predictor = incomplete
    free = {o["option"]: o for o in ask(table, predictor, models=["t5-tiny"]).ranked}["cpu/onnxruntime"]
    limit = (free["latency_s"] + free["latency_high_s"]) / 2
    reason = why(ask(table, predictor, models=["t5-tiny"], max_latency_s=limit))["cpu/onnxruntime"]
    assert "upper 90 % bound of the predicted median latency" in reason


def test_of_predicted_options_that_tie_the_point_decides_though_another_needs_less_memory():
    records = [
        one.model_copy(update={"memory": Memory(increase_bytes=MEMORY[one.cell.platform.runtime])})
        for one in study(apart=0.5)
        if one.cell.workload.model != "t5-tiny" or one.cell.platform.runtime == "eager"
    ]
    table = made_frame(*records)
    predictor = Predictor(PredictionConfig(residual="none")).fit(table, ENVIRONMENTS)
    choice = ask(table, predictor, models=["t5-tiny"], runtimes=["onnxruntime", "compile"])
    best, other = choice.ranked
    assert set(choice.ties) == {"cpu/onnxruntime", "cpu/compile"}
    assert best["memory_bytes"] > other["memory_bytes"]
    assert best["latency_s"] < other["latency_s"]


def test_a_prediction_outside_what_was_measured_is_no_ground_to_choose():
    records = [*study(), record("bert-tiny", demand=footprint(3, batch_size=500), batch_size=500, seconds=9.0)]
    table = made_frame(*records)
    predictor = Predictor(PredictionConfig(residual="none")).fit(table, ENVIRONMENTS)
    choice = next(c for c in select(table, None, predictor).choices if "b500" in c.question)
    assert choice.best["option"] == "cpu/eager"
    assert "no ground to choose" in why(choice)["cpu/onnxruntime"]


# What is said


def test_the_headline_counts_choices_and_what_one_platform_for_all_would_cost():
    table = made_frame(
        *(record(f"{name}-tiny", "openvino", 1e-3) for name in "ab"),
        *(record(f"{name}-tiny", "eager", 2e-3) for name in "ab"),
        record("c-tiny", "openvino", 3e-3),
        record("c-tiny", "eager", 2e-3),
    )
    text = headline(select(table))
    assert text.startswith("cpu/openvino is the fastest choice for 2 of 3 workloads (cpu/eager for 1).")
    assert "cost 17 % of latency on average and 50 % at worst" in text


def test_the_best_at_everything_is_not_said_to_cost_nothing():
    table = made_frame(record("a-tiny", "eager"), record("b-tiny", "eager"))
    assert headline(select(table)) == "cpu/eager is the fastest choice for 2 of 2 workloads."


def test_a_headline_tells_how_many_choices_are_unstable():
    table = made_frame(record("a-tiny", "eager", noise="unstable"), record("b-tiny", "eager"))
    assert "1 choice rests on an unstable measurement." in headline(select(table))
    assert "unstable" not in headline(select(table, read_requirements(objective="memory")))
    assert decision_table(select(table))["provenance"].tolist() == ["measured, unstable", "measured"]


def test_the_choice_for_further_tokens_is_told_apart():
    table = made_frame(record("gpt2-tiny", "openvino", 1e-3), record("gpt2-tiny", "onnxruntime", 2e-3))
    further = table.assign(series="decode", primary=False)
    further[[c for c in table if c.startswith("latency_") and c.endswith("s")]] *= np.where(
        table["runtime"] == "openvino", 1, 0.1
    )[:, None]
    both = pd.concat([table.assign(series="prefill"), further], ignore_index=True)
    assert select(both).choices[0].best["option"] == "cpu/openvino"
    assert "for every further one cpu/onnxruntime is the fastest choice for 1 of 1 workload." in token_headline(both)
    assert token_headline(table.assign(series="forward")) == ""


def test_reports_say_in_full_why_an_option_is_excluded():
    decision = select(three(), read_requirements(max_latency_s=2e-3))
    assert exclusion_table(decision)["why not"].tolist() == decision.exclusions()["why_not"].tolist()
    text = decision_list(decision)
    assert text.startswith("- Run bert-tiny inference b1 on cpu/openvino")
    assert "    - not cpu/eager: median latency 3" in text
    assert "no option left, such as" in exclusion_sentence(select(three(), read_requirements(max_latency_s=1e-6)))


def test_of_very_many_workloads_a_report_names_a_hundred_and_counts_the_others():
    many = made_frame(*(record(f"m{i}-tiny", memory=None) for i in range(MOST_ROWS + 5)))
    assert decision_list(select(many)).endswith("- and 5 more workloads")
    nothing = headline(select(many, read_requirements(max_latency_s=1e-9)))
    assert nothing.startswith("Nothing meets the requirements for any of 105 workloads, such as m0-tiny")
    [text] = plot_selection_overview(select(many)).axes[0].texts
    assert "both latency and memory" in text.get_text()


def test_the_headline_of_one_workload_is_its_decision():
    text = headline(select(three()))
    assert text.startswith("Run bert-tiny inference b1 on cpu/openvino: 1 ms a call (median, measured)")
    assert "3.00 times faster than the next, cpu/eager" in text


def test_a_study_without_a_usable_record_has_a_headline_too(tmp_path):
    with Store(tmp_path / "s.h5", writable=True) as store:
        store.append(record(status="failed", reason="no"))
    assert "no option ran here" in study_headline(tmp_path / "s.h5")


def test_an_unstable_measurement_and_a_percentile_of_few_samples_are_called_so():
    sentence = ask(made_frame(record(noise="unstable")), latency_percentile=99).sentence
    assert "p99 of only 3 samples, measured, on an unstable machine" in sentence


def test_a_decision_can_be_printed_shown_and_sent_as_strict_json():
    decision = select(three(), read_requirements(max_memory_bytes=5e8))
    sent = json.loads(json.dumps(decision.to_dict(), allow_nan=False))
    assert sent["choices"][0]["excluded"][0]["violations"][0]["requirement"] == "max_memory_bytes"
    assert "not cpu/compile: failed" in str(decision)
    assert len(decision._repr_html_()) < 5000
    assert decision.table()["choice"].tolist() == ["cpu/eager"]
    assert set(decision.exclusions()["option"]) == {"cpu/openvino", "cpu/compile"}


def test_the_pareto_front_holds_what_nothing_else_beats_in_both():
    table = select(made_frame(
        record(runtime="openvino", seconds=1e-3, memory=6e8),
        record(runtime="compile", seconds=2e-3, memory=7e8),
        record(runtime="eager", seconds=3e-3, memory=3e8),
    )).options  # fmt: skip
    assert pareto_front(table, "latency_s", "memory_bytes")["runtime"].tolist() == ["openvino", "eager"]


def test_the_figure_rings_the_choice_and_greys_what_is_excluded():
    import matplotlib as mpl

    mpl.use("Agg")
    from labbench.selection.figures import plot_selection

    decision = select(three(), read_requirements(max_latency_s=2e-3))
    ax = plot_selection(decision, decision.choices[0].question)
    rings = [points for points in ax.collections if len(points.get_facecolor()) == 0 and hasattr(points, "get_sizes")]
    assert [tuple(points.get_offsets()[0]) for points in rings] == [(1.0, 600.0)]
    grey = [points for points in ax.collections if tuple(points.get_facecolor().ravel()[:3]) == (0.72, 0.72, 0.72)]
    assert [tuple(points.get_offsets()[0]) for points in grey] == [(3.0, 300.0)]


def test_numbers_are_written_as_people_write_them():
    assert (seconds(1.234e-3), seconds(4.5e-5), size(4.321e8), percent(0.153)) == ("1.23 ms", "45 µs", "432 MB", "15 %")
    assert (digits(5.7), digits(14.997), digits(0.0711), digits(1234)) == ("5.70", "15.0", "0.0711", "1,230")
    assert (about(46231), about(1.234)) == ("46,000", "1.2")
    assert (rate(4577, "audio_s"), rate(1228, "samples")) == ("4,577 × real time", "1,228 samples/s")


def test_importing_the_room_loads_neither_torch_nor_sklearn_nor_pandas():
    code = "import sys, labbench.selection; print([m for m in ('torch', 'sklearn', 'pandas') if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_default_requirements_limit_nothing():
    assert ask(three()).ranked[0]["option"] == "cpu/openvino"
    assert Requirements().model_dump(exclude_defaults=True) == {}
