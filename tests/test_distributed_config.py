"""Configuration, command, report and published runs of simulated training."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from shell import labbench, process

from labbench.config import ConfigError, parse, read
from labbench.distributed import published, report
from labbench.distributed.cluster import Accelerator
from labbench.distributed.config import DistributedConfig, PlanConfig, planned, scaling, training_of, transformer_of
from labbench.notebooks import folder

SMALL = {
    "model": "made",
    "sizes": {"layers": 4, "hidden": 1024, "heads": 8, "sequence": 512, "vocabulary": 8000},
    "ranks": 8,
    "batch": 32,
    "compared_ranks": [16],
}


def test_the_configuration_beside_the_notebooks_is_valid():
    config = read(DistributedConfig, folder() / "config" / "distributed_training_config.json")
    assert transformer_of(config.plan).parameters > 1e9


@pytest.mark.parametrize(
    ("data", "hint"),
    [
        ({"plan": {"rank": 8}}, "did you mean 'ranks'"),
        ({"plan": {"states": "megatrom"}}, "did you mean 'megatron'"),
        ({"plans": {}}, "did you mean 'plan'"),
        ({"plan": {"sizes": {"layers": 1, "hidden": 8, "head": 1}}}, "did you mean 'heads'"),
    ],
)
def test_an_unknown_key_or_value_is_refused_with_the_nearest_known(data, hint):
    with pytest.raises(ConfigError, match=hint):
        parse(DistributedConfig, data, "made")


def test_an_unknown_model_or_device_is_refused_with_a_way_out():
    with pytest.raises(ConfigError, match="did you mean 'gpt3-175b'"):
        transformer_of(PlanConfig(model="gpt3-175"))
    with pytest.raises(ConfigError, match="whole name"):
        Accelerator.of("nothing 9000")


def test_a_language_model_of_the_zoo_is_a_transformer_by_its_configuration():
    model = transformer_of(PlanConfig(model="llama-tiny", sequence=128))
    assert model.sequence == 128
    assert model.gated
    assert not model.dropout
    with pytest.raises(ConfigError, match="give its sizes"):
        transformer_of(PlanConfig(model="resnet-tiny"))


def test_the_command_prints_what_the_function_finds():
    options = ("plan", "--model", "gpt-1.7b", "--ranks", "8", "--batch", "16")
    rows = json.loads(process(*options, "--json", "--rows", "3").stdout)
    assert [row["provenance"] for row in rows] == ["simulated"] * 3
    expected = planned(PlanConfig(model="gpt-1.7b", ranks=8, batch=16)).table["step_s"].iloc[0]
    assert rows[0]["step_s"] == pytest.approx(expected)
    text = labbench(*options, "--memory-gb", "30").stdout
    assert "simulated" in text
    assert "fit into 30 GB" in text


def test_mistakes_of_the_command_are_told_and_end_with_2():
    run = labbench("plan", "--ranks", "12")
    assert run.returncode == 2
    assert "do not fill nodes of 8" in run.stderr


def test_scaling_and_the_whole_training_are_told_in_sentences():
    config = parse(PlanConfig, SMALL, "made")
    sizes = scaling(config)
    assert list(sizes["ranks"]) == [8, 16]
    assert sizes["step_s"].is_monotonic_decreasing
    assert "2 times as many" in report.scaling_sentence(sizes)
    assert "simulated" in report.training_sentence(training_of(config, planned(config)))
    assert "says nothing" in report.scaling_sentence(sizes.head(1))


def test_published_runs_are_simulated_within_the_goal_and_misses_are_named(tmp_path, monkeypatch):
    every = pd.read_csv(published.RUNS)
    kept = every[(every["model"] == "gpt-22b") | (every["source"] == "torchtitan") | (every["model"] == "mpt-1b")]
    kept.groupby("device").head(2).to_csv(tmp_path / "runs.csv", index=False)
    monkeypatch.setattr(published, "RUNS", tmp_path / "runs.csv")
    runs = published.compare()
    megatron = runs[runs["source"] == "megatron-2022"]
    assert (megatron["off"].abs() < published.GOAL).all()
    shares = runs[["compute", "tensor", "gather", "stages", "bubble", "gradients", "update", "weights", "slowest"]]
    assert shares.sum(axis=1).to_numpy() == pytest.approx(1.0)
    told = report.validation_sentence(runs)
    assert f"{int(runs['within'].sum())} of {len(runs)} published runs" in told
    assert ("none of" in told) == (not runs.groupby(["source", "device"])["within"].any().all())
    assert published.summary(runs)["runs"].sum() == len(runs)


def test_every_published_run_names_a_model_a_device_and_states_that_are_known():
    for run in pd.read_csv(published.RUNS).itertuples():
        assert published.model_of(run.model).layers % (run.pipeline * run.chunks) == 0
        assert published.strategy_of(run).micro_batches(run.batch) >= 1
        assert published.device_of(run.device).matmul_flops > 1e14
        assert run.states in published.STATES
