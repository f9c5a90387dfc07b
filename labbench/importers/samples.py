"""A series from another tool's raw times, with the estimates that labbench's own series have."""

from __future__ import annotations

from collections.abc import Sequence

from labbench.records import Estimate, Samples, Series

MIN_FOR_INTERVAL = 6  # samples: with fewer there is no distribution-free 95 % interval, even of the median (binomial)


def sampled(
    name: str,
    seconds: Sequence[float],
    *,
    items: float,
    unit: str,
    process: Sequence[int] | None = None,
    calls_per_sample: int | None = 1,
    warmup_calls: int | None = None,
) -> Series:
    """A series of samples in the order taken.

    Intervals are bootstrapped over whole processes where there are enough of them, since samples of one process resemble one
    another; over single samples otherwise. A handful of samples gives a median without interval and no further quantile.

    Parameters
    ----------
    seconds : sequence of float
        Seconds per call, above zero.
    process : sequence of int, optional
        Which process took each sample; one process by default.
    """
    import numpy as np

    from labbench.measure import stats

    owner = [0] * len(seconds) if process is None else list(process)
    estimates: list[Estimate | None] = [Estimate(value=float(np.median(seconds))), None, None]
    if len(seconds) >= MIN_FOR_INTERVAL:
        # a process is to the bootstrap what a round is in labbench's own measurements: the block that is drawn whole
        estimates = [*stats.quantiles(seconds, [0] * len(seconds), owner, (0.5, 0.9, 0.99))]
    median, p90, p99 = estimates
    assert median is not None
    q1, q3 = np.quantile(seconds, (0.25, 0.75))
    return Series(
        name=name,
        calls_per_sample=calls_per_sample,
        items_per_call=items,
        unit=unit,
        n_samples=len(seconds),
        median_s=median,
        p90_s=p90,
        p99_s=p99,
        mean_s=float(np.mean(seconds)),
        iqr_s=float(q3 - q1) if len(seconds) >= MIN_FOR_INTERVAL else None,
        throughput=items / median.value,
        warmup_calls=warmup_calls,
        samples=Samples(seconds=list(seconds), process=owner, round=[0] * len(seconds)),
    )
