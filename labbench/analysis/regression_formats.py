"""Regressions as text, Markdown (a comment on a pull request) and JUnit XML (what CI servers read)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from labbench.analysis.few import MOST_ROWS
from labbench.analysis.history_report import attribution, names, regressed, regression_table
from labbench.analysis.labels import place

if TYPE_CHECKING:
    import pandas as pd

FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # characters that XML 1.0 cannot hold


def as_text(table: pd.DataFrame, fail_on: float, baseline: str | None) -> str:
    """A table and a sentence for the terminal."""
    sentence = plain(regressed(table, fail_on, baseline))
    if table.empty:
        return f"{sentence}\n"
    shown = regression_table(table)
    lines = [*([shown.to_string(index=False, max_colwidth=72)] if len(shown) else []), sentence]
    bad = table[table["regressed"]]
    lines += [plain(attribution(bad, bad["cause"]))] if len(bad) else []
    return "\n".join(lines) + "\n"


def as_markdown(table: pd.DataFrame, fail_on: float, baseline: str | None) -> str:
    """A heading that says whether it passed, a sentence, and a table of what is not simply the same."""
    verdict = "regressed" if table["regressed"].any() else "no regression"
    lines = [f"### labbench: {verdict}", "", regressed(table, fail_on, baseline), ""]
    told = table[table["regressed"] | table["verdict"].isin(["slower", "faster"])]
    if len(told):
        shown = regression_table(told).map(_cell)
        lines += [_line(shown.columns), _line(["---"] * len(shown.columns))]
        lines += [_line(row) for row in shown.itertuples(index=False)]
        rest = len(told) - MOST_ROWS
        lines += ["", f"and {rest:,} more rows"] if rest > 0 else []
    bad = table[table["regressed"]]
    lines += ["", attribution(bad, bad["cause"])] if len(bad) else []
    return "\n".join(lines).rstrip() + "\n"


def _cell(value: object) -> str:
    return re.sub(r"\s+", " ", str(value)).replace("|", "\\|")


def _line(cells: Iterable[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def as_junit(table: pd.DataFrame, fail_on: float, baseline: str | None) -> str:
    """A test case a cell: failed if it regressed, skipped with the reason if it could not be judged.

    The form is that of the JUnit schema that Jenkins and GitLab read: ``testsuites``, ``testsuite``, ``testcase``.
    """
    skipped = (table["verdict"] == "not judged") & ~table["regressed"].astype(bool)
    counts = {
        "tests": len(table),
        "failures": int(table["regressed"].sum()),
        "errors": 0,
        "skipped": int(skipped.sum()),
    }
    attributes = {"name": "labbench regressions", **{name: str(value) for name, value in counts.items()}}
    root = ElementTree.Element("testsuites", attributes)
    suite = ElementTree.SubElement(root, "testsuite", {**attributes, "time": "0"})
    for row, name, platform in zip(table.itertuples(index=False), names(table), place(table), strict=True):
        seconds = row.latency_s if row.latency_s == row.latency_s else 0.0
        case = {"classname": _xml(platform), "name": _xml(name), "time": f"{seconds:.9f}"}
        _judgement(ElementTree.SubElement(suite, "testcase", case), row)
    output = ElementTree.SubElement(suite, "system-out")
    output.text = _xml(plain(regressed(table, fail_on, baseline)))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _judgement(case: ElementTree.Element, row: Any) -> None:
    """A failure or a skip within a test case; nothing if it passed."""
    judged = row.verdict != "not judged"
    if row.regressed:
        text = f"no longer runs: {row.reason}"
        if judged:
            text = f"{row.ratio - 1:+.1%} latency ({row.ci_low - 1:+.1%} to {row.ci_high - 1:+.1%})"
        failure = ElementTree.SubElement(case, "failure", {"message": _xml(text), "type": "regression"})
        failure.text = _xml(f"may be caused by: {row.cause}")
    elif not judged:
        ElementTree.SubElement(case, "skipped", {"message": _xml(row.reason)})


def plain(markdown: str) -> str:
    """A sentence without the marks of Markdown."""
    return markdown.replace("**", "").replace("`", "")


def _xml(text: str) -> str:
    """Text without the characters that XML cannot hold."""
    return FORBIDDEN.sub("\ufffd", text)


FORMATS = {"text": as_text, "markdown": as_markdown, "junit": as_junit}
