"""The whole study: run the notebooks in order and publish them as an offline site."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labbench.kernels import KernelKind

NOTEBOOKS = (
    "01_collect",
    "02_compare",
    "03_predict",
    "04_select",
    "05_model_profile",
    "05_platform_profile",
    "06_history",
)
TRAINING_NOTEBOOKS = ("07_training", "08_tune_training")  # measure much more: only if asked for
CLOSING_NOTEBOOKS = ("09_measure_next", "10_load_switching", "14_fleet")
CLUSTER_NOTEBOOKS = ("11_distributed", "12_cluster_plan")  # of training on many devices: run by hand
BROWSER_NOTEBOOKS = ("13_web_audio",)  # in browsers, which are not everywhere: run by hand

PROCESS_STDERR = Path(f"/proc/{os.getpid()}/fd/2")


@contextlib.contextmanager
def _progress_on_this_terminal() -> Iterator[None]:
    """Let the campaign inside the first notebook show its progress here, not in the report (Linux)."""
    from labbench.campaign import PROGRESS_VARIABLE

    if not PROCESS_STDERR.exists():
        yield
        return
    os.environ[PROGRESS_VARIABLE] = str(PROCESS_STDERR)
    try:
        yield
    finally:
        del os.environ[PROGRESS_VARIABLE]


def _provenance(store: Path) -> dict[str, int]:
    """How many records of each provenance the study rests on."""
    from labbench.store import Store

    if not store.exists():
        return {}
    table = Store(store).latest(primary=True)
    return {str(kind): int(count) for kind, count in table["provenance"].value_counts().items()}


def run_study(
    config: str | Path | None = None,
    store: str | Path = "data/study.h5",
    output: str | Path = "reports/study",
    kernel: KernelKind = "fork",
    *,
    pdf: bool = False,
    training: bool = False,
) -> Path:
    """Measure, compare, predict and select by running the notebooks, then publish them.

    Parameters
    ----------
    config : path, optional
        A ``benchmark_config.json``; default: the one beside the notebooks.
    store : path
        The database that the notebooks share; what it holds and is still valid is not measured again.
    output : path
        Folder of the site; executed notebooks go to its ``notebooks`` subfolder.
    kernel : {'fork', 'fresh'}
        How kernels start.
    pdf : bool
        Print each page as PDF too, beside it.
    training : bool
        Measure training steps and tune training too (``training_config.json`` beside the notebooks).

    Returns
    -------
    pathlib.Path
        The site's ``index.html``.

    Raises
    ------
    ConfigError
        If the configuration is not valid: before anything runs.
    NotebookError
        If a notebook failed; the site is published all the same and shows where. If PDF is wanted and no browser is
        installed: before anything runs.
    """
    from labbench.campaign import BenchmarkConfig
    from labbench.config import read
    from labbench.notebooks import NotebookError, Step, chain, folder
    from labbench.pdf import browser, print_site
    from labbench.publish import publish
    from labbench.selection import study_headline

    if pdf:
        browser()
    source = folder()
    config = Path(config or source / "config" / "benchmark_config.json").resolve()
    read(BenchmarkConfig, config).cells()
    of_training = source / "config" / "training_config.json"
    if training:
        from labbench.tuning.config import TrainingConfig

        read(TrainingConfig, of_training).cells()
    site, store = Path(output).resolve(), Path(store).resolve()
    configs = {"01_collect": config, **dict.fromkeys(TRAINING_NOTEBOOKS, of_training)}
    shared: dict[str, Any] = {"store_path": str(store)}
    steps = [
        Step(
            notebook=source / f"{name}.ipynb",
            output=site / "notebooks" / f"{name}.ipynb",
            parameters=shared | ({"config_path": str(configs[name])} if name in configs else {}),
            inputs=[configs[name]] if name in configs else [store],
            produces=[store] if name in configs else [],
        )
        for name in (*NOTEBOOKS, *(TRAINING_NOTEBOOKS if training else ()), *CLOSING_NOTEBOOKS)
    ]
    with _progress_on_this_terminal():
        results = chain(steps, kernel=kernel)
    headline = study_headline(store) if store.exists() else "Nothing was measured."
    done = [step.output for step in steps if step.output.exists()]
    index = publish(done, site, title="labbench study", headline=headline, provenance=_provenance(store))
    if pdf:
        print_site(site)
    failed = [result for result in results if result.status != "ok"]
    if failed:
        raise NotebookError(f"{failed[0]}; the report up to there is {index}")
    return index
