"""How many cells must be measured for an error: chosen ones against random ones, on timm's results.

FOLDER holds timm's ``benchmark-*.csv``, GRAPHS is what ``timm_graphs.py`` wrote of it. Of each seed's random MODELS that most
configurations have measured, nothing is known at first. A share of the cells (models x configurations) is measured, the law and
what it leaves over are fitted to just those, and the cells that were not measured are predicted. The first FIRST cells are random;
then come those that take most off the integrated variance, or random ones, or whole models, each measured on everything. Where
variance chooses, everything is fitted again at each share in the table and twice before.

    python benchmarks/measure_next.py FOLDER GRAPHS.parquet --seeds 5
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from timm_devices import Data, read

from labbench.prediction import Graphs, PredictionConfig
from labbench.prediction.adaptation import Adaptation, Traits
from labbench.prediction.elsewhere import DEPARTING, Cells
from labbench.prediction.operator_law import Design, OperatorFeatures, OperatorLaw

MODELS, FIRST = 160, 5
SHARES = (0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3)
EARLY = (0.005, 0.01)  # where everything is fitted again, too
WAYS = ("chosen", "random", "whole models")


def main() -> None:
    """Print the errors and how many cells random choice needs for the same."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("graphs", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    graphs = Graphs.read(options.graphs)
    data = Data(*read(options.folder, graphs), graphs)
    found = pd.concat([part for seed in range(options.seeds) for part in curves(data, seed)])
    mean = found.groupby(["share", "way"])["error"].mean().unstack()[list(WAYS)]
    print(f"\nmean error on cells not measured, %, mean of {options.seeds} seeds, by the share that is measured")
    print((100 * mean).round(1).T.to_string())
    print("median error, %")
    print((100 * found.groupby(["share", "way"])["median"].mean().unstack()[list(WAYS)]).round(1).T.to_string())
    print("cells chosen / cells that random choice needs for the same error (interpolated in the log):")
    for share, error in mean["chosen"].items():
        ratio = share / cells_needed(mean["random"], error)
        reached = error >= mean["random"].min()
        print(f"  {share:.1%}: {f'{ratio:.0%}' if reached else 'random choice does not get there'}")
    sd = found.pivot_table(index=["seed", "share"], columns="way", values="error")
    gain = (sd["random"] - sd["chosen"]).groupby("share").agg(["mean", "std"]) * 100
    print(
        "random less chosen, points of error: "
        + ", ".join(f"{s:.1%}: {r['mean']:.1f} ± {r['std']:.1f}" for s, r in gain.iterrows())
    )


def cells_needed(errors: pd.Series, error: float) -> float:
    """Share of cells at which a falling curve of errors meets an error; its last share if it does not fall so far."""
    falling = np.minimum.accumulate(errors.to_numpy())
    return float(np.exp(np.interp(-np.log(error), -np.log(falling), np.log(errors.index.to_numpy(float)))))


def curves(data: Data, seed: int) -> Iterator[pd.DataFrame]:
    """Errors at each share of every way of choosing."""
    rng, table = np.random.default_rng(seed), data.table
    at = table["model"].astype("str") + " " + table["image_size"].astype("str")
    often = table.groupby(at)["configuration"].nunique()
    models = rng.permutation(often.index[often >= 0.9 * table["configuration"].nunique()])[:MODELS]
    cells = table[at.isin(models)].reset_index(drop=True)
    problem = Problem.of(replace(data, table=cells))
    random = rng.permutation(len(cells))
    order = {name: place for place, name in enumerate(models)}
    whole = np.argsort(at[at.isin(models)].map(order).to_numpy(), kind="stable")
    for way in WAYS:
        yield curve(problem, way, whole if way == "whole models" else random, seed)


@dataclass(frozen=True)
class Problem:
    """Cells of which some will be measured: what their operators contribute, what the features say, and the answers."""

    cells: pd.DataFrame
    form: OperatorLaw
    design: Design
    features: OperatorFeatures
    seconds: np.ndarray

    @classmethod
    def of(cls, data: Data) -> Problem:
        """Which operators there are is known of all cells before anything is measured."""
        form = OperatorLaw.of(data.table, data.graphs, data.ceilings, PredictionConfig().noise)
        seconds = data.table["latency_s"].to_numpy(float)
        return cls(data.table, form, form.design(data.table), form.features(data.table), seconds)

    @cached_property
    def told(self) -> np.ndarray:
        """Features of all cells."""
        return self.features.table(self.cells)

    def adapted(self, measured: np.ndarray, seed: int) -> tuple[Adaptation, Traits, np.ndarray]:
        """What is learnt from the measured cells alone; traits of all, and ``log(measured / law)``."""
        law = self.form.fit(self.design.take(np.flatnonzero(measured)), self.seconds[measured])
        cells = Cells.of(self.cells, self.told, law.parts(self.design, elsewhere=True), self.features)
        traits, left_over = cells.traits(), np.log(self.seconds / cells.law)
        return Adaptation.fit(traits.take(measured), left_over[measured], DEPARTING, seed=seed), traits, left_over


def curve(problem: Problem, way: str, order: np.ndarray, seed: int) -> pd.DataFrame:
    """Errors at each share of one way of choosing; where nothing chooses, cells come in the order given."""
    measured = np.zeros(len(order), bool)
    measured[order[:FIRST]] = True
    rows = []
    for share in (*EARLY, *SHARES):
        wanted = round(share * len(order)) - int(measured.sum())
        if way == "chosen":
            model, traits, _ = problem.adapted(measured, seed)
            left = np.flatnonzero(~measured)
            measured[left[model.choose(traits.take(left), count=wanted)[0]]] = True
        else:
            measured[order[: round(share * len(order))]] = True
        if share in EARLY:
            continue
        model, traits, left_over = problem.adapted(measured, seed)
        error = np.abs(np.expm1(model.predict(traits.take(~measured)).mean - left_over[~measured]))
        rows.append({"seed": seed, "way": way, "share": share, "error": error.mean(), "median": np.median(error)})
    return pd.DataFrame(rows)


if __name__ == "__main__":
    main()
