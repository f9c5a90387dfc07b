"""Simulated training in words and tables: where the winner's time goes, what holds the next back, why others do not fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from labbench import words
from labbench.distributed.plan import MEMORY, Plan, strategy_of

if TYPE_CHECKING:
    import pandas as pd

    from labbench.distributed.reliability import Training

PARTS = {
    "compute": "computing",
    "tensor": "messages between tensor-parallel ranks",
    "gather": "gathering and scattering that computing does not hide",
    "stages": "messages between stages",
    "bubble": "waiting in the pipeline",
    "gradients": "gradients that come after the backward pass",
    "update": "the update",
    "weights": "gathering updated weights",
    "slowest": "waiting for the slowest rank",
}
WAYS = ["data", "tensor", "pipeline"]
SMALL = 0.01  # of a step: parts below go without saying
SHOWN = 3  # other ways that are compared
DOUBT = (
    "It rests on ZeRO-3 between nodes, of which published runs took longer than simulated (docs/distributed.md): compare it with "
    "the next ones that do not."
)


def explain(plan: Plan) -> str:
    """A paragraph a question, each sentence computed from the plan's table."""
    table, model, nodes = plan.table, plan.compute.model, plan.collectives.cluster
    rate, links = nodes.device.source, plan.collectives.source
    begin = (
        f"{len(table):,} strategies of {model.name} ({model.parameters / 1e9:,.1f} billion parameters) on {nodes.ranks:,} x "
        f"{nodes.device.name}, a batch of {plan.batch:,}, simulated; "
        f"{len(plan.fitting):,} fit into {words.size(plan.limit_bytes)}. "
        f"What it rests on: rate of products {rate}, other kernels by laws of other GPUs, links {links}."
    )
    if plan.fitting.empty:
        nearest = table.loc[table["memory_bytes"].idxmin()]
        return (
            f"{begin}\n\nNo strategy fits. The nearest is {strategy_of(nearest)}: {_beyond(nearest, plan.limit_bytes)}."
        )
    best = table.iloc[0]
    between = best["zero"] == 3 and best["data"] * best["tensor"] > nodes.ranks_in_node
    parts = [begin, _winner(best), DOUBT if between else "", *_others(plan, best)]
    return "\n\n".join(part for part in parts if part)


def _winner(best: pd.Series) -> str:
    shares = {name: best[f"{name}_s"] / best["step_s"] for name in PARTS}
    rest = [
        f"{PARTS[name]} {words.percent(share)}"
        for name, share in sorted(shares.items(), key=lambda pair: -pair[1])
        if name != "compute" and share >= SMALL
    ]
    lost = f"; {words.listed(rest)}" if rest else "; nothing else takes a hundredth of it"
    return (
        f"Best: {strategy_of(best)}: {words.seconds(best['step_s'])} a step, {words.number(best['tokens_s'])} tokens/s, "
        f"{words.percent(best['mfu'])} of the datasheet's rate, {words.size(best['memory_bytes'])} on the fullest rank "
        f"({_memory(best)}). Computing takes {words.percent(shares['compute'])}{lost}."
    )


def _others(plan: Plan, best: pd.Series) -> list[str]:
    """The best of other shapes that fit, and of faster ones that do not those that come nearest to it."""
    fitting = plan.fitting.drop_duplicates(WAYS).iloc[1 : SHOWN + 1]
    told = []
    for _, row in fitting.iterrows():
        more = {name: row[f"{name}_s"] - best[f"{name}_s"] for name in PARTS}
        name = max(more, key=lambda name: more[name])
        slower = row["step_s"] / best["step_s"] - 1
        told.append(
            f"{strategy_of(row)}: {words.percent(slower)} slower, above all by {PARTS[name]} (+{words.seconds(more[name])})"
        )
    beyond = plan.table[~plan.table["fits"] & (plan.table["step_s"] < best["step_s"])]
    beyond = beyond.sort_values("memory_bytes").drop_duplicates(WAYS).head(SHOWN)
    outside = [
        f"{strategy_of(row)} would be {words.percent(1 - row['step_s'] / best['step_s'])} faster and does not fit: "
        f"{_beyond(row, plan.limit_bytes)}."
        for _, row in beyond.iterrows()
    ]
    if not outside and len(plan.table) > len(plan.fitting):
        outside = ["No strategy that does not fit would be faster."]
    return ["Next: " + "; ".join(told) + "." if told else "", "\n".join(outside)]


def _beyond(row: pd.Series, limit: float) -> str:
    return f"{words.size(row['memory_bytes'])}, {words.over(row['memory_bytes'] / limit - 1)} ({_memory(row)})"


def _memory(row: pd.Series) -> str:
    sizes = {name: row[f"{name}_bytes"] for name in MEMORY}
    order = sorted(sizes, key=lambda name: -sizes[name])
    return ", ".join(
        f"{name} {words.size(sizes[name])}" for name in order if sizes[name] >= SMALL * row["memory_bytes"]
    )


def plan_table(plan: Plan, rows: int = 10, each: bool = True) -> pd.DataFrame:
    """The first strategies as people read them; with ``each`` only the best of each shape (data, tensor, pipeline)."""
    import pandas as pd

    table = plan.table[plan.table["fits"]] if plan.table["fits"].any() else plan.table
    table = (table.drop_duplicates(WAYS) if each else table).head(rows)

    def row(one: Any) -> dict[str, Any]:
        step = one["step_s"]
        return {
            "data x tensor x pipeline": " x ".join(str(one[name]) for name in WAYS),
            "ZeRO": one["zero"],
            "micro-batch": one["micro_batch"],
            "schedule": ""
            if one["pipeline"] == 1
            else one["schedule"] + (f" x{one['chunks']}" if one["chunks"] > 1 else ""),
            "recompute": one["recompute"],
            "step": words.seconds(step),
            "tokens/s": words.number(one["tokens_s"]),
            "MFU": words.percent(one["mfu"]),
            "exposed": words.percent(one["exposed_s"] / step),
            "bubble": words.percent(max(one["bubble_s"], 0.0) / step),
            "memory": words.size(one["memory_bytes"]),
            "fits": "yes" if one["fits"] else "no",
        }

    shown = pd.DataFrame([row(one) for _, one in table.iterrows()])
    return shown.drop(columns="fits") if table["fits"].all() else shown


def best_of_each(plan: Plan, rows: int = 8) -> tuple[pd.DataFrame, pd.Series]:
    """Rows of the plan's table, the best of each shape that fits, and a short name of each."""
    table = (plan.fitting if len(plan.fitting) else plan.table).drop_duplicates(WAYS).head(rows)
    shape = table[WAYS].astype(str).agg(" x ".join, axis=1)
    return table, shape + ", ZeRO-" + table["zero"].astype(str)


def validation_table(groups: pd.DataFrame) -> pd.DataFrame:
    """:func:`labbench.distributed.published.summary` as people read it."""
    shown = groups.rename(columns={"within": "within 15 %"})
    for name in ("error", "worst", "bias"):
        shown[name] = shown[name].map(f"{{:{'+' if name == 'bias' else ''}.1f}} %".format)
    return shown


def validation_sentence(runs: pd.DataFrame) -> str:
    """How many published runs came out within the goal, and which sources did not."""
    from labbench.distributed.published import GOAL

    by = runs.groupby(["source", "device"], sort=False)["within"].mean()
    label = [f"{source} ({device})" for source, device in by.index]
    good = [name for name, share in zip(label, by, strict=True) if share == 1]
    bad = [name for name, share in zip(label, by, strict=True) if share == 0]
    within = int(runs["within"].sum())
    told = f"{within} of {len(runs)} published runs are simulated within {words.percent(GOAL)} of their step time"
    if good:
        told += f"; all of {words.listed(good)}"
    if bad:
        told += f"; none of {words.listed(bad)}"
    sign = "fast" if runs["off"].mean() < 0 else "slow"
    return f"{told}. In the mean the simulated step is {words.percent(abs(float(runs['off'].mean())))} too {sign}."


def scaling_sentence(table: pd.DataFrame) -> str:
    """What more devices bring, and what takes the rest; of :func:`labbench.distributed.config.scaling`."""
    fitting = table[table["fits"]]
    short = table[~table["fits"]]
    told = f"On {words.listed([f'{ranks:,}' for ranks in short['ranks']])} devices nothing fits. " if len(short) else ""
    if len(fitting) < 2:
        return f"{told}One size of cluster says nothing about scaling: give compared_ranks."
    first, last = fitting.iloc[0], fitting.iloc[-1]
    times = last["ranks"] / first["ranks"]
    faster = last["tokens_s"] / first["tokens_s"]
    more = {
        name: last[f"{name}_s"] / last["step_s"] - first[f"{name}_s"] / first["step_s"]
        for name in PARTS
        if name != "compute"
    }
    name = max(more, key=lambda name: more[name])
    return (
        f"{told}From {first['ranks']:,} to {last['ranks']:,} devices ({times:.3g} times as many) training is {faster:.3g} times "
        f"as fast (simulated). What grows most in its share of the step: {PARTS[name]}, by {100 * more[name]:.1f} points."
    )


def training_sentence(training: Training) -> str:
    """How long the training takes with failures, and how often it should save its state."""
    day = 86_400.0
    expected = training.expected_s()
    best, young = training.best_interval_s() / 60, training.young_s() / 60
    return (
        f"Without failures {training.work_s / day:.1f} days on {training.ranks:,} devices (simulated); one of them fails every "
        f"{training.mtbf_s / 3600:.3g} hours. With a checkpoint every {best:.3g} minutes (Young: {young:.3g}) "
        f"{expected / day:.1f} days are expected, {words.percent(expected / training.work_s - 1)} more."
    )
