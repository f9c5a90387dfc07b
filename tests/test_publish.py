import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from bs4 import BeautifulSoup
from hypothesis import given
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from labbench.markup import last_states
from labbench.notebooks import NotebookError, run
from labbench.pdf import pdf, print_site
from labbench.publish import _sentence, publish, publish_folder

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="300pt" height="200pt"><circle r="9"/></svg>'


def output(**data: Any) -> Any:
    return new_output("display_data", data={key.replace("_", "/", 1): value for key, value in data.items()})


def code(source: str, *outputs: Any, **metadata: Any) -> Any:
    return new_code_cell(source, outputs=list(outputs), execution_count=1, metadata=metadata)


def figure() -> Any:
    return new_output("display_data", data={"image/svg+xml": SVG, "text/plain": "<Figure>"})


def write(path: Path, *cells: Any, **metadata: Any) -> Path:
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(new_notebook(cells=list(cells), metadata=kernel | metadata), path)
    return path


def page(tmp_path: Path, *cells: Any, **options: Any) -> BeautifulSoup:
    write(tmp_path / "n.ipynb", *cells)
    options = {"title": "Study", "headline": "It is fast."} | options
    publish([tmp_path / "n.ipynb"], tmp_path / "site", **options)
    return read(tmp_path / "site" / "n.html")


def read(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


def table(**columns: list[Any]) -> Any:
    import pandas as pd

    return new_output("execute_result", data={"text/html": pd.DataFrame(columns)._repr_html_(), "text/plain": ""})


def requests(soup: BeautifulSoup) -> list[str]:
    """Every address that a browser would fetch to show a page."""
    found = [
        str(element.get(attribute))
        for element in soup.find_all(["script", "link", "img", "iframe", "source", "video", "audio", "object", "embed"])
        for attribute in ("src", "href", "srcset", "data", "poster")
        if element.get(attribute)
    ]
    styles = " ".join([style.get_text() for style in soup.find_all("style")])
    styles += " ".join(str(element["style"]) for element in soup.find_all(style=True))
    found += re.findall(r"url\(\s*['\"]?([^)'\"]+)", styles) + re.findall(r"@import[^;]*", styles)
    found += re.findall(r"https?://[^\s'\"]+", " ".join(script.get_text() for script in soup.find_all("script")))
    return [address for address in found if not address.startswith(("data:", "#"))]


HOSTILE = [
    new_markdown_cell("# T\n\n![remote](https://example.org/a.png) and $x^2$ and <img src='//example.org/b.png'>"),
    code("1", output(text_html="<script src='https://cdn.example.org/require.js'></script><b>kept</b>")),
    code("2", output(text_html="<script>import('https://example.org/m.js')</script><iframe src='x.html'></iframe>")),
    code("3", output(text_html="<style>@import 'https://example.org/s.css';</style><link href='http://e.org/c.css'>")),
    code("4", output(text_html="<p style='background: url(https://example.org/i.png)'>p</p>")),
    code("5", output(text_html="<video poster='https://e.org/p.png'><source src='https://e.org/v'></video>")),
]


def test_a_site_requests_nothing_from_anywhere(tmp_path):
    soup = page(tmp_path, *HOSTILE, code("f", figure()))
    assert requests(soup) == []
    assert requests(read(tmp_path / "site" / "index.html")) == []
    assert "kept" in soup.get_text()
    assert soup.find("a", href="https://example.org/a.png") is not None, "a remote image becomes a link"


def test_the_check_for_requests_finds_them():
    html = "".join(str(cell.outputs[0].data["text/html"]) for cell in HOSTILE if cell.cell_type == "code")
    assert len(requests(BeautifulSoup(html, "html.parser"))) >= 7


def test_the_index_tells_headline_questions_answers_and_provenance(tmp_path):
    first = write(
        tmp_path / "01.ipynb",
        new_markdown_cell("# Which is *fastest*?\n\nAll ran at 0.5 s. Then more."),
        code("x", figure()),
        code("y", output(text_markdown="**OpenVINO, by 1.9×.** Not by much.")),
        code("z", output(text_markdown="**OpenVINO, by 1.9×.** Not by much."), tags=["answer"]),
    )
    second = write(tmp_path / "02.ipynb", new_markdown_cell("no title"))
    counts = {"predicted": 3, "measured": 1234, "simulated": 0}
    index = publish(
        [first, second], tmp_path / "s", title="A & B", headline="OpenVINO 2.0 is *it*. See why.", provenance=counts
    )
    soup = read(index)
    assert soup.h1 is not None
    assert soup.h1.get_text() == "OpenVINO 2.0 is it."
    assert soup.select_one(".lead").get_text(strip=True) == "See why."
    assert [badge.get_text(" ", strip=True) for badge in soup.select(".badge")] == ["1,234 measured", "3 predicted"]
    card, plain = soup.select(".card")
    assert card.h2.get_text().strip() == "Which is fastest?"
    assert [p.get_text().strip() for p in card.select("p")] == ["All ran at 0.5 s.", "OpenVINO, by 1.9×."]
    assert card.img["src"].startswith("data:image/svg+xml;base64,")
    assert (plain.h2.get_text(strip=True), plain.img) == ("02", None)
    assert [link["href"] for link in soup.select(".card a")] == ["01.html", "02.html"]
    assert all((tmp_path / "s" / link["href"]).exists() for link in soup.select(".card a"))


def test_a_cell_tagged_thumbnail_gives_the_index_its_figure(tmp_path):
    chosen = new_output("display_data", data={"image/png": PNG})
    page(tmp_path, code("a", figure()), code("b", chosen, tags=["thumbnail"]))
    assert read(tmp_path / "site" / "index.html").select_one(".thumb img")["src"] == f"data:image/png;base64,{PNG}"


def test_code_is_there_but_closed(tmp_path):
    soup = page(tmp_path, code("secret = 1", figure()), code("silent = 2"))
    blocks = soup.select("details.code")
    assert [block.pre.get_text().strip() for block in blocks] == ["secret = 1", "silent = 2"]
    assert not any(block.has_attr("open") for block in blocks)
    assert soup.select_one("button#code") is not None
    assert len(soup.select(".cell.silent")) == 1


def test_a_failed_notebook_says_so_on_its_page_and_on_the_index(tmp_path):
    source = write(
        tmp_path / "bad.ipynb",
        new_markdown_cell("# Bad"),
        code("divisor = 1", tags=["parameters"]),
        code("1 / divisor"),
    )
    assert run(source, tmp_path / "out" / "bad.ipynb", {"divisor": 0}).status == "failed"
    index = publish([tmp_path / "out" / "bad.ipynb"], tmp_path / "site", title="S", headline="H.")
    assert "ZeroDivisionError: division by zero" in read(index).select_one(".card .status").get_text()
    assert "1 of 1 notebooks did not finish" in read(index).select_one(".masthead").get_text()
    soup = read(tmp_path / "site" / "bad.html")
    assert "ZeroDivisionError: division by zero" in soup.select_one("main > .failure").get_text()
    assert soup.select_one("main > .failure a")["href"] == "#failure"
    assert "ZeroDivisionError" in soup.select_one("#failure").get_text()
    assert "papermill" not in soup.select_one("main").get_text()
    facts = soup.select_one(".provenance").get_text(" ")
    assert re.search(r"divisor\s+0\b", facts)
    assert "numpy" in facts


def test_an_interrupted_run_is_published_as_such(tmp_path):
    from labbench.manifest import manifest_path, write_json

    source = write(tmp_path / "n.ipynb", new_markdown_cell("# N"))
    write_json(manifest_path(source), {"version": 1, "status": "interrupted"})
    index = publish([source], tmp_path / "site", title="S", headline="H.")
    assert "the run is interrupted" in read(index).select_one(".card .status").get_text()


def test_every_figure_is_described(tmp_path):
    soup = page(
        tmp_path,
        new_markdown_cell("# T\n\n## Latency & cost"),
        code("a", figure()),
        code("b", figure(), alt="Bars: openvino is shortest"),
        code("c", figure(), caption="A caption"),
    )
    assert [image["alt"] for image in soup.select("figure img")] == [
        "Figure 1: Latency & cost",
        "Bars: openvino is shortest",
        "A caption",
    ]
    assert soup.figcaption.get_text() == "A caption"


def test_headings_are_in_order_and_addressed_once(tmp_path):
    soup = page(
        tmp_path,
        new_markdown_cell("# Title\n\n#### Deep\n\n# Another\n\n## Same\n\n##### Deeper"),
        new_markdown_cell("## Same\n\ntext"),
    )
    main = soup.select_one("main")
    levels = [int(heading.name[1]) for heading in main.find_all(re.compile(r"^h[1-6]$"))]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    ids = [element["id"] for element in soup.find_all(id=True)]
    assert len(ids) == len(set(ids))
    assert {link["href"][1:] for link in soup.select(".contents a")} <= set(ids)


def test_a_page_can_be_used_without_a_mouse_or_eyes(tmp_path):
    soup = page(tmp_path, new_markdown_cell("# T"), code("x", table(a=[1])))
    for document in (soup, read(tmp_path / "site" / "index.html")):
        assert document.html["lang"] == "en"
        assert document.select_one("a.skip")["href"] == "#main"
        assert len(document.select("main#main")) == 1
        assert all(image.has_attr("alt") for image in document.find_all("img"))
        assert all(nav.has_attr("aria-label") for nav in document.find_all("nav"))
    frame = soup.select_one(".table")
    assert (frame["role"], frame["tabindex"]) == ("region", "0")
    assert frame["aria-label"] == "Table: T"


def test_a_long_table_loses_its_row_numbers_and_keeps_its_size(tmp_path):
    import pandas as pd

    with pd.option_context("display.max_rows", 6, "display.min_rows", 6):
        soup = page(tmp_path, code("x", table(ms=range(10, 20))))
    assert [row.get_text(strip=True) for row in soup.select("tbody tr")] == ["10", "11", "12", "...", "17", "18", "19"]
    assert soup.select("tbody th") == []
    assert "num" in soup.select_one("tbody td")["class"]
    assert "10 rows × 1 columns" in soup.get_text()


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("ink", ["ink", "soft", "accent", "warm", "bad"])
@pytest.mark.parametrize("paper", ["paper", "raised", "sunk", "bad-paper"])
def test_text_has_the_contrast_that_wcag_aa_asks_for(ink, paper, scheme):
    from labbench.markup import TEMPLATES

    style = (TEMPLATES / "style.css").read_text()
    colours = dict(re.findall(r"--([\w-]+): light-dark\(([^)]*)\)", style))
    front, back = (luminance(colours[name].split(", ")[scheme]) for name in (ink, paper))
    assert (max(front, back) + 0.05) / (min(front, back) + 0.05) >= 4.5


def test_numbers_stand_right_and_a_default_index_is_left_out(tmp_path):
    long = "a verdict of many words that needs room to wrap in its column"
    soup = page(
        tmp_path, code("t", table(model=["a", "b"], latency=[1.5, -2e-9], gain=["3 %", "1.9×"], why=[long, "-x"]))
    )
    row = soup.select("tbody tr")[0]
    assert [cell.get("class") for cell in row.find_all(["td", "th"])] == [None, ["num"], ["num"], ["long"]]
    assert [cell.get("class") for cell in soup.select("thead th")] == [None, ["num"], ["num"], None]
    assert soup.find("style", attrs={"scoped": True}) is None


def test_a_column_is_set_right_only_if_all_of_it_is_numbers(tmp_path):
    versions = table(
        name=["python", "torch"], value=["3.11", "2.13.0+cpu"], digits=["3.11.7", "5.24.0"], n=["1,000", ""]
    )
    soup = page(tmp_path, code("t", versions))
    assert [[cell.get("class") for cell in row.find_all("td")] for row in soup.select("tbody tr")] == [
        [None, None, None, ["num"]]
    ] * 2


def test_the_name_of_an_index_joins_the_head_above(tmp_path):
    import pandas as pd

    frame = pd.DataFrame({"quiet": [12], "noisy": [1]}, index=pd.Index(["cpu"], name="platform"))
    soup = page(tmp_path, code("t", output(text_html=frame.rename_axis(columns="noise")._repr_html_())))
    assert [[cell.get_text() for cell in row.find_all("th")] for row in soup.select("thead tr")] == [
        ["platform", "quiet", "noisy"]
    ]


def test_an_index_with_a_meaning_is_kept(tmp_path):
    import pandas as pd

    html = pd.DataFrame({"a": [1, 2]}, index=["bert", "vit"])._repr_html_()
    soup = page(tmp_path, code("t", output(text_html=html)))
    assert [head.get_text() for head in soup.select("tbody th")] == ["bert", "vit"]


def test_no_text_in_a_table_is_cut(tmp_path):
    import pandas as pd

    from labbench import plots

    long = "upper 90 % bound of the predicted median latency 43.6 ms > limit 5 ms, 8.73 times the limit"
    with pd.option_context("display.max_colwidth", 50):
        plots.theme()
        soup = page(tmp_path, code("t", table(why=[long, "short"], n=[1, 2])))
    assert soup.select_one("td.long").get_text().split() == long.split()


def test_a_number_stays_on_the_line_of_its_unit(tmp_path):
    cells = (new_markdown_cell("# T\n\nWithin 5 % in 3 ms. `5 %`"), code("t", table(error=["a"], **{"mean %": [1]})))
    soup = page(tmp_path, *cells, headline="Costs 3 % more.")
    assert soup.select_one(".prose p").get_text() == "Within 5\N{NO-BREAK SPACE}% in 3\N{NO-BREAK SPACE}ms. 5 %"
    assert [head.get_text() for head in soup.select("thead th")] == ["error", "mean\N{NO-BREAK SPACE}%"]
    index = read(tmp_path / "site" / "index.html")
    assert index.h1.get_text() == "Costs 3\N{NO-BREAK SPACE}% more."


def test_a_table_of_many_columns_is_set_small(tmp_path):
    soup = page(tmp_path, code("a", table(**{f"c{i}": [i] for i in range(9)})), code("b", table(a=[1])))
    assert [frame["class"] for frame in soup.select("[role=region]")] == [["table", "dense"], ["table"]]


def test_formulas_are_set_without_a_network_and_named(tmp_path):
    soup = page(tmp_path, new_markdown_cell(r"Costs 5 and $\frac{a}{b}$, and $\nosuchthing{x}$." + "\n\n$$P = x^2$$"))
    good, bad, block = soup.select(".math")
    assert good["aria-label"] == r"\frac{a}{b}"
    assert good.svg is not None
    assert bad.svg is None
    assert bad.code.get_text() == r"\nosuchthing{x}"
    assert "block" in block["class"]


def test_what_is_no_result_is_left_out(tmp_path):
    repr_ = new_output("execute_result", data={"text/plain": "<Axes: xlabel='x', ylabel='y'>"})
    bar = new_output("stream", name="stderr", text=" 0%|   | 0/9\r 50%|## | 4/9\r100%|###| 9/9\nnext")
    wiped = new_output("stream", name="stderr", text="          \r")
    soup = page(tmp_path, code("a", repr_), code("b", bar), code("c", wiped))
    assert len(soup.select("pre.stream")) == 1
    text = soup.get_text()
    assert "Axes" not in text
    assert "0/9" not in text
    assert "9/9" in text
    assert "next" in text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("OpenVINO is fastest for 6 of 6 models, by 1.9×.\n", True),
        ("It is fast.\nIt is cheap, too.", True),
        ("model   latency\nbert    1.5", False),
        ("cpu/eager is the fastest choice for 12 of 13 workloads.", True),
        ("done: 40 of 40", False),
        ("100%|###| 40/40 in all of 3 s.", False),
        ("[1/12] bert-tiny: 7.52 ms", False),
    ],
)
def test_printed_sentences_read_as_text(tmp_path, text, said):
    soup = page(tmp_path, code("p", new_output("stream", name="stdout", text=text), tags=["answer"]))
    assert (soup.select_one(".finding") is not None, soup.select_one("pre.stream") is None) == (said, said)
    answer = read(tmp_path / "site" / "index.html").select_one("p.answer")
    assert (answer.get_text() if answer else None) == (text.split(".\n")[0].removesuffix(".") + "." if said else None)


def test_text_in_outputs_is_escaped(tmp_path):
    soup = page(
        tmp_path,
        new_markdown_cell("# A <b>bold</b> & title"),
        code("x = '<script>'", new_output("stream", name="stdout", text="<script>alert(1)</script>")),
        headline="<script>alert(2)</script>.",
    )
    index = read(tmp_path / "site" / "index.html")
    assert not [s for doc in (soup, index) for s in doc.find_all("script") if "alert" in s.get_text()]
    assert "<script>alert(1)</script>" in soup.select_one("pre.stream").get_text()
    assert soup.title.get_text().startswith("A bold & title")


@pytest.mark.parametrize(
    ("names", "message"),
    [([], "nothing to publish"), (["a/n", "b/n"], r"n\.html"), (["index"], r"index\.html"), (["nowhere"], "nowhere")],
)
def test_what_cannot_be_published_is_refused_by_name(tmp_path, names, message):
    paths = [tmp_path / f"{name}.ipynb" for name in names]
    for path in paths:
        if path.stem != "nowhere":
            path.parent.mkdir(exist_ok=True)
            write(path)
    with pytest.raises(NotebookError, match=message):
        publish(paths, tmp_path / "site", title="S", headline="H.")


@given(st.text())
def test_a_sentence_and_its_rest_lose_no_word(text):
    first, _, rest = _sentence(text)
    assert (first + rest).split() == text.split() or "".join((first + rest).split()) == "".join(text.split())


@given(st.lists(st.text(alphabet="ab %|", min_size=1), min_size=1))
def test_a_carriage_return_keeps_the_last_state(states):
    assert last_states("\r".join(states) + "\r") == states[-1]


# --- in a real browser ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    wide = table(**{f"a_rather_long_column_{i}": ["x" * 30, "y"] for i in range(12)})
    path = write(
        folder / "n.ipynb",
        new_markdown_cell("# A title\n\nText.\n\n## One\n\n" + "w" * 200 + "\n\n## Two"),
        code("secret = '" + "x" * 300 + "'", figure(), wide),
        code("y", new_output("stream", name="stdout", text="z" * 500)),
    )
    publish([path], folder, title="Study", headline="A headline.", provenance={"measured": 5})
    return folder


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from tests.browser import chromium

    with chromium(tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.mark.parametrize("name", ["index", "n"])
@pytest.mark.parametrize("width", [320, 390, 768, 1280, 1920])
def test_a_page_fits_its_window(site, driver, name, width):
    from tests.browser import look

    look(driver, width)
    driver.get(f"file://{site}/{name}.html")
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    if name == "n" and width >= 1280:
        column = driver.execute_script(
            "const s = getComputedStyle(document.querySelector('main'));"
            "return (document.querySelector('main').clientWidth - 2 * parseFloat(s.paddingLeft)) / 16"
        )
        assert column <= 52.01


def test_a_browser_asks_the_network_for_nothing_and_reports_no_error(site, driver):
    import json

    driver.get_log("performance")
    driver.get_log("browser")
    for name in ("index", "n"):
        driver.get(f"file://{site}/{name}.html")
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert f"file://{site}/n.html" in asked, "the log works"
    assert [url for url in asked if not url.startswith((f"file://{site}/", "data:"))] == []
    assert driver.get_log("browser") == []


def test_code_shows_at_a_click_and_hides_at_the_next(site, driver):
    driver.get(f"file://{site}/n.html")
    block, button = (driver.find_element("css selector", name) for name in ("details.code .highlight", "button#code"))
    assert not block.is_displayed()
    button.click()
    assert block.is_displayed()
    assert button.get_attribute("aria-pressed") == "true"
    button.click()
    assert not block.is_displayed()


@pytest.fixture
def address(site):
    """The site over loopback: what Chromium stores for file:// pages it may lose between two of them."""
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
    from threading import Thread

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(site))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_colours_follow_the_system_until_the_reader_chooses(address, driver):
    from tests.browser import look

    def paper() -> int:
        colour = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
        return sum(int(channel) for channel in re.findall(r"\d+", colour)[:3])

    driver.get(f"{address}/n.html")
    driver.execute_script("localStorage.clear(); delete document.documentElement.dataset.theme")
    look(driver, 1280, dark=True)
    dark = paper()
    look(driver, 1280, dark=False)
    light = paper()
    assert dark < 150 < 600 < light
    button = driver.find_element("css selector", "button#theme")
    button.click()  # light
    button.click()  # dark
    assert paper() == dark
    driver.get(f"{address}/index.html")
    assert paper() == dark, "the choice holds on the next page"
    driver.execute_script("localStorage.clear()")


def test_a_figure_of_the_usual_width_fits_a_phone_and_fills_a_desk(tmp_path, driver):
    from labbench.plots import WIDTH_IN
    from tests.browser import look

    drawing = SVG.replace("300pt", f"{72 * WIDTH_IN:g}pt")
    page(tmp_path, code("f", new_output("display_data", data={"image/svg+xml": drawing})))
    for width, most in ((390, 390), (1280, 1.31 * 96 * WIDTH_IN)):
        look(driver, width)
        driver.get(f"file://{tmp_path}/site/n.html")
        shown, room = driver.execute_script(
            "const f = document.querySelector('figure');"
            "return [f.querySelector('img').getBoundingClientRect().width, f.clientWidth]"
        )
        assert 0.65 * 96 * WIDTH_IN <= shown <= min(room, most)


def test_a_page_prints_with_its_tables_whole(site, driver):
    import base64

    driver.get(f"file://{site}/n.html")
    pdf = base64.b64decode(driver.execute_cdp_cmd("Page.printToPDF", {})["data"])
    assert pdf.startswith(b"%PDF")
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    hidden = driver.execute_script("return getComputedStyle(document.querySelector('.bar')).display")
    overflow = driver.execute_script("return getComputedStyle(document.querySelector('.table')).overflowY")
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert (hidden, overflow) == ("none", "visible")


# --- tables that sort -------------------------------------------------------------------------------------------------

CELLS = "return [...document.querySelectorAll('tbody tr')].map(row => row.cells[arguments[0]].innerText)"
ORDERS = "return [...document.querySelectorAll('thead th')].map(head => head.ariaSort)"
COLUMNS = {
    "name": ["b10", "b9", "a", "–"],
    "ms": ["1,200", "5.5", "–", "40"],
    "time": ["2 s", "30 ms", "4 µs", ""],
    "version": ["3.11.7", "3.9.1", "3.10.0", "–"],
    "gain": ["×1.20", "3 %", "−2", "–"],
}


@pytest.fixture
def sorted_page(tmp_path, driver):
    page(tmp_path, code("t", table(**COLUMNS)))
    driver.get(f"file://{tmp_path}/site/n.html")
    return driver


@pytest.mark.parametrize(
    ("column", "ascending"),
    [
        ("name", ["a", "b9", "b10", "–"]),
        ("ms", ["5.5", "40", "1,200", "–"]),
        ("time", ["4 µs", "30 ms", "2 s", ""]),
        ("version", ["3.9.1", "3.10.0", "3.11.7", "–"]),
        ("gain", ["−2", "×1.20", "3 %", "–"]),
    ],
)
def test_a_click_on_a_header_sorts_by_size_or_name_and_the_unknown_last(sorted_page, column, ascending):
    at = list(COLUMNS).index(column)
    button = sorted_page.find_elements("css selector", "thead button")[at]
    seen = []
    for _ in range(3):
        button.click()
        texts = [text.replace("\N{NO-BREAK SPACE}", " ") for text in sorted_page.execute_script(CELLS, at)]
        seen.append((sorted_page.execute_script(ORDERS)[at], texts))
    *known, unknown = ascending
    down = ("descending", [*known[::-1], unknown])
    assert seen == [("ascending", ascending), down, ("none", COLUMNS[column])]


def test_a_table_is_sorted_from_the_keyboard_by_one_column_at_a_time(sorted_page):
    from selenium.webdriver.common.keys import Keys

    first, second, *_ = sorted_page.find_elements("css selector", "thead button")
    first.send_keys(Keys.ENTER)
    second.send_keys(Keys.SPACE)
    assert sorted_page.execute_script(ORDERS)[:3] == ["none", "ascending", "none"]
    assert sorted_page.execute_script(CELLS, 1) == ["5.5", "40", "1,200", "–"]


def test_without_a_script_a_table_is_a_plain_one(tmp_path):
    soup = page(tmp_path, code("t", table(**COLUMNS)))
    assert [head.get_text() for head in soup.select("thead th")] == list(COLUMNS)
    assert soup.select("table button") == []


def test_a_table_whose_cells_span_others_does_not_sort(tmp_path, driver):
    import pandas as pd

    index = pd.MultiIndex.from_product([["bert", "vit"], [1, 8]], names=["model", "batch"])
    html = pd.DataFrame({"ms": [4, 3, 2, 1]}, index=index)._repr_html_()
    page(tmp_path, code("t", output(text_html=html)))
    driver.get(f"file://{tmp_path}/site/n.html")
    assert driver.find_elements("css selector", "thead button") == []


# --- PDF --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def browser_installed():
    from tests.browser import find

    find("chromium")


@pytest.mark.usefixtures("browser_installed")
def test_a_page_becomes_a_pdf_with_its_text_whole_and_without_the_buttons(tmp_path):
    import pandas as pd
    from pypdf import PdfReader

    rows = [f"row {i} of the table" for i in range(150)]
    html = pd.DataFrame({"workload": rows}).to_html()
    page(tmp_path, new_markdown_cell("# A printed title\n\nSome text."), code("t", output(text_html=html)))
    made = print_site(tmp_path / "site")
    assert [path.name for path in made] == ["index.pdf", "n.pdf"]
    printed = PdfReader(made[1])
    pages = [page.extract_text() for page in printed.pages]
    text = " ".join(pages)
    assert len(pages) > 1
    assert [page for page in pages if "row " in page and "workload" not in page] == []  # the header stands on each
    assert "A printed title" in text
    assert [row for row in rows if row not in text] == []
    assert "Show code" not in text
    assert [path.name for path in (tmp_path / "site").iterdir() if path.suffix not in (".html", ".pdf")] == []


@pytest.mark.usefixtures("browser_installed")
def test_a_folder_of_executed_notebooks_is_published_and_printed_by_one_command(tmp_path, capsys):
    from labbench.cli import main

    write(tmp_path / "b.ipynb", new_markdown_cell("# Second"), code("1"))
    write(tmp_path / "a.ipynb", new_markdown_cell("# First"), code("1"))
    assert (
        main(["publish", str(tmp_path), "--output", str(tmp_path / "s"), "--headline", "It is *fast*.", "--pdf"]) == 0
    )
    names = ("index.html", "index.pdf", "a.pdf", "b.pdf")
    assert capsys.readouterr().out.split() == [str(tmp_path / "s" / name) for name in names]
    soup = read(tmp_path / "s" / "index.html")
    assert [card.get_text(strip=True) for card in soup.select(".card h2")] == ["First", "Second"]
    assert soup.h1.get_text() == "It is fast."


def test_without_a_browser_the_error_says_what_was_looked_for_and_the_ways_out(tmp_path, monkeypatch):
    page(tmp_path)
    monkeypatch.delenv("LABBENCH_CHROMIUM", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        NotebookError, match=r"none of chromium, .*install Chromium .*LABBENCH_CHROMIUM.*in any browser"
    ):
        pdf(tmp_path / "site" / "n.html")
    monkeypatch.setenv("LABBENCH_CHROMIUM", "/no/such/program")
    with pytest.raises(NotebookError, match="LABBENCH_CHROMIUM=/no/such/program is not a program"):
        pdf(tmp_path / "site" / "n.html")


@pytest.mark.parametrize("script", ["exit 3", "echo cannot >&2; exit 0"])
def test_a_browser_that_fails_is_told_with_its_last_words(tmp_path, monkeypatch, script):
    page(tmp_path)
    broken = tmp_path / "broken"
    broken.write_text(f"#!/bin/sh\n{script}\n")
    broken.chmod(0o755)
    monkeypatch.setenv("LABBENCH_CHROMIUM", str(broken))
    with pytest.raises(NotebookError, match=r"could not print n.html .*(no message|cannot)"):
        pdf(tmp_path / "site" / "n.html")
    assert not (tmp_path / "site" / "n.pdf").exists()


def test_a_folder_without_executed_notebooks_is_refused_by_name(tmp_path):
    with pytest.raises(NotebookError, match="no notebook in"):
        publish_folder(tmp_path)
    write(tmp_path / "raw.ipynb", new_code_cell("1"))
    with pytest.raises(NotebookError, match=r"raw.ipynb was not executed"):
        publish_folder(tmp_path)
    (tmp_path / "raw.ipynb").write_text("text")
    with pytest.raises(NotebookError, match="is not a notebook"):
        publish_folder(tmp_path)
