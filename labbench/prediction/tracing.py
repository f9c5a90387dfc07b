"""Operators of the zoo's workloads, traced on fake tensors when they are asked about: nothing is run.

A trace of a built-in model is kept on disk beside the footprints, ``~/.cache/labbench/operators/VERSIONS/WORKLOAD.parquet``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from labbench import footprint_cache, zoo
from labbench.cells import Workload
from labbench.config import ConfigError
from labbench.prediction.graphs import COLUMNS, TRAFFIC, WORKLOAD_KEY, Graphs, by_sample
from labbench.store.disk import write_whole

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from labbench.prediction.config import PredictionConfig

BATCHES = (3, 5)
NO_MODEL = "its operators cannot be traced: the zoo has no such model"
PATIENCE_S = 2  # before progress is shown
FIELDS = tuple(name for name in WORKLOAD_KEY if name in Workload.model_fields)
WHOLE = ("seq_len", "image_size", "frames", "accumulation")  # numbers that a frame may hold as floats


def trace(workload: Workload) -> pd.DataFrame:
    """Operators of all series of a resolved workload at any batch size, as they are written and as runtimes join them.

    Inference is traced in fp32, and the bytes of a narrower precision scaled as :mod:`labbench.footprint` does.
    """
    import pandas as pd

    from labbench import footprint
    from labbench.operators import folded, fused, joins, watch

    seen = []
    for batch in BATCHES:
        with footprint.calls(workload.model_copy(update={"batch_size": batch})) as found:
            seen.append({name: watch(one.run, one.module, views=True) for name, one in found.items()})
    parts = []
    for series in seen[0]:
        calls = [one[series] for one in seen]
        into = folded(calls[-1])
        for exported in (False, True) if workload.mode == "inference" else (False,):
            left = (
                [[one for one, gone in zip(call, into, strict=True) if not gone] for call in calls]
                if exported
                else calls
            )
            joined = joins(left[-1])
            for compiled in (False, True):
                these = [fused(call, joined) for call in left] if compiled else left
                parts.append(by_sample(BATCHES, *these).assign(fused=compiled, exported=exported, series=series))
    table = pd.concat(parts, ignore_index=True)
    moved = [*TRAFFIC, *(f"{name}_fixed" for name in TRAFFIC)]
    table[moved] *= footprint.scale_of(workload)
    return table


class ZooGraphs(Graphs):
    """Operators of the workloads of the zoo that it is asked about: what is not known yet is traced.

    Attributes
    ----------
    why_not : dict
        Workload that could not be traced to the reason.
    """

    why_not: dict[Workload, str]
    _asked: set[Workload]

    def __init__(self) -> None:
        import pandas as pd

        super().__init__(pd.DataFrame(columns=[*COLUMNS, *FIELDS, "series", "exported"]))
        self.__dict__.update(why_not={}, _asked=set())

    def __getstate__(self) -> dict[str, Any]:
        """See :meth:`Graphs.__getstate__`."""
        return {**super().__getstate__(), "why_not": self.why_not, "_asked": self._asked}

    def number(self, frame: pd.DataFrame) -> np.ndarray:
        """See :meth:`Graphs.number`; -1 is left to what cannot be traced."""
        self._learn(workloads_of(frame))
        return super().number(frame)

    def unknown(self, frame: pd.DataFrame) -> list[str | None]:
        """See :meth:`Graphs.unknown`."""
        why = {
            workload.model: f"its operators could not be traced: {reason}" for workload, reason in self.why_not.items()
        }
        models = frame["model"].astype("str")
        return [told and why.get(model, NO_MODEL) for told, model in zip(super().unknown(frame), models, strict=True)]

    def _learn(self, workloads: Iterable[Workload]) -> None:
        import pandas as pd
        from tqdm.auto import tqdm

        new = [one for one in workloads if one not in self._asked]
        found = []
        for workload in tqdm(new, "operators", delay=PATIENCE_S, leave=False, disable=not new):
            self._asked.add(workload)
            try:
                table = kept(workload)
            except Exception as error:  # building and tracing a user's model may raise anything
                self.why_not[workload] = f"{type(error).__name__}: {error}"
            else:
                found.append(table.assign(**{name: getattr(workload, name) for name in FIELDS}))
        if found:
            grown = pd.concat([self.operators, *found] if len(self.operators) else found, ignore_index=True)
            self.__dict__ = self.__getstate__() | {"operators": grown}  # and nothing that was worked out before


def traced(frame: pd.DataFrame, config: PredictionConfig) -> ZooGraphs | None:
    """Operators of a frame's workloads, traced; none where the zoo knows none of them or the configuration asks for totals."""
    if config.operators == "totals":
        return None
    graphs = ZooGraphs()
    return graphs if (graphs.number(frame[frame["status"] == "ok"]) >= 0).any() else None


def workloads_of(frame: pd.DataFrame) -> list[Workload]:
    """Different workloads of a frame's rows, whatever their batch size, that the zoo knows."""
    import pandas as pd

    asked = frame.reindex(columns=list(FIELDS)).astype(object).drop_duplicates()
    found = []
    for row in asked.to_dict("records"):
        fields = {name: value for name, value in row.items() if not pd.isna(value)}
        fields |= {name: int(fields[name]) for name in WHOLE if name in fields}
        with contextlib.suppress(ConfigError, ValidationError):  # an imported model, of which the zoo knows nothing
            found.append(zoo.resolve(Workload(**fields)))
    return found


def kept(workload: Workload) -> pd.DataFrame:
    """:func:`trace`, or what is on disk of one by the same versions; of a user's model always a new trace."""
    import pandas as pd

    path = footprint_cache.path_of(workload, "operators", ".parquet") if footprint_cache.cacheable(workload) else None
    if path is None:
        return trace(workload)
    with contextlib.suppress(OSError, ValueError):  # none yet, or a damaged one
        return pd.read_parquet(path)
    table = trace(workload)
    with contextlib.suppress(OSError):  # no space or no right to write: it is traced again
        footprint_cache.make_room(path)
        write_whole(path, table.to_parquet())
    return table
