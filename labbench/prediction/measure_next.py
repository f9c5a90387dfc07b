"""What to measure next: the cells that take most doubt off the answer to a question, for the time there is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from labbench.cells import Cell
from labbench.prediction.adaptation import Adaptation, Traits, graph_features
from labbench.prediction.cells import candidates, missing
from labbench.prediction.config import PredictionConfig, PredictionError
from labbench.prediction.elsewhere import DEPARTING, levels
from labbench.prediction.features import TOTALS, WORKLOAD, Ceilings, Device, class_share, classes, prepare
from labbench.prediction.predictor import Predictor, learnt_from
from labbench.prediction.residual import folds_by_group
from labbench.prediction.tracing import PATIENCE_S
from labbench.words import count, percent

if TYPE_CHECKING:
    import pandas as pd

    from labbench.prediction.graphs import Graphs
    from labbench.records import Environment

Question = Literal["error", "choice"]
QUESTIONS = ("error", "choice")
FOLDS = 5  # by family, in which what the predictor leaves over of measured cells is found
MEAN_OF_SD = np.sqrt(2 / np.pi)  # mean absolute deviation of a normal distribution over its standard deviation
LIKE = 5  # measured cells of the same platform, nearest in latency, whose wall time a candidate's is taken from
UNKNOWN_COST_S = 10.0  # where no record says how long its cell took: about what the quick protocol needs
DRAWS = 500  # of all latencies, to see which option of a workload may be the fastest
TELLS = 0.25  # share of another cell's variance from which on it is said to be told of, too
WHAT = tuple(name for name in WORKLOAD if name != "precision")  # options of a choice may differ in precision


@dataclass(frozen=True)
class Plan:
    """Cells to measure, in order.

    Attributes
    ----------
    table : DataFrame
        A row a cell: its description, ``latency_s`` as it is predicted now, ``doubt`` (mean relative error that is expected of
        that), ``cost_s``, ``spent_s`` (with all before), ``expected_error`` (mean relative error over everything asked about, once
        this and all before are measured) and ``reason``.
    cells : list of Cell
        The same, to be measured.
    open : DataFrame
        All that the question is about, with ``doubt``; NaN where nothing can be said.
    error : float
        Mean relative error that is expected of them now.
    """

    table: pd.DataFrame
    cells: list[Cell]
    open: pd.DataFrame
    error: float
    question: Question

    def __str__(self) -> str:
        if not self.cells:
            return "Nothing is left to measure within the budget."
        last = self.table.iloc[-1]
        which = f"{count(len(self.cells), 'cell')} of {len(self.open)} in about {last['spent_s'] / 60:.1f} min"
        if np.isnan(self.error):
            return f"{which}: a first look, for nothing is known yet of where they run."
        about = "error" if self.question == "error" else "error where the choice hangs on it"
        return f"{which}: the expected {about} falls from {percent(self.error)} to {percent(last['expected_error'])}."


def plan(
    frame: pd.DataFrame,
    environments: Mapping[str, Environment],
    budget_s: float,
    *,
    machine_id: str,
    question: Question = "error",
    asked: Iterable[Cell] | None = None,
    config: PredictionConfig | None = None,
) -> Plan:
    """What to measure on a machine within ``budget_s`` seconds.

    Parameters
    ----------
    frame : DataFrame
        ``Store.latest()``.
    environments : mapping
        ``Store.environments()``.
    budget_s : float
        Seconds of wall time; of each cell as long as like cells took.
    machine_id : str
        The machine that is to measure: cells of others cannot be.
    question : {"error", "choice"}
        Whether every cell's error counts alike, or only that of platforms which may be the fastest for their workload.
    asked : iterable of Cell, optional
        Resolved cells to choose from; default: :func:`~labbench.prediction.missing`. Those that have a record are left out.
    config : PredictionConfig, optional

    Raises
    ------
    PredictionError
        If the store holds too little to learn from, or nothing is missing.
    """
    config = config or PredictionConfig()
    if budget_s <= 0:
        raise PredictionError(f"a budget of {budget_s:g} s leaves time for nothing; give e.g. --budget 10m")
    if question not in QUESTIONS:
        raise PredictionError(f"unknown question {question!r}; known: {', '.join(QUESTIONS)}")
    import pandas as pd

    predictor = Predictor(config).fit(frame, environments)
    open_ = _open_cells(frame, machine_id, asked)
    predicted = predictor.predict(open_.drop(columns="cell"))
    open_ = open_.assign(latency_s=predicted["latency_s"].to_numpy(float), doubt=np.nan, weight=np.nan)
    open_ = open_.assign(cost_s=_costs(frame, open_), reason=[f"a first look: {why}" for why in predicted["reason"]])
    known = open_["latency_s"].notna().to_numpy()
    # Where nothing is known nothing can be said: first of all the smallest workload of each such platform.
    rows = open_[~known].sort_values("flops", kind="stable").drop_duplicates("platform").assign(expected_error=np.nan)
    now = np.nan
    if known.any():
        judged, model, here = _judged(open_[known].reset_index(drop=True), frame, environments, question, predictor)
        weights = judged["weight"].to_numpy(float)
        chosen, left = model.choose(
            here, costs=judged["cost_s"].to_numpy(float), budget=budget_s - rows["cost_s"].sum(), weights=weights
        )
        now = float(np.sqrt(np.average(judged["doubt"] ** 2, weights=weights)))
        # The process shrinks without knowing its scale: as a share of what is expected now.
        shrunk = np.sqrt(np.array(left) / max(model.mean_variance(here, weights), 1e-30))
        rows = pd.concat([rows.assign(expected_error=now), judged.iloc[chosen].assign(expected_error=now * shrunk)])
        open_ = pd.concat([open_[~known], judged], ignore_index=True)
    rows = rows.assign(spent_s=rows["cost_s"].cumsum())
    rows = rows[rows["spent_s"] <= budget_s].reset_index(drop=True)
    described = [name for name in ("machine_id", "platform", *WORKLOAD) if name in rows]
    table = rows[[*described, "latency_s", "doubt", "cost_s", "spent_s", "expected_error", "reason"]]
    return Plan(table, list(rows["cell"]), open_[[*described, "latency_s", "doubt"]], now, question)


def _judged(
    open_: pd.DataFrame,
    frame: pd.DataFrame,
    environments: Mapping[str, Environment],
    question: Question,
    predictor: Predictor,
) -> tuple[pd.DataFrame, Adaptation, Traits]:
    """Open cells with their ``doubt``, how much it counts (``weight``) and the ``reason`` for measuring them; what was learnt."""
    config, graphs = predictor.config, predictor.graphs
    table, ceilings = learnt_from(frame, environments, config, graphs)
    learnt = table[table["primary"].astype(bool)].reset_index(drop=True)
    left_over = _left_over(learnt, ceilings, config, graphs)
    answered = np.isfinite(left_over)
    learnt = learnt[answered].reset_index(drop=True)
    traits = _traits(learnt, prepare(open_.drop(columns="cell")))
    here = traits.take(slice(len(learnt), None))
    model = Adaptation.fit(traits.take(slice(0, len(learnt))), left_over[answered], DEPARTING, seed=config.seed)
    sd = model.predict(here).sd
    judged = open_.assign(doubt=MEAN_OF_SD * sd, weight=1.0)
    judged["reason"] = _reasons(model, here, judged)
    if question == "choice":
        best = _may_be_best(frame, judged, sd)
        judged["weight"] = best * (1 - best)
        if not judged["weight"].sum() > 0:
            raise PredictionError(
                "no choice is open: every workload has one platform that is surely the fastest; --question error asks for the rest"
            )
        judged["reason"] = [
            f"the fastest of its workload with probability {percent(p)}; {why}"
            for p, why in zip(best, judged["reason"], strict=True)
        ]
    return judged, model, here


def _open_cells(frame: pd.DataFrame, machine_id: str, asked: Iterable[Cell] | None) -> pd.DataFrame:
    """One row a cell of this machine that has no record and could be measured, with the ``cell``."""
    cells: list[Cell | None]
    if asked is None:
        rows = missing(frame)
        rows = rows[(rows["machine_id"].astype("str") == machine_id) & rows["primary"].astype(bool)]
        cells = [_cell(row, frame) for row in rows.to_dict("records")]
    else:
        wanted = list(asked)
        rows, cells = candidates(wanted, [machine_id]), [*wanted]
        rows = rows[rows["primary"].astype(bool)] if len(rows) else rows
    stored = set(frame.loc[frame["machine_id"].astype("str") == machine_id, "cell_id"].astype("str"))
    open_ = [cell is not None and cell.id not in stored for cell in cells]
    if not any(open_):
        raise PredictionError(
            f"nothing is missing on machine {machine_id}: every workload was measured, or tried, on each of its platforms; name "
            "further cells, e.g. `labbench measure-next --budget 10m --model bert-base --batch-size 2 16`"
        )
    rows = rows.reset_index(drop=True).assign(cell=cells)[open_]
    return rows.loc[~rows["cell"].map(lambda cell: cell.id).duplicated()].reset_index(drop=True)


def _cell(row: Mapping[str, object], frame: pd.DataFrame) -> Cell | None:
    """The cell of a row of :func:`missing`; None where this process cannot measure it."""
    import pandas as pd

    from labbench import runtimes, zoo

    ran = frame[(frame["machine_id"] == row["machine_id"]) & (frame["platform"] == row["platform"])].iloc[0]
    fields = {name: row[name] for name in WORKLOAD} | {name: ran[name] for name in ("device", "runtime", "world_size")}
    fields |= {"threads": ran["threads_asked"], "memory_format": ran["memory_format"]}
    if fields["runtime"] not in runtimes.names() or fields["model"] not in zoo.models() or fields["world_size"] != 1:
        return None
    return Cell.of(**{name: _plain(value) for name, value in fields.items() if not pd.isna(value)})


def _plain(value: object) -> object:
    return value.item() if isinstance(value, np.generic) else value


def _left_over(
    table: pd.DataFrame, ceilings: Mapping[Device, Ceilings], config: PredictionConfig, graphs: Graphs | None
) -> np.ndarray:
    """``log(measured / predicted)`` of each row by a predictor that saw nothing of its family; NaN where it has no answer."""
    from tqdm.auto import tqdm

    out = np.full(len(table), np.nan)
    folds = list(folds_by_group(table["group"].to_numpy(str), FOLDS, config.seed))
    for train, test in tqdm(folds, "families left out in turn", delay=PATIENCE_S, leave=False):
        try:
            predictor = Predictor(config).fit_rows(table.iloc[train].reset_index(drop=True), ceilings, graphs)
        except PredictionError:  # too few families remain
            continue
        predicted = predictor.predict(table.iloc[test])["latency_s"].to_numpy(float)
        out[test] = np.log(table["latency_s"].to_numpy(float)[test] / predicted)
    if not np.isfinite(out).any():
        raise PredictionError(
            "too few families to see how wrong predictions are; measure some more with `labbench run`, e.g. four families"
        )
    return out


def _traits(learnt: pd.DataFrame, asked: pd.DataFrame) -> Traits:
    """Of measured rows and then of those asked about. Shares of operator classes stand in for those of the law's terms."""
    import pandas as pd

    both = pd.concat([learnt, asked], ignore_index=True)
    named = classes(both)
    by_class = [f"{total}_{name}" for total in TOTALS for name in named]
    both[by_class] = both[by_class].fillna(0.0)
    shares = np.column_stack([class_share(both, total, name) for total in TOTALS for name in named]) / len(TOTALS)
    sizes = np.log(both[list(TOTALS)].to_numpy(float) + 1)
    return Traits(
        both["model"].to_numpy(str),
        graph_features(np.column_stack([sizes, np.log2(both["batch_size"].to_numpy(float))]), shares),
        shares,
        levels(both.drop(columns="framework")),
    )


def _reasons(model: Adaptation, here: Traits, rows: pd.DataFrame) -> list[str]:
    """Of each candidate, how unsure it is and what else its measurement would tell."""
    taken = model.explained(here, here)
    np.fill_diagonal(taken, 0.0)
    reasons = []
    for doubt, others in zip(rows["doubt"], taken, strict=True):
        told = rows[others > TELLS]
        text = f"known to ±{percent(doubt)}"
        if len(told):
            where = "all" if told["platform"].nunique() == 1 else "most"
            text += f", tells of {count(len(told), 'other cell')}, {where} on {told['platform'].mode().iloc[0]}"
        reasons.append(text)
    return reasons


def _may_be_best(frame: pd.DataFrame, rows: pd.DataFrame, sd: np.ndarray) -> np.ndarray:
    """Probability that each row is the fastest of its workload, measured options counted as certain."""
    import pandas as pd

    machines = rows["machine_id"].astype("str").unique()
    known = frame[
        (frame["status"] == "ok") & frame["machine_id"].astype("str").isin(machines) & frame["latency_s"].notna()
    ]
    known = known[known["primary"].astype(bool)]
    options = pd.concat([rows[[*WHAT, "latency_s"]], known[[*WHAT, "latency_s"]]], ignore_index=True)
    what = options[list(WHAT)].astype(object)
    workload = what.where(what.notna(), "").astype(str).agg("|".join, axis=1).to_numpy()
    spread = np.concatenate([sd, np.zeros(len(known))])
    noise = np.random.default_rng(0).standard_normal((len(options), DRAWS))
    drawn = pd.DataFrame(np.log(options["latency_s"].to_numpy(float))[:, None] + spread[:, None] * noise)
    fastest = drawn.eq(drawn.groupby(workload).transform("min")).to_numpy().mean(axis=1)
    return np.asarray(fastest[: len(rows)])


def _costs(frame: pd.DataFrame, rows: pd.DataFrame) -> np.ndarray:
    """Seconds to measure each row: the median of measured cells of its runtime and mode that are nearest in latency."""
    timed = frame[(frame["status"] == "ok") & (frame["provenance"] == "measured") & (frame["duration_s"] > 0)]
    timed = timed[timed["primary"].astype(bool) & timed["latency_s"].notna()]
    if timed.empty:
        return np.full(len(rows), UNKNOWN_COST_S)
    pace = np.log(timed["latency_s"].to_numpy(float))
    wall = timed["duration_s"].to_numpy(float)
    runtime, mode = (timed[name].to_numpy(str) for name in ("runtime", "mode"))

    def cost(row: Mapping[str, object]) -> float:
        same = runtime == row["runtime"]
        like = next(rows for rows in (same & (mode == row["mode"]), same, wall > 0) if rows.any())
        latency = float(row["latency_s"])  # type: ignore[arg-type]
        distance = np.abs(pace[like] - np.log(latency)) if np.isfinite(latency) else np.zeros(like.sum())
        return float(np.median(wall[like][np.argsort(distance, kind="stable")[:LIKE]]))

    return np.array([cost(row) for row in rows.to_dict("records")])
