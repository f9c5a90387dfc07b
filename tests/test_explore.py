import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from made import ENVIRONMENT, made_frame, record, study

import labbench
from labbench.explorer import FACTS, QUANTITIES, explore, points, sortable_table
from labbench.plots import plot_points
from labbench.store import Store

mpl.use("Agg")


def test_explore_is_a_name_of_the_package_however_often_it_is_used():
    code = "import labbench; first = labbench.explore; assert callable(first) and labbench.explore is first"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_importing_labbench_does_not_load_widgets():
    code = "import labbench, sys; assert 'ipywidgets' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_points_are_in_the_units_of_the_screen():
    table = points(made_frame(record(seconds=2e-3, memory=5e6), record(status="failed", reason="no")))
    [row] = table.to_dict("records")
    assert (row["latency (ms)"], row["memory (MB)"]) == (2.0, 5.0)
    assert row["latency (ms) low"] < 2.0 < row["latency (ms) high"]
    assert set(FACTS) | set(QUANTITIES) <= set(table)


def test_choices_leave_the_rows_that_they_name():
    explorer = explore(made_frame(*study(families=("bert", "vit"))))
    assert len(explorer.rows()) == 6
    explorer.choices["models"].value = ("bert-tiny",)
    explorer.choices["platforms"].value = ("cpu/eager", "cpu/compile")
    assert sorted(explorer.rows()["platform"]) == ["cpu/compile", "cpu/eager"]
    assert set(explorer.rows()["model"]) == {"bert-tiny"}
    explorer.choices["platforms"].value = ()
    assert explorer.rows().empty


@pytest.mark.parametrize("records", [[], [record(status="failed", reason="no")]])
def test_a_store_in_which_nothing_ran_is_told_in_a_sentence(tmp_path, records):
    with Store(tmp_path / "s.h5", writable=True) as store:
        store.extend(records, [ENVIRONMENT])
    explorer = labbench.explore(tmp_path / "s.h5")
    assert "nothing to explore" in explorer.children[0].value


def test_what_was_not_measured_is_hollow_and_named():
    table = points(made_frame(record(), record(runtime="compile", provenance="predicted")))
    assert "hollow: predicted" in plot_points(table, "latency (ms)", "memory (MB)", "platform").get_xlabel()
    assert "hollow" not in plot_points(table[:1], "latency (ms)", "memory (MB)", "platform").get_xlabel()


def test_values_that_a_log_axis_cannot_show_are_counted():
    table = points(made_frame(record(prepare_s=0), record(runtime="compile", prepare_s=1)))
    ax = plot_points(table, "prepare (s)", "latency (ms)", "platform", log_x=True)
    assert "1 not positive, left out" in ax.get_xlabel()
    assert plot_points(table[:1], "prepare (s)", "latency (ms)", "platform", log_x=True).texts, (
        "it says that none is left"
    )


def test_of_very_many_points_a_sample_is_drawn_and_said_to_be_one():
    table = pd.DataFrame({"x": np.arange(1.0, 30_001), "y": 1.0, "model": "m", "provenance": "measured"})
    ax = plot_points(table, "x", "y", "model")
    assert "20,000 of 30,000 points, at random" in ax.get_xlabel()
    assert sum(len(points.get_offsets()) for points in ax.collections) == 20_000


def test_a_table_of_very_many_rows_says_how_many_it_shows():
    html = sortable_table(points(made_frame(*[record(batch_size=size) for size in range(1, 302)])))
    assert "200 of 301 rows" in html
    assert html.count("<tr") == 201
