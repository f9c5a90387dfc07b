import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labbench.cells import CELL_FIELDS, Cell, Grid, Workload, by_workload, content_id
from labbench.config import ConfigError, parse

# Frozen: these ids are in people's databases. If this test fails, the code is wrong, not the numbers.
FROZEN_IDS = {
    "160c69fd5858c52a": {"model": "bert-base"},
    "5c164d692a8f868e": {
        "model": "bert-base",
        "batch_size": 8,
        "precision": "bf16",
        "seq_len": 128,
        "runtime": "openvino",
    },
    "741e3293d72a1f05": {"model": "whisper-tiny", "mode": "training", "audio_s": 30.0, "threads": 4, "task": "asr"},
    "bc497d941a86f757": {"model": "modèle-é", "image_size": 224, "frames": 8, "device": "cuda:0", "world_size": 2},
}


@pytest.mark.parametrize(("cell_id", "fields"), FROZEN_IDS.items())
def test_cell_ids_are_the_frozen_ones(cell_id, fields):
    assert Cell.of(**fields).id == cell_id


def test_cell_ids_do_not_depend_on_the_hash_seed_or_process():
    code = "from labbench.cells import Cell; print(Cell.of(model='bert-base').id)"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7"}
    )
    assert run.stdout.strip() == Cell.of(model="bert-base").id


cells = st.builds(
    Cell.of,
    model=st.text(min_size=1, max_size=8),
    batch_size=st.integers(1, 64),
    precision=st.sampled_from(["fp32", "bf16", "int8"]),
    seq_len=st.none() | st.integers(1, 512),
    audio_s=st.none() | st.floats(0.1, 60),
    runtime=st.sampled_from(["eager", "compile"]),
)


@given(cells, cells)
def test_ids_are_equal_exactly_when_cells_are(a, b):
    assert (a.id == b.id) == (a == b)


@given(cells)
def test_a_cell_survives_json(cell):
    again = Cell.model_validate_json(cell.model_dump_json())
    assert again == cell
    assert again.id == cell.id


def test_ids_ignore_fields_left_at_none_so_that_new_optional_fields_rename_nothing():
    assert "seq_len" in Workload.model_fields
    assert Cell.of(model="m").id == content_id(
        {
            "workload": {"model": "m", "mode": "inference", "batch_size": 1, "precision": "fp32"},
            "platform": {"device": "cpu", "runtime": "eager", "world_size": 1},
        }
    )


def test_a_grid_is_the_product_of_its_axes_plus_include_minus_exclude():
    grid = Grid(
        axes={"model": ["a", "b"], "runtime": ["eager", "compile"]},
        include=[{"model": "c", "batch_size": 4}],
        exclude=[{"model": "b", "runtime": ["compile", "openvino"]}],
    )
    found = [(cell.workload.model, cell.platform.runtime, cell.workload.batch_size) for cell in grid.cells()]
    assert found == [("a", "eager", 1), ("a", "compile", 1), ("b", "eager", 1), ("c", "eager", 4)]


def test_a_grid_lists_no_cell_twice():
    grid = Grid(axes={"model": ["a", "a"]}, include=[{"model": "a", "batch_size": 1}])
    assert len(grid.cells()) == 1


@pytest.mark.parametrize(
    ("data", "hint"),
    [
        ({"axes": {"modle": ["a"]}}, "did you mean 'mode"),
        ({"axis": {}}, "did you mean 'axes'?"),
        ({"include": [{"model": "a", "batchsize": 2}]}, "did you mean 'batch_size'?"),
        ({"exclude": [{"runtme": "eager"}]}, "did you mean 'runtime'?"),
    ],
)
def test_an_unknown_key_in_a_grid_is_refused_with_the_nearest_known_one(data, hint):
    with pytest.raises(ConfigError, match="unknown") as error:
        parse(Grid, data, "grid")
    assert hint in str(error.value)


@pytest.mark.parametrize(
    ("fields", "hint"),
    [
        ({"model": "a", "precision": "fp31"}, "did you mean 'fp32'?"),
        ({"model": "a", "mode": "trainning"}, "did you mean 'training'?"),
        ({"model": "a", "batch_size": 0}, "greater than or equal to 1"),
        ({"model": "a", "audio_s": float("nan")}, "audio_s"),
        ({"batch_size": 1}, "model"),
    ],
)
def test_an_impossible_cell_is_refused_with_the_place_and_the_way_out(fields, hint):
    with pytest.raises(ConfigError) as error:
        Cell.of(**fields)
    assert hint in str(error.value)


def test_cells_that_a_reader_compares_are_in_one_group():
    cells = Grid(
        axes={"model": ["a", "b"], "precision": ["fp32", "bf16"], "runtime": ["eager", "compile"], "batch_size": [1, 2]}
    ).cells()
    groups = by_workload(cells)
    assert [len(group) for group in groups] == [4] * 4
    assert sorted(cell.id for group in groups for cell in group) == sorted(cell.id for cell in cells)


def test_every_field_of_a_cell_is_settable_by_name():
    assert set(CELL_FIELDS) == set(Cell.of(model="m").flat())
