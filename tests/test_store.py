import os
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labbench.cells import Cell
from labbench.records import (
    Check,
    Environment,
    Estimate,
    Footprint,
    Noise,
    OperatorClass,
    Record,
    Samples,
    Series,
)
from labbench.store import Store, StoreError, StoreLocked, StoreWarning

ENVIRONMENT = Environment(machine_id="m1", hostname="host", machine={"cores": 2}, software={"torch": "2.13.0"})


def make_series(name: str = "forward", seconds: tuple[float, ...] = (0.1, 0.2, 0.3)) -> Series:
    estimate = Estimate(value=seconds[0], ci_low=seconds[0] * 0.9, ci_high=seconds[0] * 1.1)
    demand = OperatorClass(flops=2e9, bytes=1e6, kernels=3)
    return Series(
        name=name,
        calls_per_sample=1,
        items_per_call=1,
        unit="samples",
        n_samples=len(seconds),
        median_s=estimate,
        p90_s=estimate,
        p99_s=estimate,
        mean_s=seconds[0],
        iqr_s=0.0,
        throughput=1 / seconds[0],
        warmup_calls=3,
        warmed=True,
        stop_reason="converged",
        footprint=Footprint(
            flops=2e9,
            bytes=1e6,
            parameters=10,
            parameter_bytes=40,
            activation_bytes=4,
            kernels=3,
            by_class={"matmul": demand},
        ),
        samples=Samples(seconds=list(seconds), process=[0] * len(seconds), round=list(range(len(seconds)))),
    )


def make_record(model: str = "bert-tiny", **changes) -> Record:
    values = {"cell": Cell.of(model=model, seq_len=16), "status": "ok", "machine_id": "m1"}
    values["environment_id"] = ENVIRONMENT.id
    values["series"] = [make_series()] if changes.get("status", "ok") == "ok" else []
    return Record(**{**values, **changes})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "study.h5"


def filled(path: Path, *records: Record) -> Path:
    with Store(path, writable=True) as store:
        for record in records:
            store.append(record, ENVIRONMENT)
    return path


def abandon(store: Store) -> None:
    """What is left of a writer that was killed: no fold, and the lock is free."""
    store._writer._journal.close()
    store._writer._lock.release()


awkward = st.text(max_size=30) | st.sampled_from(["\0", "\\0", "a\\\0b", "🎉", "\\", "\\\\0", "é\n\t"])
finite = st.floats(allow_nan=False, allow_infinity=False)
positive = st.floats(min_value=0, allow_nan=False, allow_infinity=False)
records = st.builds(
    lambda **kw: make_record(**kw),
    status=st.sampled_from(["ok", "failed", "timeout"]),
    reason=st.none() | awkward,
    stderr_tail=st.none() | awkward,
    duration_s=st.none() | positive,
    started_at=st.datetimes(min_value=datetime(1990, 1, 1), timezones=st.just(UTC)),
    threads=st.none() | st.integers(0, 1000),
    metrics=st.dictionaries(awkward, finite, max_size=3),
    protocol=st.none() | st.dictionaries(awkward, finite | awkward, max_size=3),
    check=st.none() | st.builds(Check, passed=st.booleans(), max_error=positive, tolerance=positive),
    noise=st.none() | st.builds(Noise, verdict=st.just("quiet"), reasons=st.lists(awkward, max_size=2)),
)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(records, max_size=6), st.integers(0, 6))
def test_records_come_back_exactly_from_journal_and_file(tmp_path_factory, items, split):
    path = tmp_path_factory.mktemp("store") / "s.h5"
    filled(path, *items[:split])
    with Store(path, writable=True) as store:
        for record in items[split:]:
            store.append(record, ENVIRONMENT)
        assert Store(path).records() == items  # part in the file, part in the journal
    assert Store(path).records() == items  # all in the file


def test_samples_of_every_series_are_kept_in_order(path):
    record = make_record(series=[make_series("prefill", (0.5, 0.25)), make_series("decode", (0.125,))])
    table = Store(filled(path, make_record(), record)).samples([record.record_id])
    assert table["series"].tolist() == ["prefill", "prefill", "decode"]
    assert table["seconds"].tolist() == [0.5, 0.25, 0.125]


def test_the_frame_is_tidy_and_typed(path):
    failed = make_record(status="failed", reason="no")
    two = make_record("gpt2-tiny", series=[make_series("prefill"), make_series("decode")])
    table = Store(filled(path, make_record(), failed, two)).frame()
    assert table["series"].astype(object).where(table["series"].notna(), None).tolist() == [
        "forward",
        None,
        "prefill",
        "decode",
    ]
    assert table["primary"].tolist() == [True, True, True, False]
    assert table["cell_id"].tolist() == [r.cell_id for r in (make_record(), failed, two, two)]
    assert isinstance(table["model"].dtype, pd.CategoricalDtype)
    assert str(table["started_at"].dt.tz) == "UTC"
    assert table["threads"].dtype == "Int64"
    assert table.loc[0, "flops_matmul"] == 2e9
    assert np.isnan(table.loc[1, "latency_s"])


def test_times_of_other_zones_are_the_same_instant(path):
    local = datetime(2026, 3, 1, 12, tzinfo=timezone(timedelta(hours=5)))
    [record] = Store(filled(path, make_record(started_at=local))).records()
    assert record.started_at == local


def test_an_environment_is_kept_once(path):
    filled(path, make_record(), make_record())
    filled(path, make_record())
    store = Store(path)
    assert store.environments() == {ENVIRONMENT.id: ENVIRONMENT}
    with h5py.File(path) as file:
        assert len(file["environments/id"]) == 1


def test_latest_gives_the_newest_record_of_each_cell_and_machine(path):
    old = make_record(started_at=datetime(2026, 1, 1, tzinfo=UTC))
    new = make_record(started_at=datetime(2026, 1, 2, tzinfo=UTC), status="failed")
    other = make_record(started_at=datetime(2025, 1, 1, tzinfo=UTC), machine_id="m2")
    store = Store(filled(path, new, old, other))
    assert set(store.latest()["record_id"]) == {new.record_id, other.record_id}
    assert store.history(old.cell)["record_id"].tolist() == [other.record_id, old.record_id, new.record_id]


def test_filters_name_the_nearest_column(path):
    with pytest.raises(ValueError, match="did you mean 'mode'"):
        Store(filled(path, make_record())).frame(modle="x")


def test_an_empty_store_has_an_empty_frame(path):
    store = Store(filled(path))
    assert len(store.frame()) == len(store.samples()) == len(store.latest()) == 0


def test_the_file_explains_itself_to_plain_h5py(path):
    filled(path, make_record())
    with h5py.File(path) as file:
        latency = file["series/median_s.value"]
        assert latency[0] == 0.1
        assert latency.attrs["unit"] == b"s"
        model = file["records/cell.workload.model"]
        assert file[model.attrs["categories"]].asstr()[model[0]] == "bert-tiny"
        assert all("description" in file["records"][name].attrs for name in file["records"])


def test_numbers_that_make_no_sense_are_refused():
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="finite"):
            make_record(duration_s=bad)


def test_a_reader_cannot_append(path):
    with pytest.raises(StoreError, match="writable=True"):
        Store(filled(path)).append(make_record())


def test_a_missing_database_is_named_with_the_way_out(path):
    with pytest.raises(StoreError, match="labbench run --store"):
        Store(path)


def test_a_second_writer_is_told_who_has_the_database(path):
    with Store(path, writable=True), pytest.raises(StoreLocked, match=rf"process {os.getpid()} on .* since"):
        Store(path, writable=True)
    Store(path, writable=True).close()


def test_a_foreign_file_is_refused_and_left_alone(path):
    with h5py.File(path, "w") as file:
        file["x"] = 1
    before = path.read_bytes()
    with pytest.raises(StoreError, match="not a labbench database"):
        Store(path, writable=True)
    path.write_text("no HDF5 at all")
    with pytest.raises(StoreError, match="no HDF5 file"):
        Store(path).frame()
    path.write_bytes(before)
    with h5py.File(path) as file:
        assert file["x"][()] == 1


def test_a_file_of_a_newer_version_is_refused(path):
    filled(path, make_record())
    with h5py.File(path, "r+") as file:
        file.attrs["schema_version"] = 999
    before = path.read_bytes()
    with pytest.raises(StoreError, match="schema 999"):
        Store(path, writable=True)
    assert path.read_bytes() == before


def test_a_torn_last_line_of_the_journal_is_dropped_and_the_rest_kept(path):
    store = Store(path, writable=True)
    for _ in range(3):
        store.append(make_record(), ENVIRONMENT)
    journal = path.with_name("study.h5.journal")
    whole = journal.read_bytes()
    abandon(store)
    whole = whole.rstrip(b"\0")
    journal.write_bytes(whole[:-7])
    with pytest.warns(StoreWarning, match="incomplete"):
        assert len(Store(path)) == 2
    with Store(path, writable=True) as store:
        store.append(make_record(), ENVIRONMENT)
    assert len(Store(path)) == 3


def test_a_damaged_entry_in_the_middle_is_an_error_not_a_wrong_number(path):
    store = Store(path, writable=True)
    for _ in range(3):
        store.append(make_record(), ENVIRONMENT)
    journal = path.with_name("study.h5.journal")
    damaged = bytearray(journal.read_bytes())
    damaged[len(damaged.rstrip(b"\0")) // 2] ^= 1
    abandon(store)
    journal.write_bytes(bytes(damaged))
    with pytest.raises(StoreError, match=r"byte \d+ on, is damaged.*study\.h5 --repair"):
        Store(path)
    with pytest.raises(StoreError, match="damaged"):
        Store(path, writable=True)
    assert journal.read_bytes() == damaged


def test_a_crash_between_fold_and_clearing_the_journal_duplicates_nothing(path):
    store = Store(path, writable=True)
    store.append(make_record(), ENVIRONMENT)
    journal = path.with_name("study.h5.journal")
    entries = journal.read_bytes()
    store.close()
    journal.write_bytes(entries)
    assert len(Store(path)) == 1
    with Store(path, writable=True) as store:
        store.append(make_record(), ENVIRONMENT)
    assert len(Store(path)) == 2


@pytest.mark.parametrize("place", range(12))
def test_ctrl_c_at_any_place_parts_nothing(path, monkeypatch, place):
    """It comes before or after the n-th thing that is done to the disk; the store goes on in the same process."""
    from labbench.store import disk

    left = iter(range(place, -1, -1))

    def interrupt() -> None:
        if next(left, -1) == 0:
            raise KeyboardInterrupt

    def interrupting(action):
        def act(*arguments):
            interrupt()
            result = action(*arguments)
            interrupt()
            return result

        return act

    first, interrupted, after = make_record(), make_record(), make_record()
    store = Store(path, writable=True)
    store.append(first, ENVIRONMENT)
    for name in ("write", "sync", "replace", "remove"):
        monkeypatch.setattr(disk, name, interrupting(getattr(disk, name)))
    with pytest.raises(KeyboardInterrupt):
        _ = store.append(interrupted, ENVIRONMENT), store.fold()
    monkeypatch.undo()
    store.append(after, ENVIRONMENT)
    kept = [record for record in store.records() if record != interrupted]
    assert kept == [first, after]
    store.append(interrupted)  # which changes nothing if it is there already
    store.close()
    assert sorted(record.record_id for record in Store(path).records()) == sorted(
        record.record_id for record in (first, interrupted, after)
    )
    assert list(Store(path).environments().values()) == [ENVIRONMENT]


def test_what_a_killed_writer_left_unfinished_is_cleared_away(path):
    filled(path, make_record())
    left = path.with_name(f".{path.name}.12345.tmp")
    left.write_bytes(b"half a file")
    filled(path)
    assert not left.exists()


def test_a_reader_notices_a_change_that_no_clock_tells(path, monkeypatch):
    """The journal grows within room made in advance, and the time of its change has steps of some milliseconds."""
    writer = Store(path, writable=True)
    writer.append(make_record())
    reader = Store(path)
    before = reader._snapshot().state
    writer.append(make_record())
    journal = Path(f"{path}.journal")
    os.utime(journal, ns=(before.journal[1], before.journal[1]))
    assert journal.stat().st_size == before.journal[2]
    assert len(reader) == 2
    abandon(writer)


def test_a_symbolic_link_stays_one_and_leads_to_the_same_journal(path):
    filled(path, make_record())
    link = path.with_name("link.h5")
    link.symlink_to(path)
    with Store(link, writable=True) as store:
        store.append(make_record())
        assert len(Store(path)) == len(Store(link)) == 2
        with pytest.raises(StoreLocked):
            Store(path, writable=True)
    assert link.is_symlink()
    assert len(Store(path)) == len(Store(link)) == 2


def test_the_first_fold_is_no_moment_without_a_database(path, monkeypatch):
    """A reader looks at the journal, and the file, while the writer makes the one and removes the other."""
    from labbench.store import snapshot

    store = Store(path, writable=True)
    store.append(make_record())
    look = snapshot._look

    def folding_in_between(one):
        found = look(one)
        if store._writer._journal.count:
            store.fold()
        return found

    monkeypatch.setattr(snapshot, "_look", folding_in_between)
    assert len(Store(path)) == 1
    store.close()
