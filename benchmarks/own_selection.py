"""What runtime, precision and batch picked by prediction give away, of models and families that the predictor never saw.

STORE is what ``labbench run`` leaves on one machine, as idle as can be; made networks in it are learnt from and not asked about::

    labbench run --config benchmarks/own_selection.json --store STORE
    python benchmarks/own_selection.py STORE

``own_selection_others.json`` asks the same about fifteen other models.

A pick is the option of the least predicted time an item (throughput) or a call of batch 1 (latency); what it gives away is told by
what the options then measured. Learnt from is what was measured on a machine quiet enough, asked about is every option that ran.
Beside it the best choice that is the same for all models, which the answers tell, and eager in fp32.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from own_store import unseen_families

from labbench.prediction import PredictionConfig, ZooGraphs
from labbench.prediction.features import MADE
from labbench.prediction.predictor import learnt_from
from labbench.prediction.regret import regret
from labbench.store import Store

NEAR = 0.05
OPTION = ["platform", "precision", "batch_size"]
PLAIN = ("cpu/eager", "fp32", 1)
WAYS = {"picked by prediction": "predicted", "the same for all models": "fixed", "eager fp32, batch 1": "plain"}


def asked_for(found: pd.DataFrame) -> pd.DataFrame:
    """Primary series of models, with seconds of an item as measured, as predicted, and as two fixed rankings promise."""
    rows = found[found["primary"].astype(bool) & (found["family"] != MADE)].reset_index(drop=True)
    items = rows["items_per_call"].to_numpy(float)
    rows = rows.assign(measured=rows["latency_s"] / items, predicted=rows["point"] / items)
    options = list(rows[OPTION].astype({"platform": str, "precision": str}).itertuples(index=False, name=None))
    worse = np.log(rows["measured"] / rows.groupby("model", observed=True)["measured"].transform("min"))
    # mean loss of an option over models, and twice the worst where it does not run
    ran = pd.DataFrame({"model": rows["model"].astype(str), "option": options, "worse": worse}).pivot_table(
        index="model", columns="option", values="worse"
    )
    fixed = ran.fillna(2 * worse.max()).mean()
    return rows.assign(fixed=fixed.loc[options].to_numpy(), plain=[float(one != PLAIN) for one in options])


def given_away(rows: pd.DataFrame) -> pd.DataFrame:
    """Regret of each way in %, over models, and how many picks are the best or near it."""
    told = {}
    for way, column in WAYS.items():
        lost = regret(rows["measured"].to_numpy(), rows[column].to_numpy(), rows["model"].astype(str).to_numpy())
        told[way] = {
            "models": len(lost), f"within {NEAR:.0%}": int((lost["regret"] <= NEAR).sum()),
            "mean %": 100 * lost["regret"].mean(), "worst %": 100 * lost["regret"].max(),
        }  # fmt: skip
    return pd.DataFrame(told).T.round(1)


def picks(rows: pd.DataFrame) -> pd.DataFrame:
    """Model by model: what was picked, what was best, and what that gave away."""
    told = []
    for model, group in rows.groupby("model", observed=True):
        chosen, best = (group.loc[group[column].idxmin()] for column in ("predicted", "measured"))
        name = [" ".join(map(str, one[OPTION])) for one in (chosen, best)]
        away = 100 * (1 - best["measured"] / chosen["measured"])
        told.append({"model": model, "options": len(group), "picked": name[0], "best": name[1], "given away %": away})
    return pd.DataFrame(told).round(1)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("--graphs", action="store_true", help="models are traced, operator by operator")
    options = parser.parse_args()
    store = Store(options.store)
    graphs = ZooGraphs() if options.graphs else None
    table, ceilings = learnt_from(store.latest(), store.environments(), PredictionConfig(ignore=[]), graphs)
    rows = asked_for(unseen_families(table, ceilings, graphs, PredictionConfig()))
    for aim, asked in (("throughput", rows), ("latency", rows[rows["batch_size"] == 1])):
        print(
            f"\n{aim}: {len(asked)} options\n{given_away(asked).to_string()}\n\n{picks(asked).to_string(index=False)}"
        )


if __name__ == "__main__":
    main()
