"""labbench's store beside SQLite, DuckDB and Parquet, at 1k to 1M records of 30 columns and 20 samples.

    python benchmarks/store_speed.py [--sizes 1000 10000 100000 1000000] [--repeats 5] [--peers FOLDER]

``--peers`` is a folder with DuckDB (``pip install --target FOLDER duckdb``); without it DuckDB is left out. A million records
take about a quarter of an hour, most of it to make and insert them.

All sides hold the same values (``store_data.py``). SQLite has a table of 30 columns, indexed by record and by model, and a second
table with a record's samples as three blobs, which is faster in all that is measured here than a row a sample. DuckDB and
Parquet (zstd) have the samples as list columns. What is timed, each side in turn, files in the page cache:

    append    one record, kept when the call returns: labbench from a ``Record``, the others from a ready tuple
    batch     all records, in batches, until they are safe; making them is not counted
    load all  the 30 columns of every record in a pandas frame with times as times, from opening the file on
    model     the same for the records of one of 20 models
    one       the raw samples of a record in a frame with record, series, process, round and seconds; the database is open
    hundred   the same for 100 random records at once
    size      of all files, a record

Every so often an append of labbench's writes the file anew (a fold). The median does not show that, so it is timed apart and told
as what it adds to each append. The two sides that do not wait for the disk begin with a copy of those that do, and are timed only
where that matters, in appending. At the end all sides must hold the same, and records of labbench's equal what was put in.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import random
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from store_data import CHUNK, COLUMNS, FLOATS, INTEGERS, chunks, records, rows
from tqdm import tqdm

from labbench.store import Store
from labbench.store.writer import FOLD_AT, FOLD_SHARE

MODEL = "family07-base"
BLOBS = {"seconds": np.float64, "process": np.uint16, "round": np.uint32}
APPENDS, LOOKUPS = 300, 100
AFTER = 10**7  # numbers of the records that are appended one by one
GOALS: tuple[
    tuple[str, str, float | None], ...
] = (  # what, beside whom, our time or size divided by theirs, at most (None: no goal)
    ("append", "SQLite FULL", 1.0),
    ("append", "SQLite NORMAL", None),
    ("load all", "SQLite FULL", 1 / 10),
    ("load all", "DuckDB", 1 / 2),
    ("load all", "Parquet", 1 / 2),
    ("model", "DuckDB", 1.0),
    ("one", "SQLite FULL", 1.0),
    ("hundred", "SQLite FULL", 1.0),
    ("size", "Parquet", 1.2),
)
UNITS = {"append": 1e6, "load all": 1e3, "model": 1e3, "one": 1e6, "hundred": 1e3, "size": 1}
SHOWN = {"append": "append, µs", "batch": "batch, records/s", "load all": "load all, ms", "model": "model, ms"} | {
    "one": "one, µs",
    "hundred": "hundred, ms",
    "size": "size, B a record",
}

Append = Callable[[int], None]
Fetch = Callable[[list[str]], pd.DataFrame]


class Side:
    """A way to keep records in a folder."""

    name = ""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder

    def fill(self, n: int) -> float:
        """Put ``n`` records in; returns the seconds that took, without those for making them."""
        raise NotImplementedError

    def appender(self) -> contextlib.AbstractContextManager[Append] | None:
        """What appends a record of a given number; None if there is no such thing."""
        raise NotImplementedError

    def load(self, model: str | None = None) -> pd.DataFrame:
        """The 30 columns, of all records or of one model's."""
        raise NotImplementedError

    def fetcher(self) -> contextlib.AbstractContextManager[Fetch]:
        """What fetches the samples of some records."""
        raise NotImplementedError

    def size(self) -> int:
        """Bytes of all files."""
        return sum(one.stat().st_size for one in self.folder.iterdir())


class Labbench(Side):
    """The store, as it comes; ``durability`` names what its appends survive."""

    name = "labbench"
    durability: Literal["power", "process"] = "power"
    writer: Store | None = None  # open for appending

    @property
    def path(self) -> Path:
        """The database."""
        return self.folder / "s.h5"

    def fill(self, n: int) -> float:
        """By ``extend``, and a fold at the end."""
        spent = 0.0
        store = Store(self.path, writable=True, durability=self.durability)
        for chunk in tqdm(chunks(n), total=-(-n // CHUNK), unit="chunk", leave=False, disable=None):
            made = list(records(chunk))
            spent += seconds(lambda made=made: store.extend(made))
        return spent + seconds(store.close)

    @contextlib.contextmanager
    def appender(self) -> Iterator[Append]:
        """``Store.append``."""
        ready = {AFTER + i: next(records(next(chunks(1, first=AFTER + i)))) for i in range(APPENDS)}
        with Store(self.path, writable=True, durability=self.durability) as store:
            self.writer = store
            yield lambda number: store.append(ready[number])
        self.writer = None

    def load(self, model: str | None = None) -> pd.DataFrame:
        """``Store.frame``."""
        store = Store(self.path)
        table = store.frame(COLUMNS) if model is None else store.frame(COLUMNS, model=model)
        store.close()
        return table

    @contextlib.contextmanager
    def fetcher(self) -> Iterator[Fetch]:
        """``Store.samples``."""
        store = Store(self.path)
        yield store.samples
        store.close()


class LabbenchProcess(Labbench):
    """Without waiting for the disk: survives everything but a power cut, as SQLite's NORMAL does."""

    name = "labbench process"
    durability = "process"


class SQLite(Side):
    """WAL; a commit waits for the disk (FULL) or not (NORMAL)."""

    name = "SQLite FULL"
    synchronous = "FULL"

    def connect(self) -> sqlite3.Connection:
        """An open connection."""
        connection = sqlite3.connect(self.folder / "s.db")
        connection.execute("pragma journal_mode=wal")
        connection.execute(f"pragma synchronous={self.synchronous}")
        return connection

    def fill(self, n: int) -> float:
        """In one transaction a chunk."""
        kinds = {
            name: "integer" if name in (*INTEGERS, "started_at") else "real" if name in FLOATS else "text"
            for name in COLUMNS
        }
        connection = self.connect()
        connection.execute(
            f"create table records ({', '.join(f'{k} {v}' for k, v in kinds.items())}, primary key (record_id))"
        )
        connection.execute("create index by_model on records (model)")
        connection.execute(
            "create table samples (record_id text primary key, series text, seconds blob, process blob, round blob)"
        )
        spent = 0.0
        for chunk in chunks(n):
            made = rows(chunk)
            start = perf_counter()
            with connection:
                connection.executemany(INSERT_RECORD, (row[: len(COLUMNS)] for row in made))
                connection.executemany(INSERT_SAMPLES, ((row[0], row[SERIES], *row[len(COLUMNS) :]) for row in made))
            spent += perf_counter() - start
        spent += seconds(lambda: connection.execute("pragma wal_checkpoint(truncate)"))
        connection.close()
        return spent

    @contextlib.contextmanager
    def appender(self) -> Iterator[Append]:
        """Two inserts and a commit."""
        ready = {AFTER + i: rows(next(chunks(1, first=AFTER + i)))[0] for i in range(APPENDS)}
        connection = self.connect()

        def append(number: int) -> None:
            row = ready[number]
            with connection:
                connection.execute(INSERT_RECORD, row[: len(COLUMNS)])
                connection.execute(INSERT_SAMPLES, (row[0], row[SERIES], *row[len(COLUMNS) :]))

        yield append
        connection.close()

    def load(self, model: str | None = None) -> pd.DataFrame:
        """``pandas.read_sql_query``."""
        connection = self.connect()
        where = "" if model is None else f" where model = '{model}'"
        table = pd.read_sql_query(f"select * from records{where}", connection)
        connection.close()
        table["started_at"] = pd.to_datetime(table["started_at"], unit="us", utc=True)
        return table

    @contextlib.contextmanager
    def fetcher(self) -> Iterator[Fetch]:
        """A look-up by the primary key."""
        connection = self.connect()

        def fetch(keys: list[str]) -> pd.DataFrame:
            marks = ", ".join("?" * len(keys))
            found = connection.execute(f"select * from samples where record_id in ({marks})", keys).fetchall()
            ids, series, *blobs = zip(*found, strict=True)
            arrays = {
                name: [np.frombuffer(b, kind) for b in part]
                for (name, kind), part in zip(BLOBS.items(), blobs, strict=True)
            }
            return framed(list(ids), list(series), arrays)

        yield fetch
        connection.close()


class SQLiteNormal(SQLite):
    """A commit does not wait for the disk."""

    name = "SQLite NORMAL"
    synchronous = "NORMAL"


INSERT_RECORD = f"insert into records values ({', '.join('?' * len(COLUMNS))})"
INSERT_SAMPLES = "insert into samples values (?, ?, ?, ?, ?)"
SERIES = COLUMNS.index("series")


def framed(keys: list[str], series: list[str], arrays: dict[str, list[np.ndarray]]) -> pd.DataFrame:
    """One frame of the samples of some records."""
    if len(keys) == 1:
        return pd.DataFrame(
            {"record_id": keys[0], "series": series[0], **{name: parts[0] for name, parts in arrays.items()}}
        )
    counts = [len(part) for part in arrays["seconds"]]
    columns = {name: np.concatenate(parts) for name, parts in arrays.items()}
    return pd.DataFrame({"record_id": np.repeat(keys, counts), "series": np.repeat(series, counts), **columns})


def arrow(n: int, first: int = 0) -> Iterator[pa.Table]:
    """The records as Arrow tables, a chunk each, samples as lists."""
    for chunk in chunks(n, first):
        columns = {name: pa.array(values) for name, values in chunk.columns.items()}
        columns["started_at"] = columns["started_at"].cast(pa.timestamp("us", tz="UTC"))
        for name in INTEGERS:
            columns[name] = columns[name].cast(pa.int64())
        for name in BLOBS:
            array = getattr(chunk, name)
            ends = pa.array(np.arange(len(array) + 1, dtype=np.int32) * array.shape[1])
            columns[name] = pa.ListArray.from_arrays(ends, pa.array(array.ravel()))
        yield pa.table(columns)


class DuckDB(Side):
    """One table, lists for the samples."""

    name = "DuckDB"

    def connect(self) -> Any:
        """An open connection."""
        import duckdb

        return duckdb.connect(str(self.folder / "s.duckdb"))

    def fill(self, n: int) -> float:
        """An insert a chunk."""
        connection, spent = self.connect(), 0.0
        for i, table in enumerate(arrow(n)):
            start = perf_counter()
            connection.register("made", table)
            connection.execute(
                "create table records as select * from made" if i == 0 else "insert into records select * from made"
            )
            connection.unregister("made")
            spent += perf_counter() - start
        start = perf_counter()
        connection.execute("create unique index by_id on records (record_id)")
        connection.close()
        return spent + perf_counter() - start

    @contextlib.contextmanager
    def appender(self) -> Iterator[Append]:
        """An insert, committed at once."""
        ready = {AFTER + i: next(arrow(1, AFTER + i)).to_pylist()[0] for i in range(APPENDS)}
        connection = self.connect()
        marks = ", ".join("?" * (len(COLUMNS) + len(BLOBS)))
        yield lambda number: connection.execute(f"insert into records values ({marks})", list(ready[number].values()))
        connection.close()

    def load(self, model: str | None = None) -> pd.DataFrame:
        """Through Arrow, which is faster than ``df()``."""
        connection = self.connect()
        where = "" if model is None else f" where model = '{model}'"
        table = connection.sql(f"select {', '.join(COLUMNS)} from records{where}").to_arrow_table().to_pandas()
        connection.close()
        return table

    @contextlib.contextmanager
    def fetcher(self) -> Iterator[Fetch]:
        """A look-up by the index."""
        connection = self.connect()

        def fetch(keys: list[str]) -> pd.DataFrame:
            marks = ", ".join("?" * len(keys))
            query = f'select record_id, series, seconds, process, "round" from records where record_id in ({marks})'
            ids, series, *lists = zip(*connection.execute(query, keys).fetchall(), strict=True)
            return framed(list(ids), list(series), dict(zip(BLOBS, map(list, lists), strict=True)))

        yield fetch
        connection.close()


class Parquet(Side):
    """One file, zstd; a record cannot be appended."""

    name = "Parquet"

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder / "s.parquet"

    def fill(self, n: int) -> float:
        """A row group a chunk."""
        writer, spent = None, 0.0
        for table in arrow(n):
            start = perf_counter()
            writer = writer or pq.ParquetWriter(self.path, table.schema, compression="zstd")
            writer.write_table(table)
            spent += perf_counter() - start
        return spent + (seconds(writer.close) if writer else 0.0)

    def appender(self) -> None:
        """There is none."""

    def load(self, model: str | None = None) -> pd.DataFrame:
        """``pyarrow.parquet.read_table``."""
        filters = None if model is None else [("model", "=", model)]
        return pq.read_table(self.path, columns=list(COLUMNS), filters=filters).to_pandas()

    @contextlib.contextmanager
    def fetcher(self) -> Iterator[Fetch]:
        """With a filter."""

        def fetch(keys: list[str]) -> pd.DataFrame:
            columns = ["record_id", "series", *BLOBS]
            found = pq.read_table(self.path, columns=columns, filters=[("record_id", "in", keys)]).to_pydict()
            return framed(found["record_id"], found["series"], {name: found[name] for name in BLOBS})

        yield fetch


SIDES: list[type[Side]] = [Labbench, LabbenchProcess, SQLite, SQLiteNormal, DuckDB, Parquet]
TWINS: dict[type[Side], type[Side]] = {
    LabbenchProcess: Labbench,
    SQLiteNormal: SQLite,
}  # begin with a copy of the other
SLOW = {"DuckDB": 10, "Parquet": 3}  # look-ups instead of LOOKUPS: they take milliseconds to seconds
CONSTANT = 1.5  # times as long is still called constant: waits for a disk differ by as much
CHECKED = 5  # records of labbench's that are compared with what was put in


def seconds(call: Callable[[], Any]) -> float:
    """How long it takes."""
    start = perf_counter()
    call()
    return perf_counter() - start


def compare(n: int, repeats: int, sides: list[type[Side]], folder: Path) -> pd.DataFrame:
    """Times (s) and sizes (bytes a record) of every side: one row a measurement."""
    found: list[tuple[str, str, float]] = []
    made: dict[type[Side], Side] = {}
    order = random.Random(0)  # each round goes through the sides in another order
    for kind in tqdm(sides, desc=f"{n:,} records: fill", leave=False, disable=None):
        made[kind] = side = kind(folder / kind.name.replace(" ", "-"))
        if kind in TWINS:
            shutil.copytree(made[TWINS[kind]].folder, side.folder, dirs_exist_ok=True)
        else:
            found += [(side.name, "batch", side.fill(n) / n), (side.name, "size", side.size() / n)]
    loaded = [side for kind, side in made.items() if kind not in TWINS]
    keys = loaded[0].load()["record_id"].sample(LOOKUPS, random_state=0).tolist()
    for _ in tqdm(range(repeats), desc=f"{n:,} records: load", leave=False, disable=None):
        for side in order.sample(loaded, len(loaded)):
            found.append((side.name, "load all", seconds(side.load)))
            found.append((side.name, "model", seconds(lambda side=side: side.load(MODEL))))
    with contextlib.ExitStack() as stack:
        fetchers = {side.name: stack.enter_context(side.fetcher()) for side in loaded}
        for i, key in enumerate(tqdm(keys, desc=f"{n:,} records: samples", leave=False, disable=None)):
            for name, fetch in order.sample(list(fetchers.items()), len(fetchers)):
                if i < SLOW.get(name, LOOKUPS):
                    found.append((name, "one", seconds(lambda fetch=fetch, key=key: fetch([key]))))
        for _ in range(repeats):
            for name, fetch in order.sample(list(fetchers.items()), len(fetchers)):
                found.append((name, "hundred", seconds(lambda fetch=fetch: fetch(keys))))
        check_samples({name: fetch(keys[:CHECKED]) for name, fetch in fetchers.items()})
    check_columns(loaded)
    with contextlib.ExitStack() as stack:
        opened = {side.name: side.appender() for side in made.values()}
        appenders = {name: stack.enter_context(one) for name, one in opened.items() if one is not None}
        for i in tqdm(range(APPENDS), desc=f"{n:,} records: append", leave=False, disable=None):
            for name, append in order.sample(list(appenders.items()), len(appenders)):
                found.append((name, "append", seconds(lambda append=append, i=i: append(AFTER + i))))
        found += [(name, "fold", seconds(store.fold)) for name, store in _writers(made).items()]
    check_records(made[Labbench].path, n)  # type: ignore[attr-defined]
    return pd.DataFrame(found, columns=["side", "what", "value"]).assign(records=n)


def _writers(made: dict[type[Side], Side]) -> dict[str, Store]:
    """Labbench's stores that are open for appending."""
    return {side.name: side.writer for side in made.values() if isinstance(side, Labbench) and side.writer}


def check_columns(sides: list[Side]) -> None:
    """All sides have the same values in the same columns of the same records."""
    first, *others = (side.load().sort_values("record_id", ignore_index=True) for side in sides)
    for side, table in zip(sides[1:], others, strict=True):
        for name in COLUMNS:
            ours, theirs = (one[name] for one in (first, table))
            if name in (*INTEGERS, *FLOATS):
                same = np.array_equal(*(one.to_numpy(dtype=float, na_value=np.nan) for one in (ours, theirs)), True)
            elif name == "started_at":
                same = ours.astype("int64").equals(theirs.astype("datetime64[us, UTC]").astype("int64"))
            else:
                same = (ours.astype("object") == theirs.astype("object")).all()
            assert same, f"{side.name} has another {name}"


def check_samples(tables: dict[str, pd.DataFrame]) -> None:
    """All sides give the same samples of the same records."""
    known = {
        name: {str(key): part["seconds"].tolist() for key, part in table.groupby("record_id", observed=True)}
        for name, table in tables.items()
    }
    for name, samples in known.items():
        assert len(samples) == CHECKED, f"{name} has no samples of some records"
        assert samples == known["labbench"], f"{name} has other samples"


def check_records(path: Path, n: int) -> None:
    """Some records of labbench's, at random and one that was appended alone, validate and equal what was put in."""
    chosen = sorted(random.Random(0).sample(range(n), min(CHECKED, n)))
    put = []
    for number in chosen:
        start = number // CHUNK * CHUNK
        chunk = next(chunks(min(CHUNK, n - start), start))
        put += [record for i, record in enumerate(records(chunk)) if start + i == number]
    put.append(next(records(next(chunks(1, first=AFTER)))))
    store = Store(path)
    kept = {record.record_id: record for record in store.records([record.record_id for record in put])}
    assert kept == {record.record_id: record for record in put}, "a record is not what was put in"
    assert len(store) == n + APPENDS
    store.close()


def _told(value: float, quartiles: pd.Series, what: str) -> str:
    """A median with its quartiles, in the unit of its column."""
    if what == "batch":
        return f"{1 / value:,.0f}"
    middle, *ends = (f"{each * UNITS[what]:.3g}" for each in (value, *quartiles))
    return middle if what == "size" else f"{middle} ({'–'.join(ends)})"


def report(found: pd.DataFrame) -> bool:
    """Print tables, ratios and goals; returns whether all were met."""
    middle = found.groupby(["records", "what", "side"])["value"].median()
    spread = found.groupby(["records", "what", "side"])["value"].quantile([0.25, 0.75]).unstack().sort_index()
    for n, part in middle.groupby(level=0):
        print(f"\n{n:,} records: median (quartiles)")
        columns = {
            SHOWN[what]: {side: _told(value, spread.loc[n, what, side], what) for side, value in part[n, what].items()}
            for what in SHOWN
        }
        table = pd.DataFrame(columns)
        print(table.reindex([kind.name for kind in SIDES]).dropna(how="all").fillna("–").to_string())
        every = max(FOLD_AT, n // FOLD_SHARE)
        for side, value in part[n, "fold"].items():
            print(f"{side}: a fold takes {value:.3g} s, once in {every:,} appends: {value / every * 1e6:.3g} µs each")
    sizes = list(middle.index.levels[0])
    met = True
    print("\ngoals: ours divided by theirs")
    for what, other, limit in GOALS:
        ours = "labbench process" if other == "SQLite NORMAL" else "labbench"
        ratios = {n: middle[n, what, ours] / middle.get((n, what, other), np.nan) for n in sizes}
        known = {n: ratio for n, ratio in ratios.items() if ratio == ratio}
        told = ", ".join(f"{n:,}: {ratio:.2g}" for n, ratio in known.items())
        if limit is None:
            print(f"  {what} beside {other} (no goal): {told}")
            continue
        missed = [f"{n:,}" for n, ratio in known.items() if ratio > limit]
        met &= not missed
        verdict = ("MISSED at " + ", ".join(missed) if missed else "met") if known else "not measured"
        print(f"  {what} at most {limit:.2g} of {other}: {told}{': ' if told else ''}{verdict}")
    return growth(middle, sizes) and met


def growth(middle: pd.Series, sizes: list[int]) -> bool:
    """Print how load and append grow from size to size; returns whether loading is at most linear and appending constant."""
    if len(sizes) < 2:
        return True
    load = [middle[n, "load all", "labbench"] for n in sizes]
    steps = list(itertools.pairwise(zip(sizes, load, strict=True)))
    worst = max((after / before) / (high / low) for (low, before), (high, after) in steps)
    added = ", ".join(f"to {high:,}: {(t1 - t0) / (high - low) * 1e6:.2g}" for (low, t0), (high, t1) in steps)
    print(f"  load all grows at most as the records do: {worst:.2g} of that: {'met' if worst <= 1 else 'MISSED'}")
    print(f"    µs for each record more, {added}")
    met = bool(worst <= 1)
    for side in ("labbench", "labbench process"):
        times = [middle[n, "append", side] for n in sizes]
        constant = max(times) <= CONSTANT * min(times)
        met &= constant
        print(
            f"  append of {side} within {CONSTANT:g} times over all sizes: {max(times) / min(times):.2g}: "
            f"{'met' if constant else 'MISSED'}"
        )
    return met


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[1000, 10_000, 100_000, 1_000_000], help="default: %(default)s"
    )
    parser.add_argument("--repeats", type=int, default=5, help="of every load (default: %(default)s)")
    parser.add_argument("--peers", type=Path, metavar="FOLDER", help="where DuckDB was installed")
    parser.add_argument(
        "--folder", type=Path, help="where the databases go while they are compared (default: temporary)"
    )
    options = parser.parse_args()
    sides = SIDES
    if options.peers:
        sys.path.append(str(options.peers))
    try:
        import duckdb  # noqa: F401
    except ImportError:
        print("DuckDB is left out: pip install --target FOLDER duckdb, then --peers FOLDER")
        sides = [kind for kind in SIDES if kind is not DuckDB]
    parts = []
    for n in options.sizes:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            parts.append(compare(n, options.repeats, sides, Path(folder)))
    report(pd.concat(parts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
