"""Turn a requirement and see the choices change, in JupyterLab."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any, cast, get_args

import ipywidgets as widgets

from labbench.selection.choose import headline, select
from labbench.selection.report import decision_table
from labbench.selection.requirements import Objective, Requirements, SelectionError
from labbench.selection.sensitivity import Remembered

if TYPE_CHECKING:
    import pandas as pd

    from labbench.prediction import Predictor
    from labbench.records import Environment
    from labbench.selection.decision import Decision

STYLE = "<style>table.what-if :is(th, td) { padding: 0.1em 1.2em 0.1em 0; text-align: left !important; }</style>"
NO_LIMIT = 10.0  # times the largest: a limit there excludes nothing


class WhatIf(widgets.VBox):
    """Controls above, the decision below; it follows every control.

    Attributes
    ----------
    controls : dict
        ``objective``, ``percentile``, ``latency`` (ms), ``memory`` (MB), ``probability``, ``predicted`` (factor by which predicted
        latencies are off) and, with prices, ``price`` (factor of all of them).
    decision : Decision or None
        The present one; None where nothing can be decided.
    """

    def __init__(
        self,
        frame: pd.DataFrame,
        requirements: Requirements,
        predictor: Predictor | None = None,
        environments: Mapping[str, Environment] | None = None,
    ) -> None:
        self._frame, self._asked, self._environments = frame, requirements, environments
        self._predictor = Remembered(predictor) if predictor is not None else None
        self.decision: Decision | None = None
        self.controls: dict[str, Any] = self._controls()
        self._shown = widgets.HTML()
        for control in self.controls.values():
            control.observe(self._show, names="value")
        super().__init__([widgets.HBox(list(self.controls.values())[:3]), *self._rest(), self._shown])
        self._show()

    def _rest(self) -> list[Any]:
        others = list(self.controls.values())[3:]
        return [widgets.HBox(others)] if others else []

    def _controls(self) -> dict[str, Any]:
        def limit(name: str, given: float | None, column: str, factor: float) -> Any:
            values = self._frame[column].dropna().astype(float) * factor
            low, high = (float(values.min()), float(values.max())) if len(values) else (1.0, 1.0)
            value = given * factor if given else high * NO_LIMIT
            ends = sorted((low / 2, high * NO_LIMIT, value))
            return _log_slider(name, value, ends[0], ends[-1])

        asked = self._asked
        objectives = [one for one in get_args(Objective) if one != "cost" or asked.prices]
        controls: dict[str, Any] = {
            "objective": widgets.Dropdown(options=objectives, value=asked.objective, description="best at"),
            "percentile": widgets.Dropdown(
                options=[50, 90, 99], value=asked.latency_percentile, description="percentile"
            ),
            "probability": widgets.FloatSlider(
                value=asked.probability or 0.5,
                min=0.5,
                max=0.99,
                step=0.01,
                description="sure",
                continuous_update=False,
            ),
            "latency": limit("latency, ms", asked.max_latency_s, "latency_s", 1e3),
            "memory": limit("memory, MB", asked.max_memory_bytes, "memory_increase_bytes", 1e-6),
        }
        if self._predictor is not None:
            controls["predicted"] = _log_slider("predicted ×", 1.0, 0.5, 2.0)
        if asked.prices:
            controls["price"] = _log_slider("prices ×", 1.0, 0.25, 4.0)
        return controls

    def requirements(self) -> Requirements:
        """What the controls ask for."""
        values = {name: control.value for name, control in self.controls.items()}
        factor = values.get("price", 1.0)
        prices = [one.model_copy(update={"per_hour": one.per_hour * factor}) for one in self._asked.prices]
        return self._asked.model_copy(
            update={
                "objective": values["objective"], "weights": None, "latency_percentile": values["percentile"],
                "probability": values["probability"] if values["probability"] > 0.5 else self._asked.probability and 0.5,
                "max_latency_s": values["latency"] / 1e3, "max_memory_bytes": int(values["memory"] * 1e6), "prices": prices,
            }
        )  # fmt: skip

    def _show(self, _: object = None) -> None:
        predictor = self._predictor
        if predictor is not None:
            predictor = predictor.times(self.controls["predicted"].value)
        try:
            self.decision = select(
                self._frame, self.requirements(), cast("Predictor | None", predictor), self._environments
            )
        except SelectionError as error:
            self.decision, self._shown.value = None, f"<p>{escape(str(error))}</p>"
            return
        table = decision_table(self.decision).to_html(index=False, border=0, classes="what-if")
        self._shown.value = f"{STYLE}<p>{escape(headline(self.decision))}</p>{table}"


def _log_slider(name: str, value: float, low: float, high: float) -> Any:
    from math import log10

    return widgets.FloatLogSlider(
        value=value,
        min=log10(low),
        max=log10(high),
        step=0.01,
        description=name,
        readout_format=",.3r",
        continuous_update=False,
        style={"description_width": "initial"},
    )


def what_if(
    frame: pd.DataFrame,
    requirements: Requirements | None = None,
    predictor: Predictor | None = None,
    environments: Mapping[str, Environment] | None = None,
) -> WhatIf:
    """Controls that turn a requirement, and the decision under them, for a notebook; parameters as of :func:`select`."""
    return WhatIf(frame, requirements or Requirements(), predictor, environments)
