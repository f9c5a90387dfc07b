from datetime import UTC, date, datetime, timedelta

import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_store import ENVIRONMENT, make_record

from labbench.cells import Cell, Grid
from labbench.config import ConfigError
from labbench.records import Baseline, Environment, Record, Series
from labbench.store import Store, StoreError
from labbench.store.snapshot import Snapshot
from labbench.store.table import Contents

NEWER = Environment(machine_id="m1", hostname="host", machine={"cores": 2}, software={"torch": "2.14.0", "onnx": "1"})
OTHER = Environment(machine_id="m2", hostname="other", machine={"cores": 8}, software={"torch": "2.13.0"})
DAY = datetime(2026, 11, 1, tzinfo=UTC)


def on(day: int, environment: Environment = ENVIRONMENT, **changes) -> Record:
    changes |= {"started_at": DAY + timedelta(days=day), "machine_id": environment.machine_id}
    return make_record(environment_id=environment.id, **changes)


@pytest.fixture
def store(tmp_path):
    """One cell on two machines and two versions of torch, appended out of order, and another cell."""
    cell = Cell.of(model="gpt2-tiny", batch_size=8)
    with Store(tmp_path / "s.h5", writable=True) as filling:
        for record in (on(3, NEWER), on(1), on(2, OTHER), on(4, OTHER, cell=cell), on(5, provenance="simulated")):
            filling.append(record, {one.id: one for one in (ENVIRONMENT, NEWER, OTHER)}[record.environment_id])
    return Store(tmp_path / "s.h5")


def days(table: pd.DataFrame) -> list[int]:
    return sorted({(moment - DAY).days for moment in table["started_at"]})


def writing(store: Store) -> Store:
    return Store(store.path, writable=True)


def test_history_is_a_cell_over_time_machines_and_versions(store):
    [cell] = store.frame(model="bert-tiny")["cell_id"].unique()
    for asked in (cell, store.records()[0].cell):
        table = store.history(asked)
        assert [(moment - DAY).days for moment in table["started_at"]] == [1, 2, 3, 5]
        assert table["hostname"].tolist() == ["host", "other", "host", "host"]
        assert table["version_torch"].tolist() == ["2.13.0", "2.13.0", "2.14.0", "2.13.0"]
        assert table["version_onnx"].isna().tolist() == [True, True, False, True]
    assert store.history("f" * 16).empty


def test_latest_is_one_of_each_cell_machine_and_provenance(store):
    assert days(store.latest()) == [2, 3, 4, 5]
    assert days(store.latest(machine_id="m1", provenance="measured")) == [3]
    assert days(store.latest(model="gpt2-tiny")) == [4]


def test_since_and_until_are_moments_or_dates(store):
    assert days(store.frame(since="2026-11-04")) == [3, 4, 5]
    assert days(store.frame(since=DAY + timedelta(days=2), until="2026-11-04T00:00:00Z", mode="inference")) == [2]
    assert days(store.frame(since=date(2026, 11, 4))) == [3, 4, 5]
    with pytest.raises(StoreError, match="'yesterday' is no date"):
        store.frame(since="yesterday")


def test_a_record_of_unknown_time_is_in_no_period(store):
    with writing(store) as changing:
        changing.append(on(0).model_copy(update={"started_at": None}))
    assert len(store.frame()) == 6
    for period in ({"since": "1900-01-01"}, {"until": "2100-01-01"}, {"since": "1900-01-01", "until": "2100-01-01"}):
        assert len(store.frame(**period)) == 5


def test_a_retracted_record_is_left_out_and_stays_visible_on_request(store):
    mistaken = store.records()[0]
    with writing(store) as changing:
        retraction = changing.retract(mistaken.record_id, "laptop was on battery")
    assert mistaken.record_id not in set(store.frame()["record_id"])
    assert mistaken.record_id not in set(store.samples()["record_id"])
    assert days(store.latest(machine_id="m1", provenance="measured")) == [1]
    table = store.frame(retracted=True).set_index("record_id")
    assert table.loc[mistaken.record_id, "retracted_because"] == "laptop was on battery"
    assert table.loc[retraction.record_id, "retracts"] == mistaken.record_id
    assert table["retracted_because"].notna().sum() == 1
    assert days(store.history(mistaken.cell, retracted=True)) == [1, 2, 3, 5, (retraction.started_at - DAY).days]
    assert mistaken in store.records()
    assert len(store.samples([mistaken.record_id])) == 3


def test_a_retraction_can_be_retracted(store):
    mistaken = store.records()[0]
    with writing(store) as changing:
        first = changing.retract(mistaken.record_id, "on battery")
        second = changing.retract(first.record_id, "it was not")
        assert mistaken.record_id in set(changing.frame()["record_id"])
        changing.retract(second.record_id, "it was indeed")
    assert mistaken.record_id not in set(store.frame()["record_id"])


def retraction(target: str, own: str | None = None, reason: str = "wrong") -> Record:
    more = {} if own is None else {"record_id": own}
    return make_record(status="retraction", retracts=target, reason=reason, **more)


def test_retractions_in_a_ring_take_nothing_back_and_stop_nobody(store):
    """Made by hand; each takes back one that takes it back."""
    a, b, alone = "a" * 32, "b" * 32, "c" * 32
    before = set(store.frame()["record_id"])
    with writing(store) as changing:
        changing.extend([retraction(b, own=a), retraction(a, own=b), retraction(alone, own=alone)])
        assert set(changing.frame()["record_id"]) == before
    assert set(store.frame()["record_id"]) == set(store.samples()["record_id"]) == before
    assert {a, b, alone} < set(store.frame(retracted=True)["record_id"])


@pytest.mark.parametrize("length", [1999, 2000])
def test_a_long_chain_of_retractions_ends(store, length):
    [mistaken, *_] = (record.record_id for record in store.records())
    chain = [retraction(mistaken)]
    while len(chain) < length:
        chain.append(retraction(chain[-1].record_id))
    with Store(store.path, writable=True, durability="process") as changing:
        changing.extend(chain)
        assert (mistaken in set(changing.frame()["record_id"])) == (length % 2 == 0)


@given(st.lists(st.integers(0, 9), max_size=9))
@settings(deadline=None, max_examples=60)
def test_a_record_counts_unless_a_retraction_that_counts_takes_it_back(targets):
    """Retraction ``i`` takes back the record, 0, or an earlier retraction; they are read in any order."""
    ids = [f"{i:032x}" for i in range(len(targets) + 1)]
    chain = [retraction(ids[target % (i + 1)], own=ids[i + 1], reason=str(i)) for i, target in enumerate(targets)]
    counts = dict.fromkeys(ids, True)
    for one in reversed(chain):
        assert one.retracts is not None
        counts[one.retracts] &= not counts[one.record_id]
    for order in (chain, chain[::-1]):
        snapshot = Snapshot(Contents.of(), Contents.of([make_record(record_id=ids[0]), *order]))
        assert set(snapshot.retractions.reasons) == {key for key, counted in counts.items() if not counted}
        assert (0 in snapshot.retractions.rows) == (not counts[ids[0]])


def test_what_cannot_be_retracted_is_refused(store):
    with writing(store) as changing:
        with pytest.raises(StoreError, match=r"s\.h5 has no record 0000"):
            changing.retract("0" * 32, "wrong")
        with pytest.raises(ValueError, match="must say why"):
            changing.retract(changing.records()[0].record_id, "")
    with pytest.raises(StoreError, match="writable=True"):
        store.retract(store.records()[0].record_id, "wrong")


def test_a_pin_keeps_its_records_and_its_earlier_versions(store):
    ids = [record.record_id for record in store.records()]
    with writing(store) as changing:
        changing.pin("v1", ids[:2], note="before the compiler")
        changing.pin("v1", ids[1:3])
        changing.pin("all")
        with pytest.raises(StoreError, match="has no record ffff"):
            changing.pin("v2", ["f" * 32])
    assert [(pin.name, len(pin.record_ids)) for pin in store.baselines()] == [("v1", 2), ("v1", 2), ("all", 4)]
    assert set(store.baseline("v1")["record_id"]) == set(ids[1:3])
    assert days(store.baseline("all")) == [2, 3, 4, 5]
    with pytest.raises(ConfigError, match="did you mean 'v1'"):
        store.baseline("v11")


def test_pins_of_one_name_that_come_together_are_all_kept(store):
    """As from an export: earlier versions of a pin come along."""
    pins = [Baseline(name="v1", record_ids=[], note=note) for note in ("first", "second")]
    with writing(store) as changing:
        changing.extend([], baselines=[*pins, pins[0]])
        assert changing.baselines() == pins
        changing.extend([], baselines=pins)
    assert store.baselines() == pins
    assert store.baseline("v1").empty


def test_a_pin_may_be_called_like_a_record(store):
    late = on(6)
    with writing(store) as changing:
        changing.pin(late.record_id)
        changing.append(late)
    assert late in store.records()


def test_coverage_tells_what_is_there_of_a_grid(store):
    grid = Grid(axes={"model": ["bert-tiny", "gpt2-tiny"], "batch_size": [1, 8]})
    table = store.coverage(grid).set_index(["model", "batch_size"])
    assert len(table) == 4
    assert set(table["status"]) <= {"ok", "missing"}
    cell = store.records()[0].cell
    [line] = store.coverage([cell]).to_dict("records")
    assert (line["cell_id"], line["status"], line["records"]) == (cell.id, "ok", 4)
    assert (line["latest"] - DAY).days == 5


def test_the_frame_is_typed(store):
    types = store.frame().dtypes
    for name in ("model", "platform", "status", "machine_id", "series", "noise", "provenance"):
        assert isinstance(types[name], pd.CategoricalDtype), name
    for name in ("batch_size", "threads", "peak_memory_bytes", "n_samples", "kernels"):
        assert types[name] == pd.Int64Dtype(), name
    for name in ("latency_s", "duration_s", "flops"):
        assert types[name] == np.float64, name
    assert str(types["started_at"]) == "datetime64[us, UTC]"
    assert types["primary"] == np.bool_


def test_an_imported_mean_is_a_latency_that_says_what_it_is(tmp_path):
    series = Series(name="forward", items_per_call=1, unit="samples", n_samples=0, mean_s=0.5, throughput=2.0)
    given = {
        "started_at": None,
        "provenance": "imported",
        "source": "timm",
        "licence": "Apache-2.0",
        "series": [series],
    }
    record = Record(cell=Cell.of(model="resnet50"), status="ok", **given)
    with Store(tmp_path / "s.h5", writable=True) as filling:
        filling.append(record)
    [row] = Store(tmp_path / "s.h5").frame().to_dict("records")
    assert (row["latency_s"], row["latency_statistic"]) == (0.5, "mean")
    assert pd.isna(row["latency_ci_low_s"])
    assert pd.isna(row["started_at"])
    assert (row["source"], row["licence"]) == ("timm", "Apache-2.0")
    assert Store(tmp_path / "s.h5").records() == [record]


def test_a_predicate_reads_only_what_it_must(store):
    """The bytes of a column that the query does not need are destroyed."""
    with h5py.File(store.path) as file:
        place = file["series/throughput"].id.get_chunk_info(0)
    data = bytearray(store.path.read_bytes())
    data[place.byte_offset : place.byte_offset + place.size] = b"\xff" * place.size
    store.path.write_bytes(data)
    again = Store(store.path)
    assert len(again.frame(["latency_s", "machine_id"], model="bert-tiny")) == 4
    assert len(again.samples()) == 15
    assert len(again.frame(["throughput"], model="nothing of the kind")) == 0
    with pytest.raises(StoreError, match="/series/throughput is damaged"):
        again.frame(model="bert-tiny")
