"""Ten readers look on while one writer appends: does any of them ever see a torn record, or an error?

Each reader is a process with an open :class:`labbench.store.Store`, now and then a new one. Again and again it asks for the number
of records, reads some columns of all of them, some records whole (the newest and a few at random) and their samples, and compares
everything with what the numbers of the records say that it must be. What it sees must be a prefix of what was appended, and never
less than before. Warnings are errors.

    python benchmarks/store_readers.py [--records 10000] [--readers 10]

Exits with status 1 if a reader saw anything wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import queue
import random
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

from store_data import ENVIRONMENT, number_of, numbered
from tqdm import tqdm

from labbench.store import Store

REOPENED = 0.1  # share of the rounds that begin with a new Store
SAMPLED = 5  # records that a reader looks at in full in each round, beside the newest


def look(path: Path, finished: Synchronized, results: Any, seed: int) -> None:
    """Read until the writer has finished, and once more; puts counts of reads, torn records and errors into ``results``."""
    warnings.simplefilter("error")
    counts: Counter[str] = Counter()
    rng = random.Random(seed)
    before = 0
    store = None
    while True:
        last = bool(finished.value)
        try:
            if store is not None and rng.random() < REOPENED:
                store.close()
                store = None
            store = store or Store(path)
            length = len(store)
            counts["torn"] += length < before
            table = store.frame(["record_id", "status", "batch_size", "latency_s"], primary=True)
            numbers = [number_of(str(key)) for key in table["record_id"]]
            counts["torn"] += numbers != list(range(len(numbers))) or len(numbers) < before
            counts["torn"] += len(numbers) < length  # the table was asked for after the length
            before = len(numbers)
            for row in table.itertuples(index=False):
                record = numbered(number_of(row.record_id))
                median = record.series[0].median_s.value if record.series else None
                right = row.status == record.status and row.batch_size == record.cell.workload.batch_size
                counts["torn"] += not (
                    right and (row.latency_s == median if median else row.latency_s != row.latency_s)
                )
            chosen = sorted({*rng.sample(numbers, min(SAMPLED, len(numbers))), *numbers[-1:]})
            expected = [numbered(number) for number in chosen]
            found = store.records([one.record_id for one in expected])
            counts["torn"] += found != expected
            seconds = store.samples([one.record_id for one in expected])["seconds"].tolist()
            counts["torn"] += seconds != [s for one in expected for part in one.series for s in part.samples.seconds]
            counts["reads"] += 1
            counts["records seen"] += len(numbers)
        except Exception:
            traceback.print_exc()
            counts["errors"] += 1
        if last:
            results.put(dict(counts) | {"last": before})
            return


def watch(records: int, readers: int) -> tuple[Counter[str], list[int]]:
    """Let the readers look on while the records are appended; returns the sums of their counts, and the reads of each."""
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s.h5"
        finished, results = context.Value("b", 0), context.Queue()
        with Store(path, writable=True) as store:
            store.append(numbered(0), ENVIRONMENT)
            watchers = [
                context.Process(target=look, args=(path, finished, results, seed), daemon=True)
                for seed in range(readers)
            ]
            for watcher in watchers:
                watcher.start()
            for number in tqdm(range(1, records), unit=" records", disable=None):
                store.append(numbered(number), ENVIRONMENT)
        finished.value = 1
        found: list[dict[str, int]] = []
        while len(found) < readers and (results.qsize() or any(watcher.is_alive() for watcher in watchers)):
            with contextlib.suppress(queue.Empty):
                found.append(results.get(timeout=1))
        for watcher in watchers:
            watcher.join()
    total: Counter[str] = Counter(errors=readers - len(found))  # who died without a word
    for one in found:
        total["missing at the end"] += records - one.pop("last")
        total.update(one)
    return total, sorted(one.get("reads", 0) for one in found)


def main() -> int:
    """Print the counts and whether the goal is met."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--records", type=int, default=10_000, help="default: %(default)s")
    parser.add_argument("--readers", type=int, default=10, help="default: %(default)s")
    options = parser.parse_args()
    total, reads = watch(options.records, options.readers)
    print(f"{options.readers} readers while {options.records} records were appended:")
    print(f"  {'reads of each reader':20} {', '.join(map(str, reads))}")
    for name in ("reads", "records seen", "torn", "errors", "missing at the end"):
        print(f"  {name:20} {total[name]:,}")
    wrong = total["torn"] + total["errors"] + total["missing at the end"]
    print("goal (no torn record, no error):", "missed" if wrong else "met")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
