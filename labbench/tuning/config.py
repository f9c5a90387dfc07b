"""``notebooks/config/training_config.json``: which training steps to measure, and what to tune."""

from __future__ import annotations

from pydantic import Field

from labbench.campaign import BenchmarkConfig
from labbench.cells import Frozen, Grid
from labbench.tuning.digits import LIMIT_S, TARGET_LOSS
from labbench.tuning.search import TRIALS


class TuningConfig(Frozen):
    """What the searches of notebook ``08_tune_training`` look for."""

    cells: Grid = Field(Grid(axes={"model": "bert-tiny", "mode": "training"}), description="whose batch size is tuned")
    memory_limit_bytes: int = Field(10**9, gt=0, description="above an empty process")
    batch_trials: int = Field(8, ge=1, description="batch sizes to measure, each model")
    trials: int = Field(TRIALS, ge=1, description="settings to try on the way to the target loss, each search")
    seeds: int = Field(3, ge=1, description="searches, and judgements of what they find")
    target_loss: float = Field(TARGET_LOSS, gt=0, description="held-out cross entropy of the digits")
    limit_s: float = Field(LIMIT_S, gt=0, description="training time after which a setting is given up")


class TrainingConfig(BenchmarkConfig):
    """Grids of training steps, as in a benchmark's configuration, and what to tune."""

    tuning: TuningConfig = TuningConfig()
