"""Cells that nobody measured, as rows the predictor understands."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from labbench.cells import Cell
from labbench.prediction.config import PredictionError
from labbench.prediction.features import PLATFORM, TOTALS, WORKLOAD, Ceilings
from labbench.prediction.predictor import Predictor, devices_of

if TYPE_CHECKING:
    import pandas as pd

    from labbench.cells import Workload
    from labbench.prediction.config import PredictionConfig
    from labbench.records import Footprint
    from labbench.store import Store

PEAKS = {"tensor_peak_bytes": "peak_bytes", "tensor_peak_cpu_bytes": "peak_cpu_bytes"}  # as footprints call them
SERIES_COLUMNS = ("series", "flops", "bytes", "kernels", "parameters", "activation_bytes", *PEAKS)
MEASURED_AS = ("items_per_call", "throughput_unit")


def candidates(cells: Iterable[Cell], machines: Iterable[str]) -> pd.DataFrame:
    """One row for each series of each cell on each machine, with the footprint counted (nothing is run).

    Parameters
    ----------
    cells : iterable of Cell
        Resolved cells (:func:`labbench.campaign.resolve`).
    machines : iterable of str
        Machine ids, e.g. those of a store.

    Returns
    -------
    DataFrame
        Columns named as in a store's frame, ready for :meth:`Predictor.predict`, and ``uncounted``: why a workload could not
        be counted (it then has one row, without a footprint), else missing.
    """
    import pandas as pd

    counted: dict[str, tuple[dict[str, Footprint | None], str | None]] = {}
    rows = []
    machines = list(machines)
    for cell in cells:
        key = cell.workload.model_dump_json()
        if key not in counted:
            counted[key] = _counted(cell.workload)
        demands, uncounted = counted[key]
        for machine in machines:
            for index, (series, demand) in enumerate(demands.items()):
                rows.append(
                    cell.flat()
                    | {
                        "cell_id": cell.id,
                        "machine_id": machine,
                        "platform": cell.platform.label,
                        "series": series,
                        "primary": index == 0,
                        "uncounted": uncounted,
                    }
                    | _columns(demand)
                )
    return pd.DataFrame(rows)


def _counted(workload: Workload) -> tuple[dict[str, Footprint | None], str | None]:
    """Footprint of each series; or none, and why not: building and tracing a user's model may raise anything."""
    from labbench import footprint

    try:
        return dict(footprint.of(workload)), None
    except Exception as error:
        text = str(error).strip().splitlines()
        return {"step" if workload.mode == "training" else "forward": None}, (
            f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
        )


def with_threads(cells: Iterable[Cell], measured: pd.DataFrame) -> list[Cell]:
    """Each cell with every number of threads that something was measured with on its device and runtime; as it is, if nothing was.

    Parameters
    ----------
    cells : iterable of Cell
    measured : DataFrame
        ``Store.latest()``, or some of its rows.
    """
    import pandas as pd

    ran: dict[tuple[str, str], set[int]] = {}  # 0: as many as there are
    for place in measured[["device", "runtime", "threads_asked"]].drop_duplicates().itertuples():
        threads = 0 if pd.isna(place.threads_asked) else int(place.threads_asked)
        ran.setdefault((str(place.device), str(place.runtime)), set()).add(threads)
    return [
        Cell(workload=cell.workload, platform=cell.platform.model_copy(update={"threads": threads or None}))
        for cell in cells
        for threads in sorted(ran.get((cell.platform.device, cell.platform.runtime), {cell.platform.threads or 0}))
    ]


def missing(frame: pd.DataFrame) -> pd.DataFrame:
    """Cells that a store could hold and does not: workloads measured on some platform, absent on another.

    A platform is asked only about a mode and precision that it ran for some model, and never about a cell that has a
    record of any status: what failed or is not supported was not forgotten. The footprint is taken from the workload's
    record on another platform, so nothing is counted or run.
    """
    import pandas as pd

    known = frame[(frame["status"] == "ok") & frame["flops"].notna()]
    platform = [*PLATFORM, "device", "device_name", "runtime", "world_size", "threads"]
    offered = known[[*platform, "mode", "precision"]].drop_duplicates([*PLATFORM, "mode", "precision"])
    by_class = [name for name in known if str(name).startswith(("flops_", "bytes_", "kernels_"))]
    columns = [*WORKLOAD, "primary", *(name for name in SERIES_COLUMNS if name in known), *MEASURED_AS, *by_class]
    demanded = known[["machine_id", *columns]].drop_duplicates(["machine_id", *WORKLOAD, "series"])
    pairs = demanded.merge(offered, on=["machine_id", "mode", "precision"])
    seen = frame[[*PLATFORM, *WORKLOAD]].drop_duplicates()
    asked = _texts(pairs).merge(_texts(seen), on=[*PLATFORM, *WORKLOAD], how="left", indicator=True)
    absent = asked["_merge"].to_numpy() == "left_only"
    return pd.DataFrame(pairs[absent].reset_index(drop=True))


def predict_cells(
    store: Store,
    cells: Iterable[Cell],
    config: PredictionConfig | None = None,
    predictor: Predictor | None = None,
    gpu: str | None = None,
) -> pd.DataFrame:
    """Predict cells on each machine of a store that ran their platform, or could; see :meth:`Predictor.predict`.

    Parameters
    ----------
    store : Store
        Where to predict for; without ``predictor`` also what is learnt from.
    cells : iterable of Cell
        Resolved cells (:func:`labbench.campaign.resolve`).
    config : PredictionConfig, optional
        How to fit.
    predictor : Predictor, optional
        Fitted before, e.g. that of :func:`labbench.prediction.card.load`; default: one is fitted to the store.
    gpu : str, optional
        Name of a card that need not be in the store: the cells are predicted on it alone, from its datasheet.

    Raises
    ------
    PredictionError
        If the store holds too little to learn from, or no result at all, or no datasheet fits ``gpu``.
    """
    table = store.latest()
    if predictor is None:
        predictor = (Predictor(config) if config else Predictor()).fit(table, store.environments())
    if gpu:
        if Ceilings.named(gpu) is None:
            raise PredictionError(
                f"no datasheet of one card, or of cards that are alike, fits {gpu!r}; name it in full, e.g. 'H100 PCIe 80 GB'"
            )
        return _told(predictor, candidates(cells, [gpu]).assign(device_name=gpu))
    environments = store.environments()
    machines = sorted({*table["machine_id"].dropna().astype("str"), *(one.machine_id for one in environments.values())})
    if table["machine_id"].isna().all():
        raise PredictionError(
            f"{store.path} has no result of any machine to predict for; measure some with `labbench run`"
        )
    asked = candidates(cells, machines)
    ran, wanted = set(_places(table)), _places(asked)
    platforms, used = {place[1:] for place in ran}, {place[:2] for place in ran}
    idle = {tuple(place) for place in devices_of(environments).itertuples(index=False)} - used
    # Of a platform that nothing ran on any machine all rows stay: they give the reason.
    there = [place in ran or place[1:] not in platforms or place[:2] in idle for place in wanted]
    return _told(predictor, asked[there].reset_index(drop=True))


def _told(predictor: Predictor, asked: pd.DataFrame) -> pd.DataFrame:
    """Predictions, and why a workload could not be counted."""
    predicted = predictor.predict(asked)
    why = asked["uncounted"].notna()
    predicted.loc[why, "reason"] = predicted["reason"].astype("str") + " (" + asked["uncounted"].astype("str") + ")"
    return predicted


def _places(table: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Machine, device and runtime of each row."""
    return list(table[["machine_id", "device", "runtime"]].astype("str").itertuples(index=False, name=None))


def _columns(demand: Footprint | None) -> dict[str, float]:
    if demand is None:
        return dict.fromkeys((*TOTALS, "parameters", "activation_bytes"), np.nan)
    row = {name: getattr(demand, name) for name in (*TOTALS, "parameters", "activation_bytes")}
    row |= {column: getattr(demand, name) for column, name in PEAKS.items()}
    for name, operators in demand.by_class.items():
        row |= {f"{total}_{name}": getattr(operators, total) for total in TOTALS}
    return row


def _texts(table: pd.DataFrame) -> pd.DataFrame:
    """Keys as texts, so that missing values match one another."""
    return table[[*PLATFORM, *WORKLOAD]].astype("str")
