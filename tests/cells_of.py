"""The cells of a notebook run in this process: as fast as the functions they call, and what each shows at hand."""

import ast
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import nbformat

from labbench.notebooks import folder


def run_cells(name: str, **parameters: Any) -> dict[str, Any]:
    """Run a notebook's code cells with parameters; value of each cell's last expression by the cell's id.

    Figures are drawn and closed. A cell that ends the notebook is the last one, with what it exits with.
    """
    notebook = nbformat.read(folder() / f"{name}.ipynb", as_version=4)
    space: dict[str, Any] = {}
    shown: dict[str, Any] = {}
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        try:
            shown[cell.id] = _value(cell.source, space, f"{name}, cell {cell.id}")
        except SystemExit as end:
            shown[cell.id] = end
            break
        finally:
            _draw()
        if "parameters" in cell.metadata.get("tags", []):
            assert set(parameters) <= set(space)
            space |= parameters
    return shown


def _value(source: str, space: dict[str, Any], name: str) -> Any:
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, name, "exec"), space)
    return eval(compile(ast.Expression(last.value), name, "eval"), space) if last is not None else None


def _draw() -> None:
    for number in plt.get_fignums():
        plt.figure(number).canvas.draw()
    plt.close("all")


def text(shown: dict[str, Any]) -> str:
    """All sentences, one a line."""
    return "\n".join(value.data for value in shown.values() if isinstance(getattr(value, "data", None), str))


def place(name: str) -> Path:
    """The notebook itself."""
    return folder() / f"{name}.ipynb"
