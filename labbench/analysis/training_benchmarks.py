"""What the benchmarks of training found, read from the store that they keep it in: each finding a ratio with its goal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from labbench.analysis import training

if TYPE_CHECKING:
    import pandas as pd

LARGE_BYTES = 200e6  # below it the runtime's share of memory is not small
# benchmark -> what its ratios are, the lowest and the highest that meet its goal
GOALS = {
    "training_agreement.py": ("step over that of a plain loop", 0.97, 1.03),
    "training_agreement.py, optimum-benchmark": ("step over that of optimum-benchmark", 0.97, 1.03),
    "training_agreement.py, parts": ("sum of the parts over the step", 0.98, 1.02),
    "training_memory.py": ("counted over live memory", 0.9, 1.1),
    "largest_batch.py": ("largest batch found over the true one", 0.95, 1.05),
    "tuning.py, TPE": ("time to the target, tuned by TPE over usual", 0.0, 0.5),
    "tuning.py, random": ("time to the target, random search over usual", 0.0, 0.5),
}


def findings(path: str | Path) -> pd.DataFrame:
    """Ratios that the benchmarks kept in a store.

    Parameters
    ----------
    path : path
        What their ``--store`` was; it need not be there.

    Returns
    -------
    DataFrame
        ``benchmark`` and ``what`` (:data:`GOALS`), ``model``, ``batch_size``, ``ratio``, ``low`` and ``high`` (that meet the
        goal), ``met``.
    """
    import pandas as pd

    from labbench.store import Store

    columns = ["benchmark", "model", "batch_size", "ratio"]
    if not Path(path).exists():
        return pd.DataFrame(columns=[*columns, "what", "low", "high", "met"])
    store = Store(path)
    frame = store.frame()
    what = frame["cell_id"].astype(str)
    if "metric_seed" in frame:  # the cell is then what the search of that seed found
        what = what.where(frame["metric_seed"].isna(), frame["metric_seed"].astype(str))
    frame = frame.assign(of=what).drop_duplicates(["source", "of"], keep="last")
    memory = training.memory(training.steps(frame, store.environments()))
    memory = memory[memory["live_bytes"] >= LARGE_BYTES]
    parts = [memory.assign(benchmark="training_memory.py", ratio=memory["error"] + 1)[columns]]
    for benchmark, above, below in (
        ("training_agreement.py", "step_over_plain_loop", None),
        ("training_agreement.py, optimum-benchmark", "step_over_optimum_benchmark", None),
        ("training_agreement.py, parts", "parts_over_step", None),
        ("largest_batch.py", "largest_batch", "true_largest_batch"),
        ("tuning.py, TPE", "tpe_to_target_s", "usual_to_target_s"),
        ("tuning.py, random", "random_to_target_s", "usual_to_target_s"),
    ):
        if f"metric_{above}" in frame:
            rows = frame[frame[f"metric_{above}"].notna()]
            ratio = rows[f"metric_{above}"].astype(float) / (rows[f"metric_{below}"].astype(float) if below else 1.0)
            parts.append(rows.assign(benchmark=benchmark, ratio=ratio)[columns])
    table = pd.concat(parts, ignore_index=True)
    goals = np.array([GOALS[name] for name in table["benchmark"]], dtype=object).reshape(-1, 3)
    low, high = goals[:, 1].astype(float), goals[:, 2].astype(float)
    met = (table["ratio"] >= low) & (table["ratio"] <= high)
    return table.assign(what=goals[:, 0], low=low, high=high, met=met)


def told(findings: pd.DataFrame) -> str:
    """A sentence a benchmark: its median, and how many of its ratios meet the goal."""
    if findings.empty:
        return "No benchmark was kept here. `python benchmarks/training_memory.py` keeps one, and so do its neighbours."
    lines = []
    for what, rows in findings.groupby(findings["what"].astype(str), sort=False):
        lines.append(
            f"- {what[0].upper()}{what[1:]}: **{rows['ratio'].median():.3f}** in the median; "
            f"{rows['met'].sum()} of {len(rows)} meet the goal of {rows['low'].iloc[0]:g} to {rows['high'].iloc[0]:g}."
        )
    return "\n".join(lines)
