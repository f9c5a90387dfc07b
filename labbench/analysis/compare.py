"""Is the difference real? Comparison of platforms from raw samples, process > round > sample.

Samples of one round resemble one another, and so do rounds of one process: a test that takes every sample for independent
calls noise a difference. Here the observation is the *round*: its median, in logarithms. Rounds that were interleaved
are paired (process p, round k of one side with the same of the other), so that drift cancels; otherwise the sides
are taken apart. Two processes of one cell differ by a little more than their rounds say (placement in memory, alignment),
which is estimated from cells with several processes and assumed where there is one.

    ratio = exp(mean difference of log round medians)
    se²   = between-process variance × (1/P_a + 1/P_b) + variance of the mean over rounds, corrected for autocorrelation

with a t interval (Welch–Satterthwaite degrees of freedom). A verdict needs more than significance: the ratio must also
be beyond a practical threshold.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

Verdict = Literal["faster", "slower", "same", "undecided"]

ALPHA = 0.05
THRESHOLD = 0.02  # ratios within 2 % of 1 are no difference that anybody should act on
PROCESS_SD = 0.006  # assumed sd of log latency between processes of one cell, where it cannot be estimated
PROCESS_DF = 10  # weight of that assumption, in degrees of freedom
# What must agree for two series to be one workload.
WORKLOAD = ("model", "task", "mode", "batch_size", "seq_len", "image_size", "frames", "audio_s", "series")


@dataclass(frozen=True)
class Comparison:
    """How one side's latency relates to a baseline's.

    Attributes
    ----------
    ratio : float
        Latency divided by the baseline's: below 1 is faster.
    ci_low, ci_high : float
        Interval of the ratio at level 1 - alpha.
    p_value : float
        Of the hypothesis that the ratio is 1.
    verdict : str
        ``faster`` or ``slower`` (interval excludes 1 and the ratio is beyond the threshold), ``same`` (interval within the
        threshold), else ``undecided``. Without samples on both sides interval and p-value are NaN, the verdict is undecided.
    paired : bool
        Whether interleaved rounds were paired.
    """

    ratio: float
    ci_low: float
    ci_high: float
    p_value: float
    verdict: Verdict
    paired: bool

    @property
    def speedup(self) -> float:
        """How many times as fast as the baseline."""
        return 1 / self.ratio

    def __repr__(self) -> str:
        return f"×{self.ratio:.3f} of the baseline's latency ({self.ci_low:.3f} to {self.ci_high:.3f}): {self.verdict}"


@dataclass(frozen=True)
class Rounds:
    """The rounds of one series; arrays have one entry a round, ordered by process and round.

    Attributes
    ----------
    process, round : array of int
        Where it was taken.
    log_median : array of float
        Log of the round's median seconds.
    """

    process: np.ndarray
    round: np.ndarray
    log_median: np.ndarray

    @property
    def key(self) -> np.ndarray:
        """One number for process and round."""
        return self.process.astype(np.int64) << 32 | self.round.astype(np.int64)

    @property
    def processes(self) -> int:
        """How many processes took part."""
        return len(np.unique(self.process))


def rounds_of(samples: pd.DataFrame) -> Rounds:
    """The rounds of one series' samples (``process``, ``round``, ``seconds``)."""
    [rounds] = _rounds_by_series(samples.assign(record_id="", series="")).values()
    return rounds


def _rounds_by_series(samples: pd.DataFrame) -> dict[tuple[str, str], Rounds]:
    """The rounds of every record id and series."""
    keys = ["record_id", "series", "process", "round"]
    table = samples.groupby(keys, observed=True)["seconds"].median().reset_index()
    process, number, seconds = (table[name].to_numpy() for name in ("process", "round", "seconds"))
    places: dict[tuple[str, str], np.ndarray] = table.groupby(keys[:2], observed=True).indices
    return {key: Rounds(process[at], number[at], np.log(seconds[at])) for key, at in places.items()}


def compare_pair(
    side: Rounds,
    baseline: Rounds,
    *,
    paired: bool,
    process_sd: float = PROCESS_SD,
    alpha: float = ALPHA,
    threshold: float = THRESHOLD,
) -> Comparison:
    """Compare two series by their rounds.

    Parameters
    ----------
    paired : bool
        Whether both were measured in the same campaign with interleaved rounds.
    process_sd : float
        Standard deviation of log latency between processes of one cell.
    """
    _, at_side, at_baseline = np.intersect1d(side.key, baseline.key, assume_unique=True, return_indices=True)
    paired = paired and len(at_side) >= 3
    if paired:
        middle, variance, df = _mean(side.log_median[at_side] - baseline.log_median[at_baseline])
    else:
        middle_a, variance_a, df_a = _mean(side.log_median)
        middle_b, variance_b, df_b = _mean(baseline.log_median)
        middle, variance = middle_a - middle_b, variance_a + variance_b
        df = _satterthwaite([(variance_a, df_a), (variance_b, df_b)])
    between = process_sd**2 * (1 / side.processes + 1 / baseline.processes)
    df = _satterthwaite([(variance, df), (between, PROCESS_DF)])
    return _judge(middle, math.sqrt(variance + between), df, paired, alpha, threshold)


def _mean(x: np.ndarray) -> tuple[float, float, float]:
    """Median over rounds, the variance of it, and degrees of freedom; robust to single wild rounds.

    The variance is that of a mean of autocorrelated values, n_eff = n (1 - r) / (1 + r) with the lag-1 autocorrelation r
    (Wilks, Statistical Methods in the Atmospheric Sciences, eq. 5.12), times π/2 for the median.
    """
    n = len(x)
    if n < 2:
        return float(x.mean()), 0.05**2, 1.0  # one round: nothing is known of its spread, 5 % is assumed
    centre = float(np.median(x))
    spread = min(float(x.std(ddof=1)), 1.4826 * 1.5 * float(np.median(np.abs(x - centre))) or float(x.std(ddof=1)))
    deviations = np.clip(x - centre, -3 * spread, 3 * spread)
    power = float((deviations**2).sum())
    r = float((deviations[1:] * deviations[:-1]).sum()) / power if power else 0.0
    effective = max(n * (1 - max(r, 0.0)) / (1 + max(r, 0.0)), 2.0)
    return centre, spread**2 / effective * (math.pi / 2), effective - 1


def _satterthwaite(parts: list[tuple[float, float]]) -> float:
    """Degrees of freedom of a sum of independent variance estimates (Welch–Satterthwaite)."""
    total = sum(variance for variance, _ in parts)
    if total == 0:
        return min(df for _, df in parts)
    return total**2 / sum(variance**2 / df for variance, df in parts)


def _judge(log_ratio: float, error: float, df: float, paired: bool, alpha: float, threshold: float) -> Comparison:
    from scipy.stats import t

    reach = float(t.ppf(1 - alpha / 2, df)) * error
    low, high = math.exp(log_ratio - reach), math.exp(log_ratio + reach)
    p_value = float(2 * t.sf(abs(log_ratio) / error, df)) if error else float(log_ratio == 0)
    ratio = math.exp(log_ratio)
    return Comparison(ratio, low, high, p_value, verdict(ratio, low, high, p_value, alpha, threshold), paired)


def verdict(ratio: float, low: float, high: float, p_value: float, alpha: float, threshold: float) -> Verdict:
    """Words for a ratio, its interval and its (adjusted) p-value."""
    if p_value <= alpha and ratio < 1 - threshold:
        return "faster"
    if p_value <= alpha and ratio > 1 + threshold:
        return "slower"
    return "same" if 1 - threshold < low and high < 1 + threshold else "undecided"


def process_sd(samples: pd.DataFrame) -> float:
    """Standard deviation of log latency between processes of one cell, pooled over all series with several processes.

    Shrunk toward ``PROCESS_SD``, which counts as ``PROCESS_DF`` observations.
    """
    medians = np.log(samples.groupby(["record_id", "series", "process"], observed=True)["seconds"].median())
    grouped = medians.groupby(["record_id", "series"], observed=True)
    counts = grouped.size() - 1
    squares = float((grouped.var(ddof=1) * counts)[counts > 0].sum())
    df = float(counts[counts > 0].sum())
    return math.sqrt((squares + PROCESS_DF * PROCESS_SD**2) / (df + PROCESS_DF))


def compare(
    frame: pd.DataFrame,
    samples: pd.DataFrame,
    *,
    baseline: str,
    by: str = "platform",
    alpha: float = ALPHA,
    threshold: float = THRESHOLD,
) -> pd.DataFrame:
    """Every platform (or precision, ...) against a baseline, for each workload and series.

    Parameters
    ----------
    frame : DataFrame
        Tidy rows (:meth:`labbench.store.Store.latest`); only those with status ok take part.
    samples : DataFrame
        Their raw samples (:meth:`labbench.store.Store.samples`).
    baseline : str
        Value of column ``by`` to compare with.

    Returns
    -------
    DataFrame
        One row a comparison: the workload, ``by``, ``ratio``, ``ci_low``, ``ci_high``, ``p_value``, ``p_adjusted``
        (Benjamini–Hochberg over all rows), ``speedup``, ``verdict``, ``paired``, ``unstable`` (whether a side's noise
        verdict is unstable: nothing is concluded from it). Workloads that the baseline lacks are left out.

    Raises
    ------
    ConfigError
        If no row has the baseline's value, naming the nearest one.
    """
    import pandas as pd

    from labbench.config import unknown_name

    rows = frame[(frame["status"] == "ok") & frame["series"].notna()]
    known = rows[by].dropna().unique()
    if baseline not in known:
        raise unknown_name(f"baseline {by}", baseline, known)
    fixed = [name for name in (*WORKLOAD, "precision", "platform", "machine_id") if name != by]
    taken = _rounds_by_series(samples)
    spread = process_sd(samples) if len(samples) else PROCESS_SD
    found = []
    for _, part in rows.groupby(fixed, observed=True, dropna=False, sort=False):
        base = part[part[by] == baseline]
        if base.empty:
            continue
        reference = base.iloc[-1]
        for _, row in part[part[by] != baseline].iterrows():
            result = _compare_rows(row, reference, taken, spread, alpha, threshold)
            unstable = "unstable" in (row["noise"], reference["noise"])
            found.append({**_identity(row, by), "baseline": baseline, **_facts(result), "unstable": unstable})
    facts = _facts(Comparison(1, 1, 1, 1, "same", True))
    columns = [*_identity(pd.Series(dtype=object), by), "baseline", *facts, "unstable"]
    table = pd.DataFrame(found, columns=columns)
    table["p_adjusted"] = benjamini_hochberg(table["p_value"].to_numpy(dtype=float))
    table["verdict"] = [
        "undecided" if r.unstable else verdict(r.ratio, r.ci_low, r.ci_high, r.p_adjusted, alpha, threshold)
        for r in table.itertuples(index=False)
    ]
    return table


def _compare_rows(
    row: pd.Series,
    reference: pd.Series,
    taken: dict[tuple[str, str], Rounds],
    process_sd: float,
    alpha: float,
    threshold: float,
) -> Comparison:
    """Two rows of the tidy table by their samples; without samples (imported results) the ratio is all there is."""
    sides = [taken.get((one["record_id"], one["series"])) for one in (row, reference)]
    if sides[0] is None or sides[1] is None:
        ratio = float(row["latency_s"] / reference["latency_s"])
        return Comparison(ratio, math.nan, math.nan, math.nan, "undecided", False)
    paired = row["campaign_id"] == reference["campaign_id"]
    return compare_pair(sides[0], sides[1], paired=paired, process_sd=process_sd, alpha=alpha, threshold=threshold)


def _identity(row: pd.Series, by: str) -> dict[str, Any]:
    names = ("model", "mode", "batch_size", "precision", "series", "platform", "throughput_unit", "provenance")
    return {name: row.get(name) for name in dict.fromkeys((*names, by))}


def _facts(result: Comparison) -> dict[str, Any]:
    names = ("ratio", "ci_low", "ci_high", "p_value", "speedup", "verdict", "paired")
    return {name: getattr(result, name) for name in names}


def benjamini_hochberg(p_values: np.ndarray) -> np.ndarray:
    """P-values adjusted for their number (false discovery rate); NaN stays NaN and does not count."""
    known = ~np.isnan(p_values)
    if not known.any():
        return p_values
    from scipy.stats import false_discovery_control

    adjusted = np.full(len(p_values), np.nan)
    adjusted[known] = false_discovery_control(p_values[known])
    return adjusted


def summary(comparison: pd.DataFrame, by: str = "platform") -> pd.DataFrame:
    """Geometric-mean speed-up of each platform over all stably measured workloads, with a 95 % bootstrap interval over models.

    Columns: ``by``, ``workloads``, ``speedup``, ``ci_low``, ``ci_high``, and a count of each verdict.
    """
    import pandas as pd

    rows = []
    for name, part in comparison[~comparison["unstable"].astype(bool)].groupby(by, observed=True, sort=False):
        logs = np.log(part["speedup"].to_numpy(dtype=float))
        low, high = _bootstrap(logs, part["model"].astype("str").to_numpy())
        counts = part["verdict"].value_counts().to_dict()
        verdicts = {key: counts.get(key, 0) for key in ("faster", "slower", "same", "undecided")}
        rows.append(
            {
                by: name,
                "workloads": len(part),
                "speedup": math.exp(logs.mean()),
                "ci_low": low,
                "ci_high": high,
                **verdicts,
            }
        )
    columns = [by, "workloads", "speedup", "ci_low", "ci_high", "faster", "slower", "same", "undecided"]
    return pd.DataFrame(rows, columns=columns).sort_values("speedup", ascending=False, ignore_index=True)


def _bootstrap(logs: np.ndarray, groups: np.ndarray, draws: int = 2000) -> tuple[float, float]:
    """Interval of the geometric mean, whole models resampled."""
    rng = np.random.default_rng(0)
    means = [logs[groups == name].mean() for name in np.unique(groups)]
    picked = rng.choice(means, size=(draws, len(means))).mean(axis=1)
    low, high = np.quantile(np.exp(picked), [0.025, 0.975])
    return float(low), float(high)


def fastest(frame: pd.DataFrame, samples: pd.DataFrame, *, alpha: float = ALPHA) -> pd.DataFrame:
    """The fastest platform of each workload and series, and whether its lead over the next one is real.

    Columns: the workload, ``platform``, ``latency_s``, ``runner_up``, ``lead`` (runner-up's latency / its own),
    ``p_value`` (NaN where a side has no samples), ``real`` (whether the difference is beyond chance and threshold; adjusted
    for the number of workloads).
    """
    import pandas as pd

    rows = frame[(frame["status"] == "ok") & frame["series"].notna()]
    taken = _rounds_by_series(samples)
    spread = process_sd(samples) if len(samples) else PROCESS_SD
    found = []
    for _, part in rows.groupby([*WORKLOAD, "precision", "machine_id"], observed=True, dropna=False, sort=False):
        ordered = part.sort_values("latency_s")
        best = ordered.iloc[0]
        entry = {**_identity(best, "platform"), "latency_s": best["latency_s"], "runner_up": None, "lead": np.nan}
        entry |= {
            "ratio": np.nan,
            "p_value": np.nan,
            "unstable": "unstable" in ordered["noise"].astype(object).tolist()[:2],
        }
        if len(ordered) > 1:
            other = ordered.iloc[1]
            result = _compare_rows(best, other, taken, spread, alpha, THRESHOLD)
            entry |= {
                "runner_up": other["platform"],
                "lead": result.speedup,
                "ratio": result.ratio,
                "p_value": result.p_value,
            }
        found.append(entry)
    table = pd.DataFrame(found)
    if table.empty:
        return table
    adjusted = benjamini_hochberg(table["p_value"].to_numpy(dtype=float))
    table["real"] = (adjusted <= alpha) & (table["ratio"] < 1 - THRESHOLD) & ~table["unstable"].astype(bool)
    return table.drop(columns=["ratio"])
