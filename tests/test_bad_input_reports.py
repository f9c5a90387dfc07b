"""The pages of a report on input that has little or too much to tell: a clear sentence or a correct result, no traceback."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
from bs4 import BeautifulSoup
from cells_of import run_cells, text
from made import CEILINGS, ENVIRONMENT, FAMILIES, footprint, made_frame, record, study
from test_imported_rows import NO_SAMPLES, imported

from labbench import kernels
from labbench.analysis.compare import compare
from labbench.analysis.labels import compared
from labbench.notebooks import folder, run
from labbench.plots import plot_speedup
from labbench.publish import publish
from labbench.records import Environment, Record
from labbench.store import Store

mpl.use("Agg")

OTHER = Environment(machine_id="m2", hostname="other", machine={"ceilings": {"cpu": CEILINGS}}, software={})
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
    assert "Nothing is predicted: " in printed


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
