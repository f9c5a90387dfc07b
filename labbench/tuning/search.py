"""Batch size and learning rate that reach a target loss soonest: an Optuna study that prunes and goes on where it stopped."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from labbench.tuning.digits import LIMIT_S, TARGET_LOSS, Setting, range_test, suggested_rate, train

if TYPE_CHECKING:
    import optuna
    import pandas as pd

Sampler = Literal["tpe", "random"]
Direction = Literal["minimize", "maximize"]
BATCH_POWERS = (3, 8)  # batches of 8 to 256
RATES = (1e-4, 1e-1)
TRIALS = 24
# One training tells time within some 20 %: one that is not much slower than the best may finish, and the best few are
# trained again before one is chosen.
PATIENCE = 1.5
FINALISTS, REPEATS = 5, 3
SEARCH_SEED = 1000  # seeds of trainings in the search; others judge what it finds


@dataclass(frozen=True)
class Tuned:
    """What a search found.

    Attributes
    ----------
    setting : Setting
    seconds : float
        Median training time to the target of its trainings in the search.
    spent_s : float
        Training time of all trials, repeats included.
    trials : int
    """

    setting: Setting
    seconds: float
    spent_s: float
    trials: int


def study(path: str | Path, name: str, sampler: Sampler = "tpe", seed: int = 0) -> optuna.Study:
    """The stored study of that name, or a new one that begins with the usual setting and (TPE) that of an LR range test.

    Parameters
    ----------
    path : path
        A journal file (Optuna's ``JournalStorage``); one file may hold many studies.
    """
    made = open_study(path, name, directions=["minimize"], sampler=_sampler(sampler, seed))
    if not made.trials and sampler == "tpe":
        usual = Setting()
        rate = suggested_rate(range_test(usual.batch_size, SEARCH_SEED + seed))
        for one in (usual.learning_rate, min(max(rate, RATES[0]), RATES[1])):
            made.enqueue_trial({"log2_batch_size": int(math.log2(usual.batch_size)), "learning_rate": one})
    return made


def open_study(
    path: str | Path, name: str, *, directions: list[Direction], sampler: optuna.samplers.BaseSampler
) -> optuna.Study:
    """A study in a journal file, made if it is not there; pruning is left to the objective."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    return optuna.create_study(
        study_name=name,
        storage=JournalStorage(JournalFileBackend(str(path))),
        load_if_exists=True,
        directions=directions,
        sampler=sampler,
        pruner=optuna.pruners.NopPruner(),
    )


def go_on(
    found: optuna.Study, objective: Callable[[optuna.Trial], Any], trials: int, *, progress: bool = False
) -> None:
    """Run trials until the study has ``trials`` that are finished."""
    from tqdm import tqdm

    done = sum(trial.state.is_finished() for trial in found.trials)
    with tqdm(total=trials, initial=min(done, trials), desc="trials", disable=not progress, leave=False) as bar:

        def tell(_: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
            bar.update(1)

        found.optimize(objective, n_trials=max(trials - done, 0), callbacks=[tell])


def _sampler(name: Sampler, seed: int) -> optuna.samplers.BaseSampler:
    import optuna

    if name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=8)


def search(
    found: optuna.Study,
    *,
    trials: int = TRIALS,
    seed: int = 0,
    target: float = TARGET_LOSS,
    limit_s: float = LIMIT_S,
    progress: bool = True,
) -> Tuned:
    """Go on until the study has ``trials`` trials, then train the best few again and choose by the median.

    A trial is pruned when it has trained ``PATIENCE`` times as long as the best one took; its time counts as spent, and its loss
    by then tells the sampler how far it was.

    Raises
    ------
    TuningError
        If no setting reached the target.
    """
    import optuna

    def objective(trial: optuna.Trial) -> float:
        trial.suggest_int("log2_batch_size", *BATCH_POWERS)
        trial.suggest_float("learning_rate", *RATES, log=True)
        enough = min(PATIENCE * _best_seconds(found, limit_s), limit_s)
        run = train(_setting(trial), SEARCH_SEED + seed, target=target, limit_s=enough)
        trial.set_user_attr("seconds", run.seconds)
        if not run.reached:
            if math.isfinite(run.loss):
                trial.report(run.loss, 0)
            raise optuna.TrialPruned(f"the loss is {run.loss:.3g} after {run.seconds:.3g} s")
        return run.seconds

    go_on(found, objective, trials, progress=progress)
    return _chosen(found, seed, target, limit_s)


def _setting(trial: optuna.Trial | optuna.trial.FrozenTrial) -> Setting:
    return Setting(2 ** trial.params["log2_batch_size"], trial.params["learning_rate"])


def _best_seconds(found: optuna.Study, limit_s: float) -> float:
    times = [trial.value for trial in found.trials if trial.value is not None and trial.state.name == "COMPLETE"]
    return min(times, default=limit_s)


def _chosen(found: optuna.Study, seed: int, target: float, limit_s: float) -> Tuned:
    """The best of the finalists, each trained again with other seeds."""
    complete = sorted((t for t in found.trials if t.state.name == "COMPLETE"), key=lambda trial: trial.value or 0.0)
    if not complete:
        raise TuningError(
            f"no setting of {len(found.trials)} reached a loss of {target:g} within {limit_s:g} s: "
            "give a higher target or more time"
        )
    spent = sum(trial.user_attrs.get("seconds", 0.0) for trial in found.trials)
    runs: dict[Setting, list[float]] = {_setting(trial): [] for trial in complete[:FINALISTS]}
    for repeat in range(REPEATS):  # in turn, as the machine's speed may change
        for setting, seconds in runs.items():
            run = train(setting, SEARCH_SEED + seed + 1 + repeat, target=target, limit_s=limit_s)
            spent += run.seconds
            seconds.append(run.seconds if run.reached else limit_s)
    medians = {setting: statistics.median(seconds) for setting, seconds in runs.items()}
    setting = min(medians, key=medians.__getitem__)
    return Tuned(setting, medians[setting], spent, len(found.trials))


class TuningError(Exception):
    """Nothing was found; the message says why and what to change."""


def trial_table(found: optuna.Study) -> pd.DataFrame:
    """Every trial: ``number``, ``batch_size``, ``learning_rate``, ``state``, ``seconds`` (to the target or to the pruning)."""
    import pandas as pd

    rows = [
        {
            "number": trial.number,
            **vars(_setting(trial)),
            "state": trial.state.name.lower(),
            "seconds": trial.user_attrs.get("seconds"),
        }
        for trial in found.trials
        if trial.state.is_finished()
    ]
    return pd.DataFrame(rows, columns=["number", "batch_size", "learning_rate", "state", "seconds"])
