import multiprocessing
import os
import random
import resource
import signal
import subprocess
import warnings
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import h5py
import pytest
from pydantic import ValidationError
from test_store import ENVIRONMENT, abandon, filled, make_record, make_series

from labbench.config import ConfigError
from labbench.records import Environment, Record, Samples
from labbench.store import Refused, Store, StoreError, StoreWarning, hdf5, journal
from labbench.store.merge import merge
from labbench.store.snapshot import journal_path

EAST = timezone(timedelta(hours=5))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "s.h5"


# ------------------------------------------------------------------ values


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1.0])
@pytest.mark.parametrize(
    ("place", "change"),
    [
        ("duration_s", lambda data, bad: data.update(duration_s=bad)),
        ("phases.load_s", lambda data, bad: data["phases"].update(load_s=bad)),
        ("series.0.median_s.value", lambda data, bad: data["series"][0]["median_s"].update(value=bad)),
        ("series.0.throughput", lambda data, bad: data["series"][0].update(throughput=bad)),
        ("series.0.samples.seconds.1", lambda data, bad: data["series"][0]["samples"]["seconds"].__setitem__(1, bad)),
        ("series.0.footprint.flops", lambda data, bad: data["series"][0]["footprint"].update(flops=bad)),
    ],
)
def test_numbers_that_make_no_sense_are_refused_by_name(place, change, bad):
    data = make_record().model_dump()
    change(data, bad)
    with pytest.raises(ValidationError) as error:
        Record.model_validate(data)
    assert ".".join(map(str, error.value.errors()[0]["loc"])) == place


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ({"protocol": {"a": [float("nan")]}}, "not JSON compliant"),
        ({"metrics": {"a": float("inf")}}, "not JSON compliant"),
        ({"threads": 2**63}, "threads = 9223372036854775808 does not fit in 64 bits"),
        ({"reason": "\ud800"}, "surrogate"),
        ({"protocol": {"\ud800": 1}}, "surrogate"),
    ],
)
def test_what_slipped_past_validation_is_refused_at_append_and_nothing_is_kept(path, change, hint):
    before, after = make_record(), make_record()
    with Store(path, writable=True) as store:
        store.append(before, ENVIRONMENT)
        with pytest.raises(Refused, match=hint):
            store.extend([make_record(), make_record().model_copy(update=change)])
        assert len(store) == 1
        store.append(after, ENVIRONMENT)
    assert Store(path).records() == [before, after]


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "change",
    [
        {"machine": {"a": float("nan")}},
        {"machine": {"a": [float("inf")]}},
        {"machine": {"a": nested(250)}},  # deeper than what reads it goes
        {"hostname": "\ud800"},
        {"machine": {"\ud800": 1}},
        {"hostname": None},
    ],
)
def test_an_environment_that_would_not_come_back_is_refused_and_nothing_is_kept(path, change):
    record = make_record()
    with Store(path, writable=True) as store:
        with pytest.raises(Refused, match="nothing was kept"):
            store.append(make_record(), ENVIRONMENT.model_copy(update=change))
        assert len(store) == len(store.environments()) == 0
        store.append(record, ENVIRONMENT)
    assert Store(path).records() == [record]
    assert Store(path).environments() == {ENVIRONMENT.id: ENVIRONMENT}


def test_a_pin_that_would_not_come_back_is_refused(path):
    with Store(path, writable=True) as store:
        store.append(make_record())
        with pytest.raises(Refused, match="nothing was kept"):
            store.pin("v1", note="\ud800")
        store.pin("v1", note="fine")
    assert [pin.note for pin in Store(path).baselines()] == ["fine"]


def test_integers_of_any_size_come_back_where_no_column_limits_them(path):
    record = make_record(protocol={"seed": [2**64, -(2**200)]})
    environment = Environment(machine_id="m", hostname="h", machine={"a": 2**70}, software={})
    with Store(path, writable=True) as store:
        store.append(record, environment)
        assert store.records() == [record]
    assert Store(path).records() == [record]
    assert Store(path).environments() == {environment.id: environment}


def test_a_moment_that_utc_cannot_tell_is_refused_by_name():
    for moment in (datetime.max.replace(tzinfo=timezone(-timedelta(hours=5))), datetime.min.replace(tzinfo=EAST)):
        with pytest.raises(ValidationError, match=r"started_at\n.*out of range"):
            make_record(started_at=moment)


def test_the_first_and_the_last_moment_come_back(path):
    records = [make_record(started_at=moment.replace(tzinfo=UTC)) for moment in (datetime.min, datetime.max)]
    filled(path, *records)
    assert Store(path).records() == records
    assert Store(path).history(records[0].cell)["record_id"].tolist() == [record.record_id for record in records]


def test_texts_of_every_kind_come_back(path):
    texts = ["a\0b\0", "😀 é \u2028", "\\0 \\\\ \\", "", " ", "x" * 2**20, "NaN", "1" * 30, '"\n\t', "\0"]
    records = [make_record(reason=text, stderr_tail=text, device_name=text, protocol={text: text}) for text in texts]
    environments = [Environment(machine_id="m", hostname=t, machine={"a": t}, software={"b": t}) for t in texts]
    store = Store(path, writable=True)
    store.extend(records, environments)
    assert store.records() == Store(path).records() == records
    store.close()
    assert Store(path).records() == records
    assert sorted(one.hostname for one in Store(path).environments().values()) == sorted(texts)
    assert set(Store(path).frame()["reason"]) == set(texts)


@pytest.mark.slow
def test_a_record_of_a_million_samples_comes_back(path):
    rng = random.Random(0)
    seconds = [rng.random() for _ in range(10**6)]
    samples = Samples(seconds=seconds, process=[i % 3 for i in range(10**6)], round=list(range(10**6)))
    series = make_series().model_copy(update={"n_samples": 10**6, "samples": samples})
    record = make_record(series=[series])
    filled(path, make_record(), record, make_record())
    store = Store(path)
    assert store.records([record.record_id]) == [record]
    assert store.samples([record.record_id])["seconds"].tolist() == seconds


# ------------------------------------------------------------------ files


def read_everything(path: Path) -> tuple[Any, ...]:
    store = Store(path)
    frame, samples = store.frame(retracted=True), store.samples()
    values = (
        store.records(), store.environments(), store.baselines(), frame.to_csv(), samples.to_csv(),
        store.latest().to_csv(),
    )  # fmt: skip
    store.close()
    return values


def few(path: Path, fold: bool) -> tuple[Any, ...]:
    """A small database of every sort of thing; what is in it."""
    store = Store(path, writable=True)
    for i in range(6):
        store.append(make_record(series=[make_series("forward", (0.1 + i, 0.2 + i, 0.3 + i))]), ENVIRONMENT)
    store.append(make_record(status="failed", reason="no room", series=[]), ENVIRONMENT)
    store.pin("v1")
    store.retract(store.records()[2].record_id, "wrong")
    store.close() if fold else abandon(store)
    return read_everything(path)


@pytest.mark.slow
@pytest.mark.parametrize("flips", [150, pytest.param(1000, marks=pytest.mark.full)])
def test_wrong_bits_are_noticed_or_harmless(path, flips):
    expected = few(path, fold=True)
    data = path.read_bytes()
    rng = random.Random(0)
    noticed = 0
    for _ in range(flips):
        place = rng.randrange(len(data))
        damaged = bytearray(data)
        damaged[place] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            assert read_everything(path) == expected, f"byte {place}"
        except StoreError:
            noticed += 1
    assert noticed > flips / 5


def test_wrong_bits_in_the_journal_are_noticed(path):
    expected = few(path, fold=False)
    place = journal_path(path)
    data = place.read_bytes().rstrip(b"\0")
    last = data.rindex(b"\n", 0, len(data) - 1) + 1
    rng = random.Random(0)
    heads = [8 * at + bit for at in (data.index(b"\n") + 1, last) for bit in range(0, 8 * journal.HEADER, 3)]
    for bit in [*heads, *(rng.randrange(8 * len(data)) for _ in range(80))]:
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        place.write_bytes(damaged)
        if bit // 8 < last:
            with pytest.raises(StoreError, match="damaged"):
                read_everything(path)
        else:  # like an entry that a crash cut short
            with pytest.warns(StoreWarning, match="incomplete"):
                assert read_everything(path)[0] == expected[0][:-1]


def test_a_journal_of_nonsense_is_set_aside_not_thrown_away(path):
    record = make_record()
    for text in (b"hello\n", b"\xff" * 3000, b"00000000 00000000 ", b"ffffffff ffffffff "):
        filled(path, record)
        journal_path(path).write_bytes(text)
        with pytest.warns(StoreWarning, match="incomplete"):
            assert Store(path).records() == [record]
        Store(path, writable=True).close()
        [kept] = path.parent.glob("*.torn-*")
        assert kept.read_bytes() == text
        assert Store(path).records() == [record]
        kept.unlink()


def what_reading_gives(path: Path) -> str:
    """In a process of its own: without checksums HDF5 may crash on what is damaged."""
    child = os.fork()
    if child == 0:
        try:
            read_everything(path)
            os._exit(0)
        except StoreError:
            os._exit(1)
        except BaseException:
            os._exit(2)
    status = os.waitpid(child, 0)[1]
    return "crash" if os.WIFSIGNALED(status) else ["read", "StoreError", "another error"][os.WEXITSTATUS(status)]


@pytest.mark.parametrize("damage", ["flips", "cuts"])
def test_a_damaged_file_of_schema_1_is_an_error_of_the_store(path, damage):
    """It had no checksums, so a number may be wrong; but whatever is noticed is said in one way."""
    data = (Path(__file__).parent / "frozen" / "store_v1.h5").read_bytes()
    rng = random.Random(1)
    found: Counter[str] = Counter()
    for _ in range(25):
        damaged = bytearray(data)
        if damage == "flips":  # where the structure is rather than the values: the second half
            damaged[rng.randrange(len(data) // 2, len(data))] ^= 1 << rng.randrange(8)
        else:
            del damaged[rng.randrange(len(data)) :]
        path.write_bytes(damaged)
        found[what_reading_gives(path)] += 1
    assert found["another error"] == 0
    assert found["StoreError"] > 5
    assert found["crash"] <= (3 if damage == "flips" else 0)


def test_a_file_that_was_cut_short_is_refused_wherever_the_cut(path):
    few(path, fold=True)
    data = path.read_bytes()
    rng = random.Random(0)
    for size in [0, 1, 8, len(data) - 1, *(rng.randrange(len(data)) for _ in range(50))]:
        path.write_bytes(data[:size])
        for writable in (False, True):
            with pytest.raises(StoreError, match=r"damaged|no HDF5 file"):
                Store(path, writable=writable).records()
        assert path.read_bytes() == data[:size]


def foreign_hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["x"] = 1
        file.attrs.update({"axes": [1.0, 2.0], "title": ["a", "b"], "none": h5py.Empty("f"), "at": file["x"].ref})


def partly(**attributes: Any) -> Callable[[Path], None]:
    """What makes a file that says it is ours and little else."""

    def make(path: Path) -> None:
        with h5py.File(path, "w") as file:
            file.attrs.update({"format": "labbench", **attributes})

    return make


@pytest.mark.parametrize(
    ("make", "hint"),
    [
        (foreign_hdf5, "not a labbench database"),
        (partly(), "schema_version.* is damaged"),
        (partly(schema_version="two"), "schema_version.* is damaged"),
        (partly(schema_version=[1, 2]), "schema_version.* is damaged"),
        (lambda path: path.write_text("no HDF5"), "no HDF5 file"),
        (lambda path: path.write_bytes(b""), "no HDF5 file"),
    ],
)
def test_files_of_others_are_refused_and_left_alone(path, make, hint):
    make(path)
    before = path.read_bytes()
    for action in (Store, lambda path: Store(path, writable=True), lambda path: merge([path], path)):
        with pytest.raises(StoreError, match=hint):
            action(path)
    assert path.read_bytes() == before
    assert [one.name for one in path.parent.iterdir() if not one.name.endswith(".lock")] == ["s.h5"]


def test_a_folder_is_no_database(tmp_path):
    for writable in (False, True):
        with pytest.raises(StoreError, match=str(tmp_path)):
            Store(tmp_path, writable=writable)


@pytest.mark.parametrize("fold", [True, False])
def test_a_newer_schema_is_refused_and_left_alone(path, fold, monkeypatch):
    for module in (hdf5, journal):
        monkeypatch.setattr(module, "SCHEMA_VERSION", 99)
    monkeypatch.setattr("labbench.store.hdf5.__version__", "7.8")
    store = Store(path, writable=True)
    store.append(make_record())
    store.close() if fold else abandon(store)
    monkeypatch.undo()
    before = {one.name: one.read_bytes() for one in path.parent.iterdir() if one.suffix in (".h5", ".journal")}
    assert before
    for action in (Store, lambda path: Store(path, writable=True), lambda path: merge([path], path)):
        with pytest.raises(StoreError, match=r"schema 99.*install"):
            action(path)
    if fold:
        with pytest.raises(StoreError, match=r"install labbench 7\.8"):
            Store(path)
    assert {one.name: one.read_bytes() for one in path.parent.iterdir() if one.suffix in (".h5", ".journal")} == before


# ------------------------------------------------------------------ disks


def in_a_child(work: Callable[..., Any], *arguments: Any) -> str:
    """What ``work`` returns in a process of its own, which may limit itself."""

    def run(pipe: Any) -> None:
        try:
            pipe.send(work(*arguments))
        except BaseException as error:
            pipe.send(f"{type(error).__name__}: {error}")
        os._exit(0)

    here, there = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=run, args=(there,))
    child.start()
    said: str = here.recv() if here.poll(60) else "nothing"
    child.join(10)
    return said


def limit_files(size: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def large() -> Record:
    samples = Samples(seconds=[0.1 + i / 1e5 for i in range(5000)], process=[0] * 5000, round=[0] * 5000)
    return make_record(series=[make_series().model_copy(update={"n_samples": 5000, "samples": samples})])


def append_until_full(path: Path, records: list[Record], limit: int) -> str:
    """Append under a limit of the size of files; returns how many were acknowledged, and the error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store = Store(path, writable=True)
        limit_files(limit)
        for number, record in enumerate(records):
            try:
                store.append(record, ENVIRONMENT)
            except StoreError as error:
                limit_files(resource.RLIM_INFINITY)
                store.append(record, ENVIRONMENT)  # there is room again
                abandon(store)
                return f"{number} {error}"
    return "never full"


def test_a_disk_that_fills_up_during_an_append_costs_only_that_record(path):
    filled(path, make_record())
    records = [large() for _ in range(20)]
    said = in_a_child(append_until_full, path, records, 10**6)
    number, _, error = said.partition(" ")
    assert 0 < int(number) < 20, said
    assert f"cannot append to {path}: File too large; earlier records are safe" in error
    assert Store(path).records()[1:] == records[: int(number) + 1]


def fold_when_full(path: Path, records: list[Record]) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StoreWarning)
        store = Store(path, writable=True)
        store.extend(records, [ENVIRONMENT])
        limit_files(50_000)
        try:
            store.close()
        except StoreError as error:
            limit_files(resource.RLIM_INFINITY)
            return str(error)
    return "folded"


def test_a_disk_that_fills_up_during_a_fold_costs_nothing(path):
    first = make_record()
    filled(path, first)
    before = path.read_bytes()
    records = [large() for _ in range(5)]
    error = in_a_child(fold_when_full, path, records)
    assert f"cannot write {path} anew: File too large; every record is safe in its journal" in error
    assert path.read_bytes() == before
    assert Store(path).records() == [first, *records]
    assert not list(path.parent.glob(".*tmp"))
    Store(path, writable=True).close()
    assert not journal_path(path).exists()
    assert Store(path).records() == [first, *records]


def merge_when_full(paths: list[Path], output: Path) -> str:
    limit_files(50_000)
    try:
        return f"{merge(paths, output)} records"
    except StoreError as error:
        return str(error)


def test_a_disk_that_fills_up_during_a_merge_leaves_the_output_as_it_was(tmp_path):
    a, b = (filled(tmp_path / f"{name}.h5", large()) for name in "ab")
    output = filled(tmp_path / "all.h5", make_record())
    before = output.read_bytes()
    assert "File too large; it is as it was" in in_a_child(merge_when_full, [a, b], output)
    assert output.read_bytes() == before
    assert not list(tmp_path.glob(".*tmp"))


def append_without_end(store: Store, kept: list[Record]) -> None:
    warnings.simplefilter("ignore", StoreWarning)  # of folds that fail
    while True:
        record = large()
        store.append(record, ENVIRONMENT)
        kept.append(record)


def test_a_small_disk_that_is_full(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("this user, or this container, cannot mount a tmpfs")
    try:
        path = disk / "s.h5"
        kept: list[Record] = []
        store = Store(path, writable=True)
        with pytest.raises(StoreError, match="No space left on device"):
            append_without_end(store, kept)
        assert len(kept) > 3
        assert Store(path).records() == kept
        with pytest.raises(StoreError, match="No space left on device; every record is safe"):
            store.close()
        subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
        Store(path, writable=True).close()
        assert Store(path).records() == kept
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def write_as_nobody(path: Path) -> str:
    if os.geteuid() == 0:
        os.setuid(65534)
    assert len(Store(path)) == 1
    Store(path, writable=True)
    return "written"


def test_a_read_only_folder_is_named_and_can_be_read(tmp_path):
    folder = tmp_path / "shelf"
    folder.mkdir()
    path = filled(folder / "s.h5", make_record())
    for one in folder.iterdir():
        one.chmod(0o444)
    folder.chmod(0o555)
    for parent in tmp_path.parents:
        if parent.owner() == tmp_path.owner() and parent.stat().st_mode & 0o777 == 0o700:
            parent.chmod(0o711)
    tmp_path.chmod(0o711)
    said = in_a_child(write_as_nobody, path)
    folder.chmod(0o755)
    assert said == f"StoreError: cannot write to {path}: Permission denied ({folder})"


# ------------------------------------------------------------------ arguments


def test_wrong_arguments_are_named(path):
    filled(path, make_record())
    with pytest.raises(StoreError, match="unknown durability 'paper'; known: 'power', 'process'"):
        Store(path, writable=True, durability="paper")
    with pytest.raises(ConfigError, match="did you mean 'latency_s'"):
        Store(path).frame(["latency"])
    with pytest.raises(ConfigError, match="did you mean 'model'"):
        Store(path).frame(modell="bert-tiny")
    for unknown in ("0" * 32, "", "x", "\ud800"):
        with pytest.raises(StoreError, match=r"s\.h5 has no record"):
            Store(path).records([unknown])
    for moment in ("yesterday", 5, object()):
        with pytest.raises(StoreError, match="is no date"):
            Store(path).frame(since=moment)
    assert Store(path).samples(["0" * 32]).empty
