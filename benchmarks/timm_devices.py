"""timm's results on a device that was left out, without and with a few probes; configurations seen on another device only.

FOLDER holds timm's ``benchmark-*.csv``, GRAPHS is what ``timm_graphs.py`` wrote of it. A share of the operator graphs
(architectures with the same operators are one), another one for each seed, is never seen anywhere.

- *new device*: every row of a device is left out; of each of its configurations alone k cells of known graphs are then measured
  (chosen by integrated variance, or at random: mean of DRAWS draws) and the others predicted: *known* graphs, which other devices
  measured, and *unseen* ones. *offset* is the law shifted by the median of the same probes: the baseline.
- *seen settings*: those configurations alone whose settings (precision, layout, compiled) another device of the kind has run.
- *new configuration*: one configuration of a device is left out that another device has measured in the same version; graphs are
  known. The baseline copies the change seen on the other device from the own configuration that is best, told by the answer.

Intervals in brackets: 95 %, from a bootstrap over graphs of the mean over seeds.

    python benchmarks/timm_devices.py FOLDER GRAPHS.parquet --seeds 5
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from timm_models import results

from labbench.prediction import Graphs, PredictionConfig
from labbench.prediction.adaptation import Traits
from labbench.prediction.elsewhere import Cells, Elsewhere, levels
from labbench.prediction.errors import mean_interval
from labbench.prediction.features import Ceilings, Device
from labbench.prediction.operator_law import OperatorFeatures, OperatorLaw

PROBES = (0, 1, 3, 5, 10, 20)
UNSEEN = 0.15  # of the graphs: never seen
POOL = 250  # known graphs that probes are taken from and that are scored; as many unseen ones are scored
DRAWS = 3
LEVEL = 0.9
PARTS = ("device", "configuration")


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
    graphs, seeds = Graphs.read(options.graphs), range(options.seeds)
    data = Data(*read(options.folder, graphs), graphs)
    if "device" in options.part:
        devices = options.device or sorted(data.table["device_name"].unique())
        runs = [(seed, device) for seed in seeds for device in devices]
        print_devices(
            pd.concat(part.assign(seed=seed) for seed, device in runs for part in new_device(data, device, seed))
        )
    if "configuration" in options.part:
        hidden = [part.assign(seed=seed) for seed in seeds for part in new_configuration(data, seed)]
        print_configurations(pd.concat(hidden)) if hidden else print("no configuration was measured on two devices")


@dataclass(frozen=True)
class Data:
    """Prepared rows, each with its labels, ceilings of the devices, and operators."""

    table: pd.DataFrame
    ceilings: dict[Device, Ceilings]
    graphs: Graphs

    def fit(self, rows: np.ndarray, seed: int) -> Fitted:
        """The product's law, and what it leaves over, of some rows."""
        train = self.table[rows]
        form = OperatorLaw.of(train, self.graphs, self.ceilings, PredictionConfig().noise)
        design, measured = form.design(train), train["latency_s"].to_numpy(float)
        law, features = form.fit(design, measured), form.features(train)
        learnt = Cells.of(train, features.table(train), law.parts(design, elsewhere=True), features)
        none = learnt.take(np.zeros(0, int))
        return Fitted(self.table, law, features, Elsewhere.of(learnt, measured, none, np.empty(0), seed))


@dataclass(frozen=True)
class Fitted:
    """The law of configurations like those asked about, and the process of what it leaves over."""

    table: pd.DataFrame
    law: OperatorLaw
    features: OperatorFeatures
    elsewhere: Elsewhere

    def look(self, rows: np.ndarray) -> tuple[Traits, np.ndarray]:
        """Traits of some rows and ``log(measured / law)``."""
        asked = self.table.iloc[rows]
        parts = self.law.parts(self.law.design(asked), elsewhere=True)
        cells = Cells.of(asked, self.features.table(asked), parts, self.features)
        return self.elsewhere.traits(cells), np.log(asked["latency_s"].to_numpy(float) / cells.law)


def read(folder: Path, graphs: Graphs) -> tuple[pd.DataFrame, dict[Device, Ceilings]]:
    """Results of inference, with labels of what they have in common, and the ceilings of their devices."""
    table, ceilings = results(folder, graphs, "inference", PredictionConfig())
    labels = levels(table)
    names = ("device_name", "framework", "platform", "precision", "mode")
    table = table.assign(
        kind=labels["kind"],
        settings=labels["settings"],
        version=labels["version"],
        configuration=table[list(names)].astype("str").agg(" ".join, axis=1),
        graph=table["architecture"],
    )
    return table, ceilings


def place(table: pd.DataFrame, seed: int) -> np.ndarray:
    """A random number from 0 to 1 for each row's graph."""
    names = np.unique(table["graph"])
    drawn = dict(zip(names, np.random.default_rng(seed).permutation(len(names)) / len(names), strict=True))
    return table["graph"].map(drawn).to_numpy(float)


def new_device(data: Data, device: str, seed: int) -> Iterator[pd.DataFrame]:
    """Errors of each configuration of a device that was left out: a row a cell, probes and way of choosing them."""
    table, where = data.table, place(data.table, seed)
    there, known = (table["device_name"] == device).to_numpy(), where > UNSEEN
    fitted = data.fit(~there & known, seed)
    rng = np.random.default_rng(seed)
    pooled = np.isin(where, rng.permutation(np.unique(where[known]))[:POOL])
    seen = set(table.loc[~there, "settings"])
    for configuration, rows in table[there].groupby("configuration"):
        pool = rows.index[pooled[rows.index]].to_numpy()
        asked = np.concatenate([pool, rng.permutation(rows.index[~known[rows.index]])[:POOL]])
        model, others = fitted.elsewhere.process(*rows[["kind", "settings"]].iloc[0])
        traits, left_over = fitted.look(asked)
        chosen = model.choose(traits.take(slice(len(pool))), count=max(PROBES))[0]
        ways = {
            "chosen": [np.array(chosen)],
            "random": [rng.permutation(len(pool))[: max(PROBES)] for _ in range(DRAWS)],
        }
        for way, orders in ways.items():
            for count in PROBES:
                for draw, order in enumerate(orders[: 1 if count == 0 else None]):
                    probes = order[:count]
                    adapted = model.learn(traits.take(probes), left_over[probes])
                    test = np.setdiff1d(np.arange(len(asked)), probes)
                    found, truth = adapted.predict(traits.take(test), others), left_over[test]
                    offset = np.median(left_over[probes]) if count else 0.0
                    yield pd.DataFrame(
                        {
                            "device": device,
                            "configuration": configuration,
                            "seen": rows["settings"].iloc[0] in seen,
                            "way": way,
                            "probes": count,
                            "draw": draw,
                            "graph": table["graph"].to_numpy()[asked[test]],
                            "known": known[asked[test]],
                            "error": np.abs(np.expm1(found.mean - truth)),
                            "offset": np.abs(np.expm1(offset - truth)),
                            "inside": np.abs(found.mean - truth) <= found.reach(LEVEL),
                            "width": 2 * np.sinh(found.reach(LEVEL)),
                        }
                    )


def new_configuration(data: Data, seed: int) -> Iterator[pd.DataFrame]:
    """Errors of configurations that another device measured and this one did not, beside copies of the change seen there."""
    table, where = data.table, place(data.table, seed)
    at = table["model"].astype("str") + " " + table["image_size"].astype("str")
    seconds = np.log(table["latency_s"] / table["batch_size"])
    wide = pd.DataFrame({"at": at, "configuration": table["configuration"], "seconds": seconds}).pivot_table(
        index="at", columns="configuration", values="seconds"
    )
    pool = np.isin(where, np.random.default_rng(seed).permutation(np.unique(where))[:POOL])
    of = table.drop_duplicates("configuration").set_index("configuration")
    for name, one in of.iterrows():
        own = of[(of["device_name"] == one["device_name"]) & (of.index != name)]
        elsewhere = of[(of["device_name"] != one["device_name"]) & (of["version"] == one["version"])]
        if own.empty or elsewhere.empty:
            continue
        hidden = (table["configuration"] == name).to_numpy()
        fitted = data.fit(~hidden, seed)
        test = np.flatnonzero(pool & hidden)
        traits, left_over = fitted.look(test)
        model, others = fitted.elsewhere.process(one["kind"], one["settings"])
        found = model.predict(traits, others)
        copies = []
        for other in elsewhere.itertuples():
            there = of[(of["device_name"] == other.device_name) & (of.index != other.Index)]
            pairs = [(mine, its) for mine in own.index for its in there.index]
            pairs = [(mine, its) for mine, its in pairs if of.at[mine, "settings"] == of.at[its, "settings"]]
            copies += [wide[mine] + wide[other.Index] - wide[its] - wide[name] for mine, its in pairs]
        best = min((np.abs(np.expm1(copy)) for copy in copies), key=lambda error: error.mean(), default=None)
        yield pd.DataFrame(
            {
                "configuration": name,
                "graph": table["graph"].to_numpy()[test],
                "error": np.abs(np.expm1(found.mean - left_over)),
                "copied": np.nan if best is None else best.reindex(at.to_numpy()[test]).to_numpy(),
                "inside": np.abs(found.mean - left_over) <= found.reach(LEVEL),
            }
        )


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


if __name__ == "__main__":
    main()
