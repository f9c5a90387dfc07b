import math

import pytest
from made import footprint, record
from test_store import filled

from labbench import cli
from labbench.advice import verify
from labbench.analysis import sentences, tables
from labbench.analysis.opportunities import advise, top
from labbench.analysis.outcomes import hit_rate, outcomes
from labbench.campaign import Campaign
from labbench.cells import Cell, Grid
from labbench.config import ConfigError
from labbench.measure.protocol import preset
from labbench.store import Store

pytestmark = pytest.mark.alone


def advice_of(tmp_path, *records, **options):
    campaign = [one.model_copy(update={"campaign_id": "c"}) for one in records]
    store = Store(filled(tmp_path / "s.h5", *campaign))
    frame = store.latest()
    return advise(frame, store.samples(), **options)


def test_a_measured_change_promises_what_was_measured_and_says_what_it_costs(tmp_path):
    before = record("bert-tiny", "eager", 1e-2, memory=4e8, prepare_s=0.0)
    after = record("bert-tiny", "onnxruntime", 5e-3, memory=5e8, prepare_s=2.0)
    [row] = advice_of(tmp_path, before, after).to_dict("records")
    assert row["gain"] == pytest.approx(2)
    assert row["gain_ci_low"] < 2 < row["gain_ci_high"]
    assert (row["change"], row["before"], row["after"]) == ("runtime", "eager", "onnxruntime")
    assert row["memory_bytes"] == 1e8
    assert row["one_off_s"] == pytest.approx(2.0)
    assert row["break_even_calls"] == 400  # two seconds, five milliseconds a call
    assert row["command"] == "labbench run --model bert-tiny --runtime onnxruntime"
    assert row["evidence"] == [before.record_id, after.record_id]


def test_a_larger_batch_gains_time_per_item_and_costs_latency(tmp_path):
    [row] = advice_of(tmp_path, record(seconds=1e-2), record(seconds=4e-2, batch_size=8)).to_dict("records")
    assert row["gain"] == pytest.approx(2)
    assert row["latency_after_s"] == pytest.approx(4e-2)


def test_only_one_thing_is_changed_at_a_time(tmp_path):
    two_changes = record(runtime="openvino", seconds=1e-3, precision="bf16")
    assert advice_of(tmp_path, record(seconds=1e-2), two_changes).empty


def test_a_change_for_the_worse_or_within_the_threshold_is_no_advice(tmp_path):
    slower, same = record(runtime="openvino", seconds=2e-2), record(runtime="compile", seconds=0.99e-2)
    assert advice_of(tmp_path, record(seconds=1e-2), slower, same).empty


def test_nothing_is_promised_from_imported_or_predicted_figures(tmp_path):
    predicted = record(runtime="compile", seconds=1e-3, provenance="predicted")
    assert advice_of(tmp_path, record(seconds=1e-2), predicted).empty


def test_what_rests_on_an_unstable_machine_says_so(tmp_path):
    found = advice_of(tmp_path, record(seconds=1e-2), record(runtime="openvino", seconds=1e-3, noise="unstable"))
    assert found["unstable"].tolist() == [True]
    assert tables.advice_table(found)["rests on"].tolist() == ["measurement, unstable machine"]
    assert "unstable machine" in sentences.opportunities(top(found))


MODELS = ("bert-tiny", "vit-tiny", "clip-tiny", "detr-tiny", "gpt2-tiny")


def pairs(gains, runtime="openvino"):
    for i, (model, gain) in enumerate(zip(MODELS, gains, strict=False)):
        yield record(model, "eager", 1e-2, demand=footprint(i))
        yield record(model, runtime, 1e-2 / gain, demand=footprint(i))


def test_what_was_not_measured_is_estimated_from_other_models_with_an_interval_for_one_more(tmp_path):
    table = advice_of(tmp_path, *pairs((2.0, 2.2, 1.9, 2.1)), record("t5-tiny", "eager", 1e-2, demand=footprint(5)))
    [row] = table[table["model"] == "t5-tiny"].to_dict("records")
    assert (row["source"], row["models"]) == ("other models", 4)
    assert 1.9 < row["gain"] < 2.2
    assert row["gain_ci_low"] < 1.9
    assert row["gain_ci_high"] > 2.2
    assert Cell.model_validate_json(row["cell"]) == Cell.of(model="t5-tiny", runtime="openvino")


def test_two_other_models_are_too_few(tmp_path):
    table = advice_of(tmp_path, *pairs((2.0, 2.1)), record("t5-tiny", "eager", 1e-2, demand=footprint(5)))
    assert "t5-tiny" not in set(table["model"])


def test_what_is_known_not_to_run_is_not_advised(tmp_path):
    failed = record("t5-tiny", "openvino", status="failed", reason="no")
    table = advice_of(tmp_path, *pairs((2.0, 2.2, 1.9)), record("t5-tiny", "eager", 1e-2, demand=footprint(5)), failed)
    assert "t5-tiny" not in set(table["model"])


def test_a_cache_is_advised_where_decoding_went_without(tmp_path):
    [row] = advice_of(tmp_path, record("gpt2-tiny", seconds=1e-2, kv_cache=False), record("gpt2-tiny", seconds=1e-3)).to_dict(
        "records"
    )  # fmt: skip
    assert (row["change"], row["before"], row["after"]) == ("kv_cache", "False", "True")
    assert row["command"] == "labbench run --model gpt2-tiny"


def test_layouts_and_threads_are_changes_too(tmp_path):
    table = advice_of(
        tmp_path, record(seconds=1e-2), record(seconds=5e-3, memory_format="channels_last"), models=["bert-tiny"]
    )
    assert table[["change", "before", "after"]].to_numpy().tolist() == [["memory_format", "default", "channels_last"]]


def test_the_top_is_the_largest_gain_that_is_sure(tmp_path):
    best = top(advice_of(tmp_path, *pairs((2.0,)), record("bert-tiny", "onnxruntime", 4e-3, demand=footprint(0))))
    assert best[["model", "after"]].to_numpy().tolist() == [["bert-tiny", "onnxruntime"]]


def test_advice_holds_for_a_store_with_nothing_to_say(tmp_path):
    for index, records in enumerate(([], [record()], [record(status="failed", reason="no")])):
        folder = tmp_path / str(index)
        folder.mkdir()
        table = advice_of(folder, *records)
        assert table.empty
        assert tables.advice_table(top(table)).empty
        assert "No single change" in sentences.opportunities(top(table))
        assert outcomes(Store(folder / "s.h5")).empty
    assert "labbench verify-advice" in sentences.hit_rate(outcomes(Store(folder / "s.h5")))
    assert math.isnan(hit_rate(outcomes(Store(folder / "s.h5"))))


@pytest.mark.slow
def test_advice_is_tested_by_measuring_both_cells_side_by_side_and_the_record_keeps_the_promise(tmp_path, capsys):
    path = tmp_path / "s.h5"
    grid = Grid(axes={"model": "resnet-tiny", "batch_size": [1, 8], "threads": 1})
    protocol = preset("quick", min_time_s=0.1, max_time_s=0.3)
    Campaign(grid, path, protocol).run(progress=False)
    store = Store(path)
    frame = store.latest().assign(noise="quiet")  # the machine of a test may be anything but quiet
    cells = dict(zip((1, 8), Campaign(grid, path, protocol).cells, strict=True))
    row = {
        "model": "resnet-tiny", "series": "forward", "change": "batch_size", "gain": 1e-3, "gain_ci_low": 1e-4,
        "gain_ci_high": math.inf, "evidence": frame["record_id"].tolist(),
        "cell_before": cells[1].model_dump_json(), "cell": cells[8].model_dump_json(),
    }  # fmt: skip
    import pandas as pd

    [summary] = verify(pd.DataFrame([row]), path, protocol, progress=False)
    assert [one.advice is not None for one in summary.records] == [one.cell == cells[8] for one in summary.records]
    [found] = outcomes(Store(path)).to_dict("records")
    medians = {one.cell.workload.batch_size: one.primary.latency_s for one in summary.records}
    assert found["gain"] == pytest.approx(8 * medians[1] / medians[8], rel=0.5)  # of paired rounds, not of medians
    assert found["promised"] == 1e-3
    verify(
        pd.DataFrame([{**row, "gain": 100.0, "gain_ci_low": 90.0, "gain_ci_high": 110.0}]),
        path,
        protocol,
        progress=False,
    )
    [newest] = outcomes(Store(path)).to_dict("records")
    assert newest["promised"] == 100
    assert not newest["kept"]
    assert cli.main(["verify-advice", "--results", "--store", str(path)]) == 0
    assert "0 brought at least half of the promised gain" in capsys.readouterr().out


def test_the_command_line_refuses_unknown_models_and_changes(tmp_path, capsys):
    path = str(filled(tmp_path / "s.h5", record(), record(runtime="openvino", seconds=5e-4)))
    assert cli.main(["advise", "--store", path, "--model", "bert-tinny"]) == 2
    assert "did you mean 'bert-tiny'" in capsys.readouterr().err
    assert cli.main(["advise", "--store", path, "--change", "runtme"]) == 2
    assert cli.main(["advise", "--store", path, "--all"]) == 0
    assert "runtime: eager → openvino" in capsys.readouterr().out
    assert cli.main(["advise", "--store", path, "--json"]) == 0
    with pytest.raises(ConfigError):
        Cell.of(model="bert-tiny", memory_format="chanels_last")
