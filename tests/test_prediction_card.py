import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap

import joblib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made import ENVIRONMENTS, FAMILIES, LAWS, footprint, made_frame, record, study

from labbench.config import ConfigError
from labbench.prediction import PredictionConfig, PredictionError, Predictor, cross_validate
from labbench.prediction import card as cards
from labbench.prediction.card import data_sha256, folder_of, load, read_card, save, saved
from labbench.prediction.predictor import training_rows

PLAIN = PredictionConfig(residual="none")


@pytest.fixture(scope="module")
def frame():
    return made_frame(*study())


@pytest.fixture(scope="module")
def fitted(frame):
    return Predictor(PLAIN).fit(frame, ENVIRONMENTS)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "predictors" / "laptop"


def test_a_kept_predictor_predicts_what_it_did(fitted, frame, folder):
    save(fitted, folder, frame)
    asked = made_frame(record("new-tiny", demand=footprint(5)))
    kept = load(folder)
    pd.testing.assert_frame_equal(kept.predictor.predict(asked), fitted.predict(asked))
    assert kept.record_ids == set(frame["record_id"])


def test_a_card_tells_what_was_learnt_from_and_how_wrong_it_is(fitted, frame, folder):
    card = save(fitted, folder, frame, cross_validate(frame, ENVIRONMENTS, PLAIN))
    assert read_card(folder) == card
    assert (card.name, card.data.rows, card.data.records, card.data.models) == ("laptop", 36, 36, len(FAMILIES))
    assert card.data.families == sorted(FAMILIES)
    assert card.data.platforms == sorted(f"cpu/{runtime}" for runtime in LAWS)
    assert (card.data.machines, card.data.batch_sizes) == (["m1"], (1, 1))
    assert set(card.versions) == {"labbench", "scikit-learn", "numpy", "torch"}
    assert card.config == PLAIN
    assert {one.method for one in card.errors} >= {"labbench", "log-linear", "gradient boosting", "constant FLOP/s"}
    assert card.error().coverage >= 0.8
    assert set(card.family_errors["latency_s"]) == set(FAMILIES)
    assert np.mean(list(card.family_errors["latency_s"].values())) == pytest.approx(card.error().mape)
    for told in ("36 series of 12 models in 12 families", "on an unseen family", "nearest measured cell", "limits:"):
        assert told in str(card)


def test_a_card_says_if_nobody_looked_how_wrong_it_is(fitted, frame, folder):
    card = save(fitted, folder, frame)
    assert card.error() is None
    assert "Nobody looked how wrong it is" in str(card)


def test_what_is_not_fitted_is_not_kept(frame, folder):
    with pytest.raises(PredictionError, match="not fitted"):
        save(Predictor(), folder, frame)
    assert not folder.exists()


# The hash of the data


@settings(max_examples=20, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_hash_of_the_data_is_that_of_the_rows_in_any_order_and_type(random):
    table = training_rows(made_frame(*STUDY), PLAIN)
    order = list(range(len(table)))
    random.shuffle(order)
    other = table.iloc[order].astype({"record_id": "category", "series": object, "memory_increase_bytes": "Float64"})
    assert data_sha256(other) == data_sha256(table)


STUDY = study()


@pytest.mark.parametrize("change", [{"latency_s": 1.0}, {"record_id": "0" * 32}, {"flops": 1.0}])
def test_the_hash_of_the_data_tells_of_any_other_value(change):
    table = training_rows(made_frame(*STUDY), PLAIN)
    other = table.copy()
    other[list(change)] = other[list(change)].astype(object)
    other.loc[3, list(change)] = list(change.values())
    assert data_sha256(other) != data_sha256(table)
    assert data_sha256(table.drop(index=3)) != data_sha256(table)


# What is refused


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"versions": {"labbench": "0.0.1"}}, r"labbench 0\.0\.1 \(here: .*labbench fit --name"),
        ({"versions": {"scikit-learn": "0.1"}}, r"scikit-learn 0\.1 \(here"),
        ({"source_sha256": "f" * 64}, "source ffff"),
        ({"predictor_sha256": "f" * 64}, "cannot read .*ffff.joblib, which card.json names"),
        ({"version": 2}, "damaged or of another version"),
        ({"data": None}, "data: "),
    ],
)
def test_a_predictor_that_may_not_be_what_its_card_says_is_refused(fitted, frame, folder, change, words):
    save(fitted, folder, frame)
    told = json.loads((folder / "card.json").read_text())
    if "versions" in change:
        change = {"versions": told["versions"] | change["versions"]}
    (folder / "card.json").write_text(json.dumps(told | change))
    with pytest.raises(PredictionError, match=words):
        load(folder)


@pytest.mark.parametrize("size", [0, 1, 1000])
def test_a_torn_file_is_refused_before_it_is_opened(fitted, frame, folder, size, monkeypatch):
    save(fitted, folder, frame)
    [path] = folder.glob("*.joblib")
    path.write_bytes(path.read_bytes()[:size])
    monkeypatch.setattr(joblib, "load", lambda *_: pytest.fail("it was unpickled"))
    with pytest.raises(PredictionError, match=r"torn, or not the file that card\.json speaks of; it was not opened"):
        load(folder)


def test_a_file_that_somebody_exchanged_runs_nothing(fitted, frame, folder, tmp_path):
    save(fitted, folder, frame)
    [path] = folder.glob("*.joblib")
    joblib.dump(Runs(tmp_path / "ran"), path)
    with pytest.raises(PredictionError, match="not the file"):
        load(folder)
    assert not (tmp_path / "ran").exists()
    joblib.load(path)
    assert (tmp_path / "ran").exists(), "the test's own file must do harm, or nothing was shown"


class Runs:
    """A pickle that leaves a trace when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_torn_card_is_refused_with_the_way_out_and_can_be_written_over(fitted, frame, folder):
    save(fitted, folder, frame)
    (folder / "card.json").write_text('{"version": 1, "na')
    with pytest.raises(PredictionError, match=r"damaged .*labbench fit --name"):
        load(folder)
    save(fitted, folder, frame)
    load(folder)


def test_a_name_that_nobody_gave_is_refused_with_the_nearest_one(fitted, frame, folder):
    with pytest.raises(ConfigError, match=r"no predictor in .*labbench fit --name"):
        load(folder)
    save(fitted, folder, frame)
    assert saved(folder.parent) == ["laptop"]
    with pytest.raises(ConfigError, match="did you mean 'laptop'"):
        load(folder.parent / "labtop")


def test_a_name_stays_in_its_folder():
    assert folder_of("laptop") == cards.FOLDER / "laptop"
    assert str(folder_of("some/where")) == "some/where"
    for name in ("", "..", ".hidden", "a b"):
        with pytest.raises(ConfigError, match="no name for a predictor"):
            folder_of(name)


# Whole or not at all


def test_a_later_predictor_takes_the_place_of_the_earlier(fitted, frame, folder):
    save(fitted, folder, frame)
    other = made_frame(*study(FAMILIES[:6]))
    save(Predictor(PLAIN).fit(other, ENVIRONMENTS), folder, other)
    assert load(folder).card.data.models == 6
    assert files(folder) == ["*.joblib", ".lock", "card.json"]


def files(folder):
    return sorted(f"*{path.suffix}" if len(path.stem) == 64 else path.name for path in folder.iterdir())


@pytest.mark.parametrize("fails", ["write_bytes", "replace", "write_text"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
@pytest.mark.parametrize("earlier", [True, False])
def test_what_is_interrupted_leaves_the_earlier_predictor_or_none(
    fitted, frame, folder, monkeypatch, fails, error, earlier
):
    before = save(fitted, folder, frame) if earlier else None
    other = made_frame(*study(FAMILIES[:6]))
    another = Predictor(PLAIN).fit(other, ENVIRONMENTS)

    def stops(*_, **__):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(f"pathlib.Path.{fails}", stops)
        with pytest.raises((KeyboardInterrupt, PredictionError)):
            save(another, folder, other)
    if earlier:
        assert load(folder).card == before
        assert files(folder) == ["*.joblib", ".lock", "card.json"]
    else:
        assert files(folder) == [".lock"]


def test_what_lies_beside_is_left_alone(fitted, frame, folder):
    folder.mkdir(parents=True)
    (folder / "mine.joblib").write_text("mine")
    save(fitted, folder, frame)
    save(fitted, folder, frame)
    assert files(folder) == ["*.joblib", ".lock", "card.json", "mine.joblib"]


def test_a_process_that_is_killed_at_any_step_leaves_a_whole_predictor(fitted, frame, folder):
    """SIGKILL before each step on the disk: what is loaded then is the earlier predictor or the later one."""
    save(fitted, folder, frame)
    code = """
        import os, pathlib, signal, sys
        sys.path.insert(0, {tests!r})
        from made import ENVIRONMENTS, FAMILIES, made_frame, study
        from labbench.prediction import PredictionConfig, Predictor
        from labbench.prediction.card import save

        steps = 0
        def counted(step):
            def call(*arguments, **options):
                global steps
                steps += 1
                if steps == int(sys.argv[1]):
                    os.kill(os.getpid(), signal.SIGKILL)
                return step(*arguments, **options)
            return call

        frame = made_frame(*study(FAMILIES[:6]))
        predictor = Predictor(PredictionConfig(residual="none")).fit(frame, ENVIRONMENTS)
        for name in ("write_bytes", "write_text", "replace", "unlink"):
            setattr(pathlib.Path, name, counted(getattr(pathlib.Path, name)))
        save(predictor, {folder!r}, frame)
    """
    code = textwrap.dedent(code).format(tests=os.path.dirname(__file__), folder=str(folder))
    seen, step = set(), 0
    while step < 20:
        step += 1
        ended = subprocess.run([sys.executable, "-c", code, str(step)], capture_output=True, text=True)
        seen.add(load(folder).card.data.models)
        if ended.returncode == 0:
            break
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        save(fitted, folder, frame)
    assert step > 4
    assert seen == {len(FAMILIES), 6}
    assert files(folder) == ["*.joblib", ".lock", "card.json"]


def test_the_hash_in_the_card_is_that_of_the_file(fitted, frame, folder):
    card = save(fitted, folder, frame)
    [path] = folder.glob("*.joblib")
    assert path.stem == card.predictor_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_numbers_that_are_not_known_are_null_in_the_card(fitted, frame, folder):
    save(fitted, folder, frame, cross_validate(frame, ENVIRONMENTS, PLAIN))
    told = json.loads((folder / "card.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    median = next(one for one in told["errors"] if one["method"] == "platform median")
    assert median["coverage"] is None
    assert np.isfinite(median["mape"])
