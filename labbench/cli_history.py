"""The command that a continuous-integration job runs: did anything get slower?"""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

# Written out, not read from labbench.analysis: --help must not wait for pandas. A test holds the two together.
FORMATS = ("text", "markdown", "junit")
REGRESSED, NOTHING_JUDGED = 1, 3  # exit status; 0: no regression, 2: wrong use
STATUS = """
exit status:
  0  no regression
  1  a regression: slower beyond chance and by --fail-on, or it ran before and now does not
  2  wrong use: no such store, baseline or model, or a percentage that is none
  3  nothing could be judged (no earlier run, unstable machine, no samples)"""


def add(
    command: Callable[..., argparse.ArgumentParser],
    store: Callable[[argparse.ArgumentParser], None],
    json: Callable[[argparse.ArgumentParser], None],
) -> None:
    """Add the command to the parser."""
    sub = command(
        "regressions",
        _regressions,
        "what got slower or stopped running since a pinned baseline or the run before, and what may have caused it",
        "labbench regressions --baseline v1.0 --fail-on 5% --format junit --output regressions.xml\n" + STATUS,
    )
    sub.add_argument(
        "--baseline", metavar="NAME", help="a pinned baseline (default: of each cell the stable run before)"
    )
    sub.add_argument(
        "--fail-on",
        default="5%",
        metavar="PERCENT",
        help="how much slower is a regression, at least 2%% (default: 5%%)",
    )
    sub.add_argument("--format", choices=FORMATS, default="text", help="default: %(default)s")
    sub.add_argument("--output", "-o", metavar="FILE", help="default: standard output")
    sub.add_argument("--model", nargs="+", help="only these models")
    store(sub)
    json(sub)


def fraction(text: str) -> float:
    """``5%`` or ``0.05`` as 0.05.

    Raises
    ------
    ConfigError
        If it is neither, not above zero, or a bare number from 1 on, which may be meant either way.
    """
    from labbench.config import ConfigError

    number = text.strip().removesuffix("%").strip()
    try:
        value = float(number)
    except ValueError:
        raise ConfigError(f"--fail-on {text!r} is no percentage; write e.g. 5% or 0.05") from None
    if text.strip().endswith("%"):
        value /= 100
    elif value >= 1:
        raise ConfigError(f"--fail-on {text}: write {text}% if per cent are meant")
    if not 0 < value < math.inf:
        raise ConfigError(f"--fail-on {text!r}: must be above zero, e.g. 5%")
    return value


def _regressions(options: Any) -> int:
    from labbench.analysis.history_report import regressed
    from labbench.analysis.regression_formats import FORMATS, plain
    from labbench.config import ConfigError
    from labbench.manifest import write_text
    from labbench.store import StoreError

    fail_on = fraction(options.fail_on)
    try:
        table = _found(options, fail_on)
    except StoreError as error:  # no such store, or a damaged one: status 1 means a regression
        raise ConfigError(str(error)) from None
    if options.json:
        text = table.to_json(orient="records", indent=2, date_format="iso") + "\n"
    else:
        text = FORMATS[options.format](table, fail_on, options.baseline)
    if options.output:
        try:
            write_text(options.output, text)
        except OSError as error:
            raise ConfigError(f"cannot write {options.output}: {error.strerror}") from None
        print(plain(regressed(table, fail_on, options.baseline)))
    else:
        print(text, end="")
    if table["regressed"].any():
        return REGRESSED
    return 0 if (table["verdict"] != "not judged").any() else NOTHING_JUDGED


def _found(options: Any, fail_on: float) -> pd.DataFrame:
    """The judgement that the options ask for."""
    from labbench.analysis.regressions import compared, regressions
    from labbench.config import require_known
    from labbench.store import Store

    store = Store(options.store)
    ids = None if options.baseline is None else store.baseline(options.baseline)["record_id"].tolist()
    require_known("model", options.model, store.frame(["model"])["model"].dropna().unique())
    frame = store.frame(references=True, **({"model": options.model} if options.model else {}))
    environments = store.environments()
    samples = store.samples(compared(frame, ids, environments))
    return regressions(frame, samples, ids, fail_on, environments=environments)
