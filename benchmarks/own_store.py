"""How well cells of a store that labbench measured itself are predicted: families never seen, or seen elsewhere, other batch sizes.

Operators of the zoo's models are traced; made networks in the store (``labbench run --model made-0 ...``) are learnt from and not
scored. STORE is what such commands leave on one machine, as idle as can be::

    labbench run --store STORE --protocol quick --profile --runtime eager onnxruntime openvino --batch-size 1 8 --model ...
    labbench run --store STORE --protocol quick --profile --mode training --batch-size 1 4 16 --model ...
    python benchmarks/own_store.py STORE
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from labbench.prediction import PredictionConfig, Predictor, ZooGraphs
from labbench.prediction.features import MADE, MEMORY
from labbench.prediction.predictor import learnt_from
from labbench.prediction.profiled import PROFILE
from labbench.prediction.splits import folds
from labbench.store import Store

LEVEL = 0.9
KNOWN_BATCHES = {"inference": (1, 8), "training": (1, 4)}
PLACE = ["runtime", "mode"]
WORKLOAD = ["model", "mode", "series", "platform", "precision", "seq_len", "image_size", "frames", "audio_s"]


def predicted(predictor: Predictor, rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with point and interval of latency and the point of memory."""
    everywhere = np.ones(len(rows), bool)
    found = predictor.quantities["latency_s"].predict(rows, everywhere, LEVEL)
    out = rows.assign(**{name: found[name] for name in ("point", "low", "high", "law")})
    held = (rows[MEMORY].notna() & rows["primary"].astype(bool)).to_numpy()
    if MEMORY in predictor.quantities and held.any():
        memory = predictor.quantities[MEMORY].predict(rows[held], everywhere[held], LEVEL)
        out.loc[held, "memory"] = memory["point"]
    return out


def summary(error: pd.Series, limit: float) -> pd.DataFrame:
    """Errors in % by what ``error`` is indexed by, and of all."""
    told = {**dict(iter(error.groupby(level=list(range(error.index.nlevels))))), ("all", ""): error}
    columns = {f"within {limit:.0%}": lambda one: 100 * (one <= limit).mean(), "MAPE": lambda one: 100 * one.mean()}
    columns |= {"median": lambda one: 100 * one.median(), "cells": len}
    return pd.DataFrame(
        {" ".join(map(str, key)): {name: of(one) for name, of in columns.items()} for key, one in told.items()}
    ).T.round(1)


def left_out(
    held_out: list[np.ndarray],
    what: str,
    table: pd.DataFrame,
    ceilings: dict,
    graphs: ZooGraphs | None,
    config: PredictionConfig,
) -> pd.DataFrame:
    """Predictions of rows by a predictor that saw all but those, and nothing measured on a machine too noisy."""
    parts = []
    quiet = ~table["noise"].isin(config.ignore)
    for test in tqdm(held_out, what, smoothing=0):
        seen = table[quiet & ~table.index.isin(test)].reset_index(drop=True)
        predictor = Predictor(config).fit_rows(seen, ceilings, graphs)
        parts.append(predicted(predictor, table.iloc[test].reset_index(drop=True)))
    return pd.concat(parts, ignore_index=True)


def unseen_families(
    table: pd.DataFrame, ceilings: dict, graphs: ZooGraphs | None, config: PredictionConfig
) -> pd.DataFrame:
    """Predictions of every row by a predictor that never saw its family."""
    held_out = [test for _, test in folds("family", table, {}, config)]
    return left_out(held_out, "families", table, ceilings, graphs, config)


def other_places(
    table: pd.DataFrame, ceilings: dict, graphs: ZooGraphs | None, config: PredictionConfig
) -> pd.DataFrame:
    """Predictions of every row by a predictor that saw its family elsewhere, but not with this runtime in this mode."""
    places = table[PLACE].astype(str).agg(" ".join, axis=1).to_numpy()
    held_out = [
        test[places[test] == one] for _, test in folds("family", table, {}, config) for one in np.unique(places)
    ]
    return left_out([test for test in held_out if len(test)], "families and runtimes", table, ceilings, graphs, config)


def other_batches(
    table: pd.DataFrame, ceilings: dict, graphs: ZooGraphs | None, config: PredictionConfig
) -> pd.DataFrame:
    """Predictions at other batch sizes than two, of workloads that were measured at both."""
    known = [batch in KNOWN_BATCHES[mode] for batch, mode in zip(table["batch_size"], table["mode"], strict=True)]
    table = table.assign(known=known)
    of_workload = table.groupby(WORKLOAD, dropna=False, observed=True)
    both = of_workload["known"].transform("sum").to_numpy() >= 2
    test = both & ~table["known"].to_numpy() & (table["family"] != MADE).to_numpy()
    train, asked = table[~test].reset_index(drop=True), table[test].reset_index(drop=True)
    return predicted(Predictor(config).fit_rows(train, ceilings, graphs), asked) if len(asked) else asked


def repeated(frame: pd.DataFrame, other: pd.DataFrame) -> pd.Series:
    """Relative difference of what both measured: no prediction can be expected to do better than the machine repeats itself."""
    same = [*WORKLOAD, "batch_size"]
    columns = [*same, "latency_s"]
    texts = dict.fromkeys(same, "str")
    first, second = (one.loc[one["latency_s"].notna(), columns].astype(texts) for one in (frame, other))
    both = first.merge(second, on=same, suffixes=("", "_then"))
    return (both["latency_s_then"] / both["latency_s"] - 1).abs().set_axis([both["platform"], both["mode"]])


def report(what: str, found: pd.DataFrame) -> None:
    """Print errors of latency, its intervals, and errors of memory."""
    place = [found[name].astype(str) for name in PLACE]
    for how, column in {"": "point", ", the law alone": "law"}.items():
        error = (found[column] / found["latency_s"] - 1).abs().set_axis(place)
        print(f"\n{what}, latency{how}, %\n{summary(error, 0.15)}")
    inside = found["latency_s"].between(found["low"], found["high"]).mean()
    width = ((found["high"] - found["low"]) / found["point"]).median()
    print(f"intervals of {LEVEL:.0%} hold {inside:.1%}, median width {width:.0%}")
    held = found[found["memory"].notna()] if "memory" in found else found[:0]
    place = [held[name].astype(str) for name in PLACE]
    if len(held):
        off = (held["memory"] - held[MEMORY]).abs()
        for name, whole in {"above an empty worker": MEMORY, "of the process": "peak_memory_bytes"}.items():
            print(f"\n{what}, peak memory {name}, %\n{summary((off / held[whole]).set_axis(place), 0.1)}", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path, nargs="+")
    parser.add_argument(
        "--any-noise", action="store_true", help="learn from, and score, what was measured on a busy machine, too"
    )
    parser.add_argument("--no-profiles", action="store_true", help="do not learn from the profiles of calls")
    parser.add_argument(
        "--against", type=Path, help="a store of the same machine: how well does it repeat itself? Only that"
    )
    options = parser.parse_args()
    if options.against:
        measured = pd.concat(
            [Store(path).latest().astype({"noise": object}) for path in options.store], ignore_index=True
        )
        print(f"measured again, latency, %\n{summary(repeated(measured, Store(options.against).latest()), 0.15)}")
        return
    config = PredictionConfig(ignore=[]) if options.any_noise else PredictionConfig()
    stores = [Store(path) for path in options.store]
    frames = [store.latest().astype({"noise": object}) for store in stores]
    environments = {name: one for store in stores for name, one in store.environments().items()}
    graphs = ZooGraphs()
    table, ceilings = learnt_from(pd.concat(frames, ignore_index=True), environments, config, graphs)
    if options.no_profiles:
        table = table.drop(columns=[name for name in table if name.startswith(PROFILE)])
    print(
        f"{len(table)} series of {table['model'].nunique()} models, {(table['family'] == MADE).sum()} of made networks"
    )
    report("unseen family", unseen_families(table, ceilings, graphs, config))
    report("family seen with other runtimes", other_places(table, ceilings, graphs, config))
    scaled = other_batches(table, ceilings, graphs, config)
    if len(scaled):
        place = [scaled[name].astype(str) for name in PLACE]
        error = (scaled["point"] / scaled["latency_s"] - 1).abs().set_axis(place)
        print(f"\nother batch sizes than {KNOWN_BATCHES}, latency, %\n{summary(error, 0.1)}")
        if "memory" in scaled:
            error = (scaled["memory"] / scaled[MEMORY] - 1).abs().set_axis(place).dropna()
            print(f"\nother batch sizes, peak memory above an empty worker, %\n{summary(error, 0.1)}")


if __name__ == "__main__":
    main()
