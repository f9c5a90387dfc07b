import numpy as np
import pandas as pd
import pytest
from made import CEILINGS, ENVIRONMENTS, FAMILIES, LAWS, footprint, law_seconds, made_frame, record, study

from labbench.config import ConfigError
from labbench.prediction import PredictionConfig, PredictionError, cross_validate, evaluate, leaks
from labbench.prediction.predictor import training_rows
from labbench.prediction.splits import SPLITS, architectures, device_names, folds
from labbench.records import Environment

PLAIN = PredictionConfig(residual="none")
TWO_MACHINES = ENVIRONMENTS | {
    "e2": Environment(machine_id="m2", hostname="host2", machine={"ceilings": {"cpu": CEILINGS}}, software={})
}


def rows_of(*records):
    return training_rows(made_frame(*records), PLAIN)


def two_devices():
    """The study on two devices, the second half as fast."""
    other = [
        record(f"{family}-tiny", runtime, 2 * law_seconds(footprint(i), runtime), demand=footprint(i), machine_id="m2")
        for i, family in enumerate(FAMILIES)
        for runtime in LAWS
    ]
    table = made_frame(*study(), *other)
    names = table["machine_id"].astype("str").map({"m1": "one", "m2": "two"})
    return table.assign(device_name=names)


# What is held out


def test_every_split_tests_rows_it_does_not_train_on():
    tables = {"device": two_devices(), "version": versions()[0]}
    environments = versions()[1] | TWO_MACHINES
    for name in SPLITS:
        table = training_rows(tables.get(name, made_frame(*study())), PLAIN)
        found = folds(name, table, environments, PLAIN)
        assert found, name
        for train, test in found:
            assert len(train)
            assert len(test)
            assert not set(train) & set(test), name


def test_names_that_share_an_operator_graph_are_one_architecture():
    table = rows_of(
        record("resnet-a1_in1k", demand=footprint(3)),
        record("resnet-a2_in1k", demand=footprint(3)),
        record("resnet-deeper", demand=footprint(4)),
        record("odd-uncounted"),
    )
    assert architectures(table).tolist() == ["resnet-a1_in1k", "resnet-a1_in1k", "resnet-deeper", "odd-uncounted"]


def test_models_that_are_known_to_be_one_architecture_stay_one_whatever_is_counted():
    table = rows_of(record("vit-a", demand=footprint(3)), record("vit-b", demand=footprint(4)))
    assert len(set(architectures(table))) == 2
    assert len(set(architectures(table.assign(architecture="vit-a")))) == 1


def test_machines_with_the_same_device_are_one_device():
    table = training_rows(two_devices().assign(device_name="RTX 3090"), PLAIN)
    assert set(device_names(table)) == {"RTX 3090"}
    with pytest.raises(PredictionError, match=r"at least two devices, and there is 1 \(RTX 3090\).*labbench merge"):
        folds("device", table, TWO_MACHINES, PLAIN)


def test_probes_are_whole_cells_of_the_new_device_and_never_tested():
    twice = pd.concat([two_devices(), two_devices().assign(record_id=lambda t: t["record_id"].str[::-1])])
    table = training_rows(twice.reset_index(drop=True), PLAIN)
    devices = device_names(table)
    for train, test in folds("device", table, TWO_MACHINES, PLAIN, probes=3):
        [device] = set(devices[test])
        probed = train[devices[train] == device]
        assert table["cell_id"].iloc[probed].nunique() == 3
        assert not set(table["cell_id"].iloc[probed]) & set(table["cell_id"].iloc[test])


def test_more_probes_than_a_device_has_cells_are_refused():
    with pytest.raises(PredictionError, match="one has 36 cells"):
        folds("device", training_rows(two_devices(), PLAIN), TWO_MACHINES, PLAIN, probes=36)
    with pytest.raises(ConfigError, match="'device' alone"):
        folds("family", training_rows(two_devices(), PLAIN), TWO_MACHINES, PLAIN, probes=3)


def versions():
    """The study under two versions of torch; onnxruntime has one."""
    environments = {
        f"e{torch}": Environment(
            machine_id="m1",
            hostname="host",
            machine={"ceilings": {"cpu": CEILINGS}},
            software={"torch": torch, "onnxruntime": "1.20"},
        )
        for torch in ("2.4", "2.9")
    }
    table = made_frame(*study(), *study())
    second = np.arange(len(table)) >= len(table) // 2
    return table.assign(environment_id=np.where(second, "e2.9", "e2.4")), environments


def test_a_version_is_left_out_of_the_runtimes_that_have_another():
    table, environments = versions()
    found = folds("version", training_rows(table, PLAIN), environments, PLAIN)
    tested = [table.iloc[test] for _, test in found]
    assert [(set(part["runtime"]), set(part["environment_id"])) for part in tested] == [
        ({"compile"}, {"e2.4"}),
        ({"compile"}, {"e2.9"}),
        ({"eager"}, {"e2.4"}),
        ({"eager"}, {"e2.9"}),
    ]


def test_another_version_on_another_machine_is_no_new_version_but_a_new_machine():
    table, environments = versions()
    elsewhere = table.assign(machine_id=np.where(table["environment_id"] == "e2.4", "m1", "m2"))
    with pytest.raises(PredictionError, match="on one machine"):
        folds("version", training_rows(elsewhere, PLAIN), environments, PLAIN)


def test_larger_models_are_larger_than_any_that_was_trained_on():
    table = rows_of(*study())
    [(train, test)] = folds("larger", table, ENVIRONMENTS, PLAIN)
    assert table["parameters"].iloc[train].max() < table["parameters"].iloc[test].min()


@pytest.mark.parametrize(
    ("split", "records", "words"),
    [
        ("device", study(), "at least two devices"),
        ("version", study(), "under two versions on one machine, and there are none"),
        ("family", study(FAMILIES[:1]), "at least two model families, and there is 1 .bert."),
        (
            "larger",
            [record("a-1", demand=footprint(0)), record("b-1", demand=footprint(5))],
            "models of different sizes",
        ),
        ("larger", [record("a-1"), record("b-1")], "known size"),
    ],
)
def test_a_split_that_the_data_cannot_support_says_so(split, records, words):
    with pytest.raises(PredictionError, match=words):
        folds(split, rows_of(*records), ENVIRONMENTS, PLAIN)


def test_an_unknown_split_is_refused_with_the_nearest_one():
    with pytest.raises(ConfigError, match="did you mean 'family'"):
        folds("famly", rows_of(*study()), ENVIRONMENTS, PLAIN)


# Leaks


def planted(split, change):
    """An evaluation of the study with a leak in it."""
    return cross_validate(change(made_frame(*study())), ENVIRONMENTS, PLAIN, split=split)


@pytest.mark.parametrize("split", ["random", "architecture", "family", "larger"])
def test_the_guard_is_silent_on_clean_data(split):
    assert len(planted(split, lambda table: table))


def check(table, train, test, apart):
    leaks.Guard.of(table, apart).check(np.array(train), np.array(test))


def test_a_row_on_both_sides_is_found():
    table = rows_of(*study(FAMILIES[:3], ("eager",)))
    check(table, [0, 1], [2], SPLITS["family"].apart)
    with pytest.raises(PredictionError, match=r"leak: 1 row on both sides.*t5-tiny"):
        check(table, [0, 1], [1, 2], SPLITS["family"].apart)


def test_a_record_on_both_sides_is_found():
    table = rows_of(*study(FAMILIES[:3], ("eager",)))
    table.loc[2, "record_id"] = table.loc[0, "record_id"]
    with pytest.raises(PredictionError, match=r"gpt2-tiny .* same record as bert-tiny"):
        check(table, [0, 1], [2], ("record",))


def test_an_architecture_under_another_tag_is_found():
    table = rows_of(
        record("vit-base", seconds=1.00e-3, demand=footprint(3)),
        record("bert-base", seconds=2e-3, demand=footprint(4)),
        record("supervit-augreg", seconds=1.01e-3, demand=footprint(3)),
    )
    check(table, [0], [1], ("graph",))
    with pytest.raises(PredictionError, match=r"supervit-augreg .* same operator graph as vit-base"):
        check(table, [0, 1], [2], ("graph",))


def test_a_result_that_comes_twice_is_found_whatever_it_is_called():
    table = rows_of(
        record("vit-base", seconds=1.234e-3, demand=footprint(3)),
        record("bert-base", seconds=1.234e-3, demand=footprint(4)),
        record("copy-base", seconds=1.234e-3, demand=footprint(3)),
    )
    check(table, [0], [1], ("result",))
    with pytest.raises(PredictionError, match=r"copy-base .* same measured result"):
        check(table, [0, 1], [2], ("result",))


@pytest.mark.parametrize(
    "derived",
    [
        lambda latency, batch: latency,
        lambda latency, batch: np.log(latency) * 1e3,
        lambda latency, batch: batch / latency,
        lambda latency, batch: latency**2 / batch,
    ],
    ids=["the target", "its logarithm", "throughput", "another function"],
)
def test_a_column_that_tells_the_target_is_found(derived):
    records = [
        record(f"{family}-tiny", runtime, law_seconds(demand, runtime), demand=demand, batch_size=batch)
        for i, family in enumerate(FAMILIES)
        for batch in (1, 8)
        for runtime in LAWS
        for demand in [footprint(i, batch)]
    ]
    clean = rows_of(*records)
    leaks.check_features(clean)
    told = derived(clean["latency_s"].to_numpy(), clean["batch_size"].to_numpy(float))
    with pytest.raises(PredictionError, match="leak: column 'bytes_softmax' is a monotone function of latency_s"):
        leaks.check_features(clean.assign(bytes_softmax=told))


def test_a_planted_leak_ends_the_evaluation():
    with pytest.raises(PredictionError, match="leak: column 'flops_more'"):
        planted("family", lambda table: table.assign(flops_more=1e9 * table["latency_s"]))


# Scores


def test_a_random_split_looks_better_than_an_honest_one_on_families_that_differ():
    """A leak shows where every family has a speed of its own: other rows of the family give it away."""
    draws = np.random.default_rng(0).lognormal(0, 0.7, len(FAMILIES))
    records = [
        record(f"{family}-tiny", "eager", draws[i] * law_seconds(demand, "eager"), demand=demand, batch_size=batch)
        for i, family in enumerate(FAMILIES)
        for batch in (1, 2, 4, 8)
        for demand in [footprint(i, batch)]
    ]
    table = made_frame(*records)
    leaked, honest = (
        evaluate(table, ENVIRONMENTS, PLAIN, split=split).set_index(["quantity", "method"])["mape"]
        for split in ("random", "family")
    )
    method = ("latency_s", "nearest measured cell")
    assert leaked[method] < honest[method]


def test_rows_that_are_refused_are_counted_and_not_scored():
    table = evaluate(two_devices(), TWO_MACHINES, PLAIN, split="device").set_index(["quantity", "method"])
    ours = table.loc[("latency_s", "labbench")]
    assert ours["cells"] + ours["refused"] == 2 * len(FAMILIES) * len(LAWS)
    assert table.loc[("latency_s", "platform median"), "refused"] == 2 * len(FAMILIES) * len(LAWS)
    assert table.loc[("latency_s", "gradient boosting"), "refused"] == 0


def test_with_probes_a_new_device_is_answered_for():
    table = evaluate(two_devices(), TWO_MACHINES, PLAIN, split="device", probes=12).set_index(["quantity", "method"])
    ours = table.loc[("latency_s", "labbench")]
    assert ours["refused"] == 0
    assert ours["mape"] < 0.25


def test_scores_tell_bias_rank_and_time():
    table = evaluate(made_frame(*study()), ENVIRONMENTS, PLAIN).set_index(["quantity", "method"]).loc["latency_s"]
    assert table.loc["roofline, measured ceilings", "bias"] < -0.2  # a bound, and nothing reaches it
    assert abs(table.loc["labbench", "bias"]) < 0.2
    assert table.loc["labbench", "spearman"] > 0.95
    assert (table.drop("labbench, without residual")[["fit_s", "predict_s"]] >= 0).all(axis=None)


def test_baselines_are_what_they_say():
    records = [
        record(f"{f}-tiny", demand=footprint(i), seconds=footprint(i).flops / 1e9) for i, f in enumerate(FAMILIES)
    ]
    table = evaluate(made_frame(*records), ENVIRONMENTS, PLAIN).set_index(["quantity", "method"]).loc["latency_s"]
    assert table.loc["constant FLOP/s", "mape"] == pytest.approx(0, abs=1e-9)
    assert table.loc["log-linear", "mape"] < 0.02
    assert table.loc["platform median", "mape"] > 0.3
