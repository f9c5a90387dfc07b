"""Is the difference real? Platforms, precisions, versions or machines against a baseline, like with like.

What two rows must agree in before they are compared is their workload and everything else that was asked for, except what
is compared (``by``). Whatever else differs between them and might matter (threads, protocol, software, the kind of figure) is
said in the column ``differs``. The statistics are those of :mod:`labbench.analysis.ratio`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from labbench.analysis.labels import PARTS, compared
from labbench.analysis.ratio import (
    ALPHA,
    CAMPAIGN_SD,
    PROCESS_SD,
    RATIO_SD,
    THRESHOLD,
    VERDICTS,
    Comparison,
    Rounds,
    Spread,
    benjamini_hochberg,
    contrast,
    fit_spread,
    judge,
    relative,
    rounds_by_series,
    verdict,
)
from labbench.cells import TRAINING_FIELDS

if TYPE_CHECKING:
    import pandas as pd

    from labbench.records import Environment

# What must agree for two series to be one workload.
WORKLOAD = ("model", "task", "mode", "batch_size", "seq_len", "image_size", "frames", "audio_s", "series")
ASKED = ("precision", "kv_cache", "variant", "platform", "machine_id")
# Column -> what is said where two rows differ in it though nobody asked for it.
DIFFERENCES = {
    "threads": "threads",
    "device_name": "device",
    "protocol_id": "protocol",
    "environment_id": "software",
    "latency_statistic": "median or mean",
    "provenance": "provenance",
}
# Column -> what it is called in training where nothing was asked for.
PLAIN = {
    "variant": "plain",
    "optimizer": "adamw",
    "accumulation": 1,
    "checkpointing": False,
    "trained": "everything",
    "clip_norm": "any",
}
DRAWS = 2000  # bootstrap
USUAL = "cpu/eager"


def with_versions(frame: pd.DataFrame, environments: Mapping[str, Environment]) -> pd.DataFrame:
    """The frame with ``hostname`` and a column ``version_<package>`` for each package, to compare ``by``."""
    import pandas as pd

    facts = {
        key: {"hostname": one.hostname, **{f"version_{name}": text for name, text in one.software.items()}}
        for key, one in environments.items()
    }
    table = pd.DataFrame.from_dict(facts, orient="index")
    return frame.join(table, on="environment_id") if len(table) else frame


def compare(
    frame: pd.DataFrame,
    samples: pd.DataFrame,
    *,
    baseline: Any = None,
    by: str = "platform",
    alpha: float = ALPHA,
    threshold: float = THRESHOLD,
) -> pd.DataFrame:
    """Every platform (runtime, precision, version, machine, ...) against a baseline, for each workload and series.

    Parameters
    ----------
    frame : DataFrame
        Tidy rows (:meth:`labbench.store.Store.latest`); only those with status ok take part, and no predictions. Of several
        rows that could be the baseline of one, the last is taken.
    samples : DataFrame
        Their raw samples (:meth:`labbench.store.Store.samples`).
    baseline
        Value of column ``by`` to compare with; default: :func:`usual_baseline`.
    by : str
        A column of the frame; for versions see :func:`with_versions`.

    Returns
    -------
    DataFrame
        One row a comparison: the workload, ``by``, ``work`` (its name: :func:`labbench.analysis.labels.compared`), ``baseline``,
        ``ratio`` of latencies, ``ci_low``, ``ci_high``, ``p_value``,
        ``p_adjusted`` (Benjamini–Hochberg over all rows), ``speedup``, ``verdict``, ``paired``, ``unstable`` (whether the machine
        was, and the sides did not run in turn: nothing is concluded from it), ``more_processes`` and ``more_samples`` (on each
        side; would decide what is undecided), ``differs`` (what else is not alike; empty if nothing). Workloads that the
        baseline lacks are left out; without any row of status ok the table is empty.

    Raises
    ------
    ConfigError
        If there is no such column, or no row has the baseline's value, naming the nearest one.
    """
    from labbench.config import unknown_name

    if by not in frame:
        raise unknown_name("column to compare by", by, frame.columns)
    rows = _ran(frame)
    if by in PLAIN:
        rows = rows.assign(
            **{by: rows[by].astype(object).where(rows[by].notna() | (rows["mode"] != "training"), PLAIN[by])}
        )
    values = rows[by].astype("str").where(rows[by].notna())
    baseline = usual_baseline(rows, by) if baseline is None else baseline
    if len(rows) and str(baseline) not in set(values.dropna()):
        raise unknown_name(f"baseline {by}", str(baseline), values.dropna().unique())
    pairs = beside(rows[values.notna() & (values != str(baseline))], rows[values == str(baseline)], _fixed(by))
    table = pairs[[*_identity(by)]].assign(work=compared(pairs, by), baseline=str(baseline))
    table["latency_s"], table["latency_baseline_s"] = pairs["latency_s"], pairs["latency_s_baseline"]
    judged = judge_pairs(pairs, samples, alpha, threshold)
    table["unstable"] = _unstable(pairs, judged)
    table = table.join(judged)
    table["differs"] = _differences(pairs, by)
    decided = [
        "undecided" if r.unstable else verdict(r.ratio, r.ci_low, r.ci_high, r.p_adjusted, alpha, threshold)
        for r in table.itertuples(index=False)
    ]
    return table.assign(verdict=decided)


def _ran(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows with a result: a prediction is none."""
    return frame[(frame["status"] == "ok") & frame["series"].notna() & (frame["provenance"] != "predicted")]


def _unstable(pairs: pd.DataFrame, judged: pd.DataFrame) -> pd.Series:
    """Whether an unstable machine may have made the difference: not where both sides ran in turn, and so met the same machine."""
    unstable: pd.Series = (pairs["noise"] == "unstable") | (pairs["noise_baseline"] == "unstable")
    return unstable & ~judged["paired"].astype(bool)


def usual_baseline(frame: pd.DataFrame, by: str = "platform") -> str | None:
    """What a comparison starts from if nobody says: ``cpu/eager``, else the value that most models have; None if there is none."""
    values = frame.loc[(frame["status"] == "ok") & frame[by].notna(), ["model", by]].astype("str").drop_duplicates()
    counts = values[by].value_counts()
    return None if counts.empty else USUAL if USUAL in counts else str(counts.index[0])


def _fixed(by: str) -> list[str]:
    """Columns in which two rows must agree to be compared by another one."""
    platform = PARTS if by in PARTS else ("platform",)
    variant = TRAINING_FIELDS if by in TRAINING_FIELDS else ("variant",)
    asked = (*(name for name in ASKED if name not in ("platform", "variant")), *variant, *platform)
    elsewhere = ("machine_id",) if by in ("hostname", "device_name") else ()
    return [name for name in (*WORKLOAD, *asked) if name != by and name not in elsewhere]


def beside(
    rows: pd.DataFrame, others: pd.DataFrame, keys: list[str], how: Literal["inner", "left"] = "inner"
) -> pd.DataFrame:
    """Each row beside the last of ``others`` that agrees in all keys, whose columns end in ``_baseline``; missing ones agree."""
    codes = {name: _alike(rows[name], others[name]) for name in keys}
    left = rows.assign(**{f"key {name}": pair[0] for name, pair in codes.items()})
    right = others.add_suffix("_baseline").assign(**{f"key {name}": pair[1] for name, pair in codes.items()})
    names = [f"key {name}" for name in keys]
    return left.merge(right.drop_duplicates(names, keep="last"), on=names, how=how).drop(columns=names)


def _alike(left: pd.Series, right: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Both columns as integers that are equal where the values are, missing ones being alike."""
    import pandas as pd

    codes, _ = pd.factorize(pd.concat([left.astype(object), right.astype(object)]), use_na_sentinel=True)
    return codes[: len(left)], codes[len(left) :]


def _identity(by: str) -> list[str]:
    names = (
        *WORKLOAD,
        "kv_cache",
        "variant",
        "precision",
        "platform",
        "device_name",
        "machine_id",
        "throughput_unit",
        "provenance",
        by,
    )
    return list(dict.fromkeys(names))


def judge_pairs(
    pairs: pd.DataFrame, samples: pd.DataFrame, alpha: float = ALPHA, threshold: float = THRESHOLD
) -> pd.DataFrame:
    """Ratio, interval and what would decide, of each pair of :func:`beside`; without samples (imported results) only the ratio.

    Where both sides were measured in turn with the same reference (:func:`by_reference`), it is the ratio of their ratios to it.
    """
    import pandas as pd

    taken = rounds_by_series(samples)
    ratios = by_reference(pairs)
    keys = [_rounds(pairs, side, taken, ratios) for side in ("", "_baseline")]
    together = (pairs["campaign_id"] == pairs["campaign_id_baseline"]).fillna(False).to_numpy(bool)
    contrasts = {
        i: contrast(side, other, paired=bool(together[i]))
        for i, (side, other) in enumerate(zip(*keys, strict=True))
        if side is not None and other is not None
    }
    kinds = {i: "ratio" if ratios[i] else "paired" if one.paired else "apart" for i, one in contrasts.items()}
    assumed = {"ratio": Spread(math.sqrt(2) * PROCESS_SD)}  # of a difference
    spreads = {
        kind: fit_spread([contrasts[i] for i in contrasts if kinds[i] == kind], assumed.get(kind))
        for kind in set(kinds.values())
    }
    plain = pairs["latency_s"].to_numpy(float) / pairs["latency_s_baseline"].to_numpy(float)
    results = [
        judge(
            contrasts[i], spreads[kinds[i]], same_campaign=bool(together[i]),
            campaign_sd=RATIO_SD if ratios[i] else CAMPAIGN_SD, alpha=alpha, threshold=threshold,
        )
        if i in contrasts
        else Comparison(float(ratio), math.nan, math.nan, math.nan, "undecided", False, math.nan)
        for i, ratio in enumerate(plain)
    ]  # fmt: skip
    names = ("ratio", "ci_low", "ci_high", "p_value", "speedup", "paired", "more_processes")
    columns = {name: [getattr(one, name) for one in results] for name in names}
    table = pd.DataFrame(columns, index=pairs.index).astype({"paired": bool})
    table["p_adjusted"] = benjamini_hochberg(table["p_value"].to_numpy(float))
    per_process = [math.nan if one is None else one.samples / one.processes for one in keys[0]]
    table["more_samples"] = table["more_processes"] * per_process
    return table


def by_reference(pairs: pd.DataFrame) -> np.ndarray:
    """Whether both sides have the same reference (:func:`labbench.analysis.references.with_references`)."""
    if "reference" not in pairs:
        return np.zeros(len(pairs), dtype=bool)
    alike: np.ndarray = (pairs["reference"].notna() & (pairs["reference"] == pairs["reference_baseline"])).to_numpy(
        bool
    )
    return alike


def _rounds(
    pairs: pd.DataFrame, side: str, taken: Mapping[tuple[str, str], Rounds], ratios: np.ndarray
) -> list[Rounds | None]:
    """The rounds of one side of each pair, those of its ratio to the reference where asked for; None without samples."""
    keys = list(zip(pairs[f"record_id{side}"], pairs[f"series{side}"], strict=True))
    found = [taken.get(key) for key in keys]
    for i in np.flatnonzero(ratios):
        mine, other = found[i], taken.get((pairs[f"reference_id{side}"].iloc[i], keys[i][1]))
        both = None if mine is None or other is None else relative(mine, other)
        found[i] = both if both is not None and len(both.round) else None
    return found


def _differences(pairs: pd.DataFrame, by: str) -> list[str]:
    """What else is not alike, in words, of each pair."""
    found: list[list[str]] = [[] for _ in range(len(pairs))]
    for name, said in DIFFERENCES.items():
        if name == by or (by in PARTS and name == "threads" and by != "runtime"):
            continue
        here, there = pairs[name].astype(object), pairs[f"{name}_baseline"].astype(object)
        for i in np.flatnonzero((here != there) & here.notna() & there.notna()):
            found[i].append(said)
    unchecked = pairs["check_error"].isna() | pairs["check_error_baseline"].isna()
    for i in np.flatnonzero(unchecked & (pairs["mode"] == "inference")):
        found[i].append("output not checked")
    return [", ".join(one) for one in found]


def family(model: str) -> str:
    """The family of a model: the zoo's, or the letters that an unknown name begins with (``resnetv2_50d.ra2_in1k``: resnet)."""
    from labbench import zoo
    from labbench.config import ConfigError

    try:
        return zoo.family_of(model).name
    except ConfigError:
        found = re.match(r"[a-zA-Z]+?(?=v?\d|[^a-zA-Z]|$)", model)
        return found.group() if found else model


def summary(comparison: pd.DataFrame, by: str = "platform", *, families: bool = False) -> pd.DataFrame:
    """Geometric-mean speed-up of each platform over all stably measured workloads, with a 95 % interval.

    The interval is a bootstrap over models, each drawn with the error of its own measurement, so that a single model has
    one too; it is NaN where nothing is known of that error and there is one model.

    Parameters
    ----------
    families : bool
        Whether each family of models has rows of its own.

    Returns
    -------
    DataFrame
        ``by``, ``family`` if asked for, ``models``, ``workloads``, ``speedup``, ``ci_low``, ``ci_high``, a count of each verdict.
    """
    import pandas as pd

    stable = comparison[~comparison["unstable"].astype(bool)]
    stable = stable.assign(**{by: stable[by].astype("str"), "model": stable["model"].astype("str")})
    if families:
        stable["family"] = stable["model"].map({name: family(name) for name in stable["model"].unique()})
    keys = [by, "family"] if families else [by]
    rows = []
    for names, part in stable.groupby(keys, observed=True, sort=False):
        counts = part["verdict"].value_counts().to_dict()
        low, high = _interval(part)
        rows.append(
            {
                **dict(zip(keys, names, strict=True)),
                "models": part["model"].nunique(),
                "workloads": len(part),
                "speedup": math.exp(float(np.log(part["speedup"].to_numpy(float)).mean())),
                "ci_low": low,
                "ci_high": high,
                **{key: counts.get(key, 0) for key in VERDICTS},
            }
        )
    counted, estimated = ("models", "workloads"), ("speedup", "ci_low", "ci_high")
    table = pd.DataFrame(rows, columns=[*keys, *counted, *estimated, *VERDICTS])
    types = dict.fromkeys((*counted, *VERDICTS), int) | dict.fromkeys(estimated, float)  # an empty table has none
    return table.astype(types).sort_values("speedup", ascending=False, ignore_index=True)


def _interval(part: pd.DataFrame) -> tuple[float, float]:
    """95 % interval of the geometric mean: whole models resampled, each with its measurement's error."""
    logs = np.log(part["speedup"].to_numpy(float))
    errors = np.log(part["ci_high"].to_numpy(float) / part["ci_low"].to_numpy(float)) / (2 * 1.96)
    models = part["model"].to_numpy()
    names, owner = np.unique(models, return_inverse=True)
    sizes = np.bincount(owner)
    means = np.bincount(owner, logs) / sizes
    sds = np.sqrt(np.bincount(owner, errors**2)) / sizes
    if len(names) == 1 and not np.isfinite(sds[0]):
        return math.nan, math.nan
    rng = np.random.default_rng(0)
    picked = rng.integers(len(names), size=(DRAWS, len(names)))
    drawn = means[picked] + rng.normal(size=picked.shape) * np.nan_to_num(sds)[picked]
    low, high = np.quantile(np.exp(drawn.mean(axis=1)), [0.025, 0.975])
    return float(low), float(high)


def fastest(frame: pd.DataFrame, samples: pd.DataFrame, *, alpha: float = ALPHA) -> pd.DataFrame:
    """The fastest platform of each workload and series, and whether its lead over the next one is real.

    Columns: the workload, ``platform``, ``latency_s``, ``runner_up``, ``lead`` (runner-up's latency / its own),
    ``p_value`` (NaN where a side has no samples), ``real`` (whether the difference is beyond chance and threshold; adjusted
    for the number of workloads), ``unstable``.
    """
    rows = _ran(frame).sort_values("latency_s", kind="stable")
    keys = [*WORKLOAD, "precision", "kv_cache", "variant", "machine_id"]
    place = rows.groupby(keys, observed=True, dropna=False, sort=False).cumcount()
    pairs = beside(rows[place == 0], rows[place == 1], keys, how="left")
    table = pairs[_identity("platform")].assign(latency_s=pairs["latency_s"], runner_up=pairs["platform_baseline"])
    judged = judge_pairs(pairs, samples, alpha, THRESHOLD)
    unstable = _unstable(pairs, judged)
    real = (judged["p_adjusted"] <= alpha) & (judged["ratio"] < 1 - THRESHOLD) & ~unstable
    return table.assign(lead=judged["speedup"], p_value=judged["p_value"], unstable=unstable, real=real)
