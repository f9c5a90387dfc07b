"""References: the same cell in an environment that stays what it is, measured in turn, so that the machine's own changes cancel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from labbench.analysis.attribution import EXPORTING, USED

if TYPE_CHECKING:
    import pandas as pd

    from labbench.records import Environment

SHARED = ("transformers", "numpy", "python", "libc")  # may make a cell slower whatever its runtime


def with_references(frame: pd.DataFrame, environments: Mapping[str, Environment] | None = None) -> pd.DataFrame:
    """The rows that are no references, with a column ``reference``: what the reference of each ran on; null without one.

    Only runs with the same reference can be held against each other by their ratios to it.

    Parameters
    ----------
    frame : DataFrame
        Tidy rows with the references among them (``Store.frame(references=True)``).
    environments : mapping, optional
        Environment id to what it was: two references are the same if the versions that may matter to the cell are. Else their
        ids must agree.
    """
    own = (frame["reference_id"].astype(object) == frame["record_id"].astype(object)).to_numpy(bool)
    known = frame[own & (frame["status"] == "ok").to_numpy(bool)].drop_duplicates("record_id")
    texts = {
        r.record_id: _versions((environments or {}).get(r.environment_id), r.environment_id, r.model, r.runtime)
        for r in known.itertuples()
    }
    return frame[~own].assign(reference=frame.loc[~own, "reference_id"].astype(object).map(texts).astype(object))


def _versions(environment: Environment | None, key: str, model: str, runtime: str) -> str:
    """What may matter to a cell, in words: ``torch 2.12.0, transformers 5.0, …``."""
    if environment is None:
        return f"environment {key}"
    names = dict.fromkeys([EXPORTING, *USED.get(runtime, ()), *SHARED, f"model {model}", f"runtime {runtime}"])
    return ", ".join(f"{name} {environment.software[name]}" for name in names if name in environment.software)
