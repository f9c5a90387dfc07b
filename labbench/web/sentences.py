"""What the tables of :mod:`labbench.web.report` say, in sentences computed from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labbench.config import ConfigError
from labbench.web.agreement import CLOSE
from labbench.words import count, digits, listed

if TYPE_CHECKING:
    import pandas as pd


def ensure(table: pd.DataFrame) -> None:
    """Raises ConfigError, with the command that measures, if nothing was measured in a browser."""
    if table.empty:
        raise ConfigError("no cell of a browser is stored; `labbench web run` measures some")


def status_sentence(table: pd.DataFrame) -> str:
    """How many cells ran, and what came of the others."""
    counts = table["status"].astype(str).value_counts()
    ran = int(counts.get("ok", 0))
    rest = [f"{number} {status.replace('_', ' ')}" for status, number in counts.items() if status != "ok"]
    return f"Of {count(len(table), 'cell')} {ran} ran" + (f"; {listed(rest)}." if rest else ".")


def agreement_sentence(table: pd.DataFrame) -> str:
    """Whether the numbers of all browsers are native onnxruntime's."""
    ok = table[(table["status"] == "ok") & table["max_abs_error"].notna()]
    if ok.empty:
        return "No output was compared."
    worst = ok.loc[ok["max_abs_error"].idxmax()]
    where = f"{worst['model']} in {worst['browser']} on {worst['provider']}"
    off = int((ok["max_abs_error"] > CLOSE).sum())
    said = f"The largest difference to native onnxruntime is {worst['max_abs_error']:.1e} ({where}); "
    said += f"{count(off, 'cell')} of {len(ok)} {'are' if off > 1 else 'is'} off by more than {CLOSE:g}."
    deciding = ok["same_class"].dropna()
    if len(deciding):
        same = int((deciding == 1).sum())
        said += f" Where a model decides, the same class wins in {same} of {count(len(deciding), 'cell')}."
    return said


def slowdown_sentence(table: pd.DataFrame) -> str:
    """What each browser's WebAssembly costs, and what an adapter in software does."""
    known = table[table["slowdown"].notna()]
    if known.empty:
        return "No cell took turns with native onnxruntime."
    wasm = known[known["provider"].str.startswith("wasm")]
    parts = [
        f"{digits(times.median())} times in {browser} ({digits(times.min())} to {digits(times.max())})"
        for browser, times in wasm.groupby("browser", sort=False)["slowdown"]
    ]
    said = f"WebAssembly's time against native's, in the median over models: {listed(parts)}." if parts else ""
    software = known[known["adapter"].astype(str).str.contains("software")]
    if len(software):
        said += (
            f" WebGPU ran on an adapter in software, {digits(software['slowdown'].min())} to {digits(software['slowdown'].max())} "
            "times as long as native: that tells that it works, not how fast a GPU is."
        )
    return said.strip()
