"""What more ranks bring: speed-up, efficiency, the serial share that explains them, and where adding ranks stops paying.

All are of measured steps and against one process without any strategy (``one``): ranks that only carry the burden of their own
library do not count as fast. *Strong*: the batch stays; *weak*: it grows with the ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from labbench.distributed.sizes import ONE

if TYPE_CHECKING:
    import pandas as pd

    from labbench.records import Record

WORTH = 0.5  # an added rank pays as long as it brings at least half of what the first does


def karp_flatt(speedup: float, ranks: int) -> float:
    """The serial fraction found by experiment, ``(1/s - 1/p) / (1 - 1/p)``, of a problem of fixed size.

    Karp & Flatt 1990, Communications of the ACM 33(5), 539-543, equation 2. If it stays while ranks are added, work that cannot be
    shared limits them; if it grows, what ranks do for one another. NaN for a single rank; negative if faster than in proportion.
    """
    return (1 / speedup - 1 / ranks) / (1 - 1 / ranks) if ranks > 1 else float("nan")


def gustafson(speedup: float, ranks: int) -> float:
    """The serial fraction of a problem that grows with the ranks, ``(p - s) / (p - 1)``.

    Gustafson 1988, Communications of the ACM 31(5), 532-533: ``s = p - f (p - 1)``, solved for ``f``.
    """
    return (ranks - speedup) / (ranks - 1) if ranks > 1 else float("nan")


def scaling_table(records: Sequence[Record], kind: str = "strong") -> pd.DataFrame:
    """A row for each strategy and number of ranks, beside one process.

    Parameters
    ----------
    records : sequence of Record
        Timed strategies and ``one``, of one model; the batch of ``one`` is that from which the others scale.
    kind : {'strong', 'weak'}

    Returns
    -------
    DataFrame
        ``strategy``, ``ranks``, ``batch``, ``step_s`` with ``low_s`` and ``high_s``, ``samples_s``, ``speedup`` (of samples a
        second), ``efficiency`` (speed-up over ranks), ``serial`` (:func:`karp_flatt`, weak: :func:`gustafson`), ``added`` (what
        each rank more than in the row before brings, in units of one process; NaN in the first), ``pays``, ``oversubscribed``,
        and what of the step is known: ``compute_s``, ``communication_s``, ``waiting_s``, ``update_s``, ``peak_bytes``.
        Sorted by strategy and ranks, ``one`` left out where it has no row of its own. Empty if ``one`` is not there.
    """
    import pandas as pd

    timed = [record for record in records if record.status == "ok" and record.primary]
    base = next((record for record in reversed(timed) if record.cell.platform.runtime == ONE), None)
    if base is None or base.primary is None:
        return pd.DataFrame()
    rows = []
    first = base.cell.workload.batch_size
    for record in timed:
        ranks, batch = record.cell.platform.world_size, record.cell.workload.batch_size
        same = record.cell.workload.model == base.cell.workload.model
        if record.cell.platform.runtime == ONE or not same or batch != (first if kind == "strong" else first * ranks):
            continue
        rows.append(_row(record) | {"ranks": ranks, "batch": batch})
    table = pd.DataFrame(rows).drop_duplicates(["strategy", "ranks"], keep="last") if rows else pd.DataFrame()
    if table.empty:
        return table
    own = [_row(base) | {"strategy": name, "ranks": 1, "batch": first} for name in table["strategy"].unique()]
    table = pd.concat([pd.DataFrame(own), table], ignore_index=True).sort_values(["strategy", "ranks"], kind="stable")
    table["speedup"] = table["samples_s"] / (first / base.primary.latency_s)
    table["efficiency"] = table["speedup"] / table["ranks"]
    serial = karp_flatt if kind == "strong" else gustafson
    table["serial"] = [serial(one.speedup, one.ranks) for one in table.itertuples()]
    by = table.groupby("strategy")
    table["added"] = by["speedup"].diff() / by["ranks"].diff()
    table["pays"] = table["added"].isna() | (table["added"] >= WORTH)
    return table.reset_index(drop=True)


def _row(record: Record) -> dict[str, object]:
    step = record.primary
    assert step is not None  # only records with times get here
    told = record.metrics
    update = told.get("update_s", float("nan"))
    return {
        "strategy": record.cell.platform.runtime,
        "step_s": step.latency_s,
        "low_s": step.median_s.ci_low if step.median_s else step.latency_s,
        "high_s": step.median_s.ci_high if step.median_s else step.latency_s,
        "samples_s": step.throughput,
        "oversubscribed": bool(told.get("oversubscribed", 0.0)),
        "update_s": update,
        **_parts(told, step.latency_s - update),
        "straggler": told.get("straggler", float("nan")),
        "peak_bytes": told.get("peak_bytes", float("nan")),
    }


def _parts(told: dict[str, float], passes_s: float) -> dict[str, float]:
    """What forward and backward consist of: computing, messages that nothing hides, waiting for other stages.

    Messages are the difference to silent passes; where some remain in those (parameters of a sharded model) or there are none
    such, their exposed share of a traced pass.
    """
    if "idle" in told:
        waiting = told["idle"] * passes_s
        return {"compute_s": passes_s - waiting, "communication_s": 0.0, "waiting_s": waiting}
    if "trace_exposed_s" in told and "hook_communication_s" not in told:
        exposed = told["trace_exposed_s"] / told["trace_pass_s"] * passes_s
    else:
        exposed = max(told.get("exposed_communication_s", 0.0), 0.0)
    return {"compute_s": passes_s - exposed, "communication_s": exposed, "waiting_s": 0.0}


def stops_paying(table: pd.DataFrame) -> dict[str, int | None]:
    """Of each strategy, the most ranks of which the last added ones still pay; None if that is the most that were measured.

    Ranks that shared cores tell nothing about that.
    """
    found: dict[str, int | None] = {}
    for name, rows in table[~table["oversubscribed"].astype(bool)].groupby("strategy", sort=False):
        short = rows[~rows["pays"]]
        before = rows[rows["ranks"] < short["ranks"].min()] if len(short) else rows
        found[str(name)] = int(before["ranks"].max()) if len(short) else None
    return found


def scaling_sentences(table: pd.DataFrame) -> list[str]:
    """For each strategy, how far ranks with a core each pay, and what takes the rest."""
    from labbench import words

    if table.empty:
        return ["Nothing of this kind was measured beside one process."]
    told = []
    stops = stops_paying(table)
    crowded = table["oversubscribed"].astype(bool)
    for name, rows in table[~crowded].groupby("strategy", sort=False):
        last, limit = rows.iloc[-1], stops[str(name)]
        if last["ranks"] == 1:
            continue
        parts = {"messages that nothing hides": last["communication_s"], "waiting for other stages": last["waiting_s"]}
        most = max(parts, key=lambda part: parts[part])
        pays = "added ranks pay as far as was measured"
        if limit is not None:
            pays = f"beyond {limit} they no longer pay" if limit > 1 else "added ranks do not pay"
        rest = f"; {most}: {words.percent(parts[most] / last['step_s'])} of a step" if parts[most] > 0 else ""
        told.append(
            f"{name}: {int(last['ranks'])} ranks train {last['speedup']:.2f} times as fast as one process; {pays}{rest}."
        )
    if crowded.any():
        many = words.listed([str(ranks) for ranks in sorted(table["ranks"][crowded].unique())])
        told.append(f"{many} ranks shared cores: their times are the scheduler's, and nothing is concluded from them.")
    return told


def scaling_text(records: Sequence[Record]) -> str:
    """Strong and weak scaling as people read it."""
    parts = []
    for kind in ("strong", "weak"):
        table = scaling_table(records, kind)
        if not table.empty:
            shown = scaling_shown(table).to_string(index=False)
            parts.append("\n".join([f"{kind} scaling", shown, "", *scaling_sentences(table)]))
    lost = [str(record) for record in records if record.status != "ok"]
    return "\n\n".join([*parts, *lost])


def scaling_shown(table: pd.DataFrame) -> pd.DataFrame:
    """Of :func:`scaling_table`, in units of people; one process, which all are held against, once."""
    import pandas as pd

    from labbench import words

    single = table["ranks"] == 1
    table = table.assign(strategy=table["strategy"].mask(single, "one process"))
    table = table[~(single & single.duplicated())].reset_index(drop=True)
    return pd.DataFrame(
        {
            "strategy": table["strategy"],
            "ranks": table["ranks"].astype(str) + table["oversubscribed"].map({True: " (share cores)", False: ""}),
            "batch": table["batch"],
            "step": table["step_s"].map(words.seconds),
            "speed-up": table["speedup"].map("{:.2f}".format),
            "efficiency": table["efficiency"].map(words.percent),
            "serial share": table["serial"].map(_serial),
            "straggler": table["straggler"].map(lambda value: "–" if value != value else f"{value:.2f}"),
            "peak memory": table["peak_bytes"].map(words.size),
            "pays": table["pays"].map({True: "yes", False: "no"}).mask(table["ranks"] == 1, "–"),
        }
    )


def _serial(share: float) -> str:
    """A share above all is a step longer than that of one process: by how much, the speed-up tells."""
    from labbench import words

    return "–" if share != share else "over 100 %" if share > 1 else words.percent(share)
