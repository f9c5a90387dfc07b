"""Batch sizes and learning rates found by measuring."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labbench import plots
from labbench.cells import Cell
from labbench.config import ConfigError
from labbench.tuning import digits, report, studies
from labbench.tuning.batches import batch_table, tune_batch
from labbench.tuning.config import TuningConfig
from labbench.tuning.largest_batch import Probe, largest_batch
from labbench.tuning.search import TuningError, study, trial_table
from labbench.tuning.search import search as search_settings

pytestmark = pytest.mark.alone

CELL = Cell.of(model="bert-tiny", mode="training")
MB = 10**6


def search(limit, base, slope, overhead, runtime=1.0, dies=False):
    """A search in a made machine: tensors take base + slope·b, the process overhead + runtime × that; it may die of too much."""

    def probe(cell, limit_bytes, protocol):
        size = cell.workload.batch_size
        used = int(overhead + runtime * (base + slope * size))
        if used > limit_bytes:
            return Probe(size, None if dies else used, False, "too much")
        return Probe(size, used, True)

    return largest_batch(CELL, limit, probe=probe, counted=lambda cell: base + slope * cell.workload.batch_size)


@settings(max_examples=300, deadline=None)
@given(
    base=st.floats(1, 500), slope=st.floats(0.05, 200), overhead=st.floats(0, 200), runtime=st.floats(0.9, 1.3),
    room=st.floats(1.5, 50), dies=st.booleans(),
)  # fmt: skip
def test_the_largest_batch_is_found_within_5_percent_in_5_probes(base, slope, overhead, runtime, room, dies):
    limit = int(room * MB * (base + slope + overhead))
    found = search(limit, base * MB, slope * MB, overhead * MB, runtime, dies)
    true = int((limit - overhead * MB - runtime * base * MB) / (runtime * slope * MB))
    assert len(found.probes) <= 5
    assert found.batch_size <= true + 1  # rounding of bytes
    assert found.batch_size >= min(0.95 * true, true - 1)


def test_what_does_not_fit_at_all_says_so():
    found = search(100 * MB, 200 * MB, 1 * MB, 0)
    assert found.batch_size == 0
    assert "not even one sample" in str(found)


def test_a_limit_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="give more than none"):
        largest_batch(CELL, 0)


# --- batch sizes in the store --------------------------------------------------------------------------------------------


def made_record(cell):
    """A record whose throughput has its best at 16 and whose memory grows with the batch."""
    from made import record

    size = cell.workload.batch_size
    seconds = 1e-3 * (1 + size / 8 + (size / 16) ** 2)
    made = record("bert-tiny", "eager", seconds=seconds)
    [series] = made.series
    series = series.model_copy(update={"items_per_call": float(size)})
    memory = made.memory.model_copy(update={"increase_bytes": MB * (10 + size)})
    return made.model_copy(update={"cell": cell, "series": [series], "memory": memory})


def test_batch_sizes_are_tried_once_and_the_study_goes_on(tmp_path):
    asked = []

    def measure(cell):
        asked.append(cell.workload.batch_size)
        return made_record(cell)

    options = {"largest": 256, "measure": measure}
    first = tune_batch(CELL, tmp_path / "s.h5", tmp_path / "study.log", trials=5, **options)
    assert {1, 16, 256} <= {one.batch_size for one in first}
    more = tune_batch(CELL, tmp_path / "s.h5", tmp_path / "study.log", trials=12, **options)
    assert len(asked) == len(set(asked))
    assert {one.batch_size for one in first} <= {one.batch_size for one in more}
    table = batch_table(more)
    best = table.loc[table["throughput"].idxmax()]
    assert 8 <= best["batch_size"] <= 32
    assert best["efficient"]
    assert not table.set_index("batch_size").loc[256, "efficient"]
    assert "is fastest with batches of" in report.batches(table.assign(model="bert-tiny"))
    assert plots.plot_batches(table.assign(model="bert-tiny")).lines


def test_probes_are_told_in_a_sentence_a_table_and_a_figure():
    found = [search(500 * MB, 10 * MB, 3 * MB, 40 * MB, dies=True), search(100 * MB, 200 * MB, MB, 0)]
    text = report.largest(found)
    assert "fit batches of `bert-tiny`" in text
    assert "not even one sample of `bert-tiny`" in text
    assert len(report.probe_table(found)) == sum(len(one.probes) for one in found)
    assert plots.plot_probes(found).lines


@pytest.mark.slow
def test_a_real_probe_dies_of_its_limit_and_a_real_search_finds_a_batch():
    from labbench import zoo
    from labbench.measure.probe import peak_memory
    from labbench.measure.protocol import preset

    cell = Cell.of(model="bert-tiny", mode="training", batch_size=64, threads=1)
    cell = cell.model_copy(update={"workload": zoo.resolve(cell.workload)})
    status, reason, _ = peak_memory(cell, 60 * MB, preset("quick"))
    assert status == "out_of_memory"
    assert "over its limit" in reason
    found = largest_batch(cell, 300 * MB)
    assert 1 < found.batch_size < 200
    assert max(one.bytes for one in found.probes if one.fits) <= 300 * MB


# --- time to a target loss -----------------------------------------------------------------------------------------------

EASY = {"target": 1.5, "limit_s": 10.0}


@pytest.mark.slow
def test_a_search_is_stored_and_goes_on_where_it_stopped(tmp_path):
    path = tmp_path / "study.log"
    first = search_settings(study(path, "digits"), trials=2, progress=False, **EASY)
    again = study(path, "digits")
    assert len(again.trials) == 2
    more = search_settings(again, trials=4, progress=False, **EASY)
    assert (first.trials, more.trials) == (2, 4)
    assert more.spent_s > 0
    assert again.trials[0].params == {"log2_batch_size": 5, "learning_rate": 1e-3}
    assert trial_table(again)["batch_size"][0] == 32
    assert set(trial_table(again)["state"]) <= {"complete", "pruned"}


def test_a_target_out_of_reach_is_said(tmp_path):
    with pytest.raises(TuningError, match=r"no setting of 2 reached a loss of 0\.001"):
        search_settings(study(tmp_path / "s.log", "far"), trials=2, progress=False, target=0.001, limit_s=0.02)


def test_the_network_learns_and_training_stops_at_the_target():
    run = digits.train(digits.Setting(32, 5e-3), 0, target=1.0)
    assert run.reached
    assert run.loss <= 1.0 < run.curve[0][1]
    assert not digits.train(digits.Setting(32, 1e-6), 0, limit_s=0.05).reached


def test_a_range_test_ends_where_the_loss_explodes_and_suggests_a_rate_below():
    found = digits.range_test(32, 0)
    assert found[-1][1] > min(loss for _, loss in found)
    assert 1e-4 < digits.suggested_rate(found) < 0.1


@pytest.mark.slow
def test_tuning_is_told_beside_the_usual_setting_and_random_search(tmp_path):
    config = TuningConfig(trials=2, seeds=1, target_loss=1.5, limit_s=3)
    found = studies.tune(config, tmp_path / "s.log")
    assert set(found.judged["setting"]) == {"usual", "tpe", "random"}
    assert "of the usual setting's time" in report.tuned(found)
    assert len(report.tuned_table(found)) == 3
    assert plots.plot_trials(found).lines
    assert plots.plot_range_test(studies.range_tests(config)).lines
