"""Which model ran on which platform, and why the others did not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from labbench.words import digits

if TYPE_CHECKING:
    import pandas as pd


def matrix(frame: pd.DataFrame) -> pd.DataFrame:
    """Workload × platform: the status, and ``ok`` with the latency of the primary series.

    A row is called after its model; batch sizes above the model's smallest, and training, are named too.
    """
    rows = frame[frame["primary"]]
    smallest = rows.groupby(["model", "mode"], observed=True)["batch_size"].transform("min")
    labels = [
        ", ".join(
            [
                str(row.model),
                *(["training"] if row.mode == "training" else []),
                *([f"batch {row.batch_size}"] if row.batch_size > least else []),
            ]
        )
        for row, least in zip(rows.itertuples(), smallest, strict=True)
    ]
    text = [
        f"ok {digits(row.latency_s * 1e3)} ms" if row.status == "ok" else str(row.status) for row in rows.itertuples()
    ]
    table: pd.DataFrame = rows.assign(text=text, workload=labels, platform=rows["platform"].astype("str"))
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
