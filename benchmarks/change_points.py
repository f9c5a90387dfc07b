"""Are change points found where they are? Histories of this machine's own noise, with shifts of 5 % put in.

A bank (``noise_bank.py``) holds draws of one unchanged cell after another, for hours. A draw's side is a process, two consecutive
draws of a model are a run, and the runs in order of time are a history without any change: whatever moves in it is noise, the
machine's own drift included. In half of the histories everything from a random run on is multiplied by 1.05 or 1 / 1.05
(``--change`` sets other sizes). Families of histories are then judged as a store would be (``labbench.analysis.history``), and
on the same values, weighted by their errors as asv weights them, by asv's ``detect_steps`` and ``detect_regressions`` (at asv's
default threshold of 5 %; these look for slowdowns only, and are held against those only).

- contiguous: the recorded order, forwards or backwards, pairs of draws beginning at the first or the second;
- resampled: blocks of ten consecutive runs put together, for histories of any length; where blocks meet, the level may jump;
- with a reference: one side of a draw is the cell under test, the other, measured in turn with it, is its reference, and levels are
  ratios; shifts are put into the cell alone. Draws on an unstable machine take part. asv gets what it would have had, the
  latencies of the cell, and the ratios too. Runs of two draws and, for longer histories, of one.

A detection is right if a true change of the same direction is at most one run away; of several such one is.

    python benchmarks/noise_bank.py BANK.parquet --draws 40
    python benchmarks/change_points.py BANK.parquet [--asv asv-venv/bin/python] [--families 20]
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from noise_bank import judged
from tqdm import tqdm

from labbench.analysis.history import TOLD, change_points
from labbench.analysis.levels import levels
from labbench.analysis.ratio import CAMPAIGN_SD, RATIO_SD

PROCESSES = 2  # draws of a run, as in the default protocol
HISTORIES = 24  # of a family
BLOCK = 10
CHANGE = 0.05
FEWEST = 2  # runs on each side of a change
SHORTEST = 8  # runs of a history that is worth judging
PRECISION, RECALL = 0.95, 0.90  # goals
ASV_THRESHOLD = 0.05  # asv.conf.json, regressions_thresholds
ASV = """
import json, sys
from asv.step_detect import detect_regressions, detect_steps
given = json.load(sys.stdin)
found = []
for values, weights in given["series"]:
    steps = detect_steps(values, weights)
    _, _, slower = detect_regressions(steps, threshold=given["threshold"])
    found.append({"steps": [(b[0], b[2] / a[2]) for a, b in zip(steps, steps[1:])],
                  "regressions": [(place[1], 2.0) for place in slower or []]})
json.dump(found, sys.stdout)
"""


@dataclass(frozen=True)
class History:
    """A recorded history, and the change that was put in: first run and log of the ratio."""

    values: Recorded
    at: int | None
    size: float


# Rows: log latency of runs and its variance; with a reference those of the ratio to it, then those of the latency.
Recorded = np.ndarray
Detections = list[list[tuple[int, float]]]  # of each history: first run after, ratio


def samples_of(bank: pd.DataFrame, processes: int) -> pd.DataFrame:
    """The draws as samples of records, ``model offset number side``."""
    bank = bank.assign(draw=bank.groupby("model")["draw"].rank(method="dense").astype(int) - 1)
    draw = bank["draw"].to_numpy(int)
    parts = []
    for offset in range(processes):
        kept = bank[draw >= offset]
        number, process = np.divmod(kept["draw"].to_numpy(int) - offset, processes)
        key = kept["model"].astype(str) + f" {offset} " + pd.Series(number, index=kept.index).map("{:06d}".format)
        key = key + " " + kept["side"].astype(str)
        parts.append(kept[["round", "seconds"]].assign(record_id=key, series="forward", process=process))
    return pd.concat(parts, ignore_index=True).astype({"record_id": "category", "series": "category"})


def histories_of(runs: pd.DataFrame, processes: int) -> list[Recorded]:
    """Whole runs of a model, offset and side in order of time."""
    runs = runs[runs["processes"] == processes].sort_values("record_id")
    name = runs["record_id"].astype(str).str.replace(r" \d+ (\d)$", r" \1", regex=True)
    values = [column for column in runs if column not in ("record_id", "series", "processes")]
    found = [part[values].to_numpy().T for _, part in runs.groupby(name)]
    return [one for one in found if one.shape[1] >= SHORTEST]


def read(path: Path) -> list[Recorded]:
    """Every history without a change that the bank holds."""
    long = histories_of(levels(samples_of(judged(pd.read_parquet(path)), PROCESSES)), PROCESSES)
    if not long:
        print(f"{path} has no history of {SHORTEST} stable runs: only histories with a reference can be judged")
    return long


def read_ratios(path: Path, processes: int) -> list[Recorded]:
    """The histories of the first sides, the second sides being their references."""
    samples = samples_of(pd.read_parquet(path), processes)
    ids = samples["record_id"].cat.categories
    ratios = levels(samples, {key: key[:-1] + "1" for key in ids if key.endswith("0")})
    plain = levels(samples)[["record_id", "log_s", "variance"]]
    return histories_of(ratios.merge(plain, on="record_id", suffixes=("", "_plain")), processes)


def contiguous(bank: list[Recorded], rng: np.random.Generator) -> Recorded:
    """A recorded history, forwards or backwards."""
    return bank[rng.integers(len(bank))][:, :: int(rng.choice([-1, 1]))]


def resampled(bank: list[Recorded], rng: np.random.Generator) -> Recorded:
    """Three blocks of consecutive runs of one recorded history."""
    one = bank[rng.integers(len(bank))]
    block = min(BLOCK, one.shape[1])
    return one[:, np.concatenate([rng.integers(one.shape[1] - block + 1) + np.arange(block) for _ in range(3)])]


def family(draw: Callable[[], Recorded], change: float, rng: np.random.Generator) -> list[History]:
    """Histories of which every second one has a change."""
    found = []
    for i in range(HISTORIES):
        values = draw().copy()
        at, size = None, 0.0
        if i % 2:
            runs = values.shape[1]
            at = int(rng.integers(FEWEST, runs - FEWEST + 1))
            size = float(np.log1p(change) * rng.choice([-1, 1]))
            values[::2] += size * (np.arange(runs) >= at)
        found.append(History(values, at, size))
    return found


def labbench_finds(histories: list[History]) -> Detections:
    """Confirmed change points of a family, by what the first two rows of each history say."""
    reference = len(histories[0].values) > 2
    campaign_sd = RATIO_SD if reference else CAMPAIGN_SD
    parts = [
        pd.DataFrame({"history": i, "log_s": one.values[0], "variance": one.values[1] + campaign_sd**2})
        for i, one in enumerate(histories)
    ]
    runs = pd.concat(parts, ignore_index=True)
    place = runs.groupby("history").cumcount()
    runs = runs.assign(
        judged=True,
        record_id=place.astype(str),
        started_at=pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(place, unit="h"),
        **{**dict.fromkeys(TOLD, ""), "reference": "the other side" if reference else None},
    )
    points = change_points(runs)
    found: Detections = [[] for _ in histories]
    for point in points[points["verdict"] != "unconfirmed"].itertuples():
        found[point.history].append((int(point.record_id), point.ratio))
    return found


def asv_finds(python: str, histories: list[History], row: int = 0) -> dict[str, Detections]:
    """What asv finds in the same values, or in those of a further row."""
    series = [(np.exp(one.values[row]).tolist(), (1 / np.sqrt(one.values[row + 1])).tolist()) for one in histories]
    given = json.dumps({"series": series, "threshold": ASV_THRESHOLD})
    run = subprocess.run([python, "-c", ASV], input=given, capture_output=True, text=True, check=True)
    found = json.loads(run.stdout)
    return {name: [one[name] for one in found] for name in ("steps", "regressions")}


@dataclass
class Score:
    """Counts over families."""

    detected: int = 0
    right: int = 0
    exact: int = 0
    true: int = 0
    unchanged: int = 0
    disturbed: int = 0

    def add(self, histories: list[History], found: Detections, *, slower_only: bool = False) -> None:
        """Count a family."""
        for one, places in zip(histories, found, strict=True):
            self.detected += len(places)
            if one.at is None:
                self.unchanged += 1
                self.disturbed += bool(places)
            if one.at is None or (slower_only and one.size < 0):
                continue
            self.true += 1
            off = [abs(place - one.at) for place, ratio in places if (ratio > 1) == (one.size > 0)]
            self.right += any(one <= 1 for one in off)
            self.exact += 0 in off

    @property
    def precision(self) -> float:
        """Share of detections that are right; NaN if there is none."""
        return self.right / self.detected if self.detected else float("nan")

    @property
    def recall(self) -> float:
        """Share of true changes that were found."""
        return self.right / max(self.true, 1)

    def __str__(self) -> str:
        if not self.detected:
            return f"nothing detected (true changes: {self.true}, unchanged histories: {self.unchanged})"
        return (
            f"precision {self.precision:.1%} ({self.right} of {self.detected}), recall {self.recall:.1%} (of {self.true}), "
            f"exactly located {self.exact / max(self.right, 1):.0%}, unchanged histories disturbed "
            f"{self.disturbed / max(self.unchanged, 1):.1%}"
        )


def report(
    name: str, bank: list[Recorded], draw: Callable[..., Recorded], families: int, change: float, asv: str | None
) -> None:
    """Simulate, judge, print."""
    rng = np.random.default_rng(0)
    given = {0: ""} if len(bank[0]) == 2 else {2: ", latencies of the cell alone", 0: ", the same ratios"}
    ours, theirs = Score(), {row: (Score(), Score()) for row in given}
    for _ in tqdm(range(families), name, leave=False):
        histories = family(lambda: draw(bank, rng), change, rng)
        ours.add(histories, labbench_finds(histories))
        for row, (steps, slowdowns) in theirs.items() if asv else ():
            found = asv_finds(str(asv), histories, row)
            steps.add(histories, found["steps"])
            slowdowns.add(histories, found["regressions"], slower_only=True)
    print(f"\n{name}: {families} families of {HISTORIES} histories, half with a change of {change:.0%}")
    print(f"  labbench: {ours}")
    for what, value, goal in (("precision", ours.precision, PRECISION), ("recall", ours.recall, RECALL)):
        said = f"{value:.1%}" if value == value else "unknown, for nothing was detected"
        print(f"    {what} {said}, goal at least {goal:.0%}: {'met' if value >= goal else 'missed'}")
    if asv:
        for row, (steps, slowdowns) in theirs.items():
            print(f"  asv detect_steps{given[row]}: {steps}")
            print(f"  asv detect_regressions, slowdowns only{given[row]}: {slowdowns}")
    else:
        print("  asv was not asked: give --asv the Python of an environment where it is installed")


def describe(bank: list[Recorded]) -> str:
    """How noisy the recorded histories are."""
    series = [one[0] for one in bank]
    spread = np.array([np.std(log_s, ddof=1) for log_s in series])
    step = np.array([np.median(np.abs(np.diff(log_s))) * 1.4826 / np.sqrt(2) for log_s in series])
    lag = [np.corrcoef(log_s[1:], log_s[:-1])[0, 1] for log_s in series]
    return (
        f"{len(bank)} histories of {min(map(len, series))} to {max(map(len, series))} runs; spread of runs "
        f"{np.median(spread):.1%} ({spread.min():.1%} to {spread.max():.1%}), from neighbours {np.median(step):.1%}, "
        f"correlation of neighbours {np.median(lag):.2f}"
    )


def main() -> None:
    """Report on all kinds of histories."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bank", type=Path)
    parser.add_argument("--families", type=int, default=20)
    parser.add_argument("--asv", metavar="PYTHON", help="interpreter of an environment with asv")
    parser.add_argument("--change", type=float, nargs="+", default=[CHANGE], help="sizes, as fractions")
    options = parser.parse_args()
    banks = {"": read(options.bank)}
    banks |= {
        f", with a reference, {'one draw' if n == 1 else f'{n} draws'} a run": read_ratios(options.bank, n)
        for n in (PROCESSES, 1)
    }
    for name, bank in banks.items():
        if not bank:
            continue
        print(f"\n{options.bank}{name}: {describe(bank)}")
        for change in options.change:
            report("contiguous" + name, bank, contiguous, options.families, change, options.asv)
            report("resampled" + name, bank, resampled, options.families, change, options.asv)


if __name__ == "__main__":
    main()
