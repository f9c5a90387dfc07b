"""How well unseen models are predicted on known devices, from timm's results: graphs, families, code modules never seen.

    python benchmarks/timm_graphs.py FOLDER GRAPHS.parquet
    python benchmarks/timm_models.py FOLDER GRAPHS.parquet --split family --seeds 5

Each seed leaves every group out once, a fifth of them at a time. Intervals of means are bootstrapped over groups.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from labbench.prediction import Graphs, PredictionConfig, Predictor
from labbench.prediction.baselines import LATENCY_BASELINES
from labbench.prediction.errors import mean_interval
from labbench.prediction.predictor import learnt_from
from labbench.prediction.residual import folds_by_group
from labbench.store import Store
from labbench.transfer import import_into

FOLDS, LEVEL = 5, 0.9
PLAIN = "boosting, split conformal"
LARGE_GROUP = 60  # rows, of groups whose own coverage is looked at
SPLITS = {"graph": "architecture", "family": "family", "module": "module"}


def imported(folder: Path) -> tuple[pd.DataFrame, dict]:
    """A store's frame and environments of a folder of timm's results."""
    with tempfile.TemporaryDirectory() as scratch:
        with Store(Path(scratch) / "timm.h5", writable=True) as store:
            import_into(store, [folder], format="timm")
        return store.frame(), store.environments()


def learnt(
    frame: pd.DataFrame, environments: dict, graphs: Graphs, config: PredictionConfig
) -> tuple[pd.DataFrame, dict]:
    """Prepared rows with known operators, and the ceilings of their devices."""
    table, ceilings = learnt_from(frame.reset_index(drop=True), environments, config, graphs)
    return table[graphs.number(table) >= 0].reset_index(drop=True), ceilings


def results(folder: Path, graphs: Graphs, mode: str, config: PredictionConfig) -> tuple[pd.DataFrame, dict]:
    """Results of a mode, their operators known, with the code module of each; and the ceilings of their devices."""
    frame, environments = imported(folder)
    frame = frame[frame["mode"] == mode]
    known, ceilings = learnt(frame, environments, graphs, config)
    print(f"{len(known)} of {len(frame)} results have known operators, {known['model'].nunique()} architectures")
    module = graphs.operators.drop_duplicates("model").set_index("model")["module"]
    return known.assign(module=known["model"].astype("str").map(module)), ceilings


def cross_validated(
    table: pd.DataFrame, ceilings: dict, graphs: Graphs, split: str, config: PredictionConfig, baselines: bool
) -> tuple[pd.DataFrame, dict[str, float]]:
    """Predictions of all rows by predictors that never saw their group, and how long it took."""
    apart = table[SPLITS[split]].to_numpy(str)
    table = table.assign(group=table["family"] if split == "graph" else apart)
    parts, times = [], {"fit_s": [], "predict_s": [], "rows": []}
    for train, test in tqdm(list(folds_by_group(apart, FOLDS, config.seed)), split, smoothing=0):
        began = time.perf_counter()
        seen, unseen = table.iloc[train].reset_index(drop=True), table.iloc[test].reset_index(drop=True)
        predictor = Predictor(config).fit_rows(seen, ceilings, graphs)
        fitted = time.perf_counter()
        inside = predictor.judge(unseen)["departure"].isna().to_numpy()
        found = (
            predictor.quantities["latency_s"]
            .predict(unseen, inside, LEVEL)
            .assign(row=test, method="labbench", inside=inside)
        )
        times["fit_s"].append(fitted - began)
        times["predict_s"].append(time.perf_counter() - fitted)
        times["rows"].append(len(test))
        parts += [found, found.assign(method="labbench, law alone", point=found["law"])]
        parts.append(split_conformal(seen, unseen, ceilings, config.seed).assign(row=test, method=PLAIN))
        for name, baseline in LATENCY_BASELINES.items() if baselines else ():
            guess = baseline(seen, "latency_s", ceilings)(unseen)
            parts.append(pd.DataFrame({"row": test, "method": name, "point": guess}))
    took = {"fit_s": float(np.median(times["fit_s"])), "rows_s": float(sum(times["rows"]) / sum(times["predict_s"]))}
    told = table[["configuration", "group", "model", "latency_s"]].assign(apart=apart)
    return pd.concat(parts).join(told, on="row"), took


def split_conformal(seen: pd.DataFrame, unseen: pd.DataFrame, ceilings: dict, seed: int) -> pd.DataFrame:
    """Gradient boosting on coarse features; errors on a fifth of the groups make the interval (Papadopoulos et al. 2002)."""
    fitted, held = next(folds_by_group(seen["group"].to_numpy(str), FOLDS, seed))
    guess = LATENCY_BASELINES["gradient boosting"](seen.iloc[fitted], "latency_s", ceilings)
    scores = np.abs(np.log(seen["latency_s"].to_numpy(float)[held] / guess(seen.iloc[held])))
    reach = np.exp(np.quantile(scores, min(LEVEL * (1 + 1 / len(held)), 1.0), method="higher"))
    point = guess(unseen)
    return pd.DataFrame({"point": point, "low": point / reach, "high": point * reach})


def summary(found: pd.DataFrame) -> dict[str, float]:
    """Errors in per cent."""
    error = (found["point"] / found["latency_s"] - 1).abs()
    groups = error.groupby(found["apart"])
    low, high = mean_interval(groups.sum().to_numpy(), groups.size().to_numpy())
    return {
        "MAPE": 100 * error.mean(),
        "low": 100 * low,
        "high": 100 * high,
        "groups equal": 100 * groups.mean().mean(),
        "median": 100 * error.median(),
        "within 15": 100 * (error <= 0.15).mean(),
        "within 10": 100 * (error <= 0.10).mean(),
        "bias": 100 * np.expm1(np.log(found["point"] / found["latency_s"]).mean()),
        "largest x": float(np.exp(np.log(found["point"] / found["latency_s"]).abs().max())),
    }


def intervals(found: pd.DataFrame) -> dict[str, float]:
    """Coverage and width, as shares; and the error where half of the rows are not answered."""
    holds = found["latency_s"].between(found["low"], found["high"])
    width = (found["high"] - found["low"]) / found["point"]
    large = holds.groupby(found["apart"]).agg(["mean", "size"]).query(f"size >= {LARGE_GROUP}")["mean"]
    error = (found["point"] / found["latency_s"] - 1).abs()
    return {
        "coverage": holds.mean(),
        "worst configuration": holds.groupby(found["configuration"]).mean().min(),
        "groups under 70 %": (large < 0.7).mean(),
        "median width": width.median(),
        "MAPE % of the surer half": 100 * error[width <= width.median()].mean(),
        "outside the domain": 1 - found["inside"].astype(float).mean(),
    }


def main() -> None:
    """Print errors beside the baselines', and the intervals."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("graphs", type=Path)
    parser.add_argument("--split", choices=SPLITS, nargs="+", default=list(SPLITS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--mode", default="inference")
    parser.add_argument("--no-baselines", action="store_true")
    parser.add_argument("--configurations", help="only those whose name holds this")
    parser.add_argument("--save", type=Path, help="all predictions, as parquet")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    graphs = Graphs.read(options.graphs)
    table, ceilings = results(options.folder, graphs, options.mode, PredictionConfig())
    names = ("device_name", "framework", "platform", "precision")
    table["configuration"] = table[list(names)].astype("str").agg(" ".join, axis=1)
    if options.configurations:
        table = table[table["configuration"].str.contains(options.configurations)].reset_index(drop=True)
    for split in options.split:
        rows, honest, plain, saved = [], [], [], []
        for seed in range(options.seeds):
            config = PredictionConfig(seed=seed)
            found, took = cross_validated(table, ceilings, graphs, split, config, not options.no_baselines)
            rows += [
                summary(part) | {"method": name, "seed": seed} for name, part in found.groupby("method", sort=False)
            ]
            honest.append(intervals(found[found["method"] == "labbench"]) | took)
            plain.append(intervals(found[found["method"] == PLAIN]))
            saved.append(found.assign(seed=seed))
        mean = pd.DataFrame(rows).drop(columns="seed").groupby("method", sort=False).mean()
        print(f"\nunseen {split}, {options.seeds} seeds, errors in %:\n{mean.round(2).to_string()}")
        ours = found[found["method"] == "labbench"]
        error = (
            (ours["point"] / ours["latency_s"] - 1).abs().groupby(ours["configuration"]).agg(["mean", "median", "size"])
        )
        print(f"by configuration, last seed:\n{error.round(3).to_string()}")
        print(f"intervals of {LEVEL:.0%}, and seconds: {pd.DataFrame(honest).mean().round(3).to_dict()}")
        print(f"those of {PLAIN}: {pd.DataFrame(plain).mean().round(3).dropna().to_dict()}", flush=True)
        if options.save:
            pd.concat(saved).to_parquet(options.save.with_stem(f"{options.save.stem}_{split}"))


if __name__ == "__main__":
    main()
