"""Operators of workloads, as the predictor looks them up: each known for every batch size from a trace at two of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from labbench.cells import TRAINING_FIELDS
from labbench.prediction.config import PredictionError
from labbench.prediction.features import EXPORTING, joined
from labbench.words import count

if TYPE_CHECKING:
    import pandas as pd

    from labbench.operators import Operator

TRAFFIC = ("read_bytes", "weight_bytes", "written_bytes")
SCALED = ("flops", *TRAFFIC, "m", "groups")  # may grow with the batch
ALIKE = ("n", "k", "window", "stride", "width", "count")  # do not
BACKWARD = " backward"  # what the kind of an operator may end with that autograd runs
COLUMNS = ("name", "kind", "fused", *SCALED, *(f"{name}_fixed" for name in SCALED), *ALIKE)
WORKLOAD_KEY = (
    *("model", "mode", "series", "precision", "image_size", "seq_len", "frames", "audio_s", "kv_cache"),
    *TRAINING_FIELDS,
)
UNTRACED = (
    "its operators are not in the table that the predictor was fitted with (--graphs), and nor is its footprint known"
)
SCORE_BYTES = 4  # of an attention score that is written out
FUSING = ("compile", "openvino")  # what a runtime's name begins with if it fuses arithmetic that follows one another


Place = tuple[tuple[str, ...], tuple[bool, ...]]


@dataclass(frozen=True)
class Graphs:
    """Operators by workload.

    Attributes
    ----------
    operators : DataFrame
        One row for each different operator of a workload: ``name``, ``kind``, ``SCALED`` (what each sample adds) and
        ``SCALED`` with ``_fixed`` (what there is besides), ``ALIKE``; ``fused``: as a compiler runs them, or as they are written;
        ``exported`` (where exporting runtimes are told apart): without what they fold into convolutions; and those of
        ``WORKLOAD_KEY`` that tell the workloads apart. Other columns are left alone.
    """

    operators: pd.DataFrame = field(repr=False)

    def __post_init__(self) -> None:
        missing = [name for name in ("model", *COLUMNS) if name not in self.operators]
        if missing:
            raise PredictionError(f"the table of operators lacks {', '.join(missing)}; see labbench.prediction.Graphs")

    def __getstate__(self) -> dict[str, Any]:
        """What is kept of it: nothing that can be worked out again."""
        return {"operators": self.operators}

    @classmethod
    def read(cls, path: str | Path) -> Graphs:
        """From a parquet file.

        Raises
        ------
        PredictionError
            If there is none that can be read, or it is no table of operators.
        """
        import pandas as pd

        try:
            return cls(pd.read_parquet(path))
        except FileNotFoundError:
            raise PredictionError(
                f"no table of operators {path}; docs/operators.md says how to make one (labbench.prediction.graphs.by_sample)"
            ) from None
        except (OSError, ValueError) as error:
            raise PredictionError(f"{path}: no table of operators: {error}") from None

    @cached_property
    def key(self) -> list[str]:
        """Columns that tell the workloads apart."""
        return [name for name in WORKLOAD_KEY if name in self.operators]

    @cached_property
    def _places(self) -> dict[Place, np.ndarray]:
        grouped = self.operators.groupby([*self.key, *self._ways], sort=False, dropna=False).indices
        return {self._place(key): rows for key, rows in grouped.items()}

    @cached_property
    def _ways(self) -> list[str]:
        return [name for name in ("fused", "exported") if name in self.operators]

    def _place(self, key: tuple[object, ...]) -> Place:
        return _texts(key[: len(self.key)]), tuple(map(bool, key[len(self.key) :]))

    @cached_property
    def _numbers(self) -> dict[Place, int]:
        return {place: number for number, place in enumerate(self._places)}

    @cached_property
    def _rows(self) -> list[np.ndarray]:
        return list(self._places.values())

    @cached_property
    def _words(self) -> dict[str, pd.Categorical]:
        import pandas as pd

        return {name: pd.Categorical(self.operators[name].astype(object)) for name in ("name", "kind")}

    @cached_property
    def _numeric(self) -> dict[str, np.ndarray]:
        names = (*ALIKE, *SCALED, *(f"{name}_fixed" for name in SCALED))
        return {name: self.operators[name].to_numpy(float) for name in names}

    def number(self, frame: pd.DataFrame) -> np.ndarray:
        """Of each row of a store's frame a number for its graph, -1 where its operators are not known."""
        ways = {"fused": fuses(frame), "exported": exports(frame)}
        asked = frame.reindex(columns=self.key).assign(**{name: ways[name] for name in self._ways})
        alike = asked.groupby(list(asked), sort=False, dropna=False, observed=True).ngroup().to_numpy()
        first = np.unique(alike, return_index=True)[1]
        keys = asked.iloc[first].itertuples(index=False, name=None)
        return np.array([self._numbers.get(self._place(key), -1) for key in keys], int)[alike]

    def unknown(self, frame: pd.DataFrame) -> list[str | None]:
        """Of each row why its operators are not known; ``None`` where they are."""
        return [UNTRACED if one < 0 else None for one in self.number(frame)]

    def calls(self, frame: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
        """Operators of each different call that a frame's rows make, as :meth:`at` gives them, and which call each row makes."""
        number = self.number(frame)
        made = np.column_stack([number, frame["batch_size"].to_numpy(float)])
        asked, last = made.tobytes(), self.__dict__.get("_last")
        if last is None or last[0] != asked:  # what a law and a residual ask one after the other is worked out once
            _, first, call = np.unique(made, axis=0, return_index=True, return_inverse=True)
            last = self.__dict__["_last"] = (asked, (self._at(frame.iloc[first], number[first]), call))
        return last[1]

    def at(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Operators of each row of a store's frame at its batch size: a row each, with ``row``, its position in the frame.

        Raises
        ------
        PredictionError
            If the operators of a row are not known.
        """
        return self._at(frame, self.number(frame))

    def _at(self, frame: pd.DataFrame, number: np.ndarray) -> pd.DataFrame:
        import pandas as pd

        if (number < 0).any():
            unknown = frame[number < 0].drop_duplicates(self.key)
            first = ", ".join(text for text in _texts(tuple(unknown.iloc[0][self.key])) if text)
            raise PredictionError(f"the operators of {first} are not known ({len(unknown)} such workloads): trace them")
        found = [self._rows[one] for one in number]
        index = np.concatenate(found) if found else np.zeros(0, int)
        row = np.repeat(np.arange(len(frame)), [len(rows) for rows in found])
        batch = frame["batch_size"].to_numpy(float)[row]
        texts = {name: self._words[name].take(index) for name in ("name", "kind")}
        alike = {name: self._numeric[name][index] for name in ALIKE}
        scaled = {
            name: np.maximum(self._numeric[name][index] * batch + self._numeric[f"{name}_fixed"][index], 0.0)
            for name in SCALED
        }
        return pd.DataFrame({**texts, **alike, **scaled, "row": row}, copy=False)  # millions of rows

    def whole(self, frame: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
        """Columns that tell of a graph as a whole, the same on all of its operators' rows: of each row of a store's frame.

        Raises
        ------
        PredictionError
            If the table lacks a column.
        """
        lacking = [name for name in columns if name not in self.operators]
        if lacking:
            raise PredictionError(f"the table of operators lacks {', '.join(lacking)}: trace with labbench.live.Live")
        first = [self._rows[one][0] for one in self.number(frame)]
        return self.operators[list(columns)].iloc[first].set_index(frame.index)

    def fill(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The frame with what is known of its rows' operators.

        FLOPs, bytes and kernels, in all and of each kind of operator, where it has none; ``weight_use_bytes``, weights as often as
        operators use them, and ``score_bytes``, the scores of the largest attention.
        """
        known = np.flatnonzero(self.number(frame) >= 0)
        out = frame.reset_index(drop=True).copy()
        if not len(known):
            return out
        operators, call = self.calls(out.iloc[known])
        lacking = out["flops"].isna().to_numpy() if "flops" in out else np.ones(len(out), bool)

        def set_to(column: str, values: np.ndarray, where: np.ndarray) -> None:
            held = (
                out[column].to_numpy(float, na_value=np.nan, copy=True) if column in out else np.full(len(out), np.nan)
            )
            held[known[where]] = values[call[where]]
            out[column] = held

        everywhere, size = np.ones(len(known), bool), call.max() + 1
        row = operators["row"].to_numpy()
        scores = np.zeros(size)
        attention = np.flatnonzero(operators["kind"] == "attention")
        m, n, groups = (operators[name].to_numpy()[attention] for name in ("m", "n", "groups"))
        np.maximum.at(scores, row[attention], m * n * groups * SCORE_BYTES)
        set_to("score_bytes", scores, everywhere)
        used = operators["weight_bytes"].to_numpy() * operators["count"].to_numpy()
        set_to("weight_use_bytes", np.bincount(row, used, size), everywhere)
        if not lacking[known].any():
            return out
        count = operators["count"].to_numpy(float)
        each = {
            "flops": operators["flops"].to_numpy() * count,
            "bytes": operators[list(TRAFFIC)].to_numpy().sum(axis=1) * count,
            "kernels": count,
        }
        kinds = operators["kind"].cat.categories
        place = row * len(kinds) + operators["kind"].cat.codes.to_numpy()
        for name, value in each.items():
            of_kind = np.bincount(place, value, size * len(kinds)).reshape(size, len(kinds))
            set_to(name, of_kind.sum(axis=1), lacking[known])
            for number, kind in enumerate(kinds):
                set_to(f"{name}_{kind}", of_kind[:, number], lacking[known])
        return out

    def named(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Rows of a prepared frame in which models with the same operators are one ``architecture``.

        Raises
        ------
        PredictionError
            If the operators of none of them are known.
        """
        known = self.number(frame) >= 0
        if not known.any():
            raise PredictionError(
                f"the table of operators (--graphs) has none of the {count(frame['model'].nunique(), 'model')} to learn from: "
                "trace them, or leave it out"
            )
        model = frame["model"].astype("str")
        return frame.assign(architecture=model.map(self.twins()).fillna(model))

    def twins(self) -> dict[str, str]:
        """Model to the first one by name with the same operators: what a split must not tear apart.

        Models that share one graph at one size belong together at all sizes.
        """
        import pandas as pd

        written = self.operators[~self.operators[self._ways].astype(bool).any(axis=1)]
        shape = pd.util.hash_pandas_object(written[["kind", *SCALED, *ALIKE]].round(3), index=False)
        of_workload = shape.groupby([written[name] for name in self.key], dropna=False)
        graphs = of_workload.agg(lambda hashes: hash(tuple(sorted(hashes))))
        models = graphs.index.get_level_values("model") if len(self.key) > 1 else graphs.index
        return joined(models.to_numpy(str), np.unique(graphs, return_inverse=True)[1])


def by_sample(batches: tuple[int, int], fewer: Iterable[Operator], more: Iterable[Operator]) -> pd.DataFrame:
    """Different operators of a workload and how often each comes, from what was seen at two batch sizes.

    Parameters
    ----------
    batches : tuple of int
        A smaller and a larger batch size.
    fewer, more : iterable of Operator
        Of :func:`labbench.operators.watch` at each.

    Returns
    -------
    DataFrame
        The fields of :class:`~labbench.operators.Operator`, of ``SCALED`` ones what each sample adds and, with ``_fixed``, what
        there is besides; and their ``count``.

    Raises
    ------
    PredictionError
        If other operators run at the other batch size.
    """
    import pandas as pd

    first, second = (pd.DataFrame([vars(one) for one in operators]) for operators in (fewer, more))
    if list(first["name"]) != list(second["name"]):
        raise PredictionError(f"other operators run at batch {batches[1]} than at batch {batches[0]}")
    found = first.copy()
    for name in (*SCALED, "apart_bytes", "apart_span"):
        found[name] = (second[name] - first[name]).astype(float) / (batches[1] - batches[0])
        found[f"{name}_fixed"] = first[name] - batches[0] * found[name]
    return found.groupby(list(found), sort=False, dropna=False).size().rename("count").reset_index()


def _texts(key: tuple[object, ...]) -> tuple[str, ...]:
    """A key in which 224 and 224.0 are the same and whatever is missing is nothing."""
    import pandas as pd

    return tuple(
        "" if pd.isna(value) else str(int(value) if isinstance(value, float) and value.is_integer() else value)
        for value in key
    )


def fuses(frame: pd.DataFrame) -> np.ndarray:
    """Whether the runtime of each row joins operators that follow one another into one kernel."""
    return frame["runtime"].astype("str").str.startswith(FUSING).to_numpy(bool)


def exports(frame: pd.DataFrame) -> np.ndarray:
    """Whether the runtime of each row runs programs exported from PyTorch."""
    return frame["runtime"].astype("str").isin(EXPORTING).to_numpy(bool)
