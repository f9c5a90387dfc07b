"""What benchmarks of training keep is read back with its goals, told and drawn."""

import math

import pytest

from labbench import Store, plots
from labbench.analysis import training_benchmarks
from labbench.cells import Cell
from labbench.records import Record


def kept(batch_size: int, **metrics: float) -> Record:
    cell = Cell.of(model="bert-tiny", mode="training", batch_size=batch_size)
    return Record(cell=cell, status="ok", source="a benchmark", metrics=metrics)


def test_findings_are_ratios_with_goals_that_can_be_missed(tmp_path):
    path = tmp_path / "benchmarks.h5"
    with Store(path, writable=True) as store:
        store.append(kept(4, step_over_plain_loop=1.01, parts_over_step=0.999, turns=90.0))
        store.append(kept(8, largest_batch=95.0, true_largest_batch=100.0, probes=3.0))
        store.append(kept(16, usual_to_target_s=2.0, tpe_to_target_s=0.8, random_to_target_s=1.2, seed=0.0))
        store.append(kept(16, usual_to_target_s=2.0, tpe_to_target_s=1.0, random_to_target_s=1.0, seed=1.0))
        store.append(kept(8, largest_batch=90.0, true_largest_batch=100.0, probes=3.0))  # measured again
    table = training_benchmarks.findings(path)
    assert list(table.loc[table["benchmark"] == "tuning.py, TPE", "ratio"]) == [0.4, 0.5]
    table = table.drop_duplicates("benchmark")
    met = table.assign(met=(table["ratio"] >= table["low"]) & (table["ratio"] <= table["high"])).set_index("benchmark")
    assert met["ratio"].to_dict() == pytest.approx(
        {
            "training_agreement.py": 1.01,
            "training_agreement.py, parts": 0.999,
            "largest_batch.py": 0.9,
            "tuning.py, TPE": 0.4,
            "tuning.py, random": 0.6,
        }
    )
    assert not met["met"]["largest_batch.py"]
    assert not met["met"]["tuning.py, random"]
    assert met["met"].sum() == 3
    text = training_benchmarks.told(table)
    assert "**0.900** in the median; 0 of 1 meet the goal of 0.95 to 1.05" in text
    ax = plots.plot_findings(table)
    drawn = [x for line in ax.lines for x in line.get_xdata() if not math.isnan(float(x))]
    assert set(table["ratio"]) <= set(drawn)


def test_without_benchmarks_a_sentence_says_how_to_get_them(tmp_path):
    table = training_benchmarks.findings(tmp_path / "none.h5")
    assert "benchmarks/training_memory.py" in training_benchmarks.told(table)
    assert "no benchmark" in plots.plot_findings(table).texts[0].get_text()
    assert not list(tmp_path.iterdir())
