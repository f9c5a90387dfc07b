"""Publish executed notebooks as a site that needs no network: an index, and one page a notebook.

    executed notebook + manifest ── nbconvert (report/cells.html.j2) ──> cells
                                                                           │ headings, tables, figures made fit
                                                                           ▼
                                      report/notebook.html.j2, index.html.j2 ──> NAME.html, index.html

Every page is one file: style, script and figures stand in it. Nothing is requested from anywhere; what a notebook's
output would fetch (a remote image, a script) is replaced by a link or left out.
"""

from __future__ import annotations

import base64
import io
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labbench.notebooks import NotebookError, read_manifest

if TYPE_CHECKING:
    from bs4 import BeautifulSoup, Tag
    from nbformat import NotebookNode

TEMPLATES = Path(__file__).parent / "report"
PROVENANCE_ORDER = ("measured", "imported", "simulated", "predicted")
FETCHING = ("script", "link", "iframe", "object", "embed", "video", "audio", "source")  # elements with an address
LONG_CELL = 40  # characters of text above which a table's cell gets room to wrap
NUMBER = re.compile(r"^[+\-−]?[\d.,\s]*\d(\.\d*)?([eE][+\-]?\d+)?\s?[%×x]?$|^(nan|NaN|inf|–|—)$")
PLOT_REPR = re.compile(
    r"^(\[?<(Axes|Figure|matplotlib|seaborn)\b.*>\]?|Text\(.*\)|<[\w.]*(FacetGrid|JointGrid)[^>]*>)$", re.S
)
POINTS_TO_PIXELS = 96 / 72


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
    In a notebook, the first heading is the page's title and the first sentence below it the summary on the index;
    the first sentence that a cell tagged ``answer`` displays is the answer there. The index shows the figure of the
    cell tagged ``thumbnail``, else the first. A figure's description is its cell's metadata ``alt``, else the
    heading that it stands under.

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

    first, _, rest = _sentence(headline)
    counts = {kind: provenance[kind] for kind in PROVENANCE_ORDER if provenance and provenance.get(kind)}
    site = {
        "title": title,
        "headline": _inline(first),
        "lead": _markup(_markdown(rest)) if rest else "",
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


def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from labbench import __version__

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.globals |= {
        "version": __version__,
        "style": _markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),
        "early_script": _markup((TEMPLATES / "early.js").read_text(encoding="utf-8")),
        "script": _markup((TEMPLATES / "script.js").read_text(encoding="utf-8")),
    }
    return environment


def _markup(html: str) -> Any:
    from markupsafe import Markup

    return Markup(html)


# --- a notebook -------------------------------------------------------------------------------------------------------


def _page(path: Path) -> Page:
    """Read an executed notebook and make its page."""
    import nbformat
    from bs4 import BeautifulSoup

    try:
        notebook = nbformat.read(path, as_version=4)
    except FileNotFoundError:
        raise NotebookError(f"no notebook {path}") from None
    except nbformat.reader.NotJSONError:
        raise NotebookError(f"{path} is not a notebook") from None
    manifest = read_manifest(path) or {}
    page = Page(file=f"{path.stem}.html", title=path.stem)
    page.failure = _failure(notebook, manifest)
    _tidy(notebook)
    soup = BeautifulSoup(_cells(notebook), "html.parser")
    _headings(soup, page)
    _tables(soup)
    _figures(soup, notebook, page)
    _nothing_fetched(soup)
    failed = soup.select_one(".cell .failure")
    if failed is not None:
        failed["id"] = page.failed_id = "failure"
    first = soup.select_one(".prose:not(.finding) > p")
    page.summary = _sentence(first.get_text(" ", strip=True))[0] if first else ""
    page.answer = _answer(notebook)
    page.body = _markup(str(soup))
    _facts(page, notebook, manifest)
    return page


def _failure(notebook: NotebookNode, manifest: Mapping[str, Any]) -> str | None:
    """Why the notebook did not run to its end; ``None`` if it did."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "error" and output.ename != "SystemExit":
                return f"{output.ename}: {output.evalue}".strip(": ")
    status = manifest.get("status", "ok")
    return None if status == "ok" else manifest.get("error") or f"the run is {status}"


def _tidy(notebook: NotebookNode) -> None:
    """Drop what is no result: papermill's error banners, plots' reprs, all but the last state of a progress bar."""
    notebook.cells = [
        cell for cell in notebook.cells if "papermill-error-cell-tag" not in cell.metadata.get("tags", [])
    ]
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        cell.outputs = [output for output in cell.outputs if not _is_plot_repr(output)]
        for output in cell.outputs:
            if output.output_type == "stream":
                output.text = _last_states(output.text)


def _last_states(text: str) -> str:
    """Text as a terminal leaves it: a carriage return overwrites its line."""
    return "\n".join(line.rstrip("\r").rsplit("\r", 1)[-1] for line in text.split("\n"))


def _is_plot_repr(output: NotebookNode) -> bool:
    data = output.get("data", {})
    return (
        output.output_type == "execute_result"
        and set(data) == {"text/plain"}
        and PLOT_REPR.match(data["text/plain"].strip()) is not None
    )


def _cells(notebook: NotebookNode) -> str:
    from nbconvert import HTMLExporter
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

    class Renderer(IPythonRenderer):
        def inline_math(self, body: str) -> str:
            return _math(body, "span")

        def block_math(self, body: str) -> str:
            return _math(body, "div")

    exporter = HTMLExporter(template_file=str(TEMPLATES / "cells.html.j2"))
    exporter.register_filter(
        "markdown2html", MarkdownWithMath(renderer=Renderer(escape=False, exclude_anchor_links=True)).render
    )
    return str(exporter.from_notebook_node(notebook)[0])


def _math(tex: str, element: str) -> str:
    """A formula as SVG, by matplotlib, which needs no network; one that it cannot set is shown as TeX."""
    from html import escape

    from matplotlib import rc_context
    from matplotlib.font_manager import FontProperties
    from matplotlib.mathtext import math_to_image

    buffer = io.StringIO()
    kind = "math block" if element == "div" else "math"
    try:
        with rc_context({"mathtext.fontset": "stix", "svg.hashsalt": "labbench"}):
            size = 14 if element == "div" else 12.5
            depth = math_to_image(f"${tex.strip()}$", buffer, prop=FontProperties(size=size), dpi=72, format="svg")
    except ValueError:
        return f'<{element} class="{kind}"><code>{escape(tex)}</code></{element}>'
    svg = buffer.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.S)
    svg = svg.replace("<svg ", '<svg fill="currentColor" aria-hidden="true" ', 1)
    label = f'role="img" aria-label="{escape(tex.strip())}" style="--depth: {-depth * POINTS_TO_PIXELS:.1f}px"'
    return f'<{element} class="{kind}" {label}>{svg}</{element}>'


# --- making the cells fit ---------------------------------------------------------------------------------------------


def _headings(soup: BeautifulSoup, page: Page) -> None:
    """Take the title out, close gaps in the levels, give each heading an id, list them."""
    headings = soup.find_all(re.compile(r"^h[1-6]$"))
    if headings and headings[0].name == "h1":
        title = headings.pop(0)
        page.title = title.get_text(" ", strip=True)
        title.decompose()
    used = {"main", "failure"}
    depth = 1
    for heading in headings:
        depth = min(max(int(heading.name[1]), 2), depth + 1)
        heading.name = f"h{depth}"
        text = heading.get_text(" ", strip=True)
        slug = base = re.sub(r"[^\w]+", "-", text.lower()).strip("-") or "section"
        number = 1
        while slug in used:
            number += 1
            slug = f"{base}-{number}"
        used.add(slug)
        heading["id"] = slug
        if depth <= 3:
            page.contents.append({"level": depth, "id": slug, "text": text})


def _tables(soup: BeautifulSoup) -> None:
    """Let a table scroll in a frame of its own; align numbers; drop pandas' own style."""
    for style in soup.select("style[scoped]"):
        style.decompose()
    for table in soup.find_all("table"):
        if table.find_parent("table"):
            continue
        del table["border"]
        for cell in table.find_all(["td", "th"]):
            for attribute in ("style", "halign", "valign"):
                if cell.parent is not None and table.get("id") is None:  # a pandas Styler addresses cells by id
                    del cell[attribute]
            text = cell.get_text(" ", strip=True)
            if cell.name == "td":
                kind = "num" if NUMBER.match(text) else "long" if len(text) > LONG_CELL else None
                if kind:
                    _add_class(cell, kind)
        _align_heads(table)
        caption = table.find("caption")
        label = caption.get_text(" ", strip=True) if caption else f"Table: {_heading_above(table)}"
        frame = soup.new_tag("div", attrs={"class": "table", "role": "region", "tabindex": "0", "aria-label": label})
        table.wrap(frame)


def _align_heads(table: Tag) -> None:
    """A column's head stands above its numbers."""
    rows = [row.find_all(["td", "th"], recursive=False) for row in table.select("tbody tr")]
    heads = [row.find_all("th", recursive=False) for row in table.select("thead tr")]
    if not rows or any(len(row) != len(rows[0]) for row in rows):
        return
    numeric = [all("num" in row[column].get_attribute_list("class") for row in rows) for column in range(len(rows[0]))]
    for head in heads:
        if len(head) == len(numeric):
            for cell, number in zip(head, numeric, strict=True):
                if number:
                    _add_class(cell, "num")


def _add_class(element: Tag, name: str) -> None:
    element["class"] = " ".join([*filter(None, element.get_attribute_list("class")), name])


def _heading_above(element: Tag) -> str:
    heading = element.find_previous(re.compile(r"^h[1-6]$"))
    return heading.get_text(" ", strip=True) if heading else "results"


def _figures(soup: BeautifulSoup, notebook: NotebookNode, page: Page) -> None:
    """Describe each figure, note its width for phones, choose the thumbnail."""
    described = [
        (cell.metadata, output.get("metadata", {}))
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if any(kind.startswith("image/") for kind in output.get("data", {}))
    ]
    images = soup.select(".cell > figure > img, .cell figure > img")
    for number, image in enumerate(images, start=1):
        cell, output = described[number - 1] if len(described) == len(images) else ({}, {})
        told = next((value["alt"] for value in output.values() if isinstance(value, dict) and "alt" in value), None)
        image["alt"] = told or cell.get("alt") or cell.get("caption") or f"Figure {number}: {_heading_above(image)}"
        width = _svg_width(str(image["src"]))
        if width:
            image["style"] = f"--width: {width:.0f}px"
        if cell.get("caption") and image.parent is not None:
            caption = soup.new_tag("figcaption")
            caption.string = cell["caption"]
            image.parent.append(caption)
        if page.thumbnail is None or "thumbnail" in cell.get("tags", []):
            page.thumbnail = str(image["src"])


def _svg_width(source: str) -> float | None:
    """Natural width of an SVG figure, CSS pixels; matplotlib writes points."""
    prefix = "data:image/svg+xml;base64,"
    if not source.startswith(prefix):
        return None
    head = base64.b64decode(source[len(prefix) :][:4000]).decode("utf-8", "replace")
    found = re.search(r'<svg[^>]*\swidth="([\d.]+)(pt|px)?"', head)
    return float(found[1]) * (POINTS_TO_PIXELS if found[2] == "pt" else 1) if found else None


def _nothing_fetched(soup: BeautifulSoup) -> None:
    """Replace what a browser would fetch by a link to it, or leave it out."""
    for element in soup.find_all([*FETCHING, "img"]):
        address = str(element.get("src") or element.get("href") or element.get("data") or "")
        if element.has_attr("srcset"):
            del element["srcset"]
        if element.name == "script" and not address:
            if re.search(r"https?://|import\s*\(", element.get_text()):
                element.decompose()
        elif not address.startswith(("data:", "#")):
            if element.name == "img" and address:
                link = soup.new_tag("a", href=address)
                link.string = str(element.get("alt") or address)
                element.replace_with(link)
            else:
                element.decompose()
    for style in soup.find_all("style"):
        if re.search(r"@import|url\(\s*['\"]?(https?:)?//", style.get_text()):
            style.decompose()
    for element in soup.find_all(style=re.compile(r"url\(\s*['\"]?(https?:)?//")):
        del element["style"]


# --- words and facts --------------------------------------------------------------------------------------------------


def _sentence(text: str) -> tuple[str, str, str]:
    """First sentence, the space after it, and the rest."""
    found = re.match(r"(.+?[.!?])(\s+|$)(?=[A-Z0-9*_`“\"(]|$)", text.strip(), re.S)
    return (found[1], found[2], text.strip()[found.end() :]) if found else (text.strip(), "", "")


def _answer(notebook: NotebookNode) -> Any:
    for cell in notebook.cells:
        if "answer" in cell.metadata.get("tags", []):
            for output in cell.get("outputs", []):
                text = output.get("data", {}).get("text/markdown")
                if text:
                    return _inline(_sentence(text)[0])
    return ""


def _markdown(text: str) -> str:
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

    return MarkdownWithMath(renderer=IPythonRenderer(escape=True, exclude_anchor_links=True)).render(text)


def _inline(text: str) -> Any:
    """One line of Markdown without its paragraph."""
    return _markup(re.sub(r"^<p>|</p>$", "", _markdown(text).strip()))


def _facts(page: Page, notebook: NotebookNode, manifest: Mapping[str, Any]) -> None:
    """Parameters, run and environment, for the collapsible part."""
    given = manifest.get("parameters") or notebook.metadata.get("papermill", {}).get("parameters", {})
    page.parameters = {str(name): repr(value) for name, value in given.items()}
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
