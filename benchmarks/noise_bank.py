"""Record this machine's real noise: the same cell measured twice at the same time, in interleaved rounds, over and over.

Each draw is one worker process of a cell and one of its twin (the same cell under another name), by the default protocol. The
true ratio of the two is exactly 1, whatever the machine did meanwhile, so a bank of draws is what the simulations of
``verdicts.py`` take their process effects, drift and spikes from.

    python benchmarks/noise_bank.py BANK.parquet [--draws 30] [--models bert-tiny vit-tiny ...]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from tqdm import tqdm

MODELS = ("bert-tiny", "gpt2-tiny", "vit-tiny", "resnet-tiny", "clip-tiny", "wav2vec2-tiny")


def twin(cell: object) -> object:
    """The same cell under another id: a task name is all that differs, and it does not change what runs."""
    work = cell.workload.model_copy(update={"task": "the same again"})  # type: ignore[attr-defined]
    return cell.model_copy(update={"workload": work})  # type: ignore[attr-defined]


def draw(model: str, protocol: str) -> pd.DataFrame:
    """One process of a cell and one of its twin: ``side``, ``noise``, ``round``, ``seconds``, of the primary series."""
    from labbench import zoo
    from labbench.cells import Cell
    from labbench.measure import group
    from labbench.measure.protocol import preset

    cell = Cell.of(model=model, threads=1)
    cell = cell.model_copy(update={"workload": zoo.resolve(cell.workload)})
    found = list(group.measure([cell, twin(cell)], preset(protocol, processes=1), threads=1))
    if bad := [record for record in found if record.status != "ok"]:
        raise SystemExit(str(bad[0]))
    found.sort(key=lambda record: record.cell.workload.task != cell.workload.task)
    parts = []
    for side, record in enumerate(found):
        samples = record.series[0].samples
        parts.append(pd.DataFrame({"side": side, "round": samples.round, "seconds": samples.seconds}))
        parts[-1]["noise"] = record.noise.verdict if record.noise else None
    return pd.concat(parts)


def judged(bank: pd.DataFrame) -> pd.DataFrame:
    """The draws that labbench would compare with those of another time: the machine was unstable during neither side."""
    unstable = (bank["noise"] == "unstable").groupby([bank["model"], bank["draw"]]).transform("any")
    draws = bank[["model", "draw"]].drop_duplicates()
    left = bank.loc[unstable, ["model", "draw"]].drop_duplicates()
    print(f"{len(left)} of {len(draws)} draws were taken while the machine was unstable and are left out")
    return bank[~unstable]


def main() -> None:
    """Record a bank; it is written anew after each draw of all models."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bank", type=Path)
    parser.add_argument("--draws", type=int, default=30, help="of each model")
    parser.add_argument("--protocol", default="standard", help="quick, standard or thorough")
    parser.add_argument("--models", nargs="+", default=MODELS)
    options = parser.parse_args()
    parts: list[pd.DataFrame] = []
    for number in tqdm(range(options.draws), "draws", smoothing=0):
        for model in options.models:
            started = pd.Timestamp.now(tz="UTC")
            taken = draw(model, options.protocol)
            parts.append(taken.assign(model=model, draw=number, started_at=started))
        pd.concat(parts, ignore_index=True).to_parquet(options.bank)
    print(f"{options.bank}: {len(parts)} draws, {sum(map(len, parts))} samples")


if __name__ == "__main__":
    main()
