"""Which model ran on which platform, why the others did not, and what it would take."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from labbench.analysis.labels import place, work
from labbench.cells import TRAINING_FIELDS
from labbench.words import digits

if TYPE_CHECKING:
    import pandas as pd

CELL = (
    "batch_size",
    "seq_len",
    "image_size",
    "frames",
    "audio_s",
    "kv_cache",
    *TRAINING_FIELDS,
)  # beside a workload's name
RUN = ("measured", "imported")  # provenances of what really ran
NOT_KNOWN = "labbench has no {} `{}`: import results of it, or register it (docs/zoo.md, docs/runtimes.md)"


def matrix(frame: pd.DataFrame) -> pd.DataFrame:
    """Workload × platform: the status, and ``ok`` with the latency of the primary series.

    A row is called after its model; batch sizes above the model's smallest, and training, are named too. So are input
    sizes, precisions and machines where there are several.
    """
    rows = frame[frame["primary"]]
    names = work(rows)
    smallest = rows["batch_size"].groupby([names, rows["mode"].astype("str")]).transform("min")
    names = names.where(rows["mode"] != "training", names + ", training")
    names = names.where(rows["batch_size"] == smallest, names + ", batch " + rows["batch_size"].astype("str"))
    text = [
        f"ok {digits(latency * 1e3)} ms" if status == "ok" else str(status)
        for status, latency in zip(rows["status"], rows["latency_s"], strict=True)
    ]
    table: pd.DataFrame = rows.assign(text=text, workload=names, platform=place(rows))
    table = table.drop_duplicates(["workload", "platform"])
    return table.pivot(index="workload", columns="platform", values="text").fillna("not run")


@dataclass(frozen=True)
class Coverage:
    """How many records ended how, and the reasons of those that are not ok."""

    counts: dict[str, int]
    reasons: pd.DataFrame

    @property
    def share_ok(self) -> float:
        """Share of records with status ok; 0 if there are none."""
        return self.counts.get("ok", 0) / max(sum(self.counts.values()), 1)

    def __str__(self) -> str:
        total = sum(self.counts.values())
        listed = ", ".join(f"{count} {status}" for status, count in self.counts.items())
        lines = [f"{total} records: {listed or 'none'} ({self.share_ok:.1%} ok)"]
        lines += [f"  {row.model} on {row.platform}: {row.status}: {row.reason}" for row in self.reasons.itertuples()]
        return "\n".join(lines)


def coverage(frame: pd.DataFrame) -> Coverage:
    """Counts by status over records, and the reason of each that is not ok."""
    rows = frame[frame["primary"]]
    counts = {str(key): int(count) for key, count in rows["status"].value_counts().items() if count}
    bad = rows.loc[rows["status"] != "ok", ["model", "mode", "platform", "status", "stage", "reason"]]
    return Coverage(counts, bad.reset_index(drop=True))


def pairs(frame: pd.DataFrame) -> pd.DataFrame:
    """Every model (and mode) on every platform that ran that mode: whether it is there, and if not, what it would take.

    Returns
    -------
    DataFrame
        One row a pair: ``model``, ``mode``, ``platform``; ``status`` (``ok`` if every record of the pair is, ``not run`` if there
        is none, else that of the first that is not ok), ``reason``; and of those that are not ok ``cells`` (how many to run),
        ``estimated_s`` (from ``duration_s`` of that platform's and that model's other cells; NaN if neither is known),
        ``command`` that runs them (missing if none can) and ``way_out``, a sentence.
    """
    import pandas as pd

    rows = frame[frame["primary"] & frame["provenance"].isin(RUN)]
    rows = rows.assign(model=work(rows), name=rows["model"].astype("str"), label=rows["platform"], platform=place(rows))
    rows = rows.assign(mode=rows["mode"].astype("str"), status=rows["status"].astype("str"))
    keys = ["model", "mode", "platform"]
    wanted = rows[keys[:2]].drop_duplicates().merge(rows[["mode", "platform"]].drop_duplicates(), on="mode")
    bad_first = rows.assign(ok=rows["status"] == "ok").sort_values("ok", kind="stable").drop_duplicates(keys)
    table = wanted.merge(bad_first[[*keys, "status", "reason"]], on=keys, how="left")
    table["status"] = table["status"].fillna("not run")
    table["reason"] = table["reason"].astype(object).where(table["reason"].notna(), None)
    gaps = table[table["status"] != "ok"]
    a_cell_s = _typical_seconds(rows, gaps)
    models, platforms = dict(iter(rows.groupby(keys[:2]))), rows.drop_duplicates("platform").set_index("platform")
    there = dict(iter(rows[rows["status"] != "ok"].groupby(keys)))
    found = []
    each: Any = zip(gaps.itertuples(), a_cell_s, strict=True)
    for gap, seconds in each:
        chosen: Any = there.get((gap.model, gap.mode, gap.platform), models[gap.model, gap.mode])
        cells = chosen[["name", "mode", *CELL]].drop_duplicates()
        command, way_out = _way_out(str(gap.status), cells, platforms.loc[gap.platform])
        found.append((len(cells), len(cells) * seconds, command, way_out))
    columns = ["cells", "estimated_s", "command", "way_out"]
    table = table.join(pd.DataFrame(found, columns=columns, index=gaps.index))
    return table.sort_values(keys, kind="stable", ignore_index=True)


def _typical_seconds(rows: pd.DataFrame, gaps: pd.DataFrame) -> np.ndarray:
    """Seconds that a cell takes: effects of model and platform multiply; one that is not known is taken as typical."""
    known = rows[rows["duration_s"] > 0]
    logs = np.log(known["duration_s"].astype(float))
    middle = logs.mean()
    of_model = logs.groupby([known["model"], known["mode"]]).mean() - middle
    of_platform = logs.groupby(known["platform"]).mean() - middle
    model = of_model.reindex(list(zip(gaps["model"], gaps["mode"], strict=True))).to_numpy(dtype=float)
    platform = of_platform.reindex(gaps["platform"]).to_numpy(dtype=float)
    neither = np.isnan(model) & np.isnan(platform)
    return np.where(neither, np.nan, np.exp(middle + np.nan_to_num(model) + np.nan_to_num(platform)))


def _way_out(status: str, cells: pd.DataFrame, platform: pd.Series) -> tuple[str | None, str]:
    """The command that runs the cells on a platform, if there is one, and a sentence."""
    from labbench import runtimes, zoo

    model, runtime = str(cells["name"].iloc[0]), str(platform["runtime"])
    if status == "unsupported":
        return None, "not supported: the reason says what is missing"
    if model not in zoo.models():
        return None, NOT_KNOWN.format("model", model)
    if runtime not in runtimes.names():
        return None, NOT_KNOWN.format("runtime", runtime)
    command = _command(model, cells, platform) + ("" if status == "not run" else " --retry")
    return (
        command,
        "run it on that platform's machine" if status == "not run" else "remove the cause, then run it again",
    )


def _command(model: str, cells: pd.DataFrame, platform: pd.Series) -> str:
    """``labbench run`` with an option for each field that is not the default."""
    threads = re.search(r"·(\d+)t", str(platform["label"]))
    options: dict[str, list[Any]] = {
        "model": [model],
        "mode": [mode for mode in cells["mode"].unique() if mode != "inference"],
        "device": [platform["device"]],
        "runtime": [platform["runtime"]],
        "precision": [platform["precision"]] if platform["precision"] != "fp32" else [],
        "threads": [threads[1]] if threads else [],
        **{name: list(platform[[name]].dropna()) for name in ("memory_format", "loader_workers")},
        **{name: sorted(cells[name].dropna().unique()) for name in CELL},
    }
    told = [
        f"--{name.replace('_', '-')} {' '.join(_word(value) for value in values)}"
        for name, values in options.items()
        if values
    ]
    return f"labbench run {' '.join(told)}"


def _word(value: Any) -> str:
    """A value as an option's."""
    return str(value).lower() if isinstance(value, bool | np.bool_) else str(value)
