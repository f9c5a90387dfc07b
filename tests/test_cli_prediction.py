import json

import pandas as pd
import pytest
from made import ENVIRONMENT, FAMILIES, LAWS, footprint, law_seconds, record, study

from labbench import cli, cli_prediction, zoo
from labbench.cells import Workload
from labbench.cli import main
from labbench.footprint import of as footprint_of
from labbench.prediction import splits
from labbench.records import PROVENANCES, Noise
from labbench.store import Store

STUDY = study()


def stored(path, *records):
    with Store(path, writable=True) as store:
        store.extend(records, [ENVIRONMENT])
    return path


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A store and the folder of a predictor that was fitted to it."""
    folder = tmp_path_factory.mktemp("fitted")
    store = stored(folder / "study.h5", *STUDY)
    assert main(["fit", "--store", str(store), "--name", str(folder / "laptop"), "--no-evaluate"]) == 0
    return store, folder / "laptop"


@pytest.fixture
def labbench(capsys, tmp_path, monkeypatch):
    """Run a command in an empty folder; status, output and errors."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        return status, *capsys.readouterr()

    return run


def test_splits_and_provenances_are_those_of_the_package():
    assert set(cli_prediction.SPLITS) == set(splits.SPLITS)
    assert cli.PROVENANCES == PROVENANCES


def test_fit_keeps_a_predictor_and_prints_its_card(labbench, full, tmp_path):
    status, out, _ = labbench("fit", "--store", full[0])
    assert status == 0
    assert "36 series of 12 models in 12 families" in out
    assert "labbench: off by" in out
    assert "roofline" in out
    assert (tmp_path / "data/predictors/default/card.json").exists()
    _, out, _ = labbench("fit", "--store", full[0], "--no-evaluate", "--json")
    assert json.loads(out)["errors"] == []


def test_fit_takes_a_configuration_and_refuses_a_wrong_one(labbench, full, tmp_path):
    (tmp_path / "c.json").write_text('{"level": 0.8}')
    _, out, _ = labbench("fit", "--store", full[0], "--no-evaluate", "--config", "c.json", "--json")
    assert json.loads(out)["config"]["level"] == 0.8
    (tmp_path / "c.json").write_text('{"levle": 0.8}')
    status, _, err = labbench("fit", "--store", full[0], "--config", "c.json")
    assert status == 2
    assert "did you mean 'level'" in err


def test_predict_uses_a_kept_predictor_and_keeps_what_it_says_only_if_asked(labbench, full, tmp_path):
    store = stored(tmp_path / "s.h5", *study())
    asked = ("--model", "bert-tiny", "--batch-size", 2, "--runtime", "eager", "--store", store)
    _, out, _ = labbench("predict", *asked, "--predictor", full[1], "--json")
    [row] = json.loads(out)
    assert row["provenance"] == "predicted"
    assert Store(store).latest(provenance="predicted").empty
    status, _, err = labbench("predict", *asked, "--predictor", full[1], "--save")
    assert (status, "1 prediction kept" in err) == (0, True)
    [kept] = Store(store).latest(provenance="predicted").to_dict("records")
    assert kept["latency_s"] == pytest.approx(row["latency_s"])
    assert kept["source"].startswith("predictor laptop of ")
    _, out, _ = labbench("show", "--provenance", "predicted", "--store", store)
    assert "predicted" in out
    assert "predicted" not in labbench("show", "--store", store)[1]


def test_threads_that_are_not_named_are_those_that_were_measured(labbench, tmp_path):
    one = [
        record(f"{family}-tiny", "eager", law_seconds(footprint(i), "eager"), demand=footprint(i), threads=1)
        for i, family in enumerate(FAMILIES)
    ]
    asked = ("predict", "--model", "bert-tiny", "--batch-size", 2, "--store", stored(tmp_path / "s.h5", *one), "--json")
    [row] = json.loads(labbench(*asked)[1])
    assert (row["platform"], row["latency_s"] > 0) == ("cpu/eager·1t", True)
    [row] = json.loads(labbench(*asked, "--threads", 3)[1])
    assert (row["platform"], row["latency_s"]) == ("cpu/eager·3t", None)


def test_predictions_are_not_kept_without_the_name_of_a_predictor(labbench, full):
    status, _, err = labbench("predict", "--model", "bert-tiny", "--store", full[0], "--save")
    assert status == 2
    assert "labbench fit --name NAME" in err


def test_a_predictor_that_is_not_there_is_named_with_the_way_out(labbench, full):
    for command in (("predict", "--model", "bert-tiny"), ("drift",)):
        status, _, err = labbench(*command, "--predictor", "nobody", "--store", full[0])
        assert status == 2
        assert "labbench fit --name nobody" in err


def test_evaluate_prints_every_method_and_what_was_new(labbench, full):
    status, out, _ = labbench("evaluate", "--store", full[0])
    assert status == 0
    for told in (
        "constant FLOP/s",
        "log-linear",
        "gradient boosting",
        "nearest measured cell",
        "families it has not seen",
    ):
        assert told in out
    _, out, err = labbench("evaluate", "--store", full[0], "--split", "random", "--json")
    assert {row["quantity"] for row in json.loads(out)} == {"latency_s", "memory_increase_bytes"}
    assert "a leak and no result" in err


def test_a_split_that_the_data_cannot_support_is_said(labbench, full):
    for split, words in (("device", "at least two devices"), ("version", "under two versions")):
        status, _, err = labbench("evaluate", "--store", full[0], "--split", split)
        assert status == 1
        assert words in err
    status, _, err = labbench("evaluate", "--store", full[0], "--probes", 3)
    assert status == 2
    assert "'device' alone" in err


def test_drift_fails_only_if_asked_and_due(labbench, full, tmp_path):
    store, name = full
    status, out, _ = labbench("drift", "--predictor", name, "--store", store, "--fail-on-drift")
    assert (status, "nothing to judge" in out) == (0, True)
    slower = [
        record(f"new{i}-tiny", runtime, 5 * law_seconds(footprint(i), runtime), demand=footprint(i))
        for i in range(8)
        for runtime in LAWS
    ]
    store = stored(tmp_path / "later.h5", *STUDY, *slower)
    status, out, _ = labbench("drift", "--predictor", name, "--store", store)
    assert (status, "Refit: " in out) == (0, True)
    assert labbench("drift", "--predictor", name, "--store", store, "--fail-on-drift")[0] == 1
    assert json.loads(labbench("drift", "--predictor", name, "--store", store, "--json")[1])["refit"] is True
    assert labbench("drift", "--predictor", name, "--store", tmp_path / "none.h5", "--fail-on-drift")[0] == 2


def test_of_three_families_none_can_be_left_out_and_the_predictor_is_kept_without_errors(labbench, tmp_path):
    store = stored(tmp_path / "s.h5", *study(FAMILIES[:3]))
    status, _, err = labbench("fit", "--store", store)
    assert (status, "labbench fit --no-evaluate" in err) == (1, True)
    assert not (tmp_path / "data").exists()
    assert labbench("fit", "--store", store, "--no-evaluate")[0] == 0


def test_a_card_that_nobody_measured_is_predicted_by_its_datasheet(labbench, tmp_path):
    parts = {"accelerators": [{"device": "cuda:0", "name": "NVIDIA GeForce RTX 3090"}]}
    card = ENVIRONMENT.model_copy(update={"machine": parts})
    rows = [
        record(f"{name}-tiny", "eager", law_seconds(footprint(i), "eager") / 300, demand=footprint(i), device="cuda:0")
        for i, name in enumerate(FAMILIES)
    ]
    with Store(tmp_path / "card.h5", writable=True) as opened:
        opened.extend([row.model_copy(update={"environment_id": card.id}) for row in rows], [card])
    store = tmp_path / "card.h5"
    asked = ("predict", "--model", "bert-tiny", "--runtime", "eager", "--store", store)
    status, out, _ = labbench(*asked, "--gpu", "RTX 5090", "--json")
    [row] = json.loads(out)
    assert (status, row["machine_id"], row["latency_s"] > 0) == (0, "RTX 5090", True)
    assert "datasheet of GeForce RTX 5090" in row["reason"]
    status, _, err = labbench(*asked, "--gpu", "RTX 9999")
    assert (status, "no datasheet of one card" in err, "in full" in err) == (1, True, True)
    assert labbench(*asked, "--gpu", "RTX 5090", "--save", "--predictor", "x")[0] == 2


# Bad input


def test_an_unknown_device_gets_a_reason_and_no_number(labbench, full):
    asked = ("predict", "--model", "bert-tiny", "--device", "cuda:7", "--runtime", "eager", "--predictor", full[1])
    status, out, _ = labbench(*asked, "--store", full[0])
    assert status == 0
    assert "nothing was measured on cuda:7/eager" in out
    assert "not predicted" in out
    [row] = json.loads(labbench(*asked, "--store", full[0], "--json")[1])
    assert row["latency_s"] is None


ODD = """
import torch
from labbench import zoo

class Odd(torch.nn.Module):
    def forward(self, x):
        return torch.from_numpy(x.numpy())  # leaves torch, where nobody can count

zoo.register_module("odd-net", Odd, lambda batch: (torch.randn(batch, 4),))
"""


def test_a_model_that_cannot_be_traced_gets_the_cause_and_the_others_are_answered(
    labbench, full, tmp_path, monkeypatch
):
    monkeypatch.setattr(zoo, "_PLUGINS", [])
    (tmp_path / "odd.py").write_text(ODD)
    asked = ("--plugin", "odd.py", "--model", "odd-net", "bert-tiny", "--runtime", "eager", "--predictor", full[1])
    status, out, _ = labbench("predict", *asked, "--store", full[0], "--json")
    assert status == 0
    odd, good = json.loads(out)
    assert odd["latency_s"] is None
    assert "could not count this workload (" in odd["reason"]
    assert good["latency_s"] > 0
    _, out, _ = labbench("predict", *asked, "--store", full[0])
    assert f"1 have no prediction, such as odd-net at batch 1 on cpu/eager: {odd['reason']}." in out


def test_a_predictor_asked_for_another_machine_gives_a_reason_and_no_number(labbench, full, tmp_path):
    store = stored(tmp_path / "s.h5", record(machine_id="m7"))
    asked = ("predict", "--model", "bert-tiny", "--predictor", full[1], "--store", store)
    _, out, _ = labbench(*asked)
    assert (
        "nothing was measured on cpu/eager of machine m7, and neither measurements nor a datasheet tell what cpu" in out
    )
    row = next(one for one in json.loads(labbench(*asked, "--json")[1]) if one["machine_id"] == "m7")
    assert row["latency_s"] is None


def test_a_table_of_operators_that_is_none_is_said_to_be_none(labbench, full, tmp_path):
    (tmp_path / "text.parquet").write_text("no parquet")
    pd.DataFrame({"model": ["bert-tiny"]}).to_parquet(tmp_path / "poor.parquet")
    for name, words in (
        ("nowhere", "no table of operators nowhere.parquet; docs/operators.md says"),
        ("text", "text.parquet: no table of operators: "),
        ("poor", "poor.parquet: no table of operators: the table of operators lacks name, kind"),
    ):
        for command in ("fit", "evaluate"):
            status, out, err = labbench(command, "--store", full[0], "--graphs", f"{name}.parquet")
            assert (status, out, len(err.splitlines())) == (1, "", 1)
            assert words in err


def test_where_the_machine_was_never_quiet_the_way_out_is_told(labbench, tmp_path):
    loud = [one.model_copy(update={"noise": Noise(verdict="unstable")}) for one in STUDY[2:]]
    store = stored(tmp_path / "s.h5", *STUDY[:2], *loud)
    status, _, err = labbench("fit", "--store", store)
    assert status == 1
    assert "34 of 36 measured series are unstable, and the others are of 1 model family: measure again when" in err
    (tmp_path / "c.json").write_text('{"ignore": []}')  # the other way out
    assert labbench("fit", "--store", store, "--config", "c.json", "--no-evaluate")[0] == 0


@pytest.mark.parametrize("command", [["fit"], ["evaluate"], ["predict", "--model", "bert-tiny", "--runtime", "eager"]])
@pytest.mark.parametrize(
    ("records", "words"),
    [
        (None, "no database"),
        ([], "no measured cell with status ok"),
        ([record(status="failed", reason="no")], "no measured cell with status ok"),
        (study(FAMILIES[:1]), "two model families, and there is 1|1 model famil"),
    ],
    ids=["no store", "no record", "no result", "one family"],
)
def test_without_data_every_command_says_what_is_missing(labbench, tmp_path, command, records, words):
    import re

    if records is not None:
        stored(tmp_path / "s.h5", *records)
    status, out, err = labbench(*command, "--store", tmp_path / "s.h5")
    assert status == 1
    assert out == ""
    assert re.search(words, err)
    assert "Traceback" not in err


def test_a_target_with_one_value_gives_that_value_and_an_interval_that_holds_it(labbench, tmp_path):
    same = [
        record(f"{family}-tiny", runtime, 1e-3, demand=footprint(i))
        for i, family in enumerate(FAMILIES)
        for runtime in LAWS
    ]
    store = stored(tmp_path / "s.h5", *same)
    status, out, _ = labbench("evaluate", "--store", store, "--json")
    assert status == 0
    [ours] = [one for one in json.loads(out) if (one["quantity"], one["method"]) == ("latency_s", "labbench")]
    assert ours["coverage"] >= 0.9
    assert ours["mape"] < 0.05
    _, out, _ = labbench("predict", "--model", "bert-tiny", "--batch-size", 2, "--store", store, "--json")
    for row in json.loads(out):  # far outside: near the value, and it says that the interval is not calibrated there
        assert row["latency_s"] == pytest.approx(1e-3, rel=0.15)
        assert row["out_of_domain"]
        assert "not calibrated" in row["reason"]


def test_models_of_the_zoo_are_priced_operator_by_operator_unless_totals_are_asked_for(labbench, tmp_path, monkeypatch):
    """Rows of real models at a made price; what is asked about was never measured, nor ever traced before."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    models = ("bert-tiny", "vit-tiny", "resnet-tiny", "made-1", "made-3")
    works = [zoo.resolve(Workload(model=model, batch_size=batch)) for model in models for batch in (1, 8)]
    demands = [footprint_of(work)["forward"] for work in works]
    rows = [
        record(runtime="eager", seconds=law_seconds(one, "eager"), demand=one, **work.model_dump(exclude_none=True))
        for work, one in zip(works, demands, strict=True)
    ]
    store = stored(tmp_path / "zoo.h5", *rows)
    asked = ("predict", "--store", store, "--model", "convnext-micro", "--json")
    [told] = json.loads(labbench(*asked)[1])
    for name, graphs in (("default", ()), ("zoo", ("--graphs", "zoo")), ("totals", ("--graphs", "none"))):
        status, _, err = labbench("fit", "--store", store, *graphs, "--name", name, "--no-evaluate")
        assert status == 0, err
        [kept] = json.loads(labbench(*asked, "--predictor", name)[1])
        assert (kept == told) == (name != "totals")
        assert ("operators" in kept["method"]) == (name != "totals")
    expected = law_seconds(footprint_of(Workload(model="convnext-micro"))["forward"], "eager")
    assert told["latency_s"] == pytest.approx(expected, rel=0.5)
