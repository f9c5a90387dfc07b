"""One model on all its platforms, or one platform with all its models: the same questions from either side.

    of_model(frame, "bert-base")    ──┐
                                      ├──> rows with a column ``side``: the platforms, or the models
    of_platform(frame, "cpu/eager") ──┘        │
                                               └──> side_by_side, over_batch, cold_start, energy, training, pareto

Everything is SI; what was not recorded (imported results know neither memory nor phases) stays missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from labbench.analysis.labels import WORK, side

if TYPE_CHECKING:
    import pandas as pd

KIND = ("mode", "series", "throughput_unit")  # a forward pass, reading a prompt and a further token are told apart
SERIES_NAMES = {
    "forward": "a forward pass",
    "prefill": "reading the prompt",
    "decode": "a further token",
    "step": "a training step",
}
UNITS = {"audio_s": "seconds of audio"}  # of throughput, where the name is no word
INPUT = ("task", "seq_len", "image_size", "frames", "audio_s")
PHASES = ("start_s", "load_s", "prepare_s", "first_run_s")
ASSUMED = (
    0.02  # relative half-width of an interval that a source does not give: smaller differences are nobody's to act on
)
FACTS = (
    "side", *KIND, *INPUT, "precision", "batch_size", "status", "latency_s", "latency_ci_low_s", "latency_ci_high_s",
    "latency_statistic", "latency_p99_s", "throughput", "memory_increase_bytes", *PHASES, "joules_per_call",
    "check_error", "check_tolerance", "noise", "provenance", "reason",
)  # fmt: skip


def of_model(frame: pd.DataFrame, model: str | None = None) -> pd.DataFrame:
    """The rows of one model, ``side`` naming the platform of each.

    Parameters
    ----------
    frame : DataFrame
        Tidy rows (:meth:`labbench.store.Store.latest`).
    model : str, optional
        Default: the model with most records.

    Raises
    ------
    ConfigError
        If no row has the model, naming the nearest one.
    """
    return _of(frame, "model", model, "platform")


def of_platform(frame: pd.DataFrame, platform: str | None = None) -> pd.DataFrame:
    """The rows of one platform, ``side`` naming the model of each; else as :func:`of_model`."""
    return _of(frame, "platform", platform, "model")


def _of(frame: pd.DataFrame, by: str, name: str | None, other: Literal["platform", "model"]) -> pd.DataFrame:
    from labbench.config import unknown_name

    names = frame.loc[frame["primary"], by].astype("str")
    if name is None and len(names):
        name = names.value_counts().sort_index().idxmax()
    elif name is not None and name not in set(names):
        raise unknown_name(by, name, sorted(set(names)))
    rows = frame[frame[by] == name] if name else frame.iloc[:0]
    return rows.assign(side=side(rows, other)).reset_index(drop=True)


def _smallest(rows: pd.DataFrame) -> pd.DataFrame:
    """Of each side and mode, the rows at its smallest batch size."""
    least = rows.groupby(["side", "mode"], observed=True)["batch_size"].transform("min")
    return rows[(rows["batch_size"] == least).fillna(False).astype(bool)]


def side_by_side(profile: pd.DataFrame) -> pd.DataFrame:
    """Every side at its smallest batch size, a row a series, the fastest of a size first; one that did not run has its reason.

    Columns: those named in ``FACTS``.
    """
    rows = _smallest(profile)[list(FACTS)]
    return rows.sort_values(["mode", "series", "batch_size", "latency_s"], kind="stable", ignore_index=True)


def over_batch(profile: pd.DataFrame) -> pd.DataFrame:
    """Latency, throughput and memory of every cell that ran, ordered by batch size within each side.

    Columns: ``FACTS``, ``primary``, and the interval of the throughput, ``throughput_ci_low`` and ``throughput_ci_high``
    (items a call over the interval of the latency).
    """
    rows = profile[(profile["status"] == "ok") & profile["latency_s"].notna()]
    rows = rows[[*FACTS, "primary", "items_per_call"]].assign(
        throughput_ci_low=rows["items_per_call"] / rows["latency_ci_high_s"],
        throughput_ci_high=rows["items_per_call"] / rows["latency_ci_low_s"],
    )
    return rows.sort_values([*KIND, "side", "provenance", "batch_size"], kind="stable", ignore_index=True)


def with_memory(curve: pd.DataFrame) -> pd.DataFrame:
    """The rows of :func:`over_batch` whose memory is known, one a record: all series of a record share the figure."""
    return curve[curve["primary"] & curve["memory_increase_bytes"].notna()]


def with_curve(rows: pd.DataFrame, growth: pd.DataFrame) -> pd.DataFrame:
    """The rows of the kinds that a side ran at several batch sizes, which :func:`growth` tells; all rows if there is none."""
    kept = rows.merge(growth[list(KIND)].drop_duplicates())
    return kept if len(kept) else rows


def growth(curve: pd.DataFrame) -> pd.DataFrame:
    """From the smallest to the largest batch size of each side: what a call, a second and a sample give and take.

    Columns: ``side``, ``KIND``, ``batch_size``, ``largest_batch_size``, ``latency_ratio``, ``throughput_ratio`` (largest /
    smallest) and ``bytes_per_sample`` (further memory a further sample takes). Sides with one batch size are left out.
    """
    grouped = curve.groupby(["side", *KIND, "provenance"], observed=True, sort=False)
    ends = grouped.first(skipna=False).join(grouped.last(skipna=False).add_suffix("_end")).reset_index()
    ends = ends[(ends["batch_size_end"] > ends["batch_size"]).fillna(False).astype(bool)]
    further = (ends["batch_size_end"] - ends["batch_size"]).astype(float)
    memory = (ends["memory_increase_bytes_end"] - ends["memory_increase_bytes"]).astype(float)
    table = ends[["side", *KIND, "provenance", "batch_size"]].assign(
        largest_batch_size=ends["batch_size_end"],
        latency_ratio=ends["latency_s_end"] / ends["latency_s"],
        throughput_ratio=ends["throughput_end"] / ends["throughput"],
        bytes_per_sample=memory / further,
    )
    return table.reset_index(drop=True)


def cold_start(profile: pd.DataFrame) -> pd.DataFrame:
    """From the request for a worker to the first result at the smallest batch size, and its parts, the quickest first.

    Columns: ``side``, ``mode``, ``batch_size``, ``PHASES``, ``total_s`` (of the parts that are known), ``complete`` (all
    are), ``provenance``. Sides without any figure are left out.
    """
    rows = _smallest(profile[(profile["status"] == "ok") & profile["primary"]])
    rows = rows[["side", "mode", "batch_size", *PHASES, "provenance"]]
    known = rows[list(PHASES)].notna()
    rows = rows.assign(total_s=rows[list(PHASES)].sum(axis=1), complete=known.all(axis=1))[known.any(axis=1)]
    return rows.sort_values(["mode", "total_s"], kind="stable", ignore_index=True)


def energy(profile: pd.DataFrame) -> pd.DataFrame:
    """Joules of a call and of an item where they are known, else the recorded reason; a row a cell that ran.

    Columns: ``side``, ``mode``, ``batch_size``, ``joules_per_call``, ``joules_per_item``, ``throughput_unit``,
    ``energy_reason``, ``provenance``.
    """
    rows = profile[(profile["status"] == "ok") & profile["primary"]]
    rows = rows.assign(joules_per_item=rows["joules_per_call"] / rows["items_per_call"])
    columns = ["side", "mode", "batch_size", "joules_per_call", "joules_per_item", "throughput_unit"]
    return rows[[*columns, "energy_reason", "provenance"]].reset_index(drop=True)


def training(profile: pd.DataFrame) -> pd.DataFrame:
    """A training step beside an inference call of the same model, platform, input and batch size.

    The inference call is a forward pass, or reading the prompt. The interval takes the ends of both latencies' intervals,
    so that it is at least as wide as it should be.

    Columns: ``side``, ``batch_size``, ``series`` (of the inference), ``inference_s``, ``step_s``, ``ratio``,
    ``ratio_low``, ``ratio_high``, ``memory_ratio``, ``provenance``.
    """
    rows = profile[(profile["status"] == "ok") & profile["primary"] & profile["latency_s"].notna()]
    same = [
        "platform",
        "machine_id",
        "precision",
        "provenance",
        *(name for name in WORK if name not in ("mode", "series")),
    ]
    step, call = (rows[rows["mode"] == mode] for mode in ("training", "inference"))
    both = call.merge(step.drop_duplicates(same), on=same, suffixes=("", "_step"))
    table = both[["side", "batch_size", "series"]].assign(
        inference_s=both["latency_s"],
        step_s=both["latency_s_step"],
        ratio=both["latency_s_step"] / both["latency_s"],
        ratio_low=both["latency_ci_low_s_step"] / both["latency_ci_high_s"],
        ratio_high=both["latency_ci_high_s_step"] / both["latency_ci_low_s"],
        memory_ratio=(both["memory_increase_bytes_step"] / both["memory_increase_bytes"]).astype(float),
        provenance=both["provenance"],
    )
    return table.sort_values(["side", "batch_size"], kind="stable", ignore_index=True)


def pareto(curve: pd.DataFrame) -> pd.DataFrame:
    """Which cells are clearly dominated: another is clearly no worse in latency, throughput and memory, and better in one.

    Clearly: the intervals do not overlap; where a source gives none, ±2 % are assumed. A cell whose memory is not known
    neither dominates one whose memory is nor is dominated by it; if no cell of a kind has a figure, memory does not count.

    Parameters
    ----------
    curve : DataFrame
        As :func:`over_batch` gives it, of one model: different models do not stand in for one another.

    Returns
    -------
    DataFrame
        The rows, with ``dominated_by`` (position of the fastest row that clearly dominates it, -1 if none does),
        ``efficient`` (none does) and ``objectives`` (how many counted).
    """
    dominated_by, objectives = np.full(len(curve), -1), np.zeros(len(curve), dtype=int)
    fastest_first = np.argsort(curve["latency_s"].to_numpy(dtype=float), kind="stable")
    groups = curve.iloc[fastest_first].groupby([*KIND, *INPUT], observed=True, dropna=False).indices
    for at in (fastest_first[group] for group in groups.values()):
        low, high = _costs(curve.iloc[at])
        beats: np.ndarray = np.all(high[:, None] <= low[None], axis=2) & np.any(high[:, None] < low[None], axis=2)
        dominated_by[at] = np.where(beats.any(axis=0), at[beats.argmax(axis=0)], -1)
        objectives[at] = low.shape[1]
    return curve.assign(dominated_by=dominated_by, efficient=dominated_by < 0, objectives=objectives)


def _costs(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper ends of what each cell costs: seconds a call, seconds an item, bytes (if any row knows them)."""
    middle = rows["latency_s"].to_numpy(dtype=float)
    low = rows["latency_ci_low_s"].fillna(rows["latency_s"] * (1 - ASSUMED)).to_numpy(dtype=float)
    high = rows["latency_ci_high_s"].fillna(rows["latency_s"] * (1 + ASSUMED)).to_numpy(dtype=float)
    items = rows["throughput"].to_numpy(dtype=float) * middle
    memory = rows["memory_increase_bytes"].astype("float64").to_numpy()
    extra = [] if np.isnan(memory).all() else [memory]
    return np.column_stack([low, low / items, *extra]), np.column_stack([high, high / items, *extra])
