"""Every option for every question: what was measured first, what is predicted where nothing was."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from labbench.config import unknown_name
from labbench.selection.requirements import Requirements, SelectionError

if TYPE_CHECKING:
    import pandas as pd

    from labbench.prediction import Predictor

# A question is what is to run. Precision belongs to the answer, like the platform.
QUESTION = ("model", "task", "mode", "batch_size", "seq_len", "image_size", "frames", "audio_s")
KEPT = (
    *QUESTION,
    *("machine_id", "device", "device_name", "runtime", "platform", "precision", "cell_id", "series", "status"),
    *("reason", "provenance", "items_per_call", "throughput_unit", "prepare_s", "noise", "n_samples"),
    "latency_statistic",
)
ASKED_FOR = ("measured", "imported", "simulated")
MILLION = 1_000_000


def options(frame: pd.DataFrame, requirements: Requirements, predictor: Predictor | None = None) -> pd.DataFrame:
    """One row for each question and each platform and precision it could run on.

    Parameters
    ----------
    frame : DataFrame
        ``Store.latest()``.
    requirements : Requirements
        Which models, modes and series; at which percentile; prices.
    predictor : Predictor, optional
        Fitted; answers for cells without any record.

    Returns
    -------
    DataFrame
        The columns of ``KEPT``, ``question`` (number), ``option`` (label), ``predicted``, ``out_of_domain``,
        ``latency_s`` (at the percentile asked for), ``median_s``, ``throughput`` and ``cost_per_million`` (both at the
        median), each with ``_low`` and ``_high`` ends; ``memory_bytes`` (peak above an empty worker),
        ``memory_high_bytes``, ``cost_per_hour``.

    Raises
    ------
    SelectionError
        If nothing in the store answers the question.
    ConfigError
        For a model, device or runtime that the store does not know, with the nearest one that it does.
    """
    import pandas as pd

    asked = _restricted(frame, requirements)
    measured = _measured(asked, requirements)
    parts = [measured]
    if predictor is not None:
        predicted = _predicted(frame, asked, requirements, predictor)
        parts += [predicted] if len(predicted) else []
    table = pd.concat([part.astype({"reason": object}) for part in parts], ignore_index=True)
    table["question"] = table.groupby(list(QUESTION), dropna=False, observed=True, sort=False).ngroup()
    several = table["machine_id"].nunique() > 1
    table["option"] = [
        " ".join([platform, *([precision] if precision != "fp32" else []), *([f"on {machine}"] if several else [])])
        for platform, precision, machine in table[["platform", "precision", "machine_id"]].astype("str").to_numpy()
    ]
    for end, other in (("", ""), ("_low", "_high"), ("_high", "_low")):  # throughput is what the median gives
        table[f"throughput{end}"] = table["items_per_call"] / table[f"median{other}_s"]
    names = table[["machine_id", "device_name", "device"]].astype("str").to_numpy()
    prices = [requirements.price_of(*row) for row in names]
    table["cost_per_hour"] = [price.per_hour if price else np.nan for price in prices]
    a_second = table["cost_per_hour"] / 3600
    for end, other in (("", ""), ("_low", "_high"), ("_high", "_low")):
        table[f"cost_per_million{end}"] = MILLION * a_second / table[f"throughput{other}"]
    return table


def _restricted(frame: pd.DataFrame, requirements: Requirements) -> pd.DataFrame:
    """Rows that the question is about; names that the store does not know are refused."""
    table = frame[frame["provenance"].isin(ASKED_FOR)]
    if table.empty:
        raise SelectionError("the store holds no measured record; measure some with `labbench run`")
    for column, values in (("model", requirements.models), ("series", requirements.series)):
        wanted = [values] if isinstance(values, str) else values or []
        for value in wanted:
            known = set(table[column].dropna().astype("str"))
            if value not in known:
                raise unknown_name(f"{column} (not in the store)", value, known)
    for column, allowed in (("device", requirements.devices), ("runtime", requirements.runtimes)):
        known = set(table[column].dropna().astype("str"))
        for value in allowed or []:
            if value not in known:
                raise unknown_name(f"{column} (not in the store)", value, known)
    if requirements.models is not None:
        table = table[table["model"].isin(requirements.models)]
    if requirements.modes is not None:
        table = table[table["mode"].isin(requirements.modes)]
    if table.empty:
        raise SelectionError(
            f"no record in the store has mode {' or '.join(requirements.modes or [])} for the models asked for; "
            "measure some with `labbench run --mode ...`"
        )
    return table


def _of_series(table: pd.DataFrame, requirements: Requirements) -> pd.DataFrame:
    if requirements.series is None:
        return table[table["primary"].astype(bool)]
    return table[(table["series"] == requirements.series) | table["series"].isna()]


def _measured(asked: pd.DataFrame, requirements: Requirements) -> pd.DataFrame:
    rows = _of_series(asked, requirements)
    table = rows[list(KEPT)].astype({"reason": object}).reset_index(drop=True)
    percentile = requirements.latency_percentile
    asked_for = "latency" if percentile == 50 else f"latency_p{percentile}"
    for name, stem in (("latency", asked_for), ("median", "latency")):
        for end, interval in (("", ""), ("_low", "_ci_low"), ("_high", "_ci_high")):
            table[f"{name}{end}_s"] = rows[f"{stem}{interval}_s"].to_numpy(float, na_value=np.nan)
    memory = rows["memory_increase_bytes"].to_numpy(float, na_value=np.nan)
    return table.assign(predicted=False, out_of_domain=False, memory_bytes=memory, memory_high_bytes=memory)


def _predicted(
    frame: pd.DataFrame, asked: pd.DataFrame, requirements: Requirements, predictor: Predictor
) -> pd.DataFrame:
    """Predictions for the cells of these workloads that have no record.

    The predictor knows medians; another percentile is the median times the ratio that is typical of the platform.
    """
    from labbench.prediction import missing

    absent = missing(frame[frame["provenance"].isin(ASKED_FOR)])
    absent = absent[absent["model"].isin(asked["model"].unique()) & absent["mode"].isin(asked["mode"].unique())]
    cells = _of_series(absent, requirements).reset_index(drop=True)
    if cells.empty:
        return cells
    table = predictor.predict(cells, level=requirements.confidence)
    ratio = _tail_ratio(frame, requirements.latency_percentile).reindex(table["platform"].astype("str")).to_numpy(float)
    names = {"memory_increase_bytes": "memory_bytes", "memory_increase_high_bytes": "memory_high_bytes"}
    table = table.rename(columns=names).assign(status="ok", predicted=True, prepare_s=np.nan, noise=None)
    for end in ("", "_low", "_high"):
        table[f"median{end}_s"] = table[f"latency{end}_s"]
        table[f"latency{end}_s"] *= ratio
    ends = [f"{name}{end}_s" for name in ("latency", "median") for end in ("", "_low", "_high")]
    columns = [*KEPT, "predicted", "out_of_domain", *ends, "memory_bytes", "memory_high_bytes"]
    return table.reindex(columns=columns)


def _tail_ratio(frame: pd.DataFrame, percentile: int) -> pd.Series:
    """Platform to the median ratio of the percentile to the median of its measured series."""
    tail = frame["latency_s"] if percentile == 50 else frame[f"latency_p{percentile}_s"]
    ratio: pd.Series = (tail / frame["latency_s"]).groupby(frame["platform"].astype("str")).median()
    return ratio
