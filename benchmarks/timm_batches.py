"""How well the largest batch is foretold, from timm's results: its batches shrink rung by rung where they did not run.

FOLDER holds timm's ``benchmark-*.csv``, GRAPHS is what ``timm_graphs.py`` wrote of it. Of a row whose batch is below the first one
of its configuration (the largest in it) the next rung is known to have failed; errors are of these rows, unless it says *all*.

- *exact*, *within one*: share of rows whose most probable rung is the true one, or next to it; *over*: above it;
- *median error*: of the batch size, against the geometric middle of the two rungs;
- *safe holds*: how often the batch that should fit with 90 % does; *given away*: rungs from it to the largest that does, the mean;
- baselines: the counted peak of tensors times a factor for each configuration, the bytes that all operators move times a factor,
  and the nearest model of the configuration by counted peak and traffic;
- *unseen device*: learnt from all others; the one way from model to rung is its datasheet's memory. Two devices of the same memory
  disagree in so many rows that are common: *the ceiling*.

    python benchmarks/timm_batches.py FOLDER GRAPHS.parquet --seeds 5
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from timm_models import imported, learnt

from labbench.machine.datasheet import datasheet
from labbench.prediction import Graphs, PredictionConfig
from labbench.prediction.batch_limits import BatchLimits, demands, ladder
from labbench.prediction.residual import folds_by_group

FOLDS = 5
SAFE = 0.9
GIB_PER_GB = 2**30 / 1e9  # makers' gigabytes of memory are of two to the thirtieth
SETTINGS = ["framework", "platform", "precision"]


def searches(folder: Path, graphs: Graphs, mode: str) -> pd.DataFrame:
    """Rows whose operators are known, on devices whose memory is known, with the rung that failed, if any."""
    frame, environments = imported(folder)
    table, _ = learnt(frame[frame["mode"] == mode], environments, graphs, PredictionConfig())
    table["configuration"] = table[["device_name", *SETTINGS]].astype("str").agg(" ".join, axis=1)
    sheets = {name: datasheet(str(name)) for name in table["device_name"].unique()}
    memory = {name: sheet.memory_bytes * GIB_PER_GB for name, sheet in sheets.items() if sheet and sheet.memory_bytes}
    for name in sorted(set(sheets) - set(memory)):
        print(f"{name}: no datasheet tells its memory, left out")
    table = table[table["device_name"].isin(memory)].reset_index(drop=True)
    first = table.groupby("configuration")["batch_size"].transform("max")
    rungs = ladder(int(first.max()))
    above = rungs[np.minimum(np.searchsorted(rungs, table["batch_size"], side="right"), len(rungs) - 1)]
    fails_at = np.where(table["batch_size"] < first, above, np.nan)
    print(f"{len(table)} results of {table['model'].nunique()} architectures, {int((fails_at > 0).sum())} ran out")
    return table.assign(first=first, fails_at=fails_at, memory=table["device_name"].map(memory).astype(float))


def foretold(limits: BatchLimits, asked: pd.DataFrame) -> pd.DataFrame:
    """``rung`` and ``safe`` as places on the ladder, and ``batch_size``."""
    rungs = ladder(int(asked["first"].max()))
    chance = limits.rungs(asked, asked["memory"].to_numpy(), rungs)
    # Rungs above the first one were not tried: their chances are the first one's.
    start = np.searchsorted(rungs, asked["first"].to_numpy())
    place = np.arange(len(rungs))
    beyond = np.where(place > start[:, None], chance, 0.0).sum(axis=1)
    chance = np.where(place > start[:, None], 0.0, chance)
    chance[np.arange(len(asked)), start] += beyond
    answer = limits.predict(asked, asked["memory"].to_numpy(), SAFE)
    safe = np.searchsorted(rungs, answer["safe"], side="right") - 1
    return pd.DataFrame(
        {"rung": chance.argmax(axis=1), "safe": np.minimum(safe, start), "batch": answer["batch_size"]},
        index=asked.index,
    )


def baselines(train: pd.DataFrame, asked: pd.DataFrame, graphs: Graphs) -> Iterator[tuple[str, np.ndarray]]:
    """Name and batch size of each row by plain means; learnt from rows that ran out."""
    train = train[train["fails_at"].notna()]
    (mine, near), (asks, far) = ((demands(rows, graphs), rows) for rows in (train, asked))
    middle = np.log(near["batch_size"] * near["fails_at"]) / 2 - np.log(near["memory"])
    for name, per in (("counted peak x factor", lambda needs: needs["log each"]), ("moved bytes x factor", _moved)):
        factor = (middle + per(mine)).groupby(near["configuration"]).median()
        factor = far["configuration"].map(factor).fillna((middle + per(mine)).median())
        yield name, np.exp(factor - per(asks) + np.log(far["memory"])).to_numpy()
    from scipy.spatial import KDTree

    out = np.full(len(far), np.nan)
    for configuration, rows in far.groupby("configuration"):
        there = (near["configuration"] == configuration).to_numpy()
        there = there if there.any() else np.ones(len(near), bool)
        place = KDTree(mine.loc[there, ["log each", "passes"]].to_numpy())
        closest = place.query(asks.loc[rows.index, ["log each", "passes"]].to_numpy())[1]
        out[far.index.get_indexer(rows.index)] = np.exp(middle[there].to_numpy()[closest] + np.log(rows["memory"]))
    yield "nearest model", out


def _moved(needs: pd.DataFrame) -> pd.Series:
    return needs["log each"] + needs["passes"]


def errors(table: pd.DataFrame, found: pd.DataFrame) -> pd.DataFrame:
    """Of each row that was asked."""
    rows = table.loc[found.index]
    rungs = ladder(int(table["first"].max()))
    true = np.searchsorted(rungs, rows["batch_size"])
    off = found["rung"] - true
    middle = np.sqrt(rows["batch_size"] * rows["fails_at"])
    return pd.DataFrame(
        {
            "ran out": rows["fails_at"].notna(),
            "exact": off == 0,
            "within one": off.abs() <= 1,
            "over": off > 0,
            "error": (np.maximum(found["batch"], 1) / middle - 1).abs(),
            "safe holds": found["safe"] <= true if "safe" in found else np.nan,
            "given away": true - found["safe"] if "safe" in found else np.nan,
        }
    ).assign(configuration=rows["configuration"], device=rows["device_name"].astype("str"))


def on_ladder(batch: np.ndarray, rows: pd.DataFrame) -> pd.DataFrame:
    """A baseline's batch sizes as an answer."""
    rungs = ladder(int(rows["first"].max()))
    rung = np.searchsorted(rungs, np.minimum(batch, rows["first"]), side="right") - 1
    return pd.DataFrame({"rung": np.maximum(rung, 0), "batch": batch}, index=rows.index)


def folds_of(table: pd.DataFrame, split: str, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows to learn from and rows asked about."""
    if split == "device":
        for name in sorted(table["device_name"].astype("str").unique()):
            there = (table["device_name"] == name).to_numpy()
            if len(set(table.loc[~there, "device_name"])) and table.loc[~there, "fails_at"].notna().any():
                yield np.flatnonzero(~there), np.flatnonzero(there)
        return
    column = "architecture" if split in ("architecture", "device and architecture") else "group"
    folds = list(folds_by_group(table[column].to_numpy(str), FOLDS, seed))
    if split == "device and architecture":
        for train, test in folds:
            for others, there in folds_of(table, "device", seed):
                yield np.intersect1d(train, others), np.intersect1d(test, there)
        return
    yield from folds


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("graphs", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--mode", default="inference", choices=("inference", "training"))
    splits = ("architecture", "family", "device", "device and architecture")
    parser.add_argument("--split", nargs="+", choices=splits, default=splits)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    graphs = Graphs.read(options.graphs)
    table = searches(options.folder, graphs, options.mode)
    if table["device_name"].nunique() > 1:
        print(f"the ceiling: same model, settings and memory on another device, same rung: {agreement(table):.1%}")
    for split in options.split:
        answers: list[pd.DataFrame] = []
        for seed in range(options.seeds):
            for train, test in folds_of(table, split, seed):
                seen, asked = table.iloc[train], table.iloc[test]
                if seen["fails_at"].notna().sum() == 0:
                    continue
                limits = BatchLimits.fit(seen, seen["memory"].to_numpy(), graphs, PredictionConfig(seed=seed))
                answers.append(errors(table, foretold(limits, asked)).assign(method="labbench"))
                answers += [
                    errors(table, on_ladder(batch, asked)).assign(method=name)
                    for name, batch in baselines(seen, asked, graphs)
                ]
        if not answers:
            print(f"\nunseen {split}: only one device ran out of memory")
            continue
        show(pd.concat(answers), split, options.seeds)


def agreement(table: pd.DataFrame) -> float:
    """Share of searches that ran out which end on the same rung on another device of the same memory."""
    ran = table[table["fails_at"].notna()]
    both = ran.merge(ran, on=["model", "image_size", "memory", *SETTINGS], suffixes=("", "_other"))
    both = both[both["device_name"].astype("str") < both["device_name_other"].astype("str")]
    return float((both["batch_size"] == both["batch_size_other"]).mean())


def show(found: pd.DataFrame, split: str, seeds: int) -> None:
    """Means in per cent."""
    ran = found[found["ran out"]]

    def means(part: pd.DataFrame, by: str) -> pd.DataFrame:
        groups = part.groupby(by, sort=False)
        out = 100 * groups[["exact", "within one", "over", "safe holds"]].mean()
        return out.assign(
            **{
                "given away": groups["given away"].mean(),
                "median error": 100 * groups["error"].median(),
                "rows": groups.size(),
            }
        ).round(1)

    print(f"\nunseen {split}, {seeds} seeds, in % of the rows that ran out:\n{means(ran, 'method').to_string()}")
    everything = 100 * found[found["method"] == "labbench"][["exact", "within one", "safe holds"]].mean()
    print(f"all rows: {everything.round(1).to_dict()}")
    print(means(ran[ran["method"] == "labbench"], "configuration").to_string(), flush=True)


if __name__ == "__main__":
    main()
