"""Claim: whatever happens to a rank, the right one is named in time and nothing is left running; a restart goes on.

Every fault (kill, hang, exception, out of memory, a rendezvous that nobody answers at) in every kind of strategy; a kill many
times; a kill with a restart many times. Goals: reported within 2 s of the fault (a hang: of its time-out), the right rank in
every trial, no process left, all restarts go on. Trials are kept as they come: the same command goes on where it stopped.

    python benchmarks/fault_matrix.py FOLDER [--trials 1] [--kills 100] [--restarts 10] [--minutes 60]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import Counter
from pathlib import Path

from labbench import words
from labbench.distributed.faults import KINDS, STRATEGIES, Kind, allowed_s, fault_shown, fault_table, trial
from labbench.distributed.rank_records import stored
from labbench.records import Record
from labbench.store import Store

REPEATED = "ddp"  # the strategy of repeated kills and restarts


def wanted(trials: int, kills: int, restarts: int) -> list[tuple[Kind, str]]:
    """Trials, the matrix first."""
    matrix = [(kind, mode) for _ in range(trials) for mode in STRATEGIES for kind in KINDS if kind != "restart"]
    return [*matrix, *[("kill", REPEATED)] * kills, *[("restart", REPEATED)] * restarts]


def held(path: Path) -> list[Record]:
    """Trials so far."""
    if not path.exists():
        return []
    with Store(path) as store:
        return [record for record in store.records() if (record.cell.workload.task or "").startswith("fault-")]


def verdict(records: list[Record]) -> int:
    """Print the table and each goal; 1 if one was missed."""
    print(fault_shown(fault_table(records)).to_string(index=False))
    faults = [record for record in records if record.cell.workload.task != "fault-restart"]
    restarts = [record for record in records if record.cell.workload.task == "fault-restart"]
    right = sum(record.metrics["as_expected"] == 1 for record in faults)
    late = [
        record
        for record in faults
        if (after := record.metrics.get("reported_after_s")) is not None
        and after > allowed_s((record.cell.workload.task or "").removeprefix("fault-"))
    ]
    left = sum(record.metrics["left_running"] for record in records)
    print(f"\nright status and rank: {right} of {len(faults)}; late: {len(late)}; left running: {left:.0f} processes")
    went_on = [record for record in restarts if record.metrics["as_expected"] == 1]
    if restarts:
        lost = [record.metrics["lost_s"] for record in went_on if "lost_s" in record.metrics]
        told = (
            f", {words.seconds(statistics.median(lost))} lost in the median, {max(lost):.1f} s at most" if lost else ""
        )
        print(f"restarts that went on: {len(went_on)} of {len(restarts)}{told}")
    for record in records:
        if record.metrics["as_expected"] != 1 or record in late:
            print(f"  {record.cell.workload.task} in {record.cell.platform.runtime}: {record.status}, {record.reason}")
    return int(right < len(faults) or bool(late) or left > 0 or len(went_on) < len(restarts))


def main() -> int:
    """Run what is missing and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--trials", type=int, default=1, help="of each square of the matrix")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--restarts", type=int, default=10)
    parser.add_argument(
        "--minutes", type=float, default=60, help="begin no trial after so long; the same command goes on"
    )
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    path, began = options.folder / "faults.h5", time.monotonic()
    records = held(path)
    done = Counter((record.cell.workload.task, record.cell.platform.runtime) for record in records)
    for kind, mode in wanted(options.trials, options.kills, options.restarts):
        if done[f"fault-{kind}", mode] > 0:
            done[f"fault-{kind}", mode] -= 1
            continue
        if time.monotonic() - began > 60 * options.minutes:
            print(f"{options.minutes:g} minutes are over: the same command goes on\n")
            break
        record = trial(kind, mode)
        records += stored([record], str(path))
        after = record.metrics.get("reported_after_s", record.metrics.get("lost_s", float("nan")))
        print(f"{kind} in {mode}: {record.status} after {after:.2f} s ({record.duration_s:.1f} s in all)", flush=True)
    return verdict(records)


if __name__ == "__main__":
    raise SystemExit(main())
