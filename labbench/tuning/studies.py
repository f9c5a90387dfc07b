"""The searches of notebook ``08_tune_training`` as tables; those that take long are stored and go on where they stopped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from labbench.tuning import digits
from labbench.tuning.batches import batch_table, tune_batch
from labbench.tuning.largest_batch import LargestBatch, largest_batch
from labbench.tuning.search import SEARCH_SEED, Sampler, search, study, trial_table

if TYPE_CHECKING:
    import pandas as pd

    from labbench.tuning.config import TuningConfig

USUAL = "usual"
SAMPLERS: tuple[Sampler, ...] = ("tpe", "random")
JUDGED = 3  # trainings of each setting with seeds that no search saw
RANGE_BATCHES = (16, 64, 256)


def largest_batches(config: TuningConfig) -> list[LargestBatch]:
    """The largest batch of each of the configuration's cells within its memory limit."""
    from labbench.campaign import resolve

    cells = resolve(config.cells.cells())
    return [largest_batch(cell, config.memory_limit_bytes) for cell in tqdm(cells, "largest batch", leave=False)]


def batches(config: TuningConfig, largest: list[LargestBatch], store: str | Path, studies: str | Path) -> pd.DataFrame:
    """Throughput and memory over batch size of each cell up to its largest batch; ``model``, ``unit`` and :func:`batch_table`."""
    import pandas as pd

    tables = []
    for one in tqdm([one for one in largest if one.batch_size], "batch sizes", leave=False):
        ran = tune_batch(one.cell, store, studies, largest=one.batch_size, trials=config.batch_trials)
        tables.append(batch_table(ran).assign(model=one.cell.workload.model))
    return pd.concat(tables, ignore_index=True) if tables else batch_table([]).assign(model="")


def range_tests(config: TuningConfig) -> pd.DataFrame:
    """LR range tests of the digits at a few batch sizes: ``batch_size``, ``learning_rate``, ``loss``, ``suggested``."""
    import pandas as pd

    tables = []
    for size in RANGE_BATCHES:
        found = digits.range_test(size, SEARCH_SEED)
        table = pd.DataFrame(found, columns=["learning_rate", "loss"])
        tables.append(table.assign(batch_size=size, suggested=digits.suggested_rate(found)))
    return pd.concat(tables, ignore_index=True)


@dataclass(frozen=True)
class Tuning:
    """What searches for the shortest time to the target loss found.

    Attributes
    ----------
    trials : DataFrame
        :func:`labbench.tuning.search.trial_table` of every search, with ``sampler`` and ``seed``.
    judged : DataFrame
        A row a training with an unseen seed: ``seed`` (of the search), ``setting`` (usual, tpe, random), ``batch_size``,
        ``learning_rate``, ``seconds``, ``reached``, ``spent_s`` (training time of the search that found it).
    """

    trials: pd.DataFrame
    judged: pd.DataFrame


def tune(config: TuningConfig, studies: str | Path) -> Tuning:
    """:func:`tune_once` with as many seeds as the configuration says."""
    import pandas as pd

    found = [tune_once(config, studies, seed) for seed in tqdm(range(config.seeds), "searches", leave=False)]
    return Tuning(
        *(pd.concat([getattr(one, name) for one in found], ignore_index=True) for name in ("trials", "judged"))
    )


def tune_once(config: TuningConfig, studies: str | Path, seed: int) -> Tuning:
    """Search with TPE and at random, with as many trials; then train what was found beside the usual setting, in turn."""
    import pandas as pd

    options: dict[str, Any] = {"target": config.target_loss, "limit_s": config.limit_s}
    settings, trials, judged = {USUAL: (digits.Setting(), 0.0)}, [], []
    for sampler in SAMPLERS:
        found = study(studies, f"digits: time to {config.target_loss:g}, {sampler}, seed {seed}", sampler, seed)
        tuned = search(found, trials=config.trials, seed=10 * seed, progress=False, **options)
        settings[sampler] = (tuned.setting, tuned.spent_s)
        trials.append(trial_table(found).assign(sampler=sampler, seed=seed))
    for repeat in range(JUDGED):
        for name, (setting, spent_s) in settings.items():
            run = digits.train(setting, 100 * seed + repeat, **options)
            row = {"seed": seed, "setting": name, **vars(setting)}
            judged.append(row | {"seconds": run.seconds, "reached": run.reached, "spent_s": spent_s})
    return Tuning(pd.concat(trials, ignore_index=True), pd.DataFrame(judged))


def ratios(judged: pd.DataFrame) -> pd.DataFrame:
    """Median time to the target over the usual setting's, a row a search seed and a column a sampler."""
    medians = judged.groupby(["seed", "setting"])["seconds"].median().unstack()
    return medians.drop(columns=USUAL).div(medians[USUAL], axis=0)
