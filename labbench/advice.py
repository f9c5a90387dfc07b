"""Put advice to the test: measure the cell that it names beside the one that it starts from, and keep what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from labbench.cells import Cell
from labbench.measure.protocol import Protocol
from labbench.records import Advice, Estimate

if TYPE_CHECKING:
    import pandas as pd

    from labbench.campaign import Summary


def verify(
    advice: pd.DataFrame, store: str | Path, protocol: Protocol | None = None, *, progress: bool = True
) -> list[Summary]:
    """Measure the cell of each piece of advice anew, interleaved with its starting point, into the store.

    The record of the cell that was advised keeps the promise (:class:`labbench.records.Advice`), whatever comes of it;
    :func:`labbench.analysis.outcomes.outcomes` compares.

    Parameters
    ----------
    advice : DataFrame
        Rows of :func:`labbench.analysis.opportunities.advise`.
    protocol : Protocol, optional
        Default: the ``standard`` preset.

    Returns
    -------
    list of Summary
        One a piece of advice; the last one says so if it was interrupted, and then those after it are missing.
    """
    from labbench.campaign import Campaign

    summaries: list[Summary] = []
    for row in advice.itertuples():
        before, after = (Cell.model_validate_json(text) for text in (row.cell_before, row.cell))
        campaign = Campaign([before, after], store, protocol, rerun=True)
        campaign.advice = {campaign.cells[1].id: _promise(row, campaign.cells[0])}
        summaries.append(campaign.run(progress=progress))
        if summaries[-1].interrupted:
            break
    return summaries


def _promise(row: Any, before: Cell) -> Advice:
    """What a row of advice promises, as a record keeps it; an endless interval is none."""
    known = row.gain_ci_low > 0 and row.gain_ci_high < float("inf")
    low, high = (row.gain_ci_low, row.gain_ci_high) if known else (None, None)
    gain = Estimate(value=row.gain, ci_low=low, ci_high=high)
    return Advice(
        change=row.change, baseline_cell_id=before.id, series=row.series, gain=gain, evidence=list(row.evidence)
    )
