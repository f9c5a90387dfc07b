"""A profile in sentences and tables: what :mod:`labbench.analysis.profiles` found, in human units and words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from labbench.analysis.few import MOST_ROWS
from labbench.analysis.profiles import KIND, SERIES_NAMES, UNITS, with_curve, with_memory
from labbench.words import count, digits, listed, number, percent, rate, seconds, size

if TYPE_CHECKING:
    import pandas as pd

MS, MB = 1e3, 1e-6
MOST_NAMED = 6  # in a sentence
PHASE_NAMES = {
    "start_s": "starting the worker",
    "load_s": "loading",
    "prepare_s": "preparing",
    "first_run_s": "the first run",
}


# --- sentences --------------------------------------------------------------------------------------------------------


def overview(profile: pd.DataFrame, of: Literal["model", "platform"] = "model") -> str:
    """What is known of the model or platform: how many records of what kind, and the span of latencies side by side."""
    if profile.empty:
        return "Nothing was measured."
    rows = profile[profile["primary"]]
    other, word = ("platform", "on") if of == "model" else ("model", "of")
    text = f"`{rows[of].iloc[0]}` has {count(len(rows), 'record')} {word} {count(rows[other].nunique(), other)}"
    text += f": {_counted(rows['status'])}, {_counted(rows['provenance'])}."
    unstable = int(((rows["status"] == "ok") & (rows["noise"] == "unstable")).sum())
    text += f" The machine was unstable during {unstable} of them, so differences may be chance." if unstable else ""
    ran = rows[(rows["status"] == "ok") & rows["latency_s"].notna()]
    return " ".join([text, *(_span(part) for _, part in ran.groupby(["mode", "series"], observed=True))])


def _counted(values: pd.Series) -> str:
    counts = values.astype("str").value_counts()
    return ", ".join(f"{times:,} {name.replace('_', ' ')}" for name, times in counts.items())


def _span(rows: pd.DataFrame) -> str:
    """From the fastest to the slowest side, at the smallest batch size of those that most sides share."""
    batch = rows.groupby("batch_size")["side"].nunique().idxmax()
    rows = rows[(rows["batch_size"] == batch).astype(bool)].sort_values("latency_s", kind="stable")
    first, last = rows.iloc[0], rows.iloc[-1]
    text = f"At batch size {batch}, {SERIES_NAMES.get(str(first['series']), 'a call')} takes "
    if len(rows) == 1:
        return f"{text}{_timed(first)} (`{first['side']}`)."
    return f"{text}from {_timed(first)} (`{first['side']}`) to {_timed(last)} (`{last['side']}`)."


def _timed(row: Any) -> str:
    low, high = row["latency_ci_low_s"], row["latency_ci_high_s"]
    interval = f" [{digits(low * MS)} to {digits(high * MS)} ms]" if low == low and high == high else ""
    return f"{digits(row['latency_s'] * MS)} ms{interval}"


def batching(curve: pd.DataFrame, growth: pd.DataFrame) -> str:
    """The highest throughput of each kind, what larger batches bring, and what the figures leave out."""
    if curve.empty:
        return "There is no throughput to show."
    lines = []
    for (_, series, unit), part in curve.groupby(["mode", "series", "throughput_unit"], observed=True):
        best = part.loc[part["throughput"].idxmax()]
        text = f"{SERIES_NAMES.get(series, series).capitalize()}: at most {rate(best['throughput'], unit)}"
        text += f" (`{best['side']}`, batch {best['batch_size']})."
        grown = growth[(growth["series"] == series) & (growth["throughput_unit"] == unit)]
        lines.append(f"- {text}{_grown(grown) if len(grown) else ''}")
    text = "\n".join(lines)
    rest = _left_out(curve, growth) if len(growth) else "Each was run at one batch size only: points, no curves."
    return f"{text}\n\n{rest}" if rest else text


def _left_out(rows: pd.DataFrame, growth: pd.DataFrame) -> str:
    """The kinds that :func:`labbench.analysis.profiles.with_curve` leaves out, and why; empty if there are none."""
    kinds, drawn = (table.set_index(list(KIND)).index.unique() for table in (rows, with_curve(rows, growth)))
    rest = kinds.difference(drawn).to_frame(index=False)
    told = [
        f"{SERIES_NAMES.get(series, series)} ({', '.join(UNITS.get(unit, unit) for unit in units)})"
        for series, units in rest.groupby("series", observed=True)["throughput_unit"]
    ]
    return f"Left out of the figures, for each was run at one batch size only: {listed(told)}." if told else ""


def _grown(growth: pd.DataFrame) -> str:
    ordered = growth.sort_values("throughput_ratio", kind="stable")
    told = [
        f"×{number(row.throughput_ratio)} (`{row.side}`, batch {row.batch_size} to {row.largest_batch_size}, a call "
        f"takes ×{number(row.latency_ratio)})"
        for row in (ordered.iloc[[-1]] if len(ordered) == 1 else ordered.iloc[[-1, 0]]).itertuples()
    ]
    return f" Larger batches change the throughput by {' down to '.join(told)}."


def memory(curve: pd.DataFrame, growth: pd.DataFrame) -> str:
    """How much memory is needed at least and at most, and by a further sample."""
    rows = with_memory(curve)
    if rows.empty:
        return "No record tells how much memory is needed."
    ordered = rows.sort_values("memory_increase_bytes", kind="stable")
    ends = [
        f"{size(row.memory_increase_bytes)} (`{row.side}`, {_cell(row)})" for row in ordered.iloc[[0, -1]].itertuples()
    ]
    text = f"Peak memory above the empty worker is {f'from {ends[0]} to {ends[1]}' if len(rows) > 1 else ends[0]}."
    further = growth.dropna(subset=["bytes_per_sample"]).drop_duplicates("side").sort_values("bytes_per_sample")
    if len(further):
        least, most = further.iloc[0], further.iloc[-1]
        text += f" A further sample takes {_signed(least)} (`{least['side']}`)"
        text += f" to {_signed(most)} (`{most['side']}`)." if len(further) > 1 else "."
    return f"{text} {_left_out(rows, growth)}".strip()


def _signed(row: Any) -> str:
    value = row["bytes_per_sample"]
    return size(value) if value > 0 else "no memory that can be told apart from noise"


def _cell(row: Any) -> str:
    return f"{'training, ' if row.mode == 'training' else ''}batch {row.batch_size}"


def starting(starts: pd.DataFrame) -> str:
    """Where the first result comes soonest and latest, and what takes most of the time there."""
    if starts.empty:
        return "No record tells what starting costs."
    lines = []
    for mode, part in starts.groupby("mode", observed=True):
        ordered = part.sort_values("total_s", kind="stable")
        first, last = ordered.iloc[0], ordered.iloc[-1]
        text = f"The first result of {mode} comes {_after(first)}"
        lines.append(f"{text}, and latest {_after(last)}." if len(ordered) > 1 else f"{text}.")
    rest = int((~starts["complete"]).sum())
    return " ".join(lines) + (
        f" Of {count(rest, 'cell')} not all parts are known: these take at least the time told." if rest else ""
    )


def _after(row: Any) -> str:
    phases = row[list(PHASE_NAMES)].astype(float).fillna(0)
    largest = str(phases.idxmax())
    share = percent(phases[largest] / row["total_s"])
    return f"after {seconds(row['total_s'])} (`{row['side']}`, {share} of it {PHASE_NAMES[largest]})"


def energy(table: pd.DataFrame) -> str:
    """Energy of an item from least to most, or the recorded reasons why there is none."""
    if table.empty:
        return "Nothing ran, so there is no energy to tell."
    known = table.dropna(subset=["joules_per_item"]).sort_values("joules_per_item", kind="stable")
    lines = []
    if len(known):
        ends = [
            f"{number(row.joules_per_item)} J per item of {row.throughput_unit} (`{row.side}`, {_cell(row)})"
            for row in known.iloc[[0, -1]].itertuples()
        ]
        lines.append(f"Energy is from {ends[0]} to {ends[1]}." if len(known) > 1 else f"Energy: {ends[0]}.")
    missing = table[table["joules_per_item"].isna()]
    told = missing["energy_reason"].dropna().astype("str").value_counts()
    lines += [f"No energy of {count(times, 'cell')}: {str(reason).rstrip('.')}." for reason, times in told.items()]
    silent = int(missing["energy_reason"].isna().sum())
    if silent:
        lines.append(f"Of {count(silent, 'cell')} neither the energy nor a reason was recorded.")
    return " ".join(lines)


def training(table: pd.DataFrame) -> str:
    """How many inference calls a training step is worth."""
    if table.empty:
        return "No cell was run both in inference and in training at the same input and batch size."
    ordered = table.sort_values("ratio", kind="stable")
    ends = [
        f"{number(row.ratio)} times as long as {SERIES_NAMES.get(row.series, row.series)} (`{row.side}`, batch {row.batch_size})"
        for row in ordered.iloc[[0, -1]].itertuples()
    ]
    text = f"A training step takes {ends[0]}" + (f" to {ends[1]}." if len(table) > 1 else ".")
    memory_ratio = table["memory_ratio"].dropna()
    return text + (
        f" Its memory is {number(memory_ratio.median())} times that of inference (median)." if len(memory_ratio) else ""
    )


def pareto(cells: pd.DataFrame) -> str:
    """Which sides have cells worth having, and which never do."""
    if cells.empty:
        return "Nothing ran, so nothing can be chosen from."
    good = cells[cells["efficient"]]
    judged = ["latency", "throughput", *(["memory"] if (cells["objectives"] > 2).any() else [])]
    text = (
        f"**{len(good)} of {count(len(cells), 'cell')} {'is' if len(good) == 1 else 'are'} not clearly dominated**: no other of "
        f"the same kind is clearly no worse in {listed(judged)}, and better in one of them."
    )
    never = sorted(set(cells["side"]) - set(good["side"]))
    if never:
        more = [f"{len(never) - MOST_NAMED:,} more"] if len(never) > MOST_NAMED else []
        text += f" Always dominated: {listed([f'`{name}`' for name in never[:MOST_NAMED]] + more)}."
    if (cells["objectives"] == 2).any():
        text += " Where no memory is known, it does not count."
    if cells["latency_ci_low_s"].isna().any():
        text += " Latencies without an interval are taken as known to ±2 %."
    return text


def not_run(profile: pd.DataFrame) -> str:
    """What ended without a result, and why."""
    rows = profile[(profile["status"] != "ok") & profile["primary"]] if len(profile) else profile
    if profile.empty or rows.empty:
        return "Every cell that is stored ran." if len(profile) else "Nothing was measured."
    grouped = rows.groupby(
        ["side", "mode", rows["status"].astype("str"), rows["reason"].astype("str").fillna("no reason was recorded")],
        observed=True,
    )
    lines = [
        f"- `{side}`, {mode}, {count(len(part), 'cell')}: {status.replace('_', ' ')}: {reason}"
        for (side, mode, status, reason), part in list(grouped)[:MOST_ROWS]
    ]
    rest = grouped.ngroups - len(lines)
    return "\n".join([*lines, *([f"- and {rest} more"] if rest else [])])


# --- tables -----------------------------------------------------------------------------------------------------------


def side_by_side_table(table: pd.DataFrame) -> pd.DataFrame:
    """:func:`labbench.analysis.profiles.side_by_side` for people; columns of which nothing is known are left out.

    At most the first 100 rows.
    """
    import pandas as pd

    rows = table.head(MOST_ROWS)
    result = pd.DataFrame(
        {
            "side": rows["side"],
            "series": rows["series"]
            .astype("str")
            .where(rows["series"].notna(), rows["status"].astype("str").str.replace("_", " ")),
            "batch": rows["batch_size"],
            "ms": (rows["latency_s"] * MS).map(digits),
            "95 % interval": _intervals(rows["latency_ci_low_s"] * MS, rows["latency_ci_high_s"] * MS),
            "p99 ms": (rows["latency_p99_s"] * MS).map(digits),
            "per second": _rates(rows),
            "memory MB": _numbers(rows["memory_increase_bytes"] * MB),
            "start to result s": _numbers(
                rows[["start_s", "load_s", "prepare_s", "first_run_s"]].sum(axis=1, min_count=1)
            ),
            "J per call": _numbers(rows["joules_per_call"]),
            "output error": [
                "–" if value != value else f"{value:.1e}" if value else "0" for value in rows["check_error"]
            ],
            "noise": _words(rows["noise"]),
            "provenance": _words(rows["provenance"]),
        }
    )
    return _known(result)


def _known(table: pd.DataFrame) -> pd.DataFrame:
    """Without the columns of which nothing is known."""
    return table[[name for name in table if not (table[name] == "–").all() or table.empty]]


def _numbers(values: pd.Series) -> pd.Series:
    return values.astype("float64").map(digits)


def _rates(rows: pd.DataFrame) -> list[str]:
    return [
        f"{digits(value)} {'× real time' if unit == 'audio_s' else unit}" if value == value else "–"
        for value, unit in zip(rows["throughput"], rows["throughput_unit"], strict=True)
    ]


def _words(values: pd.Series) -> pd.Series:
    return values.astype("str").where(values.notna(), "–")


def _intervals(low: pd.Series, high: pd.Series) -> list[str]:
    return [f"{digits(a)} to {digits(b)}" if a == a and b == b else "–" for a, b in zip(low, high, strict=True)]


def training_table(table: pd.DataFrame) -> pd.DataFrame:
    """:func:`labbench.analysis.profiles.training` for people."""
    import pandas as pd

    rows = table.head(MOST_ROWS)
    return pd.DataFrame(
        {
            "side": rows["side"],
            "batch": rows["batch_size"],
            "inference ms": (rows["inference_s"] * MS).map(digits),
            "step ms": (rows["step_s"] * MS).map(digits),
            "step / inference": rows["ratio"].map(digits),
            "at most from – to": _intervals(rows["ratio_low"], rows["ratio_high"]),
            "memory, step / inference": rows["memory_ratio"].map(digits),
        }
    )


def pareto_table(cells: pd.DataFrame) -> pd.DataFrame:
    """The cells that nothing clearly dominates, the fastest of each kind first."""
    import pandas as pd

    rows = cells[cells["efficient"]].sort_values(["mode", "series", "latency_s"], kind="stable").head(MOST_ROWS)
    table = pd.DataFrame(
        {
            "side": rows["side"],
            "series": rows["series"].astype("str"),
            "batch": rows["batch_size"],
            "ms": (rows["latency_s"] * MS).map(digits),
            "per second": _rates(rows),
            "memory MB": _numbers(rows["memory_increase_bytes"] * MB),
            "provenance": _words(rows["provenance"]),
        }
    )
    return _known(table.reset_index(drop=True))
