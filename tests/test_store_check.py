import json
import random
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from made import ENVIRONMENT, record
from test_store import abandon

from labbench.records import Record
from labbench.store import Store, StoreError, hdf5
from labbench.store.check import check, repair
from labbench.store.journal import HEADER
from labbench.store.merge import content_hash
from labbench.store.table import Contents

FROZEN = Path(__file__).parent / "frozen"


def study(count: int = 12) -> list[Record]:
    rng = random.Random(0)
    models = ["bert-tiny", "gpt2-tiny", "vit-tiny"]
    return [
        record(models[i % 3], seconds=rng.uniform(1e-3, 1), batch_size=i + 1, reason="é\0\\n") for i in range(count)
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A sound database: bytes of its file, and its records by id."""
    path = tmp_path_factory.mktemp("whole") / "s.h5"
    with Store(path, writable=True) as store:
        store.extend(study(), [ENVIRONMENT])
        store.pin("v1")
    return path.read_bytes(), {one.record_id: one for one in Store(path).records()}


def saved(report) -> dict[str, Record]:
    return {one.record_id: one for one in report.contents.to_records()}


def test_a_sound_database_has_no_problems_and_says_how_compact_it_is(tmp_path, whole):
    path = tmp_path / "s.h5"
    path.write_bytes(whole[0])
    report = check(path)
    assert report.ok, str(report)
    assert "12 records, 1 environment, 1 pinned baseline" in str(report)
    assert "without raw samples" in str(report)
    assert report.file_bytes == len(whole[0]) > report.sample_bytes > 0


def test_one_wrong_bit_anywhere_costs_nothing(tmp_path, whole):
    data, records = whole
    path, noticed = tmp_path / "s.h5", 0
    rng = random.Random(1)
    for _ in range(60):
        place = rng.randrange(len(data))
        damaged = bytearray(data)
        damaged[place] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        report = check(path)
        assert saved(report) == records, f"byte {place}: {report}"
        assert len(report.contents.environments) == len(report.contents.baselines) == 1
        noticed += not report.ok
    assert noticed > 45  # the others hit bytes that nothing reads


def test_many_wrong_bits_never_give_a_wrong_record_and_what_is_lost_is_listed(tmp_path, whole):
    data, records = whole
    path = tmp_path / "s.h5"
    rng = random.Random(2)
    lost = 0
    for trial in range(60):
        damaged = bytearray(data)
        for _ in range(30):
            damaged[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        report = check(path)
        kept = saved(report)
        assert kept.items() <= records.items(), f"trial {trial}"
        assert not report.ok
        assert len(kept) == len(records) or report.lost
        lost += len(records) - len(kept)
    assert 0 < lost < 60 * len(records)


def chunk_of(path: Path, name: str) -> int:
    """Where the first chunk of a dataset begins."""
    with h5py.File(path) as file:
        return file[name].id.get_chunk_info(0).byte_offset


@pytest.fixture
def large(tmp_path):
    """Samples that do not compress, in a chunk that several records share."""
    path = tmp_path / "s.h5"
    rng = np.random.default_rng(0)
    records = study(6)
    for i, one in enumerate(records):
        [series] = one.series
        samples = {"seconds": rng.random(2000).tolist(), "process": [0] * 2000, "round": list(range(2000))}
        series = series.model_copy(update={"n_samples": 2000, "samples": type(series.samples)(**samples)})
        records[i] = one.model_copy(update={"series": [series]})
    with Store(path, writable=True) as store:
        store.extend(records, [ENVIRONMENT])
    return path, records


def test_wrong_bits_in_one_chunk_cost_only_the_records_that_they_hit(large, tmp_path):
    path, records = large
    data = bytearray(path.read_bytes())
    at = chunk_of(path, "samples/seconds")
    for hit in (1, 3):
        for sample in (10, 20):
            data[at + (hit * 2000 + sample) * 8] ^= 1
    path.write_bytes(data)
    report = repair(path, tmp_path / "saved.h5")
    assert [one.place for one in report.lost] == [f"record {records[hit].record_id}" for hit in (1, 3)]
    assert Store(tmp_path / "saved.h5").records() == [records[i] for i in (0, 2, 4, 5)]
    assert check(tmp_path / "saved.h5").ok
    assert path.read_bytes() == data


def test_a_file_that_was_cut_short_keeps_the_records_before_the_cut(large):
    path, records = large
    data = path.read_bytes()
    cut = chunk_of(path, "samples/seconds") + 3 * 2000 * 8 + 100
    path.write_bytes(data[:cut])
    with pytest.raises(StoreError, match="--repair"):
        Store(path)
    report = check(path)
    assert "cut short" in str(report)
    assert list(saved(report).values()) == records[:3]


def test_without_any_hdf5_metadata_the_chart_leads_to_everything(tmp_path, whole):
    data, records = whole
    path = tmp_path / "s.h5"
    path.write_bytes(bytes(48) + data[48:])
    report = repair(path, tmp_path / "saved.h5")
    assert "HDF5 cannot open it" in str(report)
    assert not report.lost
    assert {one.record_id: one for one in Store(tmp_path / "saved.h5").records()} == records


def test_a_value_changed_with_other_software_is_noticed(tmp_path, whole):
    data, records = whole
    path = tmp_path / "s.h5"
    path.write_bytes(data)
    with h5py.File(path, "r+") as file:
        file["series/median_s.value"][4] *= 1.001
    report = check(path)
    assert list(saved(report)) == [key for i, key in enumerate(records) if i != 4]
    assert any("the digest differs" in one.what for one in report.lost)


def lines_of(journal: Path) -> list[bytes]:
    return journal.read_bytes().rstrip(b"\0").splitlines(keepends=True)


@pytest.fixture
def journaled(tmp_path):
    """Four records that are all in the journal."""
    path = tmp_path / "s.h5"
    store = Store(path, writable=True)
    records = study(4)
    for one in records:
        store.append(one, ENVIRONMENT)
    abandon(store)
    return path, records, tmp_path / "s.h5.journal"


def test_a_damaged_journal_entry_costs_only_itself(journaled, tmp_path):
    path, records, journal = journaled
    assert check(path).ok
    lines = lines_of(journal)  # the head, the environment, four records
    lines[3] = lines[3][:60] + b"x" + lines[3][61:]
    journal.write_bytes(b"".join(lines))
    with pytest.raises(StoreError, match="--repair"):
        Store(path)
    report = repair(path, tmp_path / "saved.h5")
    assert "bytes are damaged" in str(report)
    assert Store(tmp_path / "saved.h5").records() == [records[i] for i in (0, 2, 3)]


def test_a_missing_journal_entry_is_noticed(journaled):
    path, _, journal = journaled
    lines = lines_of(journal)
    del lines[4]
    journal.write_bytes(b"".join(lines))
    assert "entries 4 to 4 are missing" in str(check(path))


def test_a_torn_journal_entry_is_noticed(journaled):
    path, records, journal = journaled
    lines = lines_of(journal)
    journal.write_bytes(b"".join(lines)[: -len(lines[-1]) + HEADER + 5])
    report = check(path)
    assert "no whole entry" in str(report)
    assert list(saved(report).values()) == records[:3]


def test_a_database_in_use_is_sound(tmp_path):
    with Store(tmp_path / "s.h5", writable=True) as store:
        for one in study(3):
            store.append(one, ENVIRONMENT)
            assert check(tmp_path / "s.h5").ok


def test_references_to_what_is_not_there_are_noticed(tmp_path):
    path = tmp_path / "s.h5"
    first, second = study(2)
    back = Record(cell=first.cell, status="retraction", retracts="0" * 32, reason="wrong")
    with Store(path, writable=True) as store:
        store.extend([first, back])
        store.pin("v1", [first.record_id])
    contents = Store(path).contents()
    hdf5.write(path, contents.take(np.array([1, 1])) + Contents.of([second]))
    text = str(check(path))
    assert f"2 records name {ENVIRONMENT.id}" not in text
    assert f"1 records name {ENVIRONMENT.id}, which is not there" in text
    assert f"name {'0' * 32}, which is not there" in text
    assert f"record {back.record_id}: there 2 times" in text
    assert "baseline 'v1': 1 of its records are not there" in text


def test_an_older_schema_is_checked_too(tmp_path):
    for name in ("store_v1.h5", "store_v1.h5.journal"):
        shutil.copy(FROZEN / name, tmp_path)
    report = check(tmp_path / "store_v1.h5")
    assert report.ok, str(report)
    assert len(report.contents) == len((FROZEN / "store_v1.jsonl").read_text().splitlines())


def test_what_cannot_be_checked_or_would_be_overwritten_is_refused(tmp_path, whole):
    path = tmp_path / "s.h5"
    with pytest.raises(StoreError, match="no database"):
        check(path)
    path.write_bytes(whole[0])
    with pytest.raises(StoreError, match="exists"):
        repair(path, path)
    (tmp_path / "other.h5").write_text("not HDF5")
    with pytest.raises(StoreError, match="no HDF5 file"):
        check(tmp_path / "other.h5")
    with h5py.File(path, "r+") as file:
        file.attrs["schema_version"] = 99
    report = check(path)  # the chart knows better
    assert not report.ok or report.contents


def test_repair_saves_pins_and_environments_and_derives_what_was_damaged(tmp_path, whole):
    data, _ = whole
    path = tmp_path / "s.h5"
    path.write_bytes(data)
    before = content_hash(Store(path).contents())
    damaged = bytearray(data)
    for name in ("records/digest", "index/record_id"):
        at = chunk_of(path, name)
        damaged[at + 2 : at + 12] = bytes(10)
    path.write_bytes(damaged)
    report = repair(path, tmp_path / "saved.h5")
    assert not report.ok
    assert not report.lost
    assert content_hash(Store(tmp_path / "saved.h5").contents()) == before
    assert json.dumps(report.to_dict())
