r"""The ratio of two latencies, from rounds of samples in several processes: a mixed model with moderated variances.

Samples of one round resemble one another, so do rounds of one process, and processes of one cell differ by a little more than
their rounds say (placement in memory, alignment). The unit of observation is therefore the *process*:

    round     log median of its samples
    process   median over its rounds; of interleaved cells, over the differences of rounds taken side by side, so that drift cancels
    cell      mean over P processes, whose variance v is

    v = τ² + κ w      τ²: between processes, w: what its own rounds say of the error of a process's median
    ṽ = (d₀ v + d s²) / (d₀ + d)      s²: observed between the cell's processes, with d degrees of freedom

A cell has two to five processes, so s² alone is nearly worthless (d = 1), while all cells of a comparison together know τ² well.
τ, κ (rounds that resemble one another, or medians better than normal ones, make w wrong by a factor) and the weight d₀ of
this knowledge are fitted to all of them: s² / v follows an F distribution with d and d₀ degrees of freedom. The ratio's
interval is Student's with d₀ + d degrees. This is the moderated t statistic (Smyth, "Linear models and empirical Bayes
methods for assessing differential expression in microarray experiments", Stat. Appl. Genet. Mol. Biol. 3, 2004), with
the prior variance depending on the cell through w. ``benchmarks/verdicts.py`` shows its coverage beside a hierarchical bootstrap's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar, get_args

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

Verdict = Literal["faster", "slower", "same", "undecided"]
VERDICTS: tuple[str, ...] = get_args(Verdict)
Numbers = TypeVar("Numbers", float, np.ndarray)

OUTSIDE = 0.05  # probability that an interval misses the truth
ALPHA = 0.025  # of a verdict: half of the 5 % allowed, as p-values from two processes are good to about a fifth in their tails
THRESHOLD = 0.02  # ratios within 2 % of 1 are no difference that anybody should act on
PROCESS_SD = 0.006  # between processes, sd of log latency: assumed where it cannot be estimated
PROCESS_DF = 10.0  # weight of that assumption, in degrees of freedom
CAMPAIGN_SD = 0.01  # between campaigns (hours, neighbours, temperature): nothing within a campaign tells of it
CAMPAIGN_DF = 10.0
RATIO_SD = (
    0.005  # the same for ratios to a reference measured in turn: 0 to 0.5 % by model, over hours on a host of 5 to 12 %
)
FEW_ROUNDS = 3  # fewer rounds in common are not paired
ONE_ROUND_SD = 0.05  # a process of one round: nothing is known of its spread, 5 % is assumed
TINY = 1e-12  # a variance of log latency below which nothing is told apart
MOST_PROCESSES = 1000  # more than this nobody will measure: no number is given
# Where τ, κ and d₀ are looked for.
SDS, SCALES, DFS = np.geomspace(2e-4, 0.2, 61), np.geomspace(0.1, 4, 9), np.array([2.0, 3, 5, 10, 20, 60])
ENOUGH = 5000  # contrasts to fit to
PRIOR_WIDTH = 1.0  # sd of their logarithms around the assumptions: a factor of e, outweighed by a few cells


@dataclass(frozen=True)
class Comparison:
    """How one side's latency relates to a baseline's.

    Attributes
    ----------
    ratio : float
        Latency divided by the baseline's: below 1 is faster.
    ci_low, ci_high : float
        95 % interval of the ratio.
    p_value : float
        Of the hypothesis that the ratio is 1.
    verdict : str
        ``faster`` or ``slower`` (interval excludes 1 and the ratio is beyond the threshold), ``same`` (interval within the
        threshold), else ``undecided``. Without samples on both sides interval and p-value are NaN, the verdict is undecided.
    paired : bool
        Whether interleaved rounds were paired.
    more_processes : float
        How many further processes on each side would decide an undecided verdict, if the ratio stays what it is; 0 if it is
        decided, infinite if more than 1,000, NaN without samples.
    """

    ratio: float
    ci_low: float
    ci_high: float
    p_value: float
    verdict: Verdict
    paired: bool
    more_processes: float

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
    samples : int
        Samples in all of them.
    """

    process: np.ndarray
    round: np.ndarray
    log_median: np.ndarray
    samples: int

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
    [rounds] = rounds_by_series(samples.assign(record_id="", series="")).values()
    return rounds


def rounds_by_series(samples: pd.DataFrame) -> dict[tuple[str, str], Rounds]:
    """The rounds of every record id and series."""
    keys = ["record_id", "series", "process", "round"]
    grouped = samples.groupby(keys, observed=True)["seconds"]
    table = grouped.median().reset_index().assign(samples=grouped.size().to_numpy())
    process, number, seconds, sizes = (table[name].to_numpy() for name in ("process", "round", "seconds", "samples"))
    places: dict[tuple[str, str], np.ndarray] = table.groupby(keys[:2], observed=True).indices
    return {
        key: Rounds(process[at], number[at], np.log(seconds[at]), int(sizes[at].sum())) for key, at in places.items()
    }


def relative(side: Rounds, reference: Rounds) -> Rounds:
    """The rounds that both have, and the logs of their ratios: what is left when whatever both met is taken out."""
    _, at_side, at_reference = np.intersect1d(side.key, reference.key, assume_unique=True, return_indices=True)
    difference = side.log_median[at_side] - reference.log_median[at_reference]
    return Rounds(side.process[at_side], side.round[at_side], difference, side.samples)


@dataclass(frozen=True)
class Contrast:
    """Two sides reduced to what their processes say.

    Attributes
    ----------
    log_ratio : float
        Mean over processes.
    variance : float
        Observed between the processes of one side, s²; 0 where ``df`` is 0.
    df : int
        Its degrees of freedom.
    within : float
        Variance of one process's median on one side, by its rounds: w.
    factor : float
        What a side's variance is multiplied by to get that of the log ratio: 2 / P, or 1 / P + 1 / P'.
    paired : bool
    """

    log_ratio: float
    variance: float
    df: int
    within: float
    factor: float
    paired: bool


def contrast(side: Rounds, baseline: Rounds, *, paired: bool) -> Contrast:
    """Reduce two series to their processes; ``paired`` if their rounds were interleaved."""
    if paired:
        both = relative(side, baseline)
        middles, variances = _processes(both.process, both.log_median)
        if len(middles):
            count = len(middles)
            between = float(np.var(middles, ddof=1)) / 2 if count > 1 else 0.0  # of a difference, so of two sides
            return Contrast(float(middles.mean()), between, count - 1, float(variances.mean()) / 2, 2 / count, True)
    (a, variances_a), (b, variances_b) = (_processes(one.process, one.log_median, 1) for one in (side, baseline))
    df = len(a) + len(b) - 2
    squares = ((a - a.mean()) ** 2).sum() + ((b - b.mean()) ** 2).sum()
    within = float(np.concatenate([variances_a, variances_b]).mean())
    factor = 1 / len(a) + 1 / len(b)
    return Contrast(float(a.mean() - b.mean()), float(squares / df) if df else 0.0, df, within, factor, False)


def _processes(process: np.ndarray, values: np.ndarray, fewest: int = FEW_ROUNDS) -> tuple[np.ndarray, np.ndarray]:
    """Median of the rounds of each process that has at least ``fewest``, and its variance."""
    parts = [values[process == p] for p in np.unique(process)]
    found = [_median(part) for part in parts if len(part) >= fewest]
    return np.array([middle for middle, _ in found]), np.array([variance for _, variance in found])


def _median(x: np.ndarray) -> tuple[float, float]:
    """Median over rounds and its variance; robust to single wild rounds.

    The variance is that of a mean of autocorrelated values, n_eff = n (1 - r) / (1 + r) with the lag-1 autocorrelation r
    (Wilks, Statistical Methods in the Atmospheric Sciences, eq. 5.12), times π/2 for the median.
    """
    n = len(x)
    if n < 2:
        return float(x[0]), ONE_ROUND_SD**2
    centre = float(np.median(x))
    spread = min(float(x.std(ddof=1)), 1.4826 * 1.5 * float(np.median(np.abs(x - centre))) or float(x.std(ddof=1)))
    deviations = np.clip(x - centre, -3 * spread, 3 * spread)
    power = float((deviations**2).sum())
    r = float((deviations[1:] * deviations[:-1]).sum()) / power if power else 0.0
    effective = max(n * (1 - max(r, 0.0)) / (1 + max(r, 0.0)), 2.0)
    return centre, spread**2 / effective * (math.pi / 2)


@dataclass(frozen=True)
class Spread:
    """What is known of the variance between processes before a cell's own are looked at.

    Attributes
    ----------
    sd : float
        τ, standard deviation of log latency between processes of one cell.
    df : float
        d₀, how many degrees of freedom that knowledge is worth.
    scale : float
        κ, what the variance by rounds is multiplied by.
    """

    sd: float = PROCESS_SD
    df: float = PROCESS_DF
    scale: float = 1.0

    def moderated(self, variance: Numbers, df: Numbers, within: Numbers) -> Numbers:
        """ṽ: what was observed with ``df`` degrees of freedom, drawn towards what is expected; numbers or arrays."""
        return (self.df * (self.sd**2 + self.scale * within) + df * variance) / (self.df + df)


def fit_spread(contrasts: Sequence[Contrast], assumed: Spread | None = None) -> Spread:
    """The spread that all contrasts together speak for: the most probable τ, κ and d₀.

    Each one's s² / (τ² + κ w) follows F(d, d₀). Where few have several processes, the result stays near what is ``assumed``.
    Of very many, an even sample is asked.
    """
    assumed = assumed or Spread()
    known = [one for one in contrasts if one.df > 0]
    if not known:
        return assumed
    sds, scales, dfs = np.meshgrid(SDS, SCALES, DFS, indexing="ij")
    far = np.log(sds / assumed.sd) ** 2 + np.log(scales / assumed.scale) ** 2 + np.log(dfs / assumed.df) ** 2
    density = -far / 2 / PRIOR_WIDTH**2
    for one in known[:: math.ceil(len(known) / ENOUGH)]:
        expected = sds**2 + scales * one.within
        density += _log_f(max(one.variance, TINY) / expected, one.df, dfs) - np.log(expected)
    best = np.unravel_index(np.argmax(density), density.shape)
    return Spread(float(sds[best]), float(dfs[best]), float(scales[best]))


def _log_f(x: np.ndarray, d1: float, d2: np.ndarray) -> np.ndarray:
    """Log density of the F distribution; SciPy's spends most of its time on checking arguments."""
    from scipy.special import betaln

    power = d1 / 2 * np.log(d1 / d2) + (d1 / 2 - 1) * np.log(x) - (d1 + d2) / 2 * np.log1p(d1 * x / d2)
    density: np.ndarray = power - betaln(d1 / 2, d2 / 2)
    return density


def judge(
    found: Contrast,
    spread: Spread | None = None,
    *,
    same_campaign: bool = True,
    campaign_sd: float = CAMPAIGN_SD,
    alpha: float = ALPHA,
    threshold: float = THRESHOLD,
) -> Comparison:
    """The verdict on one contrast.

    Parameters
    ----------
    spread : Spread, optional
        From :func:`fit_spread`; default: the assumption.
    same_campaign : bool
        Else the variance between campaigns is added.
    campaign_sd : float
        Its root, of log latency.
    threshold : float
        Practical significance: relative differences up to this are none.
    """
    from scipy.stats import t

    spread = spread or Spread()
    variance = spread.moderated(found.variance, found.df, found.within)
    parts = [(variance * found.factor, spread.df + found.df)]
    if not same_campaign:
        parts.append((2 * campaign_sd**2, CAMPAIGN_DF))
    error, df = math.sqrt(sum(part for part, _ in parts)), _satterthwaite(parts)
    reach = float(t.ppf(1 - OUTSIDE / 2, df)) * error
    low, high = math.exp(found.log_ratio - reach), math.exp(found.log_ratio + reach)
    p_value = float(2 * t.sf(abs(found.log_ratio) / error, df))
    ratio = math.exp(found.log_ratio)
    said = verdict(ratio, low, high, p_value, alpha, threshold)
    more = 0.0 if said != "undecided" else more_processes(ratio, error, df, 2 / found.factor, alpha, threshold)
    return Comparison(ratio, low, high, p_value, said, found.paired, more)


def _satterthwaite(parts: list[tuple[float, float]]) -> float:
    """Degrees of freedom of a sum of independent variance estimates (Welch–Satterthwaite)."""
    total = sum(variance for variance, _ in parts)
    return total**2 / sum(variance**2 / df for variance, df in parts)


def verdict(ratio: float, low: float, high: float, p_value: float, alpha: float, threshold: float) -> Verdict:
    """Words for a ratio, its interval and its (adjusted) p-value."""
    if p_value <= alpha and ratio < 1 - threshold:
        return "faster"
    if p_value <= alpha and ratio > 1 + threshold:
        return "slower"
    return "same" if 1 - threshold < low and high < 1 + threshold else "undecided"


def more_processes(ratio: float, error: float, df: float, processes: float, alpha: float, threshold: float) -> float:
    """Further processes on each side after which the interval would decide, its middle staying where it is.

    The error shrinks with the root of their number. A ratio beyond the threshold is decided when the interval excludes 1, one
    within it when the interval is within it; infinite if that takes more than ``MOST_PROCESSES``.
    """
    from scipy.stats import t

    beyond = not 1 - threshold <= ratio <= 1 + threshold
    room = abs(math.log(ratio)) if beyond else min(math.log((1 + threshold) / ratio), math.log(ratio / (1 - threshold)))
    if room <= 0:
        return math.inf
    needed = math.ceil(processes * (float(t.ppf(1 - alpha / 2, df)) * error / room) ** 2)
    return float(max(needed - processes, 1)) if needed <= MOST_PROCESSES else math.inf


def compare_pair(
    side: Rounds,
    baseline: Rounds,
    *,
    paired: bool,
    spread: Spread | None = None,
    same_campaign: bool = True,
    alpha: float = ALPHA,
    threshold: float = THRESHOLD,
) -> Comparison:
    """Compare two series by their rounds: :func:`contrast`, then :func:`judge`.

    Parameters
    ----------
    paired : bool
        Whether both were measured in the same campaign with interleaved rounds.
    """
    found = contrast(side, baseline, paired=paired)
    return judge(found, spread, same_campaign=same_campaign, alpha=alpha, threshold=threshold)


def benjamini_hochberg(p_values: np.ndarray) -> np.ndarray:
    """P-values adjusted for their number (false discovery rate); NaN stays NaN and does not count."""
    known = ~np.isnan(p_values)
    if not known.any():
        return p_values
    from scipy.stats import false_discovery_control

    adjusted = np.full(len(p_values), np.nan)
    adjusted[known] = false_discovery_control(p_values[known])
    return adjusted
