import itertools
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_store import ENVIRONMENT, abandon, make_record

from labbench.records import Baseline, Environment
from labbench.store import Store, StoreError, StoreLocked, hdf5
from labbench.store.merge import content_hash, merge, union
from labbench.store.snapshot import journal_path
from labbench.store.table import Contents

FROZEN = Path(__file__).parent / "frozen"
OTHER = Environment(machine_id="m2", hostname="other", machine={"cores": 8}, software={"torch": "2.12.0"})
POOL = [make_record(reason=f"number {i}", environment_id=one.id) for i, one in enumerate([ENVIRONMENT, OTHER] * 3)]
PINS = [Baseline(name=name, record_ids=[record.record_id]) for name, record in zip("aab", POOL, strict=False)]


@st.composite
def databases(draw) -> Contents:
    """Some records of the pool in any order, some environments, some pins."""
    records = draw(st.lists(st.sampled_from(POOL), unique_by=lambda record: record.record_id))
    environments = draw(st.lists(st.sampled_from([ENVIRONMENT, OTHER]), unique_by=lambda one: one.id))
    pins = draw(st.lists(st.sampled_from(PINS), unique_by=id))
    return Contents.of(records, {one.id: one.model_dump_json() for one in environments}, pins)


def same(*many: Contents) -> bool:
    """Whether all have the same content in the same order."""
    return all(
        content_hash(one) == content_hash(other)
        and list(one.to_records()) == list(other.to_records())
        and one.environments == other.environments
        and list(one.baselines.rows()) == list(other.baselines.rows())
        for one, other in itertools.pairwise(many)
    )


@given(databases(), databases(), databases())
@settings(deadline=None, max_examples=25)
def test_union_is_idempotent_commutative_and_associative(a, b, c):
    assert same(union([a]), union([a, a]), union([a, union([a])]))
    assert same(union([a, b]), union([b, a]))
    assert same(union([a, union([b, c])]), union([union([a, b]), c]), union([c, a, b]))
    ids = {record.record_id for part in (a, b, c) for record in part.to_records()}
    assert {record.record_id for record in union([a, b, c]).to_records()} == ids


def filled(path, records, environments=(ENVIRONMENT,), fold=True):
    store = Store(path, writable=True)
    store.extend(records, environments)
    store.close() if fold else abandon(store)
    return path


@given(st.permutations(range(3)))
@settings(deadline=None, max_examples=3, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_merged_files_do_not_depend_on_order_or_repetition(tmp_path_factory, order):
    folder = tmp_path_factory.mktemp("merge")
    parts = [POOL[0:3], POOL[2:5], [POOL[5], POOL[0]]]
    paths = [filled(folder / f"{i}.h5", parts[i], [ENVIRONMENT, OTHER], fold=i != 1) for i in order]
    output = folder / "all.h5"
    assert merge(paths, output) == len(POOL)
    once = Store(output).content_hash()
    data = output.read_bytes()
    assert merge([*paths, output, *reversed(paths)], output) == len(POOL)
    assert (
        Store(output).content_hash()
        == once
        == Store(filled(folder / "x.h5", POOL, [ENVIRONMENT, OTHER])).content_hash()
    )
    assert output.read_bytes() == data


@given(databases(), databases(), databases())
@settings(deadline=None, max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_files_may_be_merged_in_steps(tmp_path_factory, a, b, c):
    folder = tmp_path_factory.mktemp("steps")

    def merged(name, *paths):
        merge(paths, folder / name)
        return folder / name

    for name, contents in zip("abc", (a, b, c), strict=True):
        hdf5.write(folder / name, contents)
    first, second, third = (folder / name for name in "abc")
    at_once = merged("abc.h5", first, second, third)
    in_steps = merged("ab,c.h5", merged("ab.h5", first, second), third)
    other_steps = merged("a,bc.h5", first, merged("bc.h5", second, third))
    assert at_once.read_bytes() == in_steps.read_bytes() == other_steps.read_bytes()
    records = [one.to_dict() for one in Store(at_once).records()]
    assert records == [one.to_dict() for one in union([a, b, c]).to_records()]
    assert Store(at_once).content_hash() == content_hash(union([a, b, c]))


def test_different_records_under_one_id_are_shown_and_nothing_is_written(tmp_path):
    mistaken = POOL[0].model_copy(update={"duration_s": 12.5})
    a, b = filled(tmp_path / "a.h5", POOL[:2]), filled(tmp_path / "b.h5", [mistaken])
    output = filled(tmp_path / "all.h5", POOL[3:])
    before = output.read_bytes()
    with pytest.raises(StoreError) as error:
        merge([a, b], output)
    for text in (POOL[0].record_id, "duration_s", "12.5", "None", "keep one of them"):
        assert text in str(error.value)
    assert output.read_bytes() == before
    with pytest.raises(StoreError, match="two different records"):
        merge([b], a)


def test_pins_environments_and_retractions_come_along(tmp_path):
    with Store(filled(tmp_path / "a.h5", POOL[:2], [ENVIRONMENT, OTHER]), writable=True) as store:
        store.pin("v1", note="before")
        store.retract(POOL[0].record_id, "on battery")
    merge([tmp_path / "a.h5", filled(tmp_path / "b.h5", POOL[:4])], tmp_path / "all.h5")
    merged = Store(tmp_path / "all.h5")
    assert merged.environments().keys() == {ENVIRONMENT.id, OTHER.id}
    assert [(pin.name, pin.note) for pin in merged.baselines()] == [("v1", "before")]
    assert set(merged.frame()["record_id"]) == {record.record_id for record in POOL[1:4]}
    assert merged.frame(retracted=True)["retracted_because"].dropna().tolist() == ["on battery"]


def test_an_output_that_is_being_written_is_left_alone(tmp_path):
    a = filled(tmp_path / "a.h5", POOL[:1])
    with Store(tmp_path / "all.h5", writable=True) as store:
        store.append(POOL[1])
        with pytest.raises(StoreLocked, match=r"all\.h5 is being written"):
            merge([a], tmp_path / "all.h5")
    assert [record.record_id for record in Store(tmp_path / "all.h5").records()] == [POOL[1].record_id]


@pytest.mark.parametrize("suffixes", [("",), ("", ".journal"), (".journal",)])
def test_an_output_of_an_older_schema_is_kept_beside(tmp_path, suffixes):
    output = tmp_path / "all.h5"
    for suffix in suffixes:
        shutil.copy(FROZEN / f"store_v1.h5{suffix}", f"{output}{suffix}")
    old = Store(output).records()
    merge([filled(tmp_path / "a.h5", POOL[:1])], output)
    merged = Store(output).records()
    assert len(merged) == len(old) + 1
    assert all(record in merged for record in [*old, POOL[0]])
    kept = tmp_path / "all.schema1.h5"
    assert kept.exists() == ("" in suffixes)
    if kept.exists():
        assert kept.read_bytes() == (FROZEN / "store_v1.h5").read_bytes()


def test_an_input_of_an_older_schema_stays_as_it_is(tmp_path):
    for suffix in ("", ".journal"):
        shutil.copy(FROZEN / f"store_v1.h5{suffix}", tmp_path / f"old.h5{suffix}")
    before = {one.name: one.read_bytes() for one in tmp_path.iterdir()}
    old = Store(tmp_path / "old.h5").records()
    assert merge([tmp_path / "old.h5"], tmp_path / "all.h5") == len(old)
    assert all(record in old for record in Store(tmp_path / "all.h5").records())
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


def test_what_is_damaged_at_the_end_of_the_outputs_journal_is_set_aside(tmp_path):
    output = filled(tmp_path / "all.h5", POOL[:2], fold=False)
    place = journal_path(output)
    place.write_bytes(place.read_bytes()[:-7])
    last = place.read_bytes().splitlines()[-1]
    assert merge([filled(tmp_path / "a.h5", POOL[2:3])], output) == 2
    [kept] = tmp_path.glob("all.h5.journal.torn-*")
    assert kept.read_bytes() == last
    assert not place.exists()


def test_inputs_are_left_as_they_are(tmp_path):
    paths = [filled(tmp_path / "a.h5", POOL[:2]), filled(tmp_path / "b.h5", POOL[1:3], fold=False)]
    before = {one.name: one.read_bytes() for one in tmp_path.iterdir()}
    merge(paths, tmp_path / "all.h5")
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


def test_a_database_that_cannot_be_read_stops_the_merge(tmp_path):
    a = filled(tmp_path / "a.h5", POOL[:1])
    (tmp_path / "b.h5").write_bytes(a.read_bytes()[:1000])
    with pytest.raises(StoreError, match=r"b\.h5.*damaged"):
        merge([a, tmp_path / "b.h5"], tmp_path / "all.h5")
    with pytest.raises(StoreError, match="no database"):
        merge([a, tmp_path / "nowhere.h5"], tmp_path / "all.h5")
    assert not (tmp_path / "all.h5").exists()
