"""Training steps of families that were never seen, from timm's results, without and with the same model's inference measured.

FOLDER holds timm's ``benchmark-*.csv``, GRAPHS is what ``timm_graphs.py`` wrote of it, STEPS the same with ``--mode training``;
without STEPS a step is priced by its forward pass. One law of operators is fitted to steps and to eager inference of the same
devices, in the versions asked for:

- *law alone*: of the steps' families nothing was measured;
- *without inference*: trees correct it, as far as they prove themselves out of fold;
- *with inference*: the law is corrected by a line in what it leaves over of the same model's inference, robust, one for each
  configuration of training, and by a forest that is told the same beside operators and shares;
- *Predictor, with inference*: what ``labbench predict`` says if the inference is in the store, and how often its intervals hold.

    python benchmarks/timm_training.py FOLDER GRAPHS.parquet --steps STEPS.parquet --seeds 5
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import HuberRegressor
from timm_models import imported, learnt

from labbench.prediction import Graphs, PredictionConfig
from labbench.prediction.errors import mean_interval
from labbench.prediction.predictor import latency_law
from labbench.prediction.quantity import MANY_FOLDS, CrossFit, Quantity
from labbench.prediction.residual import MAX_CORRECTION, Residual, folds_by_group, grown

FOLDS = 5
RIDGE = 0.01  # keeps a configuration that few models share from being given a large weight
WAYS = ("law alone", "without inference", "with inference", "Predictor, with inference")
LEVEL = 0.9


def read(folder: Path, graphs: Path, steps: Path | None, versions: list[str]) -> tuple[pd.DataFrame, dict, Graphs]:
    """Steps and inference of their devices, whose operators are known; the devices' ceilings."""
    operators = pd.read_parquet(graphs)
    operators = operators[~operators["fused"].astype(bool)]
    if steps:
        operators = pd.concat([operators.assign(mode="inference"), pd.read_parquet(steps)], ignore_index=True)
    known = Graphs(operators)
    frame, environments = imported(folder)
    devices = frame.loc[frame["mode"] == "training", "device_name"].unique()
    wanted = frame["device_name"].isin(devices) & frame["runtime"].astype("str").str.startswith("eager")
    table, ceilings = learnt(frame[wanted], environments, known, PredictionConfig())
    is_step = table["mode"] == "training"
    table = table[is_step | table["framework"].isin([f"torch {one}" for one in versions])].reset_index(drop=True)
    table["configuration"] = table[["device_name", "mode", "runtime", "framework"]].astype("str").agg(" ".join, axis=1)
    print(table.groupby("configuration").size().to_string())
    return table, ceilings, known


def left_over_of_inference(table: pd.DataFrame, error: np.ndarray) -> np.ndarray:
    """What the law leaves over of each row's model's inference, by configuration, and whether there is any (0 where there is none).

    At the same size of image, or the mean over other sizes.
    """
    inference = (table["mode"] == "inference").to_numpy()
    measured = table[inference].assign(error=error[inference])
    sizes = []
    for same in (["model", "image_size"], ["model"]):
        each = measured.pivot_table("error", same, "configuration", observed=True)
        sizes.append(table[same].merge(each, left_on=same, right_index=True, how="left")[list(each)].to_numpy(float))
    found = np.where(np.isfinite(sizes[0]), *sizes)
    return np.hstack([np.nan_to_num(found), np.isfinite(found)])


def by_inference(
    table: pd.DataFrame, error: np.ndarray, columns: np.ndarray, seen: np.ndarray, asked: np.ndarray, seed: int
) -> np.ndarray:
    """What the law will leave over of the steps asked about, learnt from those seen."""
    told = left_over_of_inference(table, error)
    of, steps = table["configuration"].to_numpy(str), np.concatenate([seen, asked])
    line = np.zeros(len(table))
    for name in np.unique(of[seen]):
        mine, its = seen[of[seen] == name], steps[of[steps] == name]
        line[its] = HuberRegressor(alpha=RIDGE).fit(told[mine], error[mine]).predict(told[its])
    columns = np.hstack([columns, told])
    left = np.clip(error - line, -MAX_CORRECTION, MAX_CORRECTION)
    return line[asked] + grown(columns[seen], left[seen], seed).predict(columns[asked])


def predicted(table: pd.DataFrame, graphs: Graphs, ceilings: dict, seed: int) -> pd.DataFrame:
    """Errors of all steps, each by what has not seen its family."""
    config = PredictionConfig(seed=seed)
    law = latency_law(table, ceilings, graphs, config)
    design, features = law.design(table), law.features(table).table(table)
    target, groups = table["latency_s"].to_numpy(float), table["group"].to_numpy(str)
    is_step = (table["mode"] == "training").to_numpy()
    out = []
    for train, test in folds_by_group(groups, FOLDS, seed):
        mine, folds = design.take(train), list(folds_by_group(groups[train], MANY_FOLDS, seed))
        cross, fitted = CrossFit.of([law] * len(folds), mine, target[train], folds), law.fit(mine, target[train])
        told = fitted.parts(design.take(test))
        parts = np.zeros((len(table), told.shape[1]))
        parts[train], parts[test] = cross.parts, told
        error = np.log(target / parts.sum(axis=1))
        columns, pull = np.hstack([features, law.shares(parts)]), cross.said - np.log(fitted.parts(mine).sum(axis=1))
        seen, asked = train[is_step[train]], test[is_step[test]]
        trees = Residual.fit(columns[train], error[train], groups[train], folds, config, pull=pull)
        corrections = (0.0, trees.correction(columns[asked]), by_inference(table, error, columns, seen, asked, seed))
        found = {way: np.abs(np.expm1(one - error[asked])) for way, one in zip(WAYS[:-1], corrections, strict=True)}
        told, steps = table.drop(index=asked).reset_index(drop=True), table.iloc[asked]
        quantity = Quantity.fit("latency_s", told, latency_law(told, ceilings, graphs, config), config)
        ours, measured = quantity.predict(steps, np.ones(len(steps), bool), LEVEL), steps["latency_s"]
        found[WAYS[-1]] = (ours["point"] / measured - 1).abs()
        interval = {
            "holds": measured.between(ours["low"], ours["high"]),
            "width": (ours["high"] - ours["low"]) / ours["point"],
        }
        out.append(steps[["family", "configuration"]].assign(**found, **interval))
    return pd.concat(out)


def main() -> None:
    """Print errors of each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("graphs", type=Path)
    parser.add_argument("--steps", type=Path)
    parser.add_argument("--versions", nargs="+", default=["1.13"], help="of PyTorch, whose inference counts")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    table, ceilings, graphs = read(options.folder, options.graphs, options.steps, options.versions)
    found = pd.concat([predicted(table, graphs, ceilings, seed).assign(seed=seed) for seed in range(options.seeds)])
    print(f"\ntraining step, unseen family, {options.seeds} seeds: mean error, % [95 % interval]")
    for way in WAYS:
        error = 100 * found[way]
        families = error.groupby(found["family"])
        low, high = mean_interval(families.sum().to_numpy(), families.size().to_numpy())
        within = 100 * (error <= 15).mean()
        print(
            f"{way:26} {error.mean():.1f} [{low:.1f}, {high:.1f}] median {error.median():.1f}, within 15 %: {within:.0f}"
        )
    print(f"its intervals of {LEVEL:.0%} hold {found['holds'].mean():.1%}, median width {found['width'].median():.0%}")
    print(found.groupby("configuration")[list(WAYS)].mean().mul(100).round(1).to_string())


if __name__ == "__main__":
    main()
