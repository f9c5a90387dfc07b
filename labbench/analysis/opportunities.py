"""What would make a model cheaper to run? Single changes, each with the gain that measured cells promise and what it costs.

A model's starting point is its cell on a baseline platform in fp32 at its smallest batch. A change differs from it in one thing:
runtime (``compile`` is one), precision, batch, threads, memory format, KV cache. Its gain is the time per item before divided by
the time per item after:

- where the changed cell of this model is measured, the gain is measured, with the interval of a comparison;
- else it is estimated from the same change of at least three other models, weighted by how alike their demand is (a
  Gaussian of the log of their FLOPs); the interval is that for one further model (a prediction interval, not that of the mean).

Changes whose gain is not beyond the practical threshold are left out, and so are cells that are known not to run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from labbench.analysis.compare import beside, judge_pairs
from labbench.analysis.costs import ONE_OFF
from labbench.analysis.labels import SIZES
from labbench.analysis.ratio import THRESHOLD
from labbench.cells import CELL_FIELDS, Cell

if TYPE_CHECKING:
    import pandas as pd

CHANGES = ("runtime", "precision", "batch_size", "threads", "memory_format", "kv_cache")
SCENE = ("model", "task", "mode", "seq_len", "image_size", "frames", "audio_s", "variant", "series", "machine_id")
CONFIGURATION = (*CHANGES, "device", "world_size")
FEWEST_MODELS = 3  # to speak of a model where the change was not measured
DECADES = 0.7  # sd of the weight over log10 FLOPs: a model ten times as large counts a third
COLUMNS = (
    "model", "mode", *SIZES, "series", "platform", "change", "before", "after", "gain", "gain_ci_low", "gain_ci_high",
    "source", "unstable", "models", "latency_s", "latency_after_s", "memory_bytes", "one_off_s", "break_even_calls", "check_error",
    "check_tolerance", "cell_before", "cell", "command", "evidence",
)  # fmt: skip


def advise(
    frame: pd.DataFrame, samples: pd.DataFrame, *, baseline: str = "cpu/eager", models: Iterable[str] | None = None
) -> pd.DataFrame:
    """Every single change that promises a gain, best first within a model and series.

    Parameters
    ----------
    frame : DataFrame
        Tidy rows (:meth:`labbench.store.Store.latest`); what counts are measured ones.
    samples : DataFrame
        Their raw samples.
    baseline : str
        Platform of the starting points.
    models : iterable of str, optional
        Only advice on these (all models count as evidence).

    Returns
    -------
    DataFrame
        ``model``, ``mode``, the input, ``series``, ``platform`` (where it starts), ``change``, ``before``, ``after``, ``gain``
        (time per item before / after) with its 95 % interval, ``source`` (``measured`` or ``other models``), ``unstable``
        (whether the machine was, during a measurement that it rests on), ``models`` (how many it rests on), ``latency_s`` and
        ``latency_after_s`` (of one call); what it costs: ``memory_bytes`` and ``one_off_s`` (more than before; NaN if not
        known), ``break_even_calls`` (calls of the new cell after which the one-off cost is earned), ``check_error`` and
        ``check_tolerance`` (of the output, against eager fp32); and how to test it: the cells ``cell_before`` and ``cell``
        (JSON), ``command``; ``evidence`` (record ids).
    """
    import pandas as pd

    rows = _usable(frame)
    wanted = None if models is None else set(models)
    found: list[dict[str, Any]] = []
    for change in CHANGES:
        starts = _starting_points(rows, baseline, cached=change != "kv_cache")
        effects = _effects(rows, starts, samples, change)
        asked = effects if wanted is None else effects[effects["model"].isin(wanted)]
        found += [_measured(effect, change) for effect in asked.itertuples()]
        found += _from_others(effects, starts, frame, change, wanted)
    table = pd.DataFrame([one for one in found if one["gain"] > 1 + THRESHOLD], columns=list(COLUMNS))
    return table.sort_values(
        ["model", "mode", "series", "gain"], ascending=[True, True, True, False], ignore_index=True
    )


def top(advice: pd.DataFrame) -> pd.DataFrame:
    """The best piece of advice on each model, mode and series: the largest gain of those that are sure to be one."""
    sure = advice[advice["gain_ci_low"] > 1]
    return sure.drop_duplicates(["model", "mode", "series"]).reset_index(drop=True)


def _usable(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows that advice can rest on, ``threads`` being the cell's own and every layout and cache named."""
    rows = frame[
        (frame["status"] == "ok")
        & (frame["provenance"] == "measured")
        & frame["series"].notna()
        & (frame["n_samples"] > 0)
    ]
    rows = rows.assign(unstable=rows["noise"].astype(object) == "unstable")
    for name in ("model", "mode", "series", "runtime", "precision", "device", "platform"):
        rows[name] = rows[name].astype("str")
    rows["one_off_s"] = rows[list(ONE_OFF)].sum(axis=1, min_count=1)
    rows["item_s"] = rows["latency_s"] / rows["items_per_call"]
    rows["memory_format"] = rows["memory_format"].astype(object).where(rows["memory_format"].notna(), "default")
    rows["kv_cache"] = rows["kv_cache"].astype(object).where(rows["kv_cache"].notna(), True)
    return rows


def _starting_points(rows: pd.DataFrame, baseline: str, *, cached: bool) -> pd.DataFrame:
    """The row from which each model, mode and series starts: fp32 on the baseline platform at the smallest batch."""
    starts = rows[(rows["platform"] == baseline) & (rows["precision"] == "fp32") & (rows["kv_cache"] == cached)]
    return starts.sort_values("batch_size", kind="stable").drop_duplicates(list(SCENE))


def _effects(rows: pd.DataFrame, starts: pd.DataFrame, samples: pd.DataFrame, change: str) -> pd.DataFrame:
    """Measured cells that differ from a starting point in ``change`` alone, with log gain per item and its error."""
    keys = [name for name in (*SCENE, *CONFIGURATION) if name != change]
    pairs = beside(rows, starts, keys)
    pairs = pairs[pairs[change].astype("str") != pairs[f"{change}_baseline"].astype("str")].reset_index(drop=True)
    judged = judge_pairs(pairs, samples)
    items = np.log(pairs["items_per_call"].to_numpy(float) / pairs["items_per_call_baseline"].to_numpy(float))
    return pairs.assign(
        log_gain=items - np.log(judged["ratio"]),
        log_low=items - np.log(judged["ci_high"]),
        log_high=items - np.log(judged["ci_low"]),
    )


def _cell(start: Any, change: str, after: Any) -> Cell:
    """The starting point's cell with one thing changed."""
    fields = {name: getattr(start, name) for name in CELL_FIELDS if name != "threads"}
    fields |= {"threads": start.threads_asked, change: after}
    plain = {name: None if _missing(value) or value == "default" else value for name, value in fields.items()}
    if plain["kv_cache"] is True:
        plain["kv_cache"] = None
    whole = {name: int(value) if isinstance(value, np.integer) else value for name, value in plain.items()}
    return Cell.of(**{name: value for name, value in whole.items() if value is not None})


def _missing(value: Any) -> bool:
    import pandas as pd

    return bool(pd.isna(value))


def _entry(start: Any, change: str, after: Any, log_gain: tuple[float, float, float], **facts: Any) -> dict[str, Any]:
    """One piece of advice; ``log_gain`` is the estimate and its interval."""
    cell = _cell(start, change, after)
    gain, low, high = (math.exp(value) for value in log_gain)
    items = after / start.batch_size if change == "batch_size" else 1.0
    latency_after_s = start.latency_s * items / gain
    saved_s = start.latency_s * items - latency_after_s  # by one call of the new cell, for the same items
    one_off_s = facts.get("one_off_s", math.nan)
    return {
        "model": start.model,
        "mode": start.mode,
        **{name: getattr(start, name) for name in SIZES},
        "kv_cache": None if start.kv_cache else False,
        "series": start.series,
        "platform": start.platform,
        "change": change,
        "before": str(getattr(start, change)),
        "after": str(after),
        "gain": gain,
        "gain_ci_low": low,
        "gain_ci_high": high,
        "latency_s": start.latency_s,
        "latency_after_s": latency_after_s,
        "break_even_calls": math.ceil(max(one_off_s, 0) / saved_s)
        if one_off_s == one_off_s and saved_s > 0
        else math.nan,
        "cell_before": _cell(start, change, getattr(start, change)).model_dump_json(exclude_none=True),
        "cell": cell.model_dump_json(exclude_none=True),
        "command": cell.command,
        **facts,
    }


def _measured(effect: Any, change: str) -> dict[str, Any]:
    """Advice from a cell of the model itself."""
    start = _start_of(effect)
    return _entry(
        start,
        change,
        getattr(effect, change),
        (effect.log_gain, effect.log_low, effect.log_high),
        source="measured",
        unstable=bool(effect.unstable or effect.unstable_baseline),
        models=1,
        memory_bytes=_difference(effect.memory_increase_bytes, effect.memory_increase_bytes_baseline),
        one_off_s=effect.one_off_s - effect.one_off_s_baseline,
        check_error=effect.check_error,
        check_tolerance=effect.check_tolerance,
        evidence=[effect.record_id_baseline, effect.record_id],
    )


def _start_of(effect: Any) -> Any:
    """The starting point's part of an effect."""
    from types import SimpleNamespace

    suffix = "_baseline"
    values = effect._asdict()
    return SimpleNamespace(
        **{name.removesuffix(suffix): value for name, value in values.items() if name.endswith(suffix)}
    )


def _difference(after: Any, before: Any) -> float:
    return math.nan if _missing(after) or _missing(before) else float(after - before)


def _from_others(
    effects: pd.DataFrame, starts: pd.DataFrame, frame: pd.DataFrame, change: str, wanted: set[str] | None
) -> list[dict[str, Any]]:
    """Advice on starting points without a cell of their own, from other models' effects of the same change."""
    tried = {(row.model, row.platform, row.precision, row.batch_size) for row in frame.itertuples()}
    keys = ["mode", "series", "device", "runtime", "precision", *(["batch_size"] if change == "batch_size" else [])]
    alike: dict[tuple[Any, ...], list[tuple[str, pd.DataFrame]]] = {}
    for key, part in effects.groupby(
        [*(f"{name}_baseline" for name in keys), effects[change].astype("str")], sort=True
    ):
        alike.setdefault(key[:-1], []).append((key[-1], part))
    found = []
    for start in starts.itertuples():
        if wanted is not None and start.model not in wanted:
            continue
        for after, everyone in alike.get(tuple(getattr(start, name) for name in keys), []):
            target = _cell(start, change, everyone[change].iloc[0])
            where = (start.model, target.platform.label, target.workload.precision, target.workload.batch_size)
            if where in tried or str(getattr(start, change)) == after:
                continue
            part = everyone[everyone["model"] != start.model]
            if part["model"].nunique() < FEWEST_MODELS:
                continue
            weights = _weights(part, start)
            found.append(
                _entry(
                    start,
                    change,
                    part[change].iloc[0],
                    _for_one_more(part["log_gain"].to_numpy(float), weights),
                    source="other models",
                    unstable=bool((part["unstable"] | part["unstable_baseline"]).any()),
                    models=part["model"].nunique(),
                    memory_bytes=_mean(part["memory_increase_bytes"] - part["memory_increase_bytes_baseline"], weights),
                    one_off_s=_mean(part["one_off_s"] - part["one_off_s_baseline"], weights),
                    check_error=float(part["check_error"].max()),
                    check_tolerance=float(part["check_tolerance"].min()),
                    evidence=part["record_id"].tolist(),
                )
            )
    return found


def _weights(part: pd.DataFrame, start: Any) -> np.ndarray:
    """How much each model says about another: less, the more their FLOPs differ; all alike where they are not known."""
    apart = np.log10(part["flops_baseline"].to_numpy(float) / float(start.flops))
    weights = np.exp(-((apart / DECADES) ** 2) / 2)
    return weights if np.isfinite(weights).all() and weights.sum() > 0 else np.ones(len(part))


def _mean(values: pd.Series, weights: np.ndarray) -> float:
    x = values.to_numpy(dtype=float, na_value=np.nan)
    known = ~np.isnan(x)
    return float(np.average(x[known], weights=weights[known])) if known.any() else math.nan


def _for_one_more(values: np.ndarray, weights: np.ndarray) -> tuple[float, float, float]:
    """Weighted mean and 95 % interval for one further value.

    Student's prediction interval with the effective number n = (Σw)² / Σw² (Kish, Survey Sampling, 1965, section 11.7).
    """
    from scipy.stats import t

    middle = float(np.average(values, weights=weights))
    effective = float(weights.sum() ** 2 / (weights**2).sum())
    if effective <= 1.5:  # one model outweighs the rest: that is no sample
        return middle, -math.inf, math.inf
    variance = float(np.average((values - middle) ** 2, weights=weights)) * effective / (effective - 1)
    reach = float(t.ppf(0.975, effective - 1)) * math.sqrt(variance * (1 + 1 / effective))
    return middle, middle - reach, middle + reach
