"""Publish executed notebooks as a site that needs no network: an index, and one page a notebook.

    executed notebook + manifest ── nbconvert (report/cells.html.j2) ──> cells
                                                                           │ headings, tables, figures made fit
                                                                           ▼
                                      report/notebook.html.j2, index.html.j2 ──> NAME.html, index.html

Every page is one file: style, script and figures stand in it. Nothing is requested from anywhere; what a notebook's
output would fetch (a remote image, a script) is replaced by a link or left out.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from labbench import markup
from labbench.manifest import read_manifest
from labbench.notebooks import NotebookError
from labbench.words import count

if TYPE_CHECKING:
    from bs4 import BeautifulSoup
    from nbformat import NotebookNode

SCRIPTS = ("script.js", "sort.js")  # of every page, run at its end
PROVENANCE_ORDER = ("measured", "imported", "simulated", "predicted")


@dataclass
class Page:
    """One notebook of the site, ready for its template."""

    file: str
    title: str
    summary: str = ""
    answer: str = ""
    body: Any = ""
    thumbnail: str | None = None
    contents: list[dict[str, Any]] = field(default_factory=list)
    failure: str | None = None
    failed_id: str | None = None
    meta: str = ""
    parameters: dict[str, str] = field(default_factory=dict)
    run: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    previous: Page | None = None
    next: Page | None = None


def publish(
    notebooks: Sequence[str | Path],
    site_dir: str | Path,
    *,
    title: str,
    headline: str,
    provenance: Mapping[str, int] | None = None,
) -> Path:
    """Write the site; returns the path of its ``index.html``.

    Parameters
    ----------
    notebooks : sequence of path
        Executed notebooks, in the order of the index. A manifest beside one says how it was run; one that failed is
        published up to the failing cell, and page and index say so.
    site_dir : path
        Folder of the site, made if it is not there. Pages are named after the notebooks.
    title : str
        The study's name.
    headline : str
        What the study found. The first sentence is set large; Markdown.
    provenance : mapping, optional
        How many results are ``measured``, ``imported``, ``simulated`` and ``predicted``: shown on every page.

    Notes
    -----
    In a notebook, the first heading is the page's title and the first sentence below it the summary on the index.
    The first sentence that a cell tagged ``answer`` prints, or displays as Markdown, is the answer there. The index
    shows the figure of the cell tagged ``thumbnail``, else the first. A figure's description is its cell's metadata
    ``alt``, else its ``caption``, else the heading that it stands under.

    Raises
    ------
    NotebookError
        If there is no notebook, one cannot be read, or two would get the same page.
    """
    paths = [Path(path) for path in notebooks]
    names = [path.stem for path in paths]
    if not paths:
        raise NotebookError("nothing to publish: no notebook was given")
    doubled = sorted({name for name in names if names.count(name) > 1 or name == "index"})
    if doubled:
        raise NotebookError(f"two pages of the site would be called {doubled[0]}.html; rename a notebook")
    pages = [_page(path) for path in paths]
    for before, after in itertools.pairwise(pages):
        before.next, after.previous = after, before

    first, _, rest = _sentence(markup.together(headline))
    counts = {kind: provenance[kind] for kind in PROVENANCE_ORDER if provenance and provenance.get(kind)}
    site = {
        "title": title,
        "headline": markup.inline(first),
        "lead": Markup(markup.markdown(rest)) if rest else "",
        "provenance": counts,
        "published": datetime.now(UTC).strftime("%-d %B %Y, %H:%M UTC"),
    }
    folder = Path(site_dir)
    folder.mkdir(parents=True, exist_ok=True)
    environment = _environment()
    for page in pages:
        html = environment.get_template("notebook.html.j2").render(site=site, page=page)
        (folder / page.file).write_text(html, encoding="utf-8")
    index = folder / "index.html"
    index.write_text(environment.get_template("index.html.j2").render(site=site, pages=pages), encoding="utf-8")
    return index


def publish_folder(
    folder: str | Path, site_dir: str | Path | None = None, *, title: str | None = None, headline: str | None = None
) -> Path:
    """Publish all executed notebooks of a folder, in the order of their names; as :func:`publish`.

    Parameters
    ----------
    folder : path
        Where :func:`labbench.notebooks.run`, ``labbench study`` or papermill left them.
    site_dir : path, optional
        Default: the folder's subfolder ``site``.
    title : str, optional
        Default: the folder's name.
    headline : str, optional
        Default: how many notebooks there are.

    Raises
    ------
    NotebookError
        If no notebook is there, or one was not executed.
    """
    folder = Path(folder)
    paths = sorted(folder.glob("*.ipynb"))
    if not paths:
        raise NotebookError(f"no notebook in {folder}; give the folder of executed ones, e.g. reports/study/notebooks")
    for path in paths:
        code = [cell for cell in _read(path).cells if cell.cell_type == "code"]
        if code and not any(cell.execution_count for cell in code):
            raise NotebookError(f"{path} was not executed; run it first (`labbench study`, papermill or JupyterLab)")
    headline = headline or f"{count(len(paths), 'notebook')}."
    return publish(paths, site_dir or folder / "site", title=title or folder.resolve().name, headline=headline)


def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from labbench import __version__

    environment = Environment(
        loader=FileSystemLoader(markup.TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.globals |= {
        "version": __version__,
        "style": Markup((markup.TEMPLATES / "style.css").read_text(encoding="utf-8")),
        "early_script": Markup((markup.TEMPLATES / "early.js").read_text(encoding="utf-8")),
        "script": Markup("\n".join((markup.TEMPLATES / name).read_text(encoding="utf-8") for name in SCRIPTS)),
    }
    return environment


# --- a notebook -------------------------------------------------------------------------------------------------------


def _page(path: Path) -> Page:
    """Read an executed notebook and make its page."""
    from bs4 import BeautifulSoup

    notebook = _read(path)
    manifest = read_manifest(path) or {}
    page = Page(file=f"{path.stem}.html", title=path.stem)
    page.failure = _failure(notebook, manifest)
    markup.tidy(notebook)
    soup = BeautifulSoup(markup.render(notebook), "html.parser")
    title, page.contents = markup.headings(soup)
    page.title = title or page.title
    markup.tables(soup, page.title)
    page.thumbnail = markup.figures(soup, notebook, page.title)
    markup.sentences(soup)
    markup.silent(soup)
    markup.nothing_fetched(soup)
    markup.numbers(soup)
    failed = soup.select_one(".cell .failure")
    if failed is not None:
        failed["id"] = page.failed_id = "failure"
    first = soup.select_one(".prose:not(.finding) > p")
    page.summary = markup.together(_sentence(markup.plain_text(first))[0]) if first else ""
    page.answer = _answer(soup)
    page.body = Markup(str(soup))
    _facts(page, notebook, manifest)
    return page


def _read(path: Path) -> NotebookNode:
    import nbformat

    try:
        return nbformat.read(path, as_version=4)
    except FileNotFoundError:
        raise NotebookError(f"no notebook {path}") from None
    except nbformat.reader.NotJSONError:
        raise NotebookError(f"{path} is not a notebook") from None


def _failure(notebook: NotebookNode, manifest: Mapping[str, Any]) -> str | None:
    """Why the notebook did not run to its end; ``None`` if it did."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "error" and output.ename != "SystemExit":
                return f"{output.ename}: {output.evalue}".strip(": ")
    status = manifest.get("status", "ok")
    return None if status == "ok" else manifest.get("error") or f"the run is {status}"


# --- words and facts --------------------------------------------------------------------------------------------------


def _sentence(text: str) -> tuple[str, str, str]:
    """First sentence, the space after it, and the rest."""
    found = re.match(r"(.+?[.!?][*_)”\"']*)(\s+|$)(?=[A-Z0-9*_`“\"(]|$)", text.strip(), re.S)
    return (found[1], found[2], text.strip()[found.end() :]) if found else (text.strip(), "", "")


def _answer(soup: BeautifulSoup) -> str:
    """First sentence that the cell tagged ``answer`` displays or prints."""
    said = soup.select_one(".cell.answer .finding")
    return markup.together(_sentence(markup.plain_text(said))[0]) if said else ""


def _facts(page: Page, notebook: NotebookNode, manifest: Mapping[str, Any]) -> None:
    """Parameters, run and environment, for the collapsible part."""
    given = manifest.get("parameters") or notebook.metadata.get("papermill", {}).get("parameters", {})
    page.parameters = {
        str(name): value if isinstance(value, str) else json.dumps(value) for name, value in given.items()
    }
    names = {
        "notebook_sha256": "notebook, SHA-256",
        "started": "started",
        "ended": "ended",
        "kernel": "kernel",
        "labbench": "labbench",
        "labbench_sha256": "labbench source, SHA-256",
    }
    page.run = {label: str(manifest[key]) for key, label in names.items() if manifest.get(key)}
    page.run |= {f"read {Path(name).name}, SHA-256": digest for name, digest in manifest.get("inputs", {}).items()}
    page.environment = {str(name): str(value) for name, value in manifest.get("environment", {}).items()}
    if manifest.get("started"):
        day = datetime.fromisoformat(manifest["started"]).strftime("%-d %B %Y")
        page.meta = f"run {day}" + (f" in {manifest['duration_s']:.0f} s" if "duration_s" in manifest else "")
