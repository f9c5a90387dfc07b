import math
from datetime import date, timedelta

import pytest
from made import ENVIRONMENT, ENVIRONMENTS, made_frame, record, study

from labbench.cells import Cell
from labbench.config import ConfigError
from labbench.prediction import PredictionConfig, Predictor
from labbench.records import Environment
from labbench.selection import Price, Requirements, read_prices, read_requirements, select
from labbench.selection.catalogue import Facts, card_rows, catalogue, facts_of, vendor_of
from labbench.selection.prices import OLD_DAYS, price_notes
from labbench.selection.report import catalogue_table

TODAY = date.today()
HEAD = "device,per_hour,currency,as_of,source\n"


def written(tmp_path, text):
    path = tmp_path / "prices.csv"
    path.write_text(text)
    return path


def test_prices_are_read_from_a_file_in_any_order_of_columns(tmp_path):
    path = written(tmp_path, 'source,device,per_hour,as_of,currency\n"a bill, paid", cpu ,0.5,2025-03-01,EUR\n')
    assert read_prices(path) == [
        Price(device="cpu", per_hour=0.5, currency="EUR", as_of=date(2025, 3, 1), source="a bill, paid")
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("device,per_our,currency,as_of,source\n", "unknown column 'per_our'; did you mean 'per_hour'"),
        ("device,per_hour,currency,source\n", "no column as_of"),
        (HEAD + "cpu,cheap,EUR,2025-01-01,bill\n", ":2: per_hour"),
        (HEAD + "cpu,0,EUR,2025-01-01,bill\n", "greater than 0"),
        (HEAD + "cpu,1,EUR,01.02.2025,bill\n", "as_of"),
        (HEAD + f"cpu,1,EUR,{TODAY + timedelta(days=3)},bill\n", "has not come yet"),
        (HEAD + "cpu,1,EUR,2025-01-01\n", "5 values are needed"),
        (HEAD + "cpu,1,EUR,2025-01-01,a bill, paid\n", "quote one that holds a comma"),
    ],
)
def test_a_mistake_in_a_price_file_is_refused_with_its_place(tmp_path, text, words):
    with pytest.raises(ConfigError, match=words):
        read_prices(written(tmp_path, text))


def test_a_price_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read prices .*none\.csv: No such file"):
        read_prices(tmp_path / "none.csv")


def test_a_configuration_finds_its_price_file_beside_it_and_its_own_prices_win(tmp_path):
    written(tmp_path, HEAD + "cpu,1,EUR,2025-01-01,bill\ncuda:0,3,EUR,2025-01-01,bill\n")
    (tmp_path / "c.json").write_text(
        '{"objective": "cost", "prices_file": "prices.csv", "prices": [{"device": "cpu", "per_hour": 2, "currency": "EUR", '
        '"as_of": "2025-02-01", "source": "newer"}]}'
    )
    found = read_requirements(tmp_path / "c.json")
    assert (found.price_of("cpu").per_hour, found.price_of("cuda:0").per_hour) == (2, 3)


def test_old_prices_and_prices_for_nothing_here_are_told():
    def price(name, days):
        return Price(device=name, per_hour=1, currency="EUR", as_of=TODAY - timedelta(days=days), source="bill")

    assert price_notes([price("cpu", OLD_DAYS)], {"cpu"}) == []
    old, strange = price_notes([price("cpu", OLD_DAYS + 1), price("cpus", 1)], {"cpu"})
    assert f"1 price is older than {OLD_DAYS} days" in old
    assert f"{OLD_DAYS + 1} days: look them up again" in old
    assert strange == "the price of 'cpus' fits no device here; did you mean 'cpu'?"


def test_several_processes_pay_for_several_devices():
    price = {"device": "cpu", "per_hour": 0.5, "currency": "EUR", "as_of": "2025-01-01", "source": "bill"}
    table = made_frame(record(), record(world_size=4))
    options = select(table, read_requirements(prices=[price])).options.set_index("platform")
    assert options.loc["cpu/eager×4", "cost_per_hour"] == 4 * options.loc["cpu/eager", "cost_per_hour"] == 2.0


@pytest.mark.parametrize(
    ("name", "vendor"),
    [("NVIDIA A100-SXM4-40GB", "NVIDIA"), ("Tesla V100-SXM2-16GB", "NVIDIA"), ("AMD EPYC 7763 64-Core", "AMD"),
     ("Intel(R) Xeon(R) CPU @ 2.20GHz", "Intel"), ("RTX 4090", "NVIDIA"), ("a100", "NVIDIA"), ("made", None)],
)  # fmt: skip
def test_a_device_is_known_by_its_name(name, vendor):
    assert vendor_of(name) == vendor


def test_what_was_detected_comes_before_the_datasheet():
    parts = {"accelerators": [{"device": "cuda:0", "name": "NVIDIA H100 PCIe", "memory_bytes": 79e9}]}
    here = ENVIRONMENT.model_copy(update={"machine": parts})
    assert facts_of("m1", "cuda:0", "NVIDIA H100 PCIe", {here.id: here}).memory_bytes == 79e9
    sheet = facts_of("elsewhere", "cuda:0", "NVIDIA H100 PCIe", {})
    assert (sheet.memory_bytes, sheet.architecture) == (80e9, "Hopper")
    assert math.isnan(facts_of("m1", "cuda:0", "made", {}).memory_bytes)
    limited = ENVIRONMENT.model_copy(update={"machine": {"memory_bytes": 64e9, "memory_limit_bytes": 8e9}})
    assert facts_of("m1", "cpu", None, {limited.id: limited}).memory_bytes == 8e9


def test_a_card_lacks_what_came_later():
    assert "came with Ampere" in Facts("NVIDIA", 16e9, "Volta").lacks("bf16")
    assert Facts("NVIDIA", 16e9, "Ampere").lacks("bf16") is None
    assert "came with Pascal" in Facts("NVIDIA", 16e9, "Maxwell").lacks("fp16")


def test_a_card_that_no_datasheet_knows_is_refused():
    table = made_frame(record())
    with pytest.raises(ConfigError, match="no datasheet of one card"):
        card_rows(table, table, ["RTX 9999999"])


def test_the_catalogue_says_how_each_device_is_known_and_what_it_costs():
    price = {"device": "RTX 4090", "per_hour": 0.4, "currency": "EUR", "as_of": "2025-01-01", "source": "bill"}
    found = catalogue(made_frame(record()), ENVIRONMENTS, Requirements(gpus=["RTX 4090"], prices=[price]))
    assert found["known"].tolist() == ["measured", "datasheet"]
    card = found.set_index("device_name").loc["RTX 4090"]
    assert (card["vendor"], card["per_hour"], card["age_days"]) == ("NVIDIA", 0.4, (TODAY - date(2025, 1, 1)).days)
    assert card["memory_bytes"] > 20e9
    assert catalogue_table(found)["per hour"].tolist() == ["–", "0.4 EUR"]


# Cards that nobody measured


CARD = Environment(
    machine_id="g1", hostname="host", software={},
    machine={"accelerators": [{"device": "cuda:0", "name": "RTX 4090", "memory_bytes": 24e9}]},
)  # fmt: skip


def on_card(precision="fp32"):
    """A study of made cells on a card."""
    cells = study(runtimes=("eager", "compile"), scatter=0.1)
    where = {"device": "cuda:0", "precision": precision}
    return [
        one.model_copy(
            update={
                "cell": Cell.of(model=one.cell.workload.model, runtime=one.cell.platform.runtime, **where),
                "device_name": "RTX 4090",
                "machine_id": "g1",
            }
        )
        for one in cells
    ]


@pytest.fixture(scope="module")
def cards():
    table = made_frame(*on_card(), *on_card("bf16"))
    return table, Predictor(PredictionConfig(residual="none")).fit(table, {CARD.id: CARD})


def test_a_card_of_a_datasheet_competes_and_every_number_of_it_says_predicted(cards):
    table, predictor = cards
    asked = read_requirements(
        models=["bert-tiny"], gpus=["RTX 3090", "RTX 5090"], latency_percentile=99, probability=0.8
    )
    choice = select(table, asked, predictor).choices[0]
    found = {option["option"]: option for option in choice.ranked}
    new = {name: option for name, option in found.items() if "RTX" in name}
    assert set(new) == {
        f"cuda:0/{runtime}{precision} on {name}"
        for runtime in ("eager", "compile") for precision in ("", " bf16") for name in asked.gpus
    }  # fmt: skip
    for option in new.values():
        assert option["predicted"]
        assert option["latency_low_s"] < option["latency_s"] < option["latency_high_s"]
        assert option["vendor"] == "NVIDIA"
        assert option["device_memory_bytes"] > 20e9
    assert not any(option["predicted"] for name, option in found.items() if name not in new)


def test_a_card_is_not_asked_for_a_precision_that_it_has_no_arithmetic_for(cards):
    table, predictor = cards
    asked = read_requirements(models=["bert-tiny"], gpus=["Tesla V100 SXM2 16 GB"])
    choice = select(table, asked, predictor).choices[0]
    lacking = {option["option"]: found for option, found in choice.excluded}
    assert set(lacking) == {f"cuda:0/{one} bf16 on Tesla V100 SXM2 16 GB" for one in ("eager", "compile")}
    assert all(found[0].requirement == "capability" for found in lacking.values())
    assert len([option for option in choice.ranked if option["predicted"]]) == 2


def test_a_model_whose_demand_nobody_counted_cannot_be_predicted_for_a_card(cards):
    table = made_frame(record())
    with pytest.raises(ConfigError, match="nothing can be predicted for RTX 4090"):
        select(table, read_requirements(gpus=["RTX 4090"]), cards[1])
