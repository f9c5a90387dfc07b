"""From a configuration and a store to a plan in text, JSON and a figure."""

import json
from datetime import date
from pathlib import Path

import pytest
from cells_of import run_cells
from made import ENVIRONMENT, made_frame, record, study

from labbench.cli import main
from labbench.config import ConfigError, parse
from labbench.selection import SelectionError
from labbench.selection.fleet import assign, faults, report
from labbench.selection.fleet.config import FleetConfig, fleet_of, read_fleet
from labbench.selection.fleet.growth import growth, growth_sentence
from labbench.store import Store

CONFIG = Path(__file__).parent.parent / "notebooks" / "config" / "fleet_config.json"
PRICE = {
    "device": "cpu",
    "per_hour": 0.5,
    "currency": "EUR",
    "as_of": str(date(2025, 1, 1)),
    "source": "made up for a test",
}


def records():
    return [
        record("bert-tiny", "eager", 20e-3, batch_size=1),
        record("bert-tiny", "onnxruntime", 10e-3, batch_size=1),
        record("bert-tiny", "onnxruntime", 40e-3, batch_size=8),
        record("resnet-tiny", "onnxruntime", 20e-3, batch_size=1),
        record("resnet-tiny", "eager", status="failed", reason="RuntimeError: no such operator", batch_size=1),
    ]


def config(**changes):
    given = {
        "demands": [{"name": "search", "model": "bert-tiny", "batch_size": 1, "per_second": 30, "max_latency_s": 0.2}],
        "kinds": [{"name": "server", "device": "cpu", "count": 3, "memory_bytes": 2e9, "domains": {"zone": "a"}}],
    }
    return parse(FleetConfig, given | changes, "fleet.json")


def fleet(**changes):
    return fleet_of(config(**changes), made_frame(*records()))


def demand(**changes):
    return {"name": "search", "model": "bert-tiny", "per_second": 30, **changes}


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "s.h5", writable=True) as writer:
        for one in records():
            writer.append(one)
    return str(tmp_path / "s.h5")


def test_the_shipped_configuration_is_valid_and_gives_a_plan():
    question = fleet_of(read_fleet(CONFIG), made_frame(*records()))
    assert list(faults(question, assign(question).placements)) == []


def test_options_are_what_was_measured_and_what_failed_keeps_its_reason():
    question = fleet(demands=[demand(), demand(name="photos", model="resnet-tiny")])
    found = {(o.demand, o.name): (o.per_second, question.why_not(o)) for o in question.options}
    assert found["search", "onnxruntime fp32 b8"] == (pytest.approx(200), None)
    assert "no such operator" in found["photos", "eager fp32 b1"][1]


def test_a_request_is_a_call_where_the_batch_is_named_and_an_item_where_it_is_not():
    [named] = fleet(demands=[demand(batch_size=8)]).options
    assert named.per_second == pytest.approx(25)
    limited = fleet(demands=[demand(max_latency_s=1.0)])
    assert ["waits until it is full" in (limited.why_not(o) or "") for o in limited.options] == [False, False, True]


def test_a_device_without_a_record_says_what_to_do():
    kinds = [{"name": "gpu", "device": "cuda:0", "count": 1, "memory_bytes": 1e9}, *config().model_dump()["kinds"]]
    question = fleet(kinds=kinds)
    assert "nothing of bert-tiny was measured on cuda:0" in question.why_not(question.options[0])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"objective": "cost"}, "needs the price of server, and labbench invents none"),
        ({"max_per_hour": 1.0}, "needs the price of server"),
        ({"prices": [PRICE, {**PRICE, "currency": "USD"}]}, "one currency"),
        ({"demands": [demand(model="bert-tny")]}, "did you mean 'bert-tiny'"),
        ({"max_per_hour": 0}, "greater than 0"),
        ({"bussy": 0.5}, "did you mean 'busy'"),
        ({"objective": "energy"}, "idle_w of server is not given"),
    ],
)
def test_a_mistake_is_refused_with_the_way_out(changes, words):
    with pytest.raises(ConfigError, match=words):
        fleet(**changes)


def test_a_shape_that_nobody_measured_is_refused():
    with pytest.raises(SelectionError, match="no record of bert-tiny has batch_size 64; measure it"):
        fleet(demands=[demand(batch_size=64)])


def test_prices_make_cost_the_objective():
    question = fleet(prices=[PRICE], objective="cost")
    assert assign(question).value == pytest.approx(0.5)
    assert question.unit == "EUR an hour"


def test_the_text_says_what_runs_where_and_what_if_it_fails():
    told = report.text(assign(fleet(prices=[PRICE], objective="cost")))
    assert told.startswith("1 server carries 1 workload for 0.5 EUR an hour. No plan costs less.")
    assert "search: 30/s by onnxruntime fp32 b1, 30 % busy, p99 ≤ 200 ms" in told
    assert "Not in use: 2 server." in told
    assert "server 1: search stops" in told
    assert "search: server eager fp32 b1 (shares kind server and zone a)" in told


def test_the_command_prints_the_plan_as_text_and_json_and_draws_it(tmp_path, store, capsys):
    import matplotlib as mpl

    mpl.use("Agg")
    path = tmp_path / "fleet.json"
    path.write_text(config().model_dump_json())
    assert main(["fleet", "--config", str(path), "--store", store]) == 0
    assert "Head-room: all rates may rise by" in capsys.readouterr().out
    assert main(["fleet", "--config", str(path), "--store", store, "--json", "--figure", str(tmp_path / "f.svg")]) == 0
    sent = json.loads(capsys.readouterr().out)
    assert sent["gap"] == 0
    assert sent["devices"][0]["replicas"][0]["demand"] == "search"
    assert "% of its memory" in (tmp_path / "f.svg").read_text()


def test_the_command_tells_what_is_in_conflict_and_fails(tmp_path, store, capsys):
    path = tmp_path / "fleet.json"
    path.write_text(config(demands=[demand(per_second=5000.0)]).model_dump_json())
    assert main(["fleet", "--config", str(path), "--store", store]) == 1
    assert "the rate of search (5,000/s) and the number of server (3) contradict each other" in capsys.readouterr().err
    assert main(["fleet", "--config", str(path), "--store", store, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["shown"] == "smallest"


def test_what_was_not_measured_is_predicted_if_asked_and_says_so(tmp_path, capsys):
    missing = ("bert-tiny", "onnxruntime")
    measured = [r for r in study() if (r.cell.workload.model, r.cell.platform.runtime) != missing]
    with Store(tmp_path / "s.h5", writable=True) as writer:
        writer.extend(measured, [ENVIRONMENT])
    path = tmp_path / "fleet.json"
    path.write_text(config(demands=[demand(runtimes=["onnxruntime"])]).model_dump_json())
    asked = ["fleet", "--config", str(path), "--store", str(tmp_path / "s.h5")]
    assert main(asked) == 1, "nothing was measured there"
    capsys.readouterr()
    assert main([*asked, "--predict", "--json"]) == 0
    replicas = [one for device in json.loads(capsys.readouterr().out)["devices"] for one in device["replicas"]]
    assert {one["known"] for one in replicas} == {"predicted"}


def test_tables_tell_each_replica_failure_and_next_option():
    plan = assign(fleet())
    assert report.replica_table(plan)["by"].tolist() == ["onnxruntime fp32 b1"]
    told = report.failure_table(plan)
    assert told.loc[told["fails"] == "server 1", "what is short"].tolist() == ["search stops"]
    assert report.chain_table(plan)["next"].item().startswith("server eager fp32 b1")


def test_the_load_may_grow_until_devices_run_out_and_the_reason_is_named():
    grown = growth(fleet(), [4.0, 1.0, 100.0, 200.0])
    assert grown["factor"].tolist() == [1, 4, 100], "ends at the first without a plan"
    assert grown["devices"].tolist()[:2] == sorted(grown["devices"].tolist()[:2])
    assert (
        "carries 4 times the rates asked for, not 100 times: no plan keeps every requirement: the rate"
        in growth_sentence(grown)
    )


def test_the_notebook_shows_the_plan_and_ends_in_words_where_models_are_missing(tmp_path, store):
    path = tmp_path / "fleet.json"
    path.write_text(config().model_dump_json())
    shown = run_cells("14_fleet", store_path=store, config_path=str(path), factors=[1, 100])
    assert list(shown)[-1] == "11"
    path.write_text(config(demands=[demand(model="gpt2-tiny")]).model_dump_json())
    assert len(run_cells("14_fleet", store_path=store, config_path=str(path))) == 2, "nothing to show a plan of"
