"""The tidy view of a database: one row a series (a record without series has one row), units in the names."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from labbench.cells import TRAINING_FIELDS, Platform, Workload
from labbench.config import unknown_name
from labbench.store.columns import INT_NULL, Column, record_columns, series_columns
from labbench.store.table import Coded, Source, TableName, Values, decode, lengths

if TYPE_CHECKING:
    import pandas as pd

# frame column -> stored column
RECORD_VIEW = {
    "record_id": "record_id",
    "cell_id": "cell_id",
    "campaign_id": "campaign_id",
    "reference_id": "reference_id",
    **{name: f"cell.workload.{name}" for name in ("model", "task", "mode", "batch_size", "precision")},
    **{name: f"cell.workload.{name}" for name in ("seq_len", "image_size", "frames", "audio_s", "kv_cache")},
    **{name: f"cell.workload.{name}" for name in TRAINING_FIELDS},
    **{
        name: f"cell.platform.{name}" for name in ("device", "runtime", "world_size", "memory_format", "loader_workers")
    },
    "threads": "threads",
    "threads_asked": "cell.platform.threads",
    "device_name": "device_name",
    "status": "status",
    "reason": "reason",
    "stage": "stage",
    "provenance": "provenance",
    "source": "source",
    "licence": "licence",
    "started_at": "started_at",
    "duration_s": "duration_s",
    "machine_id": "machine_id",
    "environment_id": "environment_id",
    "protocol_id": "protocol_id",
    "processes": "processes",
    **{name: f"phases.{name}" for name in ("start_s", "load_s", "prepare_s", "first_run_s", "prepare_concurrency")},
    "peak_memory_bytes": "memory.peak_bytes",
    "memory_increase_bytes": "memory.increase_bytes",
    "memory_live_bytes": "memory.live_bytes",
    "parameter_bytes": "memory.parameter_bytes",
    "joules_per_call": "energy.joules_per_call",
    "energy_reason": "energy.reason",
    "noise": "noise.verdict",
    "check_error": "check.max_error",
    "check_tolerance": "check.tolerance",
}
SERIES_VIEW = {
    "series": "name",
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
    "tensor_peak_bytes": "footprint.peak_bytes",
    "tensor_peak_cpu_bytes": "footprint.peak_cpu_bytes",
    "kernels": "footprint.kernels",
    "profile_wall_s": "profile.wall_s",
    "profile_method": "profile.method",
}
FEW_TEXTS = 100  # of a column; types of longer ones are not remembered
# JSON that becomes a column for each of its keys; table, name, and whether a missing key means none of it.
SPREAD: tuple[tuple[TableName, str, bool], ...] = (
    ("series", "footprint.by_class", True),
    ("series", "profile.seconds", True),
    ("series", "profile.kernels", True),
    ("series", "footprint.peak_by_cause", True),
    ("series", "parts", False),
    ("records", "memory.by_cause", True),
    ("records", "metrics", False),
)
ON_REQUEST = {  # columns that are not among the default ones
    "retracts": "retracts",
    **{f"advice_{name}": f"advice.{name}" for name in ("change", "baseline_cell_id", "series")},
    "advice_gain": "advice.gain.value",
    **{f"advice_gain_{end}": f"advice.gain.{end}" for end in ("ci_low", "ci_high")},
}
OF_CELL: dict[
    str, tuple[str, type[Platform] | type[Workload], str]
] = {  # columns that a part of the cell tells: its fields' prefix, its class, the property
    "platform": ("cell.platform", Platform, "label"),
    "variant": ("cell.workload", Workload, "variant"),
}
COLUMNS = (*RECORD_VIEW, *OF_CELL, "series", "primary", "latency_s", "latency_statistic", *list(SERIES_VIEW)[1:])


def frame(
    source: Source,
    records: np.ndarray | None = None,
    columns: Sequence[str] | None = None,
    where: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """One row per series of each record, and one for each record that has none.

    Parameters
    ----------
    source : Source
        What hands out the columns.
    records : array of int, optional
        Rows of the records wanted, ascending; default: all.
    columns : sequence of str, optional
        Only these; default: all, and what there is of these: per operator class of the footprints ``flops_<class>``,
        ``bytes_<class>`` and ``kernels_<class>``, of the profiles ``profile_s_<class>`` and ``profile_kernels_<class>``; per
        cause ``tensors_<cause>_bytes`` (counted) and ``memory_<cause>_bytes`` (measured); of training steps ``part_s_<part>``
        with ``part_ci_low_s_<part>`` and ``part_ci_high_s_<part>``; ``metric_<name>``.
    where : mapping, optional
        Column to the value, or a list of the values, that it must have. Other columns are read at matching rows only.

    Returns
    -------
    DataFrame
        Texts are categoricals, times are timezone-aware, missing integers are ``<NA>``. ``latency_s`` is the median or, where a
        source gives no median, the mean: ``latency_statistic`` says which. ``primary`` marks the first series of a
        record, ``platform`` is device/runtime, ``variant`` how a training workload departs from the plain way.

    Raises
    ------
    ConfigError
        For an unknown column, naming the nearest known one.
    """
    import pandas as pd

    view = _View(source, records, where)
    values = {name: view.column(name) for name in columns or COLUMNS}
    table = pd.DataFrame(values, index=pd.RangeIndex(len(view)), copy=False)
    return table if columns else table.join(view.spread())


def matching(source: Source, records: np.ndarray | None, where: Mapping[str, Any]) -> np.ndarray:
    """Rows of the records that have a row in :func:`frame` that fits ``where``, ascending."""
    return np.unique(_View(source, records, where).record)


class _View:
    """Rows of the tidy table as pairs (row in records, row in series or -1), narrowed by what they must be."""

    def __init__(self, source: Source, records: np.ndarray | None, where: Mapping[str, Any] | None) -> None:
        self.source = source
        first = source.first_series
        rows = np.arange(len(first) - 1) if records is None else records
        counts = lengths(first, records)
        self.record = np.repeat(rows, np.maximum(counts, 1))
        self.series = np.full(len(self.record), -1)
        self.primary = np.ones(len(self.record), dtype=bool)
        begins = np.cumsum(np.maximum(counts, 1)) - np.maximum(counts, 1)
        within = np.arange(len(self.record)) - np.repeat(begins, np.maximum(counts, 1))
        has = np.repeat(counts > 0, np.maximum(counts, 1))
        self.series[has] = (first[self.record] + within)[has]
        self.primary = within == 0
        self._look()
        for name, wanted in (where or {}).items():
            self._keep(name, wanted)

    def _look(self) -> None:
        """What is true of all columns: which rows there are, and whether those are the whole table."""
        self._rows: dict[TableName, np.ndarray] = {"records": self.record, "series": self.series[self.series >= 0]}
        self._whole = {
            name: len(rows) == len(_owner(self.source, name)) - 1 and _is_everything(rows)
            for name, rows in self._rows.items()
        }

    def __len__(self) -> int:
        return len(self.record)

    def _keep(self, name: str, wanted: Any) -> None:
        """Only the rows where a column has a value, or one of several."""
        import pandas as pd

        values = wanted if isinstance(wanted, list | tuple | set | frozenset | pd.Series | pd.Index) else [wanted]
        mask = np.asarray(pd.Series(self.column(name)).isin(list(values)), dtype=bool)
        self.record, self.series, self.primary = self.record[mask], self.series[mask], self.primary[mask]
        self._look()

    def column(self, name: str) -> Any:
        """A column as a pandas array of its natural type."""
        if name == "primary":
            return self.primary
        if name in OF_CELL:
            return self._of_cell(*OF_CELL[name])
        if name == "latency_s":
            return self._latency()[0]
        if name == "latency_statistic":
            return self._latency()[1]
        if stored := RECORD_VIEW.get(name) or ON_REQUEST.get(name):
            return to_pandas(*self.values("records", stored))
        if stored := SERIES_VIEW.get(name):
            return to_pandas(*self.values("series", stored))
        spread = self.spread()
        if name in spread:
            return spread[name].to_numpy()
        raise unknown_name("column", name, [*COLUMNS, *spread.columns])

    def values(self, table: TableName, stored: str) -> tuple[Column, Values]:
        """The stored column at the view's rows; rows without a series are null."""
        column, rows = _columns(table)[stored], self._rows[table]
        found = self.source.column(table, column, None if self._whole[table] else rows)
        if len(rows) == len(self):
            return column, found
        codes = found.codes if isinstance(found, Coded) else found
        spread = np.full(len(self), column.null, codes.dtype)
        spread[self.series >= 0] = codes
        return column, Coded(spread, found.categories) if isinstance(found, Coded) else spread

    def _latency(self) -> tuple[np.ndarray, pd.Categorical]:
        import pandas as pd

        median = self.values("series", "median_s.value")[1]
        assert isinstance(median, np.ndarray)
        missing = np.isnan(median)
        mean = self.values("series", "mean_s")[1] if missing.any() else median
        assert isinstance(mean, np.ndarray)
        codes = np.where(missing, np.where(np.isnan(mean), -1, 1), 0).astype(np.int8)
        return np.where(missing, mean, median), pd.Categorical.from_codes(codes, ["median", "mean"], validate=False)

    def _of_cell(self, prefix: str, part: type[Platform] | type[Workload], told: str) -> pd.Categorical:
        """A property of each row's platform or workload, worked out once for each distinct cell."""
        import pandas as pd

        cell = self.values("records", "cell_id")[1]
        assert isinstance(cell, Coded)
        example = np.full(len(cell.categories), -1)  # a row of each cell
        example[cell.codes[::-1]] = np.arange(len(self))[::-1]
        known = np.flatnonzero(example >= 0)
        rows = np.sort(example[known])
        fields = part.model_fields
        stored = [_columns("records")[f"{prefix}.{name}"] for name in fields]
        parts = [decode(column, self.source.column("records", column, self.record[rows])) for column in stored]
        of_field = (dict(zip(fields, values, strict=True)) for values in zip(*parts, strict=True))
        labels = [getattr(part.model_construct(**values), told) for values in of_field]
        codes, categories = pd.factorize(np.array(labels, dtype=object))
        of_cell = np.full(len(cell.categories), -1)
        of_cell[cell.codes[rows]] = codes
        return pd.Categorical.from_codes(of_cell[cell.codes], pd.Index(categories, dtype="str"))

    def _own(self) -> np.ndarray:
        """Rows that labbench made; sources of others have metrics of their own, different in each row."""
        _, provenance = self.values("records", "provenance")
        assert isinstance(provenance, Coded)
        names = np.array([*provenance.categories, ""], dtype=object)
        return np.isin(names[provenance.codes], ("measured", "predicted"))

    def spread(self) -> pd.DataFrame:
        """The dictionaries of :data:`SPREAD` as columns; each distinct one is parsed once."""
        import pandas as pd

        tables = []
        for table_name, name, zero in SPREAD:
            _, stored = self.values(table_name, name)
            assert isinstance(stored, Coded)
            codes = stored.codes if name != "metrics" else np.where(self._own(), stored.codes, -1)
            used = np.unique(codes[codes >= 0])
            parsed = pd.DataFrame([_spread(name, json.loads(stored.categories[code])) for code in used], index=used)
            table = (parsed.fillna(0.0) if zero else parsed).astype(float)
            tables.append(table.reindex(codes).set_axis(range(len(self))))
        return pd.concat(tables, axis=1)


def _spread(stored: str, values: dict[str, Any]) -> dict[str, float]:
    """Columns of one dictionary."""
    if stored == "footprint.by_class":
        return {f"{measure}_{kind}": value for kind, demand in values.items() for measure, value in demand.items()}
    if stored == "parts":
        ends = {"value": "part_s", "ci_low": "part_ci_low_s", "ci_high": "part_ci_high_s"}
        return {f"{ends[end]}_{part}": value for part, found in values.items() for end, value in found.items()}
    form = {
        "profile.seconds": "profile_s_{}",
        "profile.kernels": "profile_kernels_{}",
        "footprint.peak_by_cause": "tensors_{}_bytes",
        "memory.by_cause": "memory_{}_bytes",
        "metrics": "metric_{}",
    }[stored]
    return {form.format(key): value for key, value in values.items()}


def _is_everything(rows: np.ndarray) -> bool:
    return not len(rows) or bool(rows[0] == 0 and rows[-1] == len(rows) - 1 and (np.diff(rows) == 1).all())


def _owner(source: Source, table: TableName) -> np.ndarray:
    return source.first_series if table == "records" else source.first_sample


@cache
def _columns(table: TableName) -> dict[str, Column]:
    return {column.name: column for column in (record_columns() if table == "records" else series_columns())}


@lru_cache(maxsize=1024)
def _category_type(texts: Sequence[str]) -> pd.CategoricalDtype:
    """Making one costs more than reading a short column, and the same ones come again and again."""
    import pandas as pd

    return pd.CategoricalDtype(pd.Index(list(texts), dtype="str"))


def to_pandas(column: Column, values: Values) -> Any:
    """A stored column as a pandas array of its natural type."""
    import pandas as pd

    if isinstance(values, Coded):
        few = len(values.categories) <= FEW_TEXTS
        kind = _category_type(tuple(values.categories)) if few else _category_type.__wrapped__(values.categories)
        return pd.Categorical.from_codes(values.codes, dtype=kind, validate=False)
    if column.kind == "id":
        return _strings(values)
    if column.kind == "float":
        return values
    if column.kind == "time":
        return pd.DatetimeIndex(values.view("datetime64[us]")).tz_localize("UTC").array
    if column.kind == "bool":
        return pd.arrays.BooleanArray(values > 0, values < 0)
    return pd.arrays.IntegerArray(np.where(values == INT_NULL, 0, values), values == INT_NULL)


def _strings(values: np.ndarray) -> Any:
    """Texts of equal, full length as a pandas string array, without making a Python object of each."""
    import pandas as pd
    import pyarrow as pa

    width = values.dtype.itemsize
    ends = pa.py_buffer(np.arange(len(values) + 1, dtype=np.int64) * width)
    texts = pa.Array.from_buffers(
        pa.large_string(), len(values), [None, ends, pa.py_buffer(np.ascontiguousarray(values))]
    )
    return pd.array(texts, dtype=pd.StringDtype("pyarrow", na_value=np.nan))
