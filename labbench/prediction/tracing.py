"""Operators of workloads of the zoo, traced on fake tensors: nothing is run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labbench.prediction.graphs import by_sample

if TYPE_CHECKING:
    import pandas as pd

    from labbench.cells import Workload

BATCHES = (3, 5)


def trace(workload: Workload) -> pd.DataFrame:
    """Operators of all series of a workload at any batch size, as they are written and as a compiler runs them."""
    import pandas as pd

    from labbench import footprint
    from labbench.operators import fused, joins, watch

    seen = []
    for batch in BATCHES:
        with footprint.calls(workload.model_copy(update={"batch_size": batch})) as found:
            seen.append({name: watch(one.run, one.module) for name, one in found.items()})
    parts = []
    for series in seen[0]:
        fewer, more = (one[series] for one in seen)
        joined = joins(more)
        parts.append(by_sample(BATCHES, fewer, more).assign(fused=False, series=series))
        parts.append(
            by_sample(BATCHES, *(fused(one, joined) for one in (fewer, more))).assign(fused=True, series=series)
        )
    return pd.concat(parts, ignore_index=True)
