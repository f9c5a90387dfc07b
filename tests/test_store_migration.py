"""Every schema that there ever was has a frozen database in ``tests/frozen``; the file of today explains itself."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from test_store import ENVIRONMENT, filled, make_record, make_series

from labbench.records import FIRST_LASTING_SCHEMA, SCHEMA_VERSION, Record, upgrade
from labbench.store import Store, StoreError, StoreWarning
from labbench.store.check import check
from labbench.store.columns import UNITS

FROZEN = Path(__file__).parent / "frozen"


def expected(schema: int) -> list[Record]:
    lines = (FROZEN / f"store_v{schema}.jsonl").read_text().splitlines()
    return [Record.model_validate(upgrade(json.loads(line))) for line in lines]


def copied(folder: Path, schema: int, *suffixes: str) -> Path:
    for suffix in suffixes:
        shutil.copy(FROZEN / f"store_v{schema}.h5{suffix}", folder / f"old.h5{suffix}")
    return folder / "old.h5"


def contents(folder: Path) -> dict[str, bytes]:
    return {one.name: one.read_bytes() for one in folder.iterdir() if not one.name.endswith((".lock", ".writer"))}


@pytest.mark.parametrize("schema", range(1, SCHEMA_VERSION + 1))
def test_a_frozen_database_is_read_as_it_is(tmp_path, schema):
    path = copied(tmp_path, schema, "", ".journal")
    before = contents(tmp_path)
    store = Store(path)
    assert store.records() == expected(schema)
    assert not store.frame().empty
    assert {record.environment_id for record in store.records()} - {None} <= store.environments().keys()
    assert contents(tmp_path) == before


def test_the_frozen_database_of_today_is_what_today_writes(tmp_path):
    """If this fails the layout has changed: give it a new schema version, a migration and a frozen database of its own."""
    path = copied(tmp_path, SCHEMA_VERSION, "", ".journal")
    old = {name: (one.dtype, one.shape, dict(one.attrs)) for name, one in datasets(path).items()}
    store = Store(path)
    [pin] = store.baselines()
    assert (pin.name, pin.note) == ("v1", "frozen")
    with Store(tmp_path / "new.h5", writable=True) as new:
        new.extend(store.records()[:5], store.environments().values(), store.baselines())
    now = {name: (one.dtype, one.shape, dict(one.attrs)) for name, one in datasets(tmp_path / "new.h5").items()}
    assert now == old


def test_the_first_writer_brings_it_up_to_date_and_keeps_the_old_file(tmp_path):
    path = copied(tmp_path, 1, "", ".journal")
    before = contents(tmp_path)
    record = make_record()
    with Store(path, writable=True) as store:
        store.append(record, ENVIRONMENT)
    assert Store(path).records() == [*expected(1), record]
    assert {one.schema_version for one in Store(path).records()} == {FIRST_LASTING_SCHEMA, SCHEMA_VERSION}
    after = contents(tmp_path)
    assert after.keys() == {"old.h5", "old.schema1.h5"}
    assert after["old.schema1.h5"] == before["old.h5"]
    with h5py.File(path) as file:
        assert file.attrs["schema_version"] == SCHEMA_VERSION
    Store(path, writable=True).close()
    assert contents(tmp_path) == after


@pytest.mark.parametrize("schema", range(FIRST_LASTING_SCHEMA, SCHEMA_VERSION))
def test_a_schema_that_only_lacks_fields_is_checked_and_written_on_with_its_records_unchanged(tmp_path, schema):
    path = copied(tmp_path, schema, "", ".journal")
    assert check(path).ok
    old, frozen = Store(path).records(), path.read_bytes()
    digests = Store(path).content_hash()
    with Store(path, writable=True) as store:
        store.fold()
    assert Store(path).records() == old == expected(schema)
    assert Store(path).content_hash() == digests
    assert (tmp_path / f"old.schema{schema}.h5").read_bytes() == frozen
    assert check(path).ok


@pytest.mark.parametrize("suffix", ["", ".journal"])
def test_its_file_and_its_journal_come_alone_too(tmp_path, suffix):
    path = copied(tmp_path, 1, suffix)
    before = Store(path).records()
    assert before
    assert all(record in expected(1) for record in before)
    Store(path, writable=True).close()
    assert Store(path).records() == before


@pytest.mark.parametrize("cut", [1, 20])
def test_the_torn_end_of_an_old_journal_is_told_and_set_aside(tmp_path, cut):
    path = copied(tmp_path, 1, "", ".journal")
    place = tmp_path / "old.h5.journal"
    whole = Store(path).records()
    place.write_bytes(place.read_bytes()[:-cut])
    last = place.read_bytes().splitlines()[-1]
    with pytest.warns(StoreWarning, match="incomplete"):
        assert Store(path).records() == whole[:-1]
    Store(path, writable=True).close()
    [kept] = tmp_path.glob("*.torn-*")
    assert kept.read_bytes() == last
    assert Store(path).records() == whole[:-1]


def test_a_flip_in_an_earlier_line_of_an_old_journal_is_an_error(tmp_path):
    path = copied(tmp_path, 1, "", ".journal")
    place = tmp_path / "old.h5.journal"
    [line, *_] = place.read_bytes().splitlines(keepends=True)
    damaged = bytearray(line + place.read_bytes())
    damaged[len(line) // 2] ^= 1
    place.write_bytes(damaged)
    for writable in (False, True):
        with pytest.raises(StoreError, match="line 1 of the journal is damaged"):
            Store(path, writable=writable)
    assert place.read_bytes() == damaged


@pytest.fixture(scope="module")
def today(tmp_path_factory):
    path = tmp_path_factory.mktemp("today") / "s.h5"
    two = [make_series("prefill", (0.5, 0.6, 0.7)), make_series("decode", (0.1,))]
    filled(path, make_record(), make_record(series=two), make_record(status="failed", reason="é", series=[]))
    with Store(path, writable=True) as store:
        store.pin("v1")
    return path


def datasets(path: Path) -> dict[str, h5py.Dataset]:
    found: dict[str, h5py.Dataset] = {}
    h5py.File(path).visititems(lambda name, one: found.update({name: one}) if isinstance(one, h5py.Dataset) else None)
    return found


def test_every_dataset_says_what_it_holds_and_in_which_unit(today):
    for name, dataset in datasets(today).items():
        assert dataset.attrs["description"].decode(), name
        leaf = name.removesuffix(".value").removesuffix(".ci_low").removesuffix(".ci_high").rsplit("_", 1)[-1]
        if leaf in UNITS and dataset.dtype.kind in "fi" and "json" not in name:
            assert dataset.attrs["unit"].decode() == UNITS[leaf], name
    assert datasets(today)["records/started_at"].attrs["unit"].decode().startswith("microseconds since 1970")


def test_only_filters_that_every_build_has_are_used(today):
    used = set()
    for dataset in datasets(today).values():
        pipeline = dataset.id.get_create_plist()
        used |= {pipeline.get_filter(i)[0] for i in range(pipeline.get_nfilters())}
    assert used <= {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}


def test_plain_h5py_finds_what_the_frame_has(today):
    store = Store(today)
    frame = store.frame()
    with h5py.File(today) as file:
        assert file["series/median_s.value"][:].tolist() == frame["latency_s"].dropna().tolist()
        status = file["records/status"]
        texts = file[status.attrs["categories"].decode()].asstr()[:]
        assert texts[status[:]].tolist() == frame.loc[frame["primary"], "status"].tolist()
        assert file["environments/json"].shape == (1,)
        assert json.loads(file["environments/json"].asstr()[0]) == ENVIRONMENT.model_dump(mode="json")
        i = file["records/record_id"][:].tolist().index(store.records()[1].record_id.encode())
        first, last = file["records/@series"][i : i + 2]
        start, end = file["series/@samples"][first], file["series/@samples"][last]
        assert file["samples/seconds"][start:end].tolist() == [0.5, 0.6, 0.7, 0.1]
        ids = file["records/record_id"][:]
        assert np.array_equal(ids[file["index/record_id"][:]], np.sort(ids))
