"""How good choices by prediction are, from timm's results: what they give away, and whether declared probabilities hold.

    python benchmarks/timm_graphs.py FOLDER GRAPHS.parquet
    python benchmarks/timm_selection.py FOLDER GRAPHS.parquet --seeds 5 --cache CACHE

A model at a size of image is a question. Configurations of the two GPUs under PyTorch 2.4 and 2.9 compete, those that were
measured for it, each at the batch it was measured with; CPUs, a hundred times slower, are predicted but do not compete. Models are
unseen: every operator graph is left out once, a fifth of them at a time. **All prices are made up.**

- *choice*: regret, the share of the best option's throughput (of its throughput per unit of cost) that the chosen one gives away.
  *Near-tied* prices make the medians on the training models equal within 5 %, of all configurations or of the devices' best ones.
- *device*: the same where a GPU was left out but for PROBES random cells of known models, of each of its configurations or in all.
- *chance*: whether options that are declared safe, by the probability that a call keeps a limit, do; of all options, and of those
  that are then chosen, which are the optimistic ones.

Intervals in brackets: 95 %, bootstrapped over operator graphs.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from timm_devices import place, read
from tqdm import tqdm

from labbench.prediction import Graphs, PredictionConfig, Predictor
from labbench.prediction.baselines import nearest, roofline
from labbench.prediction.errors import mean_interval
from labbench.prediction.regret import DECLARED, regret, reliability
from labbench.prediction.residual import folds_by_group
from labbench.selection.chances import LEVELS, Belief, chances_of_best

FOLDS, PROBES, TABLES = 5, 5, 5
UNSEEN = 0.15  # of the graphs, where a device is left out
COMPETING = ("torch 2.4", "torch 2.9")
KEPT = ("model", "image_size", "batch_size", "configuration", "device_name", "graph", "latency_s")
METHODS = ("labbench", "law alone", "roofline", "nearest measured cell")
INSIDE = "labbench, in its domain"  # as `select` does: a prediction outside what was measured is no ground to choose
BLIND, FIXED = (
    "labbench, 90 % intervals tie",
    "best fixed choice",
)  # BLIND: one of those whose intervals overlap, blindly
DEARER = (1.5, 1.75, 2.0, 2.25)  # times the price of an RTX 3090 that an RTX 4090 costs
HALF = np.log(1.05) / 2
FACTORS = (0.7, 0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.2, 1.4, 1.7)  # from the truth or the prediction to limits
BINS = (0.0, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 1.0)  # of chances of being the best
WAYS = {"each": "of each configuration", "all": "in all"}  # of spreading probes
PARTS = ("choice", "chance", "device")

Prices = Callable[[pd.DataFrame], pd.Series]  # training cells -> configuration to its price


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("graphs", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=PARTS, help="only these")
    parser.add_argument("--cache", type=Path, help="folder that keeps predictions, to be read again")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    pd.set_option("display.width", 200)
    graphs = Graphs.read(options.graphs)
    table, ceilings = read(options.folder, graphs)
    table = table[table["framework"].isin(COMPETING)].reset_index(drop=True)
    seeds = range(options.seeds)
    if {"choice", "chance"} & set(options.part):
        cells = pd.concat(
            cached(
                options.cache,
                f"models_{seed}_{fold}",
                lambda at=(seed, fold): unseen_models(table, ceilings, graphs, *at),
            )
            for seed, fold in tqdm(list(product(seeds, range(FOLDS))), "folds", smoothing=0)
        )
        if "choice" in options.part:
            print_choices(cells, options.seeds)
        if "chance" in options.part:
            print_chances(cells, options.seeds)
    if "device" in options.part:
        gpus = sorted(table.loc[table["kind"] == "cuda", "device_name"].unique())
        asked = tqdm(list(product(gpus, WAYS, seeds)), "devices left out", smoothing=0)
        cells = pd.concat(
            cached(options.cache, "_".join(map(str, at)), lambda at=at: left_out(table, ceilings, graphs, *at))
            for at in asked
        )
        print_devices(cells, options.seeds)


def cached(folder: Path | None, name: str, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """What was made before, or is made now."""
    if folder is None:
        return make()
    path = folder / f"{name.replace(' ', '_')}.parquet"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        make().to_parquet(path)
    return pd.read_parquet(path)


def unseen_models(table: pd.DataFrame, ceilings: dict, graphs: Graphs, seed: int, fold: int) -> pd.DataFrame:
    """Every cell of a fold, predicted by a predictor that never saw its operator graph."""
    table = table.assign(group=table["family"])
    train, test = list(folds_by_group(table["graph"].to_numpy(str), FOLDS, seed))[fold]
    return predicted(table.iloc[train], table.iloc[test], ceilings, graphs, seed).assign(seed=seed, fold=fold)


def left_out(table: pd.DataFrame, ceilings: dict, graphs: Graphs, device: str, way: str, seed: int) -> pd.DataFrame:
    """Cells of unseen models, and of known ones those of the device, which but for a few probes was never measured."""
    table = table.assign(group=table["family"])
    there, known = (table["device_name"] == device).to_numpy(), place(table, seed) > UNSEEN
    pool = table[there & known].sample(frac=1.0, random_state=seed)
    probes = pool.groupby("configuration", observed=True).head(PROBES) if way == "each" else pool.head(PROBES)
    train = pd.concat([table[~there & known], probes])
    asked = table[(there | ~known) & ~table.index.isin(probes.index)]
    found = predicted(train, asked, ceilings, graphs, seed)
    measured = table[~there & known]  # of known models: taken at what was measured
    answers = dict.fromkeys(METHODS, measured["latency_s"])
    both = pd.concat(
        [found.assign(known=known[asked.index]), measured[list(KEPT)].assign(**answers, known=True, inside=True)]
    )
    return both.reset_index(drop=True).assign(left_out=device, way=way, seed=seed)


def predicted(train: pd.DataFrame, test: pd.DataFrame, ceilings: dict, graphs: Graphs, seed: int) -> pd.DataFrame:
    """Seconds of a call by each method, and how far the intervals of ``LEVELS`` reach."""
    train, test = train.reset_index(drop=True), test.reset_index(drop=True)
    predictor = Predictor(PredictionConfig(seed=seed)).fit_rows(train, ceilings, graphs)
    inside = predictor.judge(test)["departure"].isna().to_numpy()
    found = predictor.quantities["latency_s"].predict(test, inside, 0.9, levels=LEVELS)
    near = nearest(versioned(train), "latency_s", ceilings)(versioned(test))
    bound = roofline(train, "latency_s", ceilings)(test)
    guesses = dict(zip(METHODS, (found["point"], found["law"], bound, near), strict=True))
    reach = {name: found[name] for name in found if str(name).startswith(("reach_", "shared"))}
    return test[list(KEPT)].astype({"model": str}).assign(**guesses, **reach, inside=inside)


def versioned(table: pd.DataFrame) -> pd.DataFrame:
    """Rows whose platform tells the version of PyTorch, too: baselines know no other way to tell them apart."""
    return table.assign(platform=table["platform"].astype("str") + " " + table["framework"].astype("str"))


def question(cells: pd.DataFrame) -> pd.Series:
    """Model and size of image."""
    return cells["model"].astype("str") + " " + cells["image_size"].astype("str")


def on_gpu(cells: pd.DataFrame) -> pd.DataFrame:
    """Those that compete."""
    return cells[cells["device_name"].str.contains("RTX")]


def wide(cells: pd.DataFrame) -> pd.DataFrame:
    """Seconds of an image, a row a question with all configurations, a column a configuration."""
    seconds = cells["latency_s"] / cells["batch_size"]
    at = {"question": question(cells), "configuration": cells["configuration"], "seconds": seconds}
    return pd.DataFrame(at).pivot_table(index="question", columns="configuration", values="seconds").dropna()


def free(train: pd.DataFrame) -> pd.Series:
    """All cost the same: throughput alone counts."""
    return pd.Series(1.0, index=train["configuration"].unique())


def dearer(times: float) -> Prices:
    """An RTX 4090 costs so many times what an RTX 3090 does."""
    return lambda train: pd.Series({name: times if "4090" in name else 1.0 for name in train["configuration"].unique()})


def near_tied(number: int, of: str) -> Prices:
    """Median costs of an image are equal within 5 % on the training models: of all configurations, or of the devices' best ones."""

    def prices(train: pd.DataFrame) -> pd.Series:
        median = wide(train).median()
        device = median.index.str.split(" torch").str[0]
        cost = median if of == "configurations" else median.groupby(device).transform("min")
        names, member = np.unique(median.index if of == "configurations" else device, return_inverse=True)
        return np.exp(np.random.default_rng(number).uniform(-HALF, HALF, len(names)))[member] / cost

    return prices


def given_away(train: pd.DataFrame, test: pd.DataFrame, prices: Prices) -> Iterator[pd.DataFrame]:
    """Of each method the regret of each question; the best fixed choice is the first measured of a ranking on training models."""
    price = prices(train)
    cost = wide(train).mul(price, axis=1)
    ranking = (1 - cost.min(axis=1).to_numpy()[:, None] / cost).mean().rank()
    names = question(test).to_numpy()
    graph = dict(zip(names, test["graph"], strict=True))
    each = (test["configuration"].map(price) / test["batch_size"]).to_numpy(float)
    by = {method: test[method].to_numpy(float) * each for method in METHODS}
    by[INSIDE] = np.where(test["inside"], by[METHODS[0]], np.nan)
    by[BLIND] = tied(by[METHODS[0]], test["reach_0.9"].fillna(0.0).to_numpy(float), names)
    by[FIXED] = test["configuration"].map(ranking).to_numpy(float)
    for method, predicted in by.items():
        found = regret(test["latency_s"].to_numpy(float) * each, predicted, names)
        yield found.assign(method=method, graph=found["question"].map(graph))


def tied(point: np.ndarray, reach: np.ndarray, names: np.ndarray) -> np.ndarray:
    """Predictions, those whose interval overlaps with that of their question's best one made equal to it."""
    table = pd.DataFrame({"point": point, "low": point * np.exp(-reach), "high": point * np.exp(reach)})
    best = (
        table.loc[table.groupby(names)["point"].idxmin()].set_index(np.unique(names)).loc[names].reset_index(drop=True)
    )
    return np.where(table["low"] <= best["high"], best["point"], point)


def all_prices() -> dict[str, list[Prices]]:
    """Made-up prices by what they are called."""
    found: dict[str, list[Prices]] = {"throughput": [free]}
    found |= {f"per cost, 4090 = {times:g} x 3090": [dearer(times)] for times in DEARER}
    return found | {
        f"per cost, {of} near-tied, {TABLES} tables": [near_tied(number, of) for number in range(TABLES)]
        for of in ("configurations", "devices")
    }


def shown(found: pd.DataFrame) -> pd.DataFrame:
    """Regrets in per cent, a row a method."""
    rows = {}
    for method in (*METHODS, INSIDE, BLIND, FIXED):
        part = found[found["method"] == method]
        lost, graphs = 100 * part["regret"], part.groupby(part["graph"].astype("str"))["regret"]
        low, high = mean_interval(100 * graphs.sum().to_numpy(), graphs.size().to_numpy())
        rows[method] = {
            "mean": f"{lost.mean():.2f} [{low:.2f}, {high:.2f}]",
            "95th percentile": f"{lost.quantile(0.95):.1f}",
            "within 5 %": f"{100 * (lost <= 5).mean():.1f}",
        }
    return pd.DataFrame(rows).T


def print_choices(cells: pd.DataFrame, seeds: int) -> None:
    """Regret of unseen models, and how alike errors of one model are."""
    error = np.log((cells["labbench"] / cells["latency_s"]).to_numpy(float))
    at = cells.assign(error=error, question=cells["seed"].astype("str") + " " + question(cells))
    alike = at.pivot_table(index="question", columns="configuration", values="error").corr()
    print(f"\ncorrelation of errors of a model (in the log), {seeds} seed(s)\n{alike.round(2).to_string()}")
    cells = on_gpu(cells)
    print(f"\nunseen operator graphs, {seeds} seed(s), {question(cells).nunique()} questions; prices are made up")
    several = question(cells[cells["seed"] == 0]).value_counts()
    print(f"configurations that compete for a question: {several.value_counts().to_dict()} (configurations: questions)")
    for name, tables in all_prices().items():
        parts = [
            found
            for _, run in cells.groupby("seed")
            for fold in range(FOLDS)
            for prices in tables
            for found in given_away(run[run["fold"] != fold], run[run["fold"] == fold], prices)
        ]
        print(f"\nregret, {name}, %:\n{shown(pd.concat(parts)).to_string()}")


def print_devices(cells: pd.DataFrame, seeds: int) -> None:
    """Regret where a device was left out; the fixed choice is told by the answer, as nothing else can tell it."""
    cells = on_gpu(cells)
    for (device, way, known), part in cells.groupby(["left_out", "way", "known"]):
        names = question(part)
        asked = part[names.isin(names[part["device_name"] == device])]
        models = "known elsewhere" if known else "unseen, too"
        told = (
            f"{PROBES} probes {WAYS[way]}, models {models}, {seeds} seed(s), {names[asked.index].nunique()} questions"
        )
        print(f"\n{device} left out, {told}, regret in %")
        for name, prices in {"throughput": free, "devices near-tied": near_tied(0, "devices")}.items():
            parts = [found for _, run in asked.groupby("seed") for found in given_away(run, run, prices)]
            print(f"{name}:\n{shown(pd.concat(parts)).to_string()}")
        there = asked[asked["device_name"] == device]
        table = safe(there, [there["labbench"].to_numpy(float) * factor for factor in FACTORS])
        print(f"its options declared safe, limits: prediction x factor\n{percents(table).to_string()}")


def belief(cells: pd.DataFrame) -> Belief:
    """What is predicted of the seconds of a call."""
    reach = cells[[f"reach_{level:g}" for level in LEVELS]].to_numpy(float)
    return Belief.of_reach(cells["labbench"].to_numpy(float), reach, LEVELS, cells["shared"].to_numpy(float))


def safe(cells: pd.DataFrame, limits: list[np.ndarray]) -> pd.DataFrame:
    """How reliable chances of keeping limits are, with the least share met of a configuration."""
    of, measured = belief(cells), cells["latency_s"].to_numpy(float)
    chance = np.concatenate([of.chance_below(limit) for limit in limits])
    met = np.concatenate([measured <= limit for limit in limits])
    table, names = reliability(chance, met), np.tile(cells["configuration"].to_numpy(str), len(limits))
    each = [reliability(chance[names == one], met[names == one])["met"] for one in np.unique(names)]
    table.insert(3, "worst configuration", np.nanmin(each, axis=0))
    return table


def print_chances(cells: pd.DataFrame, seeds: int) -> None:
    """Declared probabilities against what was met."""
    cells = cells.reset_index(drop=True)
    of, measured = belief(cells), cells["latency_s"].to_numpy(float)
    by_configuration = cells.groupby("configuration")["latency_s"]
    gpus = cells["latency_s"].where(cells["device_name"].str.contains("RTX"))
    middle = gpus.groupby([cells["seed"], question(cells)]).transform("median").to_numpy(float)
    limits = {
        "deciles of the configuration's latencies": [
            by_configuration.transform("quantile", share).to_numpy(float) for share in np.arange(0.1, 1.0, 0.1)
        ],
        "prediction x factor": [cells["labbench"].to_numpy(float) * factor for factor in FACTORS],
        "measurement x factor": [measured * factor for factor in FACTORS if factor != 1.0],
    }
    for name, some in limits.items():
        print(f"\n{seeds} seed(s), every option, limits: {name}\n{percents(safe(cells, some)).to_string()}")
    for name, sign in {"fastest": 1, "slowest, the one that barely makes it": -1}.items():
        told = (
            f"the {name} by prediction of those declared safe, limits: the question's median latency on GPUs x factor"
        )
        print(f"\n{seeds} seed(s), {told}\n{percents(taken(on_gpu(cells), of, middle, sign)).to_string()}")
    for name, prices in {"throughput": free, "throughput per cost, 4090 = 2 x 3090 (made up)": dearer(2.0)}.items():
        print(f"\n{seeds} seed(s), chance of being the best option in {name}, %")
        print_best(on_gpu(cells), prices)


def print_best(cells: pd.DataFrame, prices: Prices) -> None:
    """Declared probabilities of being the best option against how many are."""
    parts = []
    for _, part in cells.groupby(["seed", question(cells)]):
        each = (part["configuration"].map(prices(part)) / part["batch_size"]).to_numpy(float)
        cost = part["latency_s"].to_numpy(float) * each
        chance = chances_of_best({"cost": belief(part).times(each)}, {"cost": 1.0})
        parts.append(pd.DataFrame({"declared": chance, "best": cost == cost.min()}))
    found = pd.concat(parts)
    told = found.groupby(pd.cut(found["declared"], BINS, include_lowest=True), observed=True)
    means = told[["declared", "best"]].mean() * 100
    print(means.round(1).assign(options=told.size()).to_string(index=False))


def taken(cells: pd.DataFrame, of: Belief, middle: np.ndarray, sign: int) -> pd.DataFrame:
    """Whether the option that is taken for a question among those declared safe is, a row each of ``DECLARED``."""
    asked = (cells["seed"].astype("str") + " " + question(cells)).to_numpy()
    rows = cells.index.to_numpy()
    measured, of, middle = cells["latency_s"].to_numpy(float), of.take(rows), middle[rows]
    wish = sign * cells["labbench"].to_numpy(float)
    chances = [(of.chance_below(middle * factor), measured <= middle * factor) for factor in FACTORS]
    possible = sum(int(pd.Series(met).groupby(asked).any().sum()) for _, met in chances)
    found = []
    for declared in DECLARED:
        made = []
        for chance, met in chances:
            safe = pd.DataFrame({"asked": asked, "wish": wish, "met": met})[chance >= declared]
            made += safe.loc[safe.groupby("asked")["wish"].idxmin(), "met"].tolist()
        refused = 1 - np.sum(made) / possible
        found.append({"declared": declared, "options": len(made), "met": np.mean(made), "refused": refused})
    return pd.DataFrame(found)


def percents(table: pd.DataFrame) -> pd.DataFrame:
    """Shares in per cent."""
    shares = table.columns.drop("options")
    return table.assign(**(100 * table[shares]).round(2)).set_index("declared")


if __name__ == "__main__":
    main()
