"""What comes after the store copes with results that have no samples, no median and no footprint."""

import matplotlib as mpl
import pandas as pd
import pytest
from made import ENVIRONMENT, ENVIRONMENTS, made_frame, record, study

from labbench.analysis import sentences
from labbench.analysis.compare import compare, fastest, summary
from labbench.cells import Cell
from labbench.plots import plot_latency
from labbench.prediction import PredictionError, Predictor, predict_cells
from labbench.records import Record, Series
from labbench.selection import Requirements, select
from labbench.store import Store


def imported(model: str = "resnet50", runtime: str = "eager", mean_s: float = 0.1) -> Record:
    """As timm's tables have it: a mean, and nothing about its spread."""
    series = Series(name="forward", items_per_call=1, unit="samples", n_samples=0, mean_s=mean_s, throughput=1 / mean_s)
    return Record(
        cell=Cell.of(model=model, runtime=runtime, device="cuda:0"), status="ok", provenance="imported", source="timm",
        started_at=None, machine_id="m9", series=[series],
    )  # fmt: skip


ROWS = [imported(), imported(runtime="compile", mean_s=0.05)]
NO_SAMPLES = pd.DataFrame({"record_id": [], "series": [], "process": [], "round": [], "seconds": []})


def test_without_samples_a_ratio_is_given_and_no_verdict():
    [row] = compare(made_frame(*ROWS), NO_SAMPLES, baseline="cuda:0/eager").to_dict("records")
    assert row["speedup"] == 2.0
    assert row["verdict"] == "undecided"
    assert row["provenance"] == "imported"
    assert pd.isna(row["ci_low"])
    assert pd.isna(row["p_adjusted"])
    assert summary(compare(made_frame(*ROWS), NO_SAMPLES, baseline="cuda:0/eager"))["undecided"].tolist() == [1]


def test_a_lead_without_samples_is_nobodys():
    best = fastest(made_frame(*ROWS), NO_SAMPLES)
    assert best["real"].tolist() == [False]
    assert "no samples to judge the lead by" in sentences.winners(best)


def test_a_mean_is_called_a_mean():
    decision = select(made_frame(*ROWS, record()), Requirements())
    text = str(decision)
    assert "50 ms a call (mean, imported)" in text
    assert "1 ms a call (median, measured)" in text
    mpl.use("Agg")
    label = plot_latency(made_frame(*ROWS, record())).get_xlabel()
    assert "hollow: imported" in label
    assert "mean where no median is known" in label
    assert "mean" not in plot_latency(made_frame(record())).get_xlabel()


def test_rows_without_a_footprint_are_told_where_to_get_one():
    with pytest.raises(PredictionError, match=r"no model family .* 2 rows had no footprint, which --graphs gives"):
        Predictor().fit(made_frame(*ROWS), ENVIRONMENTS)


@pytest.mark.slow
def test_predictions_are_made_for_the_machines_that_ran_a_platform(tmp_path):
    with Store(tmp_path / "s.h5", writable=True) as store:
        store.extend([*study(runtimes=("eager", "onnxruntime")), *ROWS], [ENVIRONMENT])
    store = Store(tmp_path / "s.h5")
    predicted = predict_cells(
        store, [Cell.of(model="bert-tiny", batch_size=3), Cell.of(model="bert-tiny", device="mps")]
    )
    assert predicted[["machine_id", "device"]].astype("str").value_counts().to_dict() == {
        ("m1", "cpu"): 1, ("m1", "mps"): 1, ("m9", "mps"): 1,
    }  # fmt: skip
