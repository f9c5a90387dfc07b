"""What came of live audio: a row a run, whether it keeps up, and whether the parts make up the end to end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labbench.config import ConfigError
from labbench.words import count, digits, percent

if TYPE_CHECKING:
    import pandas as pd

    from labbench.store import Store

TASK = "live, hop "  # how the task of a live cell begins (labbench.web.live.Live.cell)
METRICS = {  # column of a store's frame -> of the table
    "metric_hop_s": "hop_s",
    "metric_end_to_end_p50_s": "p50_s",
    "metric_end_to_end_p95_s": "p95_s",
    "metric_end_to_end_p99_s": "p99_s",
    "metric_response_p50_s": "response_p50_s",
    "metric_response_p99_s": "response_p99_s",
    "metric_filling_mean_s": "filling_s",
    "metric_buffering_mean_s": "buffering_s",
    "metric_inference_mean_s": "inference_s",
    "metric_delivery_mean_s": "delivery_s",
    "metric_end_to_end_mean_s": "end_to_end_s",
    "metric_parts_share": "parts_share",
    "metric_real_time_factor": "real_time_factor",
    "metric_hops": "hops",
    "metric_dropped_hops": "dropped_hops",
    "metric_dropped_s": "dropped_s",
    "metric_longest_gap_s": "longest_gap_s",
    "metric_late_audio_s": "late_audio_s",
    "metric_keeps_up": "keeps_up",
}
SECONDS = 1e3  # to milliseconds, for people
ALONE = "nothing else"  # the load of a run beside which labbench kept no core busy
ADDITIVE = 0.10  # hop, buffering and inference are to make up the end to end within this share of it


def live_table(store: Store) -> pd.DataFrame:
    """A row for each live cell: the newest record of each.

    Returns
    -------
    DataFrame
        ``browser``, ``version``, ``provider``, ``model``, ``hop_s``, ``load``, ``status``, ``reason``, ``provenance``, and the
        metrics of :func:`labbench.web.live.record`; SI units. Parts of the end to end are means, as these add up.
    """
    frame = store.latest()
    rows = frame[frame["primary"] & frame["task"].astype(str).str.startswith(TASK)]
    named = {
        "model": "model",
        "status": "status",
        "reason": "reason",
        "provenance": "provenance",
        "record_id": "record_id",
    }
    found = rows.reindex(columns=[*named, *METRICS]).rename(columns=METRICS)
    task = rows["task"].astype(str).str.removeprefix(TASK).str.extract(r"([\d.]+) ms(?:, (.*))?")
    found.insert(0, "browser", rows["device"].astype(str))
    found.insert(1, "version", versions(store, rows))
    found.insert(2, "provider", rows["runtime"].astype(str))
    found["hop_s"] = task[0].astype(float) / SECONDS
    found.insert(4, "load", task[1].fillna(ALONE))
    keyed = found.assign(_loaded=found["load"] != ALONE)
    ordered = keyed.sort_values(["browser", "_loaded", "load", "model", "hop_s"], kind="stable")
    return ordered.drop(columns="_loaded").reset_index(drop=True)


def versions(store: Store, rows: pd.DataFrame) -> list[str]:
    """Of the browser of each row of a store's frame."""
    software = {key: environment.software for key, environment in store.environments().items()}
    return [
        software.get(str(key), {}).get(str(device), "")
        for key, device in zip(rows["environment_id"], rows["device"], strict=True)
    ]


def ensure(table: pd.DataFrame) -> None:
    """Raises ConfigError, with the command that measures, if there is no run."""
    if table.empty:
        raise ConfigError("no live run is stored; `labbench web live` makes some")


def for_people(table: pd.DataFrame) -> pd.DataFrame:
    """The table in milliseconds, with words for names; without columns that say nothing."""
    import pandas as pd

    def milliseconds(name: str) -> pd.Series:
        return table[name].map(lambda value: digits(value * SECONDS), na_action="ignore")

    shown = pd.DataFrame(
        {
            "platform": table["browser"] + "/" + table["provider"],
            "model": table["model"],
            "beside": table["load"].str.removesuffix(" loaded"),
            "hop (ms)": (table["hop_s"] * SECONDS).map("{:g}".format),
            "came of it": table["status"].astype(str).where(table["status"] != "ok", table["keeps_up"].map(_verdict)),
            "p50 (ms)": milliseconds("p50_s"),
            "p95 (ms)": milliseconds("p95_s"),
            "p99 (ms)": milliseconds("p99_s"),
            "longest gap (ms)": milliseconds("longest_gap_s"),
            "dropped": table["dropped_hops"].astype("Int64"),
            "of hops": (table["hops"] + table["dropped_hops"]).astype("Int64"),
            "time used": table["real_time_factor"].map(percent, na_action="ignore"),
            "parts / end to end": table["parts_share"].map(percent, na_action="ignore"),
            "reason": table["reason"],
        }
    )
    return shown.dropna(axis="columns", how="all").astype(object).fillna("")


def _verdict(keeps_up: float) -> str:
    return "keeps up" if keeps_up else "falls behind"


def shortest(table: pd.DataFrame) -> pd.DataFrame:
    """For each browser, provider, load and model the run with the shortest hop that it kept up with."""
    fine = table[(table["status"] == "ok") & (table["keeps_up"] == 1)]
    keys = ["browser", "version", "provider", "load", "model"]
    best = fine.groupby(keys, observed=True)["hop_s"].idxmin()
    return fine.loc[sorted(best)].reset_index(drop=True)


def live_sentence(table: pd.DataFrame) -> str:
    """How many runs keep up, and how far the sum of the parts is from the end to end."""
    ran = table[table["status"] == "ok"]
    if ran.empty:
        return f"Of {count(len(table), 'live run')} none gave figures."
    off = (ran["parts_share"] - 1).abs()
    within = int((off <= ADDITIVE).sum())
    return (
        f"Of {count(len(ran), 'live run')} {int(ran['keeps_up'].sum())} keep up. Hop, buffering and inference make up the "
        f"end to end within {percent(ADDITIVE)} in {within}; the worst is off by {percent(off.max())}."
    )
