"""Tables of what ranks here did, from their records."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from labbench.distributed.collectives_model import bus_factor
from labbench.distributed.rank_cells import CHECK
from labbench.records import Record


def strategy_table(records: Sequence[Record]) -> pd.DataFrame:
    """A row for each strategy: whether it is right, by how much not, its step, and why it has none.

    Returns
    -------
    DataFrame
        ``strategy``, ``ranks``, ``status``, ``gradient_error`` and ``change_error`` (in units of the global norm) and
        ``check`` (the share of its tolerance that the worst takes), ``step_s``, ``exposed_communication_s``, ``reason``.
    """
    rows = [
        {
            "strategy": record.cell.platform.runtime,
            "ranks": record.cell.platform.world_size,
            "status": record.status,
            "gradient_error": record.metrics.get("gradient_error"),
            "change_error": record.metrics.get("change_error"),
            "check": record.check.max_error / record.check.tolerance if record.check else None,
            "step_s": record.primary.latency_s if record.primary else None,
            "exposed_communication_s": record.metrics.get("exposed_communication_s"),
            "reason": record.reason,
        }
        for record in records
    ]
    return pd.DataFrame(rows).dropna(axis="columns", how="all")


def collective_table(records: Sequence[Record]) -> pd.DataFrame:
    """A row for each collective and size; bandwidths as nccl-tests define them.

    Returns
    -------
    DataFrame
        ``operation``, ``ranks``, ``size_bytes``, ``median_s``, ``p10_s``, ``algorithm_bytes_s``, ``bus_bytes_s``, ``alpha_s``,
        ``beta_s_byte``, ``fit_error``, ``oversubscribed``; one row with ``status`` and ``reason`` where there are none.
    """
    rows = []
    for record in records:
        common = {"operation": record.cell.workload.model, "ranks": record.cell.platform.world_size}
        for one in record.series:
            label = one.name.partition(" ")[2]
            factor = bus_factor(record.cell.workload.model, record.cell.platform.world_size)  # type: ignore[arg-type]
            rows.append(
                common
                | {
                    "size_bytes": one.items_per_call,
                    "median_s": one.latency_s,
                    "p10_s": record.metrics[f"p10_s {label}"],
                    "algorithm_bytes_s": one.throughput,
                    "bus_bytes_s": one.throughput * factor,
                    "alpha_s": record.metrics.get("alpha_s"),
                    "beta_s_byte": record.metrics.get("beta_s_byte"),
                    "fit_error": record.metrics.get("fit_error"),
                    "oversubscribed": bool(record.metrics["oversubscribed"]),
                }
            )
        if not record.series:
            rows.append(common | {"status": record.status, "reason": record.reason})
    return pd.DataFrame(rows)


def overhead_table(records: Sequence[Record]) -> pd.DataFrame:
    """A row for each strategy: communication of a step by each method, side by side; seconds.

    Returns
    -------
    DataFrame
        ``strategy``, ``ranks``, ``compute_s``; all messages by ``hook_s`` and ``trace_s``; their exposed part by the difference to
        silent passes (``exposed_s``), by difference and hook of the same passes (``exposed_same_s``, ``exposed_hook_s``) and by
        trace (``exposed_trace_s``), and what computing was slowed by (``slowed_s``: difference without what is exposed); of a
        pipeline ``idle`` beside ``bubble_by_formula``; ``straggler``.
    """
    names = {
        "compute_s": "compute_s",
        "hook_communication_s": "hook_s",
        "trace_communication_s": "trace_s",
        "exposed_communication_s": "exposed_s",
        "hook_difference_s": "exposed_same_s",
        "hook_exposed_s": "exposed_hook_s",
        "hook_slowed_s": "slowed_s",
        "trace_exposed_s": "exposed_trace_s",
        "idle": "idle",
        "bubble_by_formula": "bubble_by_formula",
        "straggler": "straggler",
        "oversubscribed": "oversubscribed",
    }
    rows = [
        {
            "strategy": record.cell.platform.runtime,
            "ranks": record.cell.platform.world_size,
            "batch": record.cell.workload.batch_size,
            "step_s": record.primary.latency_s,
            **{short: record.metrics.get(name) for name, short in names.items()},
        }
        for record in records
        if record.primary and record.cell.workload.mode == "training" and record.cell.platform.world_size > 1
    ]
    return pd.DataFrame(rows).dropna(axis="columns", how="all")


def agreement_sentence(table: pd.DataFrame) -> str:
    """How far the methods are apart, where ranks had a core each; of :func:`overhead_table`."""
    from labbench import words

    if not {"exposed_hook_s", "exposed_same_s", "slowed_s", "trace_s"} <= set(table.columns):
        return "No strategy here sends buckets that a hook could time."
    both = table[~table["oversubscribed"].astype(bool)].dropna(subset=["exposed_hook_s", "exposed_same_s", "trace_s"])
    if both.empty:
        return "All ranks shared cores: nothing tells how far the methods agree."

    def apart(one: str, other: pd.Series) -> str:
        return words.percent(float(((both[one] - other).abs() / both["step_s"]).median()))

    rest = both["exposed_same_s"] - both["slowed_s"]
    within = (both["exposed_hook_s"] <= both["hook_s"] * 1.01).all()
    return (
        f"In {words.count(len(both), 'case')} with a core for each rank, in the median and as shares of a step: hook and trace "
        f"are {apart('hook_s', both['trace_s'])} apart for all messages, {apart('exposed_hook_s', both['exposed_trace_s'])} for "
        f"what is exposed; the difference to silent passes, without what computing itself is slower, is "
        f"{apart('exposed_hook_s', rest)} from the hook's. "
        f"What is exposed is {'never' if within else 'SOMEWHERE'} more than all messages."
    )


def memory_table(records: Sequence[Record]) -> pd.DataFrame:
    """A row for each strategy and number of ranks: bytes of the fullest rank, counted and at the measured peak.

    Returns
    -------
    DataFrame
        ``strategy``, ``ranks``, ``batch``, ``parameters_bytes``, ``gradients_bytes``, ``optimizer_bytes``, ``peak_bytes``
        (resident, above what the process had before it made the model).
    """
    names = ("parameters_bytes", "gradients_bytes", "optimizer_bytes", "peak_bytes")
    rows = [
        {
            "strategy": record.cell.platform.runtime,
            "ranks": record.cell.platform.world_size,
            "batch": record.cell.workload.batch_size,
        }
        | {name: record.metrics.get(name) for name in names}
        for record in records
        if record.primary and "parameters_bytes" in record.metrics
    ]
    return pd.DataFrame(rows)


def spread_sentence(records: Sequence[Record]) -> str:
    """How far steps of one process, and of ranks with a core each, lie apart: what is less than that says nothing."""
    from labbench import words

    spreads: dict[bool, list[float]] = {True: [], False: []}
    for record in records:
        for series in record.series[:1]:
            if series.name == "step" and series.iqr_s and not record.metrics.get("oversubscribed"):
                spreads[record.cell.platform.world_size == 1].append(series.iqr_s / series.latency_s)
    if not (spreads[True] and spreads[False]):
        return "No steps of one process and of ranks with a core each were timed."
    one, ranks = (words.percent(float(pd.Series(spreads[single]).median())) for single in (True, False))
    return (
        f"Steps of one process lie {one} apart (interquartile range over median), those of ranks with a core each {ranks} in the "
        "median. Smaller differences say nothing."
    )


def correctness_shown(records: Sequence[Record]) -> pd.DataFrame:
    """A row for each strategy, a column for each number of ranks: the gradient's error over the norm, or why there is none."""

    def told(record: Record) -> str:
        if record.status == "ok":
            return f"{record.metrics['gradient_error']:.1e}"
        return "not here" if record.status == "unsupported" else record.status

    rows = [
        {
            "strategy": record.cell.platform.runtime,
            "ranks": f"{record.cell.platform.world_size} ranks",
            "told": told(record),
            "why not": record.reason or "",
        }
        for record in records
        if record.cell.workload.task == CHECK
    ]
    table = pd.DataFrame(rows)
    if table.empty:
        return table
    wide = table.pivot_table(index="strategy", columns="ranks", values="told", aggfunc="last", sort=False)
    why = table[table["told"] == "not here"].drop_duplicates("strategy").set_index("strategy")["why not"]
    return wide.assign(why=why).fillna("").reset_index().rename_axis(columns=None)


def correctness_sentence(records: Sequence[Record]) -> str:
    """How many strategies train as one process does, and how close to what is allowed the worst comes."""
    from labbench import words

    checked = [record for record in records if record.cell.workload.task == CHECK]
    right = [record for record in checked if record.status == "ok" and record.check]
    wrong = [record.cell.platform.label for record in checked if record.status not in ("ok", "unsupported")]
    modes = {record.cell.platform.runtime for record in right}
    share = max((record.check.max_error / record.check.tolerance for record in right if record.check), default=0.0)
    told = (
        f"Strategies that train as one process does: {len(modes)}, in {words.count(len(right), 'case')}; "
        f"the worst takes {words.percent(share)} of what rounding may do."
    )
    return told + (f" Wrong: {words.listed(wrong)}." if wrong else " None is wrong.")


def link_shown(table: pd.DataFrame) -> pd.DataFrame:
    """Of :func:`collective_table`, a row for each operation and number of ranks: its fit, the bus bandwidth of the largest size."""
    from labbench import words

    if "median_s" not in table:
        return table
    largest = table.sort_values("size_bytes").groupby(["operation", "ranks"], sort=False).last().reset_index()
    return pd.DataFrame(
        {
            "operation": largest["operation"],
            "ranks": largest["ranks"].astype(str) + largest["oversubscribed"].map({True: " (share cores)", False: ""}),
            "latency": largest["alpha_s"].map(words.seconds),
            "fit off by": largest["fit_error"].map(words.percent),
            "largest": largest["size_bytes"].map(words.size),
            "bus bandwidth": largest["bus_bytes_s"].map(lambda value: f"{words.number(value * 1e-9)} GB/s"),
        }
    ).sort_values(["ranks", "operation"], ignore_index=True)


def overhead_shown(table: pd.DataFrame) -> pd.DataFrame:
    """Of :func:`overhead_table`, in units of people."""
    from labbench import words

    names = {
        "compute_s": "computing",
        "hook_s": "all messages: hook",
        "trace_s": "trace",
        "exposed_hook_s": "exposed: hook",
        "exposed_trace_s": "trace ",
        "exposed_s": "longer than silent",
        "slowed_s": "of it, computing slowed",
    }
    shown = (table["strategy"] + " ×" + table["ranks"].astype(str)).to_frame("strategy")
    shown["step"] = table["step_s"].map(words.seconds)
    for name, title in names.items():
        if name in table:
            shown[title] = table[name].map(words.seconds)
    for name, title in {"idle": "idle", "bubble_by_formula": "bubble by formula"}.items():
        if name in table:
            shown[title] = table[name].map(lambda value: "–" if value != value else words.percent(value))
    return shown


def memory_shown(table: pd.DataFrame) -> pd.DataFrame:
    """Of :func:`memory_table`, in units of people."""
    from labbench import words

    titles = {name: name.removesuffix("_bytes") for name in table.columns if name.endswith("_bytes")}
    shown = table.copy()
    for name in titles:
        shown[name] = shown[name].map(words.size)
    return shown.rename(columns={**titles, "peak_bytes": "measured peak"})
