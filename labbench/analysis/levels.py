"""The level of every record at once: what :mod:`labbench.analysis.ratio` says of one pair, for a million rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from labbench.analysis.ratio import FEW_ROUNDS, ONE_ROUND_SD, PROCESS_SD, Contrast, Spread, fit_spread

if TYPE_CHECKING:
    import pandas as pd

MOST_FITTED = 2000  # records that the spread between processes is fitted to; more make it no better known


def levels(samples: pd.DataFrame, references: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Log latency of each record and series, and how well it is known from its own processes and rounds.

    A process is the median over its rounds, a record the mean over its processes; the variance is moderated by the spread
    between processes of all records (:mod:`labbench.analysis.ratio`).

    Parameters
    ----------
    samples : DataFrame
        Raw samples (:meth:`labbench.store.Store.samples`).
    references : mapping, optional
        Record id to that of its reference, measured in turn: of these records the log of the ratio to the reference, paired by
        rounds. A process with few rounds in common does not count; others' levels are left out.

    Returns
    -------
    DataFrame
        ``record_id``, ``series``, ``log_s``, ``variance`` of it, ``processes``.
    """
    import pandas as pd

    medians = process_medians(samples, references)
    record, first = _groups(medians["record"], medians["series"])
    count = np.bincount(record, minlength=len(first))
    log_s = np.bincount(record, medians["log_s"], len(first)) / count
    within = np.bincount(record, medians["variance"], len(first)) / count
    squares = np.bincount(record, (medians["log_s"] - log_s[record]) ** 2, len(first))
    df = count - 1
    between = squares / np.maximum(df, 1)
    assumed = None if references is None else Spread(math.sqrt(2) * PROCESS_SD)  # of a difference
    variance = spread_of(between, df, within, assumed).moderated(between, df, within) / count
    names = {name: _texts(samples[name], medians[key].to_numpy()[first]) for name, key in _SOURCES.items()}
    return pd.DataFrame({**names, "log_s": log_s, "variance": variance, "processes": count})


_SOURCES = {"record_id": "record", "series": "series"}


def spread_of(variance: np.ndarray, df: np.ndarray, within: np.ndarray, assumed: Spread | None = None) -> Spread:
    """:func:`labbench.analysis.ratio.fit_spread` for arrays; evenly picked ones if there are very many."""
    known = np.flatnonzero((df > 0) & np.isfinite(variance) & np.isfinite(within))
    picked = known[np.linspace(0, len(known) - 1, min(len(known), MOST_FITTED)).astype(int)] if len(known) else known
    found = [Contrast(0.0, float(variance[i]), int(df[i]), float(within[i]), 1.0, False) for i in picked]
    return fit_spread(found, assumed)


def process_medians(samples: pd.DataFrame, references: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Median over rounds of each process and its variance, as :func:`labbench.analysis.ratio.contrast` takes them.

    With ``references`` of the ratio to these (see :func:`levels`).

    Returns
    -------
    DataFrame
        ``record`` and ``series`` (codes of the categories in ``samples``), ``process``, ``log_s``, ``variance``.
    """
    import pandas as pd

    keys = [_codes(samples["record_id"]), _codes(samples["series"])]
    keys += [samples[name].to_numpy(np.int64) for name in ("process", "round")]
    number, first = _groups(*keys)
    with np.errstate(divide="ignore"):
        log_round = np.log(_medians(samples["seconds"].to_numpy(float), number, len(first)))
    keys = [key[first] for key in keys]
    if references is not None:
        keys, log_round = _ratios(keys, log_round, _named(samples["record_id"], references))
    process, first_round = _groups(*keys[:3])
    centre, variance = _process(log_round, process, len(first_round))
    record, series, index = (key[first_round] for key in keys[:3])
    return pd.DataFrame({"record": record, "series": series, "process": index, "log_s": centre, "variance": variance})


def _named(records: pd.Series, references: Mapping[str, str]) -> np.ndarray:
    """Of each record's code, that of its reference; -1 where it has none, or none that was sampled."""
    names = records.astype("category").cat.categories
    found: np.ndarray = names.get_indexer([references.get(name, "") for name in names])
    return found


def _ratios(keys: list[np.ndarray], log_s: np.ndarray, named: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """The rounds (record, series, process, round) that are in the record's reference too, and the logs of their ratios."""
    import pandas as pd

    names = ["record", "series", "process", "round"]
    rounds = pd.DataFrame({**dict(zip(names, keys, strict=True)), "log_s": log_s})
    sides = rounds.assign(named=named[keys[0]])
    both = sides[sides["named"] >= 0].merge(
        rounds.rename(columns={"record": "named"}), on=["named", *names[1:]], suffixes=("", "_reference")
    )
    both = both[both.groupby(names[:3])["round"].transform("size") >= FEW_ROUNDS].sort_values(names)
    return [both[name].to_numpy() for name in names], (both["log_s"] - both["log_s_reference"]).to_numpy()


def _process(x: np.ndarray, process: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Median over rounds and its variance, of all processes; ``x`` is in order of process and round."""
    n = np.bincount(process, minlength=size)
    centre = _medians(x, process, size)
    deviation = x - centre[process]
    mean = np.bincount(process, x, size) / n
    sd = np.sqrt(np.bincount(process, (x - mean[process]) ** 2, size) / np.maximum(n - 1, 1))
    robust = 1.4826 * 1.5 * _medians(np.abs(deviation), process, size)
    spread = np.minimum(sd, np.where(robust > 0, robust, sd))
    reach = 3 * spread[process]
    clipped = np.clip(deviation, -reach, reach)
    power = np.bincount(process, clipped**2, size)
    beside = process[1:] == process[:-1]
    lagged = np.bincount(process[1:][beside], (clipped[1:] * clipped[:-1])[beside], size)
    r = np.maximum(np.divide(lagged, power, out=np.zeros(size), where=power > 0), 0)
    effective = np.maximum(n * (1 - r) / (1 + r), 2)
    return centre, np.where(n < 2, ONE_ROUND_SD**2, spread**2 / effective * (math.pi / 2))


def _medians(values: np.ndarray, group: np.ndarray, size: int) -> np.ndarray:
    """Median of each group 0 … size - 1, none of which is empty."""
    ordered = values[np.lexsort((values, group))]
    count = np.bincount(group, minlength=size)
    begin = np.cumsum(count) - count
    middles: np.ndarray = (ordered[begin + (count - 1) // 2] + ordered[begin + count // 2]) / 2
    return middles


def _groups(*keys: np.ndarray | pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Number of each row's group, in ascending order of the keys, and a row of each group."""
    columns = [np.asarray(key) for key in keys]
    order = np.lexsort(columns[::-1])
    new = np.ones(len(order), dtype=bool)
    new[1:] = np.any([column[order][1:] != column[order][:-1] for column in columns], axis=0)
    number = np.empty(len(order), dtype=np.int64)
    number[order] = np.cumsum(new) - 1
    return number, order[new]


def _codes(values: pd.Series) -> np.ndarray:
    codes: np.ndarray = values.astype("category").cat.codes.to_numpy(np.int64)
    return codes


def _texts(values: pd.Series, codes: np.ndarray) -> np.ndarray:
    texts: np.ndarray = values.astype("category").cat.categories.to_numpy(object)[codes]
    return texts
