"""CPU time of a chain of notebooks: labbench's forked kernels against the plain papermill command line.

    python benchmarks/notebooks.py                                     four made notebooks that import and plot
    python benchmarks/notebooks.py --folder notebooks --parameters '{"store_path": "/tmp/study.h5"}'

The two run alternately, ``--repeats`` times each. What is counted is user + system time of the whole process tree, as
the operating system gives it when the tree's root is waited for: the process that runs the chain, the server that
forks kernels with its imports, and every kernel.

A parameter goes to each notebook that has it; {"01_collect": {"config_path": "..."}} goes to that one only. For the
study's own notebooks give a store that holds all of the study's cells already (``make study``), so that 01_collect
has nothing to measure and the notebooks, not the measurements, are compared. An untimed first run fills the user's
caches (ceilings, footprints), which both sides then read.

Goal: a ratio of at most 1/3. Exit status 1 if it is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

GOAL = 1 / 3

FORKED = """
import json, sys
from pathlib import Path
from labbench.notebooks import Step, chain
steps = [Step(Path(source), Path(output), parameters) for source, output, parameters in json.loads(sys.argv[1])]
for result in chain(steps, kernel=sys.argv[2], progress=False):
    result.check()
"""

IMPORTS = "import matplotlib.pyplot as plt\nimport numpy as np\nimport pandas as pd\nimport seaborn as sns"
DATA = """rng = np.random.default_rng(seed)
table = pd.DataFrame({"x": rng.normal(size=200), "y": rng.normal(size=200), "kind": rng.choice(["a", "b", "c"], 200)})
table.describe()"""
PLOTS = (
    "sns.scatterplot(table, x='x', y='y', hue='kind')\nplt.show()",
    "sns.boxplot(table, x='kind', y='y')\nplt.show()",
    "sns.histplot(table, x='x', hue='kind')\nplt.show()",
    "sns.heatmap(table[['x', 'y']].corr(), annot=True)\nplt.show()",
)

Job = tuple[str, str, dict[str, Any]]  # notebook, output, parameters


def make_notebooks(folder: Path) -> list[Path]:
    """Four notebooks that do what those of a report do: import, read a table, plot."""
    import nbformat
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

    paths = []
    for number, plot in enumerate(PLOTS, start=1):
        cells = [
            new_markdown_cell(f"# Notebook {number}"),
            new_code_cell("seed = 0", metadata={"tags": ["parameters"]}),
            *map(new_code_cell, (IMPORTS, DATA, plot)),
        ]
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        paths.append(folder / f"0{number}_made.ipynb")
        nbformat.write(new_notebook(cells=cells, metadata=kernel), paths[-1])
    return paths


def jobs(notebooks: list[Path], output: Path, parameters: dict[str, Any]) -> list[Job]:
    """Each notebook with those of the parameters that it has, and those given under its name."""
    import papermill

    output.mkdir(exist_ok=True)
    known = {path: papermill.inspect_notebook(str(path)) for path in notebooks}
    return [
        (
            str(path),
            str(output / path.name),
            {name: value for name, value in parameters.items() if name in known[path]} | parameters.get(path.stem, {}),
        )
        for path in notebooks
    ]


def cpu_seconds(command: list[str], cwd: Path) -> float:
    """User + system seconds of a command and every descendant that was waited for."""
    process = subprocess.Popen(command, cwd=cwd, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"status {process.returncode}: {' '.join(command)[:300]}")
    return usage.ru_utime + usage.ru_stime


def labbench_cpu(work: list[Job], kernel: str) -> float:
    """A fresh chain: outputs and manifests of the last one are removed first."""
    for _, output, _ in work:
        Path(output).with_suffix(".manifest.json").unlink(missing_ok=True)
    return cpu_seconds([sys.executable, "-c", FORKED, json.dumps(work), kernel], Path.cwd())


def papermill_cpu(work: list[Job]) -> float:
    """The plain command line, once a notebook, each in its own folder."""
    total = 0.0
    for source, output, parameters in work:
        command = [sys.executable, "-m", "papermill", "--no-progress-bar", "--log-level", "ERROR", source, output]
        if parameters:
            command += ["-y", json.dumps(parameters)]  # JSON is YAML
        total += cpu_seconds(command, Path(source).parent)
    return total


def line(name: str, values: list[float]) -> str:
    """Median and spread, for people."""
    return f"{name:<28} {statistics.median(values):7.2f} s   from {min(values):.2f} to {max(values):.2f} s"


def main() -> int:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--folder", type=Path, help="notebooks to run, in the order of their names (default: made ones)"
    )
    parser.add_argument("--parameters", type=json.loads, default={}, metavar="JSON", help="values for all notebooks")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each (default: %(default)s)")
    parser.add_argument("--fresh", action="store_true", help="also run labbench with ordinary kernels")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        notebooks = sorted(options.folder.resolve().glob("*.ipynb")) if options.folder else make_notebooks(scratch)
        if not notebooks:
            raise SystemExit(f"no notebooks in {options.folder}")
        work = jobs(notebooks, scratch / "out", options.parameters)
        print(
            f"{len(work)} notebooks: {', '.join(path.stem for path in notebooks)}; CPU seconds of whole process trees"
        )
        labbench_cpu(work, "fork")  # untimed: file caches and compiled modules, for both alike
        times: dict[str, list[float]] = {"papermill command line": [], "labbench, forked kernels": []}
        if options.fresh:
            times["labbench, ordinary kernels"] = []
        for _ in range(options.repeats):
            times["papermill command line"].append(papermill_cpu(work))
            times["labbench, forked kernels"].append(labbench_cpu(work, "fork"))
            if options.fresh:
                times["labbench, ordinary kernels"].append(labbench_cpu(work, "fresh"))
    for label, values in times.items():
        print(line(label, values))
    plain, forked = times["papermill command line"], times["labbench, forked kernels"]
    ratio = statistics.median(forked) / statistics.median(plain)
    pairs = [ours / theirs for ours, theirs in zip(forked, plain, strict=True)]
    verdict = "met" if ratio <= GOAL else "missed"
    print(f"ratio {ratio:.3f} (pairs {min(pairs):.3f} to {max(pairs):.3f}); goal at most {GOAL:.3f}: {verdict}")
    return 0 if ratio <= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
