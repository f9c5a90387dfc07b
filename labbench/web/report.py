"""What came of models in browsers: the table of the matrix, the compatibility table, agreement of numbers, slowdown.

All take and return DataFrames; figures of them are in :mod:`labbench.plots.web`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from labbench.web.browsers.find import NAMES
from labbench.web.live_report import TASK, versions
from labbench.words import digits, listed, percent

if TYPE_CHECKING:
    import pandas as pd

    from labbench.store import Store

METRICS = {  # column of a store's frame -> of the table
    "metric_real_time_factor": "real_time_factor",
    "metric_slowdown": "slowdown",
    "metric_slowdown_ci_low": "slowdown_ci_low",
    "metric_slowdown_ci_high": "slowdown_ci_high",
    "metric_native_s": "native_s",
    "metric_native_max_abs_error": "max_abs_error",
    "metric_native_cosine": "cosine",
    "metric_native_same_class": "same_class",
    "metric_blocking_longest_gap_s": "blocking_s",
    "metric_clock_step_s": "clock_step_s",
}
PLAIN = {
    **{name: name for name in ("model", "audio_s", "status", "latency_s", "noise", "reason", "provenance")},
    **{name: name for name in ("record_id", "cell_id", "first_run_s")},
    "latency_p99_s": "p99_s",
    "load_s": "download_s",
    "prepare_s": "session_s",
    "memory_increase_bytes": "memory_bytes",
    "device_name": "adapter",
}
SHORT = ["browser", "version", "provider", "model", "audio_s", "status", "latency_s", "real_time_factor", "slowdown"]
SHORT += ["reason"]
NOT_RUN = "not run"


def table(store: Store) -> pd.DataFrame:
    """A row for each cell of a browser, the newest record of each; live ones are in :mod:`labbench.web.live_report`.

    Returns
    -------
    DataFrame
        ``browser``, ``version``, ``provider`` (with its threads: ``wasm·2t``), ``model``, ``audio_s``, ``status``, ``latency_s``,
        ``p99_s``, ``real_time_factor`` (computing time / audio), ``slowdown`` against native onnxruntime with its 95 % interval,
        phases, memory, agreement with native, ``adapter``, ``reason``; SI units.
    """
    import pandas as pd

    frame = store.latest()
    live = frame["task"].astype(str).str.startswith(TASK)
    rows = frame[frame["primary"] & frame["device"].isin(NAMES) & ~live]
    found = rows.reindex(columns=[*PLAIN, *METRICS]).rename(columns={**PLAIN, **METRICS})
    provider = [
        str(runtime) if pd.isna(threads) else f"{runtime}·{int(threads)}t"
        for runtime, threads in zip(rows["runtime"], rows["threads_asked"], strict=True)
    ]
    found.insert(0, "browser", rows["device"].astype(str))
    found.insert(1, "version", versions(store, rows))
    found.insert(2, "provider", provider)
    order = {name: place for place, name in enumerate(NAMES)}
    keyed = found.assign(_order=found["browser"].map(order), _wasm=[not name.startswith("wasm") for name in provider])
    sorted_ = keyed.sort_values(["_order", "_wasm", "provider", "model", "audio_s"], kind="stable")
    return sorted_.drop(columns=["_order", "_wasm"]).reset_index(drop=True)


def compatibility(table: pd.DataFrame) -> pd.DataFrame:
    """Browser, version and provider × model, as caniuse shows it: ``ok`` with the latency, or the status.

    Of a model with several chunk lengths each is a column. The figure: :func:`labbench.plots.plot_compatibility`.
    """
    several = table.groupby("model", observed=True)["audio_s"].transform("nunique") > 1
    chunk = table["audio_s"].map(" {:g} s".format).where(several, "")
    rows = table.assign(
        where=table["browser"] + " " + table["version"].map(_short_version) + " · " + table["provider"],
        what=table["model"].astype(str) + chunk,
        text=[
            f"ok {digits(latency * 1e3)} ms" if status == "ok" else str(status)
            for status, latency in zip(table["status"], table["latency_s"], strict=True)
        ],
    )
    wide = rows.drop_duplicates(["where", "what"]).pivot(index="where", columns="what", values="text")
    return wide.reindex(index=list(dict.fromkeys(rows["where"])), columns=list(dict.fromkeys(rows["what"]))).fillna(
        NOT_RUN
    )


def reasons(table: pd.DataFrame) -> pd.DataFrame:
    """Why there are gaps: a row for each reason, with the browsers, providers and models that it holds for."""
    import pandas as pd

    bad = table[table["status"] != "ok"]
    rows = [
        {
            "browser": f"{browser} {_short_version(version)}",
            "status": status,
            "reason": reason,
            "providers": listed(list(dict.fromkeys(group["provider"]))),
            "models": listed(list(dict.fromkeys(group["model"].astype(str))))
            if group["model"].nunique() < table["model"].nunique()
            else "all",
        }
        for (browser, version, status, reason), group in bad.groupby(
            ["browser", "version", "status", "reason"], observed=True, sort=False
        )
    ]
    return pd.DataFrame(rows, columns=["browser", "status", "reason", "providers", "models"])


def agreement(table: pd.DataFrame) -> pd.DataFrame:
    """How far the numbers of each browser and provider are from native onnxruntime's: the worst over models.

    Returns
    -------
    DataFrame
        ``browser``, ``version``, ``provider``, ``models`` (how many), ``max_abs_error`` (largest), ``cosine`` (smallest),
        ``same_class`` (smallest share; missing where no model decides anything).
    """
    ok = table[(table["status"] == "ok") & table["max_abs_error"].notna()]
    worst = ok.groupby(["browser", "version", "provider"], observed=True, sort=False).agg(
        models=("model", "nunique"),
        max_abs_error=("max_abs_error", "max"),
        cosine=("cosine", "min"),
        same_class=("same_class", "min"),
    )
    return worst.reset_index()


def agreement_for_people(table: pd.DataFrame) -> pd.DataFrame:
    """:func:`agreement` with words for names and few digits."""
    import pandas as pd

    worst = agreement(table)
    return pd.DataFrame(
        {
            "browser": worst["browser"] + " " + worst["version"].map(_short_version),
            "provider": worst["provider"],
            "models": worst["models"],
            "largest difference": worst["max_abs_error"].map("{:.1e}".format),
            "smallest cosine": worst["cosine"].map("{:.7g}".format),
            "same class": worst["same_class"].map(percent, na_action="ignore").astype(object).fillna(""),
        }
    )


def slowdown(table: pd.DataFrame) -> pd.DataFrame:
    """How many times as long as native onnxruntime, with the same threads, each model takes in each browser."""
    columns = ["browser", "version", "provider", "model", "audio_s", "latency_s", "native_s"]
    columns += ["slowdown", "slowdown_ci_low", "slowdown_ci_high", "adapter"]
    return table.loc[table["slowdown"].notna(), columns].reset_index(drop=True)


def short(table: pd.DataFrame) -> pd.DataFrame:
    """The columns for a terminal, without those that say nothing."""
    return table[SHORT].dropna(axis="columns", how="all")


def _short_version(version: str) -> str:
    """``156`` of ``156.0.8078.108``, but ``2.50`` of ``2.50.6``: WebKitGTK counts so."""
    parts = version.split(".")
    return ".".join(parts[:2]) if parts[0] == "2" else parts[0]
