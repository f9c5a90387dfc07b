"""SIGKILL at random moments: labbench's store beside plain h5py.

A child process works on a database and acknowledges each record through a pipe when it was told that it is kept. It is killed
at a moment drawn uniformly from the time that the work takes. Then the files are examined: do they open (for reading, then for
writing), is every acknowledged record there with exactly its content, is any there twice, is there anything that was never sent?

    append    one record after another; every database is killed three times, and goes on where it was
    fold      the same, with a fold of the journal into the HDF5 file after every fifth
    merge     two databases that share records, one of them with a journal, into a third, which exists half of the time
    migrate   a database of schema 1 with its journal, opened for writing

Plain h5py appends a row to 30 resizable datasets and 20 samples, flushes and acknowledges: as it is, and in SWMR mode.

    python benchmarks/store_crash.py [--kills 800]

Exits with status 1 if labbench's store lost, repeated, tore or could not open anything.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import statistics
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from store_data import ENVIRONMENT, number_of, numbered
from tqdm import tqdm

from labbench.records import Record, upgrade
from labbench.store import Store, StoreWarning
from labbench.store.merge import merge, union
from labbench.store.table import Contents

FROZEN = Path(__file__).parents[1] / "tests" / "frozen"
OLD, SENT = 20, 120  # records that are there before, and up to which number more are sent
FOLD_EVERY = 5
COLUMNS, SAMPLES = 30, 20  # of the plain h5py side
KILLS_EACH = 3  # of a database that records are appended to
TRIALS = 5  # unkilled runs, to know how long the work takes

Ack = Callable[[int], None]


@dataclass
class Found:
    """What was wrong after a kill (or, summed, after many)."""

    landed: int = 0
    unreadable: int = 0
    lost: int = 0
    duplicates: int = 0
    torn: int = 0

    def __add__(self, other: Found) -> Found:
        return Found(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Found)))


class Append:
    """One record after another."""

    def prepare(self, folder: Path) -> None:
        """What is there before."""
        with Store(folder / "s.h5", writable=True) as store:
            store.extend(map(numbered, range(OLD)), [ENVIRONMENT])

    def work(self, folder: Path, ack: Ack) -> None:
        """What is killed."""
        with Store(folder / "s.h5", writable=True, durability=random.choice(["power", "process"])) as store:
            for number in range(len(store), SENT):
                store.append(numbered(number), ENVIRONMENT)
                ack(number)
                self.after(store, number)

    def after(self, store: Store, number: int) -> None:
        """What is done after each record."""

    def examine(self, folder: Path, acknowledged: set[int]) -> Found:
        """What is wrong."""
        return examined(folder / "s.h5", {*range(OLD), *acknowledged}, range(max(acknowledged, default=OLD - 1) + 2))


class Fold(Append):
    """With folds."""

    def after(self, store: Store, number: int) -> None:
        """Fold now and then."""
        if number % FOLD_EVERY == 0:
            store.fold()


def examined(path: Path, kept: set[int], sent: Iterable[int]) -> Found:
    """What is wrong with a database that must have all records of ``kept`` and may have those of ``sent``."""
    found = Found()
    for writable in (False, True, False):
        try:
            with Store(path, writable=writable) as store:
                records = store.records()
                store.frame()
        except Exception as error:
            print(f"unreadable: {error}", file=sys.stderr)
            return Found(unreadable=1)
        numbers = [number_of(record.record_id) for record in records]
        right = [record == numbered(number) for number, record in zip(numbers, records, strict=True)]
        found.lost = max(found.lost, len(kept - set(numbers)))
        found.duplicates = max(found.duplicates, len(numbers) - len(set(numbers)))
        found.torn = max(found.torn, right.count(False) + len(set(numbers) - set(sent)))
    return found


class Merge:
    """Two databases that share records into a third."""

    A, B, C = range(60), range(40, 100), range(95, 110)

    def prepare(self, folder: Path) -> None:
        """The databases; the third is there half of the time."""
        for name, numbers in (("a", self.A), ("b", self.B), ("c", self.C)):
            if name != "c" or random.random() < 0.5:
                store = Store(folder / f"{name}.h5", writable=True)
                store.extend(map(numbered, numbers), [ENVIRONMENT])
                if name != "a":  # whose records stay in the journal, as those of a killed writer do
                    store.close()

    def work(self, folder: Path, ack: Ack) -> None:
        """What is killed."""
        merge([folder / "a.h5", folder / "b.h5"], folder / "c.h5")
        ack(0)

    def examine(self, folder: Path, acknowledged: set[int]) -> Found:
        """What is wrong: the output must be as it was, or whole, and the same merge again must make it whole."""
        found = examined(folder / "b.h5", set(self.B), self.B)
        output, inputs = folder / "c.h5", {*self.A, *self.B}
        numbers = {number_of(one.record_id) for one in Store(output).records()} if output.exists() else set()
        old = set(self.C) if max(self.C) in numbers else set()  # it was there before
        found.torn += numbers not in (old, inputs | old)
        found.lost += len(inputs - numbers) if acknowledged else 0
        merge([folder / "a.h5", folder / "b.h5"], output)
        found += examined(folder / "a.h5", set(self.A), self.A) + examined(output, inputs | old, inputs | old)
        expected = Contents.of(map(numbered, inputs | old), {ENVIRONMENT.id: ENVIRONMENT.model_dump_json()})
        found.torn += [r.record_id for r in union([expected]).to_records()] != [
            r.record_id for r in Store(output).records()
        ]
        return found


class Migrate:
    """A database of schema 1."""

    def prepare(self, folder: Path) -> None:
        """A copy of the frozen one."""
        for name in ("store_v1.h5", "store_v1.h5.journal"):
            shutil.copy(FROZEN / name, folder)

    def work(self, folder: Path, ack: Ack) -> None:
        """What is killed."""
        Store(folder / "store_v1.h5", writable=True).close()
        ack(0)

    def examine(self, folder: Path, acknowledged: set[int]) -> Found:
        """What is wrong."""
        lines = (FROZEN / "store_v1.jsonl").read_text().splitlines()
        expected = {one.record_id: one for one in (Record.model_validate(upgrade(json.loads(line))) for line in lines)}
        found = Found()
        for writable in (False, True, False):
            try:
                with Store(folder / "store_v1.h5", writable=writable) as store:
                    records = store.records()
            except Exception as error:
                print(f"unreadable: {error}", file=sys.stderr)
                return Found(unreadable=1)
            ids = [record.record_id for record in records]
            found.lost = max(found.lost, len(expected.keys() - set(ids)))
            found.duplicates = max(found.duplicates, len(ids) - len(set(ids)))
            found.torn = max(found.torn, sum(expected.get(one.record_id) != one for one in records))
        return found


class PlainH5py:
    """A row to each dataset, flush, acknowledge."""

    swmr = False

    @property
    def libver(self) -> str:
        """SWMR needs the latest format; the earliest does not notice that a writer was killed."""
        return "latest" if self.swmr else "earliest"

    def prepare(self, folder: Path) -> None:
        """Empty, resizable datasets."""
        with h5py.File(folder / "s.h5", "w", libver=self.libver) as file:
            for i in range(COLUMNS):
                file.create_dataset(f"column{i}", (0,), "f8", maxshape=(None,), chunks=(1024,))
            file.create_dataset("samples", (0, SAMPLES), "f8", maxshape=(None, SAMPLES), chunks=(256, SAMPLES))

    def work(self, folder: Path, ack: Ack) -> None:
        """What is killed."""
        with h5py.File(folder / "s.h5", "r+", libver=self.libver) as file:
            if self.swmr:
                file.swmr_mode = True
            for number in range(SENT):
                for i, name in enumerate(file):
                    dataset = file[name]
                    dataset.resize(number + 1, axis=0)
                    dataset[number] = number + i
                file.flush()
                ack(number)

    def examine(self, folder: Path, acknowledged: set[int]) -> Found:
        """What is wrong."""
        try:
            with h5py.File(folder / "s.h5", "r") as file:
                columns = [dataset[()] for dataset in file.values()]
            with h5py.File(folder / "s.h5", "r+"):
                pass
        except Exception:
            return Found(unreadable=1)
        lengths = {len(column) for column in columns}
        kept = np.arange(min(lengths))
        first = [column[kept] if column.ndim == 1 else column[kept, 0] for column in columns]
        right = [np.array_equal(values, kept + i) for i, values in enumerate(first)]
        return Found(lost=len(acknowledged - set(kept.tolist())), torn=int(len(lengths) > 1 or not all(right)))


class Swmr(PlainH5py):
    """The same in SWMR mode."""

    swmr = True


Job = Append | Merge | Migrate | PlainH5py
JOBS: dict[tuple[str, str], Job] = {
    ("labbench", "append"): Append(),
    ("labbench", "fold"): Fold(),
    ("labbench", "merge"): Merge(),
    ("labbench", "migrate"): Migrate(),
    ("h5py, flush", "append"): PlainH5py(),
    ("h5py, SWMR", "append"): Swmr(),
}


def run(job: Job, folder: Path, kill_after_s: float | None = None) -> tuple[set[int], bool, float]:
    """Do the work in a child; returns what it acknowledged, whether it was killed before its end, and the seconds it took."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reader)
            os.write(writer, struct.pack("<i", -1))  # begun
            job.work(folder, lambda number: os.write(writer, struct.pack("<i", number)) and None)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        pipe.read(4)
        begun = time.perf_counter()
        if kill_after_s is not None:
            time.sleep(kill_after_s)
            os.kill(child, signal.SIGKILL)
        data = pipe.read()
    took = time.perf_counter() - begun
    _, status = os.waitpid(child, 0)
    whole = data[: len(data) // 4 * 4]
    if not os.WIFSIGNALED(status) and os.WEXITSTATUS(status):
        raise RuntimeError("the work itself failed; its error is above")
    return {number for (number,) in struct.iter_unpack("<i", whole)}, os.WIFSIGNALED(status), took


def trials(job: Job, kills: int, rng: random.Random, bar: tqdm) -> Found:
    """Kill the job at random moments of its work, and sum up what was wrong."""
    with tempfile.TemporaryDirectory() as name:
        durations = []
        for i in range(TRIALS):
            folder = fresh(job, Path(name) / f"unkilled-{i}")
            durations.append(run(job, folder)[2])
        usual = statistics.median(durations)
        total = Found()
        acknowledged: set[int] = set()
        for i in range(kills):
            again = isinstance(job, Append) and i % KILLS_EACH > 0
            if not again:
                shutil.rmtree(folder)
                folder, acknowledged = fresh(job, Path(name) / f"{i}"), set()
            more, killed, _ = run(
                job, folder, rng.uniform(0, usual / (2 * KILLS_EACH if isinstance(job, Append) else 1))
            )
            acknowledged |= more
            total += job.examine(folder, acknowledged) + Found(landed=int(killed))
            bar.update()
    return total


def fresh(job: Job, folder: Path) -> Path:
    """A folder with what the job begins with."""
    folder.mkdir()
    job.prepare(folder)
    return folder


def crash(kills: int, seed: int = 0) -> pd.DataFrame:
    """One row a side and operation: how many kills, how many of them landed before the work was done, and what was wrong."""
    warnings.simplefilter("ignore", StoreWarning)  # that a last entry is incomplete is what a kill leaves
    rng = random.Random(seed)
    random.seed(seed)
    each = -(-kills // 4)
    rows = []
    with tqdm(total=each * len(JOBS), unit=" kills", disable=None) as bar:
        for (side, operation), job in JOBS.items():
            found = trials(job, each, rng, bar)
            rows.append({"side": side, "operation": operation, "kills": each} | vars(found))
    return pd.DataFrame(rows).rename(columns={"lost": "acknowledged lost"})


def main() -> int:
    """Print the table and whether the goal is met."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--kills", type=int, default=800, help="of labbench's store, over all operations (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    table = crash(options.kills, options.seed)
    print(table.to_string(index=False))
    ours = table[table["side"] == "labbench"]
    wrong = int(ours[["unreadable", "acknowledged lost", "duplicates", "torn"]].to_numpy().sum())
    print(f"{ours['kills'].sum()} kills, {ours['landed'].sum()} during the work: {wrong} things wrong")
    print("goal (0 unreadable, 0 lost, 0 duplicates, 0 torn):", "missed" if wrong else "met")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
