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
from pathlib import Path

import numpy as np
import pandas as pd
from timm_law import Fitted, Graphs, fit, read

from labbench.prediction.adaptation import Adaptation

MODELS, FIRST = 160, 5
SHARES = (0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3)
EARLY = (0.005, 0.01)  # where everything is fitted again, too
DEPARTING = ("device", "settings")
WAYS = ("chosen", "random", "whole models")


def main() -> None:
    """Print the errors and how many cells random choice needs for the same."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("graphs", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    table, graphs = read(options.folder, options.graphs)
    found = pd.concat([curve(table, graphs, way, seed) for seed in range(options.seeds) for way in WAYS])
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


def curve(table: pd.DataFrame, graphs: Graphs, way: str, seed: int) -> pd.DataFrame:
    """Errors at each share of one way of choosing."""
    rng = np.random.default_rng(seed)
    often = table.groupby("at")["configuration"].nunique()
    models = rng.permutation(often.index[often >= 0.9 * table["configuration"].nunique()])[:MODELS]
    cells = table[table["at"].isin(models)].reset_index(drop=True)
    terms, random = graphs.terms(cells), rng.permutation(len(cells))
    if way == "whole models":
        order = {at: place for place, at in enumerate(models)}
        random = np.argsort(cells["at"].map(order).to_numpy(), kind="stable")
    measured = np.zeros(len(cells), bool)
    measured[random[:FIRST]] = True
    rows = []
    for share in (*EARLY, *SHARES):
        wanted = round(share * len(cells)) - int(measured.sum())
        if way == "chosen":
            model, fitted = adapted(cells, graphs, terms, measured, seed)
            left = np.flatnonzero(~measured)
            chosen = model.choose(fitted.traits.take(left), count=wanted)[0]
            measured[left[chosen]] = True
        else:
            measured[random[: round(share * len(cells))]] = True
        if share in EARLY:
            continue
        model, fitted = adapted(cells, graphs, terms, measured, seed)
        found = model.predict(fitted.traits.take(~measured))
        error = np.abs(np.expm1(found.mean - fitted.left_over[~measured]))
        rows.append({"seed": seed, "way": way, "share": share, "error": error.mean(), "median": np.median(error)})
    return pd.DataFrame(rows)


def adapted(
    cells: pd.DataFrame, graphs: Graphs, terms: np.ndarray, measured: np.ndarray, seed: int
) -> tuple[Adaptation, Fitted]:
    """What is learnt from the measured cells alone, and traits of all."""
    fitted = fit(cells, graphs, terms, measured)
    return Adaptation.fit(fitted.traits.take(measured), fitted.left_over[measured], DEPARTING, seed=seed), fitted


if __name__ == "__main__":
    main()
