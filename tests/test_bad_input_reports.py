"""The pages of a report on input that has little or too much to tell: a clear sentence or a correct result, no traceback."""

import re
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from cells_of import run_cells, text
from made import CEILINGS, ENVIRONMENT, FAMILIES, LAWS, footprint, made_frame, record, study, very_many
from test_imported_rows import NO_SAMPLES, imported

from labbench import kernels, plots
from labbench.analysis import matrix, profiles, sentences
from labbench.analysis.compare import compare
from labbench.analysis.few import at_most
from labbench.analysis.labels import compared
from labbench.notebooks import folder, run
from labbench.plots import plot_speedup
from labbench.publish import publish
from labbench.records import Environment, Record
from labbench.store import Store

mpl.use("Agg")

OTHER = Environment(machine_id="m2", hostname="other", machine={"ceilings": {"cpu": CEILINGS}}, software={})
MOST_BYTES = 5_000_000  # of a page: a phone opens it
PAGES = ("02_compare", "05_model_profile", "05_platform_profile")


@pytest.fixture(autouse=True)
def _in_the_notebooks_folder(monkeypatch):
    monkeypatch.chdir(folder())
    yield
    plt.close("all")


def moved(record: Record) -> Record:
    """The same result from the other machine."""
    return record.model_copy(
        update={"record_id": f"m2{record.record_id[2:]}", "environment_id": OTHER.id, "machine_id": OTHER.machine_id}
    )


def two_machines() -> list[Record]:
    here = study(FAMILIES[:2], ("eager", "onnxruntime"))
    slower = [moved(record(f"{f}-tiny", r, 0.01)) for f in FAMILIES[:2] for r in ("eager", "onnxruntime")]
    return [*here, *slower]


STORES = {
    "empty": lambda: [],
    "one": lambda: [record(demand=footprint(1))],
    "failed": lambda: [
        record(status="failed", reason="it broke"),
        record(runtime="compile", status="out_of_memory", reason="too large"),
        record("vit-tiny", status="unsupported", reason="no such operator"),
    ],
    "machines": two_machines,
    "imported": lambda: [imported(), imported(runtime="compile", mean_s=0.05), imported("vit")],
}


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("stores")
    for name, records in STORES.items():
        with Store(place / f"{name}.h5", writable=True) as store:
            store.extend(records(), [ENVIRONMENT, OTHER])
    return {name: place / f"{name}.h5" for name in STORES}


EXPECTED = {
    ("02_compare", "empty"): ["There is nothing to compare.", "Nothing was measured."],
    ("02_compare", "one"): ["ran on one platform only", "No workload has known starting costs", "Every cell ran."],
    ("02_compare", "failed"): ["3 cells did not run", "`bert-tiny` on `cpu/compile`: out of memory: too large"],
    ("02_compare", "machines"): ["clearly the fastest in 2 of 4 comparisons", "from the first call on"],
    ("02_compare", "imported"): [
        "No platform is clearly the fastest in any of 1 comparison", "`cuda:0/compile` **×2.00**", "No workload has known",
    ],
    ("05_model_profile", "empty"): ["Nothing was measured."],
    ("05_model_profile", "one"): ["`bert-tiny` has 1 record on 1 platform", "**1 of 1 cell is not clearly dominated**"],
    ("05_model_profile", "failed"): ["`bert-tiny` has 2 records on 2 platforms: 1 failed", "out of memory: too large"],
    ("05_model_profile", "machines"): ["`bert-tiny` has 4 records on 2 platforms", "machine m1", "machine m2"],
    ("05_model_profile", "imported"): ["`resnet50` has 2 records on 2 platforms: 2 ok, 2 imported"],
    ("05_platform_profile", "empty"): ["Nothing was measured."],
    ("05_platform_profile", "one"): ["`cpu/eager` has 1 record of 1 model", "takes 1.00 ms [0.990 to 1.01 ms] (`bert-tiny`)"],
    ("05_platform_profile", "failed"): ["`cpu/eager` has 2 records of 2 models: 1 failed, 1 unsupported"],
    ("05_platform_profile", "machines"): ["`cpu/eager` has 4 records of 2 models", "· machine m2`"],
    ("05_platform_profile", "imported"): ["`cuda:0/eager` has 2 records of 2 models: 2 ok, 2 imported"],
}  # fmt: skip


@pytest.mark.parametrize(("name", "kind"), EXPECTED)
def test_a_page_runs_to_its_end_and_says_what_there_is(stores, name, kind):
    said = text(run_cells(name, store_path=str(stores[kind])))
    assert [sentence for sentence in EXPECTED[name, kind] if sentence not in said] == []


@pytest.mark.parametrize("kind", ["empty", "failed", "one", "imported"])
def test_too_few_families_to_predict_from_end_the_page_in_words(stores, kind, capsys):
    *_, last = run_cells("03_predict", store_path=str(stores[kind])).values()
    assert isinstance(last, SystemExit)
    assert last.code == 0, "papermill then takes the notebook for complete"


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("one", "Run bert-tiny inference b1 on cpu/eager"),
        ("failed", "no option ran here"),
        ("machines", "is the fastest choice for 2 of 2 workloads"),
        ("imported", "was not measured"),
    ],
)
def test_what_was_measured_is_chosen_from_where_nothing_can_be_predicted(stores, kind, said, capsys):
    shown = run_cells("04_select", store_path=str(stores[kind]))
    printed = capsys.readouterr().out
    assert said in printed + text(shown)
    assert "Nothing is predicted: " in text(shown)


def test_an_empty_store_ends_the_page_of_decisions_in_words(stores):
    *_, last = run_cells("04_select", store_path=str(stores["empty"])).values()
    assert isinstance(last, SystemExit)


def page_of(tmp_path: Path, name: str, store: Path) -> tuple[Any, BeautifulSoup]:
    result = run(folder() / f"{name}.ipynb", tmp_path / f"{name}.ipynb", {"store_path": str(store)}, progress=False)
    publish([result.output], tmp_path / "site", title="study", headline="It ran.")
    return result, BeautifulSoup((tmp_path / "site" / f"{name}.html").read_text(), "html.parser")


@pytest.fixture(scope="module")
def _kernels():
    yield
    kernels.stop()


@pytest.mark.usefixtures("_kernels")
def test_the_page_of_a_missing_store_says_how_to_make_one_and_shows_no_traceback(tmp_path):
    result, page = page_of(tmp_path, "05_model_profile", tmp_path / "nowhere.h5")
    assert result.status == "failed"
    [failure] = page.select(".cell .failure")
    assert "no database at" in failure.get_text()
    assert "labbench run --store" in failure.get_text()
    assert "Traceback" not in page.get_text()


@pytest.mark.usefixtures("_kernels")
def test_a_page_that_ends_early_is_complete_and_stops_there(tmp_path, stores):
    result, page = page_of(tmp_path, "03_predict", stores["empty"])
    assert result.status == "ok"
    said = page.get_text()
    assert "No measured cell with status ok to learn from" in said
    assert "So this page ends here." in said
    assert "SystemExit" not in said
    assert "To exit" not in said
    index = (tmp_path / "site" / "index.html").read_text()
    assert "No measured cell with status ok" in index, "it is the page's answer"
    assert "did not finish" not in index


# --- very many rows ---------------------------------------------------------------------------------------------------


def test_of_very_many_rows_the_smallest_batches_of_all_models_are_kept_with_all_their_platforms(tmp_path):
    assert very_many(tmp_path / "s.h5", models=30, batches=5) == 450
    everything = Store(tmp_path / "s.h5").latest()
    few = at_most(everything, 200)
    assert len(few) == 198
    assert few["model"].nunique() == 30
    assert set(few.groupby(["model", "batch_size"], observed=True)["runtime"].nunique()) == {3}
    assert few["batch_size"].value_counts().loc[[1, 2]].tolist() == [90, 90]
    assert at_most(everything, 450) is everything
    assert "Of 450 results 198 are shown and compared here" in sentences.left_out(everything, few)
    assert sentences.left_out(everything, everything) == ""


def test_more_models_than_fit_are_drawn_by_lot_and_the_same_every_time(tmp_path):
    very_many(tmp_path / "s.h5", models=30, batches=1)
    everything = Store(tmp_path / "s.h5").latest()
    few = at_most(everything, 30)
    assert len(few) == 30
    assert few["model"].nunique() == 10
    assert few.equals(at_most(everything, 30))


@pytest.fixture(scope="module")
def million(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("million") / "s.h5"
    assert very_many(path, models=2000, batches=167) >= 1_000_000
    return path


@pytest.mark.full
@pytest.mark.usefixtures("_kernels")
@pytest.mark.parametrize("name", PAGES)
def test_a_million_rows_make_a_page_that_a_browser_can_open(tmp_path, million, name):
    result, page = page_of(tmp_path, name, million)
    assert result.status == "ok", result.error
    sampled = re.search(r"results (9,9\d\d|10,000) are shown", page.get_text())
    assert (sampled is None) == (name == "05_model_profile"), "a model has 501 rows, which are all shown"
    assert (tmp_path / "site" / f"{name}.html").stat().st_size < MOST_BYTES


# --- names that tell comparisons apart --------------------------------------------------------------------------------


def test_a_model_at_two_sizes_is_two_rows_of_a_comparison_with_two_names():
    cells = [
        record("vit-base", runtime, seconds, image_size=size)
        for size in (224, 384)
        for runtime, seconds in (("eager", 2e-3), ("compile", size * 1e-5))
    ]
    found = compare(made_frame(*cells), NO_SAMPLES)
    assert sorted(found["work"]) == ["vit-base · 224 px", "vit-base · 384 px"]
    rows = [label.get_text() for label in plot_speedup(found).get_yticklabels()]
    assert rows == ["vit-base · 224 px", "vit-base · 384 px"]


def test_a_model_on_two_machines_is_two_rows_of_a_comparison():
    found = compare(made_frame(*two_machines()), NO_SAMPLES)
    assert set(found["work"]) == {f"{f}-tiny · machine {m}" for f in FAMILIES[:2] for m in ("m1", "m2")}


def test_what_is_compared_is_not_told_and_a_platform_only_where_a_model_has_several():
    cells = [
        record("vit", runtime, 1e-3, machine_id=machine) for runtime in ("eager", "compile") for machine in ("m1", "m2")
    ]
    cells += [record("bert", "eager", 1e-3, machine_id=machine) for machine in ("m1", "m2")]
    found = compare(made_frame(*cells), NO_SAMPLES, by="machine_id", baseline="m1")
    assert sorted(found["work"]) == ["bert", "vit · cpu/compile", "vit · cpu/eager"]
    assert sorted(compared(found, "platform")) == ["bert", "vit", "vit"]


# --- figures whose text stays within them -----------------------------------------------------------------------------

LONG = "vit_base_patch16_clip_quickgelu"


def crowded(
    models: int, devices: tuple[str, ...] = ("cuda:0", "cpu"), runtimes: tuple[str, ...] = tuple(LAWS)
) -> pd.DataFrame:
    return made_frame(
        *(
            record(
                f"{LONG}_{224 + i}", runtime, 1e-3 * (1 + i) * (1 + k / 3) * (1 + j), device=device, precision=precision
            )
            for i in range(models)
            for j, device in enumerate(devices)
            for k, runtime in enumerate(runtimes)
            for precision in (("fp32", "bf16") if device != "cpu" else ("fp32",))
        )
    )


def outside(ax: Any) -> list[str]:
    """Texts of a figure that reach beyond it, as the layout has placed them."""
    figure = ax.figure.get_figure(root=True)
    figure.canvas.draw()
    room = figure.bbox.padded(2)
    far = {label for one in figure.axes for axis in (one.xaxis, one.yaxis) for label in _out_of_view(axis)}
    texts = [text for text in figure.findobj(mpl.text.Text) if text.get_visible() and text.get_text().strip()]
    return [text.get_text() for text in texts if text not in far and not _within(text.get_window_extent(), room)]


def _out_of_view(axis: Any) -> list[Any]:
    """Labels of ticks beyond the axis' ends, which are not drawn."""
    low, high = sorted(axis.get_view_interval())
    far = [tick for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()) if not low <= tick.get_loc() <= high]
    return [label for tick in far for label in (tick.label1, tick.label2)]


def _within(inner: Any, outer: Any) -> bool:
    return inner.x0 >= outer.x0 and inner.x1 <= outer.x1 and inner.y0 >= outer.y0 and inner.y1 <= outer.y1


@pytest.mark.parametrize("models", [1, 12, 60], ids=["one", "rows", "distribution"])
def test_the_texts_of_crowded_figures_stay_within_them(models):
    plots.theme()
    frame = crowded(models)
    found = compare(frame, NO_SAMPLES)
    pairs = crowded(models, devices=("cpu",), runtimes=("eager", "onnxruntime"))
    profile = profiles.of_model(frame, f"{LONG}_224")
    drawn = [
        plots.plot_latency(frame), plots.plot_latency(pairs), plots.plot_speedup(found), plots.plot_one_off(frame),
        plots.plot_matrix(matrix.matrix(frame)), plots.plot_cold_start(profiles.cold_start(profile)),
        plots.plot_curve(profiles.over_batch(profile)), plots.plot_pareto(profiles.pareto(profiles.over_batch(profile))),
    ]  # fmt: skip
    assert [outside(ax) for ax in drawn] == [[]] * len(drawn)


def test_a_text_that_is_cut_would_be_seen():
    figure, ax = plt.subplots(figsize=(2, 2), layout="constrained")
    ax.set_xlabel("a label that is far too long for such a small figure")
    assert outside(ax) == ["a label that is far too long for such a small figure"]
    plt.close(figure)
