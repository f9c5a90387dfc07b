"""The commands that make reports: the whole study, and the publication of executed notebooks."""

from __future__ import annotations

from typing import Any

from labbench.cli_store import Command, Option


def add(command: Command, store: Option) -> None:
    """Add the commands; ``store`` adds the option ``--store``."""
    study = command(
        "study",
        _study,
        "measure, compare, predict and select, and publish the executed notebooks as an offline site",
        "labbench study --output reports/laptop",
    )
    study.add_argument(
        "--config", metavar="FILE", help="a benchmark_config.json (default: the one beside the notebooks)"
    )
    study.add_argument("--output", default="reports/study", metavar="FOLDER", help="default: %(default)s")
    study.add_argument(
        "--kernel", choices=("fork", "fresh"), default="fork", help="how kernels start (default: %(default)s)"
    )
    study.add_argument("--training", action="store_true", help="measure training steps and tune training too")
    study.add_argument("--pdf", action="store_true", help="print each page as PDF too (needs Chromium or Chrome)")
    store(study)

    publish = command(
        "publish",
        _publish,
        "publish a folder of executed notebooks as an offline site, and as PDF if asked",
        "labbench publish reports/study/notebooks --output reports/site --pdf",
    )
    publish.add_argument("folder", metavar="FOLDER", help="with the executed notebooks")
    publish.add_argument("--output", metavar="FOLDER", help="of the site (default: FOLDER/site)")
    publish.add_argument("--title", help="of the site (default: the folder's name)")
    publish.add_argument("--headline", help="what it found; Markdown (default: how many notebooks there are)")
    publish.add_argument("--pdf", action="store_true", help="print each page as PDF too (needs Chromium or Chrome)")


def _study(options: Any) -> int:
    from labbench.study import run_study

    index = run_study(
        config=options.config,
        store=options.store,
        output=options.output,
        kernel=options.kernel,
        pdf=options.pdf,
        training=options.training,
    )
    print(index)
    return 0


def _publish(options: Any) -> int:
    from labbench.pdf import browser, print_site
    from labbench.publish import publish_folder

    if options.pdf:
        browser()  # refused before anything is written
    index = publish_folder(options.folder, options.output, title=options.title, headline=options.headline)
    for path in [index, *(print_site(index.parent) if options.pdf else [])]:
        print(path)
    return 0
