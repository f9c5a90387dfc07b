"""Training steps of families that were never seen, from timm's results, without and with the same model's inference measured.

FOLDER holds timm's ``benchmark-*.csv``, GRAPHS is what ``timm_graphs.py`` wrote of it, STEPS the same with ``--mode training``;
without STEPS a step is priced by its forward pass. One law of operators is fitted to steps and to eager inference of the same
devices, in the versions asked for. Trees then learn what it leaves over of steps:

- *without inference*: of the steps' families nothing was measured;
- *with inference*: what the law leaves over of the same model's inference, in each configuration, is a feature.

    python benchmarks/timm_training.py FOLDER GRAPHS.parquet --steps STEPS.parquet --seeds 5
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from timm_models import imported

from labbench.prediction import Graphs, PredictionConfig
from labbench.prediction.errors import mean_interval
from labbench.prediction.features import with_shares
from labbench.prediction.operator_law import OperatorLaw
from labbench.prediction.predictor import learnt_from
from labbench.prediction.residual import Residual, folds_by_group

FOLDS = 5
SAME = ["model", "image_size"]
WAYS = ("law alone", "without inference", "with inference")


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
    table, ceilings = learnt_from(frame[wanted].reset_index(drop=True), environments, PredictionConfig(), known)
    is_step = table["mode"] == "training"
    table = table[is_step | table["framework"].isin([f"torch {one}" for one in versions])].reset_index(drop=True)
    table["configuration"] = table[["device_name", "mode", "runtime", "framework"]].astype("str").agg(" ".join, axis=1)
    print(table.groupby("configuration").size().to_string())
    return table, ceilings, known


def left_over_of_inference(table: pd.DataFrame, error: np.ndarray) -> np.ndarray:
    """What the law leaves over of each row's model's inference, by configuration, 0 where there is none; and whether there is."""
    inference = (table["mode"] == "inference").to_numpy()
    each = table[inference].assign(error=error[inference]).pivot_table("error", SAME, "configuration")
    found = table[SAME].merge(each, left_on=SAME, right_index=True, how="left")[list(each)].to_numpy(float)
    return np.hstack([np.nan_to_num(found), np.isfinite(found)])


def predicted(table: pd.DataFrame, graphs: Graphs, ceilings: dict, seed: int) -> pd.DataFrame:
    """Errors of all steps, each by what has not seen its family."""
    config = PredictionConfig(seed=seed)
    law = OperatorLaw.of(table, graphs, ceilings, config.noise)
    design, features = law.design(table), law.features(table).table(table)
    target, groups = table["latency_s"].to_numpy(float), table["group"].to_numpy(str)
    is_step = (table["mode"] == "training").to_numpy()
    out = []
    for train, test in folds_by_group(groups, FOLDS, seed):
        parts = np.zeros((len(table), law.parts(design.take(train[:1])).shape[1]))
        parts[test] = law.fit(design.take(train), target[train]).parts(design.take(test))
        for inner, held in folds_by_group(groups[train], config.inner_folds, seed):
            inner, held = train[inner], train[held]
            parts[held] = law.fit(design.take(inner), target[inner]).parts(design.take(held))
        error = np.log(target / parts.sum(axis=1))
        plain = with_shares(features, parts)
        seen, asked = train[is_step[train]], test[is_step[test]]
        folds = list(folds_by_group(groups[seen], config.inner_folds, seed))
        found = table.iloc[asked][["family", "configuration"]].assign(**{"law alone": np.abs(np.expm1(-error[asked]))})
        for way, columns in (
            ("without inference", plain),
            ("with inference", np.hstack([plain, left_over_of_inference(table, error)])),
        ):
            residual = Residual.fit(columns[seen], error[seen], groups[seen], folds, config)
            found[way] = np.abs(np.expm1(residual.correction(columns[asked]) - error[asked]))
        out.append(found)
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
            f"{way:20} {error.mean():.1f} [{low:.1f}, {high:.1f}] median {error.median():.1f}, within 15 %: {within:.0f}"
        )
    print(found.groupby("configuration")[list(WAYS)].mean().mul(100).round(1).to_string())


if __name__ == "__main__":
    main()
