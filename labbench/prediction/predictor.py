"""The :class:`Predictor`: measured cells in, latency and memory of others out, with intervals and honest refusals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from labbench.prediction.config import PredictionConfig, PredictionError
from labbench.prediction.features import (
    CONFIGURATION,
    LEVELS,
    MEMORY,
    NO_FRAMEWORK,
    TRAINS_ON,
    Ceilings,
    Device,
    Domain,
    latency_terms,
    memory_terms,
    prepare,
)
from labbench.prediction.law import Law, TermLaw, labels
from labbench.prediction.operator_law import OperatorLaw
from labbench.prediction.quantity import MIN_FAMILIES, Quantity
from labbench.words import count

if TYPE_CHECKING:
    import pandas as pd

    from labbench.prediction.graphs import Graphs
    from labbench.records import Environment

METHOD = "fitted roofline"
UNTRACED = "its operators are not in the table that the predictor was fitted with (--graphs)"
NOT_CALIBRATED = "outside what was measured, where the interval is not calibrated"


@dataclass(frozen=True)
class Predictor:
    """Predicts the median latency of each series and the memory of cells on platforms that were measured.

    Memory is the peak above an empty worker.

    Examples
    --------
    >>> store = Store("data/study.h5")
    >>> predictor = Predictor().fit(store.latest(), store.environments())
    >>> predictor.predict(candidates(store, [Cell.of(model="bert-base", runtime="openvino")]))
    """

    config: PredictionConfig = field(default_factory=PredictionConfig)
    quantities: dict[str, Quantity] = field(default_factory=dict, repr=False)
    domain: Domain | None = field(default=None, repr=False)
    graphs: Graphs | None = field(default=None, repr=False)
    frameworks: dict[tuple[str, ...], str] = field(default_factory=dict, repr=False)

    def fit(
        self, frame: pd.DataFrame, environments: Mapping[str, Environment], graphs: Graphs | None = None
    ) -> Predictor:
        """A fitted copy.

        Parameters
        ----------
        frame : DataFrame
            ``Store.latest()`` or ``Store.frame()``: rows with status ``ok`` that were measured or imported are used.
        environments : mapping
            ``Store.environments()``: for the machines' ceilings.
        graphs : Graphs, optional
            Operators of the workloads: latency is then priced operator by operator, and only of workloads whose operators are
            known; default: by the totals of each operator class.

        Raises
        ------
        PredictionError
            If there is too little to learn from.
        """
        table, ceilings = learnt_from(frame, environments, self.config, graphs)
        return self.fit_rows(table, ceilings, graphs)

    def fit_rows(
        self, table: pd.DataFrame, ceilings: Mapping[Device, Ceilings], graphs: Graphs | None = None
    ) -> Predictor:
        """A copy fitted to rows of :func:`learnt_from`, or some of them."""
        config = self.config
        by_totals = Law(config.pooled_width, config.level_width, config.noise)
        form = (
            TermLaw(latency_terms, ceilings, LEVELS, by_totals)
            if graphs is None
            else OperatorLaw.of(table, graphs, ceilings, config.noise)
        )
        fit = {"latency_s": Quantity.fit("latency_s", table, form, config)}
        memory = table[table["primary"].astype(bool)] if "primary" in table else table
        held = TermLaw(memory_terms, ceilings, LEVELS, by_totals)
        if (memory[MEMORY].notna().to_numpy() & held.known(memory)).any():
            fit[MEMORY] = Quantity.fit(MEMORY, memory, held, config)
        return replace(
            self, quantities=fit, domain=Domain.of(table, config), graphs=graphs, frameworks=_newest_framework(table)
        )

    def predict(self, frame: pd.DataFrame, level: float | None = None) -> pd.DataFrame:
        """Latency and peak memory of each row.

        Parameters
        ----------
        frame : DataFrame
            One row a series: model, machine, platform, mode, precision, batch size and footprint columns, as in a
            store's frame or from :func:`labbench.prediction.candidates`. Measured values in it are ignored.
        level : float, optional
            Nominal coverage of the intervals; default: the configuration's.

        Returns
        -------
        DataFrame
            The frame's descriptive columns and, for each quantity, ``latency_s``, ``latency_low_s``, ``latency_high_s``
            and ``memory_increase_bytes``, ``memory_increase_low_bytes``, ``memory_increase_high_bytes``; ``level`` (coverage the
            interval stands for), ``provenance`` (``predicted``), ``method``, ``out_of_domain`` and ``reason``. A row
            that cannot be predicted has no values and says why in ``reason``.
        """
        import pandas as pd

        level = level or self.config.level
        table = prepare(frame if self.graphs is None else self.graphs.fill(frame))
        if "framework" not in table:
            keys = labels(table, CONFIGURATION)
            table["framework"] = [self.frameworks.get(key, NO_FRAMEWORK) for key in keys]
        verdict = self.judge(table)
        answered, inside = verdict["refusal"].isna().to_numpy(), verdict["departure"].isna().to_numpy()
        described = [name for name in DESCRIPTION if name in table]
        out = table[described].copy()
        for name, quantity in self.quantities.items():
            rows = table[answered]
            values = quantity.predict(rows, inside[answered], level)
            stem, unit = name.rsplit("_", 1)
            for column, value in ((name, "point"), (f"{stem}_low_{unit}", "low"), (f"{stem}_high_{unit}", "high")):
                out[column] = pd.Series(np.nan, index=table.index).where(~answered, values[value].reindex(table.index))
        out["level"] = np.where(answered, min(q.radius(level).level for q in self.quantities.values()), np.nan)
        out["provenance"] = "predicted"
        corrected = self.quantities["latency_s"].far.weight > 0
        out["method"] = np.where(inside & corrected, f"{METHOD} + boosting", METHOD)
        out["out_of_domain"] = ~(answered & inside)
        out["reason"] = [
            refusal or (f"{NOT_CALIBRATED}: {departure}" if departure else None)
            for refusal, departure in zip(verdict["refusal"], verdict["departure"], strict=True)
        ]
        return out

    def judge(self, table: pd.DataFrame) -> pd.DataFrame:
        """Of each prepared row: ``refusal``, why it has no prediction, and ``departure``, how it leaves the domain."""
        import pandas as pd

        if self.domain is None:
            raise PredictionError("the predictor is not fitted: call fit(frame, environments) first")
        refusals = self.domain.refusals(table)
        if self.graphs is not None:
            known = self.graphs.number(table) >= 0
            refusals = [one if told else UNTRACED for one, told in zip(refusals, known, strict=True)]
        reasons = {"refusal": refusals, "departure": self.domain.departures(table)}
        return pd.DataFrame(reasons, index=table.index, dtype=object)

    def __str__(self) -> str:
        if not self.quantities:
            return "Predictor, not fitted"
        latency = self.quantities["latency_s"].far
        radius = latency.typical_radius(self.config.level)
        return (
            f"Predictor of {', '.join(self.quantities)}: {len(latency.scores)} rows of {radius.families} families; "
            f"{radius.level:.0%} interval: within a factor of {np.exp(radius.value):.2f}; "
            + (
                f"learnt residual with weight {latency.weight:.2f}"
                if latency.weight
                else "no learnt residual, it did not help"
            )
        )

    def _repr_html_(self) -> str:
        return f"<p>{self}</p>"


DESCRIPTION = (
    *("record_id", "cell_id", "machine_id", "model", "family", "task", "mode", "batch_size", "precision"),
    *("seq_len", "image_size", "frames", "audio_s", "device", "runtime", "threads", "world_size", "platform"),
    *("series", "primary", "items_per_call", "throughput_unit", "flops", "bytes", "kernels", "parameters"),
)


def training_rows(frame: pd.DataFrame, config: PredictionConfig) -> pd.DataFrame:
    """Prepared rows that a predictor may learn from: measured or imported, status ok, on a machine quiet enough.

    Raises
    ------
    PredictionError
        If there are none.
    """
    table = prepare(frame)
    table = table[(table["status"] == "ok") & table["provenance"].isin(TRAINS_ON) & table["latency_s"].notna()]
    if "noise" in table and len(table):
        loud = table["noise"].isin(config.ignore)
        quiet = table.loc[~loud, "group"].nunique()
        if loud.all() or quiet < MIN_FAMILIES <= table["group"].nunique():
            raise PredictionError(
                f"{loud.sum()} of {len(table)} measured series are {' or '.join(config.ignore)}, and the others are of "
                f"{count(quiet, 'model family', 'model families')}: measure again when the machine is quieter, or learn from all "
                'of them, "ignore": [] in the configuration of `labbench fit --config FILE`'
            )
        table = table[~loud]
    if table.empty:
        raise PredictionError("no measured cell with status ok to learn from; measure some with `labbench run`")
    return table.reset_index(drop=True)


def learnt_from(
    frame: pd.DataFrame,
    environments: Mapping[str, Environment],
    config: PredictionConfig,
    graphs: Graphs | None = None,
) -> tuple[pd.DataFrame, dict[Device, Ceilings]]:
    """:func:`learnt_rows` with their ``framework``, and the ceilings of their devices.

    Raises
    ------
    PredictionError
        If there are none.
    """
    table = learnt_rows(frame, config, graphs)
    return with_framework(table, environments), ceilings_of(table, environments)


def learnt_rows(frame: pd.DataFrame, config: PredictionConfig, graphs: Graphs | None = None) -> pd.DataFrame:
    """:func:`training_rows`; with ``graphs`` only those whose operators are known, with what they demand filled in.

    Raises
    ------
    PredictionError
        If there are none.
    """
    return training_rows(frame, config) if graphs is None else graphs.known(training_rows(graphs.fill(frame), config))


def with_framework(table: pd.DataFrame, environments: Mapping[str, Environment]) -> pd.DataFrame:
    """Rows with ``framework``: PyTorch's version without its patch level, e.g. ``torch 2.4``."""
    known = {name: one.software.get("torch") for name, one in environments.items()}
    short = {name: f"torch {'.'.join(version.split('.')[:2])}" for name, version in known.items() if version}
    ids = table["environment_id"].astype(object) if "environment_id" in table else [None] * len(table)
    return table.assign(framework=[short.get(str(one), NO_FRAMEWORK) for one in ids])


def _newest_framework(table: pd.DataFrame) -> dict[tuple[str, ...], str]:
    """Configuration to the newest framework that it was measured with: the one that is asked about if none is named."""
    if "framework" not in table:
        return {}
    by_age = table.iloc[np.argsort(table["framework"].map(framework_age).to_numpy(), kind="stable")]
    return dict(zip(labels(by_age, CONFIGURATION), by_age["framework"], strict=True))  # the last one stays


def framework_age(framework: str) -> float:
    """Of ``torch 2.10`` 2010; less than of any version where none is known."""
    numbers = [int(part) for part in framework.split()[-1].split(".") if part.isdigit()]
    return 1000.0 * numbers[0] + numbers[-1] if numbers else -1.0


def ceilings_of(frame: pd.DataFrame, environments: Mapping[str, Environment]) -> dict[Device, Ceilings]:
    """Ceilings of each machine and device in the frame, measured ones first."""
    found: dict[Device, Ceilings] = {}
    for machine, device in frame[["machine_id", "device"]].astype("str").drop_duplicates().itertuples(index=False):
        there = [Ceilings.of(one, device) for one in environments.values() if one.machine_id == machine]
        found[machine, device] = max(there, key=lambda limit: limit.measured, default=Ceilings.of(None, device))
    return found
