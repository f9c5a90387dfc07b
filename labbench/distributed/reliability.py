"""What many ranks cost by being many: waiting for the slowest, and losing work to failures.

- The expected maximum of N draws: of a normal distribution by its quantiles, of a sample by its order (each sorted value is the
  maximum with the chance that all N draws are at most as large, less that they are below it).
- Failures come at a constant rate. With checkpoints every ``tau`` seconds of work that take ``delta``, restarts of ``R`` and a
  mean time between failures of M, work of T takes ``M exp(R / M) (exp((tau + delta) / M) - 1) T / tau`` (Daly 2006, equation 13);
  the best ``tau`` is ``M (1 + W(-exp(-1 - delta / M)))``, W being Lambert's function; Young (1974) has ``sqrt(2 delta M)`` to
  first order.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from labbench.config import ConfigError

GRID = np.linspace(-12.0, 12.0, 24_001)  # standard deviations


@cache
def _expected_maximum(draws: int) -> float:
    """Of standard normal draws, by integration: ``int x d(Phi(x)^N)``."""
    from scipy.special import log_ndtr

    below = np.exp(draws * log_ndtr(GRID))
    middle = (GRID[1:] + GRID[:-1]) / 2
    return float((middle * np.diff(below)).sum())


def expected_slowest(scatter: float, ranks: int) -> float:
    """Mean of the slowest of so many ranks over the mean rank, where times are normal with that relative standard deviation."""
    return 1.0 + scatter * _expected_maximum(ranks) if scatter and ranks > 1 else 1.0


def expected_slowest_of(samples: np.ndarray, ranks: int) -> float:
    """The same from measured times of a rank: expected maximum of so many draws from them, over their mean."""
    ordered = np.sort(np.asarray(samples, float))
    if not len(ordered) or ordered[0] <= 0:
        raise ConfigError("the slowest of several ranks is drawn from measured times: give at least one, all positive")
    chances = np.diff((np.arange(len(ordered) + 1) / len(ordered)) ** ranks)
    return float((ordered * chances).sum() / ordered.mean())


@dataclass(frozen=True)
class Training:
    """A long training on machines that fail.

    Attributes
    ----------
    work_s : float
        Without failures and checkpoints.
    ranks : int
    rank_mtbf_s : float
        Mean time between failures of one rank.
    checkpoint_s, restart_s : float
        To write a checkpoint; from a failure until work goes on.
    """

    work_s: float
    ranks: int
    rank_mtbf_s: float
    checkpoint_s: float
    restart_s: float

    def __post_init__(self) -> None:
        if not (
            self.work_s > 0
            and self.ranks >= 1
            and self.rank_mtbf_s > 0
            and self.checkpoint_s > 0
            and self.restart_s >= 0
        ):
            raise ConfigError(
                "work, ranks, time between failures and checkpoints are positive, restarts not negative: change what is not"
            )

    @property
    def mtbf_s(self) -> float:
        """Of the whole: any rank's failure stops all."""
        return self.rank_mtbf_s / self.ranks

    def young_s(self) -> float:
        """Work between checkpoints to first order (Young 1974)."""
        return float(np.sqrt(2 * self.checkpoint_s * self.mtbf_s))

    def best_interval_s(self) -> float:
        """Work between checkpoints with the least expected time."""
        from scipy.special import lambertw

        return float(self.mtbf_s * (1 + lambertw(-np.exp(-1 - self.checkpoint_s / self.mtbf_s)).real))

    def expected_s(self, interval_s: float | None = None) -> float:
        """Expected time to the end; default: with the best interval. Infinite where failures leave no way forward."""
        interval = interval_s or self.best_interval_s()
        with np.errstate(over="ignore"):
            growth = np.exp(self.restart_s / self.mtbf_s) * np.expm1((interval + self.checkpoint_s) / self.mtbf_s)
        return float(self.mtbf_s * growth * self.work_s / interval)

    def first_order_s(self, interval_s: float | None = None) -> float:
        """The same where failures are rare: checkpoints, half an interval and a restart lost to each failure."""
        interval = interval_s or self.young_s()
        return self.work_s * (1 + self.checkpoint_s / interval + (interval / 2 + self.restart_s) / self.mtbf_s)
