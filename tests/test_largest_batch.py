"""The largest batch whose predicted peak of memory fits."""

import json

import numpy as np
import pytest
from made import ENVIRONMENT, study

from labbench.campaign import resolve
from labbench.cells import Cell
from labbench.cli import main
from labbench.prediction import PredictionError, Predictor, candidates, largest_batches, memory_of
from labbench.prediction.batch_limits import CONTEXT_BYTES
from labbench.prediction.features import MEMORY
from labbench.prediction.largest_batch import MOST
from labbench.store import Store

GB = 10**9
HERE = {("m1", "cpu"): 4e9}
CELL = Cell.of(model="vit-tiny", runtime="eager", device="cpu")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "s.h5"
    machine = ENVIRONMENT.machine | {"memory_bytes": 16 * GB}
    with Store(path, writable=True) as one:
        one.extend(study(), [ENVIRONMENT.model_copy(update={"machine": machine})])
    return path


@pytest.fixture(scope="module")
def predictor(store):
    one = Store(store)
    return Predictor().fit(one.latest(), one.environments())


def asked(predictor, room, cell=CELL):
    [row] = largest_batches(predictor, resolve([cell]), room).to_dict("records")
    return row


def needed(predictor, batch):
    cell = Cell(workload=CELL.workload.model_copy(update={"batch_size": batch}), platform=CELL.platform)
    [row] = predictor.predict(candidates(resolve([cell]), ["m1"])).to_dict("records")
    return row[MEMORY], row["memory_increase_high_bytes"]


def test_the_peak_predicted_at_the_largest_batch_fits_and_at_a_larger_one_does_not(predictor):
    found = asked(predictor, HERE)
    room = HERE["m1", "cpu"] - CONTEXT_BYTES
    assert needed(predictor, int(found["batch_size"]))[0] == pytest.approx(room, rel=0.03)
    assert needed(predictor, int(found["batch_size"] * 1.1))[0] > room
    assert needed(predictor, int(found["safe_batch_size"] * 0.95))[1] < room
    assert 0 < found["safe_batch_size"] < found["batch_size"]
    assert found["provenance"] == "predicted"


def test_more_memory_never_means_a_smaller_batch_and_too_little_means_none(predictor):
    sizes = [asked(predictor, {("m1", "cpu"): room})["batch_size"] for room in (CONTEXT_BYTES + 1e6, 1e9, 8e9, 1e18)]
    assert sizes == sorted(sizes)
    assert (sizes[0], sizes[-1]) == (0, MOST)


def test_the_batch_size_of_a_cell_does_not_matter(predictor):
    other = Cell(workload=CELL.workload.model_copy(update={"batch_size": 32}), platform=CELL.platform)
    assert asked(predictor, HERE, other)["batch_size"] == asked(predictor, HERE)["batch_size"]
    assert len(largest_batches(predictor, resolve([CELL, other]), HERE)) == 1


def test_what_cannot_be_predicted_has_no_batch_and_says_why(predictor):
    found = asked(predictor, HERE, Cell.of(model="vit-tiny", runtime="eager", device="cpu", threads=3))
    assert np.isnan(found["batch_size"])
    assert found["reason"]


def test_memory_is_that_of_the_machine_of_the_datasheet_or_what_is_said(store):
    assert memory_of(Store(store).environments()) == {("m1", "cpu"): 16 * GB}
    assert memory_of(Store(store).environments(), bytes_each=GB) == {("m1", "cpu"): GB}
    [(place, size)] = memory_of({}, "RTX 4090").items()
    assert (place, round(size / GB)) == (("RTX 4090", "cuda:0"), 24)
    with pytest.raises(PredictionError, match="--memory-gb"):
        memory_of({}, "no such card")


def test_memory_that_nobody_measured_or_knows_is_refused_with_the_way_out(predictor):
    with pytest.raises(PredictionError, match="--memory-gb"):
        largest_batches(predictor, resolve([CELL]), {})
    blind = Predictor(quantities={"latency_s": predictor.quantities["latency_s"]}, domain=predictor.domain)
    with pytest.raises(PredictionError, match="labbench run"):
        largest_batches(blind, resolve([CELL]), HERE)


def test_the_command_prints_a_table_or_json_and_refuses_what_makes_no_sense(store, capsys):
    command = ["predict", "--model", "vit-tiny", "--runtime", "eager", "--store", str(store), "--largest-batch"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "largest batch" in out
    assert "predicted" in out
    assert main([*command, "--memory-gb", "4", "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)
    assert (row["memory_bytes"], row["batch_size"] > 0) == (4 * GB, True)
    assert main([one for one in command if one != "--largest-batch"] + ["--memory-gb", "4"]) == 2
    assert "--largest-batch" in capsys.readouterr().err
