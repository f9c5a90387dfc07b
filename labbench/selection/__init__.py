"""Which platform to run each workload on under real limits, and why the others were excluded.

Measured records come first; where there is none, a fitted predictor may answer, and the decision says so.
"""

from __future__ import annotations

from labbench.selection.choose import headline, select, study_headline, token_headline
from labbench.selection.decision import Choice, Decision
from labbench.selection.limits import Check, Violation
from labbench.selection.prices import Price, read_prices
from labbench.selection.requirements import Requirements, SelectionError, read_requirements

__all__ = [
    "Check",
    "Choice",
    "Decision",
    "Price",
    "Requirements",
    "SelectionError",
    "Violation",
    "headline",
    "read_prices",
    "read_requirements",
    "select",
    "study_headline",
    "token_headline",
]
