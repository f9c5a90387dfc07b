"""labbench: which hardware, in which configuration, should this model run or train on, and what will it cost?

The names below are loaded when first used, so that ``import labbench`` needs neither torch nor transformers nor
scikit-learn and takes milliseconds.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_LAZY = {
    "Cell": "labbench.cells",
    "Grid": "labbench.cells",
    "Platform": "labbench.cells",
    "Workload": "labbench.cells",
    "Record": "labbench.records",
    "Store": "labbench.store",
    "Campaign": "labbench.campaign",
    "Protocol": "labbench.measure.protocol",
    "explore": "labbench.explorer",
}

__all__ = ["__version__", *_LAZY]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
