"""Look at a store interactively, in JupyterLab: choose rows and quantities, see a figure and a table that sorts.

explore("data/study.h5")  ──>  choices ──> points() ──> plot_points(), sortable_table()
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from labbench.analysis.labels import place, work

if TYPE_CHECKING:
    import pandas as pd

    from labbench.store import Store

# what is offered -> column of the frame, and the factor from SI to what is shown
QUANTITIES = {
    "batch size": ("batch_size", 1),
    "latency (ms)": ("latency_s", 1e3),
    "p99 latency (ms)": ("latency_p99_s", 1e3),
    "throughput (items/s)": ("throughput", 1),
    "memory (MB)": ("memory_increase_bytes", 1e-6),
    "parameters (million)": ("parameters", 1e-6),
    "GFLOP a call": ("flops", 1e-9),
    "load (s)": ("load_s", 1),
    "prepare (s)": ("prepare_s", 1),
    "first run (s)": ("first_run_s", 1),
    "energy (J a call)": ("joules_per_call", 1),
    "output error": ("check_error", 1),
}
INTERVALS = {"latency (ms)": "latency_ci_{}_s", "p99 latency (ms)": "latency_p99_ci_{}_s"}
COLOURS = ("platform", "model", "precision", "noise", "provenance", "series")
FACTS = ("model", "platform", "mode", "series", "batch size", "precision", "provenance", "noise")
ALL = "all"
HEIGHT_IN = 4.6
SCREEN_DPI = 110  # drawn at twice as many, for sharp screens
MOST_ROWS = 200  # of the table; a browser sorts so many at once
STYLE = """<style>
table.labbench { border-collapse: collapse; font-size: 0.85em; }
table.labbench :is(th, td) { padding: 0.25em 0.6em; text-align: right; }
table.labbench button.sort { all: unset; cursor: pointer; }
table.labbench button.sort:focus-visible { outline: 2px solid currentColor; }
table.labbench [aria-sort="ascending"] > .sort::after { content: " ▲"; }
table.labbench [aria-sort="descending"] > .sort::after { content: " ▼"; }
</style>"""


def points(frame: pd.DataFrame) -> pd.DataFrame:
    """Tidy rows that ran, in the names and units of the screen: ``FACTS``, ``QUANTITIES``, and the ends of intervals."""
    rows = frame[(frame["status"] == "ok") & frame["latency_s"].notna()]
    table = rows[["mode", "series", "precision", "provenance", "noise"]].astype("str")
    table = table.assign(model=work(rows), platform=place(rows))
    for name, (column, factor) in QUANTITIES.items():
        table[name] = rows[column].astype("float64") * factor
        if name in INTERVALS:
            for end in ("low", "high"):
                table[f"{name} {end}"] = rows[INTERVALS[name].format(end)] * factor
    return table.reset_index(drop=True)


def sortable_table(table: pd.DataFrame) -> str:
    """HTML of at most 200 rows, whose headers sort; whatever shows it must let scripts run."""
    from labbench.markup import TEMPLATES

    names = [name for name in (*FACTS, *QUANTITIES) if name in table and table[name].notna().any()]
    shown = table[list(dict.fromkeys(names))].head(MOST_ROWS)
    html = shown.to_html(index=False, border=0, classes="labbench", na_rep="–", float_format="{:.4g}".format)
    how_many = f"<p>{len(shown):,} of {len(table):,} rows. A header sorts.</p>"
    return f"{STYLE}{how_many}{html}<script>{(TEMPLATES / 'sort.js').read_text(encoding='utf-8')}</script>"


class Explorer(widgets.VBox):
    """Choices above, the figure and the table below; both follow every choice.

    Attributes
    ----------
    table : DataFrame
        All rows that can be shown (:func:`points`).
    choices : dict
        The controls: ``models``, ``platforms``, ``mode``, ``series``, ``x``, ``y``, ``colour``, ``log_x``, ``log_y``.
    """

    def __init__(self, frame: pd.DataFrame) -> None:
        self.table = points(frame)
        self.choices: dict[str, Any] = {}
        if self.table.empty:
            super().__init__([widgets.HTML("There is nothing to explore: no record in the store ran.")])
            return
        self.choices = self._controls()
        self._output = widgets.Output()
        for control in self.choices.values():
            control.observe(self._show, names="value")
        rows = (("models", "platforms"), ("mode", "series", "colour"), ("x", "log_x", "y", "log_y"))
        lines = [widgets.HBox([self.choices[name] for name in row]) for row in rows]
        super().__init__([*lines, self._output])
        self._show()

    def _controls(self) -> dict[str, Any]:
        def several(name: str) -> Any:
            values = sorted(self.table[name].unique())
            return widgets.SelectMultiple(options=values, value=values, rows=6, description=f"{name}s")

        def one(name: str, options: list[str], value: str | None = None) -> Any:
            return widgets.Dropdown(options=options, value=value or options[0], description=name)

        quantities = [name for name in QUANTITIES if self.table[name].notna().any()]
        kinds = {name: [ALL, *sorted(self.table[name].unique())] for name in ("mode", "series")}
        return {
            "models": several("model"),
            "platforms": several("platform"),
            **{name: one(name, options) for name, options in kinds.items()},
            "x": one("x", quantities, "latency (ms)"),
            "y": one("y", quantities, "throughput (items/s)"),
            "colour": one("colour", [name for name in COLOURS if self.table[name].notna().any()]),
            **{f"log_{axis}": widgets.Checkbox(value=True, description=f"log {axis}") for axis in "xy"},
        }

    def rows(self) -> pd.DataFrame:
        """The rows that the choices leave."""
        values = {name: control.value for name, control in self.choices.items()}
        chosen = self.table["model"].isin(values["models"]) & self.table["platform"].isin(values["platforms"])
        for name in ("mode", "series"):
            chosen &= (self.table[name] == values[name]) | (values[name] == ALL)
        return self.table[chosen]

    def _show(self, _: object = None) -> None:
        from IPython.display import HTML, display

        rows = self.rows()
        self._output.clear_output(wait=True)
        with self._output:
            display(HTML(_figure(rows, {name: control.value for name, control in self.choices.items()})))
            display(HTML(sortable_table(rows)))


def _figure(rows: pd.DataFrame, choices: dict[str, Any]) -> str:
    """The figure of the choices as an image, drawn on a canvas of its own: pyplot's figures are the notebook's."""
    import base64
    import io

    from matplotlib.figure import Figure

    from labbench.plots import WIDTH_IN, plot_points

    figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN), layout="constrained")
    plot_points(
        rows, choices["x"], choices["y"], choices["colour"],
        log_x=choices["log_x"], log_y=choices["log_y"], ax=figure.subplots(),
    )  # fmt: skip
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=2 * SCREEN_DPI)
    data = base64.b64encode(buffer.getvalue()).decode()
    width = round(WIDTH_IN * SCREEN_DPI)
    return f'<img src="data:image/png;base64,{data}" width="{width}" alt="{choices["y"]} against {choices["x"]}">'


def explore(store: Store | str | Path | pd.DataFrame) -> Explorer:
    """Controls to look at what a store holds, for a notebook: models, platforms, quantities, a figure, a table that sorts.

    Parameters
    ----------
    store : Store, path, or DataFrame
        A database, or tidy rows of one (then with the columns of :meth:`labbench.store.Store.latest`).

    Examples
    --------
    >>> explore("data/study.h5")  # doctest: +SKIP
    """
    from labbench.store import Store

    if isinstance(store, str | Path):
        store = Store(store)
    return Explorer(store.latest() if isinstance(store, Store) else store)
