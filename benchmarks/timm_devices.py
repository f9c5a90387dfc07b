"""timm's results on a device that was left out, without and with a few probes; configurations seen on another device only.

FOLDER holds timm's ``benchmark-*.csv``, GRAPHS is what ``timm_graphs.py`` wrote of it. A share of the operator graphs
(architectures with the same operators are one), another one for each seed, is never seen anywhere.

- *new device*: every row of a device is left out; of each of its configurations alone k cells of known graphs are then measured
  (chosen by integrated variance, or at random: mean of DRAWS draws) and the others predicted: *known* graphs, which other devices
  measured, and *unseen* ones. *offset* is the law shifted by the median of the same probes: the baseline.
- *seen settings*: those configurations alone whose settings (precision, layout, compiled) another device of the kind has run.
- *new configuration*: one configuration of a device is left out that another device has measured in the same version; graphs are
  known. The baseline copies the change seen on the other device from the own configuration that is best, told by the answer.
- *training step*: configurations of training on families left out, without and with the same model's inference measured.

Intervals in brackets: 95 %, from a bootstrap over graphs (training: families) of the mean over seeds.

    python benchmarks/timm_devices.py FOLDER GRAPHS.parquet --seeds 5
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from timm_law import Graphs, fit, read

from labbench.prediction.adaptation import Adaptation
from labbench.prediction.errors import mean_interval

PROBES = (0, 1, 3, 5, 10, 20)
UNSEEN, LAW_SHARE = 0.15, 0.5  # of the graphs: never seen; that the law is fitted to (it has few coefficients)
POOL = 250  # known graphs that probes are taken from and that are scored; as many unseen ones are scored
DRAWS = 3
LEARNT = 1500  # cells of other devices
ENOUGH = 2500  # cells, where nothing is adapted
LEVEL = 0.9
DEPARTING = ("device", "settings")
FOLDS = 5
PARTS = ("device", "configuration", "training")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("graphs", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--device", nargs="+", help="leave out only these devices")
    parser.add_argument("--part", nargs="+", choices=PARTS, default=PARTS, help="only these tables")
    options = parser.parse_args()
    pd.set_option("display.width", 200)
    table, graphs = read(options.folder, options.graphs)
    terms = graphs.terms(table)
    seeds = range(options.seeds)
    if "device" in options.part:
        devices = options.device or sorted(table["device"].unique())
        runs = ((seed, device) for seed in seeds for device in devices)
        parts = [
            part.assign(seed=seed) for seed, device in runs for part in new_device(table, graphs, terms, device, seed)
        ]
        print_devices(pd.concat(parts))
    if "configuration" in options.part:
        hidden = [part.assign(seed=seed) for seed in seeds for part in new_configuration(table, graphs, terms, seed)]
        print_configurations(pd.concat(hidden)) if hidden else print("no configuration was measured on two devices")
    if "training" in options.part:
        steps, _ = read(options.folder, options.graphs, "training")
        print_training(pd.concat([training(table, steps, graphs, seed).assign(seed=seed) for seed in seeds]))


def place(table: pd.DataFrame, seed: int) -> np.ndarray:
    """A random number from 0 to 1 for each row's graph."""
    names = np.unique(table["graph"])
    drawn = dict(zip(names, np.random.default_rng(seed).permutation(len(names)) / len(names), strict=True))
    return table["graph"].map(drawn).to_numpy(float)


def new_device(
    table: pd.DataFrame, graphs: Graphs, terms: np.ndarray, device: str, seed: int
) -> Iterator[pd.DataFrame]:
    """Errors of each configuration of a device that was left out: a row a cell, probes and way of choosing them."""
    where, there = place(table, seed), (table["device"] == device).to_numpy()
    known = where > UNSEEN
    fitted = fit(table, graphs, terms, ~there & (where > 1 - LAW_SHARE))
    alike = (table["kind"] == table.loc[there, "kind"].iloc[0]).to_numpy()
    rng = np.random.default_rng(seed)
    pooled = np.isin(where, rng.permutation(np.unique(where[known]))[:POOL])
    learnt = rng.permutation(np.flatnonzero(known & ~there & alike))
    learnt = np.concatenate([learnt[pooled[learnt]], learnt[~pooled[learnt]]])[:LEARNT]
    model = Adaptation.fit(fitted.traits.take(learnt), fitted.left_over[learnt], DEPARTING, seed=seed)
    seen = set(table.loc[~there & alike, "settings"])
    for configuration, rows in table[there].groupby("configuration"):
        pool = rows.index[pooled[rows.index]].to_numpy()
        asked = np.concatenate([pool, rng.permutation(rows.index[~known[rows.index]])[:POOL]])
        chosen = model.choose(fitted.traits.take(pool), count=max(PROBES))[0]
        ways = {
            "chosen": [np.array(chosen)],
            "random": [rng.permutation(len(pool))[: max(PROBES)] for _ in range(DRAWS)],
        }
        for way, orders in ways.items():
            for count in PROBES:
                for draw, order in enumerate(orders[: 1 if count == 0 else None]):
                    probes = pool[order[:count]]
                    adapted = model.learn(fitted.traits.take(probes), fitted.left_over[probes])
                    test = np.setdiff1d(asked, probes)
                    found = adapted.predict(fitted.traits.take(test))
                    truth = fitted.left_over[test]
                    offset = np.median(fitted.left_over[probes]) if count else 0.0
                    yield pd.DataFrame(
                        {
                            "device": device,
                            "configuration": configuration,
                            "seen": rows["settings"].iloc[0] in seen,
                            "way": way,
                            "probes": count,
                            "draw": draw,
                            "graph": table["graph"].to_numpy()[test],
                            "known": known[test],
                            "error": np.abs(np.expm1(found.mean - truth)),
                            "offset": np.abs(np.expm1(offset - truth)),
                            "inside": np.abs(found.mean - truth) <= found.reach(LEVEL),
                            "width": 2 * np.sinh(found.reach(LEVEL)),
                        }
                    )


def new_configuration(table: pd.DataFrame, graphs: Graphs, terms: np.ndarray, seed: int) -> Iterator[pd.DataFrame]:
    """Errors of configurations that another device measured and this one did not, beside copies of the change seen there."""
    where = place(table, seed)
    wide = table.pivot_table(index="at", columns="configuration", values="seconds").apply(np.log)
    pool = np.isin(where, np.random.default_rng(seed).permutation(np.unique(where))[:POOL])
    of = table.drop_duplicates("configuration").set_index("configuration")
    for name, one in of.iterrows():
        own = of[(of["device"] == one["device"]) & (of.index != name)]
        elsewhere = of[
            (of["device"] != one["device"]) & (of["settings"] == one["settings"]) & (of["torch"] == one["torch"])
        ]
        if own.empty or elsewhere.empty:
            continue
        hidden = (table["configuration"] == name).to_numpy()
        fitted = fit(table, graphs, terms, ~hidden & (where > 1 - LAW_SHARE))
        learnt = np.flatnonzero(pool & ~hidden & (table["kind"] == one["kind"]).to_numpy())
        model = Adaptation.fit(
            fitted.traits.take(learnt), fitted.left_over[learnt], DEPARTING, max_rows=ENOUGH, seed=seed
        )
        test = np.flatnonzero(pool & hidden)
        found = model.predict(fitted.traits.take(test))
        copies = []
        for other in elsewhere.itertuples():
            there = of[(of["device"] == other.device) & (of.index != other.Index)]
            pairs = [(mine, its) for mine in own.index for its in there.index]
            pairs = [(mine, its) for mine, its in pairs if of.at[mine, "settings"] == of.at[its, "settings"]]
            copies += [wide[mine] + wide[other.Index] - wide[its] - wide[name] for mine, its in pairs]
        best = min((np.abs(np.expm1(copy)) for copy in copies), key=lambda error: error.mean(), default=None)
        yield pd.DataFrame(
            {
                "configuration": name,
                "graph": table["graph"].to_numpy()[test],
                "error": np.abs(np.expm1(found.mean - fitted.left_over[test])),
                "copied": np.nan if best is None else best.reindex(table["at"].to_numpy()[test]).to_numpy(),
                "inside": np.abs(found.mean - fitted.left_over[test]) <= found.reach(LEVEL),
            }
        )


def training(table: pd.DataFrame, steps: pd.DataFrame, graphs: Graphs, seed: int) -> pd.DataFrame:
    """Errors of a training step on families left out; inference of the same device and of all others is at hand or not."""
    names = np.unique(steps["family"])
    fold = dict(zip(np.random.default_rng(seed).permutation(names), np.arange(len(names)) % FOLDS, strict=True))
    same = table[table["device"].isin(steps["device"]) & table["graph"].isin(steps["graph"])]
    both = pd.concat([steps, same[~same["compiled"]]], ignore_index=True)
    is_step = np.arange(len(both)) < len(steps)
    terms = graphs.terms(both)
    of_fold = both["family"].map(fold).fillna(-1).to_numpy()
    parts = []
    for number in range(FOLDS):
        out = of_fold == number
        fitted = fit(both, graphs, terms, ~out)
        test = np.flatnonzero(out & is_step)
        errors = {}
        for name, rows in (("without inference", ~out), ("with inference", ~(out & is_step))):
            # All steps and, of inference, what there is room for.
            learnt = np.flatnonzero(rows & is_step)
            other = np.random.default_rng(seed).permutation(np.flatnonzero(rows & ~is_step & (both["torch"] < "2.2")))
            wanted = np.isin(both["graph"].to_numpy()[other], both["graph"].to_numpy()[test])
            other = np.concatenate([other[wanted], other[~wanted]])[: ENOUGH - len(learnt)]
            learnt = np.concatenate([learnt, other])
            model = Adaptation.fit(fitted.traits.take(learnt), fitted.left_over[learnt], DEPARTING, seed=seed)
            errors[name] = np.abs(np.expm1(model.predict(fitted.traits.take(test)).mean - fitted.left_over[test]))
        law = np.abs(np.expm1(-fitted.left_over[test]))
        parts.append(pd.DataFrame({"family": both["family"].to_numpy()[test], "law alone": law, **errors}))
    return pd.concat(parts)


def mean_of(part: pd.DataFrame, column: str, group: str = "graph") -> str:
    """Mean in per cent with its interval from resampling groups."""
    groups = part.groupby(group)[column]
    low, high = mean_interval(groups.sum().to_numpy(), groups.count().to_numpy())
    return f"{100 * part[column].mean():.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def print_devices(errors: pd.DataFrame) -> None:
    """Mean errors in per cent by device and probes, and how honest the intervals are."""
    for title, part in (("all configurations", errors), ("seen settings", errors[errors["seen"]])):
        print(f"\nnew device, {title}: mean error, % [95 % interval]")
        for known in (False, True):
            rows = part[part["known"] == known]
            shown = {
                (way, count): {device: mean_of(found, "error") for device, found in cell.groupby("device")}
                for (way, count), cell in rows.groupby(["way", "probes"])
            }
            print(f"{'models known elsewhere' if known else 'model unseen, too'}")
            print(pd.DataFrame(shown).T.to_string())
            print("offset of the same chosen probes, mean over all:")
            chosen = rows[rows["way"] == "chosen"]
            by_device = chosen.groupby(["probes", "device"])["offset"].mean().unstack()
            print((100 * by_device).round(1).to_string())
    print(f"\ncoverage of {LEVEL:.0%} intervals and their median width")
    chosen = errors[(errors["way"] == "chosen") & errors["seen"]]
    print(chosen.groupby(["known", "probes", "device"])["inside"].mean().unstack().round(3).to_string())
    print(chosen.groupby(["known", "probes", "device"])["width"].median().unstack().round(2).to_string())
    print("\nchosen probes against random ones, mean error in % of known models")
    versus = errors[errors["known"]].groupby(["device", "probes", "way"])["error"].mean().mul(100).unstack()
    print(versus.round(2).to_string())


def print_configurations(errors: pd.DataFrame) -> None:
    """Of each hidden configuration."""
    print("\nnew configuration, seen on another device: mean error, %")
    for name, part in errors.groupby("configuration"):
        copied = 100 * part["copied"].mean()
        print(
            f"{name:40} {mean_of(part, 'error'):18} median {100 * part['error'].median():.1f}, best copy {copied:.1f}, "
            f"{LEVEL:.0%} interval holds {part['inside'].mean():.2f}"
        )
    print(f"{'all':40} {mean_of(errors, 'error')}")


def print_training(errors: pd.DataFrame) -> None:
    """Of a training step."""
    print("\ntraining step, unseen family: mean error, %")
    for name in ("law alone", "without inference", "with inference"):
        print(f"{name:40} {mean_of(errors, name, 'family'):18} median {100 * errors[name].median():.1f}")


if __name__ == "__main__":
    main()
