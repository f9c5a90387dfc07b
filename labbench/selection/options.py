"""Every option for every question: what was measured first, what is predicted where nothing was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from labbench.config import unknown_name
from labbench.selection.catalogue import Facts, card_rows, facts_of
from labbench.selection.chances import Belief, levels_with
from labbench.selection.requirements import Requirements, SelectionError

if TYPE_CHECKING:
    import pandas as pd

    from labbench.prediction import Predictor
    from labbench.records import Environment

# A question is what is to run. Precision belongs to the answer, like the platform; the batch size does if that is asked for.
QUESTION = ("model", "task", "mode", "batch_size", "seq_len", "image_size", "frames", "audio_s")
KEPT = (
    *QUESTION,
    *("machine_id", "device", "device_name", "runtime", "platform", "precision", "cell_id", "series", "status"),
    *("reason", "provenance", "items_per_call", "throughput_unit", "prepare_s", "noise", "n_samples"),
    *("latency_statistic", "kv_cache", "variant", "world_size", "parameters", "tensor_peak_bytes", "started_at"),
    *("threads_asked", "memory_format"),
)
ASKED_FOR = ("measured", "imported", "simulated")
MILLION = 1_000_000
TAILS = {50: "median", 90: "latency_p90", 99: "latency_p99"}  # percentile -> stem of its columns
ENDS = ("", "_low", "_high")
TIMES = tuple(f"{stem}{end}_s" for stem in ("latency", *TAILS.values()) for end in ENDS)
MAD_SD = 1.4826  # standard deviation of a normal distribution over its median absolute deviation


@dataclass(frozen=True)
class Options:
    """What could run where.

    Attributes
    ----------
    table : DataFrame
        See :func:`options`.
    beliefs : mapping of str to Belief
        Of ``median``, ``latency_p90``, ``latency_p99`` and ``memory``, aligned with the table's rows.
    """

    table: pd.DataFrame
    beliefs: Mapping[str, Belief]


def options(
    frame: pd.DataFrame,
    requirements: Requirements,
    predictor: Predictor | None = None,
    environments: Mapping[str, Environment] | None = None,
) -> Options:
    """One row for each question and each platform and precision it could run on.

    Parameters
    ----------
    frame : DataFrame
        ``Store.latest()``.
    requirements : Requirements
        Which models, modes and series; at which percentile; prices; cards known by their datasheets.
    predictor : Predictor, optional
        Fitted; answers for cells without any record.
    environments : mapping, optional
        ``Store.environments()``: tell the memory of devices.

    Returns
    -------
    Options
        The table has the columns of ``KEPT``, ``question`` (number), ``option`` (label), ``predicted``, ``out_of_domain``,
        ``latency_s`` (at the percentile asked for), ``median_s``, ``latency_p90_s``, ``latency_p99_s``, ``item_s`` (time of
        one item), ``throughput``, ``cost_per_million``, ``training_s`` and ``training_cost`` (all four at the median), each with
        ``_low`` and ``_high`` ends; ``memory_bytes`` (peak above an empty worker) with its ends, ``joules_per_item``,
        ``output_error``, ``cost_per_hour``, ``vendor``, ``architecture``, ``device_memory_bytes`` and ``price_age_days``.

    Raises
    ------
    SelectionError
        If nothing in the store answers the question.
    ConfigError
        For a model, device or runtime that the store does not know, with the nearest one that it does.
    """
    import pandas as pd

    asked = _restricted(frame, requirements)
    levels = levels_with(requirements.probability, (1 + requirements.confidence) / 2)
    parts = [_measured(asked, requirements, levels)]
    if predictor is not None:
        parts += _predicted(frame, asked, requirements, predictor, levels)
    table = pd.concat([part.table.astype({"reason": object}) for part in parts], ignore_index=True)
    beliefs = dict(parts[0].beliefs)
    for part in parts[1:]:
        beliefs = {name: belief.followed_by(part.beliefs[name]) for name, belief in beliefs.items()}
    table = table.astype({"parameters": float, "tensor_peak_bytes": float})
    table["question"] = table.groupby(question(requirements), dropna=False, observed=True, sort=False).ngroup()
    table["option"] = _labels(table, requirements)
    return Options(_derived(table, requirements, environments or {}), beliefs)


def question(requirements: Requirements) -> list[str]:
    """Columns that tell one question from another."""
    return [name for name in QUESTION if not (requirements.choose_batch and name == "batch_size")]


def _labels(table: pd.DataFrame, requirements: Requirements) -> list[str]:
    """What tells the options of a question apart, in words."""
    several = table["machine_id"].nunique() > 1
    labels = []
    for row in table[["platform", "precision", "batch_size", "variant", "kv_cache", "machine_id"]].itertuples():
        parts = [str(row.platform)]
        parts += [str(row.precision)] if row.precision != "fp32" else []
        parts += [f"b{row.batch_size}"] if requirements.choose_batch else []
        parts += [f"({row.variant})"] if isinstance(row.variant, str) else []
        parts += ["uncached"] if row.kv_cache is False or str(row.kv_cache) == "False" else []
        parts += [f"on {row.machine_id}"] if several else []
        labels.append(" ".join(parts))
    return labels


def _derived(table: pd.DataFrame, requirements: Requirements, environments: Mapping[str, Environment]) -> pd.DataFrame:
    """With what follows from time, price and device."""
    places = table[["machine_id", "device", "device_name"]].astype(object)
    facts: dict[tuple[object, ...], Facts] = {}
    for place in places.drop_duplicates().itertuples(index=False, name=None):
        machine, device, name = place
        facts[_key(place)] = facts_of(str(machine), str(device), name if isinstance(name, str) else None, environments)
    rows = [facts[_key(place)] for place in places.itertuples(index=False, name=None)]
    table = table.assign(
        vendor=[one.vendor for one in rows],
        architecture=[one.architecture for one in rows],
        device_memory_bytes=[one.memory_bytes for one in rows],
        lacks=[
            one.lacks(precision) if predicted else None
            for one, precision, predicted in zip(
                rows, table["precision"].astype("str"), table["predicted"], strict=True
            )
        ],
    )
    names = table[["machine_id", "device_name", "device"]].astype("str").to_numpy()
    prices = [requirements.price_of(*row) for row in names]
    share = table["world_size"].fillna(1).to_numpy(float)  # so many devices are paid
    table["cost_per_hour"] = share * np.array([price.per_hour if price else np.nan for price in prices])
    table["price_age_days"] = [price.age_days() if price else np.nan for price in prices]
    a_second = table["cost_per_hour"] / 3600
    samples = requirements.samples or np.nan
    training, each_call = (table["mode"] == "training").to_numpy(), _samples_per_call(table)
    for end, other in (("", ""), ("_low", "_high"), ("_high", "_low")):  # throughput is what the median gives
        table[f"item{end}_s"] = table[f"median{end}_s"] / table["items_per_call"]
        table[f"throughput{end}"] = table["items_per_call"] / table[f"median{other}_s"]
        table[f"cost_per_million{end}"] = MILLION * a_second * table[f"item{end}_s"]
        table[f"training{end}_s"] = np.where(training, samples * table[f"median{end}_s"] / each_call, np.nan)
        table[f"training_cost{end}"] = a_second * table[f"training{end}_s"]
    return table


def _samples_per_call(table: pd.DataFrame) -> np.ndarray:
    """Of a throughput counted in tokens or seconds of audio: how many samples that is."""
    unit = table["throughput_unit"].astype("str").to_numpy()
    size = np.select([unit == "tokens", unit == "audio_s"], [_floats(table, "seq_len"), _floats(table, "audio_s")], 1.0)
    return _floats(table, "items_per_call") / size


def _key(place: tuple[object, ...]) -> tuple[object, ...]:
    return tuple(one if isinstance(one, str) else None for one in place)


def _restricted(frame: pd.DataFrame, requirements: Requirements) -> pd.DataFrame:
    """Rows that the question is about; names that the store does not know are refused."""
    table = frame[frame["provenance"].isin(ASKED_FOR)]
    if table.empty:
        raise SelectionError("the store holds no measured record; measure some with `labbench run`")
    for column, values in (("model", requirements.models), ("series", requirements.series)):
        wanted = [values] if isinstance(values, str) else values or []
        for value in wanted:
            known = set(table[column].dropna().astype("str"))
            if value not in known:
                run, predict = (f"`labbench {one} --model {value}`" for one in ("run", "predict"))
                way = f"; measure it with {run}, or see {predict}" if column == "model" else ""
                raise _not_there(column, value, known, way)
    for column, allowed in (("device", requirements.devices), ("runtime", requirements.runtimes)):
        known = set(table[column].dropna().astype("str"))
        if column == "device":
            known |= {*table["device_name"].dropna().astype("str"), *requirements.gpus}
        for value in allowed or []:
            if value not in known:
                way = f', or give it as a card of a datasheet: --gpu "{value}"' if column == "device" else ""
                raise _not_there(column, value, known, way)
    if requirements.models is not None:
        table = table[table["model"].isin(requirements.models)]
    if requirements.modes is not None:
        table = table[table["mode"].isin(requirements.modes)]
    if table.empty:
        raise SelectionError(
            f"no record in the store has mode {' or '.join(requirements.modes or [])} for the models asked for; "
            "measure some with `labbench run --mode ...`"
        )
    return table


def _not_there(column: str, value: str, known: set[str], way: str) -> Exception:
    error = unknown_name(f"{column} (not in the store)", value, known)
    return type(error)(f"{error}{way}")


def _of_series(table: pd.DataFrame, requirements: Requirements) -> pd.DataFrame:
    if requirements.series is None:
        return table[table["primary"].astype(bool)]
    return table[(table["series"] == requirements.series) | table["series"].isna()]


def _measured(asked: pd.DataFrame, requirements: Requirements, levels: tuple[float, ...]) -> Options:
    rows = _of_series(asked, requirements)
    table = rows.reindex(columns=list(KEPT)).astype({"reason": object}).reset_index(drop=True)
    beliefs = {}
    for percentile, stem in TAILS.items():
        column = "latency" if percentile == 50 else f"latency_p{percentile}"
        point, low, high = (_floats(rows, f"{column}{end}_s") for end in ("", "_ci_low", "_ci_high"))
        low, high = np.where(np.isnan(low), point, low), np.where(np.isnan(high), point, high)
        beliefs[stem] = Belief.of_interval(point, low, high, levels)
        for end, value in zip(ENDS, (point, low, high), strict=True):
            table[f"{stem}{end}_s"] = value
    memory = _floats(rows, "memory_increase_bytes")
    beliefs["memory"] = Belief.of_interval(memory, memory, memory, levels)
    for end in ENDS:
        table[f"memory{end}_bytes"] = memory
    items = _floats(rows, "items_per_call")
    table = table.assign(
        predicted=False,
        out_of_domain=False,
        joules_per_item=np.where(rows["primary"].to_numpy(bool), _floats(rows, "joules_per_call") / items, np.nan),
        output_error=np.where(_is_reference(rows), 0.0, _floats(rows, "check_error")),
    )
    return Options(_at_percentile(table, requirements), beliefs)


def _is_reference(rows: pd.DataFrame) -> np.ndarray:
    """Which rows are of what outputs are compared with."""
    reference = (rows["runtime"].astype("str") == "eager") & (rows["precision"].astype("str") == "fp32")
    return np.asarray(reference & (rows["status"] == "ok"), bool)


def _floats(rows: pd.DataFrame, name: str) -> np.ndarray:
    return rows[name].to_numpy(float, na_value=np.nan) if name in rows else np.full(len(rows), np.nan)


def _at_percentile(table: pd.DataFrame, requirements: Requirements) -> pd.DataFrame:
    stem = TAILS[requirements.latency_percentile]
    return table.assign(**{f"latency{end}_s": table[f"{stem}{end}_s"] for end in ENDS})


def _predicted(
    frame: pd.DataFrame,
    asked: pd.DataFrame,
    requirements: Requirements,
    predictor: Predictor,
    levels: tuple[float, ...],
) -> list[Options]:
    """Predictions for the cells of these workloads that have no record.

    The predictor knows medians; another percentile is the median times the ratio that is typical of the platform, and its
    interval is the wider for how much that ratio varies from cell to cell.
    """
    import pandas as pd

    from labbench.prediction import missing

    absent = missing(frame[frame["provenance"].isin(ASKED_FOR)])
    absent = absent[absent["model"].isin(asked["model"].unique()) & absent["mode"].isin(asked["mode"].unique())]
    several = [absent.assign(card=False)]
    if requirements.gpus:
        several.append(card_rows(frame, asked, requirements.gpus).assign(card=True))
    cells = _of_series(pd.concat([one for one in several if len(one)] or several[:1]), requirements)
    if cells.empty:
        return []
    cells = cells.reset_index(drop=True)
    told = predictor.predict(cells, level=requirements.confidence, levels=[level for level in levels if level > 0])
    table = told.assign(status="ok", predicted=True, prepare_s=np.nan, noise=None, joules_per_item=np.nan)
    table = table.assign(output_error=np.nan, device_name=cells["device_name"], provenance="predicted")
    table["tensor_peak_bytes"] = cells.get("tensor_peak_bytes", np.nan)
    table[["threads_asked", "memory_format"]] = _as_asked(frame, cells)
    beliefs = {
        "memory": Belief.of_reach(
            _floats(told, "memory_increase_bytes"),
            _reach(told, "memory_increase", levels),
            levels,
            _shared(told, "memory_increase"),
        )
    }
    for end in ENDS:
        table[f"memory{end}_bytes"] = _floats(told, f"memory_increase{end}_bytes")
    for percentile, stem in TAILS.items():
        ratio, sd = _tail_ratio(frame, cells, percentile)
        known = Belief.of_reach(
            _floats(told, "latency_s") * ratio, _reach(told, "latency", levels), levels, _shared(told, "latency")
        )
        beliefs[stem] = belief = known.blurred(sd)
        reach = np.hypot(
            np.log(_floats(told, "latency_high_s") / _floats(told, "latency_s")), _normal(requirements) * sd
        )
        for end, side in zip(ENDS, (0, -1, 1), strict=True):
            table[f"{stem}{end}_s"] = belief.point * np.exp(side * reach)
    keep = [*KEPT, "predicted", "out_of_domain", *TIMES, "joules_per_item", "output_error"]
    keep += [f"memory{end}_bytes" for end in ENDS]
    return [Options(_at_percentile(table, requirements).reindex(columns=keep), beliefs)]


def _as_asked(frame: pd.DataFrame, cells: pd.DataFrame) -> np.ndarray:
    """Threads and memory format with which the platform of each cell was asked for, shape (n, 2); None where nothing ran there."""
    names = ["threads_asked", "memory_format"]
    ran = frame.drop_duplicates(["machine_id", "platform"]).set_index(["machine_id", "platform"])[names].astype(object)
    return np.asarray(ran.reindex(list(zip(cells["machine_id"], cells["platform"], strict=True))).to_numpy(object))


def _normal(requirements: Requirements) -> float:
    from scipy.special import ndtri

    return float(ndtri((1 + requirements.confidence) / 2))


def _reach(told: pd.DataFrame, stem: str, levels: tuple[float, ...]) -> np.ndarray:
    """Half-widths in the log, shape (n, levels)."""
    reach = np.zeros((len(told), len(levels)))
    for number, level in enumerate(levels):
        if level > 0:
            reach[:, number] = _floats(told, f"{stem}_reach_{level:g}")
    return np.nan_to_num(reach, nan=np.inf, posinf=np.inf)


def _shared(told: pd.DataFrame, stem: str) -> np.ndarray:
    """How much of an error the options of one question have in common, shape (n,)."""
    return np.nan_to_num(_floats(told, f"{stem}_shared"))


def _tail_ratio(frame: pd.DataFrame, cells: pd.DataFrame, percentile: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each cell the ratio of a percentile to the median that is typical of its platform, and its deviation in the log.

    Where the platform has none, e.g. that of a card nobody measured: that of its device and runtime anywhere; else NaN.
    """
    if percentile == 50:
        return np.ones(len(cells)), np.zeros(len(cells))
    known = frame[frame["latency_statistic"].astype("str") == "median"]
    ratio = np.log(known[f"latency_p{percentile}_s"] / known["latency_s"])
    groups = ratio.groupby(known["platform"].astype("str"))
    typical = groups.median()
    sd = MAD_SD * groups.agg(lambda one: (one - one.median()).abs().median())
    names = cells["platform"].astype("str")
    return np.exp(typical.reindex(names).to_numpy(float)), sd.reindex(names).fillna(0.0).to_numpy(float)
