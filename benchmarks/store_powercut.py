"""A power cut at every place of a session: what the store finds afterwards.

Everything that a session does to the disk is taken down (``tests/disktap.py``) and played back (``tests/powercut.py``): every
prefix of the sequence, and at each place everything not yet synced lost, all of it there, each operation lost alone or there
alone, and the last write in part. The folder that is left is opened for reading, for writing, and for reading again. It must
open, hold every record that was acknowledged before the cut with exactly its content, and nothing that was never appended.

    python benchmarks/store_powercut.py [--records 200]

The last sessions show that this can fail: the store without waiting for the disk, and plain h5py with flush and fsync. Exits with
status 1 if a session with ``durability="power"`` lost something or did not open.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import shutil
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import pandas as pd
from store_data import ENVIRONMENT, number_of, numbered
from tqdm import tqdm

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from disktap import Recorder
from powercut import crashes, write_folder

from labbench.records import Record, upgrade
from labbench.store import Store, StoreWarning, journal
from labbench.store.merge import merge

FROZEN = Path(__file__).parents[1] / "tests" / "frozen"
FEW = 12  # records of sessions that sync nothing: the states to look at grow with the square
ROOM = 1 << 14  # bytes the journal makes in advance here, so that it does so many times in a session
COLUMNS = 6  # of the plain h5py side
BATCH = 4  # records of an ``extend``: a write that the power cut can go through anywhere


class State(NamedTuple):
    """What is found after a restart: the numbers of the records, or None if it does not open, and how many are wrong."""

    numbers: frozenset[int] | None
    wrong: int


Play = Callable[[Path, Recorder], None]
Look = Callable[[Path], State]


@dataclass(frozen=True)
class Session:
    """Something to cut the power of.

    Attributes
    ----------
    name : str
    prepare : callable
        Makes the folder's first content, which is safe.
    play : callable
        Does the work and tells the recorder what is acknowledged.
    look : callable
        What is found afterwards.
    must_hold : bool
        Whether nothing may be lost.
    ahead : int or None
        How many records may be there that are not acknowledged yet; None if the session only moves what was there before.
    """

    name: str
    prepare: Callable[[Path], None]
    play: Play
    look: Look
    must_hold: bool = True
    ahead: int | None = None


def nothing(folder: Path) -> None:
    """An empty folder."""


def appending(records: int, durability: str) -> Play:
    """A session of so many records, with folds, a second writer, a pin and a retraction."""

    def play(folder: Path, recorder: Recorder) -> None:
        half = records // 2
        for part in (range(half), range(half, records)):
            with Store(folder / "s.h5", writable=True, durability=durability) as store:
                for numbers in steps(part):
                    store.extend(map(numbered, numbers), [ENVIRONMENT])
                    recorder.ack(numbers.stop)
                    if {records // 3, 2 * records // 3} & set(numbers):
                        store.fold()
                store.pin(f"after {part.stop}")
                store.retract(numbered(part.start).record_id, "a test")

    return play


def steps(numbers: range) -> Iterator[range]:
    """One, one, some at once, and so on."""
    for size in itertools.cycle((1, 1, BATCH)):
        if not numbers:
            return
        yield numbers[:size]
        numbers = numbers[size:]


def look_at_store(folder: Path) -> State:
    """Open for reading, writing and reading; a retraction is no record of ours."""
    found: list[State] = []
    for writable in (False, True, False):
        if not (folder / "s.h5").exists() and not (folder / "s.h5.journal").exists():
            found.append(State(frozenset(), 0))
            continue
        try:
            with Store(folder / "s.h5", writable=writable) as store:
                records = [record for record in store.records() if record.status != "retraction"]
                environments = store.environments()
        except Exception as error:
            print(f"does not open: {error}", file=sys.stderr)
            return State(None, 0)
        numbers = [number_of(record.record_id) for record in records]
        wrong = sum(record != numbered(number) for number, record in zip(numbers, records, strict=True))
        wrong += len({record.environment_id for record in records} - environments.keys())
        found.append(State(frozenset(numbers), wrong + len(numbers) - len(set(numbers))))
    numbers_found = frozenset.intersection(*(state.numbers for state in found if state.numbers is not None))
    return State(numbers_found, max(state.wrong for state in found))


def two_databases(folder: Path) -> None:
    """Two that share records, and an output that exists."""
    for name, numbers in (("a", range(20)), ("b", range(10, 30)), ("s", range(25, 35))):
        with Store(folder / f"{name}.h5", writable=True) as store:
            store.extend(map(numbered, numbers), [ENVIRONMENT])


def merging(folder: Path, recorder: Recorder) -> None:
    """Merge both into the third."""
    merge([folder / "a.h5", folder / "b.h5"], folder / "s.h5")
    recorder.ack(35)


def old_database(folder: Path) -> None:
    """A frozen database of schema 1."""
    for suffix in ("", ".journal"):
        shutil.copy(FROZEN / f"store_v1.h5{suffix}", folder / f"s.h5{suffix}")


def migrating(folder: Path, recorder: Recorder) -> None:
    """Open it for writing."""
    recorder.ack(len(old_records()))
    Store(folder / "s.h5", writable=True).close()


def old_records() -> dict[str, Record]:
    """What it holds, in today's schema."""
    lines = (FROZEN / "store_v1.jsonl").read_text().splitlines()
    return {one.record_id: one for one in (Record.model_validate(upgrade(json.loads(line))) for line in lines)}


def look_at_old(folder: Path) -> State:
    """Its records, numbered as the frozen file has them."""
    expected = old_records()
    order = list(expected)
    numbers = frozenset(range(len(order)))
    wrong = 0
    for writable in (False, True, False):
        try:
            with Store(folder / "s.h5", writable=writable) as store:
                records = store.records()
        except Exception as error:
            print(f"does not open: {error}", file=sys.stderr)
            return State(None, 0)
        wrong = max(wrong, sum(expected.get(one.record_id) != one for one in records))
        numbers &= {order.index(one.record_id) for one in records if one.record_id in expected}
    return State(numbers, wrong)


def plain_h5py(folder: Path, recorder: Recorder) -> None:
    """A row to each dataset, flush, fsync, acknowledge; through a Python file, so that the recorder sees it."""
    with (folder / "s.h5").open("w+b") as raw, h5py.File(raw, "w") as file:
        for i in range(COLUMNS):
            file.create_dataset(f"column{i}", (0,), "f8", maxshape=(None,), chunks=(64,))
        for number in range(FEW):
            for i in range(COLUMNS):
                file[f"column{i}"].resize(number + 1, axis=0)
                file[f"column{i}"][number] = number + i
            file.flush()
            raw.flush()
            os.fsync(raw.fileno())
            recorder.ack(number + 1)


def look_at_h5py(folder: Path) -> State:
    """Its rows, as far as every dataset has them."""
    if not (folder / "s.h5").exists():
        return State(frozenset(), 0)
    try:
        with h5py.File(folder / "s.h5", "r") as file:
            columns = [file[f"column{i}"][()] for i in range(COLUMNS)]
    except Exception:
        return State(None, 0)
    length = min(map(len, columns))
    right = [np.array_equal(column[:length], np.arange(length) + i) for i, column in enumerate(columns)]
    return State(frozenset(range(length)), right.count(False))


def sessions(records: int) -> list[Session]:
    """All of them."""
    return [
        Session(f"{records} records", nothing, appending(records, "power"), look_at_store, ahead=BATCH),
        Session("merge", two_databases, merging, look_at_store),
        Session("migrate", old_database, migrating, look_at_old),
        Session(f"{FEW} records, durability 'process'", nothing, appending(FEW, "process"), look_at_store, False),
        Session(f"{FEW} records, plain h5py + fsync", nothing, plain_h5py, look_at_h5py, False),
    ]


def replay(session: Session, every: int = 1) -> dict[str, object]:
    """Record a session, cut its power everywhere, and count what is wrong.

    With ``every`` only at the first, and each so-many-th, of the cuts of one kind: after one kind of operation, with the same fate
    of another kind.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "session"
        folder.mkdir()
        session.prepare(folder)
        with Recorder(folder) as recorder, small_room():
            session.play(folder, recorder)
        restart = Path(name) / "restart"
        seen: dict[str, State] = {}
        unopenable = lost = wrong = cuts = 0
        total = len(recorder.operations) + 1
        with tqdm(total=total, desc=session.name, unit=" places", disable=None, leave=False) as bar:
            done = (None, *recorder.operations)
            of_kind: Counter[tuple[type, str]] = Counter()
            for cut in crashes(recorder.operations, recorder.files):
                bar.update(cut.after - bar.n)
                kind = type(done[cut.after]), cut.variant.partition("(")[0]
                of_kind[kind] += 1
                if of_kind[kind] % every != 1 % every:
                    continue
                cuts += 1
                if cut.key not in seen:
                    write_folder(restart, cut.files)
                    seen[cut.key] = session.look(restart)
                state = seen[cut.key]
                unopenable += state.numbers is None
                wrong += state.wrong
                if state.numbers is not None:
                    lost += bool(set(range(cut.acknowledged)) - state.numbers)
                    if session.ahead is not None:
                        wrong += bool(state.numbers - set(range(cut.acknowledged + session.ahead)))
    return {
        "session": session.name, "operations": total - 1, "cuts": cuts, "distinct states": len(seen),
        "unopenable": unopenable, "acknowledged lost": lost, "wrong records": wrong, "must hold": session.must_hold,
    }  # fmt: skip


@contextlib.contextmanager
def small_room() -> Iterator[None]:
    """Let the journal make room in small pieces."""
    before, journal.ROOM = journal.ROOM, ROOM
    try:
        yield
    finally:
        journal.ROOM = before


def power_cuts(records: int) -> pd.DataFrame:
    """One row a session."""
    warnings.simplefilter("ignore", StoreWarning)  # that a last entry is incomplete is what a power cut leaves
    return pd.DataFrame([replay(session) for session in sessions(records)])


def main() -> int:
    """Print the table and whether the goal is met."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--records", type=int, default=200, help="in the longest session (default: %(default)s)")
    table = power_cuts(parser.parse_args().records)
    print(table.to_string(index=False))
    wrong = table[["unopenable", "acknowledged lost", "wrong records"]].sum(axis=1)
    failed = bool((wrong[table["must hold"]] > 0).any())
    print("goal (always opens, nothing acknowledged is lost):", "missed" if failed else "met")
    if (wrong[~table["must hold"]] == 0).any():
        print("but a session that must fail did not: this benchmark does not see what it should")
        failed = True
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
