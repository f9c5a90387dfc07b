"""``notebooks/config/prediction_model_config.json``: how the predictor is fitted and how sure it must be."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from labbench.cells import Frozen
from labbench.records import NoiseVerdict


class PredictionError(ValueError):
    """Nothing can be fitted or predicted; the message names what is missing and how to get it."""


class PredictionConfig(Frozen):
    """Settings of a :class:`~labbench.prediction.predictor.Predictor`, meant for stores of 20 to 2,000 cells."""

    level: float = Field(0.9, gt=0, lt=1, description="nominal coverage of the predictive interval")
    ignore: list[NoiseVerdict] = Field(["unstable"], description="noise verdicts of series that are not learnt from")
    operators: Literal["traced", "totals"] = Field(
        "traced",
        description="price each operator of the zoo's models, traced when first asked about, or only the totals of classes",
    )
    residual: Literal["boosting", "none"] = Field("boosting", description="what corrects the fitted roofline")
    inner_folds: int = Field(
        5,
        ge=2,
        description="folds by family that cross-fit the roofline inside the training part, of fewer than 2,000 cells",
    )
    noise: float = Field(0.1, gt=0, description="scatter about the roofline, log units, below which it is not fitted")
    pooled_width: float = Field(2.0, gt=0, description="prior s.d. of log coefficients about the machine's ceilings")
    level_width: float = Field(1.0, gt=0, description="prior s.d. of log coefficients about the level above")
    boosting_iterations: int = Field(12, ge=1)
    boosting_rate: float = Field(0.4, gt=0, le=1)
    boosting_leaf: int = Field(8, ge=1, description="least rows in a leaf")
    boosting_features: float = Field(0.3, gt=0, le=1, description="share of the features that each split may look at")
    domain_factor: float = Field(3.0, ge=1, description="how far outside the measured range a prediction may lie")
    domain_share: float = Field(
        0.05,
        ge=0,
        le=1,
        description="share of FLOPs, bytes or kernels an operator class may have without being measured",
    )
    max_folds: int = Field(10, ge=2, description="evaluation leaves out one family at a time up to so many families")
    seed: int = Field(0, ge=0)
