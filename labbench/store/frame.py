"""The tidy view of a database: one row a series (a record without series has one row), units in the names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from labbench.store.columns import INT_NULL, Coded, Column, Contents, Table, Values

if TYPE_CHECKING:
    import pandas as pd

# frame column -> stored column
RECORD_VIEW = {
    "record_id": "record_id",
    "campaign_id": "campaign_id",
    **{name: f"cell.workload.{name}" for name in ("model", "task", "mode", "batch_size", "precision")},
    **{name: f"cell.workload.{name}" for name in ("seq_len", "image_size", "frames", "audio_s")},
    **{name: f"cell.platform.{name}" for name in ("device", "runtime", "world_size")},
    "threads": "threads",
    "device_name": "device_name",
    "status": "status",
    "reason": "reason",
    "stage": "stage",
    "provenance": "provenance",
    "source": "source",
    "started_at": "started_at",
    "duration_s": "duration_s",
    "machine_id": "machine_id",
    "environment_id": "environment_id",
    "protocol_id": "protocol_id",
    "processes": "processes",
    **{name: f"phases.{name}" for name in ("start_s", "load_s", "prepare_s", "first_run_s", "prepare_concurrency")},
    "peak_memory_bytes": "memory.peak_bytes",
    "memory_increase_bytes": "memory.increase_bytes",
    "parameter_bytes": "memory.parameter_bytes",
    "joules_per_call": "energy.joules_per_call",
    "noise": "noise.verdict",
    "check_error": "check.max_error",
    "check_tolerance": "check.tolerance",
}
SERIES_VIEW = {
    "series": "name",
    "latency_s": "median_s.value",
    "latency_ci_low_s": "median_s.ci_low",
    "latency_ci_high_s": "median_s.ci_high",
    **{
        f"latency_p{level}_{column}s": f"p{level}_s.{end}"
        for level in (90, 99)
        for column, end in (("", "value"), ("ci_low_", "ci_low"), ("ci_high_", "ci_high"))
    },
    "latency_mean_s": "mean_s",
    "latency_iqr_s": "iqr_s",
    "throughput": "throughput",
    "throughput_unit": "unit",
    "items_per_call": "items_per_call",
    "n_samples": "n_samples",
    "stop_reason": "stop_reason",
    "flops": "footprint.flops",
    "bytes": "footprint.bytes",
    "parameters": "footprint.parameters",
    "activation_bytes": "footprint.activation_bytes",
    "kernels": "footprint.kernels",
}
FOOTPRINT_CLASSES = "footprint.by_class"


def frame(contents: Contents) -> pd.DataFrame:
    """One row per series of each record, and one for each record that has none.

    Besides the columns of ``RECORD_VIEW`` and ``SERIES_VIEW``: ``cell_id``, ``platform`` (device/runtime), ``primary``
    (whether the series is the record's first) and, per operator class, ``flops_<class>``, ``bytes_<class>`` and
    ``kernels_<class>``. Texts are categoricals, times are timezone-aware, missing integers are ``<NA>``.
    """
    import pandas as pd

    counts = np.bincount(contents.record_of_series, minlength=len(contents.records))
    bare = np.flatnonzero(counts == 0)
    series_row = np.concatenate([np.arange(len(contents.series)), np.full(len(bare), -1)])
    record_row = np.concatenate([contents.record_of_series, bare])
    order = np.argsort(record_row, kind="stable")
    series_row, record_row = series_row[order], record_row[order]

    table = pd.DataFrame(
        {name: _take(contents.records, stored, record_row) for name, stored in RECORD_VIEW.items()}
        | {name: _take(contents.series, stored, series_row) for name, stored in SERIES_VIEW.items()}
    )
    first = np.ones(len(table), dtype=bool)
    first[1:] = record_row[1:] != record_row[:-1]
    table["primary"] = first
    pinned = _take(contents.records, "cell.platform.threads", record_row)
    table["platform"] = _platform_labels(table, pinned)
    table["cell_id"] = _cell_ids(contents, record_row)
    return table.join(_by_class(contents.series, series_row))


def _take(table: Table, name: str, rows: np.ndarray) -> pd.Series | pd.Categorical:
    """The column at the given rows, -1 giving null, as a pandas array of its natural type."""
    import pandas as pd

    column = next(c for c in table.columns if c.name == name)
    stored = table.values[name]
    if isinstance(stored, Coded):
        codes = np.append(stored.codes, -1)[rows]
        return pd.Categorical.from_codes(codes, categories=pd.Index(stored.categories, dtype="str"))
    return _typed(column, np.append(stored, _null(column))[rows])


def _null(column: Column) -> float | int:
    return {"float": np.nan, "bool": -1}.get(column.kind, INT_NULL)


def _typed(column: Column, values: np.ndarray) -> pd.Series:
    import pandas as pd

    if column.kind == "float":
        return pd.Series(values)
    if column.kind == "time":
        return pd.Series(pd.to_datetime(values, unit="us", utc=True))
    null = values == _null(column)
    values = np.where(null, 0, values)
    dtype = "boolean" if column.kind == "bool" else "Int64"
    return pd.Series(pd.array(values, dtype=dtype)).mask(null)


def _platform_labels(table: pd.DataFrame, pinned: pd.Series) -> pd.Categorical:
    import pandas as pd

    label = table["device"].astype("str") + "/" + table["runtime"].astype("str")
    label = label.where(pinned.isna(), label + "·" + pinned.astype("str") + "t")
    label = label.where(table["world_size"] == 1, label + "×" + table["world_size"].astype("str"))
    return pd.Categorical(label)


def _cell_ids(contents: Contents, rows: np.ndarray) -> pd.Categorical:
    """Ids of the cells, each distinct cell hashed once."""
    import pandas as pd

    from labbench.cells import Cell
    from labbench.store.columns import nest

    columns = tuple(c for c in contents.records.columns if c.name.startswith("cell."))
    cells = Table(columns, {c.name: contents.records.values[c.name] for c in columns})
    keys = np.stack([_hashable(cells.values[c.name]) for c in columns], axis=1)
    _, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    ids = [Cell.model_validate(nest(row, columns)["cell"]).id for row in cells.rows(first)]
    return pd.Categorical(np.array(ids, dtype=object)[inverse.ravel()[rows]]) if ids else pd.Categorical([])


def _hashable(values: Values) -> np.ndarray:
    if isinstance(values, Coded):
        return values.codes.astype(np.int64)
    return values.view(np.int64) if values.dtype == np.float64 else values.astype(np.int64)


def _by_class(series: Table, rows: np.ndarray) -> pd.DataFrame:
    """Footprints by operator class as columns; each distinct footprint is parsed once."""
    import json

    import pandas as pd

    stored = series.values[FOOTPRINT_CLASSES]
    assert isinstance(stored, Coded)
    parsed = [
        {f"{measure}_{name}": value for name, demand in json.loads(text).items() for measure, value in demand.items()}
        for text in stored.categories
    ]
    table = pd.DataFrame(parsed).fillna(0.0).astype(float)
    codes = np.append(stored.codes, -1)[rows]
    return table.reindex(codes).set_axis(range(len(rows)))
