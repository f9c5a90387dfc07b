import json
import re
from datetime import date, timedelta
from pathlib import Path

import jsonschema
import pytest
from made import ENVIRONMENT, record, study

from labbench.cli import main
from labbench.selection.document import DecisionDocument, json_schema
from labbench.store import Store

ROOT = Path(__file__).parents[1]
MISSING = ("t5-tiny", "onnxruntime")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("select") / "study.h5"
    records = [r for r in study(scatter=0.1) if (r.cell.workload.model, r.cell.platform.runtime) != MISSING]
    records.append(record("bert-tiny", "openvino", status="unsupported", reason="no conversion for aten::foo"))
    with Store(path, writable=True) as opened:
        opened.extend(records, [ENVIRONMENT])
    return str(path)


@pytest.fixture
def prices(tmp_path):
    path = tmp_path / "prices.csv"
    day = date.today() - timedelta(days=200)
    path.write_text(f"device,per_hour,currency,as_of,source\ncpu,0.36,EUR,{day},an invoice\n")
    return str(path)


def run(capsys, store, *arguments, command="select"):
    code = main([command, "--store", store, *arguments])
    out, err = capsys.readouterr()
    return code, out + err


def test_a_ticket_has_the_decision_its_reasons_chances_exclusions_fallback_and_origin(capsys, store):
    code, text = run(capsys, store, "--model", "bert-tiny", "--max-latency-ms", "0.7", "--probability", "0.9")
    assert code == 0
    assert text.startswith(
        "What was asked: the lowest latency, with median latency at most 700 µs; each limit to be met with at"
    )
    for part in (
        "Run bert-tiny inference b1 on cpu/onnxruntime", "how sure: best among the allowed with more than 99 %",
        "suits: cpu/onnxruntime: support 1.00", "if that fails: cpu/compile", "% over; it meets this with less than 1 %",
        "not cpu/openvino: unsupported: no conversion for aten::foo",
        f"from {store} (36 records of 1 machine", date.today().isoformat(),
        "nothing was predicted",
    ):  # fmt: skip
        assert part in text


def test_with_a_predictor_what_was_not_measured_is_judged_and_named(capsys, store):
    code, text = run(
        capsys, store, "--model", "t5-tiny", "--predict", "--max-latency-ms", "2.9", "--probability", "0.9"
    )
    assert code == 0
    assert re.search(
        r"not cpu/onnxruntime: predicted median latency .* at 90 % certainty > limit 2.9 ms, .* over; it meets", text
    )
    assert "to become sure: labbench run --model t5-tiny --runtime onnxruntime" in text
    assert f"labbench measure-next --question choice --budget 10m --store {store}" in text
    assert "fitted to this store for this decision" in text


def test_the_configuration_is_read_and_options_win_over_it(capsys, store, tmp_path):
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"models": ["bert-tiny"], "objective": "memory", "max_latency_s": 1.0}))
    assert "the least memory, with median latency at most 1 s." in run(capsys, store, "--config", str(path))[1]
    assert "at most 500 ms." in run(capsys, store, "--config", str(path), "--max-latency-ms", "500")[1]


def test_weights_make_several_objectives_one(capsys, store):
    _, text = run(capsys, store, "--model", "bert-tiny", "--weight", "latency=2", "memory=1")
    assert text.startswith("What was asked: the best of latency (weight 2) and memory (weight 1)")


def test_the_json_obeys_the_published_schema(capsys, store, prices):
    published = json.loads((ROOT / "docs" / "decision.schema.json").read_text())
    assert published == json_schema(), "update it: labbench schema --of decision > docs/decision.schema.json"
    assert main(["schema", "--of", "decision"]) == 0
    assert json.loads(capsys.readouterr().out) == published
    validator = jsonschema.Draft202012Validator(published)
    for more in (
        ["--max-latency-ms", "0.7"],
        ["--objective", "cost", "--prices", prices],
        ["--predict"],
        ["--choose-batch"],
    ):
        code, text = run(capsys, store, "--json", "--model", "bert-tiny", "t5-tiny", *more)
        assert code == 0
        sent = json.loads(text)
        validator.validate(sent)
        assert DecisionDocument.model_validate(sent).model_dump(mode="json") == sent
    with pytest.raises(jsonschema.ValidationError):
        validator.validate({**sent, "choices": [{}]})


def test_old_prices_are_warned_of(capsys, store, prices):
    _, text = run(capsys, store, "--model", "bert-tiny", "--objective", "cost", "--prices", prices)
    assert "Note: 1 price is older than 90 days" in text
    assert "EUR per million samples" in text


def test_the_catalogue_lists_devices_and_cards(capsys, store, prices):
    code, text = run(capsys, store, "--gpu", "RTX 4090", "--prices", prices, command="catalogue")
    assert code == 0
    assert "datasheet" in text
    assert "0.36 EUR" in text
    assert "note: 1 price is older" in text


def test_a_card_nobody_measured_is_a_candidate_or_says_why_not(capsys, store):
    code, text = run(capsys, store, "--model", "bert-tiny", "--gpu", "RTX 5090")
    assert code == 0
    assert (
        "not cuda:0/eager on RTX 5090: not measured, and the prediction is no ground to choose: nothing was measured on"
        in text
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "t5-tiny", "--max-memory-gb", "0.01"], "no option meets max_memory_bytes. The nearest is"),
        (["--device", "cpuu"], "unknown device (not in the store) 'cpuu'; did you mean 'cpu'?"),
        (["--gpu", "RTX 99999"], "no datasheet of one card, or of cards that are alike, fits 'RTX 99999'"),
        (["--model", "bert-tny"], "did you mean 'bert-tiny'?; measure it with `labbench run --model bert-tny`"),
        (["--mode", "training"], "no record in the store has mode training"),
        (["--objective", "cost"], "needs prices, and labbench invents none"),
        (["--objective", "speed"], "unknown value 'speed'"),
        (["--weight", "latency"], "--weight latency: write an objective and its weight, e.g. latency=2 cost=1"),
        (["--weight", "speed=1"], "speed"),
        (["--max-cost-per-hour", "0"], "max_cost_per_hour: 0 allows nothing, it must be greater than 0"),
        (["--probability", "1"], "probability: Input should be less than 1"),
        (["--prices", "nowhere.csv"], "cannot read prices nowhere.csv"),
        (["--predictor", "nowhere"], "nowhere"),
    ],
)  # fmt: skip
def test_bad_input_is_answered_with_the_nearest_that_works(capsys, store, arguments, words):
    code, text = run(capsys, store, *arguments)
    assert words in text
    assert (code == 0) == ("nearest is" in words)


def test_a_zero_budget_names_the_cheapest_price(capsys, store, prices):
    code, text = run(capsys, store, "--max-cost-per-hour", "0", "--prices", prices)
    assert code == 2
    assert "the cheapest price given is 0.36 EUR (cpu)" in text


def test_contradictory_limits_name_each_other_and_the_way_out(capsys, tmp_path):
    path = tmp_path / "s.h5"
    with Store(path, writable=True) as opened:
        opened.extend(
            [record(seconds=1e-3, memory=6e8), record(runtime="compile", seconds=5e-3, memory=2e8)], [ENVIRONMENT]
        )
    _, text = run(capsys, str(path), "--max-latency-ms", "2", "--max-memory-gb", "0.3")
    assert "max_latency_s and max_memory_bytes contradict each other here" in text
    assert "The nearest is cpu/eager: relax max_memory_bytes to 600 MB" in text
