"""Turn an executed notebook's cells into markup fit for a page that needs no network.

nbconvert renders the cells with ``report/cells.html.j2``; the functions here then put headings in order, let tables
scroll, describe figures, and replace what a browser would fetch.
"""

from __future__ import annotations

import base64
import io
import itertools
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

if TYPE_CHECKING:
    from bs4 import BeautifulSoup, Tag
    from nbformat import NotebookNode

TEMPLATES = Path(__file__).parent / "report"
FETCHING = ("script", "link", "iframe", "object", "embed", "video", "audio", "source")  # elements with an address
WRAPPED_CELL, LONG_CELL = 16, 40  # characters above which a table's cell may wrap, and gets much room to
DENSE = 6  # columns above which a table is set small
TOGETHER = re.compile(r"(?<=\d) (?=(%|×|[nµm]s|[kMG]i?B)(\W|$))|(?<=\w) (?=%(\W|$))")  # a number and its unit
NUMBER = re.compile(r"^[+\-−]?(\d[\d,]*\.?\d*|\.\d+)([eE][+\-]?\d+)?\s?[%×x]?$|^(nan|NaN|inf|–|—|\.\.\.)$")
PLOT_REPR = re.compile(
    r"^(\[?<(Axes|Figure|matplotlib|seaborn)\b.*>\]?|Text\(.*\)|<[\w.]*(FacetGrid|JointGrid)[^>]*>)$", re.S
)
SENTENCE = re.compile(r"^(?!.*(  |\|))[\w“\"'].*\w [\w(].* .*[.!?)]$")  # some words, an end, and no columns
ENDED = "SystemExit"
READERS_ERRORS = ("StoreError", "StoreLocked", "ConfigError", "NotebookError", "PredictionError", "SelectionError")
LEFT_OUT = "..."  # what pandas writes for the middle of a long table
EMPTY_TABLE = "Nothing to list."
POINTS_TO_PIXELS = 96 / 72  # CSS


def tidy(notebook: NotebookNode) -> None:
    """Drop what is no result: papermill's error banners, plots' reprs, all but the last state of a progress bar.

    Of an error that is the reader's to put right the traceback goes: it says nothing more. What follows the cell in
    which a notebook ended itself (:mod:`labbench.ending`) goes too, and what that cell says is the answer.
    """
    notebook.cells = [
        cell for cell in notebook.cells if "papermill-error-cell-tag" not in cell.metadata.get("tags", [])
    ]
    for number, cell in enumerate(notebook.cells, start=1):
        if cell.cell_type != "code":
            continue
        ended = any(output.get("ename") == ENDED for output in cell.outputs)
        if ended:
            notebook.cells = notebook.cells[:number]
            cell.metadata["tags"] = [*cell.metadata.get("tags", []), "answer"]
        cell.outputs = [
            output
            for output in cell.outputs
            if not (_is_plot_repr(output) or _is_blank(output) or (ended and _is_exit(output)))
        ]
        for output in cell.outputs:
            if output.output_type == "stream":
                output.text = last_states(output.text)
            elif output.get("ename") in READERS_ERRORS:
                output.traceback = []
        if ended:
            break


def last_states(text: str) -> str:
    """Text as a terminal leaves it: a carriage return overwrites its line."""
    return "\n".join(line.rstrip("\r").rsplit("\r", 1)[-1] for line in text.split("\n"))


def _is_exit(output: NotebookNode) -> bool:
    """Whether this is what IPython says when a cell exits."""
    return output.output_type == "error" or (output.output_type == "stream" and output.name == "stderr")


def _is_blank(output: NotebookNode) -> bool:
    """Whether this is what a progress bar leaves that wipes itself out."""
    return output.output_type == "stream" and not output.text.strip()


def _is_plot_repr(output: NotebookNode) -> bool:
    data = output.get("data", {})
    return (
        output.output_type == "execute_result"
        and set(data) == {"text/plain"}
        and PLOT_REPR.match(data["text/plain"].strip()) is not None
    )


def render(notebook: NotebookNode) -> str:
    """HTML of a notebook's cells."""
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
            size = 16 if element == "div" else 14
            depth = math_to_image(f"${tex.strip()}$", buffer, prop=FontProperties(size=size), dpi=72, format="svg")
    except ValueError:
        return f'<{element} class="{kind}"><code>{escape(tex)}</code></{element}>'
    svg = buffer.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.S)
    svg = re.sub(r'<g id="patch_1">.*?</g>', "", svg, count=1, flags=re.S)  # the white background
    svg = svg.replace("<svg ", '<svg fill="currentColor" aria-hidden="true" ', 1)
    label = f'role="img" aria-label="{escape(tex.strip())}" style="--depth: {-depth * POINTS_TO_PIXELS:.1f}px"'
    return f'<{element} class="{kind}" {label}>{svg}</{element}>'


# --- making the cells fit ---------------------------------------------------------------------------------------------


def headings(soup: BeautifulSoup) -> tuple[str | None, list[dict[str, Any]]]:
    """Take the title out, close gaps in the levels, give each heading an id.

    Returns
    -------
    title : str or None
        Text of the heading that opens the notebook, if it is of the first level.
    contents : list of dict
        ``level``, ``id`` and ``text`` of the others, down to the third level.
    """
    page_title = None
    contents: list[dict[str, Any]] = []
    found = soup.find_all(re.compile(r"^h[1-6]$"))
    if found and found[0].name == "h1":
        title = found.pop(0)
        page_title = plain_text(title)
        title.decompose()
    used = {"main", "failure"}
    depth = 1
    for heading in found:
        depth = min(max(int(heading.name[1]), 2), depth + 1)
        heading.name = f"h{depth}"
        words = plain_text(heading)
        slug = base = re.sub(r"[^\w]+", "-", words.lower()).strip("-") or "section"
        number = 1
        while slug in used:
            number += 1
            slug = f"{base}-{number}"
        used.add(slug)
        heading["id"] = slug
        if depth <= 3:
            contents.append({"level": depth, "id": slug, "text": words})
    return page_title, contents


def sentences(soup: BeautifulSoup) -> None:
    """Set printed sentences as text, not as a program's output; tables and logs keep their columns."""
    for block in soup.select("pre.stream:not(.stderr)"):
        lines = [line for line in block.get_text().strip().split("\n") if line]
        if lines and all(SENTENCE.match(line) for line in lines):
            block.name = "div"
            block["class"] = "prose finding said"
            del block["tabindex"]


def silent(soup: BeautifulSoup) -> None:
    """Mark cells without output: they need no room while code is hidden."""
    for cell in soup.select(".cell"):
        if all("code" in child.get_attribute_list("class") for child in cell.find_all(recursive=False)):
            _add_class(cell, "silent")


def tables(soup: BeautifulSoup, title: str) -> None:
    """Let a table scroll in a frame of its own; align numbers; drop pandas' own style."""
    for style in soup.select("style[scoped]"):
        style.decompose()
    for table in soup.find_all("table"):
        if table.find_parent("table"):
            continue
        if not table.select("tr > td"):
            _say_that_it_is_empty(soup, table)
            continue
        del table["border"]
        for cell in table.find_all(["td", "th"]):
            for attribute in ("style", "halign", "valign"):
                if cell.parent is not None and table.get("id") is None:  # a pandas Styler addresses cells by id
                    del cell[attribute]
            length = len(plain_text(cell)) if cell.name == "td" else 0
            if length > WRAPPED_CELL:
                _add_class(cell, "long" if length > LONG_CELL else "text")
        _one_head(table)
        _drop_row_numbers(table)
        _align_numbers(table)
        caption = table.find("caption")
        label = plain_text(caption) if caption else f"Table: {_heading_above(table, title)}"
        frame = soup.new_tag(
            "div", attrs={"class": _frame_class(table), "role": "region", "tabindex": "0", "aria-label": label}
        )
        table.wrap(frame)


def _say_that_it_is_empty(soup: BeautifulSoup, table: Tag) -> None:
    """A sentence instead of a table without rows, and of what pandas prints about its size."""
    said = soup.new_tag("p", attrs={"class": "aside"})
    said.string = EMPTY_TABLE
    frame = table.find_parent("div", class_="html")
    table.replace_with(said)
    for line in frame.find_all("p", class_=False) if frame is not None else ():
        line.decompose()


def _frame_class(table: Tag) -> str:
    return "table dense" if len(table.select("thead tr:first-child > th")) > DENSE else "table"


def _drop_row_numbers(table: Tag) -> None:
    """Leave out pandas' default index, 0, 1, 2, …: it tells a reader nothing."""
    rows = table.select("tbody tr")
    heads = ["|".join(head.get_text(strip=True) for head in row.find_all("th", recursive=False)) for row in rows]
    upper = list(itertools.takewhile(lambda head: head != LEFT_OUT, heads))
    if upper and upper == [str(i) for i in range(len(upper))]:
        for row in (*rows, *table.select("thead tr")):
            first = row.find(["td", "th"], recursive=False)
            if first is not None and first.name == "th":
                first.decompose()


def _one_head(table: Tag) -> None:
    """Put the names of pandas' index, a row of their own, into the row above."""
    heads = [row.find_all("th", recursive=False) for row in table.select("thead tr")]
    if len(heads) != 2 or len(heads[0]) != len(heads[1]):
        return
    names = [plain_text(cell) for cell in heads[1]]
    levels = len(table.select("tbody tr:first-child > th"))
    if any(names[:levels]) and not any(names[levels:]):
        for cell, name in zip(heads[0][:levels], names, strict=False):
            cell.string = name
        table.select("thead tr")[1].decompose()


def _align_numbers(table: Tag) -> None:
    """Set columns that hold nothing but numbers to the right, and what stands above them."""
    rows = [row.find_all(["td", "th"], recursive=False) for row in table.select("tbody tr")]
    if not rows or any(len(row) != len(rows[0]) for row in rows):
        return
    heads = [row.find_all("th", recursive=False) for row in table.select("thead tr")]
    for column in range(len(rows[0])):
        cells = [row[column] for row in rows]
        words = [plain_text(cell) for cell in cells]
        if not any(words) or any(
            cell.name == "th" or (word and not NUMBER.match(word)) for cell, word in zip(cells, words, strict=True)
        ):
            continue
        for cell in (*cells, *(head[column] for head in heads if len(head) == len(rows[0]))):
            _add_class(cell, "num")


def together(text: str) -> str:
    """Text in which no line breaks between a number and its unit."""
    return TOGETHER.sub("\N{NO-BREAK SPACE}", text)


def numbers(soup: BeautifulSoup) -> None:
    """Apply :func:`together` to all text but code and what programs print."""
    for string in soup.find_all(string=TOGETHER):
        if string.find_parent(["pre", "code", "script", "style"]) is None:
            string.replace_with(together(str(string)))


def plain_text(element: Tag) -> str:
    """What a reader reads, on one line."""
    return " ".join(element.get_text().split())


def _add_class(element: Tag, name: str) -> None:
    element["class"] = " ".join([*filter(None, element.get_attribute_list("class")), name])


def _heading_above(element: Tag, title: str) -> str:
    heading = element.find_previous(re.compile(r"^h[1-6]$"))
    return plain_text(heading) if heading else title


def figures(soup: BeautifulSoup, notebook: NotebookNode, title: str) -> str | None:
    """Describe each figure, note its width for phones; returns the source of the one for the index."""
    thumbnail = None
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
        image["alt"] = (
            told or cell.get("alt") or cell.get("caption") or f"Figure {number}: {_heading_above(image, title)}"
        )
        width = _svg_width(str(image["src"]))
        if width:
            image["style"] = f"--width: {width:.0f}px"
        if cell.get("caption") and image.parent is not None:
            caption = soup.new_tag("figcaption")
            caption.string = cell["caption"]
            image.parent.append(caption)
        if thumbnail is None or "thumbnail" in cell.get("tags", []):
            thumbnail = str(image["src"])
    return thumbnail


def _svg_width(source: str) -> float | None:
    """Natural width of an SVG figure, CSS pixels; matplotlib writes points."""
    prefix = "data:image/svg+xml;base64,"
    if not source.startswith(prefix):
        return None
    head = base64.b64decode(source[len(prefix) :][:4000]).decode("utf-8", "replace")
    found = re.search(r'<svg[^>]*\swidth="([\d.]+)(pt|px)?"', head)
    return float(found[1]) * (POINTS_TO_PIXELS if found[2] == "pt" else 1) if found else None


def nothing_fetched(soup: BeautifulSoup) -> None:
    """Replace what a browser would fetch by a link to it, or leave it out."""
    for element in soup.find_all([*FETCHING, "img"]):
        if element.decomposed:  # with the one around it
            continue
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


def markdown(text: str) -> str:
    """HTML of Markdown that comes from outside a notebook: tags in it are shown, not obeyed."""
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

    return MarkdownWithMath(renderer=IPythonRenderer(escape=True, exclude_anchor_links=True)).render(text)


def inline(text: str) -> Markup:
    """One line of Markdown without its paragraph."""
    return Markup(re.sub(r"^<p>|</p>$", "", markdown(text).strip()))
