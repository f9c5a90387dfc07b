"""The :class:`Predictor`: measured cells in, latency and memory of others out, with intervals and honest refusals.

Three situations, told apart for each cell:

- its configuration was measured enough to have a law of its own: that, and what trees learnt of its errors;
- its device was measured a little (*probes*): the law of configurations like it on other devices, at this device's ceilings, and
  a Gaussian process that learnt from both (:mod:`labbench.prediction.elsewhere`);
- its device was never measured: the same without probes, and a wide interval; refused if neither a measurement nor a datasheet
  tells its ceilings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from labbench.prediction.blend import Blend
from labbench.prediction.config import PredictionConfig, PredictionError
from labbench.prediction.features import (
    ANYWHERE,
    CONFIGURATION,
    LEVELS,
    MEASURED,
    MEMORY,
    NO_FRAMEWORK,
    NOMINAL,
    NOT_COUNTED,
    PLATFORM,
    TOTALS,
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
from labbench.prediction.quantity import BATCHES, MIN_FAMILIES, Quantity
from labbench.prediction.tracing import traced
from labbench.words import count

if TYPE_CHECKING:
    import pandas as pd

    from labbench.prediction.graphs import Graphs
    from labbench.records import Environment

METHOD = "fitted roofline"
OF_OPERATORS = "law of operators"
PROCESS = "Gaussian process"
NOT_CALIBRATED = "outside what was measured, where the interval is not calibrated"


@dataclass(frozen=True)
class Predictor:
    """Predicts the median latency of each series and the memory of cells, on platforms that were measured and on new devices.

    Memory is the peak above an empty worker; where fewer than three families tell of it, there is none.

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
    ceilings: dict[Device, Ceilings] = field(default_factory=dict, repr=False)

    def fit(
        self, frame: pd.DataFrame, environments: Mapping[str, Environment], graphs: Graphs | None = None
    ) -> Predictor:
        """A fitted copy.

        Parameters
        ----------
        frame : DataFrame
            ``Store.latest()`` or ``Store.frame()``: rows with status ``ok`` that were measured or imported are used.
        environments : mapping
            ``Store.environments()``: for the ceilings of all machines, those that have measured nothing, too.
        graphs : Graphs, optional
            Operators of the workloads: where they are known, latency is also priced operator by operator, elsewhere only by the
            totals of each operator class; default: those of the zoo, as the configuration's ``operators`` says.

        Raises
        ------
        PredictionError
            If there is too little to learn from.
        """
        graphs = traced(frame, self.config) if graphs is None else graphs
        table, ceilings = learnt_from(frame, environments, self.config, graphs)
        return self.fit_rows(table, ceilings_of(devices_of(environments), environments) | ceilings, graphs)

    def fit_rows(
        self, table: pd.DataFrame, ceilings: Mapping[Device, Ceilings], graphs: Graphs | None = None
    ) -> Predictor:
        """A copy fitted to rows of :func:`learnt_from`, or some of them."""
        config = self.config
        form = latency_law(table, ceilings, graphs, config)
        fit = {"latency_s": Quantity.fit("latency_s", table, form, config)}
        memory = table[table["primary"].astype(bool)] if "primary" in table else table
        held = TermLaw(memory_terms, ceilings, LEVELS, _nested(config))
        with suppress(PredictionError):  # too few families tell of it
            fit[MEMORY] = Quantity.fit(MEMORY, memory, held, config)
        domain = Domain.of(table, config, form.few(table))
        frameworks = _newest_framework(table)
        return replace(
            self, quantities=fit, domain=domain, graphs=graphs, frameworks=frameworks, ceilings=dict(ceilings)
        )

    def predict(self, frame: pd.DataFrame, level: float | None = None, levels: Sequence[float] = ()) -> pd.DataFrame:
        """Latency and peak memory of each row.

        Parameters
        ----------
        frame : DataFrame
            One row a series: model, machine, platform, mode, precision, batch size and footprint columns, as in a
            store's frame or from :func:`labbench.prediction.candidates`. Measured values in it are ignored. A machine that is in
            no environment has the ceilings of the datasheet of its ``device_name``.
        level : float, optional
            Nominal coverage of the intervals; default: the configuration's.
        levels : sequence of float, optional
            Of further intervals, which together tell the distribution.

        Returns
        -------
        DataFrame
            The frame's descriptive columns and, for each quantity, ``latency_s``, ``latency_low_s``, ``latency_high_s``
            and ``memory_increase_bytes``, ``memory_increase_low_bytes``, ``memory_increase_high_bytes``; ``level`` (coverage the
            interval stands for), ``provenance`` (``predicted``), ``method``, ``out_of_domain`` and ``reason``; of further intervals
            ``latency_reach_<level>`` and ``memory_increase_reach_<level>``: half-width in the log, infinite where too little was
            learnt from to support the level; and ``latency_shared`` and ``memory_increase_shared``: how much of an error's variance
            all cells of one model and size have in common on devices of one kind. A row that cannot be predicted has no values and
            says why in ``reason``.
        """
        import pandas as pd

        level = level or self.config.level
        table = prepare(frame if self.graphs is None else self.graphs.fill(frame))
        if "framework" not in table:
            keys = zip(labels(table, CONFIGURATION), labels(_like(table), CONFIGURATION), strict=True)
            table["framework"] = [
                self.frameworks.get(own) or self.frameworks.get(like, NO_FRAMEWORK) for own, like in keys
            ]
        ceilings = self._ceilings(table)
        verdict = self.judge(table)
        answered, inside = verdict["refusal"].isna().to_numpy(), verdict["departure"].isna().to_numpy()
        described = [name for name in DESCRIPTION if name in table]
        out = table[described].copy()
        for name, quantity in self.quantities.items():
            rows = table[answered]
            values = quantity.predict(rows, inside[answered], level, ceilings, levels)
            if name == "latency_s":
                probes = values["probes"].reindex(table.index).to_numpy()
                anchors = values["anchor"].reindex(table.index, fill_value="").tolist()
            stem, unit = name.rsplit("_", 1)
            ends = {name: "point", f"{stem}_low_{unit}": "low", f"{stem}_high_{unit}": "high"}
            ends |= {f"{stem}_reach_{one:g}": f"reach_{one:g}" for one in levels}
            ends |= {f"{stem}_shared": "shared"} if levels else {}
            for column, value in ends.items():
                out[column] = pd.Series(np.nan, index=table.index).where(~answered, values[value].reindex(table.index))
        out["level"] = np.where(answered, min(q.radius(level).level for q in self.quantities.values()), np.nan)
        out["provenance"] = "predicted"
        corrected = inside & (self.quantities["latency_s"].far.weight > 0)
        told = np.zeros(len(table), bool) if self.graphs is None else self.graphs.number(table) >= 0
        out["method"] = [self._method(*how) for how in zip(told, corrected, probes, anchors, strict=True)]
        out["out_of_domain"] = ~(answered & inside)
        carried = [
            None if np.isnan(few) else self._new(int(few), machine, platform, device, ceilings[machine, device])
            for few, (machine, platform, device) in zip(probes, labels(table, (*PLATFORM, "device")), strict=True)
        ]
        out["reason"] = [
            refusal or "; ".join(filter(None, (far, departure and f"{NOT_CALIBRATED}: {departure}"))) or None
            for refusal, departure, far in zip(verdict["refusal"], verdict["departure"], carried, strict=True)
        ]
        return out

    def _ceilings(self, table: pd.DataFrame) -> dict[Device, Ceilings]:
        """Of the devices that it knows, and of others in a frame by their names alone: a datasheet's, or nominal ones."""
        found = dict(self.ceilings)
        names = table["device_name"] if "device_name" in table else [None] * len(table)
        for place, name in dict(zip(labels(table, ("machine_id", "device")), names, strict=True)).items():
            machine, device = place
            if (machine, device) not in found:
                sheet = Ceilings.named(name) if isinstance(name, str) else None
                found[machine, device] = sheet or Ceilings.of(None, device)
        return found

    def _method(self, told: bool, corrected: bool, probes: float, anchor: str) -> str:
        """How a row was predicted: whether operators were told; ``probes`` is missing where a law of its own was at hand."""
        if np.isnan(probes):
            form = f"{OF_OPERATORS} and {METHOD}" if told else METHOD
            trees = "boosting" if self.quantities["latency_s"].far.scale is None else "forests"
            return " + ".join(filter(None, (form, trees if corrected and anchor != BATCHES else "", anchor)))
        form = OF_OPERATORS if told else METHOD
        return f"{form} + {PROCESS}, {count(int(probes), 'probe') if probes else 'no probes'}"

    def _new(self, probes: int, machine: str, platform: str, device: str, ceilings: Ceilings) -> str:
        """Why a row was predicted from other devices, and what was known of its own."""
        measured = self.domain.devices if self.domain else set()
        elsewhere = measured - {(machine, device)}
        others = count(len(elsewhere), "other device")
        known = f"; its ceilings: {ceilings.source}" if ceilings.source != MEASURED else ""
        if probes:
            few = f"{count(probes, 'cell')} measured on {device} of machine {machine}, too few for a law"
            return f"{few}: with {others if elsewhere else 'what else was measured there'}{known}"
        if (machine, device) in measured:
            return f"this was never measured on {platform} of machine {machine}: from what was, and {others}{known}"
        return f"nothing was measured on {platform} of machine {machine}: carried over from {others}{known}"

    def judge(self, table: pd.DataFrame) -> pd.DataFrame:
        """Of each prepared row: ``refusal``, why it has no prediction, and ``departure``, how it leaves the domain."""
        import pandas as pd

        if self.domain is None:
            raise PredictionError("the predictor is not fitted: call fit(frame, environments) first")
        refusals = self.domain.refusals(table, self._ceilings(table))
        if self.graphs is not None:
            pairs = zip(refusals, self.graphs.unknown(table), strict=True)
            refusals = [unknown or one if one == NOT_COUNTED else one for one, unknown in pairs]
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


def latency_law(
    table: pd.DataFrame, ceilings: Mapping[Device, Ceilings], graphs: Graphs | None, config: PredictionConfig
) -> TermLaw | Blend:
    """The law that latencies of such rows are to be fitted to: of totals, and where there are graphs of operators, too."""
    totals = TermLaw(latency_terms, ceilings, LEVELS, _nested(config))
    return totals if graphs is None else Blend(OperatorLaw.of(table, graphs, ceilings, config.noise), totals, ceilings)


def _nested(config: PredictionConfig) -> Law:
    return Law(config.pooled_width, config.level_width, config.noise)


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
    """:func:`training_rows` with their ``framework`` and, with ``graphs``, what their operators demand; their devices' ceilings.

    Raises
    ------
    PredictionError
        If there are none.
    """
    table = _filled(frame, config, graphs)
    return with_framework(table, environments), ceilings_of(table, environments)


def learnt_rows(frame: pd.DataFrame, config: PredictionConfig, graphs: Graphs | None = None) -> pd.DataFrame:
    """:func:`training_rows`; with ``graphs`` what their operators demand is filled in, and rows that lack it are left out.

    Raises
    ------
    PredictionError
        If there are none.
    """
    table = _filled(frame, config, graphs)
    if graphs is None:
        return table
    return table[np.isfinite(table[list(TOTALS)].to_numpy(float)).all(axis=1)].reset_index(drop=True)


def _filled(frame: pd.DataFrame, config: PredictionConfig, graphs: Graphs | None) -> pd.DataFrame:
    return training_rows(frame, config) if graphs is None else graphs.named(training_rows(graphs.fill(frame), config))


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
    names = (*labels(_like(by_age), CONFIGURATION), *labels(by_age, CONFIGURATION))
    return dict(zip(names, (*by_age["framework"], *by_age["framework"]), strict=True))  # the last one stays


def _like(table: pd.DataFrame) -> pd.DataFrame:
    """Rows as if of any machine: what a new device's cells are called that have no version."""
    return table.assign(
        machine_id=ANYWHERE, platform=table["device"].astype("str") + "/" + table["runtime"].astype("str")
    )


def devices_of(environments: Mapping[str, Environment]) -> pd.DataFrame:
    """``machine_id`` and ``device`` of all that is in some environments."""
    import pandas as pd

    parts = {one.machine_id: one.machine.get("accelerators", []) for one in environments.values()}
    places = [
        (name, device) for name, there in parts.items() for device in ("cpu", *(part["device"] for part in there))
    ]
    return pd.DataFrame(places, columns=["machine_id", "device"], dtype=str)


def framework_age(framework: str) -> float:
    """Of ``torch 2.10`` 2010; less than of any version where none is known."""
    numbers = [int(part) for part in framework.split()[-1].split(".") if part.isdigit()]
    return 1000.0 * numbers[0] + numbers[-1] if numbers else -1.0


def ceilings_of(frame: pd.DataFrame, environments: Mapping[str, Environment]) -> dict[Device, Ceilings]:
    """Ceilings of each machine and device in the frame, measured ones first, then datasheets'.

    Those of a device of which nothing is known are the mean of the others of its kind, and still nominal.
    """
    found: dict[Device, Ceilings] = {}
    for machine, device in frame[["machine_id", "device"]].astype("str").drop_duplicates().itertuples(index=False):
        there = [Ceilings.of(one, device) for one in environments.values() if one.machine_id == machine]
        best = max(there, key=lambda limit: (limit.source == MEASURED, limit.known), default=Ceilings.of(None, device))
        found[machine, device] = best
    for (machine, device), limit in found.items():
        kind = device.split(":")[0]
        like = [one for (_, other), one in found.items() if one.known and other.split(":")[0] == kind]
        if like and not limit.known:
            found[machine, device] = Ceilings.mean(like, NOMINAL)
    return found
