"""Run notebooks unattended, with papermill: checked parameters, a manifest of what happened, nothing run twice.

    notebook + parameters + input files ── run() ──> executed notebook + manifest
                                            │
                          chain(): a step whose manifest shows that nothing changed is skipped

The manifest (``NAME.manifest.json`` beside ``NAME.ipynb``) is ours because the executed notebook cannot be trusted
after a time-out or a dead kernel: papermill then marks cells as completed that never finished.
"""

from __future__ import annotations

import importlib
import math
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from labbench.config import ConfigError, unknown_name
from labbench.manifest import (
    MANIFEST_VERSION,
    environment,
    manifest_path,
    read_manifest,
    sha256,
    source_sha256,
    write_json,
)

if TYPE_CHECKING:
    from nbformat import NotebookNode

    from labbench.kernels import KernelKind

RunStatus = Literal["running", "ok", "failed", "interrupted"]

KERNEL_START_TIMEOUT_S = 300  # papermill's 60 s are too few for a cold machine whose cores are busy measuring
KERNEL_ARGUMENTS = [
    "--InlineBackend.figure_formats=svg",  # sharp at every size; a notebook may choose otherwise
    "--InteractiveShellApp.extra_extensions=labbench.kernels",  # progress bars as text
]
SOURCE_EXCERPT = 200  # characters of a failing cell that its manifest quotes


class NotebookError(RuntimeError):
    """A notebook that could not be found, or did not run to its end."""


@dataclass(frozen=True)
class Step:
    """One notebook of a chain.

    Attributes
    ----------
    notebook : Path
        What to run.
    output : Path
        Where the executed notebook goes; its manifest goes beside it.
    parameters : Mapping
        Values for names defined in the cell tagged ``parameters``.
    inputs : Sequence[Path]
        Files that the notebook reads: if one changes, the step runs again.
    produces : Sequence[Path]
        Files that the notebook leaves besides its output: if one is missing, the step runs again.
    """

    notebook: Path
    output: Path
    parameters: Mapping[str, Any] = field(default_factory=dict)
    inputs: Sequence[Path] = ()
    produces: Sequence[Path] = ()


@dataclass(frozen=True)
class RunResult:
    """What came of a notebook.

    Attributes
    ----------
    status : str
        ``ok`` or ``failed``; an interrupted run raises :class:`KeyboardInterrupt` and leaves a manifest.
    skipped : bool
        The output of an earlier run was still valid, and was kept.
    duration_s : float
        Wall time of the run, seconds; of the earlier one for a skipped step.
    failed_cell : int or None
        Index of the failing cell in the input notebook, counted from 0; ``None`` if no cell was to blame.
    error : str or None
        Name and text of the error.
    """

    notebook: Path
    output: Path
    manifest: Path
    status: RunStatus
    duration_s: float
    kernel: str
    skipped: bool = False
    failed_cell: int | None = None
    error: str | None = None

    def check(self) -> RunResult:
        """The result itself if the notebook ran to its end; raises :class:`NotebookError` if not."""
        if self.status == "ok":
            return self
        where = "" if self.failed_cell is None else f" in cell {self.failed_cell + 1}"
        raise NotebookError(f"{self.notebook.name} failed{where}: {self.error}; see {self.output}")

    def __str__(self) -> str:
        verdict = "unchanged" if self.skipped else self.status
        end = f" ({self.error})" if self.error else ""
        return f"{self.notebook.stem}  {verdict}  {self.duration_s:.1f} s{end}"


def folder() -> Path:
    """The folder of labbench's notebooks: ``$LABBENCH_NOTEBOOKS``, a checkout's, or ``./notebooks``.

    Raises
    ------
    NotebookError
        If none of them holds a notebook.
    """
    named = os.environ.get("LABBENCH_NOTEBOOKS")
    places = [Path(named)] if named else [Path(__file__).resolve().parents[1] / "notebooks", Path.cwd() / "notebooks"]
    for place in places:
        if any(place.glob("*.ipynb")):
            return place.resolve()
    looked = " and ".join(str(place) for place in places)
    raise NotebookError(f"no notebooks in {looked}; set LABBENCH_NOTEBOOKS to the folder that holds them")


def run(
    notebook: str | Path,
    output: str | Path,
    parameters: Mapping[str, Any] | None = None,
    *,
    inputs: Iterable[str | Path] = (),
    kernel: KernelKind = "fork",
    timeout_s: float | None = None,
    progress: bool = True,
) -> RunResult:
    """Execute a notebook with parameters; write the executed notebook and its manifest.

    The notebook runs in its own folder, as it does in JupyterLab. A failing cell does not raise: the result, the
    manifest and the output say what happened (:meth:`RunResult.check` raises).

    Parameters
    ----------
    notebook, output : path
        Input notebook, and where the executed one goes.
    parameters : mapping, optional
        JSON values, or what can become one without loss (NumPy scalars, tuples, dates, paths).
    inputs : iterable of path
        Files that the notebook reads; their hashes go into the manifest.
    kernel : {"fork", "fresh"}
        Fork the kernel from a server that imported the usual libraries once, or start an ordinary one.
    timeout_s : float, optional
        Seconds a single cell may take; no limit by default.
    progress : bool
        A live bar in a session and one line when done; only the line in batch; nothing if false.

    Raises
    ------
    ConfigError
        For a parameter that the notebook does not have or that no JSON value can stand for.
    NotebookError
        If the notebook or an input file does not exist.
    """
    step = Step(Path(notebook).resolve(), Path(output).resolve(), parameters or {}, [Path(item) for item in inputs])
    return _execute(_plan(step), kernel, timeout_s, progress)


def chain(
    steps: Iterable[Step],
    *,
    kernel: KernelKind = "fork",
    timeout_s: float | None = None,
    progress: bool = True,
    rerun: bool = False,
) -> list[RunResult]:
    """Run notebooks in order, each skipped if nothing it depends on changed; stop after one that fails.

    Nothing changed: same notebook, parameters, input files and labbench source, and the output still is what the
    manifest says. All parameters are checked before the first notebook runs. See :func:`run` for the arguments;
    ``rerun`` skips nothing.

    Returns
    -------
    list of RunResult
        One for each step that was run or skipped: fewer than ``steps`` if one failed.
    """
    steps = [
        Step(Path(s.notebook).resolve(), Path(s.output).resolve(), s.parameters, list(s.inputs), list(s.produces))
        for s in steps
    ]
    for step in steps:
        _checked_parameters(step)
    results: list[RunResult] = []
    for step in steps:
        plan = _plan(step)  # only now: an earlier step may have written an input
        result = None if rerun else _kept(step, plan)
        if result is None:
            result = _execute(plan, kernel, timeout_s, progress)
        elif progress:
            print(result, file=sys.stderr)
        results.append(result)
        if result.status != "ok":
            break
    return results


# --- before -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Plan:
    step: Step
    request: dict[str, Any]  # what the result depends on, the first part of the manifest


def _plan(step: Step) -> _Plan:
    from labbench import __version__

    missing = [str(path) for path in step.inputs if not Path(path).exists()]
    if missing:
        raise NotebookError(f"{step.notebook.name} needs {', '.join(missing)}, which does not exist")
    parameters = _checked_parameters(step)
    request = {
        "version": MANIFEST_VERSION,
        "notebook": str(step.notebook),
        "notebook_sha256": sha256(step.notebook),
        "parameters": parameters,
        "inputs": {str(Path(path).resolve()): sha256(Path(path)) for path in step.inputs},
        "labbench": __version__,
        "labbench_sha256": source_sha256(),
    }
    return _Plan(step, request)


def _checked_parameters(step: Step) -> dict[str, Any]:
    """Parameters as JSON values, each known to the notebook."""
    papermill = _load_papermill()
    if not step.notebook.is_file():
        raise NotebookError(f"no notebook {step.notebook}")
    known = papermill.inspect_notebook(_literal(step.notebook))
    for name in step.parameters:
        if name not in known:
            raise unknown_name(f"parameter of {step.notebook.name}", name, known)
    return {name: json_value(value, f"parameter {name}") for name, value in step.parameters.items()}


def json_value(value: Any, place: str = "value") -> Any:
    """``value`` as papermill can hand it on: a JSON value, the same after a round trip.

    NumPy scalars become numbers, tuples lists, dates ISO 8601 text, and paths absolute text (a notebook runs in its
    own folder).

    Raises
    ------
    ConfigError
        For anything else, with ``place`` and the reason.
    """
    numpy = sys.modules.get("numpy")  # if nobody imported it, the value is none of its types
    if numpy is not None and isinstance(value, (numpy.bool_, numpy.number)):
        value = value.item()
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ConfigError(f"{place}: {value} is not a JSON value; use null for 'none'")
        return float(value)
    if isinstance(value, Path):
        return str(value.absolute())
    if isinstance(value, date):  # datetime and pandas.Timestamp are dates
        return value.isoformat()
    if isinstance(value, (list, tuple)):
        return [json_value(item, f"{place}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, Mapping):
        wrong = [key for key in value if not isinstance(key, str)]
        if wrong:
            raise ConfigError(f"{place}: key {wrong[0]!r} is not text, so it would not survive as JSON")
        return {key: json_value(item, f"{place}.{key}") for key, item in value.items()}
    raise ConfigError(f"{place}: a {type(value).__name__} cannot be passed to a notebook; pass a file's path instead")


def _kept(step: Step, plan: _Plan) -> RunResult | None:
    """The earlier result if it still holds."""
    manifest = read_manifest(step.output)
    if manifest is None or manifest["status"] != "ok":
        return None
    if any(manifest.get(key) != value for key, value in plan.request.items()):
        return None
    if not step.output.is_file() or sha256(step.output) != manifest["output_sha256"]:
        return None
    if not all(Path(path).exists() for path in step.produces):
        return None
    return RunResult(
        step.notebook,
        step.output,
        manifest_path(step.output),
        "ok",
        manifest["duration_s"],
        manifest["kernel"],
        skipped=True,
    )


# --- the run ----------------------------------------------------------------------------------------------------------


def _execute(plan: _Plan, kernel: KernelKind, timeout_s: float | None, progress: bool) -> RunResult:
    from labbench import kernels

    step = plan.step
    path = manifest_path(step.output)
    step.output.parent.mkdir(parents=True, exist_ok=True)
    step.output.unlink(missing_ok=True)
    manager_class, kernel = kernels.manager(kernel)
    manifest = {**plan.request, "output": str(step.output), "kernel": kernel, "started": _now()}
    manifest["environment"] = environment()
    write_json(path, {**manifest, "status": "running"})
    began = time.perf_counter()

    def finish(status: RunStatus, failed_cell: int | None = None, error: str | None = None) -> RunResult:
        duration_s = round(time.perf_counter() - began, 3)
        ended: dict[str, Any] = {"status": status, "ended": _now(), "duration_s": duration_s}
        if step.output.is_file():
            ended["output_sha256"] = sha256(step.output)
        if error is not None:
            ended |= {"error": error, "failed_cell": failed_cell, "failed_source": _source(step.notebook, failed_cell)}
        write_json(path, {**manifest, **ended})
        return RunResult(
            step.notebook, step.output, path, status, duration_s, kernel, failed_cell=failed_cell, error=error
        )

    try:
        failure = _papermill(step, plan.request["parameters"], manager_class, timeout_s, progress)
    except KeyboardInterrupt:
        finish("interrupted", *_blame(step.output, "KeyboardInterrupt: interrupted by the user"))
        raise
    result = finish("ok") if failure is None else finish("failed", *failure)
    if progress:
        print(result, file=sys.stderr)
    return result


def _papermill(
    step: Step, parameters: dict[str, Any], manager_class: type, timeout_s: float | None, progress: bool
) -> tuple[int | None, str] | None:
    """Execute; ``None`` if all went well, else the failing cell and the error."""
    papermill = _load_papermill()
    from nbclient.exceptions import CellTimeoutError, DeadKernelError

    from labbench import engine

    bar = {"desc": step.notebook.stem, "leave": False, "dynamic_ncols": True} if progress and _in_session() else False
    try:
        papermill.execute_notebook(
            _literal(step.notebook),
            _literal(step.output),
            parameters,
            engine_name=engine.NAME,
            progress_bar=bar,
            kernel_name="python3",
            start_timeout=KERNEL_START_TIMEOUT_S,
            execution_timeout=timeout_s,
            kernel_manager_class=manager_class,
            extra_arguments=list(KERNEL_ARGUMENTS),
            coalesce_streams=True,  # of a progress bar only its last state stays
            resources={"metadata": {"path": str(step.notebook.parent)}},  # not papermill's cwd, which moves us too
        )
    except papermill.PapermillExecutionError as error:
        injected = _injected_before(step.output, error.cell_index)
        return error.cell_index - injected, f"{error.ename}: {error.evalue}".strip()
    except CellTimeoutError:
        return _blame(step.output, f"TimeoutError: the cell took more than {timeout_s:g} s")
    except DeadKernelError:
        return _blame(step.output, "DeadKernelError: the kernel died (killed, out of memory, or crashed)")
    except RuntimeError as error:  # the kernel did not start, or its connection broke
        return _blame(step.output, f"{type(error).__name__}: {error}")
    return None


def _load_papermill() -> ModuleType:
    """papermill, without the grammar of IRIs that jsonschema's optional format check compiles when it is imported.

    That takes twice as long as all the rest of papermill, and no schema of a notebook asks for the check.
    """
    grammar = "rfc3987_syntax"
    skip = not {grammar, "jsonschema"} & sys.modules.keys()
    if skip:
        sys.modules[grammar] = None  # type: ignore[assignment]  # documented: importing it raises ImportError
    try:
        return importlib.import_module("papermill")
    finally:
        if skip:
            del sys.modules[grammar]


def _in_session() -> bool:
    """Whether someone is watching: a terminal, or a notebook."""
    ipython = sys.modules.get("IPython")
    return sys.stderr.isatty() or (ipython is not None and ipython.get_ipython() is not None)


def _literal(path: Path) -> str:
    """A path that papermill, which formats paths, leaves as it is."""
    return str(path).replace("{", "{{").replace("}", "}}")


# --- afterwards -------------------------------------------------------------------------------------------------------


def _blame(output: Path, error: str) -> tuple[int | None, str]:
    """Find the cell that was running when the kernel was lost, and write the error below it."""
    import nbformat

    if not output.is_file():
        return None, error
    notebook = nbformat.read(output, as_version=4)
    started = [
        index
        for index, cell in enumerate(notebook.cells)
        if cell.cell_type == "code" and cell.metadata.get("papermill", {}).get("start_time")
    ]
    if not started:
        return None, error
    name, _, text = error.partition(": ")
    lost = notebook.cells[started[-1]]
    lost.outputs.append(nbformat.v4.new_output("error", ename=name, evalue=text, traceback=[error]))
    lost.metadata.papermill["status"] = "failed"
    nbformat.write(notebook, output)
    return started[-1] - _injected(notebook, started[-1]), error


def _injected_before(output: Path, index: int) -> int:
    import nbformat

    return _injected(nbformat.read(output, as_version=4), index + 2)  # papermill added two cells above the error


def _injected(notebook: NotebookNode, index: int) -> int:
    """How many cells papermill put before this one: none, or the one with the parameters."""
    return sum("injected-parameters" in cell.metadata.get("tags", []) for cell in notebook.cells[:index])


def _source(notebook: Path, index: int | None) -> str | None:
    import nbformat

    if index is None:
        return None
    source: str = nbformat.read(notebook, as_version=4).cells[index].source
    return source[:SOURCE_EXCERPT]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
