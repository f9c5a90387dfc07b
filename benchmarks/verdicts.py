"""Are verdicts right? Families of 100 comparisons with known truth, drawn from this machine's own noise.

A bank (``noise_bank.py``) holds draws: a process of a cell and one of its twin, in interleaved rounds, whose true ratio is 1. A
simulated cell takes P draws of one model, sides swapped at random, and multiplies one side by its true ratio: process effects,
drift and spikes stay as they were. Families are judged by labbench (moderated variances, Benjamini–Hochberg, 2 % practical
threshold) and, on the same data, by the rules that people use elsewhere:

- asv: Mann–Whitney's U on raw samples at p < 0.002 (``asv compare`` also asks for a factor, by default 1.1, which leaves 5 % out);
- pyperf: Student's t on raw values at 95 %;
- a bare threshold: means that differ by more than 5 %.

What is counted: families of 100 unchanged cells with any false "different"; cells found of those changed by 5 % (20 of 100); and
how often the 95 % interval holds the true ratio, for labbench's, for a hierarchical bootstrap (process > round > sample) and for
Student's t on each cell's own process medians, which is how the method was chosen.

    python benchmarks/noise_bank.py BANK.parquet
    python benchmarks/verdicts.py BANK.parquet [--families 200] [--processes 2]
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from noise_bank import judged
from scipy import stats
from tqdm import tqdm

from labbench.analysis.ratio import ALPHA, Contrast, Rounds, benjamini_hochberg, contrast, fit_spread, judge, verdict

CELLS, CHANGED = 100, 20
CHANGE = 1.05
ASV_P = 0.002  # asv.statistics.is_different
REPLICATES = 400
BOOTSTRAPPED = 1500  # cells; the bootstrap is slow


@dataclass(frozen=True)
class Draw:
    """A process of a cell and of its twin: for each side, the samples of every round."""

    sides: tuple[list[np.ndarray], list[np.ndarray]]


@dataclass(frozen=True)
class Cell:
    """A simulated comparison: both sides' rounds, by process, and the true ratio."""

    side: list[list[np.ndarray]]
    baseline: list[list[np.ndarray]]
    truth: float

    def contrast(self, paired: bool) -> Contrast:
        """The comparison as labbench sees it."""
        return contrast(rounds(self.side), rounds(self.baseline), paired=paired)


def rounds(processes: list[list[np.ndarray]]) -> Rounds:
    """What labbench keeps of the samples of some processes."""
    numbers = [(p, k) for p, one in enumerate(processes) for k in range(len(one))]
    medians = [np.median(taken) for one in processes for taken in one]
    process, number = np.array(numbers).T
    return Rounds(process, number, np.log(medians), sum(len(taken) for one in processes for taken in one))


def read(bank: pd.DataFrame) -> dict[str, list[Draw]]:
    """The draws of each model."""
    found: dict[str, list[Draw]] = {}
    for (model, _), part in bank.groupby(["model", "draw"], sort=True):
        sides = tuple(
            [taken.to_numpy() for _, taken in one.groupby("round", sort=True)["seconds"]]
            for _, one in part.groupby("side", sort=True)[["round", "seconds"]]
        )
        found.setdefault(str(model), []).append(Draw(sides))  # type: ignore[arg-type]
    return found


def simulate(bank: dict[str, list[Draw]], truth: float, processes: int, paired: bool, rng: np.random.Generator) -> Cell:
    """A comparison of that true ratio; unpaired sides are of different draws, as of different days."""
    draws = bank[rng.choice(list(bank))]
    picked = rng.choice(len(draws), size=processes if paired else 2 * processes, replace=False)
    chosen = [draws[i] for i in picked]
    swaps = rng.integers(2, size=len(chosen))
    if paired:
        side = [draw.sides[s] for draw, s in zip(chosen, swaps, strict=True)]
        other = [draw.sides[1 - s] for draw, s in zip(chosen, swaps, strict=True)]
    else:
        taken = [draw.sides[s] for draw, s in zip(chosen, swaps, strict=True)]
        side, other = taken[:processes], taken[processes:]
    return Cell([[values * truth for values in one] for one in side], other, truth)


def labbench_verdicts(cells: list[Cell], paired: bool) -> tuple[list[str], list[bool]]:
    """Verdict on each cell of a family, and whether its interval holds the truth."""
    contrasts = [cell.contrast(paired) for cell in cells]
    spread = fit_spread(contrasts)
    found = [judge(one, spread, same_campaign=paired) for one in contrasts]
    adjusted = benjamini_hochberg(np.array([one.p_value for one in found]))
    said = [verdict(one.ratio, one.ci_low, one.ci_high, p, ALPHA, 0.02) for one, p in zip(found, adjusted, strict=True)]
    return said, [one.ci_low <= cell.truth <= one.ci_high for one, cell in zip(found, cells, strict=True)]


def others(cell: Cell) -> dict[str, bool]:
    """Whether each of the other rules calls the sides different."""
    a, b = (np.concatenate([taken for one in side for taken in one]) for side in (cell.side, cell.baseline))
    return {
        "asv (Mann–Whitney p < 0.002)": bool(stats.mannwhitneyu(a, b).pvalue < ASV_P),
        "pyperf (t-test, 95 %)": bool(stats.ttest_ind(a, b).pvalue < 0.05),
        "means differ by > 5 %": bool(abs(a.mean() / b.mean() - 1) > 0.05),
    }


def bootstrap_holds(cell: Cell, rng: np.random.Generator) -> bool:
    """Whether the percentile interval of a bootstrap over processes, rounds and samples holds the truth; sides are paired."""
    count = len(cell.side)
    logs = np.empty(REPLICATES)
    for i in range(REPLICATES):
        medians = []
        for p in rng.integers(count, size=count):
            common = min(len(cell.side[p]), len(cell.baseline[p]))
            for k in rng.integers(common, size=common):
                a, b = cell.side[p][k], cell.baseline[p][k]
                drawn = (np.median(rng.choice(a, len(a))), np.median(rng.choice(b, len(b))))
                medians.append(math.log(drawn[0] / drawn[1]))
        logs[i] = np.median(medians)
    low, high = np.quantile(logs, [0.025, 0.975])
    return bool(low <= math.log(cell.truth) <= high)


def own_t_holds(cell: Cell) -> bool:
    """Whether Student's interval from the cell's own process medians holds the truth."""
    found = cell.contrast(paired=True)
    reach = stats.t.ppf(0.975, found.df) * math.sqrt(found.variance * found.factor)
    return bool(abs(found.log_ratio - math.log(cell.truth)) <= reach)


def report(bank: dict[str, list[Draw]], families: int, processes: int, paired: bool) -> None:
    """Simulate, judge, print."""
    rng = np.random.default_rng(0)
    kind = "interleaved" if paired else "different days"
    any_false: list[bool] = []
    null: list[str] = []
    changed: list[tuple[str, float]] = []
    beside: list[str] = []
    holds: list[bool] = []
    rules: dict[str, dict[str, list[bool]]] = {"A/A": {}, "5 %": {}}
    family_rules: dict[str, list[bool]] = {}
    for _ in tqdm(range(families), f"{processes} processes, {kind}", leave=False):
        cells = [simulate(bank, 1.0, processes, paired, rng) for _ in range(CELLS)]
        said, _ = labbench_verdicts(cells, paired)
        null += said
        any_false.append(any(one in ("faster", "slower") for one in said))
        theirs = [others(cell) for cell in cells]
        for name in theirs[0]:
            rules["A/A"].setdefault(name, []).extend(one[name] for one in theirs)
            family_rules.setdefault(name, []).append(any(one[name] for one in theirs))
        truths = [CHANGE if i % 2 else 1 / CHANGE for i in range(CHANGED)]
        changes = [simulate(bank, truth, processes, paired, rng) for truth in truths]
        said, held = labbench_verdicts([*changes, *cells[CHANGED:]], paired)
        changed += zip(said[:CHANGED], truths, strict=True)
        beside += said[CHANGED:]
        holds += held
        for cell in changes:
            for name, found in others(cell).items():
                rules["5 %"].setdefault(name, []).append(found)
    right = [said == ("slower" if truth > 1 else "faster") for said, truth in changed]
    false = sum(said in ("faster", "slower") for said in beside)
    found = sum(said in ("faster", "slower") for said, _ in changed) + false
    print(f"\n{processes} processes a side, {kind}; {families} families of {CELLS} cells")
    different = np.mean([one in ("faster", "slower") for one in null])
    print(
        f"  unchanged cells: any called different in {np.mean(any_false):.1%} of families (goal at most 5 %), ", end=""
    )
    print(f"of cells {different:.2%}; called same {null.count('same') / len(null):.0%}")
    print(f"  {CHANGED} of {CELLS} changed by 5 %: found {np.mean(right):.1%} (goal at least 90 %), ", end="")
    print(f"false among found {false / max(found, 1):.1%}")
    print(f"  95 % interval holds the truth: {np.mean(holds):.1%} (goal 93 to 97 %)")
    for name in rules["A/A"]:
        print(
            f"  {name}: unchanged cells called different {np.mean(rules['A/A'][name]):.1%} (any in a family "
            f"{np.mean(family_rules[name]):.0%}), changed ones found {np.mean(rules['5 %'][name]):.1%}"
        )
    if paired and processes > 1:
        some = [simulate(bank, 1.0, processes, True, rng) for _ in range(BOOTSTRAPPED)]
        print(
            f"  other intervals: Student's t on a cell's own processes {np.mean([own_t_holds(c) for c in some]):.1%}, ",
            end="",
        )
        held = [bootstrap_holds(cell, rng) for cell in tqdm(some[: BOOTSTRAPPED // 5], "bootstrap", leave=False)]
        print(f"hierarchical bootstrap {np.mean(held):.1%}")


def main() -> None:
    """Report on the default protocol, on others, and on comparisons between days."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bank", type=Path)
    parser.add_argument("--families", type=int, default=200)
    parser.add_argument(
        "--processes", type=int, nargs="+", default=[2, 1, 5], help="a side; the default protocol has 2"
    )
    options = parser.parse_args()
    recorded = pd.read_parquet(options.bank)
    bank = read(recorded)
    print(f"{options.bank}: " + ", ".join(f"{name} {len(draws)} draws" for name, draws in bank.items()))
    for processes in options.processes:
        report(bank, options.families, processes, paired=True)
    report(read(judged(recorded)), options.families, options.processes[0], paired=False)


if __name__ == "__main__":
    main()
