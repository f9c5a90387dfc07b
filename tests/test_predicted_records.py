"""Predictions in a database are never taken for results."""

import io

import pandas as pd
import pytest
from made import ENVIRONMENT, ENVIRONMENTS, FAMILIES, footprint, made_frame, record, study

from labbench.cells import Cell
from labbench.prediction import PredictionConfig, Predictor, candidates, missing
from labbench.prediction.as_records import as_records
from labbench.records import PROVENANCES
from labbench.store import Store

PLAIN = PredictionConfig(residual="none")
ASKED = [Cell.of(model="new-tiny", runtime=name) for name in ("eager", "openvino")]


@pytest.fixture
def predicted(monkeypatch):
    import labbench.footprint

    monkeypatch.setattr(labbench.footprint, "of", lambda workload: {"prefill": footprint(5), "decode": footprint(0)})
    predictor = Predictor(PLAIN).fit(made_frame(*study()), ENVIRONMENTS)
    return predictor.predict(candidates(ASKED, ["m1"]))


def test_a_prediction_becomes_a_record_that_says_what_it_is(predicted):
    [one] = as_records(predicted, ASKED, "predictor laptop")  # openvino was never measured: nothing to keep
    assert (one.provenance, one.status, one.cell, one.machine_id) == ("predicted", "ok", ASKED[0], "m1")
    assert one.source == "predictor laptop: fitted roofline"
    assert [part.name for part in one.series] == ["prefill", "decode"]
    assert one.noise is None
    assert one.environment_id is None
    row = predicted.iloc[0]
    assert one.series[0].latency_s == row["latency_s"]
    assert one.memory.increase_bytes == round(row["memory_increase_bytes"])
    assert one.metrics["prefill_low_s"] == row["latency_low_s"] < row["latency_s"] < one.metrics["prefill_high_s"]
    assert (one.metrics["level"], one.metrics["out_of_domain"]) == (row["level"], 0)


def test_a_predictive_interval_is_not_told_as_one_of_a_measurement(predicted):
    [one] = as_records(predicted, ASKED, "predictor laptop")
    assert one.series[0].median_s.ci_low is None


def test_a_guess_keeps_its_reason(predicted):
    guess = predicted.assign(out_of_domain=True, reason="outside: 9 times the most FLOPs")
    [one] = as_records(guess, ASKED, "predictor laptop")
    assert one.source.endswith("; outside: 9 times the most FLOPs")
    assert one.metrics["out_of_domain"] == 1


# Where results are asked for

FAST = 1e-7  # what nothing can beat, if it is taken for a result


def lies():
    """Predictions that would change every answer: of measured cells and of others."""
    cells = [
        *((f"{family}-tiny", name) for family in FAMILIES[:3] for name in ("eager", "openvino")),
        ("new-tiny", "eager"),
    ]
    return [
        record(model, name, FAST, provenance="predicted", noise="quiet", memory=1, demand=footprint(1), prepare_s=None)
        for model, name in cells
    ]


@pytest.fixture
def stores(tmp_path):
    """The same results without and with predictions, which came last."""
    pair = []
    for name, more in (("without", []), ("with", lies())):
        with Store(tmp_path / f"{name}.h5", writable=True) as store:
            store.extend([*STUDY, *more], [ENVIRONMENT])
        pair.append(Store(tmp_path / f"{name}.h5"))
    return pair


STUDY = study()


def same(stores, question):
    one, other = (question(store) for store in stores)
    if isinstance(one, pd.DataFrame):
        pd.testing.assert_frame_equal(one, other, check_categorical=False)
    else:
        assert one == other


def with_samples(store):
    frame = store.latest(status="ok")
    return frame, store.samples(frame["record_id"])


def test_no_query_gives_predictions_unless_it_names_them(stores):
    plain, mixed = stores
    for query in (Store.latest, Store.frame):
        same(stores, lambda store, query=query: query(store)["record_id"].tolist())
        assert len(query(mixed, provenance="predicted")) == len(lies())
        assert len(query(mixed, provenance=PROVENANCES)) == len(query(plain)) + len(lies())
    same(stores, lambda store: store.coverage([Cell.of(model="new-tiny"), Cell.of(model="bert-tiny")]))
    same(stores, lambda store: len(store.history(Cell.of(model="bert-tiny"))))
    assert len(mixed) == len(plain) + len(lies())


def test_predictions_change_no_comparison(stores):
    from labbench.analysis.compare import compare, fastest

    same(stores, lambda store: compare(*with_samples(store)))
    same(stores, lambda store: fastest(*with_samples(store)))
    plain, mixed = stores[0].latest(), stores[1].latest(provenance=PROVENANCES)
    for judge in (compare, fastest):  # not even if they are handed in
        answers = [judge(frame, stores[0].samples()) for frame in (plain, mixed)]
        pd.testing.assert_frame_equal(*answers, check_categorical=False)


def test_predictions_change_no_choice(stores):
    from labbench.selection import Requirements, select

    same(stores, lambda store: str(select(store.latest(), Requirements())))


def test_predictions_are_no_regression_and_no_history(stores):
    from labbench.analysis.history import runs
    from labbench.analysis.regressions import regressions

    def judged(store):
        return regressions(store.frame(references=True), store.samples(), environments=store.environments())

    same(stores, judged)
    same(stores, lambda store: runs(store.frame(references=True), store.samples(), store.environments()))


def test_predictions_change_no_advice_no_profile_and_no_bottleneck(stores):
    from labbench.analysis import bottlenecks, matrix, profiles, roofline
    from labbench.analysis.opportunities import advise

    same(stores, lambda store: advise(*with_samples(store)))
    same(stores, lambda store: profiles.side_by_side(profiles.of_model(store.latest(), "bert-tiny")))
    same(stores, lambda store: bottlenecks.attribute(roofline.place(store.latest(), store.environments())))
    same(stores, lambda store: matrix.matrix(store.latest()))
    same(stores, lambda store: matrix.coverage(store.latest()).counts)


def test_predictions_are_not_learnt_from_and_hide_no_missing_cell(stores):
    def learnt(store):
        predictor = Predictor(PLAIN).fit(store.latest(), store.environments())
        return predictor.predict(made_frame(record("new-tiny", demand=footprint(5)))).drop(columns="record_id")

    same(stores, learnt)
    same(stores, lambda store: missing(store.latest()))


def test_pins_hold_results_only(stores):
    with Store(stores[1].path, writable=True) as store:
        assert len(store.pin("v1").record_ids) == len(STUDY)


def test_an_export_has_predictions_and_says_so(stores):
    from labbench.transfer import export

    for format, read in (("parquet", pd.read_parquet), ("csv", pd.read_csv)):
        stream = io.BytesIO()
        export(stores[1], stream, format)
        stream.seek(0)
        assert (read(stream)["provenance"] == "predicted").sum() == len(lies())
