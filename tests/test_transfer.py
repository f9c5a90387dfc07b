import io
import json
from pathlib import Path

import jsonschema
import pandas as pd
import pytest
from made import ENVIRONMENT, record

from labbench.config import ConfigError
from labbench.records import json_schema
from labbench.store import Store, StoreError
from labbench.transfer import export, export_to, import_into, to_lines

ROOT = Path(__file__).parents[1]
FROZEN = Path(__file__).parent / "frozen"


@pytest.fixture
def store(tmp_path):
    """Two records, one retracted, one failed, a pin and an environment."""
    with Store(tmp_path / "s.h5", writable=True) as filling:
        kept, mistaken = record(), record("gpt2-tiny", reason="\0 \\ é 😀 \u2028")
        filling.extend([kept, mistaken, record(status="failed", reason="no room")], [ENVIRONMENT])
        filling.retract(mistaken.record_id, "on battery")
        filling.pin("v1", [kept.record_id], note="before")
    return Store(tmp_path / "s.h5")


def imported(tmp_path: Path, *lines: str):
    """What importing these lines into an empty database gives, and the database."""
    (tmp_path / "in.jsonl").write_text("".join(line + "\n" for line in lines))
    with Store(tmp_path / "out.h5", writable=True) as filling:
        result = import_into(filling, [tmp_path / "in.jsonl"])
    return result, Store(tmp_path / "out.h5")


def test_json_lines_out_and_in_lose_nothing(store, tmp_path):
    result, copy = imported(tmp_path, *to_lines(store))
    assert (result.new, result.known, result.skipped) == (4, 0, [])
    assert copy.records() == store.records()
    assert copy.environments() == store.environments()
    assert copy.baselines() == store.baselines()
    assert copy.content_hash() == store.content_hash()


def test_importing_again_changes_nothing(store, tmp_path):
    lines = list(to_lines(store))
    _, copy = imported(tmp_path, *lines)
    before = copy.content_hash()
    again, copy = imported(tmp_path, *lines)
    assert (again.new, again.known) == (0, 4)
    assert copy.content_hash() == before


def test_lines_of_an_older_schema_come_up_to_date(tmp_path):
    lines = (FROZEN / "store_v1.jsonl").read_text().splitlines()
    assert all(json.loads(line)["schema_version"] == 1 for line in lines)
    result, copy = imported(tmp_path, *lines)
    assert result.new == len(lines)
    assert {one.schema_version for one in copy.records()} == {2}


def test_lines_that_make_no_sense_are_named_and_the_rest_goes_in(tmp_path):
    good = json.dumps(record().to_dict())
    bad = {
        '{"cell": ': "not valid JSON",
        "[]": "not a record",
        '{"status": "ok"}': "cell: Field required",
        good.replace('"mean_s": 0.001', '"mean_s": -1'): "mean_s: Input should be greater than or equal to 0",
        good.replace('"mean_s": 0.001', '"mean_s": NaN'): "mean_s: Input should be a finite number",
        json.dumps({**json.loads(good), "schema_version": 99}): "schema_version 99",
        json.dumps({**json.loads(good), "schema_version": "new"}): "schema_version 'new'",
        '{"environment": 3}': "valid dictionary",
        '{"colour": "red"}': "cell: Field required",
    }
    result, copy = imported(tmp_path, *bad, good)
    assert [one.line for one in result.skipped] == list(range(1, len(bad) + 1))
    for one, hint in zip(result.skipped, bad.values(), strict=True):
        assert hint in one.reason
    assert str(tmp_path / "in.jsonl:1") in str(result)
    assert len(copy) == 1


def test_a_record_that_cannot_be_kept_does_not_keep_the_others_out(tmp_path):
    one = record()
    other = one.model_copy(update={"duration_s": 3.0})
    huge = record().model_copy(update={"threads": 2**63})
    last = record()
    result, copy = imported(tmp_path, *(json.dumps(each.to_dict()) for each in (one, other, huge, last)))
    assert [each.record_id for each in copy.records()] == [one.record_id, last.record_id]
    assert (result.new, result.known) == (2, 0)
    texts = "\n".join(map(str, result.skipped))
    assert "two different records" in texts
    assert "duration_s: None and 3.0" in texts
    assert "threads = 9223372036854775808 does not fit in 64 bits" in texts


def test_files_that_are_not_there_or_nothing_known_are_refused(tmp_path):
    with Store(tmp_path / "out.h5", writable=True) as filling:
        with pytest.raises(ConfigError, match="cannot read"):
            import_into(filling, [tmp_path / "nowhere.jsonl"])
        (tmp_path / "a.csv").write_text("a,b\n1,2\n")
        with pytest.raises(ConfigError, match="not a format that can be imported"):
            import_into(filling, [tmp_path / "a.csv"])


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_tables_are_the_tidy_frame(store, tmp_path, format):
    export_to(store, tmp_path / "t", format)
    read = pd.read_csv if format == "csv" else pd.read_parquet
    found, frame = read(tmp_path / "t"), store.frame()
    assert list(found) == list(frame)
    assert found["latency_s"].tolist() == pytest.approx(frame["latency_s"].tolist(), nan_ok=True, rel=1e-15)
    assert found["provenance"].tolist() == frame["provenance"].tolist() == ["measured", "measured"]
    if format == "parquet":
        pd.testing.assert_frame_equal(found, frame, check_categorical=False, check_dtype=False)


def test_an_export_that_fails_leaves_no_file(store, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("labbench.transfer.export", full)
    with pytest.raises(ConfigError, match="No space left"):
        export_to(store, tmp_path / "t.jsonl", "jsonl")
    assert not list(tmp_path.glob("*t.jsonl*"))


def test_the_committed_schema_is_that_of_the_models_and_every_exported_line_obeys_it(store):
    assert json.loads((ROOT / "docs" / "record.schema.json").read_text()) == json_schema(), (
        "update it: labbench schema > docs/record.schema.json"
    )
    validator = jsonschema.Draft202012Validator(json_schema())
    lines = io.BytesIO()
    export(store, lines)
    for line in lines.getvalue().splitlines():
        validator.validate(json.loads(line))
    with pytest.raises(jsonschema.ValidationError):
        validator.validate({"cell": 3})


def test_a_full_disk_stops_an_import(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with Store(tmp_path / "out.h5", writable=True) as filling:
        monkeypatch.setattr("labbench.store.disk.write", full)
        (tmp_path / "in.jsonl").write_text(json.dumps(record().to_dict()))
        with pytest.raises(StoreError, match="No space left"):
            import_into(filling, [tmp_path / "in.jsonl"])
        monkeypatch.undo()
