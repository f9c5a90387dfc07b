"""Small runs of ``benchmarks/store_crash.py`` and ``store_powercut.py``, which are the proof, so that they cannot rot."""

import sys
import warnings
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import store_crash
import store_powercut

from labbench.store import Store, StoreError, StoreWarning
from labbench.store.snapshot import journal_path

WRONG = ["unreadable", "acknowledged lost", "duplicates", "torn"]


@pytest.mark.slow
def test_kills_lose_repeat_and_tear_nothing(monkeypatch):
    monkeypatch.setattr(store_crash, "TRIALS", 1)
    monkeypatch.setattr(store_crash, "SENT", 50)
    ours = {place: job for place, job in store_crash.JOBS.items() if place[0] == "labbench"}
    monkeypatch.setattr(store_crash, "JOBS", ours)
    table = store_crash.crash(kills=8)
    assert table[WRONG].to_numpy().sum() == 0
    assert table["landed"].sum() > 0


@pytest.mark.slow
@pytest.mark.parametrize("every", [50, pytest.param(1, marks=pytest.mark.full)])  # one or two of each kind; all
def test_a_power_cut_at_any_place_loses_nothing_that_was_acknowledged(monkeypatch, every):
    monkeypatch.setattr(store_powercut, "FEW", 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StoreWarning)
        safe, merged, _, unsafe, _ = store_powercut.sessions(2)
        safe, merged, unsafe = (store_powercut.replay(one, every) for one in (safe, merged, unsafe))
    for found in (safe, merged):
        assert (found["unopenable"], found["acknowledged lost"], found["wrong records"]) == (0, 0, 0), found
        assert found["distinct states"] > 20
    assert unsafe["acknowledged lost"] > 0  # so the simulation can fail
    assert unsafe["unopenable"] == 0  # what is left opens all the same


def test_after_a_power_cut_a_journal_that_nobody_waited_for_may_have_holes(tmp_path):
    for durability in ("process", "power"):
        path = tmp_path / f"{durability}.h5"
        store = Store(path, writable=True, durability=durability)
        for number in range(4):
            store.append(store_crash.numbered(number))
        lines = journal_path(path).read_bytes().rstrip(b"\0").splitlines(keepends=True)
        lines[2] = bytes(len(lines[2]))
        copy = tmp_path / f"{durability}-cut.h5"
        journal_path(copy).write_bytes(b"".join(lines))
    with pytest.warns(StoreWarning, match="lost in a power cut"):
        assert Store(tmp_path / "process-cut.h5").records() == [store_crash.numbered(i) for i in (0, 2, 3)]
    with Store(tmp_path / "process-cut.h5", writable=True) as after:
        after.append(store_crash.numbered(1))
    assert len(Store(tmp_path / "process-cut.h5")) == 4
    with pytest.raises(StoreError, match="is damaged"):
        Store(tmp_path / "power-cut.h5")


@pytest.mark.parametrize("hole", [1, 2, 3])
def test_a_batch_that_a_power_cut_went_through_was_never_acknowledged(tmp_path, hole):
    path = tmp_path / "s.h5"
    store = Store(path, writable=True)
    store.append(store_crash.numbered(0))
    store.extend(map(store_crash.numbered, range(1, 5)))
    lines = journal_path(path).read_bytes().rstrip(b"\0").splitlines(keepends=True)
    lines[1 + hole] = bytes(len(lines[1 + hole]))
    cut = tmp_path / "cut.h5"
    journal_path(cut).write_bytes(b"".join(lines))
    with pytest.warns(StoreWarning, match="incomplete"):
        assert Store(cut).records() == [store_crash.numbered(i) for i in range(5) if i != hole]
    store.append(store_crash.numbered(9))  # now the batch was acknowledged, and a hole in it is damage
    lines += journal_path(path).read_bytes().rstrip(b"\0").splitlines(keepends=True)[-1:]
    journal_path(cut).write_bytes(b"".join(lines))
    with pytest.raises(StoreError, match="is damaged"):
        Store(cut)
